"""A part of a sink on its way into a table: one transaction, the note that it was written included."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg2
import psycopg2.errors
import pyarrow as pa
from psycopg2 import sql

from tasks.errors import TerminalError
from tasks.geo.nodes import Work, Written
from tasks.geo.postgres_names import TableName, listed
from tasks.geo.postgres_packing import HEADER, TRAILER
from tasks.geo.postgres_tables import find_table, make_table
from tasks.geo.postgres_target import Loading, Target
from tasks.geo.wkb import binary_parts
from tasks.records import Reason

PASSED = TableName(None, "landrecords_passed")
"""The temporary table of rows that the database has to cast, or to merge."""

SENT_BYTES = 1 << 18
LOCK_TIMEOUT_S = 60
_LINE = re.compile(r", line (\d+)(?:, column ([^:\n]+))?")


class PartWriter:
    """Writes a part; see tasks.geo.nodes.Writer. One that was written before is left as it is."""

    def __init__(self, connected: AbstractContextManager[Any], target: Target, work: Work) -> None:
        self._connected, self._target, self._work = connected, target, work
        self._rows = self._bytes = 0
        connection = connected.__enter__()
        with self._mapped():
            self._connection, self._cursor = connection, connection.cursor()
            self._begin()

    def write(self, packed: pa.Array) -> None:
        """Rows of packed_rows()."""
        if not self._fresh:
            return
        with self._mapped():
            offsets, data = binary_parts(packed)
            rows = _Stream(data[offsets[0] : offsets[-1]].data)
            self._cursor.copy_expert(self._copy, rows, SENT_BYTES)
            self._rows += len(packed)
            self._bytes += int(offsets[-1] - offsets[0])

    def finish(self) -> Written:
        """Commit. Returns what was written, now or before."""
        with self._mapped():
            if self._fresh:
                if self._into != self._loading.filled:
                    self._merge()
                self._loading.parts.count(self._work.part, Written(self._rows, self._bytes))
            written = self._loading.parts.written(self._work.part)
            self._connection.commit()
        self._connected.__exit__(None, None, None)
        return written

    def abandon(self) -> None:
        """Roll back. The connection may be broken, or closed already."""
        try:
            self._connection.close()
        finally:
            self._connected.__exit__(None, None, None)

    def _begin(self) -> None:
        # Another attempt at the same part may still hold its note: one that hangs is waited for so long, not longer
        self._cursor.execute("SET LOCAL lock_timeout = %s", (f"{LOCK_TIMEOUT_S}s",))
        self._loading = Loading(self._cursor, self._target, self._work)
        self._fresh = self._loading.parts.note(self._work.part)
        self._into = self._loading.filled
        table = find_table(self._cursor, self._into)
        if self._fresh and table is not None and not self._loading.direct(table):
            self._into = PASSED
            make_table(self._cursor, PASSED, self._target.layout, self._target.srid, (), temporary=True)
        self._copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(self._into.quoted, listed(self._columns))

    @property
    def _columns(self) -> list[str]:
        geometry = self._target.layout.geometry
        return [*self._target.layout.names, *([geometry.name] if geometry else [])]

    def _merge(self) -> None:
        key = self._target.key
        columns, into = listed(self._columns), self._loading.filled.quoted
        if self._target.mode != "upsert":
            insert = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ORDER BY ctid")
            self._cursor.execute(insert.format(into, columns, columns, PASSED.quoted))
            return
        news = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(c)) for c in self._columns if c not in key]
        action = sql.SQL("UPDATE SET {}").format(sql.SQL(", ").join(news)) if news else sql.SQL("NOTHING")
        # Of features with the same key the last counts. In the key's order: two parts then never wait for each other
        upsert = sql.SQL(
            "INSERT INTO {into} ({columns}) SELECT DISTINCT ON ({key}) {columns} FROM {passed}"
            " ORDER BY {key}, ctid DESC ON CONFLICT ({key}) DO {action}"
        )
        self._cursor.execute(
            upsert.format(into=into, columns=columns, key=listed(key), passed=PASSED.quoted, action=action)
        )

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """The database's refusal of a row names that row; other errors are the connection's to explain."""
        try:
            yield
        except BaseException as exc:
            told = _refusal(exc, self._rows, self._work.part) if isinstance(exc, psycopg2.Error) else None
            if told:
                self._connected.__exit__(None, None, None)
                raise told from exc
            self._connected.__exit__(*sys.exc_info())
            raise


def _refusal(exc: psycopg2.Error, rows_before: int, part: str) -> TerminalError | None:
    """The sentence for a row that the database does not take; None for errors that are no row's."""
    line = _LINE.search(exc.diag.context or "")
    detail = exc.diag.message_detail or ""
    if line is None and not isinstance(exc, psycopg2.IntegrityError | psycopg2.DataError):
        return None
    if isinstance(exc, psycopg2.OperationalError):
        return None
    row = f"row {rows_before + int(line[1])} of part {part}" if line else f"a row of part {part}"
    column = f", column {line[2]!r}" if line and line[2] else ""
    said = " ".join(f"{exc.diag.message_primary or 'no reason given'}. {detail}".split())[:300].rstrip(". ")
    return TerminalError(
        Reason.REFUSED,
        f"The table refuses {row}{column}: {said}; correct the feature, or filter it out before.",
    )


class _Stream:
    """What COPY reads: the rows between header and trailer, without putting them together."""

    def __init__(self, rows: memoryview) -> None:
        self._pieces = [memoryview(HEADER), rows, memoryview(TRAILER)]

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end."""
        while self._pieces:
            piece = self._pieces[0]
            if len(piece):
                self._pieces[0] = piece[size:]
                return bytes(piece[:size])
            self._pieces.pop(0)
        return b""
