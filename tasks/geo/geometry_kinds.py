"""What is known of a geometry column before its features come: its type, its dimension, its CRS."""

from __future__ import annotations

from tasks.geo.layouts import UNKNOWN, GeometryField, Layout, crs_of
from tasks.geo.nodes import NodeProblem

_SINGLE = {"Point": 0, "LineString": 1, "Polygon": 2}
_DIMENSIONS = _SINGLE | {f"Multi{kind}": dimension for kind, dimension in _SINGLE.items()}


def geometry_of(layout: Layout) -> GeometryField:
    """The geometry column. Raises NodeProblem for a table without one."""
    if layout.geometry is None:
        raise NodeProblem(
            "the input has no geometry; take one that has, or put the node before the geometry is dropped."
        )
    return layout.geometry


def dimension_of(kind: str) -> int | None:
    """0 points, 1 lines, 2 areas; None: not known, or a mixture."""
    return _DIMENSIONS.get(kind)


def single(kind: str) -> str:
    """The type of the parts: "Polygon" of "MultiPolygon"; UNKNOWN where parts may differ."""
    return kind.removeprefix("Multi") if kind in _DIMENSIONS else UNKNOWN


def is_single(kind: str) -> bool:
    """Whether features have one part each, for certain."""
    return kind in _SINGLE


def multiple(kind: str) -> str:
    """The type of several of them: "MultiPolygon" of "Polygon"; UNKNOWN where they may differ."""
    return f"Multi{single(kind)}" if kind in _DIMENSIONS else UNKNOWN


def unit_m(layout: Layout, field: str, remedy: str) -> float:
    """Metres in a unit of the layout's CRS (0.3048 for feet). Raises NodeProblem where its units are no lengths."""
    crs = geometry_of(layout).crs
    if crs is None:
        message = (
            "the input's CRS is not known, so lengths mean nothing; put geoprocessing.reproject with source_crs before"
        )
        raise NodeProblem(f"{message}, or {remedy}.", field)
    found = crs_of(crs)
    if found.is_geographic:
        message = f"{crs} counts in degrees, not in metres; put geoprocessing.reproject to a projected CRS before"
        raise NodeProblem(f"{message}, or {remedy}.", field)
    return float(found.axis_info[0].unit_conversion_factor) if found.axis_info else 1.0
