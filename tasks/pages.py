"""A claimed page of rows: its lease is kept alive, its items are settled in small batches, the rest is given back."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import psycopg2

from tasks.errors import OutsideUnreachable
from tasks.heartbeat import heart
from tasks.patience import patiently
from tasks.postgres import Cursor, first_line
from tasks.records import ItemId, Outcome, Reason, Status

if TYPE_CHECKING:
    from tasks.checkpoints import Queue

log = logging.getLogger(__name__)

Row = dict[str, Any]
Written = tuple[ItemId, str, float | None]
"""Id, status, and for a pending row the seconds until it is due, as the database has them."""


class Page:
    """Rows this process owns. Use as a context manager: at the end, what is not settled is released.

    rows      the claimed rows, in claim order
    settled   status -> count, as the database accepted them
    final     id -> final status of the rows settled for good
    again     rows that went back to pending: id -> seconds until they are due
    lost      ids whose lease another worker took; their results were dropped
    listener  told of every outcome the database accepted, with the status it got there
    """

    BATCH = 1000
    FLUSH_AFTER_S = 0.5
    DATABASE_PATIENCE_S = 45.0

    def __init__(self, queue: Queue, owner: str, rows: list[Row]) -> None:
        self.queue = queue
        self.owner = owner
        self.rows = rows
        self.settled: dict[str, int] = {}
        self.final: dict[ItemId, str] = {}
        self.again: dict[ItemId, float] = {}
        self.lost: set[ItemId] = set()
        self.listener: Callable[[Outcome, str], None] = lambda _outcome, _status: None
        self._open: set[ItemId] = {row["id"] for row in rows}
        self._waiting: dict[ItemId, Outcome] = {}
        self._last_flush = time.monotonic()
        self._lock = threading.RLock()

    def __enter__(self) -> Page:
        heart.beat_for(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.flush()
            self.release()
        except OutsideUnreachable:
            if kind is None:
                raise
            log.warning("the database went away; leases of %d rows lapse by themselves", len(self._open))
        finally:
            heart.stop_for(self)

    def settle(self, outcome: Outcome) -> None:
        """Write what became of one item, with the next micro-batch (at most 0.5 s later).

        Raises ValueError for an item that is not of this page, or was settled before.
        """
        with self._lock:
            self.check_open([outcome.id])
            self._open.discard(outcome.id)
            self._waiting[outcome.id] = outcome
            if len(self._waiting) >= self.BATCH:
                self.flush()
            else:
                self.flush_if_late()

    def check_open(self, ids: Iterable[ItemId]) -> None:
        """Raises ValueError for an item that is not of this page, or was settled before."""
        for item in ids:
            if item not in self._open:
                raise ValueError(f"item {item} is not open on this page")

    def flush_if_late(self) -> None:
        """Write what waits when the last write was more than FLUSH_AFTER_S ago."""
        if time.monotonic() - self._last_flush >= self.FLUSH_AFTER_S:
            self.flush()

    def flush(self) -> None:
        """Write every waiting outcome now; waits out a database restart as long as the lease may hold."""
        with self._lock:
            self._last_flush = time.monotonic()
            for group in _by_columns(self._waiting.values()):
                self._write(group)

    def release(self) -> None:
        """Give back what is neither settled nor waiting; costs no attempt."""
        with self._lock:
            ids, self._open = list(self._open), set()
            if ids:
                statement, arguments = self.queue.step.statement("release"), {"ids": ids, "owner": self.owner}
                patiently(lambda: self.queue.database.rows(statement, arguments), self.DATABASE_PATIENCE_S)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Settling]:
        """One transaction for results that are rows themselves, and for their checkpoints: both hold, or neither.

        Waiting outcomes are no part of it. Raises OutsideUnreachable as `Database.transaction` does; then nothing
        of it holds, the page is as before, and all may be done again.
        """
        self.queue.column_types()  # not from within: a second connection at once could wait for ever
        with self.queue.database.transaction() as cursor:
            settling = Settling(self, cursor)
            yield settling
        with self._lock:
            self._open -= settling.outcomes.keys()
            self._accepted(settling.outcomes.values(), settling.written.values())

    @property
    def lease_s(self) -> float:
        """How long a renewed lease lasts, in seconds."""
        return self.queue.lease_s

    def renew(self) -> None:
        """Extend the lease of what is still open or waiting (the heartbeat calls this)."""
        ids = [*self._open.copy(), *self._waiting.copy()]
        if ids:
            statement = self.queue.step.statement("renew")
            arguments = {"ids": ids, "owner": self.owner, "lease_s": self.queue.lease_s}
            self.queue.database.rows(statement, arguments)

    def _write(self, batch: list[Outcome]) -> None:
        statement, arguments = self.queue.settle_statement(batch)
        arguments["owner"] = self.owner
        try:
            written = patiently(lambda: self.queue.database.rows(statement, arguments), self.DATABASE_PATIENCE_S)
        except (psycopg2.DataError, psycopg2.IntegrityError) as exc:
            self._write_in_parts(batch, exc)
        else:
            self._accepted(batch, written)

    def _write_in_parts(self, batch: list[Outcome], refused: psycopg2.Error) -> None:
        """Find the item whose values the database refuses; it fails, the others are settled."""
        if len(batch) > 1:
            middle = len(batch) // 2
            self._write(batch[:middle])
            self._write(batch[middle:])
        elif not batch[0].values:
            raise refused
        else:
            error = f"its results cannot be stored: {first_line(refused)}"
            self._write([Outcome(batch[0].id, Status.FAILED, Reason.INTERNAL, error)])

    def _accepted(self, batch: Collection[Outcome], written: Collection[Written]) -> None:
        by_id = {outcome.id: outcome for outcome in batch}
        self.lost |= by_id.keys() - {row[0] for row in written}
        for outcome in batch:
            self._waiting.pop(outcome.id, None)
        for item, status, due_in_s in written:
            self.settled[status] = self.settled.get(status, 0) + 1
            if status == Status.PENDING:
                self.again[item] = max(0.0, due_in_s or 0.0)
            else:
                self.final[item] = status
            self.listener(by_id[item], status)


class Settling:
    """Outcomes that are written in a transaction of `Page.transaction`, beside the results they speak of.

    cursor   of the transaction
    written  what the database took, by id
    """

    def __init__(self, page: Page, cursor: Cursor) -> None:
        self.cursor = cursor
        self.outcomes: dict[ItemId, Outcome] = {}
        self.written: dict[ItemId, Written] = {}
        self._page = page

    def settle(self, outcomes: Sequence[Outcome]) -> dict[ItemId, str]:
        """Write them; returns id -> status of those that are still this page's. Results of the others must not be
        written: another worker has taken them.

        After a return to a savepoint the same items may be settled again: what was said last counts. Raises
        ValueError for an item that is not open on the page.
        """
        ids = [outcome.id for outcome in outcomes]
        self._page.check_open(ids)
        if len(set(ids)) < len(ids):
            raise ValueError("an item is settled twice at once")
        taken: dict[ItemId, str] = {}
        for group in _by_columns(outcomes):
            statement, arguments = self._page.queue.settle_statement(group)
            self.cursor.execute(statement, {**arguments, "owner": self._page.owner})
            for outcome in group:
                self.outcomes[outcome.id] = outcome
                self.written.pop(outcome.id, None)
            for row in self.cursor.fetchall():
                self.written[row[0]] = row
                taken[row[0]] = row[1]
        return taken


def _by_columns(batch: Iterable[Outcome]) -> list[list[Outcome]]:
    groups: dict[frozenset[str], list[Outcome]] = {}
    for outcome in batch:
        groups.setdefault(frozenset(outcome.values), []).append(outcome)
    return list(groups.values())
