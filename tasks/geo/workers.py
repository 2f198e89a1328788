"""Threads for the work of all stages of a run. Daemons: a call that does not return never holds up the process."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


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
            try:
                future.set_result(call())
            except BaseException as exc:  # noqa: BLE001 - whoever waits for it is told
                future.set_exception(exc)
            del future, call  # or the last batch would stay until the next one comes


def in_thread(name: str, call: Callable[[], None]) -> threading.Thread:
    """A started daemon thread in the caller's context (Prefect's settings live there)."""
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(call,), name=name, daemon=True)
    thread.start()
    return thread
