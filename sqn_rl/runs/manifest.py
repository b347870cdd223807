"""Manifests of checkpoints: their format, and size and SHA-256 of the files of a run.

Importing this module does not import torch.
"""

import json
import platform
import re
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqn_rl import disk
from sqn_rl.disk import RECIPE_FILE, Mark
from sqn_rl.errors import CheckpointError, DamagedError
from sqn_rl.parts.machine import has_amx, processor_name
from sqn_rl.recipe.reading import DataError, is_there

PACKAGES = ("sqn_rl", "torch", "torchrl", "tensordict", "gymnasium", "ale-py", "numpy")
"""The packages whose versions are written down."""

FORMAT = 2
"""The format of manifests that is read and written."""

MANIFEST_BYTES = 2**28
"""The largest manifest that is read."""

CHECKED_BYTES = 2**32
"""The largest file of a run that :func:`changes` reads."""

MANIFEST, CHECKPOINTS = "manifest.json", "checkpoints"

ROWS_NAME = re.compile(r"\d{12,}-\d{12,}(\.\d+)?\.safetensors")
"""The names of files with rows of the replay: :func:`rows_name`."""

_NAME = re.compile(r"\d{10,}")


@dataclass(frozen=True)
class RowsFile:
    """A file with the rows [begin, end) of a table of the replay."""

    begin: int
    end: int
    mark: Mark
    table: int = 0

    @property
    def name(self) -> str:
        """The name of the file."""
        return rows_name(self.begin, self.end, self.table)

    def entry(self) -> dict[str, Any]:
        """Its entry in a manifest."""
        table = {"table": self.table} if self.table else {}
        return {"begin": self.begin, "end": self.end, **table, **vars(self.mark)}


def rows_name(begin: int, end: int, table: int) -> str:
    """The name of the file with the rows [begin, end) of a table."""
    return f"{begin:012d}-{end:012d}{f'.{table}' if table else ''}.safetensors"


def saved_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    try:
        if not is_there(folder):
            return []
    except DataError as error:
        raise CheckpointError(str(error)) from error
    disk.require_folder(folder)
    try:
        found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    except OSError as error:
        raise disk.read_error(folder, error) from error
    return sorted(found, key=lambda path: int(path.name))


def changes(run: Path, names: Collection[str]) -> list[str]:
    """The files of a run that differ from its newest manifest; none if there is no checkpoint.

    A log may have grown since then.

    Args:
        run: the run directory.
        names: the files to check, if the manifest has them: ``recipe.yaml``, ``evaluations.jsonl``.

    Raises:
        CheckpointError: the manifest is damaged, or cannot be read.
    """
    found = []
    newest = saved_in(run / CHECKPOINTS)[-1:]
    marks = {name: each for path in newest for name, each in marks_of_run(read(path), path).items()}
    for name in sorted(marks.keys() & names):
        try:
            if marks[name].bytes > CHECKED_BYTES:
                raise CheckpointError(
                    f"{run / name}: more than {CHECKED_BYTES:,} bytes, which are not checked"
                )
            verify(run / name, marks[name])
        except DamagedError:
            found.append(f"{run / name}: changed since the run wrote it")
        except CheckpointError as error:
            found.append(str(error))
    return found


def is_model(run: Path) -> bool:
    """Whether the newest checkpoint has weights only, as sqn-push writes them; False if it cannot be read."""
    try:
        return any(read(path)["state"] is None for path in saved_in(run / CHECKPOINTS)[-1:])
    except CheckpointError:
        return False


def require_resumable(run: Path) -> None:
    """Raise :class:`CheckpointError` for a model of sqn-push, of which no run can be resumed."""
    if is_model(run):
        raise only_weights(run)


def only_weights(path: Path) -> CheckpointError:
    """The error for a model, or its checkpoint, of which a run shall be resumed."""
    uses = "sqn-eval, sqn-export and sqn_rl.load use them, but a run cannot be resumed from them"
    return CheckpointError(f"{path}: only weights, as written by sqn-push: {uses}")


def noted_changes(run: Path, names: Collection[str]) -> list[str]:
    """As :func:`changes`; if the manifest cannot be read, the reason why."""
    try:
        return changes(run, names)
    except CheckpointError as error:
        return [f"{error}; whether the run's files were changed is not known"]


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's manifest, intact and of our format. Every format has the same SHA-256 field.

    Raises:
        DamagedError: it is missing or damaged.
        CheckpointError: it cannot be read, or is not of our format.
    """
    disk.require_folder(path)
    path = path / MANIFEST
    disk.require_file(path)
    try:
        if path.stat().st_size > MANIFEST_BYTES:  # it would be a sparse file
            raise ValueError(f"larger than {MANIFEST_BYTES:,} bytes")
        text = path.read_bytes()
        content = json.loads(text)
        del content["sha256"]
        is_intact, written_format = text == render(content), content["format"]
    except OSError as error:
        raise disk.read_error(path, error) from error
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise DamagedError(f"{path}: damaged: {type(error).__name__}: {error}") from error
    if not is_intact:
        raise DamagedError(f"{path}: damaged: its contents have changed (SHA-256)")
    if written_format != FORMAT:
        raise CheckpointError(f"{path}: format {written_format}; this version of sqn_rl reads {FORMAT}")
    content.setdefault("made_with", {})  # older manifests of this format lack these two
    content.setdefault("best", None)
    kinds: dict[str, Any] = {"env_steps": int, "files": dict, "replay": list, "run": dict}
    kinds |= {"made_with": dict, "state": object}
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind):
            raise CheckpointError(f"{path}: no {name} in it")
    best = content["best"]
    if best is not None and not (type(best) is int and 0 <= best <= content["env_steps"]):
        raise CheckpointError(f"{path}: {best!r:.60} where the steps of the best evaluation should be")
    if content["env_steps"] != int(path.parent.name):
        raise DamagedError(f"{path}: is that of {content['env_steps']} steps")
    return content


def render(content: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest; equal contents give equal bytes."""
    text = json.dumps(content, indent=1)
    return json.dumps({**content, "sha256": sha256(text.encode()).hexdigest()}, indent=1).encode()


def mark(value: Any, path: Path) -> Mark:
    """The mark that a value in the manifest of the checkpoint in ``path`` stands for.

    Raises:
        CheckpointError: the value is no mark.
    """
    try:
        size, digest = value["bytes"], value["sha256"]
    except (TypeError, LookupError):
        size = digest = None
    if type(size) is not int or not isinstance(digest, str):
        raise CheckpointError(f"{path / MANIFEST}: {value!r:.60} where a size and a SHA-256 should be")
    return Mark(size, digest)


def marks_of_run(content: Mapping[str, Any], path: Path) -> dict[str, Mark]:
    """The marks of the run's own files in the manifest of the checkpoint in ``path``, by name.

    Raises:
        CheckpointError: a name is not that of a run's file.
    """
    marks = {name: mark(value, path) for name, value in content["run"].items()}
    for name in marks:
        if not re.fullmatch(r"\w+\.(yaml|jsonl)", name):
            raise CheckpointError(f"{path / MANIFEST}: {name!r} is no file of a run")
    return marks


def rows_files(content: Mapping[str, Any], path: Path) -> list[RowsFile]:
    """The files with rows of the replay in the manifest of the checkpoint in ``path``.

    Raises:
        CheckpointError: an entry is not that of such a file.
    """
    found = []
    for value in content["replay"]:
        own = mark(value, path)
        begin, end, table = value.get("begin"), value.get("end"), value.get("table", 0)
        are_whole = all(type(number) is int for number in (begin, end, table))
        if not are_whole or not 0 <= begin < end or table < 0:
            raise CheckpointError(f"{path / MANIFEST}: {value!r:.60} where rows of a replay should be")
        found.append(RowsFile(begin, end, own, table))
    return found


def verify(path: Path, mark: Mark) -> None:
    """Check that a run's own file is unchanged, or, if it is a log, that only rows were appended.

    The ``recipe.yaml`` of a run that was extended since then may differ in the budget.

    Raises:
        DamagedError: it is missing or damaged.
        CheckpointError: it cannot be read.
    """
    try:
        disk.verify(path, mark, grows=path.suffix == ".jsonl")
    except DamagedError:
        if path.name != RECIPE_FILE or not is_there(path) or path.stat().st_size > MANIFEST_BYTES:
            raise
        text = path.read_bytes()
        while disk.Mark(len(text), sha256(text).hexdigest()) != mark:
            text, undone = _EXTENDED.subn(rb"steps: \1  # \2\n", text, count=1)
            if not undone:
                raise


def extended(text: str, steps: int) -> str:
    """A ``recipe.yaml`` with a larger budget; its line also keeps the old budget and its origin."""
    origin = rf"command line: steps={steps}, before: \1 <- \2"
    return re.sub(
        r"^steps: (\d+)  # (.*)\n", rf"steps: {steps}  # {origin}\n", text, count=1, flags=re.MULTILINE
    )


_EXTENDED = re.compile(rb"^steps: \d+  # command line: steps=\d+, before: (\d+) <- (.*)\n", re.MULTILINE)


def versions() -> dict[str, str]:
    """The versions of the packages that matter for results, and of Python."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def made_with() -> dict[str, Any]:
    """What, besides the recipe, determines how numbers are rounded and environments behave."""
    import torch

    return {
        **versions(),
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "amx": has_amx(),
        "threads": torch.get_num_threads(),
    }


def git_revision() -> str | None:
    """The revision of the checkout that this package runs from, with ``+changes`` if it has any."""
    git = ["git", "-C", str(Path(__file__).parent)]
    run = partial(subprocess.run, capture_output=True, text=True)
    try:
        if run([*git, "ls-files", "--error-unmatch", __file__]).returncode:
            return None
        revision = run([*git, "rev-parse", "HEAD"], check=True).stdout
        changes = run([*git, "status", "--porcelain", "-uno"]).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision.strip() + ("+changes" if changes else "")
