"""Aggregates as states that add up: those of rows, of groups and of parts of groups are combined alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from threading import Event
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from tasks.geo.batches import Batch, Geometries, Shapes
from tasks.geo.blocking_gathering import Reduce, objects
from tasks.geo.fields import column
from tasks.geo.layouts import Layout
from tasks.geo.nodes import NodeProblem

Function = Literal["count", "sum", "min", "max", "mean", "first"]

_PARTS: dict[Function, tuple[str, ...]] = {"mean": ("sum", "count")}
"""What the state of a function is made of, where that is not just itself."""

_TOGETHER = {"count": "sum"}
"""How parts are combined, where that is not by the function of that name."""

ROW, SHAPE, _POSITION = "row", "shape", "position"


class Aggregated(BaseModel):
    """A column of the result, from all values of a column in a group."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    function: Function = Field(description="nulls do not count; first: the first value that is not null")
    column: str | None = Field(default=None, description="what is aggregated; none: count counts features")
    name: str | None = Field(default=None, description="of the result; none: column_function, or count")

    @property
    def result(self) -> str:
        """The name of the result's column."""
        return self.name or (f"{self.column}_{self.function}" if self.column else self.function)

    def field(self, layout: Layout) -> pa.Field:
        """The result's column. Raises NodeProblem for a function that the column's type does not have."""
        if self.column is None:
            if self.function != "count":
                raise NodeProblem(f"{self.function} needs a column; name the one to aggregate.", "aggregates")
            return pa.field(self.result, pa.int64())
        kind = column(layout, self.column, "aggregates").type
        if not _allowed(self.function, kind):
            message = (
                f"{self.column!r} is {kind}, which has no {self.function}; take count or first, or another column."
            )
            raise NodeProblem(message, "aggregates")
        return pa.field(self.result, _type(self.function, kind))


class States:
    """The states of some aggregates by key: columns k0, k1 ...; row (the group's first); a0_sum ...; shape as WKB."""

    def __init__(
        self, layout: Layout, by: Sequence[str], aggregates: Sequence[Aggregated], geometry: Reduce | None, stop: Event
    ) -> None:
        self.keys = [f"k{i}" for i in range(max(1, len(by)))]
        self._layout, self._by, self._aggregates = layout, list(by), list(aggregates)
        self._geometry, self._stop = geometry, stop
        parts = [(f"a{i}_{p}", p) for i, a in enumerate(aggregates) for p in _PARTS.get(a.function, (a.function,))]
        self._together = [(name, _TOGETHER.get(part, part)) for name, part in parts]

    def of_rows(self, batch: Batch, first_row: int) -> pa.Table:
        """A state for each row."""
        columns = {k: _key(batch.column(name)) for k, name in zip(self.keys, self._by, strict=False)}
        columns = columns or {self.keys[0]: pa.array(np.zeros(batch.rows, dtype=np.int8))}
        columns[ROW] = pa.array(np.arange(first_row, first_row + batch.rows))
        for i, aggregate in enumerate(self._aggregates):
            for part in _PARTS.get(aggregate.function, (aggregate.function,)):
                columns[f"a{i}_{part}"] = _state(batch, aggregate, part)
        if self._geometry and batch.geometry is not None:
            columns[SHAPE] = batch.geometry.wkb.cast(pa.binary())
        return pa.table(columns)

    def together(self, table: pa.Table) -> pa.Table:
        """A state for each key, in the order of their first rows in the table. Raises StopRequested, TerminalError."""
        positions = pa.array(np.arange(table.num_rows))
        wanted = [(ROW, "min"), *self._together, *([(_POSITION, "list")] if self._geometry else [])]
        grouped = table.append_column(_POSITION, positions).group_by(self.keys, use_threads=False).aggregate(wanted)
        columns = {key: grouped.column(key) for key in self.keys}
        columns |= {name: grouped.column(f"{name}_{function}") for name, function in wanted if name != _POSITION}
        if self._geometry:
            columns[SHAPE] = self._reduced(table, grouped.column(f"{_POSITION}_list").combine_chunks())
        return pa.table(columns).select(table.column_names)

    def results(self, table: pa.Table, layout: Layout) -> pa.Table:
        """The columns of `layout`, from states of whole groups."""
        columns = {name: table.column(key) for key, name in zip(self.keys, self._by, strict=False)}
        for i, aggregate in enumerate(self._aggregates):
            if aggregate.function == "mean":
                count = table.column(f"a{i}_count")
                some = pc.if_else(pc.equal(count, 0), pa.scalar(None, pa.int64()), count)
                columns[aggregate.result] = pc.divide(table.column(f"a{i}_sum"), some.cast(pa.float64()))
            else:
                columns[aggregate.result] = table.column(f"a{i}_{aggregate.function}")
        made = {field.name: columns[field.name].cast(field.type) for field in layout.fields}
        if layout.geometry is not None:
            made[layout.geometry.name] = table.column(SHAPE)
        return pa.table(made)

    def _reduced(self, table: pa.Table, groups: pa.ListArray) -> pa.Array:
        """The geometries of each group as one; as they are where there is only one."""
        reduce, wkb = self._geometry, table.column(SHAPE).combine_chunks()
        assert reduce is not None  # noqa: S101 - asked before
        shapes = Geometries(wkb=wkb).shapes[groups.flatten().to_numpy()]
        cuts = groups.offsets.to_numpy()
        made = [reduce(shapes[a:b], self._stop) for a, b in pairwise(cuts)]
        return Geometries(shapes=objects(made)).wkb.cast(pa.binary())


def starts(table: pa.Table, keys: Sequence[str]) -> Shapes:
    """The rows whose key is another than that of the row before."""
    changed = np.zeros(table.num_rows, dtype=bool)
    for key in keys:
        codes = table.column(key).combine_chunks().dictionary_encode(null_encoding="encode")
        changed[1:] |= np.diff(_codes(codes)) != 0
    return np.flatnonzero(changed)


def _codes(encoded: Any) -> Shapes:
    codes: Shapes = encoded.indices.to_numpy(zero_copy_only=False)
    return codes


def _key(array: pa.Array) -> pa.Array:
    """Groups are told apart bit by bit: one zero, and one not a number."""
    if not pa.types.is_floating(array.type):
        return array
    nan = pa.scalar(float("nan"), array.type)
    return pc.if_else(pc.is_nan(array), nan, pc.add(array, pa.scalar(0.0, array.type)))


def _state(batch: Batch, aggregate: Aggregated, part: str) -> pa.Array:
    if aggregate.column is None:
        return pa.array(np.ones(batch.rows, dtype=np.int64))
    values = batch.column(aggregate.column)
    if part == "count":
        return pc.is_valid(values).cast(pa.int64())
    return values.cast(pa.float64() if aggregate.function == "mean" else _type(part, values.type))


def _allowed(function: str, kind: pa.DataType) -> bool:
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if function in ("sum", "mean"):
        return bool(number)
    ordered = number or pa.types.is_temporal(kind) or pa.types.is_string(kind) or pa.types.is_boolean(kind)
    return bool(function == "count" or ordered or (function == "first" and pa.types.is_binary(kind)))


def _type(function: str, kind: pa.DataType) -> pa.DataType:
    """Of a result, and of its state."""
    if function in ("count", "mean"):
        return pa.int64() if function == "count" else pa.float64()
    if function != "sum":
        return kind
    if pa.types.is_decimal(kind):
        return pa.decimal128(38, kind.scale)
    return pa.float64() if pa.types.is_floating(kind) else pa.uint64() if kind == pa.uint64() else pa.int64()
