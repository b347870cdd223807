"""Files that are there as they should be, or seen not to be: written beside their names, marked by a hash."""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqn_rl.errors import CheckpointError

BESIDE, GONE = ".partial", ".gone"
"""End the names of what is not complete yet, and of what is not complete any more."""

BLOCK = 2**20


@dataclass(frozen=True)
class Mark:
    """What a file must be, or its beginning."""

    bytes: int
    sha256: str


def beside(path: Path) -> Path:
    """Where to write what is to appear as ``path``."""
    return path.with_name(path.name + BESIDE)


def write(path: Path, parts: Iterable[bytes | memoryview]) -> Mark:
    """Write a file, until it is on the disk; what was there is lost."""
    digest, size = hashlib.sha256(), 0
    with _open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
        for part in parts:
            digest.update(part)
            size += len(part)
            _write(file, part)
        os.fsync(file)
    return Mark(size, digest.hexdigest())


def append(path: Path, data: bytes) -> None:
    """Write at the end of a file."""
    with _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
        _write(file, data)


def truncate(path: Path, size: int) -> None:
    """Cut off what comes after so many bytes, on the disk too."""
    with _open(path, os.O_WRONLY) as file:
        os.ftruncate(file, size)
        os.fsync(file)


def sync(path: Path) -> None:
    """Wait until a file's contents, or a folder's names, are on the disk."""
    with _open(path, os.O_RDONLY) as file:
        os.fsync(file)


@contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    """Open a file, but follow no link and wait for no pipe."""
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def _write(file: int, data: bytes | memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def publish(path: Path) -> None:
    """Have the complete file or folder beside ``path`` appear under that name, and survive a power cut."""
    if path.is_dir():
        discard(path)
    os.replace(beside(path), path)
    sync(path.parent)


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> Mark:
    """Write a file that is there complete, or else as it was before."""
    mark = write(beside(path), parts)
    publish(path)
    return mark


def discard(path: Path) -> None:
    """Remove a folder, whose name is gone before anything in it is."""
    gone = path.with_name(path.name + GONE)
    os.replace(path, gone)
    shutil.rmtree(gone)


def sweep(folder: Path) -> None:
    """Remove what is not complete: what somebody who was killed there has left."""
    for path in folder.iterdir():
        if path.suffix in (BESIDE, GONE):
            os.unlink(path) if path.is_file() or path.is_symlink() else shutil.rmtree(path)


def require_file(path: Path) -> None:
    """Raise :class:`CheckpointError` unless ``path`` is a file: no folder, no pipe, no link elsewhere."""
    _require(path, stat.S_ISREG, "a file")


def require_folder(path: Path) -> None:
    """Raise :class:`CheckpointError` unless ``path`` is a folder, and no link to one."""
    _require(path, stat.S_ISDIR, "a folder")


def _require(path: Path, is_right: Any, what: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not is_right(mode):
        raise CheckpointError(f"{path}: not {what}{' but a link' if stat.S_ISLNK(mode) else ''}")


def verify(path: Path, mark: Mark, *, grows: bool = False) -> None:
    """Check that a file is what it was, or, if it ``grows``, begins with that.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    require_file(path)
    size = path.stat().st_size
    if size < mark.bytes or (size > mark.bytes and not grows):
        raise CheckpointError(f"{path}: damaged: {size:,} bytes instead of {mark.bytes:,}")
    if digest_of(path, mark.bytes).hexdigest() != mark.sha256:
        raise CheckpointError(f"{path}: damaged: its contents have changed (SHA-256)")


def mark_of(path: Path) -> Mark:
    """What a file is."""
    require_file(path)
    size = path.stat().st_size
    return Mark(size, digest_of(path, size).hexdigest())


def digest_of(path: Path, size: int) -> Any:
    """The SHA-256 of a file's first bytes, to be gone on with."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while size > 0 and (block := file.read(min(BLOCK, size))):
                digest.update(block)
                size -= len(block)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    return digest
