"""Threads for the work of all stages of a run. Daemons: a call that does not return never holds up the process."""

from __future__ import annotations

import atexit
import contextvars
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

LEAVE_WITHIN_S = 5.0
"""How long the process waits at its end for calls that were given up; then it ends without tidying up."""


class Workers:
    """A fixed number of threads; what is submitted first is begun first."""

    def __init__(self, threads: int) -> None:
        self._todo: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads = 0
        for _ in range(threads):
            self.add()

    def add(self) -> None:
        """One more; for one that is stuck."""
        self._threads += 1
        threading.Thread(target=self._work, name=f"geo-worker-{self._threads}", daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """The result to come of a call."""
        future: Future[Any] = Future()
        self._todo.put((future, call))
        return future

    def close(self) -> None:
        """Threads end when they have done what they do."""
        for _ in range(self._threads):
            self._todo.put(None)

    def _work(self) -> None:
        while (item := self._todo.get()) is not None:
            future, call = item
            del item
            with _at_work():
                try:
                    future.set_result(call())
                except BaseException as exc:  # noqa: BLE001 - whoever waits for it is told
                    future.set_exception(exc)
            del future, call  # or the last batch would stay until the next one comes


def in_thread(name: str, call: Callable[[], None]) -> threading.Thread:
    """A started daemon thread in the caller's context (Prefect's settings live there)."""
    context = contextvars.copy_context()

    def work() -> None:
        with _at_work():
            context.run(call)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


_busy: set[int] = set()


@contextmanager
def _at_work() -> Iterator[None]:
    thread = threading.get_ident()
    _busy.add(thread)
    try:
        yield
    finally:
        _busy.discard(thread)


def _leave() -> None:
    """A thread in GEOS or GDAL while the interpreter takes their modules down is a segmentation fault."""
    deadline = time.monotonic() + LEAVE_WITHIN_S
    while _busy and time.monotonic() < deadline:
        time.sleep(0.02)
    if _busy:
        sys.stdout.flush()
        os._exit(1)


atexit.register(_leave)
