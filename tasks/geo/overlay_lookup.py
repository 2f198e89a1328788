"""The side input of overlays and joins: its features in a tree, and which of them a batch's features meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from tasks.errors import refuse_when_stopped
from tasks.geo.batches import Batch, Geometries, Shapes
from tasks.geo.blocking_gathering import SHAPE_BYTES, Held, objects
from tasks.geo.geometry_union import bad_geometry, collected, told, united
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Work

QUERY_ROWS = 2_048
"""Features looked up at once: they may meet any number of others."""

PREPARED_FROM = 4
"""Pairs with one feature of the overlay from which it pays to prepare it."""

Predicate = Callable[[Shapes, Shapes], Shapes]
"""Of overlay and input."""


@dataclass(frozen=True)
class Overlay:
    """The features of the side input. Safe for threads: the tree is built, and nothing in it is prepared lazily."""

    layout: Layout
    attributes: tuple[pa.Array, ...]
    shapes: Shapes
    tree: shapely.STRtree

    def __reduce__(self) -> tuple[Any, ...]:
        return planted, (self.layout, self.attributes, Geometries(shapes=self.shapes))

    def pairs(self, shapes: Shapes, predicate: Predicate = shapely.intersects) -> tuple[Shapes, Shapes]:
        """Rows of `shapes` and of the overlay that meet, sorted by both. Raises TerminalError."""
        starts = range(0, max(1, len(shapes)), QUERY_ROWS)
        found = [self._pairs(shapes[start : start + QUERY_ROWS], predicate) for start in starts]
        left = np.concatenate([i + start for start, (i, _) in zip(starts, found, strict=True)])
        return left, np.concatenate([j for _, j in found])

    def taken(self, rows: Shapes) -> tuple[pa.Array, ...]:
        """The attributes of those rows; nulls where a row is -1."""
        index = pa.array(rows, mask=rows < 0)
        return tuple(array.take(index) for array in self.attributes)

    def covers(self, shapes: Shapes, left: Shapes, right: Shapes) -> Shapes:
        """For each pair, whether the overlay's feature covers all of the other."""
        return self._holds(shapely.covers, shapes[left], right)

    def _pairs(self, shapes: Shapes, predicate: Predicate) -> tuple[Shapes, Shapes]:
        left, right = self.tree.query(shapes)
        true = self._holds(predicate, shapes[left], right)
        order = np.lexsort((right[true], left[true]))
        return left[true][order], right[true][order]

    def _holds(self, predicate: Predicate, left: Shapes, right: Shapes) -> Shapes:
        """Evaluated on copies: GEOS prepares geometries lazily, which no two threads may see."""
        used, of_pair, times = np.unique(right, return_inverse=True, return_counts=True)
        copies = shapely.from_wkb(shapely.to_wkb(self.shapes[used]))
        shapely.prepare(copies[times >= PREPARED_FROM])
        with told(left, copies):
            true: Shapes = predicate(copies[of_pair], left)
        return true


def gathered(batches: Iterator[Batch], layout: Layout, held: Held, work: Work) -> Overlay:
    """All features that have a geometry, with the columns of `layout`.

    Raises ConfigurationError when the budget is far too small, TerminalError for invalid geometries.
    """
    shapes, columns = [objects([])], [[pa.array([], field.type)] for field in layout.fields]
    for batch in batches:
        refuse_when_stopped(work.stop)
        kept = batch.take(~(shapely.is_missing(batch.shapes) | shapely.is_empty(batch.shapes)))
        held.become(held.size_bytes + 2 * kept.nbytes + SHAPE_BYTES * kept.rows)
        check_valid(kept.shapes)
        shapes.append(kept.shapes)
        for column, name in zip(columns, layout.names, strict=True):
            column.append(kept.column(name))
    attributes = tuple(pa.chunked_array(column).combine_chunks() for column in columns)
    return planted(layout, attributes, Geometries(shapes=np.concatenate(shapes)))


def planted(layout: Layout, attributes: tuple[pa.Array, ...], geometry: Geometries) -> Overlay:
    """With its tree, which GEOS builds at the first question."""
    tree = shapely.STRtree(geometry.shapes)
    tree.query(shapely.Point(0, 0))
    return Overlay(layout, attributes, geometry.shapes, tree)


def check_valid(shapes: Shapes) -> None:
    """Overlays of invalid areas are wrong, where GEOS does not refuse them. Raises TerminalError naming the first."""
    if not (shapely.is_valid(shapes) | shapely.is_missing(shapes)).all():
        raise bad_geometry((shapes,), "invalid")


def unions(shapes: Shapes, of: Shapes, members: Shapes, stop: Event | None = None) -> tuple[Shapes, Shapes]:
    """For each row in `of` (sorted): the union of the shapes that are its members.

    Rows with the same members, as plots across the border of the same two districts, share one union.
    """
    rows, begins = np.unique(of, return_index=True)
    groups = [members[a:b] for a, b in pairwise([*begins.tolist(), len(of)])]
    made: dict[bytes, Any] = {}
    for group in groups:
        if group.tobytes() not in made:
            made[group.tobytes()] = shapes[group[0]] if len(group) == 1 else united(shapes[group], stop)
    return rows, objects([made[group.tobytes()] for group in groups])


def same_dimension(made: Shapes, given: Shapes) -> Shapes:
    """Results without the parts of a lower dimension than what they were made of: no lines where areas touch.

    None where nothing is left.
    """
    kept, wanted = made.copy(), shapely.get_dimensions(given)
    for row in np.flatnonzero(shapely.get_type_id(made) == _COLLECTION):
        parts = shapely.get_parts(made[row])
        kept[row] = collected(parts[shapely.get_dimensions(parts) == wanted[row]])
    kept[shapely.is_empty(kept) | (shapely.get_dimensions(kept) < wanted)] = None
    return kept


_COLLECTION = 7
