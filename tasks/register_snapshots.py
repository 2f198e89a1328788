"""Snapshot files of a register: each table's rows, as Postgres' COPY sends them, become gzipped CSV and Parquet.

A row is looked at once, as CSV: that is one of the files, and Arrow's CSV reader makes typed columns of it for the
other, some megabytes at a time. In both, an empty text is not the same as none.

Sources: RFC 4180 (CSV), RFC 3339 (moments), GeoParquet 1.1.0 (geoparquet.org), OGC 06-103r4 clause 8 (WKB).
"""

from __future__ import annotations

import gzip
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from tasks.register_tables import PROPERTIES, Kind, Table

GROUP_BYTES = 8 * 1024**2
GROUP_ROWS = 131_072
"""Rows are kept back, and a row group of Parquet is written, at the first of the two."""

GEOMETRY = "geometry"

_OWN = {
    "source": Kind.CODE,
    "discovered_at": Kind.MOMENT,
    "fetched_at": Kind.MOMENT,
    "changed_at": Kind.MOMENT,
    "vanished_at": Kind.MOMENT,
    "extra": Kind.JSON,
}
"""What we know of a property beside what the register says: where, when, and what the profile does not map."""

_ARROW: Mapping[Kind, pa.DataType] = {
    Kind.CODE: pa.string(),
    Kind.TEXT: pa.string(),
    Kind.INTEGER: pa.int32(),
    Kind.NUMBER: pa.float64(),
    Kind.MONEY: pa.decimal128(14, 2),
    Kind.BOOLEAN: pa.bool_(),
    Kind.DATE: pa.date32(),
    Kind.MOMENT: pa.timestamp("us", tz="UTC"),
    Kind.NUMBERS: pa.list_(pa.int64()),
    Kind.JSON: pa.string(),
}

_AS_CSV: Mapping[Kind, str] = {
    Kind.BOOLEAN: "{}::text",  # true, false: others than Postgres do not know t and f
    Kind.MOMENT: """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    Kind.NUMBERS: "array_to_json({})",
}

Sink = Callable[[bytearray], object]
"""Takes whole rows of CSV."""


def columns_of(table: Table) -> dict[str, Kind]:
    """The columns of the table's snapshot, in their order."""
    if table is PROPERTIES:
        return {**table.columns, **_OWN}
    return {name: table.columns.get(name, Kind.CODE) for name in table.names}


def as_csv(kind: Kind) -> str:
    """SQL for a column in the words of the snapshot; {} is the column."""
    return _AS_CSV.get(kind, "{}")


class Rows:
    """Takes rows one at a time, as psycopg2 hands them out of COPY, and gives them on by the megabyte.

    check  called each time before that; may raise, to end it
    """

    def __init__(self, sinks: Sequence[Sink], check: Callable[[], None]) -> None:
        self._sinks, self._check = sinks, check
        self._kept, self._number = bytearray(), 0

    def write(self, row: bytes) -> None:
        """One row with its end: libpq's PQgetCopyData gives neither less nor more."""
        self._kept += row[:-1]
        self._kept += b"\r\n"  # RFC 4180; COPY to a client ends rows with \n alone
        self._number += 1
        if self._number == GROUP_ROWS or len(self._kept) >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Give on what is left."""
        self._check()
        kept, self._kept, self._number = self._kept, bytearray(), 0
        for sink in self._sinks if kept else ():
            sink(kept)


@contextmanager
def csv_file(path: Path, table: Table) -> Iterator[Sink]:
    """The table as gzipped CSV: UTF-8 without a mark, RFC 4180, column names first. The same rows give the same bytes.

    NULL is an empty field, an empty text is "". Nothing is put before text that a spreadsheet might run: it is what
    the register says.
    """
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed:
        packed.write((",".join(columns_of(table)) + "\r\n").encode())
        yield packed.write


@contextmanager
def parquet_file(path: Path, table: Table) -> Iterator[Sink]:
    """The table as Parquet; as GeoParquet, with a point for each row that has a place, where it has coordinates."""
    columns = _Columns(table)
    with parquet.ParquetWriter(path, columns.schema, compression="zstd") as writer:
        yield lambda rows: writer.write_table(columns.read(rows))
        if columns.located:
            writer.add_key_value_metadata({"geo": json.dumps(columns.points.described())})


def rows_in(path: Path) -> int:
    """How many rows a finished Parquet file has."""
    return int(parquet.read_metadata(path).num_rows)


class _Columns:
    """Makes typed columns of rows."""

    def __init__(self, table: Table) -> None:
        kinds = columns_of(table)
        self.located = {"latitude", "longitude", "coordinate_type"} <= kinds.keys()
        self.points = _Points()
        self._names = list(kinds)
        self._lists = [name for name, kind in kinds.items() if kind is Kind.NUMBERS]
        fields = [pa.field(name, _ARROW[kind], nullable=name not in table.key) for name, kind in kinds.items()]
        self.schema = pa.schema([*fields, pa.field(GEOMETRY, pa.binary())] if self.located else fields)
        self._options = csv.ConvertOptions(
            column_types={field.name: pa.string() if field.name in self._lists else field.type for field in fields},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["true"],
            false_values=["false"],
        )

    def read(self, rows: bytearray) -> pa.Table:
        """The rows as a table of the schema."""
        one_block = len(rows) + 1  # a row may be of any size; threads would cost 50 MB and save a second in ten
        found = csv.read_csv(
            pa.BufferReader(rows),
            csv.ReadOptions(column_names=self._names, block_size=one_block, use_threads=False),
            csv.ParseOptions(newlines_in_values=True),
            self._options,
        )
        columns = {name: found[name] for name in self._names}
        for name in self._lists:
            columns[name] = [None if text is None else json.loads(text) for text in found[name].to_pylist()]
        if self.located:
            places = (found[name].to_pylist() for name in ("longitude", "latitude", "coordinate_type"))
            columns[GEOMETRY] = [self.points.wkb(*place) for place in zip(*places, strict=True)]
        return pa.table(columns, schema=self.schema)


_POINT = struct.Struct("<BIdd")


class _Points:
    """Points as WKB, and the box around them, in degrees of OGC:CRS84: longitude first."""

    def __init__(self) -> None:
        self._west = self._south = math.inf
        self._east = self._north = -math.inf

    def wkb(self, longitude: float | None, latitude: float | None, coordinate_type: str | None) -> bytes | None:
        """None where there is no place in degrees; 0, 0 is how some registers write that."""
        if longitude is None or latitude is None or not (coordinate_type or "4326").endswith("4326"):
            return None
        if not (abs(longitude) <= 180 and abs(latitude) <= 90) or longitude == latitude == 0:
            return None
        self._west, self._east = min(self._west, longitude), max(self._east, longitude)
        self._south, self._north = min(self._south, latitude), max(self._north, latitude)
        return _POINT.pack(1, 1, longitude, latitude)

    def described(self) -> dict[str, object]:
        """The `geo` metadata. No `crs` means OGC:CRS84."""
        about: dict[str, object] = {"encoding": "WKB", "geometry_types": ["Point"]}
        if self._west <= self._east:
            about["bbox"] = [self._west, self._south, self._east, self._north]
        return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: about}}
