"""geoprocessing.clip, intersection and difference: features cut by those of another input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import shapely

from tasks.geo.batches import Batch, Shapes
from tasks.geo.blocking_gathering import Held
from tasks.geo.geometry_kinds import geometry_of
from tasks.geo.geometry_union import told
from tasks.geo.layouts import UNKNOWN, Layout
from tasks.geo.nodes import Lookup, Work, node
from tasks.geo.overlay_columns import TwoSided, WithColumns, side_by_side
from tasks.geo.overlay_lookup import Overlay, check_valid, gathered, same_dimension, unions


class Cut(TwoSided, Lookup):
    """Keeps the input's columns."""

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Points stay what they are; lines and areas may fall into parts."""
        geometry_of(given["overlay"])
        return {"output": _in_parts(given["input"])}

    def build(self, overlay: Iterator[Batch], layout: Layout, work: Work) -> Overlay:
        """A tree of the overlay's geometries."""
        return gathered(overlay, layout.with_fields([]), Held(work), work)


@node("geoprocessing.clip")
class Clip(Cut):
    """What of each feature lies within the overlay's features, all of them together; features outside are left out.

    Parts of a lower dimension (areas that only touch) are left out. The overlay is held in memory; the input streams.
    """

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same columns."""
        self._kept_dimension(given)
        return super().layouts(given)

    def apply(self, batch: Batch, built: Any) -> Batch:
        """Raises TerminalError for invalid geometries that are cut."""
        left, right = built.pairs(batch.shapes)
        inside, across = _inside(built, batch.shapes, left, right)
        rows, masks = unions(built.shapes, left[across], right[across])
        kept = np.full(batch.rows, None, dtype=object)
        kept[inside] = batch.shapes[inside]
        kept[rows] = _cut(shapely.intersection, batch.shapes[rows], masks)
        return _kept(batch, kept)


@node("geoprocessing.difference")
class Difference(Cut):
    """What of each feature lies outside of all the overlay's features; features with nothing left are left out.

    The overlay is held in memory; the input streams.
    """

    def apply(self, batch: Batch, built: Any) -> Batch:
        """Raises TerminalError for invalid geometries that are cut."""
        left, right = built.pairs(batch.shapes)
        inside, across = _inside(built, batch.shapes, left, right)
        rows, masks = unions(built.shapes, left[across], right[across])
        kept = batch.shapes.copy()
        kept[inside] = None
        kept[rows] = _cut(shapely.difference, batch.shapes[rows], masks)
        kept[shapely.is_empty(kept)] = None
        return _kept(batch, kept)


@node("geoprocessing.intersection")
class Intersection(WithColumns, Lookup):
    """What each feature has in common with each feature of the overlay, with the columns of both.

    Parts of a lower dimension (areas that only touch) are left out. The overlay is held in memory; the input streams.
    """

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The columns of both."""
        self._kept_dimension(given)
        return {"output": _in_parts(self.joined(given))}

    def build(self, overlay: Iterator[Batch], layout: Layout, work: Work) -> Overlay:
        """A tree of the overlay's features."""
        return gathered(overlay, self.side(layout), Held(work), work)

    def apply(self, batch: Batch, built: Any) -> Batch:
        """Raises TerminalError for invalid geometries that are cut."""
        left, right = built.pairs(batch.shapes)
        common = batch.shapes[left]
        across = ~built.covers(batch.shapes, left, right)
        common[across] = _cut(shapely.intersection, common[across], built.shapes[right[across]])
        some = ~shapely.is_missing(common)
        joined = self.joined({"input": batch.layout, "overlay": built.layout})
        return side_by_side(batch, left[some], built, right[some], joined).reshaped(common[some], _in_parts(joined))


def _inside(overlay: Overlay, shapes: Shapes, left: Shapes, right: Shapes) -> tuple[Shapes, Shapes]:
    """Rows that lie within one feature of the overlay, and which pairs are of other rows."""
    inside = np.zeros(len(shapes), dtype=bool)
    inside[left[overlay.covers(shapes, left, right)]] = True
    return inside, ~inside[left]


def _cut(operation: Any, shapes: Shapes, masks: Shapes) -> Shapes:
    check_valid(shapes)
    with told(shapes, masks):
        return same_dimension(operation(shapes, masks), shapes)


def _kept(batch: Batch, shapes: Shapes) -> Batch:
    some = ~shapely.is_missing(shapes)
    return batch.take(some).reshaped(shapes[some], _in_parts(batch.layout))


def _in_parts(layout: Layout) -> Layout:
    kind = geometry_of(layout).kind
    return layout.shaped(kind if kind == "Point" else UNKNOWN)
