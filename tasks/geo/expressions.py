"""Expressions over the columns of a stream: typed before anything runs, then evaluated batch by batch with Arrow.

Null follows SQL: it goes through every operator, `and`, `or` and `not` know three values, a filter keeps only what is
true. Division is that of real numbers, and null where it divides by zero; integers that overflow fail aloud.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import TerminalError
from tasks.geo.casting import ARROW, NAMES, Kind, cast, castable, kind_of, plain
from tasks.geo.expression_functions import FUNCTIONS, UNIFIED, joined
from tasks.geo.expression_operators import (
    COMPARED,
    COMPUTED,
    chosen,
    chosen_at_once,
    compared,
    computed,
    function,
    logical,
    of_one_kind,
)
from tasks.geo.expression_parts import Rows, Run, Typed, arrayed, as_kind, constant, spread, unified
from tasks.geo.expression_syntax import parsed
from tasks.geo.expression_trees import Call, Case, Cast, Column, Constant, ExpressionProblem, In, IsNull, Like, Tree
from tasks.geo.fields import suggested
from tasks.records import Reason

__all__ = ["Compiled", "ExpressionProblem", "compiled"]


@dataclass(frozen=True)
class Compiled:
    """An expression ready to run.

    type     of the result
    columns  names of those it uses
    """

    kind: Kind
    type: pa.DataType
    columns: tuple[str, ...]
    run: Run

    def __call__(self, columns: Mapping[str, pa.Array], rows: int) -> pa.Array:
        """The value of every row. Raises TerminalError for a value that it cannot take."""
        used = {name: plain(columns[name]) for name in self.columns}
        try:
            return spread(self.run(Rows(used, rows)), rows)
        except pa.ArrowInvalid as exc:
            raise TerminalError(Reason.BAD_NUMBER, f"An expression failed ({exc}); cast to number before it.") from exc


@lru_cache(maxsize=256)
def compiled(text: str, fields: pa.Schema) -> Compiled:
    """The expression over columns of that schema. Raises ExpressionProblem in a sentence with the remedy."""
    compiler = _Compiler(fields)
    typed = compiler.typed(parsed(text))
    if typed.kind is Kind.NOTHING:
        raise ExpressionProblem("it is always null, of no type; write cast(null as text) for an empty column.")
    type_ = fields.field(compiler.used[0]).type if typed.kind is Kind.OTHER else ARROW[typed.kind]
    return Compiled(typed.kind, type_, tuple(dict.fromkeys(compiler.used)), typed.run)


MAX_PARTS = 10_000
"""Of an expression: between and case stand for several uses of a part, and those within one another multiply."""


class _Compiler:
    """Types a tree from its leaves, and makes the functions that run it."""

    def __init__(self, fields: pa.Schema) -> None:
        self.fields = fields
        self.used: list[str] = []
        self._parts = 0

    def typed(self, tree: Tree) -> Typed:
        """The tree's own method, by its class."""
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ExpressionProblem(f"it comes to more than {MAX_PARTS:,} parts; divide it over several columns.")
        ways: dict[type[Tree], Callable[[Any], Typed]] = {
            Constant: constant,
            Column: self._column,
            IsNull: self._is_null,
            In: self._within,
            Like: self._like,
            Case: self._case,
            Cast: self._cast,
            Call: self._call,
        }
        return ways[type(tree)](tree)

    def _is_null(self, tree: IsNull) -> Typed:
        value = self.typed(tree.value)
        return Typed(Kind.BOOLEAN, lambda rows: pc.is_null(value.run(rows)), tree, value.fallible)

    def _column(self, tree: Column) -> Typed:
        if self.fields.get_field_index(tree.name) < 0:
            known = suggested(tree.name, self.fields.names)
            raise ExpressionProblem(f"there is no column {tree.name!r} (character {tree.at}); {known}.")
        self.used.append(tree.name)
        return Typed(kind_of(self.fields.field(tree.name).type), lambda rows: rows.columns[tree.name], tree)

    def _within(self, tree: In) -> Typed:
        value, choices = self.typed(tree.value), [self.typed(c) for c in tree.choices]
        if not choices or not all(isinstance(c.tree, Constant) for c in choices):
            raise ExpressionProblem(f"the list after in (character {tree.at}) has to hold constants; compare with =.")
        value, *choices = unified([value, *choices], tree.at)
        known = pa.array([c.value for c in choices if c.value is not None], ARROW.get(value.kind))
        otherwise = pa.scalar(False if len(known) == len(choices) else None, pa.bool_())

        def run(rows: Rows) -> Any:
            given = value.run(rows)
            found = pc.if_else(pc.is_in(given, value_set=known), pa.scalar(True), otherwise)
            return pc.if_else(pc.is_valid(given), found, pa.scalar(None, pa.bool_()))

        return Typed(Kind.BOOLEAN, run, tree, value.fallible)

    def _like(self, tree: Like) -> Typed:
        value, pattern = as_kind(self.typed(tree.value), Kind.TEXT), self.typed(tree.pattern)
        if not isinstance(pattern.value, str):
            raise ExpressionProblem(f"the pattern of like (character {tree.at}) has to be a text such as 'A%'.")
        text = pattern.value

        def run(rows: Rows) -> Any:
            return pc.match_like(value.run(rows), pattern=text, ignore_case=tree.fold)

        return Typed(Kind.BOOLEAN, run, tree, value.fallible)

    def _cast(self, tree: Cast) -> Typed:
        value = self.typed(tree.value)
        if tree.kind not in NAMES:
            raise ExpressionProblem(
                f"there is no type {tree.kind!r} (character {tree.at}); {suggested(tree.kind, NAMES)}."
            )
        wanted = NAMES[tree.kind]
        if value.kind is Kind.NOTHING:
            return as_kind(value, wanted)
        if value.kind is Kind.OTHER or not castable(value.kind, wanted):
            raise ExpressionProblem(f"{value.named} at character {tree.at} cannot become {wanted}; leave out the cast.")

        def run(rows: Rows) -> Any:
            return arrayed(lambda given: cast(given, wanted, lenient=tree.lenient), value.run(rows))

        return Typed(wanted, run, tree, fallible=value.fallible or not tree.lenient)

    def _case(self, tree: Case) -> Typed:
        tests = [as_kind(self.typed(test), Kind.BOOLEAN) for test, _ in tree.whens]
        branches = unified([self.typed(b) for b in (*(then for _, then in tree.whens), tree.otherwise)], tree.at)
        fallible = any(part.fallible for part in (*tests, *branches))
        run = chosen if fallible else chosen_at_once
        kind = branches[0].kind
        return Typed(kind, lambda rows: run(tests, branches, rows), tree, fallible)

    def _call(self, tree: Call) -> Typed:
        given = [self.typed(g) for g in tree.given]
        fallible = any(g.fallible for g in given)
        if tree.name in ("and", "or", "not"):
            return logical(tree, given, fallible)
        if tree.name in COMPARED:
            return compared(tree, given, fallible)
        if tree.name in COMPUTED or tree.name in ("/", "%", "-x"):
            return computed(tree, given, fallible)
        if tree.name == "||":
            parts = [as_kind(g, Kind.TEXT) for g in given]
            return Typed(Kind.TEXT, lambda rows: joined((p.run(rows) for p in parts), skip_nulls=False), tree, True)
        if tree.name in UNIFIED:
            return of_one_kind(tree, given, fallible)
        if tree.name not in FUNCTIONS:
            known = suggested(tree.name, [*FUNCTIONS, *UNIFIED])
            raise ExpressionProblem(f"there is no function {tree.name!r} (character {tree.at}); {known}.")
        return function(tree, FUNCTIONS[tree.name], given, fallible)
