"""The run directory: everything that a run leaves behind."""

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqn_rl import disk
from sqn_rl.checkpoint import Checkpoint, Checkpoints
from sqn_rl.curve import draw_curve
from sqn_rl.disk import Mark
from sqn_rl.errors import SettingError
from sqn_rl.reporting import Counters, Reporter
from sqn_rl.tensors import tensors_file

PACKAGES = ("sqn_rl", "torch", "torchrl", "tensordict", "gymnasium", "ale-py", "numpy")

LOGS = ("metrics", "episodes", "evaluations")

RECIPE, SUMMARY, LOCK, NUMERICS = "recipe.yaml", "summary.json", ".lock", "numerics.safetensors"


class RunDirectory(Reporter):
    """Writes ``recipe.yaml``, the logs, the checkpoints, the curve and the summary of one run.

    Args:
        path: the directory; made, with its parents. Until :meth:`close` it is nobody else's.
        recipe: the resolved recipe, as YAML text; enough to run again.
        keep: how many checkpoints to keep.
        goes_on: whether it is the run's that is in ``path`` already, if there is one.

    Raises:
        SettingError: there is a run in ``path`` already, or another process is at it.
    """

    def __init__(self, path: Path, recipe: str, *, keep: int = 1, goes_on: bool = False) -> None:
        self.path, self.checkpoints = path, Checkpoints(path / "checkpoints", keep)
        self._logs = {name: _Log(path / f"{name}.jsonl") for name in LOGS}
        self._evaluation: dict[str, Any] | None = None
        with ExitStack() as opened:
            try:
                path.mkdir(parents=True, exist_ok=True)
                opened.callback(os.close, _lock(path))
                self._begun = (path / RECIPE).exists()
                there = self._begun or any(log.path.exists() for log in self._logs.values())
                if there and not (goes_on and self._begun):
                    raise SettingError("out", str(path), "a directory without a run in it")
                if not there:
                    disk.write_whole(path / RECIPE, [recipe.encode()])
                self._recipe = disk.mark_of(path / RECIPE)
            except OSError as error:
                expected = f"a directory that can be written to ({error.strerror})"
                raise SettingError("out", str(path), expected) from error
            self._opened = opened.pop_all()

    def restore(self) -> Checkpoint | None:
        """Be where the newest whole checkpoint was taken: rows of logs that are from later are cut off.

        Returns:
            The checkpoint; None where there is none, and the run begins anew.

        Raises:
            CheckpointError: there are some, but none is whole.
        """
        found = self.checkpoints.load() if self._begun else None
        for name, log in self._logs.items():
            mark = found.run.get(f"{name}.jsonl") if found else None
            log.cut(mark.bytes if mark else 0)
        (self.path / SUMMARY).unlink(missing_ok=True)
        if found:
            self.checkpoints.prune(found.env_steps)  # whoever was killed may have been about to
            found.state["agent"]["weights"] = found.weights
        return found

    @property
    def evaluated_at(self) -> int | None:
        """After how many environment steps the last evaluation was."""
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
        run = {RECIPE: self._recipe} | {log.path.name: log.mark() for log in self._logs.values() if log.size}
        disk.sync(self.path)
        state = take_state()
        weights = state["agent"].pop("weights")
        self.checkpoints.save(counters.env_steps, weights, state, run)

    def keep(self, found: Mapping[str, Tensor]) -> None:
        """Write ``numerics.safetensors``: what was not finite, for ``sqn-diagnose``."""
        disk.write_whole(self.path / NUMERICS, tensors_file(found))

    def close(self) -> None:
        """Let others have it."""
        self._opened.close()

    def finish(self, status: str, counters: Counters, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write ``summary.json``, draw ``curve.png``, and return the summary.

        Args:
            status: ``done``, ``stopped``, or what went wrong.
            counters: what was done.
            facts: recipe, environment, seed and whatever else identifies the run.
        """
        summary = {
            "status": status,
            **facts,
            **counters.row(),
            "steps_per_s": round(counters.env_steps / counters.wall_s, 1) if counters.wall_s else None,
            "evaluation": self._evaluation if status == "done" else None,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            "git_revision": _git_revision(),
            "hardware": {
                "processor": _processor(),
                "threads": torch.get_num_threads(),
                "platform": platform.platform(),
            },
            "command": sys.argv,
        }
        title = f"{facts.get('recipe')} on {facts.get('env')}, seed {facts.get('seed')}"
        curve = self.path / "curve.png"
        draw_curve(disk.beside(curve), title, *(read_rows(log.path) for log in self._logs.values()))
        disk.publish(curve)
        disk.write_whole(self.path / SUMMARY, [json.dumps(summary, indent=2).encode(), b"\n"])
        return summary


class _Log:
    """A file of rows that only grows, and knows its hash."""

    def __init__(self, path: Path) -> None:
        self.path, self.size, self._digest = path, 0, sha256()

    def append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row).encode() + b"\n"
        disk.append(self.path, line)
        self._digest.update(line)
        self.size += len(line)

    def mark(self) -> Mark:
        """What it is now, and stays, as it is on the disk."""
        disk.sync(self.path)
        return Mark(self.size, self._digest.hexdigest())

    def cut(self, size: int) -> None:
        """Remove what comes after so many bytes."""
        if os.path.lexists(self.path):
            disk.truncate(self.path, size)
            self.size, self._digest = size, disk.digest_of(self.path, size)


def summary_of(path: Path) -> dict[str, Any]:
    """The ``summary.json`` of the run in ``path``; empty where it has not ended, or is not one."""
    try:
        summary = json.loads((path / SUMMARY).read_bytes())
        return summary if {"status", *vars(Counters()), "steps_per_s"} <= summary.keys() else {}
    except (OSError, ValueError, RecursionError, AttributeError):
        return {}


def status_of(path: Path) -> str:
    """``running``; how the run in ``path`` ended, as its summary says; or ``killed``, if it could not say."""
    if summary := summary_of(path):
        return str(summary["status"])
    try:
        file = os.open(path / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return "killed"
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "running"
    finally:
        os.close(file)
    return "killed"


def _lock(path: Path) -> int:
    """Keep others out for as long as the file stays open; the system opens it when this process dies."""
    file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise SettingError("out", str(path), "a directory that no other run is writing to") from error
    return file


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log such as ``metrics.jsonl``; none if it is not there."""
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def _git_revision() -> str | None:
    """The revision of the checkout that this package runs from, with ``+changes`` if it has any."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        tracked = subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True)
        if tracked.returncode:
            return None
        revision = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout
        changes = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.strip() + ("+changes" if changes else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
