"""The table that a run writes to: made ready before its parts, and finished after them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg2 import sql

from tasks.errors import ConfigurationError
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Work
from tasks.geo.postgres_fit import fits
from tasks.geo.postgres_names import MAX_NAME_BYTES, TableName, statement
from tasks.geo.postgres_parts import CONCLUDED, MADE, Parts
from tasks.geo.postgres_tables import Table, dependents, find_table, has_unique, make_table, place_of

Mode = Literal["insert", "append", "replace", "upsert"]


@dataclass(frozen=True)
class Target:
    """How features are to be written.

    layout  theirs, the geometry named as in the table
    """

    table: TableName
    mode: Mode
    key: tuple[str, ...]
    srid: int
    layout: Layout


class Loading:
    """A target in one transaction of a run."""

    def __init__(self, cursor: Any, target: Target, work: Work) -> None:
        self.cursor, self.target = cursor, target
        existing = find_table(cursor, target.table)
        self.existing = existing
        self.place = existing.name if existing else place_of(cursor, target.table)
        self.parts = Parts(cursor, self.place, work)

    @property
    def filled(self) -> TableName:
        """The table that parts go into."""
        if self.target.mode != "replace":
            return self.place
        run = f"{self.parts.work.run_id} {self.parts.work.node_id}"
        mark = hashlib.sha256(run.encode()).hexdigest()[:8]
        return self.place.named(_with_end(self.place.name, f"_new_{mark}"))

    def prepare(self) -> None:
        """Make what is missing. Raises ConfigurationError where the features do not fit. Idempotent."""
        self.parts.lock()
        self.parts.make()
        if self.target.mode == "replace":
            self._prepare_replacing()
        elif self.existing:
            self.direct(self.existing)
        else:
            self._make(self.place)
            self.parts.note(MADE)

    def conclude(self) -> None:
        """Index the geometry of a table made here; with replace, put it in the old one's place. Idempotent."""
        self.parts.lock()
        if not self.parts.note(CONCLUDED):
            return
        if self.target.mode == "replace":
            self._index(self.filled)
            self._swap()
        elif self.parts.has(MADE):
            self._index(self.place)

    def direct(self, table: Table) -> bool:
        """Whether rows may be copied straight into it. Raises ConfigurationError where they do not fit at all."""
        same = fits(self.cursor, table, self.target.layout, self.target.srid)
        if self.target.mode != "upsert":
            return same
        if not has_unique(self.cursor, table, self.target.key):
            key = ", ".join(self.target.key)
            raise ConfigurationError(
                f"Table {table.name} does not hold {key} to be unique, so upsert cannot go by it; "
                f"CREATE UNIQUE INDEX ON {table.name} ({key}), or set another key."
            )
        return False

    def _make(self, name: TableName) -> None:
        make_table(self.cursor, name, self.target.layout, self.target.srid, self.target.key)

    # --- replace ---

    def _prepare_replacing(self) -> None:
        if self.parts.has(CONCLUDED):
            return
        if self.existing:
            self._check_replaceable(self.existing)
        if find_table(self.cursor, self.filled) is None:
            self._make(self.filled)

    def _check_replaceable(self, old: Table) -> None:
        if old.kind != "r":
            raise ConfigurationError(f"{old.name} is no plain table and cannot be replaced; use mode append.")
        leaning = dependents(self.cursor, old)
        if leaning:
            raise ConfigurationError(
                f"Table {old.name} cannot be replaced while {', '.join(leaning[:4])} depends on it; drop that, or "
                "empty the table and use mode append."
            )

    def _swap(self) -> None:
        """Readers have the old table until the transaction ends, then the new one, with the rights of the old."""
        grants: Sequence[tuple[str]] = []
        if self.existing:
            self._check_replaceable(self.existing)
            self.cursor.execute(statement("geo_grants"), (self.place.text, self.existing.oid))
            grants = self.cursor.fetchall()
            self.cursor.execute(sql.SQL("DROP TABLE {}").format(self.place.quoted))
        self._rename("TABLE", self.filled, self.place.name)
        for end in ("_pkey", self._index_end):
            index = self.place.named(_with_end(self.filled.name, end))
            self._rename("INDEX IF EXISTS", index, _with_end(self.place.name, end))
        for (grant,) in grants:
            self.cursor.execute(grant)

    def _rename(self, what: str, old: TableName, new: str) -> None:
        rename = sql.SQL("ALTER {} {} RENAME TO {}")
        self.cursor.execute(rename.format(sql.SQL(what), old.quoted, sql.Identifier(new)))

    # --- the index ---

    @property
    def _index_end(self) -> str:
        geometry = self.target.layout.geometry
        return f"_{geometry.name[:30] if geometry else ''}_idx"

    def _index(self, name: TableName) -> None:
        """After loading: one built at once is smaller, and made in a fraction of the time."""
        geometry = self.target.layout.geometry
        table = find_table(self.cursor, name)
        column = table.column(geometry.name) if table and geometry else None
        if column is None or column.type != "geometry":
            return
        index = sql.Identifier(_with_end(name.name, self._index_end))
        made = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING gist ({})")
        self.cursor.execute(made.format(index, name.quoted, sql.Identifier(column.name)))


def _with_end(name: str, end: str) -> str:
    """Both, the name cut so that Postgres need not do it."""
    return name.encode()[: MAX_NAME_BYTES - len(end.encode())].decode(errors="ignore") + end
