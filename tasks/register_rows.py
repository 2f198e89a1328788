"""From the body of an answer to the rows of one property: strict, and nothing of it lost.

Absent and null are the same: no value, no rows. A field that the profile does not know is kept with the property
(column `extra`, by its path) and reported. The content hash is of all that belongs to the property, however the answer
orders it, so an answer that says the same is recognised before the database is asked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import TransientError
from tasks.records import Reason
from tasks.register_fields import TableSource
from tasks.register_mapping import BadRecord, JsonObject, TablePlan
from tasks.register_profile import RegisterProfile
from tasks.register_tables import CHILDREN, PROPERTIES, SHARED, TABLES
from tasks.register_values import NULL, Unusable, read_json

BODY_BYTES = 8_000_000
HASH_BYTES = 16

__all__ = ["BadRecord", "Record", "RegisterReader", "parse_answer"]


@dataclass(frozen=True, slots=True)
class Record:
    """One property.

    lines         table -> its rows as lines of COPY (columns: `Table.names`; of properties, `extra` follows), sorted
    shared        table -> key -> line, of the tables that many properties refer to; not part of the hash
    content_hash  32 hexadecimal digits
    unknown       paths of fields the profile does not know, with [] behind a list: `cases[].virtualTour`
    """

    id: str
    lines: Mapping[str, list[str]]
    shared: Mapping[str, dict[tuple[str, ...], str]]
    content_hash: str
    unknown: frozenset[str]


def parse_answer(body: bytes) -> Any:
    """The JSON of an answer.

    Raises TransientError for what is no JSON, which may be the server's trouble of a moment; BadRecord for NaN, a name
    twice in an object, and what is too long or too deep.
    """
    if len(body) > BODY_BYTES:
        raise BadRecord(Reason.TOO_LARGE, "", f"the answer has {len(body):,} bytes; {BODY_BYTES:,} are the most")
    try:
        return json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise BadRecord(Reason.TOO_DEEP, "", "the answer is nested too deeply") from None
    except ValueError as exc:  # UTF-8, JSON and numbers of thousands of digits alike
        raise TransientError(Reason.MALFORMED_JSON, f"the answer is no JSON ({str(exc)[:200]})") from None


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    there = dict(pairs)
    if len(there) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadRecord(Reason.DUPLICATE_KEY, twice[:80], "is named twice in one object")
    return there


def _no_constant(word: str) -> Any:
    raise BadRecord(Reason.BAD_NUMBER, "", f"the answer holds {word}, which is no JSON")


class RegisterReader:
    """Reads a register's answers as its profile says. Safe for threads; make it once."""

    def __init__(self, profile: RegisterProfile) -> None:
        tables = profile.tables
        plans = {name: TablePlan(TABLES[name], source) for name, source in tables.items()}
        self._profile = profile
        self._record = profile.detail.record
        self._property = plans["properties"]
        self._children = [plans[table.name] for table in CHILDREN if table.name in plans]
        self._shared = [plans[table.name] for table in SHARED if table.name in plans]
        self._known = _known_names(tables, profile.ignored)
        # Part of every hash: with another mapping, everything is written anew.
        seen = json.dumps({name: source.model_dump() for name, source in tables.items()}, sort_keys=True)
        self._mapping = hashlib.blake2b((seen + profile.id_prefix).encode(), digest_size=HASH_BYTES).digest()

    def read(self, asked: str, body: bytes) -> Record:
        """The property that was asked for, by its id in the table. Raises BadRecord, TransientError."""
        answer = parse_answer(body)
        for step in self._record.split(".") if self._record else ():
            answer = answer.get(step) if type(answer) is dict else None
        return self.record(asked, answer)

    def record(self, asked: str, answer: Any) -> Record:
        """The same of an answer that is parsed. Raises BadRecord; TransientError for what is no property at all."""
        if type(answer) is not dict or answer.keys().isdisjoint(self._known.names):
            said = "an error" if type(answer) is dict and "error" in answer else "something else"
            raise TransientError(Reason.PORTAL_ERROR, f"the answer holds no property but {said}")
        (row,) = self._property.rows(answer)
        item = self._checked_id(row, asked)
        unknown = _gather_unknown(answer, self._known, "", {})
        lines = {PROPERTIES.name: ["\t".join([*row, self._extra(unknown)])]}
        for plan in self._children:
            rows = plan.rows(answer)
            if rows:
                lines[plan.table.name] = sorted(["\t".join([item, *child]) for child in rows])
        shared = {plan.table.name: {plan.key_of(r): "\t".join(r) for r in plan.rows(answer)} for plan in self._shared}
        return Record(asked, lines, shared, self._hash(lines), frozenset(map(_without_places, unknown)))

    def _checked_id(self, row: list[str], asked: str) -> str:
        """The property's id as it is written in rows."""
        row[0] = item = self._profile.id_prefix + row[0]
        if item != asked or "\\" in item:
            raise BadRecord(Reason.OTHER_ITEM, "id", f"is {item[:80]!r}, but {asked[:80]!r} was asked for")
        return item

    @staticmethod
    def _extra(unknown: JsonObject) -> str:
        if not unknown:
            return NULL
        try:
            return read_json(unknown)
        except Unusable as exc:
            raise BadRecord(exc.reason, next(iter(unknown))[:80], f"among unknown fields {exc}") from None

    def _hash(self, lines: Mapping[str, list[str]]) -> str:
        said = hashlib.blake2b(digest_size=HASH_BYTES, key=self._mapping)
        for table, rows in lines.items():
            said.update(f"\n\n{table}\n".encode())
            said.update("\n".join(rows).encode())
        return said.hexdigest()


# --- fields that the profile does not know ---


@dataclass
class _Known:
    """The names of an object that are known, and those of them that are known in part only."""

    names: set[str] = field(default_factory=set)
    parts: dict[str, _Known] = field(default_factory=dict)

    def learn(self, steps: list[str]) -> None:
        """A path: the whole of what it leads to is known, whatever was known of it in part."""
        here = self
        for step in steps[:-1]:
            here.names.add(step)
            here = here.parts.setdefault(step, _Known())
        here.names.add(steps[-1])
        here.parts.pop(steps[-1], None)


def _known_names(tables: Mapping[str, TableSource], ignored: tuple[str, ...]) -> _Known:
    paths = [path.replace("[]", "").split(".") for path in ignored]
    for source in tables.values():
        for path in (path for column in source.columns.values() for path in column.all_paths if "#" not in path):
            ups = path.count("^")
            steps = [step for step in path[ups:].split(".") if not step.isdigit()]
            paths.append([*source.steps[: len(source.steps) - ups], *steps])
    known = _Known()
    for steps in sorted(paths, key=len, reverse=True):  # parts before what is known as a whole
        known.learn(steps)
    return known


def _gather_unknown(here: JsonObject, known: _Known, around: str, found: JsonObject) -> JsonObject:
    if not here.keys() <= known.names:
        found |= {around + name: value for name, value in here.items() if name not in known.names}
    for name, inner in known.parts.items():
        value = here.get(name)
        if type(value) is dict:
            _gather_unknown(value, inner, f"{around}{name}.", found)
        elif type(value) is list:
            for at, item in enumerate(value):
                if type(item) is dict:
                    _gather_unknown(item, inner, f"{around}{name}[{at}].", found)
    return found


def _without_places(path: str) -> str:
    pieces = path.split("[")
    return pieces[0] + "".join("[]" + piece.partition("]")[2] for piece in pieces[1:])
