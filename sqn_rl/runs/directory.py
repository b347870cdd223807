"""The run directory: a run's recipe, logs, checkpoints, curve and summary."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqn_rl import disk
from sqn_rl.disk import LOG_FILES, RECIPE_FILE, SUMMARY_FILE, Folder, Mark
from sqn_rl.errors import CheckpointError, SettingError, StorageError
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.parts.machine import processor_name
from sqn_rl.plots.curve import draw_curve
from sqn_rl.plots.logs import Log
from sqn_rl.runs import manifest
from sqn_rl.runs.checkpoint import Checkpoint, Checkpoints
from sqn_rl.runs.manifest import CHECKPOINTS
from sqn_rl.runs.serialization import tensors_file
from sqn_rl.runs.status import LOCK, is_at, lock
from sqn_rl.types import Counters

NUMERICS = "numerics.safetensors"


class RunDirectory(Reporter):
    """Writes ``recipe.yaml``, the logs, the checkpoints, the curve and the summary of one run.

    Files are written only into the directory that was opened, and only while ``.lock`` in ``path`` is the
    file that is locked. So a run whose directory was moved or replaced stops, and leaves the new one alone.

    Args:
        path: the directory; it is created, with its parents, and locked until :meth:`close`.
        recipe: the resolved recipe, as YAML text; enough to run again.
        keep: how many checkpoints to keep.
        resume: whether to resume the run in ``path``, if there is one.
        replace: whether ``recipe``, with a larger budget, replaces that run's recipe when it is restored.
        shown: ``path`` as it was given, for messages.

    Raises:
        SettingError: ``path`` already holds a run, is inside a run's directory, or is locked by a process.
        StorageError: in any method that writes: the directory, or its lock, was moved or removed.
    """

    ends_at_once = True

    def __init__(
        self,
        path: Path,
        recipe: str,
        *,
        keep: int = 1,
        resume: bool = False,
        replace: bool = False,
        shown: Path | None = None,
    ) -> None:
        self.path, self.shown, self._lock = path.absolute(), shown or path, -1
        self._evaluation: dict[str, Any] | None = None
        self._restored: Checkpoint | None = None
        self.begun = False
        """Whether training has begun, and the files of a run before were changed."""
        self.made_with = manifest.made_with()
        """The versions of software, and the machine, as the manifests of checkpoints record them."""
        self._require_no_run_around()
        with ExitStack() as opened:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self._folder = opened.enter_context(Folder(self.path, check=self.require_ours))
                self._lock = lock(self._folder, self.shown)
                opened.callback(os.close, self._lock)
                self._logs = {name: _Log(self._folder, file) for name, file in LOG_FILES.items()}
                self._exists = (self.path / RECIPE_FILE).exists()
                is_occupied = self._exists or any(log.path.exists() for log in self._logs.values())
                if is_occupied and not (resume and self._exists):
                    expected = "a directory without a run in it; sqn-resume, or resume=auto, resumes that run"
                    raise SettingError("out", str(self.shown), expected)
                self.is_extended, self._new_recipe = is_occupied and replace, recipe
                if not is_occupied:
                    self._folder.write_atomic(RECIPE_FILE, [recipe.encode()])
                self._recipe = disk.mark_of(self.path / RECIPE_FILE)
            except OSError as error:
                expected = f"a directory that can be written to ({error.strerror})"
                raise SettingError("out", str(self.shown), expected) from error
            self._opened = opened.pop_all()
        self.checkpoints = Checkpoints(self.path / CHECKPOINTS, keep, self._folder)

    def _require_no_run_around(self) -> None:
        """Refuse a new directory inside the directory of another run."""
        if not os.path.lexists(self.path / RECIPE_FILE):
            for parent in self.path.resolve().parents:
                if (parent / RECIPE_FILE).exists() and (parent / LOCK).exists():
                    expected = f"a directory outside the run in {parent}, where no command would find it"
                    raise SettingError("out", str(self.shown), expected)

    def require_ours(self) -> None:
        """Raise :class:`StorageError` if the directory no longer belongs to this run."""
        if self._lock >= 0 and not is_at(self.path / LOCK, self._lock):
            what = "the directory, or its .lock, was moved or removed while the run was at work"
            raise StorageError(f"{self.shown}: {what}; nothing more is written there")

    def restore(self) -> Checkpoint | None:
        """Load the newest intact checkpoint; nothing is written before :meth:`begin`.

        Returns:
            The checkpoint; None if none was ever saved, so that the run starts from the beginning.

        Raises:
            CheckpointError: there are checkpoints, but none is intact; or the logs have rows, but all
                checkpoints are missing.
        """
        found = self.checkpoints.load() if self._exists else None
        rows = [log.path.name for log in self._logs.values() if log.path.exists() and log.path.stat().st_size]
        if not found and rows and not self.checkpoints.were_never_saved():
            missing = f"no checkpoint is there, but {rows[0]} has rows; nothing was changed"
            hint = "bring checkpoints/ back (is a disk not mounted?), or start again in another directory"
            raise CheckpointError(f"{self.checkpoints.folder}: {missing}\n  {hint}")
        self._restored = found
        if found:
            found.state["agent"]["weights"] = found.weights
        return found

    def begin(self, counters: Counters) -> None:
        """Training begins, from the checkpoint that was restored: remove later rows from the logs."""
        found, self.begun = self._restored, True
        if self.is_extended:
            self._folder.write_atomic(RECIPE_FILE, [self._new_recipe.encode()])
            self._recipe = disk.mark_of(self.path / RECIPE_FILE)
        self.checkpoints.make()  # before the first row is logged
        for log in self._logs.values():
            mark = found.run.get(log.path.name) if found else None
            log.cut(mark.bytes if mark else 0)
        self._folder.remove(SUMMARY_FILE)
        if not found:
            self.checkpoints.forget_best()
        else:
            self.checkpoints.prune(found.env_steps)  # a killed process may not have done so
        self._restored = None

    def notes(self, found: Checkpoint) -> list[str]:
        """Notes on the checkpoint that a run resumes from."""
        notes = [f"{why.replace(str(self.path), str(self.shown))}; skipped" for why in found.skipped]
        notes.append(f"resuming from {self.shown}/checkpoints/{found.path.name}")
        then, now = found.made_with, self.made_with
        names = [name for name in then if then[name] != now.get(name)]
        if names:
            others = "; ".join(f"{name} {then[name]}, now {now.get(name)}" for name in names)
            what = "what follows may be rounded or played differently than without a stop"
            notes.append(f"the checkpoint was made with {others}: {what}")
        return notes

    @property
    def evaluated_at(self) -> int | None:
        """The environment steps of the last evaluation."""
        return self._evaluation["env_steps"] if self._evaluation else None

    def metrics(self, row: dict[str, Any]) -> None:
        """Append to ``metrics.jsonl``."""
        self._logs["metrics"].append(row)

    def episode(self, row: dict[str, Any]) -> None:
        """Append to ``episodes.jsonl``."""
        self._logs["episodes"].append(row)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Append to ``evaluations.jsonl``."""
        self._logs["evaluations"].append(row)
        self._evaluation = row

    def checkpoint(self, counters: Counters, take_state: Callable[[], dict[str, Any]]) -> None:
        """Write a checkpoint."""
        logs = {log.path.name: log.mark() for log in self._logs.values() if log.size}
        run = {RECIPE_FILE: self._recipe} | logs
        self._folder.sync()
        state = take_state()
        weights = state["agent"].pop("weights")
        self.checkpoints.save(counters.env_steps, weights, state, run, self.made_with)

    def best(self, row: dict[str, Any], take_weights: Callable[[], dict[str, Any]]) -> None:
        """Keep the weights of the best evaluation so far."""
        run = {RECIPE_FILE: self._recipe}
        self.checkpoints.save_best(row["env_steps"], take_weights(), row, run, self.made_with)

    def save_numerics(self, tensors: Mapping[str, Tensor]) -> None:
        """Write ``numerics.safetensors``, the update that was not finite, for ``sqn-diagnose``."""
        self._folder.write_atomic(NUMERICS, tensors_file(tensors))

    def close(self) -> None:
        """Release the lock."""
        self._opened.close()

    def finish(self, status: str, counters: Counters, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write ``summary.json``, then draw ``curve.png``, and return the summary.

        Args:
            status: ``done``, ``stopped``, or what went wrong.
            counters: the steps and updates that were done.
            facts: recipe, environment, seed and whatever else identifies the run.
        """
        summary = {
            "status": status,
            **facts,
            **counters.row(),
            "steps_per_s": round(counters.env_steps / counters.wall_s, 1) if counters.wall_s else None,
            "evaluation": self._evaluation if status == "done" else None,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": manifest.versions(),
            "git_revision": manifest.git_revision(),
            "hardware": {
                "processor": processor_name(),
                "threads": torch.get_num_threads(),
                "platform": platform.platform(),
            },
            "command": sys.argv,
        }
        if not self.begun:
            self.begin(counters)
        title = f"{facts.get('title')} on {facts.get('env')}, seed {facts.get('seed')}"
        self._folder.write_atomic(SUMMARY_FILE, [json.dumps(summary, indent=2).encode(), b"\n"])
        curve = draw_curve(title, *(Log(log.path).read() for log in self._logs.values()))
        self._folder.write_atomic("curve.png", [curve])
        return summary


class _Log:
    """A file to which rows are appended, with its running hash."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.path, self._folder, self.size, self._digest = folder.path / name, folder, 0, sha256()

    def append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row).encode() + b"\n"
        self._folder.append(self.path.name, line)
        self._digest.update(line)
        self.size += len(line)

    def mark(self) -> Mark:
        """Its current size and hash, after it was flushed to the disk."""
        self._folder.sync(self.path.name)
        return Mark(self.size, self._digest.hexdigest())

    def cut(self, size: int) -> None:
        """Truncate the file to ``size`` bytes."""
        if os.path.lexists(self.path):
            self._folder.truncate(self.path.name, size)
            self.size, self._digest = size, disk.digest_of(self.path, size)
