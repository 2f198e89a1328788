"""Where the columns of a table are in a register's answer: the part of a profile that maps fields to columns.

A path is names (and places in a list, from 0) with dots, within a row: `coordinates.lat`, `bbox.0`. A ^ before it
leads to the object around the row, ^^ to the one around that; # is the row's own place in its list, ^# that of the
row around it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from tasks.register_tables import TABLES, Kind, Table

_PATH = re.compile(r"\^*(?:#|[^\s.^#]+(?:\.[^\s.^#]+)*)").fullmatch
_PLAIN_PATH = re.compile(r"(?:[^\s.^#]+(?:\.[^\s.^#]+)*)?").fullmatch
_IN_BRACES = re.compile(r"\{(.*?)\}")


class Model(BaseModel):
    """A part of a profile: it does not change, and holds nothing that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _path(path: str) -> str:
    if not _PATH(path):
        raise ValueError(f"{path!r} is no path; write names with dots, like coordinates.lat")
    return path


def _plain_path(path: str) -> str:
    if not _PLAIN_PATH(path):
        raise ValueError(f"{path!r} is no path; write names with dots")
    return path


def _piece(piece: str) -> str:
    for path in paths_in(piece):
        _path(path)
    return piece


PlainPath = Annotated[str, AfterValidator(_plain_path)]
"""Names with dots; empty for the whole answer."""


def paths_in(piece: str) -> list[str]:
    """The paths of a piece of text: `{floor}. {door}` -> floor, door."""
    return _IN_BRACES.findall(piece)


def filled(piece: str, values: Mapping[str, object]) -> str:
    """The piece with values in place of its paths; nothing where there is none."""
    return _IN_BRACES.sub(lambda found: str(values.get(found[1], "")), piece)


class ColumnSource(Model):
    """Where a column's value is, and how it is written. A text alone is one path, a list of texts several.

    paths    the first that is there counts
    pieces   instead of paths: texts with {path} in them, joined by commas; one none of whose paths is there is left out
    written  dates as strptime reads them; "text" for numbers and yes or no that come as text
    words    the register's words to ours; others stay as they are
    """

    paths: tuple[Annotated[str, AfterValidator(_path)], ...] = ()
    pieces: tuple[Annotated[str, AfterValidator(_piece)], ...] = ()
    written: str | None = None
    words: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, given: Any) -> Any:
        if isinstance(given, dict):
            paths = given.get("path")
            rest = {name: value for name, value in given.items() if name != "path"}
            return given if paths is None else {"paths": [paths] if isinstance(paths, str) else paths, **rest}
        return {"paths": [given] if isinstance(given, str) else given}

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if bool(self.paths) == bool(self.pieces):
            raise ValueError("give a path or pieces")
        return self

    @property
    def all_paths(self) -> Iterator[str]:
        """Every path that is read."""
        yield from self.paths
        for piece in self.pieces:
            yield from paths_in(piece)


class TableSource(Model):
    """Where a table's rows are.

    rows  an object, or a list of them; lists within lists are gone through
    take  of a list: all of it, its first, or all but the first
    """

    rows: PlainPath = ""
    take: Literal["all", "first", "rest"] = "all"
    columns: dict[str, ColumnSource] = Field(min_length=1)

    @property
    def steps(self) -> tuple[str, ...]:
        """The names that lead to the rows."""
        return tuple(self.rows.split(".")) if self.rows else ()


def check_tables(given: Mapping[str, TableSource]) -> dict[str, TableSource]:
    """The same, if all of it has a place. Raises ValueError that names what has none, and what is near."""
    for name, source in given.items():
        if name not in TABLES:
            raise ValueError(f"there is no table {name!r}; {suggested(name, TABLES)}")
        _check_columns(TABLES[name], source)
    if "properties" not in given or given["properties"].rows:
        raise ValueError("tables.properties is missing, or has rows of its own")
    for name, source in given.items():
        if source.take != "all" and not source.rows:
            raise ValueError(f"{name} cannot take the {source.take} of the property itself; say its rows")
    return dict(given)


def suggested(name: str, known: Collection[str]) -> str:
    """The names there are, the nearest one first."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}use one of {', '.join(known)}"


def _check_columns(table: Table, source: TableSource) -> None:
    for name, column in source.columns.items():
        if name not in table.columns:
            raise ValueError(f"{table.name} has no column {name!r}; {suggested(name, table.columns)}")
        for path in column.all_paths:
            if path.count("^") > len(source.steps):
                raise ValueError(f"{table.name}.{name}: {path!r} leads further out than the answer")
        _check_written(f"{table.name}.{name}", table.columns[name], column)
    missing = [name for name in table.mapped_key if name not in source.columns]
    if missing:
        raise ValueError(f"{table.name} needs {', '.join(missing)}, its key")


def _check_written(name: str, kind: Kind, column: ColumnSource) -> None:
    if (column.words or column.pieces) and kind is not Kind.TEXT:
        raise ValueError(f"{name} holds no words; it is of kind {kind}")
    if column.written == "text" and kind not in (Kind.INTEGER, Kind.NUMBER, Kind.MONEY, Kind.BOOLEAN):
        raise ValueError(f"{name} cannot be written as text; it is of kind {kind}")
    if column.written not in (None, "text"):
        if kind not in (Kind.DATE, Kind.MOMENT):
            raise ValueError(f"{name} is no date; it is of kind {kind}")
        _check_format(str(column.written))


def _check_format(written: str) -> None:
    sample = datetime(2015, 8, 27, 9, 30)  # noqa: DTZ001 - only to try the format
    try:
        read = datetime.strptime(sample.strftime(written), written)  # noqa: DTZ007
    except ValueError as exc:
        raise ValueError(f"{written!r} is no format of a date ({exc})") from None
    if read.date() != sample.date():
        raise ValueError(f"{written!r} does not name year, month and day")
