"""Files that are there as they should be, or seen not to be: written beside their names, marked by a hash.

Whatever a command writes, it writes by :class:`Folder`, through no link.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from sqn_rl.errors import CheckpointError, DamagedError, StorageError

BESIDE, GONE, ASIDE = ".partial", ".gone", ".damaged"
"""End the names of what is not complete yet, of what is not complete any more, and of what is set aside."""

BLOCK = 2**20

NOT_OURS = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO)
"""What the system says of a link, a folder or a pipe where a file should be, or the other way round."""

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM)
"""What the system says of a disk that can take no more, or nothing from us."""


@dataclass(frozen=True)
class Mark:
    """What a file must be, or its beginning."""

    bytes: int
    sha256: str


class Folder:
    """A folder that is held open: what is written by it lies in that folder, whoever has its path by now.

    No link in it is followed. A context manager, which closes it.

    Args:
        path: where it is; itself it may be a link, unless it is ``within`` another.
        within: the folder that has it.
        check: called before each change; raises if this folder is not to be changed any more.

    Raises:
        OSError: it cannot be opened.
        StorageError: in any method, a name is that of a link, or of another kind of file than it should be.
    """

    def __init__(
        self, path: Path, *, within: "Folder | None" = None, check: Callable[[], None] = lambda: None
    ) -> None:
        self.path = path
        self._check: Callable[[], None] = within._check if within else check
        inner = {"dir_fd": within.descriptor} if within else {}
        flags = os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if within else 0)
        try:
            self.descriptor: int = os.open(path.name if within else path, flags, **inner)
        except OSError as error:
            raise _explained(error, path, "a folder") from error

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def names(self) -> list[str]:
        """Of everything in it, sorted."""
        return sorted(os.listdir(self.descriptor))

    def folder(self, name: str) -> "Folder":
        """Open a folder in it, which is made unless it is there."""
        self._check()
        with suppress(FileExistsError), self._naming(name):
            os.mkdir(name, dir_fd=self.descriptor)
        return Folder(self.path / name, within=self)

    def write(self, name: str, parts: Iterable[bytes | memoryview]) -> Mark:
        """Write a new file, until it is on the disk; whatever had its name is gone."""
        self.remove(name)
        digest, size = hashlib.sha256(), 0
        with self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            for part in parts:
                digest.update(part)
                size += len(part)
                _write(file, part)
            os.fsync(file)
        return Mark(size, digest.hexdigest())

    def write_whole(self, name: str, parts: Iterable[bytes | memoryview]) -> Mark:
        """Write a file that is there complete, or else as it was before."""
        mark = self.write(name + BESIDE, parts)
        self.publish(name)
        return mark

    def publish(self, name: str) -> None:
        """Have the complete file or folder beside ``name`` appear under it, and survive a power cut."""
        if self._is_folder(name):
            self.discard(name)
        self._rename(name + BESIDE, name)
        self.sync()

    def append(self, name: str, data: bytes) -> None:
        """Write at the end of a file; other names that it has keep what they had."""
        with self.open_own(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
            _write(file, data)

    def truncate(self, name: str, size: int) -> None:
        """Cut off what comes after so many bytes, on the disk too; other names keep what they had."""
        with self.open_own(name, os.O_WRONLY) as file:
            os.ftruncate(file, size)
            os.fsync(file)

    def sync(self, name: str = ".") -> None:
        """Wait until a file's contents, or the folder's names, are on the disk."""
        with self.open(name, os.O_RDONLY) as file:
            os.fsync(file)

    def remove(self, name: str) -> None:
        """Remove what has this name, if anything has: a file, a link, a whole folder."""
        self._check()
        with suppress(FileNotFoundError), self._naming(name):
            if self._is_folder(name):
                shutil.rmtree(name, dir_fd=self.descriptor)
            else:
                os.unlink(name, dir_fd=self.descriptor)

    def discard(self, name: str) -> None:
        """Remove a folder, whose name is gone before anything in it is."""
        self._rename(name, name + GONE)
        self.remove(name + GONE)

    def set_aside(self, name: str) -> None:
        """Give what has this name another one, under which nobody looks for it."""
        others = (f"{name}{ASIDE}{f'-{number}' if number > 1 else ''}" for number in count(1))
        self._rename(name, next(other for other in others if other not in self.names()))

    def take(self, name: str, other: "Folder") -> None:
        """Move a file here from another folder."""
        self._check()
        with self._naming(name):
            os.replace(name, name, src_dir_fd=other.descriptor, dst_dir_fd=self.descriptor)

    def sweep(self) -> None:
        """Remove what is not complete: what somebody who was killed there has left."""
        for name in self.names():
            if is_incomplete(name):
                self.remove(name)

    @contextmanager
    def open(self, name: str, flags: int) -> Iterator[int]:
        """Open a file, but follow no link and wait for no pipe."""
        self._check()
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            file = os.open(name, flags, 0o666, dir_fd=self.descriptor)
        except OSError as error:
            raise _explained(error, self.path / name, "a file") from error
        try:
            yield file
        finally:
            os.close(file)

    @contextmanager
    def open_own(self, name: str, flags: int) -> Iterator[int]:
        """Open a file that has one name: a copy takes the place of one that has more, as `cp -al` makes."""
        with self.open(name, flags) as file:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise StorageError(f"{self.path / name}: not a file")
            if found.st_nlink == 1:
                yield file
                return
        with self.open(name, os.O_RDONLY) as file:
            self.write_whole(name, iter(lambda: os.read(file, BLOCK), b""))
        with self.open(name, flags) as file:
            yield file

    def _rename(self, name: str, other: str) -> None:
        self._check()
        with self._naming(name):
            os.replace(name, other, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Have an error name the file by its path, and not by its name in the folder alone."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path / name)) from error

    def _is_folder(self, name: str) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(name, dir_fd=self.descriptor).st_mode)
        except FileNotFoundError:
            return False


def is_incomplete(name: str) -> bool:
    """Whether it is the name of what is not complete, of which nothing is believed."""
    return name.endswith((BESIDE, GONE))


def save(path: Path, data: bytes) -> None:
    """Write a file that a person has named, whole or not at all.

    Raises:
        OSError: it cannot be written, or there is a link, a folder or a device of that name.
    """
    require_replaceable(path)
    with Folder(path.parent) as folder:
        folder.write_whole(path.name, [data])


def require_replaceable(path: Path) -> None:
    """Raise :class:`OSError` if there is anything but a file at ``path``."""
    if os.path.lexists(path) and not stat.S_ISREG(mode := os.lstat(path).st_mode):
        other = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "not a file"
        what = "a link; name the file itself" if stat.S_ISLNK(mode) else other
        raise FileExistsError(errno.EEXIST, what, str(path))


def _explained(error: OSError, path: Path, what: str) -> Exception:
    """What to raise instead: what is at ``path`` is not ``what`` it should be."""
    if error.errno not in NOT_OURS:
        return OSError(error.errno, error.strerror, str(path))
    link = " but a link" if path.is_symlink() else ""
    return StorageError(f"{path}: not {what}{link}; nothing is written there")


def _write(file: int, data: bytes | memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def require_file(path: Path) -> None:
    """Raise :class:`DamagedError` unless ``path`` is a file: no folder, no pipe, no link elsewhere."""
    _require(path, stat.S_ISREG, "a file")


def require_folder(path: Path) -> None:
    """Raise :class:`DamagedError` unless ``path`` is a folder, and no link to one."""
    _require(path, stat.S_ISDIR, "a folder")


def _require(path: Path, is_right: Any, what: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        raise unreadable(path, error) from error
    if not is_right(mode):
        raise DamagedError(f"{path}: not {what}{' but a link' if stat.S_ISLNK(mode) else ''}")


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """What to raise: :class:`DamagedError` where it is sure that there is no such file."""
    kind = DamagedError if error.errno in (errno.ENOENT, errno.ENOTDIR) else CheckpointError
    return kind(f"{path}: cannot be read ({error.strerror})")


def verify(path: Path, mark: Mark, *, grows: bool = False) -> None:
    """Check that a file is what it was, or, if it ``grows``, begins with that.

    Raises:
        DamagedError: it is missing or damaged.
        CheckpointError: it cannot be read.
    """
    require_file(path)
    size = path.stat().st_size
    if size < mark.bytes or (size > mark.bytes and not grows):
        raise DamagedError(f"{path}: damaged: {size:,} bytes instead of {mark.bytes:,}")
    if digest_of(path, mark.bytes).hexdigest() != mark.sha256:
        raise DamagedError(f"{path}: damaged: its contents have changed (SHA-256)")


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
        raise unreadable(path, error) from error
    return digest
