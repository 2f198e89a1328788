"""What a run has written into a database, kept in a table beside the target, in the same transactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from tasks.geo.nodes import Work, Written
from tasks.geo.postgres_names import TableName, statement

TABLE = "landrecords_written_parts"
KEPT_DAYS = 90
"""How long a run can be resumed without writing twice."""

MADE, CONCLUDED = "table made", "concluded"
"""Notes that are no parts: parts have numbers."""


@dataclass(frozen=True)
class Parts:
    """Those of one sink of one run.

    target  where it writes to
    """

    cursor: Any
    target: TableName
    work: Work

    def lock(self) -> None:
        """Until the end of the transaction nobody else prepares or concludes anything with this target."""
        self._lock(self.target)

    def make(self) -> None:
        """Make the table where it is missing, and forget what is long over."""
        # CREATE TABLE IF NOT EXISTS fails when two do it at once for the first time
        self._lock(self._table)
        made = sql.SQL(statement("geo_written_parts"))
        self.cursor.execute(made.format(table=self._table.quoted, days=sql.Literal(KEPT_DAYS)))

    def note(self, part: str) -> bool:
        """Note a part; False where that was done before. Waits for another transaction that is about to do it."""
        insert = sql.SQL("INSERT INTO {} (run_id, node_id, part) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING")
        self.cursor.execute(insert.format(self._table.quoted), self._key(part))
        return bool(self.cursor.rowcount)

    def has(self, part: str) -> bool:
        """Whether it has been noted."""
        self.cursor.execute(self._where("SELECT 1 FROM {}"), self._key(part))
        return self.cursor.fetchone() is not None

    def count(self, part: str, written: Written) -> None:
        """Keep what a noted part wrote."""
        update = self._where("UPDATE {} SET features = %s, size_bytes = %s")
        self.cursor.execute(update, (written.features, written.size_bytes, *self._key(part)))

    def written(self, part: str) -> Written:
        """What a noted part wrote."""
        self.cursor.execute(
            self._where("SELECT coalesce(features, 0), coalesce(size_bytes, 0) FROM {}"), self._key(part)
        )
        return Written(*self.cursor.fetchone())

    def _lock(self, table: TableName) -> None:
        self.cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"landrecords {table.text}",))

    @property
    def _table(self) -> TableName:
        return self.target.named(TABLE)

    def _key(self, part: str) -> tuple[str, str, str]:
        return self.work.run_id, self.work.node_id, part

    def _where(self, head: str) -> sql.Composed:
        return sql.SQL(head + " WHERE run_id = %s AND node_id = %s AND part = %s").format(self._table.quoted)
