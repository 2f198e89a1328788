"""quality.schema_contract: what columns there must be, and what may stand in them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from tasks.errors import TerminalError
from tasks.geo.batches import Batch, Shapes
from tasks.geo.blocking_distinct import digests, distinct
from tasks.geo.fields import column, suggested
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Blocking, NodeProblem, Split, Work, node
from tasks.records import Reason

TypeName = Literal["text", "integer", "number", "boolean", "date", "datetime"]

_IS: dict[TypeName, Callable[[pa.DataType], bool]] = {
    "text": lambda t: bool(pa.types.is_string(t) or pa.types.is_large_string(t)),
    "integer": lambda t: bool(pa.types.is_integer(t)),
    "number": lambda t: bool(pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t)),
    "boolean": lambda t: bool(pa.types.is_boolean(t)),
    "date": lambda t: bool(pa.types.is_date(t)),
    "datetime": lambda t: bool(pa.types.is_timestamp(t)),
}

Bound = float | datetime.date


class Rule(BaseModel):
    """What a column must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: TypeName | None = None
    required: bool = Field(default=True, description="whether the column must be there at all")
    not_null: bool = False
    unique: bool = Field(default=False, description="over all features; nulls do not count")
    min: Bound | None = Field(default=None, description="least value, a number or a date")
    max: Bound | None = Field(default=None, description="greatest value, a number or a date")
    allowed: tuple[str | int | float | bool, ...] | None = Field(
        default=None, description="the only values there may be"
    )


@node("quality.schema_contract")
class SchemaContract(Split):
    """Holds features to a contract on their columns.

    Missing columns and wrong types are found before the run; values as they come. Features that break the contract end
    the run, are dropped, or go out of `violations` with a column `violation` that says why, as `on_violation` says.
    """

    outputs: ClassVar[tuple[str, ...]] = ("output", "violations")

    columns: dict[str, Rule] = Field(min_length=1, description="column name -> rule")
    on_violation: Literal["fail", "drop", "route"] = Field(
        default="fail", description="end the run, leave the feature out, or give it to the port violations"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _kind_of_node(cls, values: Any, made: ModelWrapValidatorHandler[Self]) -> Self:
        contract = made(values)
        unique = tuple(name for name, rule in contract.columns.items() if rule.unique)
        if not unique:
            return contract
        rest = {name: rule.model_copy(update={"unique": False}) for name, rule in contract.columns.items()}
        return cast(Self, UniqueContract(each=contract.model_copy(update={"columns": rest}), unique=unique))

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same; for `violations` with why."""
        layout = given["input"]
        for name, rule in self.columns.items():
            _check(layout, name, rule)
        if _WHY in layout.names and self.on_violation == "route":
            raise NodeProblem(f"the input has a column {_WHY!r}, which this node would add; rename it before.")
        return {"output": layout, "violations": layout.with_fields([*layout.fields, pa.field(_WHY, pa.string())])}

    def apply(self, batch: Batch) -> Mapping[str, Batch]:
        """Raises TerminalError for a violation, where that is what to do."""
        broken = {why: rows for name, rule in self.columns.items() for why, rows in _broken(batch, name, rule)}
        none = np.zeros(batch.rows, dtype=bool)
        any_rule = np.any([none, *broken.values()], axis=0)
        if any_rule.any() and self.on_violation == "fail":
            raise _violated(broken, any_rule)
        apart = batch.take(any_rule if self.on_violation == "route" else none)
        why = pa.array(_reasons(broken, np.flatnonzero(any_rule))[: apart.rows], pa.string())
        layout = self.layouts({"input": batch.layout})["violations"]
        return {
            "output": batch.take(~any_rule),
            "violations": Batch(layout, (*apart.attributes, why), apart.geometry, apart.rows),
        }


class UniqueContract(Blocking):
    """What quality.schema_contract with unique columns is: it remembers their values."""

    type: ClassVar[str] = SchemaContract.type

    each: SchemaContract
    unique: tuple[str, ...]

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same."""
        if self.each.on_violation == "route":
            message = (
                "features that repeat a unique value cannot be routed; drop them, or use attributes.dedupe before."
            )
            raise NodeProblem(message, "on_violation")
        return {"output": self.each.layouts(given)["output"]}

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        """The first feature of each value; raises TerminalError for another, where that is what to do."""
        batches: Iterator[Batch] = (self.each.apply(batch)["output"] for batch in inputs["input"])
        for name in (name for name in self.unique if name in given["input"].names):
            batches = self._unique(batches, name, given["input"], work)
        yield from batches

    def _unique(self, batches: Iterator[Batch], name: str, layout: Layout, work: Work) -> Iterator[Batch]:
        came = _Counted(batches)
        went = _Counted(distinct(came, lambda batch, row: _values(batch, name, row), layout, work))
        yield from went
        if came.rows != went.rows and self.each.on_violation == "fail":
            raise TerminalError(
                Reason.CONTRACT,
                f"{came.rows - went.rows} features repeat a value of {name!r}, which must be unique; "
                "put attributes.dedupe before, or set on_violation to drop.",
            )


class _Counted:
    """Batches, and how many rows have gone by."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.rows = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            self.rows += batch.rows
            yield batch


_WHY = "violation"


def _values(batch: Batch, name: str, first_row: int) -> Shapes:
    """Digests of a column; nulls are all different."""
    found = digests(batch, [name], geometry=False)
    for row in np.flatnonzero(batch.column(name).is_null().to_numpy(zero_copy_only=False)):
        found[row] = b"null" + int(first_row + row).to_bytes(12, "big")
    return found


def _check(layout: Layout, name: str, rule: Rule) -> None:
    """Raises NodeProblem for what can be told before any value is seen."""
    if name not in layout.names:
        if rule.required:
            raise NodeProblem(f"the contract has a column {name!r}; {suggested(name, layout.names)}.", "columns")
        return
    kind = column(layout, name, "columns").type
    if rule.type is not None and not _IS[rule.type](kind):
        raise NodeProblem(f"{name!r} is {kind}, not {rule.type}; convert it before, or change the contract.", "columns")
    for bound in (rule.min, rule.max):
        dates = isinstance(bound, datetime.date)
        if bound is not None and not (_IS["date"](kind) or _IS["datetime"](kind) if dates else _IS["number"](kind)):
            raise NodeProblem(f"{name!r} is {kind}, which is not to be compared with {bound}.", "columns")
    try:
        _allowed(rule, kind)
    except pa.ArrowException as exc:
        raise NodeProblem(f"{name!r} is {kind}, and not all values allowed are that.", "columns") from exc


def _allowed(rule: Rule, kind: pa.DataType) -> pa.Array:
    return pa.array(list(rule.allowed or ())).cast(kind)


def _broken(batch: Batch, name: str, rule: Rule) -> Iterator[tuple[str, Shapes]]:
    """What is wrong with a column, and in which rows."""
    if name not in batch.layout.names:
        return
    values = batch.column(name)
    if rule.not_null:
        yield f"{name}: null", _true(pc.is_null(values))
    if rule.min is not None:
        yield f"{name}: below {rule.min}", _true(pc.less(values, _scalar(rule.min, values.type)))
    if rule.max is not None:
        yield f"{name}: above {rule.max}", _true(pc.greater(values, _scalar(rule.max, values.type)))
    if (rule.min is not None or rule.max is not None) and pa.types.is_floating(values.type):
        yield f"{name}: not a number", _true(pc.is_nan(values))
    if rule.allowed is not None:
        known = pc.is_in(values, _allowed(rule, values.type))
        yield f"{name}: not among those allowed", _true(pc.and_(pc.is_valid(values), pc.invert(known)))


def _scalar(bound: Bound, kind: pa.DataType) -> pa.Scalar:
    """Numbers are compared as numbers, whatever the column's type; dates as the column's."""
    return pa.scalar(bound).cast(kind) if isinstance(bound, datetime.date) else pa.scalar(bound, pa.float64())


def _true(answers: pa.Array) -> Shapes:
    """As numpy; null is no violation."""
    rows: Shapes = pc.fill_null(answers, fill_value=False).to_numpy(zero_copy_only=False)
    return rows


def _reasons(broken: Mapping[str, Shapes], rows: Shapes) -> list[str]:
    return ["; ".join(why for why, where in broken.items() if where[row]) for row in rows]


def _violated(broken: Mapping[str, Shapes], any_rule: Shapes) -> TerminalError:
    counts = ", ".join(f"{why} ({int(rows.sum())})" for why, rows in broken.items() if rows.any())
    message = f"{int(any_rule.sum())} of {len(any_rule)} features break the contract: {counts}"
    return TerminalError(Reason.CONTRACT, f"{message}; correct them before, or set on_violation to drop or route.")
