"""Status columns are the checkpoints: claim, settle, release, renew. The one state machine of all workloads.

    pending --claim--> in_progress --settle--> completed | failed | skipped
    in_progress --settle(pending) | release | lapsed lease--> pending | claimed again
    completed | failed | skipped --`retry` only--> pending

A worker claims a page of rows when it starts on it, keeps the lease alive while it works, and settles items
as they finish, in small batches. A file or object is durable before its row says so. A worker whose lease
was taken by another sees zero rows settled and drops its result. Only the database's clock is used.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import UUID

import psycopg2
from psycopg2 import sql

from tasks import services
from tasks.errors import OutsideUnreachable
from tasks.heartbeat import heart
from tasks.postgres import Cursor, Database, first_line, sql_text
from tasks.records import MAX_ATTEMPTS, ItemId, Outcome, Reason, Status

log = logging.getLogger(__name__)

LEASE_S = 60.0
ERROR_CHARS = 500

Row = dict[str, Any]
Written = tuple[ItemId, str, float | None]
"""Id, status, and for a pending row the seconds until it is due, as the database has them."""


@dataclass(frozen=True)
class Step:
    """One step of a workload's rows.

    name      "" for a workload of a single step: its columns have no prefix
    requires  SQL that must hold before the step may be claimed; equal to what the migration said
    order     claim order, as in the migration's index
    id_type   of the column `id`
    later     names of the steps that build on this one; they go back with it on `retry`
    """

    table: str
    name: str = ""
    requires: str = "true"
    order: str = "id"
    id_type: str = "bigint"
    later: tuple[str, ...] = ()
    backoff_s: float = 2.0
    backoff_cap_s: float = 300.0
    max_attempts: int = MAX_ATTEMPTS

    def column(self, field_name: str) -> str:
        """`status` -> `download_status`, or plain for a single step."""
        return f"{self.name}_{field_name}" if self.name else field_name

    @property
    def done_at(self) -> str:
        """`downloaded_at`, `optimized_at`; `completed_at` for a single step."""
        if not self.name:
            return "completed_at"
        return f"{self.name}d_at" if self.name.endswith("e") else f"{self.name}ed_at"

    def statement(self, name: str, **parts: str | sql.Composable) -> sql.Composed:
        """`tasks/sql/<name>.sql` with this step's table and columns filled in."""
        names = {f: sql.Identifier(self.column(f)) for f in ("status", "attempts", "reason", "error")}
        texts = {k: sql.SQL(v) if isinstance(v, str) else v for k, v in parts.items()}
        return sql.SQL(sql_text(name)).format(
            table=sql.Identifier(self.table),
            done_at=sql.Identifier(self.done_at),
            requires=sql.SQL(self.requires),
            order=sql.SQL(self.order),
            id_type=sql.SQL(self.id_type),
            **{**names, **texts},
        )


@dataclass(frozen=True)
class Scope:
    """Which rows a run may take: an SQL condition over bare column names and its parameters."""

    where: str = "true"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def and_ids(self, ids: Sequence[ItemId]) -> Scope:
        """The same, narrowed to these rows."""
        return self._and("id = ANY(%(only_ids)s)", only_ids=list(ids))

    def not_taken_by(self, run_id: str) -> Scope:
        """The same, without the rows that the run took before."""
        return self._and("run_id IS DISTINCT FROM %(this_run)s", this_run=run_id)

    def taken_by(self, run_id: str) -> Scope:
        """The same, only the rows that the run took before."""
        return self._and("run_id = %(this_run)s", this_run=run_id)

    def _and(self, condition: str, **parameters: Any) -> Scope:
        return Scope(f"{condition} AND ({self.where})", {**self.parameters, **parameters})


# --- who is working ---


@cache
def machine() -> str:
    """This machine and process space; two that share a pid space share this name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        space = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        boot, space = "0", "0"
    return f"{socket.gethostname()}/{boot}/{space}"


_numbers = itertools.count(1)


def new_owner() -> str:
    """A name for one page of work that says which process does it: machine/pid/start/number."""
    pid = os.getpid()
    return f"{machine()}/{pid}/{services.process_started(pid)}/{next(_numbers)}"


def is_dead(owner: str) -> bool:
    """True when the owner was a process of this machine that has ended. Others are judged by their lease."""
    name, *process = owner.rsplit("/", 3)
    return name == machine() and services.process_started(int(process[0])) != process[1]


# --- the queue of one step ---


class Queue:
    """One step of one table, as a run sees it. Safe for threads."""

    def __init__(self, database: Database, step: Step, *, run_id: str, lease_s: float = LEASE_S) -> None:
        self.database = database
        self.step = step
        self.run_id = run_id
        self.lease_s = lease_s
        self._types: dict[str, str] = {}

    def claim(self, limit: int, scope: Scope | None = None, *, columns: str = "item.*") -> Page:
        """A page of at most `limit` due rows, owned by this process until settled or released."""
        scope = scope or Scope()
        owner = new_owner()
        statement = self.step.statement("claim", scope=scope.where, columns=columns)
        arguments = {
            **scope.parameters,
            "limit": limit,
            "owner": owner,
            "run_id": self.run_id,
            "lease_s": self.lease_s,
        }
        with self.database.transaction() as cursor:
            cursor.execute(statement, arguments)
            names = [column.name for column in cursor.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return Page(self, owner, rows)

    def settle_statement(self, batch: list[Outcome]) -> tuple[sql.Composed, dict[str, Any]]:
        """The statement that settles outcomes of equal `values` columns, and its arguments but the owner."""
        extra = sorted(batch[0].values)
        types = self.column_types() if extra else {}
        statement = self.step.statement(
            "settle",
            assignments=sql.Composed([sql.SQL(", {0} = given.{0}").format(sql.Identifier(c)) for c in extra]),
            columns=sql.Composed([sql.SQL(", {} {}").format(sql.Identifier(c), sql.SQL(types[c])) for c in extra]),
        )
        arguments: dict[str, Any] = {
            "outcomes": _json([_settled(outcome) for outcome in batch]),
            "max_attempts": self.step.max_attempts,
            "backoff_s": self.step.backoff_s,
            "backoff_cap_s": self.step.backoff_cap_s,
        }
        return statement, arguments

    def column_types(self) -> dict[str, str]:
        """Type of every column of the table, by name; asked once."""
        if not self._types:
            self._types = dict(self.database.rows(sql_text("column_types"), (self.step.table,)))
        return self._types

    def due_in_s(self, scope: Scope | None = None) -> float | None:
        """Seconds until the next pending row of the scope is due; 0 when one is, None when there is none."""
        scope = scope or Scope()
        statement = self.step.statement("due", scope=scope.where)
        delay = self.database.rows(statement, dict(scope.parameters))[0][0]
        return None if delay is None else max(0.0, float(delay))

    def count_due(self, scope: Scope | None = None, *, at_most: int | None = None) -> int:
        """Rows of the scope still to be taken in this step, due now or later (stops counting at `at_most`)."""
        scope = scope or Scope()
        statement = self.step.statement("count_due", scope=scope.where)
        return int(self.database.rows(statement, {**scope.parameters, "at_most": at_most})[0][0])

    def due_ids(self, scope: Scope | None = None) -> list[ItemId]:
        """Ids of the scope's pending rows that are due now, in claim order."""
        scope = scope or Scope()
        rows = self.database.rows(self.step.statement("due_ids", scope=scope.where), dict(scope.parameters))
        return [row[0] for row in rows]

    def release_dead(self) -> int:
        """Give back the rows of this machine's processes that were killed; returns how many.

        Leases would lapse by themselves after a minute; this only saves the wait.
        """
        held = self.database.rows(self.step.statement("owners"))
        dead = [owner for (owner,) in held if is_dead(owner)]
        if not dead:
            return 0
        with self.database.transaction() as cursor:
            cursor.execute(self.step.statement("release_dead"), {"owners": dead})
            return cursor.rowcount

    def release_run(self) -> int:
        """Give back what this run still holds. Only when none of its pages is at work: after an outage of the
        database a page may have ended without a chance to release its rows."""
        with self.database.transaction() as cursor:
            cursor.execute(self.step.statement("release_run"), {"run_id": self.run_id})
            return cursor.rowcount

    def retry(
        self,
        scope: Scope | None = None,
        *,
        statuses: Iterable[Status] = (Status.FAILED,),
        limit: int | None = None,
        take: bool = False,
    ) -> int:
        """The explicit way back: final rows of the scope become pending, with their later steps.

        limit  at most so many, in claim order
        take   they become rows of this run
        """
        scope = scope or Scope()
        steps = (self.step, *(Step(self.step.table, name) for name in self.step.later))
        reset = ", ".join(_reset(step) for step in steps) + (", run_id = %(run_id)s" if take else "")
        arguments = {
            **scope.parameters,
            "statuses": [str(s) for s in statuses],
            "limit": limit,
            "run_id": self.run_id,
        }
        with self.database.transaction() as cursor:
            cursor.execute("SET LOCAL landrecords.explicit = 'on'")
            cursor.execute(self.step.statement("retry", scope=scope.where, reset=reset), arguments)
            return cursor.rowcount


def _reset(step: Step) -> str:
    return (
        f"{step.column('status')} = 'pending', {step.column('attempts')} = 0, {step.column('reason')} = NULL, "
        f"{step.column('error')} = NULL, {step.done_at} = NULL"
    )


# --- a claimed page ---


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


def patiently(call: Callable[[], Any], patience_s: float) -> Any:
    """The result of `call`, tried again while the database is away, for at most `patience_s`."""
    deadline, pause_s = time.monotonic() + patience_s, 0.1
    while True:
        try:
            return call()
        except OutsideUnreachable:
            if time.monotonic() + pause_s > deadline:
                raise
            time.sleep(pause_s)
            pause_s = min(2.0, pause_s * 2)


def _by_columns(batch: Iterable[Outcome]) -> list[list[Outcome]]:
    groups: dict[frozenset[str], list[Outcome]] = {}
    for outcome in batch:
        groups.setdefault(frozenset(outcome.values), []).append(outcome)
    return list(groups.values())


def _settled(outcome: Outcome) -> dict[str, Any]:
    return {
        "_id": outcome.id,
        "_status": outcome.status,
        "_reason": outcome.reason,
        "_error": outcome.error[:ERROR_CHARS] if outcome.error else None,
        "_cost": int(outcome.costs_attempt),
        "_retry_in_s": outcome.retry_in_s,
        **outcome.values,
    }


_NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def _json(rows: list[dict[str, Any]]) -> str:
    """Rows as JSON, which C writes and Postgres reads three times as quickly as an array for each column.

    Postgres text holds neither NUL nor half a surrogate pair; a server's message or a file name may.
    """
    try:
        text = json.dumps(rows, default=_plain, ensure_ascii=False, allow_nan=False)
    except ValueError:  # JSON knows no NaN; as a word, a column of floats takes it
        rows = [{name: str(v) if isinstance(v, float) else v for name, v in row.items()} for row in rows]
        text = json.dumps(rows, default=_plain, ensure_ascii=False)
    if "\\u0000" in text:
        text = _NUL_IN_JSON.sub(r"\1", text)
    return text if text.isascii() else text.encode(errors="replace").decode()


def _plain(value: Any) -> str:
    """A moment, day, decimal, UUID or some bytes as the text Postgres takes."""
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, date | Decimal | UUID):
        return str(value)
    raise TypeError(f"a row cannot hold {type(value).__name__}")
