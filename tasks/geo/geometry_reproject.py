"""geoprocessing.reproject: the same features in another coordinate reference system."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np
import shapely
from pydantic import Field

from tasks.errors import TerminalError
from tasks.geo.batches import Batch, Shapes
from tasks.geo.geometry_kinds import geometry_of
from tasks.geo.geometry_transforms import check_accuracy, moved, torn, transformer, unplaced
from tasks.geo.layouts import Layout, crs_name, crs_of
from tasks.geo.nodes import NodeProblem, Stream, node
from tasks.geo.reprojection import reprojected
from tasks.records import Reason


@node("geoprocessing.reproject")
class Reproject(Stream):
    """The same features in another coordinate reference system; x is east and y north, whatever the CRS's own order.

    A geometry with coordinates that have no place in the target CRS, or that the antimeridian would tear apart, is a
    failure or a null, as `on_failure` says: no infinite coordinate ever comes out.
    """

    target_crs: str = Field(description="EPSG:4326, or WKT")
    source_crs: str | None = Field(default=None, description="of the input; none: what the data say")
    on_failure: Literal["fail", "null"] = Field(
        default="fail",
        description="for a geometry that has no place in the target: end the run, or leave the geometry out",
    )
    accuracy_m: float = Field(
        default=5.0, gt=0, description="refuse a change of datum known to be worse, as where PROJ lacks a grid"
    )

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same in the target CRS."""
        layout = given["input"]
        geometry_of(layout)
        source, target = self._pair(layout)
        try:
            transformer(source, target)
        except ValueError as exc:
            raise NodeProblem(str(exc), "target_crs") from exc
        return {"output": layout.placed(target)}

    def apply(self, batch: Batch) -> Batch:
        """Raises TerminalError for what has no place in the target CRS, and where a grid is missing."""
        source, target = self._pair(batch.layout)
        layout = batch.layout.placed(target)
        if source == target or not batch.rows:
            return Batch(layout, batch.attributes, batch.geometry, batch.rows)
        mover = _Mover(source, target, self.accuracy_m)
        quick = reprojected(batch.geometry, source, target, mover) if batch.geometry is not None else None
        if quick is not None:
            return Batch(layout, batch.attributes, quick, batch.rows)
        return batch.reshaped(self._careful(batch.shapes, source, target, mover), layout)

    def _careful(self, before: Shapes, source: str, target: str, mover: _Mover) -> Shapes:
        """With what is wrong found row by row, and heights as PROJ moves them."""
        after = moved(before, mover)
        outside = unplaced(after) if mover.missed else np.zeros(len(after), dtype=bool)
        if outside.any():
            self._failed(before, outside, f"have coordinates outside of where {target} is of use")
        after[outside] = None
        apart = torn(before, source, after, target)
        if apart.any():
            self._failed(before, apart, f"cross the antimeridian of {target}")
        after[apart] = None
        return after

    def _failed(self, before: Shapes, which: Shapes, why: str) -> None:
        if self.on_failure == "null":
            return
        first = shapely.get_coordinates(before[which][0])[0]
        place = ", ".join(f"{value:g}" for value in first)
        raise TerminalError(
            Reason.OUTSIDE_CRS,
            f"{int(which.sum())} of {len(which)} geometries {why}, the first at {place}; choose another target_crs, "
            "filter them out before, or set on_failure to null.",
        )

    def _pair(self, layout: Layout) -> tuple[str, str]:
        source = self.source_crs or layout.crs
        if source is None:
            raise NodeProblem("the input's CRS is not known; name it here, such as EPSG:4326.", "source_crs")
        return _named(source, "source_crs"), _named(self.target_crs, "target_crs")


class _Mover:
    """Moves coordinates, and notes whether any was missed."""

    def __init__(self, source: str, target: str, accuracy_m: float) -> None:
        self.missed = False
        self._names = source, target
        self._accuracy_m = accuracy_m

    def __call__(self, *coordinates: Shapes) -> tuple[Shapes, ...]:
        used = transformer(*self._names)
        moved: tuple[Shapes, ...] = cast(Any, used).transform(*coordinates)
        placed = np.isfinite(moved[0]) & np.isfinite(moved[1])
        self.missed = self.missed or not placed.all()
        if placed.any():
            last = np.flatnonzero(placed)[-1]
            check_accuracy(used, *self._names, self._accuracy_m, (coordinates[0][last], coordinates[1][last]))
        return moved


def _named(crs: str, field: str) -> str:
    try:
        return _name(crs)
    except ValueError as exc:
        raise NodeProblem(str(exc), field) from exc


@lru_cache(maxsize=64)
def _name(crs: str) -> str:
    """The same CRS as layouts write it: `4326` and `epsg:4326` are EPSG:4326."""
    return crs_name(crs_of(crs)) or crs
