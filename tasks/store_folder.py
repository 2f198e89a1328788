"""Durable moves for the folder store: temporary files, locks between processes, fsync, disk errors."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tasks.errors import ConfigurationError, LandrecordsError, OutsideUnreachable, TerminalError
from tasks.records import Reason

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNSUITED = {errno.EXDEV, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EMLINK}
_MISNAMED = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}


@contextmanager
def folder_errors(root: Path) -> Iterator[None]:
    """Turn what goes wrong with the store's folder into our errors."""
    try:
        yield
    except OSError as exc:
        raise _ours(exc, root) from exc


def _ours(exc: OSError, root: Path) -> LandrecordsError:
    if exc.errno in _FULL:
        return OutsideUnreachable(
            f"The disk of the store folder {root} is full; free space there or set LANDRECORDS_STORE_URL to another."
        )
    if exc.errno in _FORBIDDEN:
        return ConfigurationError(
            f"The store folder {root} may not be written ({exc.strerror}); "
            "give this user write access or set LANDRECORDS_STORE_URL to another."
        )
    if exc.errno in _UNSUITED:
        return ConfigurationError(
            f"The store folder {root} must be one file system with hard links and locks ({exc.strerror}); "
            "set LANDRECORDS_STORE_URL to another."
        )
    if exc.errno in _MISNAMED:
        return TerminalError(
            Reason.BAD_ROW,
            f"{exc.filename2 or exc.filename} cannot be an object ({exc.strerror}); correct its row.",
        )
    return OutsideUnreachable(
        f"The store folder {root} does not answer ({exc.strerror}); mount it again or repair the disk."
    )


@contextmanager
def temporary(folder: Path) -> Iterator[IO[bytes]]:
    """A new file in `folder` that vanishes afterwards unless renamed. Its lock says that its writer lives."""
    file = _claimed(folder)
    try:
        yield file
    finally:
        with suppress(FileNotFoundError):
            os.unlink(file.name)  # noqa: PTH108 - name is a str
        file.close()


def _claimed(folder: Path) -> IO[bytes]:
    while True:
        file = (folder / f"{os.getpid()}-{secrets.token_hex(8)}.part").open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # swept between open and flock


def sweep(folder: Path) -> int:
    """Remove temporary files whose writers are dead; how many.

    A lock is given back by the kernel however its holder dies, and, unlike a pid, means the same in every
    container that shares the folder.
    """
    removed = 0
    for path in list(folder.iterdir()):
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.name.endswith(_SCRATCH):  # goes with the file that is locked for it
                Path(scratch_of(str(path))).unlink(missing_ok=True)
                path.unlink()
                removed += 1
    return removed


_SCRATCH = ".small"


def scratch_of(slot: str) -> str:
    """A name beside a `temporary` file, for many small files one after the other; swept together with it."""
    return slot + _SCRATCH


def replace_whole(target: str, content: bytes, scratch: str) -> None:
    """Put a small file in its place by a rename. A kill leaves the old one or the new one; durable after a flush."""
    try:
        _write_whole(scratch, content)
        try:
            os.replace(scratch, target)  # noqa: PTH105 - three times as quick as Path.replace
        except FileNotFoundError:
            make_folder(Path(target).parent)
            os.replace(scratch, target)  # noqa: PTH105
    except OSError:
        Path(scratch).unlink(missing_ok=True)
        raise


def _write_whole(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        written = os.write(descriptor, content)
        while written < len(content):  # a disk that fills up takes a part first, and only then refuses
            written += os.write(descriptor, content[written:])
    finally:
        os.close(descriptor)


def flush_file_system(folder: Path) -> None:
    """Everything written to the file system of `folder` is on the disk when this returns.

    One syncfs(2) for a thousand small files costs a hundredth of an fsync for each; where there is none, sync(2).
    """
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _syncfs is None:
            os.sync()
        elif _syncfs(number):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(number)


_syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


@contextmanager
def locked(folder: Path, key: str) -> Iterator[None]:
    """One writer of `key` at a time, over all processes on the folder. 256 locks serve all keys."""
    shard = hashlib.sha256(key.encode()).hexdigest()[:2]
    with (folder / shard).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def flush(file: IO[bytes]) -> None:
    """The bytes are on the disk when this returns."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """The names in `folder` are on the disk when this returns."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def make_folder(folder: Path) -> None:
    """The folder and its parents exist and stay, whatever happens to the machine."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    flush_folder(folder.parent)


def write_durably(path: Path, content: bytes, temp_folder: Path) -> None:
    """Replace `path` by `content`: readers and crashes see the old file or the new one."""
    make_folder(path.parent)
    with temporary(temp_folder) as file:
        file.write(content)
        flush(file)
        os.replace(file.name, path)  # noqa: PTH105 - name is a str
        flush_folder(path.parent)
