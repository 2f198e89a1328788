"""Status columns are the checkpoints: claim, settle, release, renew. The one state machine of all workloads.

    pending --claim--> in_progress --settle--> completed | failed | skipped
    in_progress --settle(pending) | release | lapsed lease--> pending | claimed again
    completed | failed | skipped --`retry` only--> pending

A worker claims a page of rows when it starts on it, keeps the lease alive while it works, and settles items
as they finish, in small batches. A file or object is durable before its row says so. A worker whose lease
was taken by another sees zero rows settled and drops its result. Only the database's clock is used.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg2 import sql

from tasks.owners import is_dead, new_owner
from tasks.pages import Page
from tasks.postgres import Database, sql_text
from tasks.records import MAX_ATTEMPTS, ItemId, Outcome, Status

log = logging.getLogger(__name__)

LEASE_S = 60.0
ERROR_CHARS = 500


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


# --- outcomes as one text ---


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
