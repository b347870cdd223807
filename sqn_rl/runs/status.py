"""Whether a process is writing to a run's directory, and how a run has ended."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqn_rl.disk import SUMMARY_FILE, Folder
from sqn_rl.errors import SettingError
from sqn_rl.plots.logs import finite_number
from sqn_rl.recipe.reading import DataError, is_there, read_json
from sqn_rl.types import Counters

STATUSES = ("done", "stopped", "numerics", "error")
"""How a run ends, by its summary."""

LOCK = ".lock"

PAUSES = (0.01, 0.02, 0.04, 0.08)
"""Seconds between the attempts to lock a directory, which :func:`is_locked` locks for a moment."""


def read_summary(path: Path) -> dict[str, Any]:
    """The ``summary.json`` of the run in ``path``; empty if the run has not ended.

    Raises:
        DataError: the file is damaged.
    """
    return read_json(path / SUMMARY_FILE) if is_there(path / SUMMARY_FILE) else {}


def summary_of(path: Path) -> dict[str, Any]:
    """The ``summary.json`` of the run in ``path``; empty if there is none, or no valid one."""
    try:
        summary = read_summary(path)
    except DataError:
        return {}
    numbers = [summary.get(name) for name in vars(Counters())] + [summary.get("steps_per_s") or 0]
    known = summary.get("status") in STATUSES and None not in map(finite_number, numbers)
    return summary if known and "steps_per_s" in summary else {}


def status_of(path: Path) -> str:
    """The status of the run in ``path``: as its summary says; without one, ``running`` or ``killed``."""
    if not (summary := summary_of(path)):
        if is_locked(path):
            return "running"
        summary = summary_of(path)  # it may have ended between the two
    return str(summary["status"]) if summary else "killed"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A context in which a folder is locked; :class:`SettingError` if another process has the lock."""
    with Folder(path) as folder, ExitStack() as opened:
        try:
            opened.callback(os.close, lock(folder, path))
        except OSError as error:
            expected = f"a directory that can be written to ({error.strerror})"
            raise SettingError("out", str(path), expected) from error
        yield


def is_locked(path: Path) -> bool:
    """Whether a process is writing to the run in ``path``."""
    try:
        file = os.open(path / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def lock(folder: Folder, shown: Path) -> int:
    """Lock a folder while the returned file is open; the system closes it when this process dies.

    Args:
        folder: the folder.
        shown: its path in messages.

    Raises:
        SettingError: another process has the lock.
        OSError: the folder cannot be written to.
    """
    while True:
        file = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666, dir_fd=folder.descriptor)
        try:
            _lock_file(file)
        except OSError as error:
            os.close(file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            expected = "a directory that no other run is writing to"
            raise SettingError("out", str(shown), expected) from error
        shared = os.fstat(file).st_nlink > 1
        if not shared and is_at(folder.path / LOCK, file):
            return file
        if shared:  # with a copy of the directory made by hard links
            folder.remove(LOCK)
        os.close(file)


def _lock_file(file: int) -> None:
    for pause in PAUSES:
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(pause)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_at(path: Path, file: int) -> bool:
    """Whether an open file is the one at ``path``."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.path.samestat(os.lstat(path), os.fstat(file))
    return False
