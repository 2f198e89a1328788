"""What is read from a database: the statement, and the types of its columns as features have them."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from psycopg2 import sql

from tasks.geo.fields import suggested
from tasks.geo.layouts import UNKNOWN, GeometryField, Layout, crs_name, crs_of
from tasks.geo.nodes import NodeProblem
from tasks.geo.postgres_names import TableName, statement
from tasks.geo.postgres_packing import HAS_SRID
from tasks.geo.postgres_tables import find_table, geometry_limits, postgis_schema
from tasks.geo.postgres_types import read_type

_SPATIAL = ("geometry", "geography")
_USUAL_NAMES = ("geom", "geometry", "wkb_geometry", "the_geom", "wkb", "shape")


@dataclass(frozen=True)
class Wanted:
    """What a user asks for. Either of table and query is given."""

    table: TableName | None
    query: str | None
    filter: str | None
    geometry_column: str | None
    limit: int | None


@dataclass(frozen=True)
class Query:
    """What answers it.

    columns   the SELECT list: attributes, then the geometry as WKB
    kinds     their Arrow types on the wire
    srid      of every geometry; None where the database looks after that itself
    """

    wanted: Wanted
    layout: Layout
    columns: sql.Composable
    kinds: tuple[pa.DataType, ...]
    srid: int | None

    def statement(self, pages: tuple[int, int | None] | None = None) -> sql.Composed:
        """The SELECT; of a table perhaps some of its pages, the first and the one after the last."""
        conditions = [sql.SQL("(\n{}\n)").format(sql.SQL(self.wanted.filter))] if self.wanted.filter else []
        if pages:
            conditions += [sql.SQL("ctid {} {}::tid").format(sql.SQL(sign), sql.Literal(f"({page},0)"))
                           for sign, page in zip((">=", "<"), pages, strict=True) if page is not None]  # fmt: skip
        text = sql.SQL("SELECT {} FROM {}").format(self.columns, _from(self.wanted))
        if conditions:
            text += sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions)
        if self.wanted.limit is not None:
            text += sql.SQL(" LIMIT {}").format(sql.Literal(self.wanted.limit))
        return text


def _from(wanted: Wanted) -> sql.Composable:
    if wanted.table:
        return wanted.table.quoted
    return sql.SQL("(\n{}\n) AS asked").format(sql.SQL((wanted.query or "").strip().removesuffix(";")))


def answered(cursor: Any, wanted: Wanted) -> Query:
    """Look at the columns. Raises NodeProblem for those that cannot be read; psycopg2's errors for a wrong query."""
    cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(_from(wanted)))
    described = [(c.name, c.type_code, c.precision, c.scale) for c in cursor.description]
    names = [name for name, *_ in described]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise NodeProblem(f"the query gives two columns called {double!r}; name one of them otherwise (AS).", "query")
    cursor.execute(statement("geo_types"), ([oid for _, oid, *_ in described],))
    types = {oid: (name, kind) for oid, name, kind in cursor.fetchall()}
    spatial = {name: types[oid][0] for name, oid, *_ in described if types[oid][0] in (*_SPATIAL, "bytea")}
    geometry = _geometry_of(wanted, names, spatial)
    shape = _Shape.of(cursor, wanted, geometry, spatial[geometry]) if geometry else None
    fields: list[pa.Field] = []
    columns: list[sql.Composable] = []
    for name, oid, precision, scale in described:
        if name == geometry:
            continue
        if types[oid][0] in _SPATIAL:  # a second geometry
            columns.append(_as_wkb(postgis_schema(cursor), name))
            fields.append(pa.field(name, pa.binary()))
            continue
        kind, cast = read_type(*types[oid], (precision, scale), name)
        fields.append(pa.field(name, kind))
        columns.append(sql.SQL("{}" + (f"::{cast}" if cast else "")).format(sql.Identifier(name)))
    return _put_together(wanted, fields, columns, shape)


def _put_together(wanted: Wanted, fields: list[pa.Field], columns: list[sql.Composable], shape: _Shape | None) -> Query:
    kinds = [field.type for field in fields]
    if shape:
        columns += shape.columns
        kinds += [pa.binary(), *([pa.int32()] if len(shape.columns) > 1 else [])]
    layout = Layout(pa.schema(fields), shape.field if shape else None)
    return Query(wanted, layout, sql.SQL(", ").join(columns), tuple(kinds), shape.srid if shape else None)


def _geometry_of(wanted: Wanted, names: list[str], spatial: dict[str, str]) -> str | None:
    name = wanted.geometry_column
    if name is None:
        likely = [n for n, kind in spatial.items() if kind in _SPATIAL]
        return next(iter([*likely, *(n for n in spatial if n in _USUAL_NAMES)]), None)
    if name not in names:
        raise NodeProblem(f"there is no column {name!r}; {suggested(name, names)}.", "geometry_column")
    if name not in spatial:
        raise NodeProblem(f"column {name!r} is neither geometry nor bytea; name another.", "geometry_column")
    return name


def _as_wkb(schema: str | None, name: str) -> sql.Composed:
    return sql.SQL("{}({}, 'NDR')").format(sql.Identifier(schema or "public", "st_asbinary"), sql.Identifier(name))


@dataclass(frozen=True)
class _Shape:
    """The geometry column: how it is asked for, and what it is."""

    field: GeometryField
    columns: tuple[sql.Composable, ...]
    srid: int | None

    @classmethod
    def of(cls, cursor: Any, wanted: Wanted, name: str, kind: str) -> _Shape:
        if kind == "bytea":
            srid = _first_ewkb_srid(cursor, wanted, name)
            return cls(GeometryField(name, UNKNOWN, _epsg(srid)), (sql.Identifier(name),), srid)
        schema = postgis_schema(cursor) or "public"
        srid, shape, limited = _declared(cursor, schema, wanted, name)
        wkb = _as_wkb(schema, name)
        if limited:
            return cls(GeometryField(name, shape, _crs_of(cursor, schema, srid)), (wkb,), None)
        of_row = sql.SQL("{}({})").format(sql.Identifier(schema, "st_srid"), sql.Identifier(name))
        srid = _first(cursor, wanted, name, of_row) or 0
        return cls(GeometryField(name, shape, _crs_of(cursor, schema, srid)), (wkb, of_row), srid)


def _declared(cursor: Any, schema: str, wanted: Wanted, name: str) -> tuple[int, str, bool]:
    """SRID and type of the table's column, and whether the SRID is that of every row."""
    table = find_table(cursor, wanted.table) if wanted.table else None
    column = table.column(name) if table else None
    if column is None:
        return 0, UNKNOWN, False
    srid, kind = geometry_limits(cursor, schema, column)
    return srid, kind, srid != 0


def _first(cursor: Any, wanted: Wanted, name: str, expression: sql.Composable) -> Any:
    """The expression's value in the first row that has a geometry."""
    ask = sql.SQL("SELECT {} FROM {} WHERE {} IS NOT NULL LIMIT 1")
    cursor.execute(ask.format(expression, _from(wanted), sql.Identifier(name)))
    row = cursor.fetchone()
    return row[0] if row else None


def _first_ewkb_srid(cursor: Any, wanted: Wanted, name: str) -> int:
    head = _first(cursor, wanted, name, sql.SQL("substring({} from 1 for 9)").format(sql.Identifier(name)))
    if head is None or len(head) < 9:
        return 0
    order = "<" if bytes(head)[0] == 1 else ">"
    kind, srid = struct.unpack(f"{order}II", bytes(head)[1:])
    return int(srid) if kind & HAS_SRID else 0


def _crs_of(cursor: Any, schema: str, srid: int) -> str | None:
    if srid == 0:
        return None
    table = sql.Identifier(schema, "spatial_ref_sys")
    ask = sql.SQL("SELECT auth_name || ':' || auth_srid, srtext FROM {} WHERE srid = %s").format(table)
    cursor.execute(ask, (srid,))
    for text in cursor.fetchone() or ():
        try:
            return crs_name(crs_of(text)) if text else None
        except ValueError:
            continue  # an authority that PROJ does not know: its text may do
    return None


def _epsg(srid: int) -> str | None:
    try:
        return crs_name(crs_of(f"EPSG:{srid}")) if srid else None
    except ValueError:
        raise NodeProblem(f"the geometries have srid {srid}, unknown to EPSG; correct it in the table.") from None


def estimated_rows(cursor: Any, query: Query) -> int:
    """How many rows the planner expects."""
    cursor.execute(sql.SQL("EXPLAIN (FORMAT JSON) ") + query.statement())
    return int(_plan(cursor)["Plan Rows"])


def relations(cursor: Any, query: Query) -> list[TableName]:
    """The tables that are read, views and partitions resolved."""
    cursor.execute(sql.SQL("EXPLAIN (FORMAT JSON, VERBOSE) ") + query.statement())
    found, todo = set(), [_plan(cursor)]
    while todo:
        step = todo.pop()
        todo += step.get("Plans", [])
        if "Relation Name" in step:
            found.add(TableName(step.get("Schema"), step["Relation Name"]))
    return sorted(found, key=str)


def _plan(cursor: Any) -> dict[str, Any]:
    said = cursor.fetchone()[0]
    plan: dict[str, Any] = (json.loads(said) if isinstance(said, str) else said)[0]["Plan"]
    return plan
