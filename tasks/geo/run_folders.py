"""Folders of runs: what their stages stored, kept until a run is complete, so that it can be resumed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import ConfigurationError
from tasks.partials import disk

KEPT_S = 7 * 86_400
"""A run that nobody resumed for so long is forgotten."""

_LOCK = "lock"


@contextlib.contextmanager
def opened_run(runs: Path, run_id: str, *, resumed: bool) -> Iterator[Path]:
    """The folder of a run, nobody else's for the block. Stale ones beside it are removed.

    Raises ConfigurationError where there is none to resume, or where another process is at work on the run.
    """
    folder = runs / run_id
    with disk(runs):
        runs.mkdir(parents=True, exist_ok=True)
    _sweep(runs)
    if resumed and not folder.is_dir():
        raise ConfigurationError(f"Nothing of run {run_id} is kept in {runs}; start the workflow anew.")
    with disk(folder):
        folder.mkdir(exist_ok=True)
        os.utime(folder)
    lock = _locked(folder)
    if lock is None:
        raise ConfigurationError(f"Run {run_id} is at work in another process; wait for it, or end it first.")
    try:
        yield folder
    finally:
        os.close(lock)


def forget(folder: Path) -> None:
    """Remove a run's folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None where another process does."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _sweep(runs: Path) -> None:
    for folder in runs.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process is done with it, or sweeps too
            if folder.is_dir() and time.time() - folder.stat().st_mtime > KEPT_S:
                lock = _locked(folder)
                if lock is not None:
                    forget(folder)
                    os.close(lock)
