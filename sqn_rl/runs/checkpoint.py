"""Checkpoints: the complete state of a run on disk, written atomically, and verified on reading.

``checkpoints/<env_steps>/`` holds ``weights.safetensors``, ``state.safetensors`` and ``manifest.json``; the
rows of a replay lie beside, in ``checkpoints/replay/<first>-<end>.safetensors``, each written once, for all
checkpoints that need them. The manifest has the size and SHA-256 of every file and of itself, and all values
that are no tensors. No name in it is ever made a path.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from sqn_rl import disk
from sqn_rl.disk import Folder, Mark
from sqn_rl.errors import CheckpointError, DamagedError, StorageError
from sqn_rl.runs import manifest
from sqn_rl.runs.manifest import FORMAT, MANIFEST
from sqn_rl.runs.serialization import pack, read_tensors, tensors_file, unpack
from sqn_rl.types import Piece, Rows

WEIGHTS, STATE, REPLAY = "weights.safetensors", "state.safetensors", "replay"

_CHUNK = re.compile(r"\d{12,}-\d{12,}\.safetensors")


@dataclass(frozen=True)
class Chunk:
    """A file with rows of the replay."""

    begin: int
    end: int
    mark: Mark


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was loaded and verified."""

    path: Path
    env_steps: int
    weights: dict[str, Tensor]
    state: Any
    """As it was given to :meth:`Checkpoints.save`."""
    run: dict[str, Mark]
    chunks: list[Chunk]
    skipped: list[str]
    """The damage of newer checkpoints."""
    made_with: Mapping[str, Any]
    """The versions of software, and the machine."""


class Checkpoints:
    """The checkpoints of one run, of which the newest are kept.

    Args:
        folder: ``<run>/checkpoints``.
        keep: how many, at least 1.
        run: the run directory, if it is open.
    """

    def __init__(self, folder: Path, keep: int, run: Folder | None = None) -> None:
        self.folder, self.keep, self._run = folder, keep, run
        self._chunks: list[Chunk] = []
        self._saved: int | None = None

    def save(
        self,
        env_steps: int,
        weights: Mapping[str, Tensor],
        state: Any,
        run: Mapping[str, Mark],
        made_with: Mapping[str, Any] = {},
    ) -> None:
        """Write a checkpoint, then remove those that are too many.

        Where the last one is of the same step, only what is None in ``state`` and was not becomes None.

        Args:
            env_steps: its name.
            weights: the learned parameters.
            state: everything else: dicts and lists of tensors, of what JSON has, and one :class:`Rows`.
            run: size and hash of the run's own files.
            made_with: the versions of software, and the machine.

        Raises:
            OSError: the disk is full, or worse. The checkpoints there were are as before.
            StorageError: the run directory is not this run's any more, or there is a link in it.
            CheckpointError: the last checkpoint is of the same step, and can no longer be read.
        """
        if env_steps == self._saved:
            self._drop(env_steps, {name for name, value in state.items() if value is None})
            return
        try:
            chunks = self._write(env_steps, weights, state, run, made_with)
        except OSError:
            with suppress(OSError, StorageError):
                self.make()  # which may make room
            raise
        self._chunks, self._saved = chunks, env_steps
        self.prune(env_steps)

    def load(self) -> Checkpoint | None:
        """Load the newest whole checkpoint; None if none was ever saved.

        Raises:
            CheckpointError: there are some, but none is whole; or one that may be whole cannot be read.
        """
        wrong: list[str] = []
        for path in reversed(manifest.saved_in(self.folder)):
            try:
                found = _load(path, wrong)
            except DamagedError as error:
                wrong.append(str(error))
            except CheckpointError as error:
                hint = f"it may be whole, so nothing was changed; to use an older one, move {path} away"
                raise CheckpointError(f"{error}\n  {hint}") from error
            else:
                self._chunks, self._saved = found.chunks, found.env_steps
                return found
        if wrong:
            raise CheckpointError("\n".join([f"{self.folder}: no checkpoint is whole:", *wrong]))
        return None

    def make(self) -> None:
        """Create the folders, and remove incomplete files."""
        with self._opened():
            pass

    def were_never_saved(self) -> bool:
        """Whether :meth:`make` was called, and no checkpoint was ever complete."""
        if not (self.folder / REPLAY).is_dir():
            return False
        return all(path.name == REPLAY or disk.is_incomplete(path.name) for path in self.folder.iterdir())

    def _write(
        self,
        env_steps: int,
        weights: Mapping[str, Tensor],
        state: Any,
        run: Mapping[str, Mark],
        made_with: Mapping[str, Any],
    ) -> list[Chunk]:
        rows: list[Rows] = []
        tensors: dict[str, Tensor] = {}
        tree = pack(state, "", tensors, rows)
        name = _name(env_steps)
        with self._opened() as (folder, replay):
            chunks = [*self._write_rows(replay, rows[0])] if rows else []
            with folder.folder(name + disk.PARTIAL) as beside:
                contents = {WEIGHTS: weights, STATE: tensors}
                files = {file: beside.write(file, tensors_file(each)) for file, each in contents.items()}
                content = {
                    "format": FORMAT,
                    "env_steps": env_steps,
                    "files": {file: vars(mark) for file, mark in files.items()},
                    "replay": [{"begin": each.begin, "end": each.end, **vars(each.mark)} for each in chunks],
                    "run": {file: vars(mark) for file, mark in run.items()},
                    "made_with": made_with,
                    "state": tree,
                }
                beside.write(MANIFEST, [manifest.render(content)])
                beside.sync()
            folder.publish(name)
        return chunks

    def _drop(self, env_steps: int, lost: set[str]) -> None:
        """Have a checkpoint say of what is ``lost`` that it is None; its tensors stay."""
        path = self.folder / _name(env_steps)
        content = manifest.read(path)
        had = {name for name, value in content["state"].items() if value is not None}
        if lost & had:
            content["state"] |= dict.fromkeys(lost)
            with self._opened() as (folder, _), folder.folder(path.name) as checkpoint:
                checkpoint.write_atomic(MANIFEST, [manifest.render(content)])

    def _write_rows(self, replay: Folder, rows: Rows) -> Iterator[Chunk]:
        """The chunks that have these rows; what no chunk has yet is written."""
        written = [chunk for chunk in self._chunks if chunk.end > rows.begin]
        yield from written
        for begin, end, columns in rows.since(written[-1].end if written else rows.begin):
            yield Chunk(begin, end, replay.write_atomic(_chunk_name(begin, end), tensors_file(columns)))

    def prune(self, env_steps: int) -> None:
        """Remove all but the newest few checkpoints of a run that is at ``env_steps``, and what they need.

        Newer ones, which are damaged, are renamed to ``.damaged``, with their rows, and not read again.
        """
        with self._opened() as (folder, replay):
            saved = manifest.saved_in(self.folder)
            newer = [path for path in saved if int(path.name) > env_steps]
            kept = [path for path in saved if path not in newer][-self.keep :]
            for path in saved:
                if path not in kept + newer:
                    folder.discard(path.name)
            with suppress(CheckpointError):  # else it is not known which rows are needed
                self._remove_rows(folder, replay, kept, [path.name for path in newer if path.is_dir()])
            for path in newer:
                folder.set_aside(path.name)

    def _remove_rows(self, folder: Folder, replay: Folder, kept: list[Path], newer: list[str]) -> None:
        """Remove the rows that those kept do not need, or move them to the newest of the ``newer``."""
        chunks = [chunk for path in kept for chunk in _chunks(manifest.read(path), path)]
        needed = {_chunk_name(chunk.begin, chunk.end) for chunk in chunks}
        others = [name for name in replay.names() if _CHUNK.fullmatch(name) and name not in needed]
        if newer and others:
            with folder.folder(newer[-1]) as damaged, damaged.folder(REPLAY) as aside:
                for name in others:
                    aside.take(name, replay)
        else:
            for name in others:
                replay.remove(name)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Folder, Folder]]:
        """Both folders, with nothing in them that is not complete."""
        with ExitStack() as opened:
            run = self._run or opened.enter_context(Folder(self.folder.parent))
            folder = opened.enter_context(run.folder(self.folder.name))
            replay = opened.enter_context(folder.folder(REPLAY))
            for each in folder, replay:
                each.sweep()
            yield folder, replay


LAST = "last"
"""The newest checkpoint, where one is to be named."""


def read_weights(folder: Path, checkpoint: str | int = LAST) -> tuple[Path, int, dict[str, Tensor]]:
    """The weights of a checkpoint in ``folder``: their file, their environment steps, and the tensors.

    Args:
        folder: ``<run>/checkpoints``.
        checkpoint: :data:`LAST`, or its environment steps.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    found = manifest.saved_in(folder)
    if not found:
        raise CheckpointError(f"{folder}: no checkpoint yet")
    kept: dict[str | int, Path] = {int(path.name): path for path in found} | {LAST: found[-1]}
    if checkpoint not in kept:
        raise CheckpointError(f"{folder}: no checkpoint {checkpoint}; kept: {', '.join(map(str, kept))}")
    path = kept[checkpoint]
    content = manifest.read(path)
    return path / WEIGHTS, content["env_steps"], _tensors(path, WEIGHTS, content)


def _name(env_steps: int) -> str:
    return f"{env_steps:010d}"


def _chunk_name(begin: int, end: int) -> str:
    return f"{begin:012d}-{end:012d}.safetensors"


def _load(path: Path, skipped: list[str]) -> Checkpoint:
    content = manifest.read(path)
    run = manifest.marks_of_run(content, path)
    for name, mark in run.items():
        manifest.verify(path.parents[1] / name, mark)
    chunks, folder = _chunks(content, path), path.parent / REPLAY
    if chunks:
        disk.require_folder(folder)
    for chunk in chunks:
        disk.verify(folder / _chunk_name(chunk.begin, chunk.end), chunk.mark)
    weights, tensors = (_tensors(path, name, content) for name in (WEIGHTS, STATE))
    try:
        state = unpack(content["state"], tensors, _Pieces(folder, chunks))
    except (LookupError, TypeError) as error:
        raise CheckpointError(f"{path / MANIFEST}: names a tensor that is not there: {error}") from error
    known = content["env_steps"], weights, state, run, chunks
    return Checkpoint(path, *known, skipped, content["made_with"])


def _chunks(content: Mapping[str, Any], path: Path) -> list[Chunk]:
    chunks = []
    for value in content["replay"]:
        mark = manifest.mark(value, path)
        begin, end = value.get("begin"), value.get("end")
        if type(begin) is not int or type(end) is not int or not 0 <= begin < end:
            raise CheckpointError(f"{path / MANIFEST}: {value!r:.60} where rows of a replay should be")
        chunks.append(Chunk(begin, end, mark))
    return chunks


def _tensors(path: Path, name: str, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors in one of a checkpoint's files, verified."""
    disk.verify(path / name, manifest.mark(content["files"].get(name), path))
    return dict(read_tensors(path / name))


@dataclass(frozen=True)
class _Pieces:
    """Saved rows, read lazily."""

    folder: Path
    chunks: list[Chunk]

    def __iter__(self) -> Iterator[Piece]:
        for chunk in self.chunks:
            yield (
                chunk.begin,
                chunk.end,
                dict(read_tensors(self.folder / _chunk_name(chunk.begin, chunk.end))),
            )
