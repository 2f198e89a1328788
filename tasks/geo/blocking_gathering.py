"""What blocking nodes hold of the run's memory, and geometries gathered into one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import numpy as np
import shapely

from tasks.errors import refuse_when_stopped
from tasks.geo.batches import Batch, Geometries, Shapes
from tasks.geo.geometry_union import united
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Work

Reduce = Callable[[Shapes, Event], Any]

SHAPE_BYTES = 600
"""A geometry beside its coordinates: GEOS' and Python's objects, and its place in a tree."""


class Held:
    """What a node holds of the run's memory budget; all is given back when it is left."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.size_bytes = 0

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *exc: object) -> None:
        self.become(0)

    def room(self, more_bytes: int) -> bool:
        """Whether so much more may be held."""
        return self._work.memory.room(more_bytes)

    def become(self, size_bytes: int) -> None:
        """From now on so much is held. Raises ConfigurationError when the budget is far exceeded."""
        change, self.size_bytes = size_bytes - self.size_bytes, size_bytes
        if change:
            self._work.memory.hold(change)


class Gathering:
    """Geometries that become one: held as they come, and reduced to one early where the budget has no room."""

    def __init__(self, work: Work, reduce: Reduce = united) -> None:
        self._work = work
        self._reduce = reduce
        self._held = Held(work)
        self._shapes: list[Shapes] = []

    def __enter__(self) -> Gathering:
        return self

    def __exit__(self, *exc: object) -> None:
        self._held.become(0)

    def add(self, shapes: Shapes) -> None:
        """More of them. Raises StopRequested."""
        refuse_when_stopped(self._work.stop)
        if self._shapes and not self._held.room(shapes_bytes(shapes)):
            self._shapes = [self._one()]
        self._shapes.append(shapes)
        self._held.become(sum(map(shapes_bytes, self._shapes)))

    def batch(self, layout: Layout) -> Iterator[Batch]:
        """One feature without attributes; none where there was no geometry."""
        one = self._one() if self._shapes else np.array([None])
        if one[0] is not None:
            yield Batch(layout, (), Geometries(shapes=one), 1)

    def _one(self) -> Shapes:
        return objects([self._reduce(np.concatenate(self._shapes), self._work.stop)])


def shapes_bytes(shapes: Shapes) -> int:
    """About what shapely geometries take."""
    return int(shapely.get_num_coordinates(shapes).sum()) * 16 + SHAPE_BYTES * len(shapes)


def objects(values: list[Any]) -> Shapes:
    """A one-dimensional array of geometries; numpy would look into collections."""
    made: Shapes = np.empty(len(values), dtype=object)
    made[:] = values
    return made
