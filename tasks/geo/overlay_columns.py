"""The columns of two inputs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from tasks.geo.batches import Batch, Geometries, Shapes
from tasks.geo.fields import column
from tasks.geo.geometry_kinds import dimension_of, geometry_of
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Node, NodeProblem
from tasks.geo.overlay_lookup import Overlay


class TwoSided(Node):
    """Takes `input` and `overlay`, both with geometry."""

    inputs: ClassVar[tuple[str, ...]] = ("input", "overlay")

    def _kept_dimension(self, given: Mapping[str, Layout]) -> None:
        """Raises NodeProblem where nothing would be left: what areas and lines have in common is no area."""
        ours, theirs = (geometry_of(given[port]).kind for port in self.inputs)
        low, high = dimension_of(theirs), dimension_of(ours)
        if low is not None and high is not None and low < high:
            message = f"the input has {ours}s and the overlay {theirs}s, so no {ours} would be left; exchange them."
            raise NodeProblem(message, "overlay")


class WithColumns(TwoSided):
    """Gives the columns of both; those of the overlay get a suffix where the input has one of that name."""

    columns: tuple[str, ...] | None = Field(default=None, description="of the overlay; none: all")
    suffix: str = Field(default="_overlay", min_length=1, description="for columns of the overlay whose name is taken")

    def joined(self, given: Mapping[str, Layout]) -> Layout:
        """The input's layout with the overlay's columns, which may be null. Raises NodeProblem."""
        layout, overlay = given["input"], self.side(given["overlay"])
        taken = {*layout.names, layout.geometry.name if layout.geometry else ""}
        names = [f"{name}{self.suffix}" if name in taken else name for name in overlay.names]
        if clash := [name for name in names if name in taken or names.count(name) > 1]:
            raise NodeProblem(f"two columns of the result are named {clash[0]!r}; give another suffix.", "suffix")
        fields = [f.with_name(n).with_nullable(True) for n, f in zip(names, overlay.fields, strict=True)]
        return layout.with_fields([*layout.fields, *fields])

    def side(self, overlay: Layout) -> Layout:
        """The overlay with the columns that are wanted."""
        geometry_of(overlay)
        names = overlay.names if self.columns is None else self.columns
        return overlay.with_fields([column(overlay, name, "columns") for name in dict.fromkeys(names)])


def side_by_side(batch: Batch, rows: Shapes, overlay: Overlay, others: Shapes, layout: Layout) -> Batch:
    """Rows of a batch with rows of the overlay (-1: nulls); the batch's geometry."""
    taken = batch.take(rows)
    attributes = (*taken.attributes, *overlay.taken(others))
    return Batch(layout, attributes, taken.geometry, taken.rows)


def only_overlay(overlay: Overlay, rows: Shapes, shapes: Shapes, layout: Layout) -> Batch:
    """Rows of the overlay, with nulls for the input's columns."""
    own = len(layout.fields) - len(overlay.layout.fields)
    nulls = [pa.nulls(len(rows), field.type) for field in list(layout.fields)[:own]]
    return Batch(layout, (*nulls, *overlay.taken(np.asarray(rows))), Geometries(shapes=shapes), len(rows))
