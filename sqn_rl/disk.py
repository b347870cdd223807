"""Durable files: written atomically beside their final names, and verified by size and SHA-256.

Every command writes through :class:`Folder`, which follows no link.
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

PARTIAL, REMOVED, DAMAGED = ".partial", ".gone", ".damaged"
"""Suffixes of names: being written, being removed, and set aside as damaged."""

BLOCK = 2**20

LONGEST_NAME = 100
"""The most bytes of a file name that is made from a user's text; file systems allow 255."""

RECIPE_FILE, SUMMARY_FILE, EVALUATIONS_FILE = "recipe.yaml", "summary.json", "evaluations.jsonl"
"""Files in a run directory that are read elsewhere too."""

LOG_FILES = {"metrics": "metrics.jsonl", "episodes": "episodes.jsonl", "evaluations": EVALUATIONS_FILE}
"""The logs in a run directory."""

WRONG_KIND = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO)
"""System errors for a link, a folder or a pipe in place of a file, or a file in place of a folder."""

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM)
"""System errors for a full, failing or read-only disk, or one that we may not write to."""


@dataclass(frozen=True)
class Mark:
    """Expected size and SHA-256 of a file, or of its first bytes."""

    bytes: int
    sha256: str


class Folder:
    """A folder held open by its descriptor: writes reach that folder even if its path is renamed.

    No link in it is followed. As a context manager it closes itself.

    Args:
        path: the folder; it may be a link, unless it is ``within`` another.
        within: the parent folder.
        check: called before each change; raises if this folder must not be changed any more.

    Raises:
        OSError: it cannot be opened.
        StorageError: in any method, a name is a link, or the wrong kind of file.
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
            raise _storage_error(error, path, "a folder") from error

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def names(self) -> list[str]:
        """The names of all entries, sorted."""
        return sorted(os.listdir(self.descriptor))

    def folder(self, name: str) -> "Folder":
        """Open a folder in it, and create it if it does not exist."""
        self._check()
        with suppress(FileExistsError), self._naming(name):
            os.mkdir(name, dir_fd=self.descriptor)
        return Folder(self.path / name, within=self)

    def write(self, name: str, parts: Iterable[bytes | memoryview]) -> Mark:
        """Write a new file and flush it to the disk; an existing entry of that name is removed first."""
        self.remove(name)
        digest, size = hashlib.sha256(), 0
        with self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            for part in parts:
                digest.update(part)
                size += len(part)
                _write(file, part)
            os.fsync(file)
        return Mark(size, digest.hexdigest())

    def write_atomic(self, name: str, parts: Iterable[bytes | memoryview]) -> Mark:
        """Write a file atomically: after a crash it is either complete or as it was before."""
        mark = self.write(name + PARTIAL, parts)
        self.publish(name)
        return mark

    def publish(self, name: str) -> None:
        """Rename the complete ``name.partial`` to ``name``, durably even in a power cut."""
        if self._is_folder(name):
            self.discard(name)
        self._rename(name + PARTIAL, name)
        self.sync()

    def append(self, name: str, data: bytes) -> None:
        """Append to a file; its other hard links keep their contents."""
        with self.open_own(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
            _write(file, data)

    def truncate(self, name: str, size: int) -> None:
        """Truncate a file to ``size`` bytes and flush it; its other hard links keep their contents."""
        with self.open_own(name, os.O_WRONLY) as file:
            os.ftruncate(file, size)
            os.fsync(file)

    def sync(self, name: str = ".") -> None:
        """Flush a file's contents, or the folder's names, to the disk."""
        with self.open(name, os.O_RDONLY) as file:
            os.fsync(file)

    def remove(self, name: str) -> None:
        """Remove the entry of this name, if it exists: a file, a link, or a folder with its contents."""
        self._check()
        with suppress(FileNotFoundError), self._naming(name):
            if self._is_folder(name):
                shutil.rmtree(name, dir_fd=self.descriptor)
            else:
                os.unlink(name, dir_fd=self.descriptor)

    def discard(self, name: str) -> None:
        """Remove a folder: first its name, then its contents, so that no half-removed folder has the name."""
        self._rename(name, name + REMOVED)
        self.remove(name + REMOVED)

    def set_aside(self, name: str) -> None:
        """Rename an entry to ``name.damaged``, or ``name.damaged-2`` and so on, which no command reads."""
        others = (f"{name}{DAMAGED}{f'-{number}' if number > 1 else ''}" for number in count(1))
        self._rename(name, next(other for other in others if other not in self.names()))

    def take(self, name: str, other: "Folder") -> None:
        """Move a file here from another folder."""
        self._check()
        with self._naming(name):
            os.replace(name, name, src_dir_fd=other.descriptor, dst_dir_fd=self.descriptor)

    def sweep(self) -> None:
        """Remove incomplete entries, as a killed process leaves them."""
        for name in self.names():
            if is_incomplete(name):
                self.remove(name)

    @contextmanager
    def open(self, name: str, flags: int) -> Iterator[int]:
        """Open a file without following links and without waiting for a pipe."""
        self._check()
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            file = os.open(name, flags, 0o666, dir_fd=self.descriptor)
        except OSError as error:
            raise _storage_error(error, self.path / name, "a file") from error
        try:
            yield file
        finally:
            os.close(file)

    @contextmanager
    def open_own(self, name: str, flags: int) -> Iterator[int]:
        """Open a file without other hard links; one that has some (`cp -al`) is replaced by a copy first."""
        with self.open(name, flags) as file:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise StorageError(f"{self.path / name}: not a file")
            if status.st_nlink == 1:
                yield file
                return
        with self.open(name, os.O_RDONLY) as file:
            self.write_atomic(name, iter(lambda: os.read(file, BLOCK), b""))
        with self.open(name, flags) as file:
            yield file

    def _rename(self, name: str, other: str) -> None:
        self._check()
        with self._naming(name):
            os.replace(name, other, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Make errors inside name the file by its whole path, not by its name in the folder."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path / name)) from error

    def _is_folder(self, name: str) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(name, dir_fd=self.descriptor).st_mode)
        except FileNotFoundError:
            return False


def hashed_name(plain: str, text: str) -> str:
    """A file name: at most ``LONGEST_NAME`` bytes of ``plain``, and a hash of the ``text`` it stands for."""
    short = plain.encode()[:LONGEST_NAME].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:8]}"


def is_incomplete(name: str) -> bool:
    """Whether a name marks an incomplete entry, which is never read."""
    return name.endswith((PARTIAL, REMOVED))


def save(path: Path, data: bytes) -> None:
    """Write a file at a path that the user chose, atomically.

    Raises:
        OSError: it cannot be written, or the path is a link, a folder or a device.
    """
    require_replaceable(path)
    with Folder(path.parent) as folder:
        folder.write_atomic(path.name, [data])


def require_replaceable(path: Path) -> None:
    """Raise :class:`OSError` if ``path`` exists and is not a file."""
    if os.path.lexists(path) and not stat.S_ISREG(mode := os.lstat(path).st_mode):
        other = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "not a file"
        what = "a link; name the file itself" if stat.S_ISLNK(mode) else other
        raise FileExistsError(errno.EEXIST, what, str(path))


def _storage_error(error: OSError, path: Path, what: str) -> Exception:
    """The error to raise instead where ``path`` is not ``what`` it should be."""
    if error.errno not in WRONG_KIND:
        return OSError(error.errno, error.strerror, str(path))
    link = " but a link" if path.is_symlink() else ""
    return StorageError(f"{path}: not {what}{link}; nothing is written there")


def _write(file: int, data: bytes | memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def require_file(path: Path) -> None:
    """Raise :class:`DamagedError` unless ``path`` is a regular file: no folder, no pipe, no link."""
    _require(path, stat.S_ISREG, "a file")


def require_folder(path: Path) -> None:
    """Raise :class:`DamagedError` unless ``path`` is a folder, and not a link to one."""
    _require(path, stat.S_ISDIR, "a folder")


def _require(path: Path, is_right: Any, what: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        raise read_error(path, error) from error
    if not is_right(mode):
        raise DamagedError(f"{path}: not {what}{' but a link' if stat.S_ISLNK(mode) else ''}")


def read_error(path: Path, error: OSError) -> CheckpointError:
    """The error for a failed read: :class:`DamagedError` if the file certainly does not exist."""
    kind = DamagedError if error.errno in (errno.ENOENT, errno.ENOTDIR) else CheckpointError
    return kind(f"{path}: cannot be read ({error.strerror})")


def verify(path: Path, mark: Mark, *, grows: bool = False) -> None:
    """Check that a file has the expected contents, or, if it ``grows``, begins with them.

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
    """The present size and SHA-256 of a file."""
    require_file(path)
    size = path.stat().st_size
    return Mark(size, digest_of(path, size).hexdigest())


def digest_of(path: Path, size: int) -> Any:
    """The SHA-256 of a file's first ``size`` bytes, as a hash object that can be updated further."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while size > 0 and (block := file.read(min(BLOCK, size))):
                digest.update(block)
                size -= len(block)
    except OSError as error:
        raise read_error(path, error) from error
    return digest
