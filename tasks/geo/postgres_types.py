"""Which type a column of features has in Postgres, and the other way round.

The wire formats are those of each type's `send` function (binary COPY): big-endian numbers, dates as days and times as
microseconds since 2000-01-01.
"""

from __future__ import annotations

import pyarrow as pa

from tasks.geo.nodes import NodeProblem

DAYS_TO_2000 = 10_957
"""Days from Arrow's epoch, 1970-01-01, to that of Postgres."""

MICROSECONDS_TO_2000 = DAYS_TO_2000 * 86_400_000_000

TIME, TIMESTAMP, INSTANT = pa.time64("us"), pa.timestamp("us"), pa.timestamp("us", tz="UTC")

_NAMES = {
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "integer",
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.binary(): "bytea",
    pa.date32(): "date",
    TIME: "time",
    TIMESTAMP: "timestamp",
    INSTANT: "timestamptz",
    pa.uuid(): "uuid",
    pa.json_(): "json",
}

WIRES = {
    pa.bool_(): "u1",
    pa.int16(): ">i2",
    pa.int32(): ">i4",
    pa.int64(): ">i8",
    pa.float32(): ">f4",
    pa.float64(): ">f8",
    pa.date32(): ">i4",
    TIME: ">i8",
    TIMESTAMP: ">i8",
    INSTANT: ">i8",
}
"""numpy's name for the value of types whose values all have the same size."""

EPOCHS = {pa.date32(): DAYS_TO_2000, TIMESTAMP: MICROSECONDS_TO_2000, INSTANT: MICROSECONDS_TO_2000}

_WIDENED = {
    pa.int8(): pa.int16(),
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.date64(): pa.date32(),
    pa.null(): pa.string(),
}


def stored_type(kind: pa.DataType, column: str) -> pa.DataType:
    """The Arrow type that a column is written as. Raises NodeProblem for one that Postgres has no like of."""
    if pa.types.is_dictionary(kind):
        return stored_type(kind.value_type, column)
    if kind in _WIDENED:
        return _WIDENED[kind]
    if pa.types.is_temporal(kind) and (found := _moment(kind)):
        return found
    if pa.types.is_fixed_size_binary(kind) and not isinstance(kind, pa.ExtensionType):
        return pa.binary()
    if pa.types.is_decimal(kind) and kind.precision <= 38 and 0 <= kind.scale <= kind.precision:
        return pa.decimal128(kind.precision, kind.scale)
    if kind in _NAMES:
        return kind
    raise NodeProblem(
        f"column {column!r} is {kind}, which Postgres has no type for; leave it out (attributes.select) or compute "
        "text or numbers of it."
    )


def _moment(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_timestamp(kind):
        return INSTANT if kind.tz else TIMESTAMP
    return TIME if pa.types.is_time(kind) else None


def type_name(stored: pa.DataType) -> str:
    """What Postgres calls a stored type."""
    if pa.types.is_decimal(stored):
        return f"numeric({stored.precision},{stored.scale})"
    return _NAMES[stored]


# --- from Postgres ---

READ_AS = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "bpchar": pa.string(),
    "name": pa.string(),
    "uuid": pa.string(),
    "json": pa.string(),
    "jsonb": pa.string(),
    "citext": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time": TIME,
    "timestamp": TIMESTAMP,
    "timestamptz": INSTANT,
}

CAST_TO = {"uuid": "text", "json": "text", "jsonb": "text", "oid": "int8", "citext": "text"}
"""What such a column is cast to by the query, so that its bytes are those of its Arrow type."""


def read_type(
    name: str, kind: str, digits: tuple[int | None, int | None], column: str
) -> tuple[pa.DataType, str | None]:
    """The Arrow type of a column and what the query casts it to.

    name, kind   pg_type.typname and typtype
    digits       precision and scale of a numeric with limits
    Raises NodeProblem for types without a like in Arrow, with the cast to write.
    """
    if name == "numeric":
        return _read_numeric(*digits)
    if kind == "e":
        return pa.string(), "text"
    if name in READ_AS:
        return READ_AS[name], CAST_TO.get(name)
    raise NodeProblem(
        f"column {column!r} is of type {name}, which cannot be read; use query and cast it ({column}::text), or leave "
        "it out there."
    )


def _read_numeric(precision: int | None, scale: int | None) -> tuple[pa.DataType, str]:
    """numeric(p,s) is exact; for a numeric without limits, doubles are what can be calculated with."""
    if precision and scale is not None and precision <= 38 and 0 <= scale <= precision:
        return pa.decimal128(precision, scale), "text"
    return pa.float64(), "float8"
