"""Coordinates from one CRS to another by PROJ: quick, by the best operation there is, and refused where it is bad."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from math import pi
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.exceptions import ProjError
from pyproj.transformer import TransformerGroup

from tasks.errors import TerminalError
from tasks.geo.batches import Shapes
from tasks.geo.geometry_union import POLYGON, plain_parts
from tasks.geo.layouts import crs_of
from tasks.records import Reason

Mover = Callable[..., tuple[Shapes, ...]]
"""x, y and perhaps z in, the same out; infinite where there is no answer."""


@lru_cache(maxsize=64)
def transformer(source: str, target: str) -> Transformer:
    """From x, y to x, y, east before north whatever the CRS's own order. Raises ValueError in a sentence for a user.

    pyproj gives every thread a PROJ object of its own, so it may be shared. Operations that would take one datum for
    another ("ballpark", off by up to hundreds of metres) are never used.
    """
    crs_of(source), crs_of(target)
    try:
        return Transformer.from_crs(source, target, always_xy=True, allow_ballpark=False)
    except ProjError as exc:
        raise ValueError(
            f"there is no transformation from {source} to {target} here{_remedy(source, target)}."
        ) from exc


def moved(shapes: Shapes, mover: Mover) -> Shapes:
    """The geometries with other coordinates; those with Z keep it."""
    include_z = None if shapely.has_z(shapes).any() else False  # None: each as it is; no NaN for those without
    made: Shapes = shapely.transform(shapes, mover, include_z=include_z, interleaved=False)
    return made


def unplaced(shapes: Shapes) -> Shapes:
    """Which have coordinates that are no finite numbers: PROJ's word for "outside of where this CRS is of use"."""
    coordinates, rows = shapely.get_coordinates(shapes, return_index=True)
    lost = np.zeros(len(shapes), dtype=bool)
    lost[rows[~np.isfinite(coordinates).all(axis=1)]] = True
    return lost


def torn(before: Shapes, source: str, after: Shapes, target: str) -> Shapes:
    """Which were torn apart by the antimeridian: an edge has become wider than half the world that was not before."""
    wide = _width(after) > half_world(target)
    found = np.zeros(len(after), dtype=bool)
    for row in np.flatnonzero(wide & ~(_width(before) > half_world(source))):
        found[row] = _widest_edge(after[row]) > half_world(target)
    return found


def half_world(crs: str) -> float:
    """From the antimeridian to the prime meridian along the equator, in units of the coordinates."""
    found = crs_of(crs)
    unit = found.axis_info[0].unit_conversion_factor if found.axis_info else 1.0  # to radians, or to metres
    ellipsoid = found.ellipsoid
    radius = 1.0 if found.is_geographic else ellipsoid.semi_major_metre if ellipsoid else 6_378_137.0
    return pi * radius / (unit or 1.0)


def check_accuracy(used: Transformer, source: str, target: str, accuracy_m: float, at: tuple[float, float]) -> None:
    """Raises TerminalError where the operation PROJ chose for the last coordinates is known to be worse than that.

    PROJ falls back on a worse operation, silently, where a grid is not installed. `at`: one of those coordinates.
    """
    found = used.get_last_used_operation().accuracy if used.accuracy < 0 else used.accuracy
    if found > accuracy_m:
        raise TerminalError(
            Reason.INACCURATE,
            f"from {source} to {target} is only good to {found:g} m here{_remedy(source, target, at)}, or set "
            f"accuracy_m to {found:g} if that is good enough.",
        )


def _remedy(source: str, target: str, at: tuple[float, float] | None = None) -> str:
    with warnings.catch_warnings():  # of the missing grids: they are what is asked for
        warnings.simplefilter("ignore")
        group = TransformerGroup(source, target, always_xy=True, area_of_interest=_around(source, *at) if at else None)
    names = sorted({g.short_name for o in group.unavailable_operations for g in o.grids if not g.available})
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    if not names:
        return ""
    return f", for want of grids ({listed}); install those of your area with `pyproj sync --file NAME`"


def _around(source: str, x: float, y: float) -> Any:
    base = crs_of(source).geodetic_crs
    if base is None:
        return None
    lon, lat = Transformer.from_crs(source, base, always_xy=True).transform(x, y)
    return AreaOfInterest(lon, lat, lon, lat)


def _width(shapes: Shapes) -> Shapes:
    bounds = shapely.bounds(shapes)
    width: Shapes = bounds[:, 2] - bounds[:, 0]
    return width


def _widest_edge(shape: object) -> float:
    lines, _ = plain_parts(np.array([shape]))
    areas = shapely.get_type_id(lines) == POLYGON
    rings = np.concatenate([lines[~areas], shapely.get_rings(lines[areas])])
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    steps = np.abs(np.diff(coordinates[:, 0]))[np.diff(ring) == 0]
    return float(steps.max(initial=0.0))
