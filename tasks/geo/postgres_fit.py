"""Whether features fit into a table that is there, and where they do not, why."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tasks.errors import ConfigurationError
from tasks.geo.fields import suggested
from tasks.geo.layouts import UNKNOWN, GeometryField, Layout
from tasks.geo.postgres_tables import Table, geometry_limits, postgis_schema
from tasks.geo.postgres_types import stored_type, type_name

_SAME_BYTES = {
    "text": {"text", "varchar", "bpchar", "citext", "json", "xml", "name"},
    "json": {"json", "text", "varchar"},
}
"""Stored type -> types (pg_type.typname) that are sent the same way."""

_TYPNAMES = {
    "boolean": "bool",
    "smallint": "int2",
    "integer": "int4",
    "bigint": "int8",
    "real": "float4",
    "double precision": "float8",
}


def fits(cursor: Any, table: Table, layout: Layout, srid: int) -> bool:
    """Whether the features' bytes are those of the table's columns; where not, the database has to cast them.

    Raises ConfigurationError where they cannot be brought into the table at all.
    """
    if table.kind not in "rpf":
        raise ConfigurationError(f"{table.name} is no table but a view or the like; write to a table.")
    given = {field.name: type_name(stored_type(field.type, field.name)) for field in layout.fields}
    names = [*given, *([layout.geometry.name] if layout.geometry else [])]
    _check_columns(table, names)
    if layout.geometry:
        _check_geometry(cursor, table, layout.geometry, srid)
    alike = [_same(cursor, table, name, kind) for name, kind in given.items()]  # all of them, to find the impossible
    return all(alike)


def _check_columns(table: Table, names: Collection[str]) -> None:
    for name in names:
        column = table.column(name)
        if column is None:
            known = [c.name for c in table.columns]
            raise ConfigurationError(
                f"Table {table.name} has no column {name!r} ({suggested(name, known)}); rename it or leave it out "
                "(attributes.rename, attributes.select), add it to the table, or use mode replace."
            )
        if column.own:
            raise ConfigurationError(
                f"Column {name!r} of table {table.name} is one that the database fills itself; leave it out "
                "(attributes.select)."
            )
    lacking = [c.name for c in table.columns if c.must and c.name not in names]
    if lacking:
        raise ConfigurationError(
            f"Table {table.name} demands a value for {', '.join(lacking)}, which the features do not have; compute it "
            "(attributes.compute) or give the column a default."
        )


def _same(cursor: Any, table: Table, name: str, kind: str) -> bool:
    column = table[name]
    plain = kind.partition("(")[0]
    if column.type in _SAME_BYTES.get(plain, {_TYPNAMES.get(plain, plain)}):
        return True
    cursor.execute(
        "SELECT %s IN ('text', 'varchar', 'bpchar') OR EXISTS (SELECT FROM pg_cast"
        " WHERE castsource = %s::regtype AND casttarget = %s AND castcontext IN ('a', 'i'))",
        (column.type, kind, column.oid),
    )
    if not cursor.fetchone()[0]:
        raise ConfigurationError(
            f"Column {name!r} of table {table.name} is {column.type}, but the features have {kind}; cast it "
            "(attributes.cast), write to another table, or use mode replace."
        )
    return False


def _check_geometry(cursor: Any, table: Table, geometry: GeometryField, srid: int) -> None:
    name, kind, column = geometry.name, geometry.kind, table[geometry.name]
    if column.type == "bytea":
        return
    schema = postgis_schema(cursor)
    if column.type not in {"geometry", "geography"} or schema is None:
        raise ConfigurationError(
            f"Column {name!r} of table {table.name} is {column.type}, not geometry; set geometry_column."
        )
    there_srid, there_kind = geometry_limits(cursor, schema, column)
    if there_srid not in {0, srid}:
        raise ConfigurationError(
            f"Column {name!r} of table {table.name} has srid {there_srid}, but features come with {srid}; put "
            f"geoprocessing.reproject to EPSG:{there_srid} before the sink and set srid: {there_srid}."
        )
    if UNKNOWN not in {kind, there_kind} and there_kind.rstrip("ZM") != kind.partition(" ")[0]:
        raise ConfigurationError(
            f"Column {name!r} of table {table.name} holds {there_kind}, but features come as {kind}; write to another "
            "table, use mode replace, or bring them to that type."
        )
