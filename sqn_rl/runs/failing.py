"""Errors of a run, with the file that they are about, and the command to go on with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqn_rl import disk
from sqn_rl.errors import CheckpointError, StorageError, to_type
from sqn_rl.runs import manifest
from sqn_rl.runs.directory import RunDirectory


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Prefix the message of a :class:`CheckpointError` with the file's path."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


@contextmanager
def storing(directory: RunDirectory) -> Iterator[None]:
    """Turn errors of writing into a :class:`StorageError` with a hint."""
    try:
        yield
    except OSError as error:
        directory.require_ours()  # else that is why
        if error.errno not in disk.REFUSALS:
            raise
        saved = manifest.saved_in(directory.checkpoints.folder)
        there = "the checkpoints there are whole" if saved else "there is no checkpoint yet"
        hint = f"{there}; resume with {to_type('sqn-resume', directory.shown)}"
        path = str(error.filename or directory.path).replace(str(directory.path), str(directory.shown), 1)
        raise StorageError(f"{path}: cannot be written: {error.strerror}; {hint}") from error
