"""Private folders for programs that write many files: beside the destination, swept after a kill."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tasks.partials import disk

_SUFFIX = ".work"


@contextlib.contextmanager
def work_folder(destination: Path) -> Iterator[Path]:
    """A private folder beside the destination, so that the result is renamed into place.

    Locked while we live: `sweep_work` takes away the folders of killed processes and no others.
    """
    with disk(destination.parent):
        folder, descriptor = _locked_folder(destination)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@contextlib.contextmanager
def opened_work(folder: Path) -> Iterator[Path]:
    """A private folder below `folder`, for what a run makes; those of killed runs are removed."""
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    sweep_work(folder)
    with work_folder(folder / "run") as work:
        yield work


def publish(made: Path, destination: Path) -> None:
    """Durable, then in its place at once (fsync, rename, fsync of the folder)."""
    with disk(destination.parent):
        _sync(made)
        made.replace(destination)
        _sync(destination.parent)


def sweep_work(folder: Path) -> int:
    """Remove, below `folder`, the work folders whose process was killed; returns how many."""
    return sum(_remove_orphan(path) for path in folder.rglob(f".*{_SUFFIX}"))


def _locked_folder(destination: Path) -> tuple[Path, int]:
    """A sweeper may remove the folder between its making and its lock: then another is made."""
    while True:
        made = tempfile.mkdtemp(_SUFFIX, f".{destination.name[:40]}.", destination.parent)
        descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks: sweeping leaves it alone
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if Path(made).exists():
            return Path(made), descriptor
        os.close(descriptor)


def _remove_orphan(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError:  # locked by a living process
        return False
    finally:
        os.close(descriptor)
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
