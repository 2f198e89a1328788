"""data_source.postgis and data_source.postgres: features of a table or a query, by binary COPY."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg2 import sql
from pydantic import Field, SecretStr, model_validator

from tasks.errors import TerminalError
from tasks.geo.batches import Batch, Geometries
from tasks.geo.fields import Sql
from tasks.geo.nodes import Described, Outside, Source, Work, node
from tasks.geo.postgres_names import TableName, statement
from tasks.geo.postgres_query import Query, Wanted, answered, estimated_rows, relations
from tasks.geo.postgres_reading import Rows, copied
from tasks.geo.postgres_tables import find_table
from tasks.geo.postgres_unpacking import iso_wkb, unpacked_rows
from tasks.records import Reason

PART_PAGES = 1024
"""Pages of a table (8 MiB) that are worth a part of their own."""


@node("data_source.postgis")
class PostgisSource(Source):
    """Reads features of a table or a query, PostGIS geometry or EWKB in bytea; the CRS is that of the SRID.

    Nothing is changed: the transaction is read only, and all parts see the database as it is at one moment.
    """

    table: str | None = Field(default=None, description="table, or schema.table")
    query: Sql | None = Field(default=None, description="SELECT ...; instead of a table")
    filter: Sql | None = Field(default=None, description="a condition of SQL that features must meet")
    geometry_column: str | None = Field(
        default=None,
        description="none: the first geometry, or a bytea called geom, geometry, wkb or the like",
    )
    limit: int | None = Field(default=None, ge=1, description="features at most")
    url: SecretStr | None = Field(
        default=None, description="postgresql://host/name, or env:NAME where it is kept; none: the landrecords database"
    )

    @model_validator(mode="after")
    def _either(self) -> PostgisSource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give a table or a query, one of them")
        return self

    def describe(self, outside: Outside) -> Described:
        """The columns, and how many rows the planner expects."""
        with self._reading(outside) as cursor:
            query = answered(cursor, self._wanted)
            return Described(query.layout, features=estimated_rows(cursor, query))

    def fingerprint(self, outside: Outside) -> str:
        """Of the statement, and of the versions of all rows in the tables it reads (the server looks at all)."""
        with self._reading(outside) as cursor:
            query = answered(cursor, self._wanted)
            seen = [query.statement().as_string(cursor), repr(query.layout)]
            for name in relations(cursor, query):
                table = find_table(cursor, name)
                if table is None or table.kind not in "rm":
                    return uuid.uuid4().hex  # a foreign table: nobody knows
                cursor.execute(sql.SQL(statement("geo_versions")).format(table=table.name.quoted))
                seen.append(f"{table.oid} {cursor.fetchone()}")
        return hashlib.sha256("\n".join(seen).encode()).hexdigest()

    def parts(self, outside: Outside, at_most: int) -> list[dict[str, Any]]:
        """Ranges of a table's pages; the last is open, since the table may be growing."""
        if self.table is None or self.limit is not None:
            return [{}]
        with self._reading(outside) as cursor:
            table = find_table(cursor, TableName.of(self.table))
        if table is None or table.kind not in "rm" or table.has_children:
            return [{}]
        count = max(1, min(at_most, table.pages // PART_PAGES))
        edges = [table.pages * i // count for i in range(count)]
        return [{"pages": pages} for pages in zip(edges, [*edges[1:], None], strict=True)]

    @contextmanager
    def shared(self, outside: Outside) -> Iterator[dict[str, Any]]:
        """A transaction whose view of the database the parts take over."""
        with self._reading(outside) as cursor:
            cursor.execute("SELECT pg_export_snapshot()")
            yield {"snapshot": cursor.fetchone()[0]}

    def read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        """The batches of a part. Raises TerminalError for values that features cannot have."""
        with self._reading(work.outside, part.get("snapshot")) as cursor:
            query = answered(cursor, self._wanted)
            text = query.statement(part.get("pages")).as_string(cursor)
            for rows in copied(cursor.connection, text, work.stop):
                yield _batch(rows, query)

    @property
    def _wanted(self) -> Wanted:
        table = TableName.of(self.table) if self.table is not None else None
        return Wanted(table, self.query, self.filter, self.geometry_column, self.limit)

    @contextmanager
    def _reading(self, outside: Outside, snapshot: str | None = None) -> Iterator[Any]:
        with outside.postgres(self.url.get_secret_value() if self.url else None) as connection:
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    if snapshot:
                        cursor.execute("SET TRANSACTION SNAPSHOT %s", (snapshot,))
                    cursor.execute("SET LOCAL synchronize_seqscans = off; SET LOCAL client_encoding = 'UTF8'")
                    yield cursor
            finally:
                if not connection.closed:
                    connection.close()


@node("data_source.postgres")
class PostgresSource(PostgisSource):
    """The same as data_source.postgis."""


def _batch(rows: Rows, query: Query) -> Batch:
    geometry = query.layout.geometry
    names = [*query.layout.names, *([geometry.name, "srid"] if geometry else [])]
    columns = unpacked_rows(rows, query.kinds, names[: len(query.kinds)])
    attributes = tuple(columns[: len(query.layout.fields)])
    if geometry is None:
        return Batch(query.layout, attributes, None, len(rows))
    wkb, *srids = columns[len(attributes) :]
    if srids:
        _check_srids(srids[0], query.srid, geometry.name)
    elif query.srid is not None:
        wkb = iso_wkb(wkb, query.srid, geometry.name)
    return Batch(query.layout, attributes, Geometries(wkb=wkb), len(rows))


def _check_srids(srids: pa.Array, expected: int | None, name: str) -> None:
    other = np.setdiff1d(srids.drop_null().to_numpy(), [expected])
    if len(other):
        raise TerminalError(
            Reason.BAD_GEOMETRY,
            f"column {name!r} has geometries of srid {other[0]} beside {expected}; choose one by filter, or use query "
            f"with ST_Transform({name}, {expected}).",
        )
