"""Typed parts of expressions: what they hold, and how two of them come to one kind."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.geo.casting import ARROW, Kind
from tasks.geo.expression_functions import roomy, text_bytes
from tasks.geo.expression_trees import Column, Constant, ExpressionProblem, Tree


@dataclass(frozen=True)
class Rows:
    """The columns that an expression uses, as plain values, and how many rows they have."""

    columns: Mapping[str, pa.Array]
    count: int

    def where(self, mask: pa.Array) -> Rows:
        """Those rows only."""
        kept = {name: values.filter(mask) for name, values in self.columns.items()}
        return Rows(kept, pc.sum(mask).as_py() or 0)


Run = Callable[[Rows], Any]
"""Gives an array, or a scalar that stands for every row."""


@dataclass(frozen=True)
class Typed:
    """A part of an expression with its kind.

    fallible  whether a value may make it fail: then an untaken branch of CASE does not run it
    """

    kind: Kind
    run: Run
    tree: Tree
    fallible: bool = False

    @property
    def value(self) -> Any:
        """Of a constant; None for all else."""
        return self.tree.value if isinstance(self.tree, Constant) else None

    @property
    def named(self) -> str:
        """As a message calls it."""
        if isinstance(self.tree, Column):
            return f"{self.tree.name} ({self.kind})"
        return f"{self.value!r} ({self.kind})" if isinstance(self.tree, Constant) else f"the {self.kind}"


def constant(tree: Constant) -> Typed:
    """A value that was written out."""
    kinds = {bool: Kind.BOOLEAN, int: Kind.INTEGER, float: Kind.NUMBER, str: Kind.TEXT}
    kinds |= {dt.date: Kind.DATE, dt.datetime: Kind.TIMESTAMP, type(None): Kind.NOTHING}
    kind = kinds[type(tree.value)]
    scalar = pa.scalar(tree.value, ARROW[kind])
    return Typed(kind, lambda _: scalar, tree)


def spread(datum: Any, rows: int) -> pa.Array:
    """As an array of so many rows."""
    return pa.repeat(datum, rows) if isinstance(datum, pa.Scalar) else datum


def arrayed(run: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Runs what works on arrays only; of nothing but scalars it makes a scalar again."""
    if any(isinstance(datum, pa.Array) for datum in (first, *others)):
        rows = next(len(datum) for datum in (first, *others) if isinstance(datum, pa.Array))
        return run(spread(first, rows), *others)
    made = run(spread(first, 1), *others)[0]
    roomy(text_bytes(made))
    return made


def as_kind(part: Typed, wanted: Kind) -> Typed:
    """The same as another kind, where that loses nothing. Raises ExpressionProblem."""
    if part.kind is wanted:
        return part
    if part.kind is Kind.NOTHING:
        null = pa.scalar(None, ARROW[wanted])
        return replace(part, kind=wanted, run=lambda _: null)
    if part.kind is Kind.TEXT and isinstance(part.value, str) and wanted in (Kind.DATE, Kind.TIMESTAMP):
        return constant(Constant(part.tree.at, _moment(part.value, wanted, part.tree.at)))
    if (part.kind, wanted) in ((Kind.INTEGER, Kind.NUMBER), (Kind.DATE, Kind.TIMESTAMP)):
        return replace(part, kind=wanted, run=lambda rows: pc.cast(part.run(rows), ARROW[wanted], safe=False))
    remedy = "write cast(... as text) around it" if wanted is Kind.TEXT else f"write cast(... as {wanted}) around it"
    if part.kind is Kind.OTHER or wanted is Kind.BOOLEAN:
        remedy = "compare it with a value" if wanted is Kind.BOOLEAN else "leave it out"
    raise ExpressionProblem(f"{part.named} at character {part.tree.at} stands where {wanted} is wanted; {remedy}.")


def _moment(text: str, wanted: Kind, at: int) -> dt.date:
    try:
        if wanted is Kind.DATE:
            return dt.date.fromisoformat(text)
        return dt.datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        raise ExpressionProblem(f"{text!r} at character {at} is no {wanted}; write it as '2024-12-31'.") from None


def unified(parts: Sequence[Typed], at: int) -> list[Typed]:
    """All of one kind. Raises ExpressionProblem for a text and a number."""
    kinds = {p.kind for p in parts} - {Kind.NOTHING}
    if not kinds:
        return [as_kind(p, Kind.TEXT) for p in parts]
    moments = kinds & {Kind.DATE, Kind.TIMESTAMP}
    if moments and all(isinstance(p.value, str) for p in parts if p.kind is Kind.TEXT):
        kinds -= {Kind.TEXT}
    wider = (Kind.NUMBER, {Kind.INTEGER, Kind.NUMBER}), (Kind.TIMESTAMP, {Kind.DATE, Kind.TIMESTAMP})
    wanted = next((kind for kind, both in wider if kinds == both), None) or (kinds.pop() if len(kinds) == 1 else None)
    if wanted is None or wanted is Kind.OTHER:
        told = " and ".join(dict.fromkeys(p.named for p in parts if p.kind is not Kind.NOTHING))
        raise ExpressionProblem(f"{told} do not go together (character {at}); cast one, as in cast({_cast_of(parts)}).")
    return [as_kind(p, wanted) for p in parts]


def _cast_of(parts: Sequence[Typed]) -> str:
    """An example of a cast that would help: of a column, to the kind of another part."""
    for part in parts:
        others = [p.kind for p in parts if p.kind not in (part.kind, Kind.NOTHING)]
        if isinstance(part.tree, Column) and others:
            return f"{part.tree.name} as {others[0]}"
    return "... as text"
