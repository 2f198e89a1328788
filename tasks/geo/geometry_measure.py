"""geoprocessing.measure: areas and lengths as columns, their units in the columns' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import shapely
from pydantic import Field
from pyproj import Geod

from tasks.errors import TerminalError
from tasks.geo.batches import Batch, Shapes
from tasks.geo.geometry_kinds import geometry_of, unit_m
from tasks.geo.geometry_transforms import moved, transformer, unplaced
from tasks.geo.geometry_union import POLYGON, plain_parts
from tasks.geo.layouts import Layout, crs_of, is_geographic
from tasks.geo.nodes import NodeProblem, Stream, node
from tasks.records import Reason

Measure = Literal[
    "area_m2", "area_ha", "area_km2", "area_ft2", "area_acres", "length_m", "length_km", "length_ft", "length_miles"
]

_SQUARE_METRES = {
    "area_m2": 1.0,
    "area_ha": 1e4,
    "area_km2": 1e6,
    "area_ft2": 0.3048**2,
    "area_acres": 4046.8564224,  # international; 43,560 square feet
}
_LINE = 1
"""Type id."""

_METRES = {"length_m": 1.0, "length_km": 1000.0, "length_ft": 0.3048, "length_miles": 1609.344}


@node("geoprocessing.measure")
class Measured(Stream):
    """Areas and lengths of the features, a column for each measure.

    The length of an area is that of its borders, holes included. Geodesic measures are those on the ellipsoid (Karney's
    algorithms, with geodesics as edges), planar ones those on the map: in EPSG:3857 they are too large by far.
    """

    measures: tuple[Measure, ...] = Field(min_length=1, description="the columns wanted, such as area_m2")
    method: Literal["planar", "geodesic"] = Field(default="geodesic", description="on the map, or on the ellipsoid")
    prefix: str = Field(default="", description="before the columns' names")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same with a float64 column for each measure."""
        layout = given["input"]
        crs = geometry_of(layout).crs
        if self.method == "planar":
            _unit_m(layout)
        elif crs is None:
            raise NodeProblem(
                "the input's CRS is not known; put geoprocessing.reproject with source_crs before.", "method"
            )
        elif crs_of(crs).geodetic_crs is None:
            raise NodeProblem(f"{crs} has no ellipsoid; measure it with method: planar.", "method")
        if taken := [name for name in self._names if name in layout.names]:
            raise NodeProblem(f"there is a column {taken[0]!r} already; give a prefix.", "prefix")
        return {"output": layout.with_fields([*layout.fields, *(pa.field(n, pa.float64()) for n in self._names)])}

    def apply(self, batch: Batch) -> Batch:
        """Null where there is no geometry. Raises TerminalError for coordinates with no place on the ellipsoid."""
        values = [pa.array(v, from_pandas=True) for v in self._values(batch)]
        columns = dict(zip(batch.layout.names, batch.attributes, strict=True)) | dict(
            zip(self._names, values, strict=True)
        )
        return batch.with_attributes(columns, self.layouts({"input": batch.layout})["output"])

    @property
    def _names(self) -> list[str]:
        return [f"{self.prefix}{measure}" for measure in dict.fromkeys(self.measures)]

    def _values(self, batch: Batch) -> list[Shapes]:
        """NaN where there is no geometry."""
        wanted = list(dict.fromkeys(self.measures))
        units = _SQUARE_METRES | _METRES
        areal, linear = (any(m.startswith(what) for m in wanted) for what in ("area", "length"))
        area, length = self._measured(batch, areal, linear)
        return [(area if m.startswith("area") else length) / units[m] for m in wanted]

    def _measured(self, batch: Batch, areal: bool, linear: bool) -> tuple[Shapes, Shapes]:
        """In square metres and metres; what is not asked for is not worked out."""
        none = np.full(batch.rows, np.nan)
        if self.method == "planar":
            unit = _unit_m(batch.layout)
            area = shapely.area(batch.shapes) * unit**2 if areal else none
            return area, shapely.length(batch.shapes) * unit if linear else none
        crs = batch.layout.crs or ""
        shapes, geod = _on_ellipsoid(batch.shapes, crs), crs_of(crs).get_geod()
        assert geod is not None  # noqa: S101 - layouts() has asked
        return geodesic_areas_m2(shapes, geod) if areal else none, geodesic_lengths_m(shapes, geod) if linear else none


def _unit_m(layout: Layout) -> float:
    return unit_m(layout, "method", "measure with method: geodesic")


def geodesic_areas_m2(shapes: Shapes, geod: Geod) -> Shapes:
    """Of shapes in degrees: the area within shells, without that within holes."""
    parts, row = _parts(shapes)
    areas = shapely.get_type_id(parts) == POLYGON
    rings, polygon = shapely.get_rings(parts[areas], return_index=True)
    holes = np.diff(polygon, prepend=-1) == 0  # the first ring of a polygon is its shell
    coordinates, ring = shapely.get_coordinates(rings, return_index=True)
    pieces = np.split(coordinates, np.flatnonzero(np.diff(ring)) + 1) if len(rings) else []
    sizes = np.array([abs(geod.polygon_area_perimeter(piece[:, 0], piece[:, 1])[0]) for piece in pieces])
    signed = np.where(holes, -sizes, sizes)
    return _total(signed, row[areas][polygon], shapes)


def geodesic_lengths_m(shapes: Shapes, geod: Geod) -> Shapes:
    """Of shapes in degrees: that of lines, and of the borders of areas."""
    parts, row = _parts(shapes)
    areas = shapely.get_type_id(parts) == POLYGON
    rings, polygon = shapely.get_rings(parts[areas], return_index=True)
    lines = shapely.get_type_id(parts) == _LINE
    paths, path_row = np.concatenate([rings, parts[lines]]), np.concatenate([row[areas][polygon], row[lines]])
    coordinates, path = shapely.get_coordinates(paths, return_index=True)
    along = np.flatnonzero(np.diff(path) == 0)
    x, y = coordinates.T
    steps = geod.inv(x[along], y[along], x[along + 1], y[along + 1])[2]
    return _total(np.asarray(steps), path_row[path[along]], shapes)


def _parts(shapes: Shapes) -> tuple[Shapes, Shapes]:
    """Parts that have no parts themselves and are not empty, and the row each came from."""
    parts, row = plain_parts(shapes)
    filled = ~shapely.is_empty(parts)
    return parts[filled], row[filled]


def _total(values: Shapes, rows: Shapes, shapes: Shapes) -> Shapes:
    total = np.bincount(rows, weights=values, minlength=len(shapes)).astype(float)
    total[shapely.is_missing(shapes)] = np.nan
    return total


def _on_ellipsoid(shapes: Shapes, crs: str) -> Shapes:
    """In degrees on the datum of their own CRS, whatever its own angles are."""
    base = crs_of(crs).geodetic_crs
    assert base is not None  # noqa: S101 - layouts() has asked
    angles = shapes if is_geographic(crs) else moved(shapes, transformer(crs, base.to_wkt()).transform)
    if unplaced(angles).any():
        raise TerminalError(
            Reason.OUTSIDE_CRS, f"geometries lie outside of where {crs} is of use; filter them out before."
        )
    unit = float(np.degrees(base.axis_info[0].unit_conversion_factor))
    return angles if abs(unit - 1.0) < 1e-12 else moved(angles, lambda *xyz: (xyz[0] * unit, xyz[1] * unit, *xyz[2:]))
