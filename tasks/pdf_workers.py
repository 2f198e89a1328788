"""PDF work in processes of its own: pikepdf holds the GIL for seconds, a bad document may crash or hang it.

Workers are started as `python -m tasks.pdf_worker`, not by multiprocessing: its spawn and forkserver import
the user's script again (a flow run by a script without a `__main__` guard would start itself), and its fork
is unsafe in a process with threads. A worker that hangs or crashes takes one document with it; the next
call gets a new one.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from pathlib import Path
from typing import Any

from tasks import errors
from tasks.errors import LandrecordsError
from tasks.pdf_facts import PdfFacts
from tasks.pdf_process import TICK_S, Died, Stops, Worker, blame
from tasks.records import Reason

_MEMORY_BYTES = 2 << 30


class PdfWorkers:
    """At most `max_workers` processes, started when needed. Safe for threads; calls beyond that wait.

    memory_bytes  address space of one worker; a document that needs more fails with `too_large`

    Every method takes `timeout_s` (the worker is killed then: TerminalError, reason timeout) and `stop`, an
    event that ends the call with StopRequested, as `close()` does. A document that crashes its worker is
    TerminalError(damaged).
    """

    def __init__(self, max_workers: int = 2, *, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._slots: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(max_workers):
            self._slots.put(None)
        self._living: set[Worker] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __enter__(self) -> PdfWorkers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def inspect(
        self,
        path: Path,
        *,
        declared_bytes: int | None,
        expected_pages: int | None,
        keep_page_mismatch: bool = False,
        check_streams: bool = True,
        timeout_s: float = 60.0,
        stop: threading.Event | None = None,
    ) -> PdfFacts:
        """`tasks.pdf_ladder.inspect` in a worker; raises what it raises."""
        given = {
            "path": path,
            "declared_bytes": declared_bytes,
            "expected_pages": expected_pages,
            "keep_page_mismatch": keep_page_mismatch,
            "check_streams": check_streams,
        }
        return PdfFacts.from_json(self._call("inspect", given, timeout_s, stop))

    def tiff_to_pdf(
        self, source: Path, destination: Path, *, timeout_s: float = 60.0, stop: threading.Event | None = None
    ) -> None:
        """`tasks.tiff.tiff_to_pdf` in a worker; raises what it raises."""
        self._call("tiff_to_pdf", {"source": source, "destination": destination}, timeout_s, stop)

    def lossless_rewrite(
        self, source: Path, destination: Path, *, timeout_s: float = 60.0, stop: threading.Event | None = None
    ) -> None:
        """`tasks.pdf_ladder.lossless_rewrite` in a worker; raises what it raises."""
        self._call("lossless_rewrite", {"source": source, "destination": destination}, timeout_s, stop)

    def versions(self) -> dict[str, str]:
        """Versions of pikepdf, qpdf and img2pdf."""
        found: dict[str, str] = self._call("versions", {}, 60.0, None)
        return found

    def close(self) -> None:
        """Kill all workers; calls under way and later ones raise StopRequested."""
        with self._lock:
            self._closed.set()
            for worker in self._living:
                worker.kill()
        self._end_idle()

    def _call(self, operation: str, given: dict[str, Any], timeout_s: float, stop: threading.Event | None) -> Any:
        paths = [name for name, value in given.items() if isinstance(value, Path)]
        plain = {name: str(value.absolute()) if name in paths else value for name, value in given.items()}
        request = {"operation": operation, "given": plain, "paths": paths, "timeout_s": timeout_s}
        stops = Stops(self._closed, stop)
        reply = self._ask(request, timeout_s, stops, self._slot(stops))
        if "error" in reply:
            raise _error_of(reply)
        return reply["value"]

    def _slot(self, stops: Stops) -> Worker | None:
        while True:
            stops.check()
            with contextlib.suppress(queue.Empty):
                return self._slots.get(timeout=TICK_S)

    def _ask(self, request: dict[str, Any], timeout_s: float, stops: Stops, worker: Worker | None) -> dict[str, Any]:
        """Use a slot; it comes back with the worker, or empty when the worker is no good any more."""
        kept: Worker | None = None
        try:
            worker = self._ready(worker, stops)
            reply = worker.ask(request, timeout_s, stops)
            kept = None if reply["retire"] else worker
            return reply
        except Died as died:
            stops.check()
            raise blame(died) from None
        finally:
            if kept is None:
                self._discard(worker)
            self._slots.put(kept)
            if self._closed.is_set():
                self._end_idle()

    def _ready(self, worker: Worker | None, stops: Stops) -> Worker:
        """The worker of the slot, or a new one when there is none or it died while idle."""
        if worker is not None and worker.alive():
            return worker
        self._discard(worker)
        with self._lock:
            stops.check()
            fresh = Worker(self._memory_bytes)
            self._living.add(fresh)
        try:
            fresh.greet(stops)
        except BaseException:
            self._discard(fresh)
            raise
        return fresh

    def _discard(self, worker: Worker | None) -> None:
        with self._lock:
            ours = worker is not None and worker in self._living
            self._living -= {worker}
        if worker is not None and ours:
            worker.end()

    def _end_idle(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._discard(self._slots.get_nowait())


def _error_of(reply: dict[str, Any]) -> LandrecordsError:
    kind = getattr(errors, reply["error"])
    reason = () if reply["reason"] is None else (Reason(reply["reason"]),)
    error: LandrecordsError = kind(*reason, reply["message"])
    return error
