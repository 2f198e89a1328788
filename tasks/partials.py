"""A file that exists completely or not at all: written beside its place, hashed on the way, then renamed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import ConfigurationError, LandrecordsError, OutsideUnreachable

SUFFIX = ".part"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_USERS_CHOICE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST}
)


class PartialFile:
    """Context manager. Leaving it without `finish()` removes what was written.

    The file is locked while its writer lives, so that `sweep_partials` can tell the leftovers of a killed
    process from a download under way. Raises OutsideUnreachable (disk full) or ConfigurationError.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        with disk(destination.parent):
            destination.parent.mkdir(parents=True, exist_ok=True)
            self._path, self._descriptor = _create(destination)

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._close()

    def write(self, piece: bytes) -> None:
        """Append `piece`; it counts to the size and the hash."""
        assert self._descriptor is not None  # noqa: S101 - nobody writes after finish()
        self._hash.update(piece)
        self.size_bytes += len(piece)
        with disk(self.destination.parent):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def finish(self) -> str:
        """Make it durable in its place; returns the sha256 (hex) of its content."""
        assert self._descriptor is not None  # noqa: S101 - once
        with disk(self.destination.parent):
            os.fsync(self._descriptor)
            self._path.replace(self.destination)
            self._close()
            _sync_folder(self.destination.parent)
        return self._hash.hexdigest()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Maps what the file system says to our errors, naming the folder."""
    try:
        yield
    except OSError as exc:
        raise _error_of(exc, folder) from exc


def sweep_partials(folder: Path) -> int:
    """Remove, below `folder`, the partial files whose writers are gone; returns how many."""
    return sum(_remove_orphan(path) for path in folder.rglob(f".*{SUFFIX}"))


def _error_of(exc: OSError, folder: Path) -> LandrecordsError:
    if exc.errno in _FULL:
        return OutsideUnreachable(f"The disk of {folder} is full; free space or set LANDRECORDS_SPOOL_DIR.")
    if exc.errno in _USERS_CHOICE:
        return ConfigurationError(f"Cannot write in {folder} ({exc.strerror}); choose another folder.")
    return OutsideUnreachable(f"Writing in {folder} failed ({exc.strerror or exc}); check the disk.")


def _create(destination: Path) -> tuple[Path, int | None]:
    """A new locked file. A sweeper may remove it between open and lock: then another is made."""
    while True:
        path = destination.with_name(f".{destination.name[:40]}.{secrets.token_hex(6)}{SUFFIX}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # a file system without locks: sweeping leaves it alone
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


def _remove_orphan(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:  # locked by a living writer, or just renamed into place
        return False
    finally:
        os.close(descriptor)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
