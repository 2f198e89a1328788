"""What flows along an edge of a workflow: the columns, and the geometry with its type and CRS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa
from pyproj import CRS
from pyproj.exceptions import CRSError

UNKNOWN = "Unknown"
"""Geometry type of a column that may hold any."""


@dataclass(frozen=True)
class GeometryField:
    """The geometry column of a layout.

    kind  a simple-features type ("Polygon", "MultiPolygon", ...), or UNKNOWN
    crs   "EPSG:3857" or, where there is no such code, WKT; None: not known
    """

    name: str = "geometry"
    kind: str = UNKNOWN
    crs: str | None = None


@dataclass(frozen=True)
class Layout:
    """The columns of a stream of features.

    fields    the attributes, in order, without the geometry
    geometry  None: a table without geometry
    """

    fields: pa.Schema
    geometry: GeometryField | None = None

    @property
    def names(self) -> list[str]:
        """Names of the attributes."""
        return list(self.fields.names)

    @property
    def crs(self) -> str | None:
        """Of the geometry; None where there is none, or it is not known."""
        return self.geometry.crs if self.geometry else None

    def shaped(self, kind: str) -> Layout:
        """The same with another geometry type."""
        return replace(self, geometry=replace(self.geometry or GeometryField(), kind=kind))

    def placed(self, crs: str | None) -> Layout:
        """The same in another CRS."""
        return replace(self, geometry=replace(self.geometry or GeometryField(), crs=crs))

    def with_fields(self, fields: Sequence[pa.Field] | pa.Schema) -> Layout:
        """The same geometry with other attributes."""
        return replace(self, fields=pa.schema(list(fields)))


@lru_cache(maxsize=64)
def crs_of(name: str) -> CRS:
    """The CRS of that name (EPSG:3857, WKT, PROJ). Raises ValueError in a sentence for a user."""
    try:
        return CRS.from_user_input(name)
    except CRSError as exc:
        raise ValueError(f"{name!r} is no coordinate reference system; write it as EPSG:4326.") from exc


def crs_name(crs: object) -> str | None:
    """How a CRS is written in a layout: its authority's code where it has one, else WKT. None for none."""
    if crs is None:
        return None
    found = CRS.from_user_input(crs)
    code = found.to_authority(min_confidence=100)
    return ":".join(code) if code else str(found.to_wkt())


def is_geographic(name: str | None) -> bool:
    """Whether coordinates are degrees."""
    return name is not None and bool(crs_of(name).is_geographic)
