"""data_sink.postgis and data_sink.postgres: features into a table by binary COPY, each part exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field, SecretStr, field_validator

from tasks.errors import TerminalError
from tasks.geo.batches import Batch
from tasks.geo.fields import column
from tasks.geo.layouts import GeometryField, Layout, crs_of
from tasks.geo.nodes import NodeProblem, Sink, Work, Writer, Written, node
from tasks.geo.postgres_names import TableName, check_column
from tasks.geo.postgres_packing import packed_rows
from tasks.geo.postgres_target import Loading, Mode, Target
from tasks.geo.postgres_types import stored_type
from tasks.geo.postgres_writing import PartWriter
from tasks.records import Reason


@node("data_sink.postgis")
class PostgisSink(Sink):
    """Writes features to a table: PostGIS geometry where the database has PostGIS, else EWKB in bytea.

    The table is made where it is missing, its geometry indexed at the end. What a part writes is committed together
    with a note of it (in the table landrecords_written_parts beside the target), so that no part is written twice,
    however often a run is tried.
    """

    parallel: ClassVar[bool] = True

    table: str = Field(description="table, or schema.table")
    geometry_column: str = Field(default="geom", description="what the geometry is called in the table")
    srid: int = Field(default=4326, gt=0, lt=999_999, description="of the geometry; the features must come in it")
    mode: Mode = Field(
        default="insert",
        description="insert, append: add to the table; replace: the table is the new one at once when all is written; "
        "upsert: a feature whose key is there already takes its place",
    )
    key: list[str] = Field(
        default=[], description="attributes that tell features apart: for upsert; the primary key of a table made here"
    )
    url: SecretStr | None = Field(
        default=None, description="postgresql://host/name, or env:NAME where it is kept; none: the landrecords database"
    )

    @field_validator("key", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Nothing; raises NodeProblem for what no table can be made of."""
        layout = given["input"]
        TableName.of(self.table)
        for name in self.key:
            column(layout, name, "key")
        if self.mode == "upsert" and not self.key:
            raise NodeProblem("upsert must know what tells features apart; set key to one or more attributes.", "key")
        for field in layout.fields:
            check_column(field.name)
            stored_type(field.type, field.name)
        if layout.geometry:
            self._check_geometry(layout)
        return {}

    def prepare(self, layout: Layout, work: Work) -> None:
        """Make the tables that are missing. Raises ConfigurationError for a table that the features do not fit."""
        with self._connected(work) as connection, connection, connection.cursor() as cursor:
            Loading(cursor, self._target(layout), work).prepare()

    def packed(self, batch: Batch) -> Any:
        """The rows as binary COPY has them. Raises TerminalError for values that Postgres does not know."""
        for name in self.key:
            if batch.column(name).null_count:
                raise TerminalError(
                    Reason.MISSING_FIELD,
                    f"A feature's {name!r} is null, which is in the key; filter those out.",
                )
        return packed_rows(batch, self.srid)

    def open(self, layout: Layout, work: Work) -> Writer:
        """One transaction for the part."""
        return PartWriter(self._connected(work), self._target(layout), work)

    def conclude(self, parts: list[Written], work: Work) -> Written:
        """Build the index of the geometry; with replace, put the new table in the old one's place."""
        with self._connected(work) as connection, connection, connection.cursor() as cursor:
            loading = Loading(cursor, self._target(_NOTHING), work)
            loading.conclude()
            place = f"table {loading.place}"
        written = super().conclude(parts, work)
        return replace(written, places=(place,))

    def _check_geometry(self, layout: Layout) -> None:
        check_column(self.geometry_column)
        if self.geometry_column in layout.names:
            raise NodeProblem(
                f"an attribute is called {self.geometry_column!r} too; name the geometry otherwise, or rename that.",
                "geometry_column",
            )
        crs = layout.crs
        if crs is not None and crs != f"EPSG:{self.srid}" and not _equal(crs, self.srid):
            code = crs.removeprefix("EPSG:")
            raise NodeProblem(
                f"the features come in {crs[:60]}, not in EPSG:{self.srid}; "
                + (f"set srid: {code}, or " if code.isdecimal() else "")
                + f"put geoprocessing.reproject to EPSG:{self.srid} before the sink.",
                "srid",
            )

    def _connected(self, work: Work) -> AbstractContextManager[Any]:
        return work.outside.postgres(self.url.get_secret_value() if self.url else None)

    def _target(self, layout: Layout) -> Target:
        if layout.geometry:
            layout = replace(layout, geometry=replace(layout.geometry, name=self.geometry_column))
        return Target(TableName.of(self.table), self.mode, tuple(self.key), self.srid, layout)


@node("data_sink.postgres")
class PostgresSink(PostgisSink):
    """The same as data_sink.postgis."""


_NOTHING = Layout(pa.schema([]), GeometryField())


def _equal(crs: str, srid: int) -> bool:
    try:
        return bool(crs_of(crs) == crs_of(f"EPSG:{srid}"))
    except ValueError:
        raise NodeProblem(f"there is no EPSG:{srid}; correct srid.", "srid") from None
