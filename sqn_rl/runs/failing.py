"""Add to the errors of a run the file that they concern, and the command that resumes the run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqn_rl import disk
from sqn_rl.errors import CheckpointError, StorageError, to_type
from sqn_rl.runs import manifest
from sqn_rl.runs.directory import RunDirectory


@contextmanager
def naming_checkpoint(path: Path) -> Iterator[None]:
    """Prefix the message of a :class:`CheckpointError` with the file's path."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


@contextmanager
def explaining_write_errors(directory: RunDirectory) -> Iterator[None]:
    """Turn errors of writing files into a :class:`StorageError` with a hint."""
    try:
        yield
    except OSError as error:
        directory.require_ours()  # a lost directory is the better explanation
        if error.errno not in disk.REFUSALS:
            raise
        saved = manifest.saved_in(directory.checkpoints.folder)
        state = "the checkpoints there are whole" if saved else "there is no checkpoint yet"
        hint = f"{state}; resume with {to_type('sqn-resume', directory.shown)}"
        path = str(error.filename or directory.path).replace(str(directory.path), str(directory.shown), 1)
        raise StorageError(f"{path}: cannot be written: {error.strerror}; {hint}") from error
