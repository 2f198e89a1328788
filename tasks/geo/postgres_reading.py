"""Rows of a COPY out of Postgres, as they come: a thread takes them from the server, batch by batch.

psycopg2 hands over every row by itself and returns when all have come; a generator wants to be asked. Between the two
stands a short queue: when nobody takes batches, the server waits.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

from tasks.errors import refuse_when_stopped
from tasks.geo.nodes import BATCH_BYTES, BATCH_ROWS
from tasks.geo.postgres_packing import HEADER, TRAILER

TICK_S = 0.2
Rows = list[bytes]


def copied(connection: Any, statement: str, stop: threading.Event) -> Iterator[Rows]:
    """The rows of `COPY (statement) TO STDOUT`, BATCH_ROWS or BATCH_BYTES at a time.

    Raises what psycopg2 raised, and StopRequested. Left before the end, the connection is of no use any more.
    """
    taken = _Taken(stop)
    thread = threading.Thread(target=taken.fill, args=(connection, statement), name="geo-copy", daemon=True)
    thread.start()
    try:
        yield from taken
    finally:
        taken.given_up.set()
        if thread.is_alive():
            connection.cancel()
        thread.join()


class _GivenUp(Exception):
    """Nobody wants the rest."""


class _Taken:
    """Batches of rows between two threads."""

    def __init__(self, stop: threading.Event) -> None:
        self.given_up = threading.Event()
        self._stop = stop
        self._batches: queue.Queue[Rows | BaseException | None] = queue.Queue(2)
        self._rows: Rows = []
        self._bytes = 0
        self._begun = False

    def __iter__(self) -> Iterator[Rows]:
        while True:
            refuse_when_stopped(self._stop)
            try:
                found = self._batches.get(timeout=TICK_S)
            except queue.Empty:
                continue
            if isinstance(found, BaseException):
                raise found
            if found is None:
                return
            yield found

    # --- in the other thread ---

    def fill(self, connection: Any, statement: str) -> None:
        """Run the COPY; its end, or what ended it, is the last thing put."""
        end: BaseException | None = None
        try:
            with connection.cursor() as cursor:
                cursor.copy_expert(f"COPY ({statement}) TO STDOUT (FORMAT binary)", self)
            self._hand_over()
        except BaseException as exc:  # noqa: BLE001 - raised by the other thread
            end = exc
        with contextlib.suppress(_GivenUp):
            self._put(end)

    def write(self, row: bytes) -> None:
        """Called by psycopg2 with one message of the server's: a row, the first with the header before it."""
        if not self._begun:
            self._begun, row = True, row[len(HEADER) :]
        if row == TRAILER:
            return
        self._rows.append(row)
        self._bytes += len(row)
        if len(self._rows) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._rows:
            rows, self._rows, self._bytes = self._rows, [], 0
            self._put(rows)

    def _put(self, item: Rows | BaseException | None) -> None:
        while not self.given_up.is_set():
            try:
                return self._batches.put(item, timeout=TICK_S)
            except queue.Full:
                continue
        raise _GivenUp
