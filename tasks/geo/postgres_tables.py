"""Tables of a database: found, looked at, and made for features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2 import sql

from tasks.errors import ConfigurationError
from tasks.geo.layouts import UNKNOWN, GeometryField, Layout
from tasks.geo.postgres_names import TableName, listed, statement
from tasks.geo.postgres_types import stored_type, type_name


@dataclass(frozen=True)
class Column:
    """A column of a table; `must`: it has to be given a value; `own`: the database makes its values."""

    name: str
    type: str
    oid: int
    modifier: int
    must: bool
    own: bool


@dataclass(frozen=True)
class Table:
    """A table that exists."""

    name: TableName
    oid: int
    kind: str
    has_children: bool
    pages: int
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)

    def __getitem__(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def find_table(cursor: Any, name: TableName) -> Table | None:
    """The table of that name, where there is one."""
    cursor.execute(statement("geo_table"), (name.text,))
    row = cursor.fetchone()
    if row is None:
        return None
    oid, schema, found, kind, has_children, pages = row
    cursor.execute(statement("geo_columns"), (oid,))
    columns = tuple(
        Column(name, typname, type_oid, modifier, not_null and not has_default and not own, own)
        for name, typname, type_oid, modifier, not_null, has_default, own in cursor.fetchall()
    )
    return Table(TableName(schema, found), oid, kind, has_children, pages, columns)


def place_of(cursor: Any, name: TableName) -> TableName:
    """The name with the schema that a new table of it comes into. Raises ConfigurationError."""
    cursor.execute("SELECT nspname FROM pg_namespace WHERE nspname = coalesce(%s, current_schema())", (name.schema,))
    row = cursor.fetchone()
    if row is None:
        missing = name.schema or "for new tables in its search_path"
        raise ConfigurationError(f"The database has no schema {missing}; make it (CREATE SCHEMA) or name another.")
    return TableName(row[0], name.name)


def postgis_schema(cursor: Any) -> str | None:
    """Where PostGIS is installed; None: it is not."""
    cursor.execute(
        "SELECT nspname FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = extnamespace WHERE extname = 'postgis'"
    )
    row = cursor.fetchone()
    return str(row[0]) if row else None


def geometry_limits(cursor: Any, schema: str, column: Column) -> tuple[int, str]:
    """SRID (0: any) and type (UNKNOWN: any) that a geometry column allows."""
    if column.modifier < 0:
        return (4326 if column.type == "geography" else 0), UNKNOWN
    functions = (sql.Identifier(schema, name) for name in ("postgis_typmod_srid", "postgis_typmod_type"))
    cursor.execute(sql.SQL("SELECT {}(%s), {}(%s)").format(*functions), (column.modifier,) * 2)
    srid, kind = cursor.fetchone()
    return srid, UNKNOWN if kind.rstrip("ZM") == "Geometry" else kind


def has_unique(cursor: Any, table: Table, key: Collection[str]) -> bool:
    """Whether an index holds the key to be unique."""
    cursor.execute(statement("geo_unique"), (table.oid,))
    return any(set(columns) == set(key) for (columns,) in cursor.fetchall())


def dependents(cursor: Any, table: Table) -> list[str]:
    """Views and foreign keys that lean on the table."""
    cursor.execute(statement("geo_dependents"), (table.oid,))
    return [row[0] for row in cursor.fetchall()]


# --- making one ---


def make_table(
    cursor: Any, name: TableName, layout: Layout, srid: int, key: Sequence[str], temporary: bool = False
) -> None:
    """Make it for those features: PostGIS geometry where there is PostGIS, else EWKB in bytea."""
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(type_name(stored_type(field.type, field.name))))
        for field in layout.fields
    ]
    if layout.geometry:
        columns.append(_geometry_column(cursor, layout.geometry, srid))
    if key:
        columns.append(sql.SQL("PRIMARY KEY ({})").format(listed(key)))
    made = sql.SQL("CREATE {} TABLE {} ({}) {}").format(
        sql.SQL("TEMPORARY" if temporary else ""),
        name.quoted,
        sql.SQL(", ").join(columns),
        sql.SQL("ON COMMIT DROP" if temporary else ""),
    )
    cursor.execute(made)
    if layout.geometry:
        # Coordinates do not shrink: Postgres would try with every row above 2 kB, a third of the time loading takes
        external = sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET STORAGE EXTERNAL")
        cursor.execute(external.format(name.quoted, sql.Identifier(layout.geometry.name)))


def _geometry_column(cursor: Any, geometry: GeometryField, srid: int) -> sql.Composed:
    column = sql.Identifier(geometry.name)
    schema = postgis_schema(cursor)
    if schema is None:
        return sql.SQL("{} bytea").format(column)
    known = sql.SQL("SELECT 1 FROM {} WHERE srid = %s").format(sql.Identifier(schema, "spatial_ref_sys"))
    cursor.execute(known, (srid,))
    if cursor.fetchone() is None:
        raise ConfigurationError(f"PostGIS there does not know srid {srid}; add it to spatial_ref_sys or use another.")
    kind = "Geometry" if geometry.kind == UNKNOWN else geometry.kind.replace(" ", "")
    limits = sql.Identifier(kind), sql.Literal(srid)
    return sql.SQL("{} {}({}, {})").format(column, sql.Identifier(schema, "geometry"), *limits)
