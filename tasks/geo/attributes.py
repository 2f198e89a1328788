"""attributes.select, rename, compute, filter, cast, hash: columns chosen, named, made and tested, batch by batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from tasks.geo.batches import Batch
from tasks.geo.casting import ARROW, NAMES, Kind, cast, castable, kind_of, plain
from tasks.geo.expressions import Compiled, ExpressionProblem, compiled
from tasks.geo.fields import Expression, column
from tasks.geo.layouts import Layout
from tasks.geo.nodes import NodeProblem, Split, Stream, node

TypeName = Literal["text", "integer", "number", "boolean", "date", "timestamp", "string", "float", "datetime"]


@node("attributes.select")
class Select(Stream):
    """Keeps some columns, in the order that is given, or all but some; the geometry stays unless it is turned off."""

    columns: tuple[str, ...] | None = Field(default=None, description="columns to keep, in this order")
    exclude: tuple[str, ...] | None = Field(default=None, description="columns to leave out, instead of `columns`")
    geometry: bool = Field(default=True, description="whether the geometry is kept")

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.columns is not None and self.exclude is not None:
            raise ValueError("give columns or exclude, not both.")
        return self

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Raises NodeProblem for a column that is not there, or stands twice."""
        layout = given["input"]
        for place, named in (("columns", self.columns), ("exclude", self.exclude)):
            for name in named or ():
                column(layout, name, place)
        names = self._names(layout)
        _distinct(names, "columns")
        kept = layout.with_fields([layout.fields.field(name) for name in names])
        return {"output": kept if self.geometry else replace(kept, geometry=None)}

    def apply(self, batch: Batch) -> Batch:
        """The batch with those columns."""
        layout = self.layouts({"input": batch.layout})["output"]
        kept = tuple(batch.column(name) for name in layout.names)
        return Batch(layout, kept, batch.geometry if self.geometry else None, batch.rows)

    def _names(self, layout: Layout) -> list[str]:
        if self.columns is not None:
            return list(self.columns)
        return [name for name in layout.names if name not in (self.exclude or ())]


@node("attributes.rename")
class Rename(Stream):
    """Gives columns other names; the others stay as they are."""

    columns: dict[str, str] = Field(min_length=1, description="new names by the old ones")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Raises NodeProblem for a column that is not there, or two of one name."""
        layout = given["input"]
        for name, new in self.columns.items():
            column(layout, name, "columns")
            _free(layout, new, "columns")
        fields = [field.with_name(self.columns.get(field.name, field.name)) for field in layout.fields]
        _distinct([field.name for field in fields], "columns")
        return {"output": layout.with_fields(fields)}

    def apply(self, batch: Batch) -> Batch:
        """The same arrays under other names."""
        return replace(batch, layout=self.layouts({"input": batch.layout})["output"])


@node("attributes.compute")
class Compute(Stream):
    """Makes columns from expressions such as `area_m2 / 10000` or `coalesce(owner, 'unknown')`.

    A column that is there already is replaced. Expressions stand in order: each may use the columns before it.
    """

    expressions: dict[str, Expression] = Field(min_length=1, max_length=200, description="an expression by its column")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Raises NodeProblem where an expression cannot work."""
        *_, (_, _, layout) = self._steps(given["input"])
        return {"output": layout}

    def apply(self, batch: Batch) -> Batch:
        """The batch with the computed columns."""
        columns = dict(zip(batch.layout.names, batch.attributes, strict=True))
        steps = list(self._steps(batch.layout))
        for name, expression, _ in steps:
            columns[name] = expression(columns, batch.rows)
        return batch.with_attributes(columns, steps[-1][2])

    def _steps(self, layout: Layout) -> Iterator[tuple[str, Compiled, Layout]]:
        """Each column with its expression, and the layout after it."""
        for name, text in self.expressions.items():
            _free(layout, name, "expressions")
            expression = _compiled(text, layout, f"expressions.{name}")
            made = pa.field(name, expression.type)
            fields = [made if field.name == name else field for field in layout.fields]
            layout = layout.with_fields(fields if name in layout.names else [*fields, made])
            yield name, expression, layout


@node("attributes.filter")
class Filter(Split):
    """Divides features by a condition such as `area_m2 > 100 and owner is not null`.

    Those for which it is true leave by `output`, all others by `rejected`: also those for which it is null.
    """

    outputs: ClassVar[tuple[str, ...]] = ("output", "rejected")

    expression: Expression = Field(description="a condition on the columns")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Raises NodeProblem where the expression cannot work, or is no condition."""
        found = _compiled(self.expression, given["input"], "expression")
        if found.kind is not Kind.BOOLEAN:
            raise NodeProblem(f"it gives {found.kind}, not true or false; compare it with a value.", "expression")
        return dict.fromkeys(self.outputs, given["input"])

    def apply(self, batch: Batch) -> Mapping[str, Batch]:
        """The features of either port."""
        columns = dict(zip(batch.layout.names, batch.attributes, strict=True))
        kept = compiled(self.expression, batch.layout.fields)(columns, batch.rows)
        mask = pc.fill_null(kept, False).to_numpy(zero_copy_only=False)
        if mask.all():
            return {"output": batch, "rejected": batch.take(~mask)}
        return {"output": batch.take(mask), "rejected": batch.take(~mask)}


@node("attributes.cast")
class Cast(Stream):
    """Makes columns of another type, as text that holds numbers. Numbers are rounded where integers are wanted."""

    columns: dict[str, TypeName] = Field(min_length=1, description="a type by the column")
    on_error: Literal["fail", "null"] = Field(
        default="fail", description='what becomes of a value that has no such type: the run ends, or "null"'
    )

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Raises NodeProblem for a column that is not there, or cannot have that type."""
        layout = given["input"]
        for name, wanted in self.columns.items():
            found = kind_of(column(layout, name, "columns").type)
            if found is Kind.OTHER or not (castable(found, NAMES[wanted]) or found is Kind.NOTHING):
                raise NodeProblem(f"{name!r} is {found}, which cannot be {wanted}; leave it out.", f"columns.{name}")
        fields = [f.with_type(self._type(f.name)) if f.name in self.columns else f for f in layout.fields]
        return {"output": layout.with_fields(fields)}

    def apply(self, batch: Batch) -> Batch:
        """The batch with those columns in their types. Raises TerminalError for a value that has none."""
        layout = self.layouts({"input": batch.layout})["output"]
        made = {name: self._cast(name, batch.column(name)) for name in batch.layout.names}
        return batch.with_attributes(made, layout)

    def _type(self, name: str) -> pa.DataType:
        return ARROW[NAMES[self.columns[name]]]

    def _cast(self, name: str, values: pa.Array) -> pa.Array:
        if name not in self.columns:
            return values
        if pa.types.is_null(values.type):
            return pa.nulls(len(values), self._type(name))
        return cast(plain(values), NAMES[self.columns[name]], lenient=self.on_error == "null")


@node("attributes.hash")
class Hash(Stream):
    """Adds a column with a digest of others: equal for features whose values are equal, to find changes by."""

    columns: tuple[str, ...] | None = Field(default=None, description="columns that count; none: all of them")
    geometry: bool = Field(default=False, description="whether the geometry counts too, point by point")
    name: str = Field(default="hash", min_length=1, description="the new column")
    algorithm: Literal["sha256", "md5"] = Field(default="sha256", description="sha256 has 64 characters, md5 32")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Raises NodeProblem for a column that is not there, or holds lists or bytes."""
        layout = given["input"]
        _free(layout, self.name, "name")
        for name in self._names(layout):
            if kind_of(column(layout, name, "columns").type) is Kind.OTHER:
                raise NodeProblem(f"{name!r} holds lists or bytes; name columns of plain values.", "columns")
        if self.geometry and layout.geometry is None:
            raise NodeProblem("there is no geometry; leave it out.", "geometry")
        fields = [field for field in layout.fields if field.name != self.name]
        return {"output": layout.with_fields([*fields, pa.field(self.name, pa.string())])}

    def apply(self, batch: Batch) -> Batch:
        """The batch with the digests as its last column."""
        layout = self.layouts({"input": batch.layout})["output"]
        values = [_framed(batch.column(name)) for name in self._names(batch.layout)]
        text = pc.binary_join_element_wise(*values, "") if values else pa.repeat("", batch.rows)
        shapes = batch.geometry.wkb if self.geometry and batch.geometry else pa.nulls(batch.rows)
        digests = map(self._digest, text.to_pylist(), shapes.to_pylist())
        columns = dict(zip(batch.layout.names, batch.attributes, strict=True))
        return batch.with_attributes({**columns, self.name: pa.array(digests, pa.string())}, layout)

    def _names(self, layout: Layout) -> list[str]:
        return list(self.columns) if self.columns is not None else [n for n in layout.names if n != self.name]

    def _digest(self, text: str, shape: bytes | None) -> str:
        return hashlib.new(self.algorithm, text.encode() + (shape or b""), usedforsecurity=False).hexdigest()


def _framed(values: pa.Array) -> pa.Array:
    """Each value as its length and text, null as -, so that no two rows of values read the same."""
    text = cast(plain(values), Kind.TEXT, lenient=False) if not pa.types.is_null(values.type) else values.cast("string")
    length = pc.cast(pc.binary_length(text), pa.string())
    return pc.fill_null(pc.binary_join_element_wise(length, text, ":"), "-")


def _compiled(text: str, layout: Layout, place: str) -> Compiled:
    try:
        return compiled(text, layout.fields)
    except ExpressionProblem as exc:
        raise NodeProblem(str(exc), place) from exc


def _free(layout: Layout, name: str, place: str) -> None:
    if layout.geometry is not None and name == layout.geometry.name:
        raise NodeProblem(f"{name!r} is the name of the geometry; choose another.", place)
    if not name or len(name.encode()) > 63:
        raise NodeProblem(f"{name!r} is no name for a column; give 1 to 63 bytes.", place)


def _distinct(names: Sequence[str], place: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise NodeProblem(f"two columns are named {name!r}; keep one.", place)
