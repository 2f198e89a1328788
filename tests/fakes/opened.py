"""Which files somebody opened, as the kernel saw it (inotify): what a server really read, whoever asked it to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

_IN_OPEN, _IN_Q_OVERFLOW, _IN_ISDIR = 0x20, 0x4000, 0x4000_0000
_HEAD = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Opened(NamedTuple):
    """A file was opened. at: seconds since 1970, a moment later."""

    path: str
    at: float


class OpenedFiles:
    """Context manager. Watches a folder and those below it that are there at the start."""

    def __init__(self, root: Path) -> None:
        self.log: list[Opened] = []
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._folders: dict[int, bytes] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        for folder, _, _ in os.walk(os.fsencode(root)):
            number = _libc.inotify_add_watch(self._descriptor, folder, _IN_OPEN)
            if number < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch", os.fsdecode(folder))
            self._folders[number] = folder

    def __enter__(self) -> OpenedFiles:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join(5)
        os.close(self._descriptor)

    def counts(self) -> Counter[str]:
        """Path -> how often it was opened so far, after what is under way has been heard."""
        time.sleep(0.05)
        return Counter(path for path, _ in list(self.log))

    def clear(self) -> None:
        """Begin anew."""
        time.sleep(0.05)
        self.log.clear()

    def _listen(self) -> None:
        while not self._ended.is_set():
            if select.select([self._descriptor], [], [], 0.02)[0]:
                with contextlib.suppress(BlockingIOError):
                    self._take(os.read(self._descriptor, 1 << 18))

    def _take(self, events: bytes) -> None:
        at, now = 0, time.time()
        while at < len(events):
            number, mask, _, length = _HEAD.unpack_from(events, at)
            name = events[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
            at += _HEAD.size + length
            assert not mask & _IN_Q_OVERFLOW, "more files were opened than the kernel could tell"
            if name and not mask & _IN_ISDIR:
                self.log.append(Opened(os.fsdecode(self._folders[number] + b"/" + name), now))
