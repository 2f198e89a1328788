"""One geometry of many, in pieces small enough that a run can be stopped between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import numpy as np
import shapely
from shapely.errors import GEOSException

from tasks.errors import TerminalError, refuse_when_stopped
from tasks.geo.batches import Shapes
from tasks.records import Reason

PIECE = 2_000
"""Geometries united in one call of GEOS, which nothing interrupts: some tenths of a second."""


@contextmanager
def told(*involved: Shapes) -> Iterator[None]:
    """Maps what GEOS says of broken geometries to TerminalError, naming the first of those involved."""
    try:
        yield
    except GEOSException as exc:
        raise bad_geometry(involved, str(exc)) from exc


def bad_geometry(involved: tuple[Shapes, ...], said: str) -> TerminalError:
    """What to raise when geometries cannot be worked with."""
    invalid = [
        shape for shapes in involved for shape in shapes[~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)]
    ]
    found = f"{len(invalid)} invalid, the first: {shapely.is_valid_reason(invalid[0])}" if invalid else said
    remedy = "put geoprocessing.make_valid before this node, or quality.validate_geometry to set them aside"
    return TerminalError(Reason.BAD_GEOMETRY, f"geometries cannot be worked with ({found}); {remedy}.")


def united(shapes: Shapes, stop: Event | None = None) -> Any:
    """Their union (unary, OverlayNG), as right for overlapping areas as for coverages; None of none.

    Neighbours first, piece by piece: the union of unions is the union. Raises StopRequested, TerminalError.
    """
    left = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    if not len(left):
        return None
    with told(left):
        while len(left) > PIECE:
            left = np.array([_union(piece, stop) for piece in _neighbourhoods(left)], dtype=object)
        return _union(left, stop)


def collected(shapes: Shapes, stop: Event | None = None) -> Any:  # noqa: ARG001 - as `united`
    """Their parts as one multi-geometry (a collection where they differ in type); None of none."""
    parts = shapely.get_parts(shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))])
    if not len(parts):
        return None
    types = set(shapely.get_type_id(parts).tolist())
    build = _MULTI.get(types.pop(), shapely.geometrycollections) if len(types) == 1 else shapely.geometrycollections
    return build(parts)


def plain_parts(shapes: Shapes) -> tuple[Shapes, Shapes]:
    """Their parts that have no parts themselves, of collections within collections too, and the row each is from."""
    parts, row = shapely.get_parts(shapes, return_index=True)
    while (shapely.get_type_id(parts) > POLYGON).any():
        parts, inner = shapely.get_parts(parts, return_index=True)
        row = row[inner]
    return parts, row


POLYGON = 3
"""Type id; those of multi-geometries and collections follow."""

_MULTI: dict[int, Callable[[Shapes], Any]] = {
    0: shapely.multipoints,
    1: shapely.multilinestrings,
    POLYGON: shapely.multipolygons,
}


def _union(piece: Shapes, stop: Event | None) -> Any:
    refuse_when_stopped(stop)
    return piece[0] if len(piece) == 1 and shapely.is_valid(piece[0]) else shapely.union_all(piece)


def _neighbourhoods(shapes: Shapes) -> list[Shapes]:
    """Pieces of about PIECE geometries: strips from west to east, each cut from south to north."""
    west, south = shapely.bounds(shapes)[:, :2].T
    strips = np.array_split(np.argsort(west, kind="stable"), max(1, round((len(shapes) / PIECE) ** 0.5)))
    pieces = [
        np.array_split(strip[np.argsort(south[strip], kind="stable")], -(-len(strip) // PIECE)) for strip in strips
    ]
    return [shapes[piece] for row in pieces for piece in row]
