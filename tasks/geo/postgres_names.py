"""Names of tables as users write them, quoted; and the statements of tasks/sql."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from psycopg2 import sql

from tasks.geo.nodes import NodeProblem

MAX_NAME_BYTES = 63
"""Postgres cuts longer names short without a word (NAMEDATALEN)."""

_SYSTEM_COLUMNS = frozenset("tableoid xmin cmin xmax cmax ctid".split())
_TABLE = re.compile(r'(?:(?P<schema>"[^"]+"|[^".]+)\.)?(?P<name>"[^"]+"|[^".]+)')


@dataclass(frozen=True)
class TableName:
    """A table. schema None: wherever the search path finds it."""

    schema: str | None
    name: str

    @classmethod
    def of(cls, text: str, field: str = "table") -> TableName:
        """From `table`, `schema.table`, or with double quotes around either. Raises NodeProblem."""
        found = _TABLE.fullmatch(text.strip())
        if found is None:
            raise NodeProblem(f'{text!r} is no name of a table; write table, schema.table, or "ta.ble".', field)
        schema, name = (part and part.strip('"') for part in (found["schema"], found["name"]))
        for part in filter(None, (schema, name)):
            check_name(part, field)
        return cls(schema, name)

    @property
    def quoted(self) -> sql.Identifier:
        """For statements."""
        return sql.Identifier(*filter(None, (self.schema, self.name)))

    @property
    def text(self) -> str:
        """As to_regclass() takes it."""
        return ".".join('"' + part.replace('"', '""') + '"' for part in (self.schema, self.name) if part)

    def __str__(self) -> str:
        return ".".join(filter(None, (self.schema, self.name)))

    def named(self, name: str) -> TableName:
        """Another one in the same schema."""
        return TableName(self.schema, name)


def check_name(name: str, field: str | None = None) -> None:
    """Raises NodeProblem for what Postgres does not take as a name."""
    if not name or "\0" in name:
        raise NodeProblem(f"{name!r} is no name that Postgres takes; choose another.", field)
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        raise NodeProblem(f"{name!r} is longer than the {MAX_NAME_BYTES} bytes Postgres allows; shorten it.", field)


def check_column(name: str) -> None:
    """The same for columns, some names of which are the system's. Raises NodeProblem."""
    check_name(name)
    if name in _SYSTEM_COLUMNS:
        raise NodeProblem(f"Postgres keeps the name {name!r} for itself; rename the column (attributes.rename).")


def listed(names: Iterable[str]) -> sql.Composed:
    """Columns, quoted, with commas."""
    return sql.SQL(", ").join(map(sql.Identifier, names))


@cache
def statement(name: str) -> str:
    """The statement kept in `tasks/sql/<name>.sql`."""
    return resources.files("tasks.sql").joinpath(f"{name}.sql").read_text()
