"""Checkpoints: the complete state of a run on disk, written atomically, and verified on reading.

``checkpoints/<env_steps>/`` holds ``weights.safetensors``, ``state.safetensors`` and ``manifest.json``. The
rows of a replay are stored in ``checkpoints/replay/<first>-<end>.safetensors``, each written once for all
checkpoints that need them; those of a second table in ``<first>-<end>.1.safetensors``, and so on.
``checkpoints/best/<env_steps>/`` holds the weights of an evaluation that was the best so far, and a manifest.
It is kept while it is the best of the run or of a checkpoint, as a run may resume from any. A manifest has
the size and SHA-256 of every file and of itself, and all values that are not tensors. No name in a manifest
is ever used as a path.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sqn_rl import disk
from sqn_rl.disk import Folder, Mark
from sqn_rl.errors import CheckpointError, DamagedError, StorageError
from sqn_rl.runs import manifest
from sqn_rl.runs.manifest import MANIFEST, ROWS_NAME, RowsFile
from sqn_rl.runs.saved import BEST, WEIGHTS, name_of, tensors_in, write_folder
from sqn_rl.runs.serialization import pack, read_tensors, tensors_file, unpack
from sqn_rl.types import Piece, Rows

STATE, REPLAY = "state.safetensors", "replay"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was loaded and verified."""

    path: Path
    env_steps: int
    weights: dict[str, Tensor]
    state: Any
    """As it was given to :meth:`Checkpoints.save`."""
    run: dict[str, Mark]
    """Size and hash of the run's own files, by name."""
    rows_files: list[RowsFile]
    """The files with the rows of its replay."""
    skipped: list[str]
    """What is wrong with newer checkpoints, which were skipped."""
    made_with: Mapping[str, Any]
    """The versions of software, and the machine."""
    best: int | None
    """The environment steps of the best evaluation until then, if its weights were kept."""


class Checkpoints:
    """The checkpoints of one run, of which the newest are kept.

    Args:
        folder: ``<run>/checkpoints``.
        keep: how many checkpoints are kept, at least 1.
        run: the run directory, if it is open.
    """

    def __init__(self, folder: Path, keep: int, run: Folder | None = None) -> None:
        self.folder, self.keep, self._run = folder, keep, run
        self._rows_files: list[RowsFile] = []  # of the newest checkpoint
        self._newest: int | None = None  # its environment steps
        self._best: int | None = None  # those of the best weights

    def save(
        self,
        env_steps: int,
        weights: Mapping[str, Tensor],
        state: Any,
        run: Mapping[str, Mark],
        made_with: Mapping[str, Any] = {},
    ) -> None:
        """Write a checkpoint, then remove those that are too many.

        If the newest checkpoint has the same step, it stays: a folder cannot be replaced atomically. But what
        was lost since then must not be restored, such as the state of environments that have failed. So the
        entries of ``state`` that are None now are set to None in its manifest too.

        Args:
            env_steps: the environment steps so far, which name the checkpoint.
            weights: the learned parameters.
            state: everything else: dicts and lists of tensors, JSON values and :class:`Rows`.
            run: size and hash of the run's own files.
            made_with: the versions of software, and the machine.

        Raises:
            OSError: the disk is full, or worse. The earlier checkpoints are unchanged.
            StorageError: the run directory no longer belongs to this run, or there is a link in it.
            CheckpointError: the newest checkpoint has the same step, but can no longer be read.
        """
        if env_steps == self._newest:
            self._remove_lost(env_steps, {name for name, value in state.items() if value is None})
            return
        try:
            rows_files = self._write(env_steps, weights, state, run, made_with)
        except OSError:
            with suppress(OSError, StorageError):
                self.make()  # this may free space
            raise
        self._rows_files, self._newest = rows_files, env_steps
        self.prune(env_steps)

    def save_best(
        self,
        env_steps: int,
        weights: Mapping[str, Tensor],
        evaluation: Mapping[str, Any],
        run: Mapping[str, Mark],
        made_with: Mapping[str, Any] = {},
    ) -> None:
        """Write the weights of the best evaluation so far; earlier ones stay until :meth:`prune`.

        Args:
            env_steps: the environment steps of the evaluation, which name the weights.
            weights: the learned parameters.
            evaluation: its row in the log.
            run: size and hash of the run's own files.
            made_with: the versions of software, and the machine.

        Raises:
            OSError: the disk is full, or worse. The weights that are kept are unchanged.
            StorageError: see :meth:`save`.
        """
        with self._opened() as (folder, _), folder.folder(BEST) as best:
            best.sweep()
            files = {WEIGHTS: weights}
            write_folder(best, env_steps, files, run, made_with, state={"evaluation": evaluation})
        self._best = env_steps

    def load(self) -> Checkpoint | None:
        """Load the newest intact checkpoint; None if none was ever saved.

        Raises:
            CheckpointError: there are some, but none is intact; or one that may be intact cannot be read.
        """
        damage: list[str] = []
        for path in reversed(manifest.saved_in(self.folder)):
            try:
                found = _load(path, damage)
            except DamagedError as error:
                damage.append(str(error))
            except CheckpointError as error:
                hint = f"it may be whole, so nothing was changed; to use an older one, move {path} away"
                raise CheckpointError(f"{error}\n  {hint}") from error
            else:
                self._rows_files, self._newest, self._best = found.rows_files, found.env_steps, found.best
                return found
        if damage:
            hint = "  bring the files back as they were, or start again in another directory: out=DIR"
            lines = [f"{self.folder}: no checkpoint is whole:", *dict.fromkeys(damage), hint]
            raise CheckpointError("\n".join(lines))
        return None

    def make(self) -> None:
        """Create the folders, and remove incomplete files."""
        with self._opened():
            pass

    def forget_best(self) -> None:
        """Remove all best weights, as for a run that starts from the beginning."""
        with self._opened() as (folder, _):
            self._remove_best(folder, set())

    def prune(self, env_steps: int) -> None:
        """Remove old checkpoints of a run that is at ``env_steps``, and rows and weights that only they need.

        Newer ones, which are damaged, are renamed to ``.damaged``, with their rows, and not read again.
        """
        with self._opened() as (folder, replay):
            saved = manifest.saved_in(self.folder)
            newer = [path for path in saved if int(path.name) > env_steps]
            kept = [path for path in saved if path not in newer][-self.keep :]
            for path in saved:
                if path not in kept + newer:
                    folder.discard(path.name)
            with suppress(CheckpointError):  # without all manifests it is not known what is needed
                contents = {path: manifest.read(path) for path in kept}
                self._remove_rows(folder, replay, contents, [path.name for path in newer if path.is_dir()])
                self._remove_best(folder, {self._best, *(each["best"] for each in contents.values())})
            for path in newer:
                folder.set_aside(path.name)

    def were_never_saved(self) -> bool:
        """Whether :meth:`make` was called, and no checkpoint was ever complete."""
        if not (self.folder / REPLAY).is_dir():
            return False
        return all(
            path.name in (REPLAY, BEST) or disk.is_incomplete(path.name) for path in self.folder.iterdir()
        )

    def _write(
        self,
        env_steps: int,
        weights: Mapping[str, Tensor],
        state: Any,
        run: Mapping[str, Mark],
        made_with: Mapping[str, Any],
    ) -> list[RowsFile]:
        """Write a checkpoint, and return all files with rows that it needs."""
        tables: list[Rows] = []
        tensors: dict[str, Tensor] = {}
        tree = pack(state, "", tensors, tables)
        with self._opened() as (folder, replay):
            rows_files = [file for rows in tables for file in self._write_rows(replay, rows)]
            write_folder(
                folder,
                env_steps,
                {WEIGHTS: weights, STATE: tensors},
                run,
                made_with,
                state=tree,
                best=self._best,
                replay=[file.entry() for file in rows_files],
            )
        return rows_files

    def _remove_lost(self, env_steps: int, lost: set[str]) -> None:
        """Set the ``lost`` entries of a saved state to None in the manifest; the file of tensors stays."""
        path = self.folder / name_of(env_steps)
        content = manifest.read(path)
        state = content["state"]
        if any(state.get(name) is not None for name in lost):
            state |= dict.fromkeys(lost)
            with self._opened() as (folder, _), folder.folder(path.name) as checkpoint:
                checkpoint.write_atomic(MANIFEST, [manifest.render(content)])

    def _write_rows(self, replay: Folder, rows: Rows) -> Iterator[RowsFile]:
        """The files with these rows; rows that are in no file yet are written."""
        table = rows.table
        written = [file for file in self._rows_files if file.table == table and file.end > rows.begin]
        yield from written
        for begin, end, columns in rows.since(written[-1].end if written else rows.begin):
            name = manifest.rows_name(begin, end, table)
            yield RowsFile(begin, end, replay.write_atomic(name, tensors_file(columns)), table)

    def _remove_rows(
        self, folder: Folder, replay: Folder, kept: Mapping[Path, Any], newer: list[str]
    ) -> None:
        """Remove rows that no kept checkpoint needs, or move them to the newest of the ``newer``, if any."""
        rows_files = [file for path, content in kept.items() for file in manifest.rows_files(content, path)]
        needed = {file.name for file in rows_files}
        others = [name for name in replay.names() if ROWS_NAME.fullmatch(name) and name not in needed]
        if newer and others:
            with folder.folder(newer[-1]) as damaged, damaged.folder(REPLAY) as aside:
                for name in others:
                    aside.take(name, replay)
        else:
            for name in others:
                replay.remove(name)

    def _remove_best(self, folder: Folder, needed: set[int | None]) -> None:
        """Remove best weights, except those of the environment steps in ``needed``."""
        if saved := manifest.saved_in(self.folder / BEST):
            with folder.folder(BEST) as best:
                for path in saved:
                    if int(path.name) not in needed:
                        best.discard(path.name)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Folder, Folder]]:
        """A context with both folders open, after incomplete files in them were removed."""
        with ExitStack() as opened:
            run = self._run or opened.enter_context(Folder(self.folder.parent))
            folder = opened.enter_context(run.folder(self.folder.name))
            replay = opened.enter_context(folder.folder(REPLAY))
            for each in folder, replay:
                each.sweep()
            yield folder, replay


def _load(path: Path, skipped: list[str]) -> Checkpoint:
    """Load the checkpoint in ``path``, and verify all files that it needs.

    Raises:
        DamagedError: a file is damaged.
        CheckpointError: a file cannot be read, or is not one of a checkpoint.
    """
    content = manifest.read(path)
    if content["state"] is None:
        raise manifest.only_weights(path)
    run = manifest.marks_of_run(content, path)
    for name, mark in run.items():
        manifest.verify(path.parents[1] / name, mark)
    rows_files, folder = manifest.rows_files(content, path), path.parent / REPLAY
    if rows_files:
        disk.require_folder(folder)
    for file in rows_files:
        disk.verify(folder / file.name, file.mark)
    weights, tensors = (tensors_in(path, name, content) for name in (WEIGHTS, STATE))
    try:
        state = unpack(content["state"], tensors, partial(_Pieces, folder, rows_files))
    except (LookupError, TypeError) as error:
        raise CheckpointError(f"{path / MANIFEST}: names a tensor that is not there: {error}") from error
    return Checkpoint(
        path=path,
        env_steps=content["env_steps"],
        weights=weights,
        state=state,
        run=run,
        rows_files=rows_files,
        skipped=skipped,
        made_with=content["made_with"],
        best=content["best"],
    )


@dataclass(frozen=True)
class _Pieces:
    """Saved rows of a table, read lazily."""

    folder: Path
    rows_files: list[RowsFile]
    table: int

    def __iter__(self) -> Iterator[Piece]:
        for file in self.rows_files:
            if file.table == self.table:
                yield file.begin, file.end, dict(read_tensors(self.folder / file.name))
