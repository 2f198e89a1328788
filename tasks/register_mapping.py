"""A profile's columns, made ready: from an answer to the rows of one table. Pure, and quick.

A row is a list of fields as COPY reads them, in the order of the table's columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tasks.errors import TerminalError
from tasks.records import Reason
from tasks.register_fields import ColumnSource, TableSource, filled, paths_in
from tasks.register_readers import reader_of
from tasks.register_tables import Table
from tasks.register_values import NULL, Reader, Unusable

Row = list[str]
JsonObject = dict[str, Any]


class BadRecord(TerminalError):
    """An answer that cannot be kept, however often it is fetched. `field` is what is wrong with it, if one is."""

    def __init__(self, reason: Reason, field: str, said: str) -> None:
        super().__init__(reason, f"{field} {said}" if field else said)
        self.field = field


Place = tuple[JsonObject, int | None]
"""An object of the answer on the way to a row, and its place in its list, from 0."""

Trail = tuple[Place, ...]
"""From the answer itself to the row."""

Getter = Callable[[Trail], Any]


class _Column(NamedTuple):
    """Where a value goes; `name` says where it came from."""

    name: str
    slot: int
    read: Reader


class TablePlan:
    """How one table's rows are read from an answer. Safe for threads."""

    def __init__(self, table: Table, source: TableSource) -> None:
        self.table = table
        self._steps, self._take = source.steps, source.take
        self._names = list(table.columns)
        self._empty = [NULL] * len(self._names)
        self._key = [slot for slot, name in enumerate(self._names) if name in table.key]
        self._plain: dict[str, _Column] = {}
        self._nested: dict[str, list[tuple[str, _Column]]] = {}
        self._others: list[tuple[Getter, _Column]] = []
        for name, column in source.columns.items():
            self._add(name, column)

    def _add(self, name: str, source: ColumnSource) -> None:
        """Most columns are a name of the row, or of an object in it: those are looked up without a detour."""
        read = reader_of(self.table.columns[name], written=source.written, words=source.words)
        column = _Column(source.paths[0].lstrip("^") if source.paths else name, self._names.index(name), read)
        steps = source.paths[0].split(".") if len(source.paths) == 1 else []
        if len(steps) == 1 and steps[0][0] not in "^#" and steps[0] not in self._plain:
            self._plain[steps[0]] = column
        elif len(steps) == 2 and steps[0][0] != "^" and not steps[1].isdigit():
            self._nested.setdefault(steps[0], []).append((steps[1], column))
        else:
            self._others.append((_getter(source), column))

    def rows(self, answer: JsonObject) -> list[Row]:
        """The table's rows in the answer, in its order. Raises BadRecord."""
        rows = [self._row(trail) for trail in self._trails(answer) if trail[-1][0]]
        if len(rows) > 1 and len({self.key_of(row) for row in rows}) < len(rows):
            raise BadRecord(Reason.DUPLICATE_KEY, ".".join(self._steps), "names the same key more than once")
        return rows

    def key_of(self, row: Row) -> tuple[str, ...]:
        """The mapped part of a row's key."""
        return tuple([row[slot] for slot in self._key])

    def _trails(self, answer: JsonObject) -> list[Trail]:
        trails: list[Trail] = [((answer, None),)]
        for step in self._steps:
            trails = [(*trail, place) for trail in trails for place in self._places(trail, step)]
        if self._take == "all":
            return trails
        return [trail for trail in trails if bool(trail[-1][1]) == (self._take == "rest")]

    def _places(self, trail: Trail, step: str) -> list[Place]:
        """The objects of that name in the last of a trail: one, or those of a list."""
        value = trail[-1][0].get(step)
        if type(value) is dict:
            return [(value, None)]
        if value is None:
            return []
        if type(value) is list and all(type(item) is dict for item in value):
            return [(item, at) for at, item in enumerate(value)]
        raise BadRecord(Reason.WRONG_TYPE, self._where(trail, step), "is neither an object nor a list of them")

    def _row(self, trail: Trail) -> Row:
        row, plain = self._empty.copy(), self._plain
        here, name = trail[-1][0], ""
        try:
            for name, value in here.items():
                column = plain.get(name)
                if column is not None and value is not None:
                    row[column[1]] = column[2](value)
            for name, columns in self._nested.items():
                value = here.get(name)
                if value is not None:
                    _fill(row, value, columns)
            for get, column in self._others:
                name = column.name
                value = get(trail)
                if value is not None:
                    row[column.slot] = column.read(value)
        except Unusable as exc:
            raise BadRecord(exc.reason, self._where(trail, name + exc.inside), str(exc)) from None
        for slot in self._key:
            if row[slot] == NULL:
                raise BadRecord(Reason.MISSING_FIELD, self._where(trail, self._names[slot]), "is missing")
        return row

    def _where(self, trail: Trail, name: str) -> str:
        """`cases[2].priceCash`"""
        said = [step if at is None else f"{step}[{at}]" for step, (_, at) in zip(self._steps, trail[1:], strict=False)]
        return ".".join([*said, name])


def _fill(row: Row, value: Any, columns: Sequence[tuple[str, _Column]]) -> None:
    if type(value) is not dict:
        raise Unusable(Reason.WRONG_TYPE, "is no object")
    for name, (_, slot, read) in columns:
        inner = value.get(name)
        if inner is not None:
            try:
                row[slot] = read(inner)
            except Unusable as exc:
                exc.inside = f".{name}"
                raise


# --- values that are further away ---


def _getter(source: ColumnSource) -> Getter:
    if source.pieces:
        return _pieces_getter(source.pieces)
    getters = [_path_getter(path) for path in source.paths]
    return getters[0] if len(getters) == 1 else _first_of(getters)


def _path_getter(path: str) -> Getter:
    ups = path.count("^")
    steps = path[ups:].split(".")
    if steps == ["#"]:
        return lambda trail: trail[-1 - ups][1] or 0
    return lambda trail: _walk(trail[-1 - ups][0], steps)


def _walk(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        if type(value) is dict:
            value = value.get(step)
        elif type(value) is list and step.isdigit():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            raise Unusable(Reason.WRONG_TYPE, f"has no {step} to look up")
        if value is None:
            return None
    return value


def _first_of(getters: Sequence[Getter]) -> Getter:
    """The first value that is there; what is of another shape counts as not there while another path may fit."""

    def get(trail: Trail) -> Any:
        misfit: Unusable | None = None
        for getter in getters:
            try:
                value = getter(trail)
            except Unusable as exc:
                misfit = exc
                continue
            if value is not None:
                return value
        if misfit is not None:
            raise misfit
        return None

    return get


def _pieces_getter(pieces: Sequence[str]) -> Getter:
    compiled = [(piece, [(path, _path_getter(path)) for path in paths_in(piece)]) for piece in pieces]

    def get(trail: Trail) -> str | None:
        said = [_piece_text(piece, getters, trail) for piece, getters in compiled]
        return ", ".join(text for text in said if text) or None

    return get


def _piece_text(piece: str, getters: Sequence[tuple[str, Getter]], trail: Trail) -> str:
    values = {path: value for path, getter in getters if (value := getter(trail)) is not None}
    for path, value in values.items():
        if type(value) not in (str, int):
            raise Unusable(Reason.WRONG_TYPE, f"cannot be made of {path}, which is neither text nor a whole number")
    return " ".join(filled(piece, values).split()) if values else ""
