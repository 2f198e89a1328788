"""The photos of sites as a GeoPackage (OGC 12-128r19), written by GDAL."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from typing import Any

from tasks.site_photo import Fact, Position, SitePhoto, described, in_order

MEDIA_TYPE = "application/geopackage+sqlite3"
LAYER = "photos"

_POINT = struct.Struct("<BIdd")  # WKB: little-endian, type 1, longitude, latitude


def geopackage(photos: Iterable[SitePhoto]) -> bytes:
    """Layer `photos`: a point (EPSG:4326) for every photo with a position, in order, with a spatial index.

    Points are flat: a layer's are all flat or all not, and not every photo knows its altitude, which is a column.
    """
    import pyogrio

    packed = io.BytesIO()
    placed = [(described(photo), photo.position) for photo in in_order(photos) if photo.position]
    pyogrio.write_arrow(
        _table(placed), packed, driver="GPKG", layer=LAYER, geometry_name="geom", geometry_type="Point", crs="EPSG:4326"
    )
    return packed.getvalue()


def _table(placed: list[tuple[dict[str, Fact], Position]]) -> Any:
    """A pyarrow.Table; the types are given because a column may hold nothing."""
    import pyarrow as pa

    kinds = {"outlier": pa.bool_(), "altitude_ref": pa.int32(), "size": pa.int64()}
    kinds |= dict.fromkeys(
        ("latitude", "longitude", "altitude_m", "relative_altitude_m", "direction_deg"), pa.float64()
    )
    columns = {
        name: pa.array([facts[name] for facts, _ in placed], kinds.get(name, pa.string()))
        for name in described(SitePhoto("", "", ""))
    }
    columns["geom"] = pa.array([_POINT.pack(1, 1, place.longitude, place.latitude) for _, place in placed], pa.binary())
    return pa.table(columns)
