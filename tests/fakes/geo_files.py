"""GeoPackages of numbered squares in metres, for flows of workflows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyogrio
import shapely


def squares_file(path: Path, features: int, *, layer: str = "plots", side_m: float = 10.0) -> Path:
    """A GeoPackage of `features` squares, each 20 m from the next, in EPSG:3857; column `n` counts them."""
    n = np.arange(features)
    x, y = 1_600_000 + (n % 1000) * (side_m + 20), 6_470_000 + (n // 1000) * (side_m + 20)
    shapes = shapely.box(x, y, x + side_m, y + side_m)
    table = pa.table(
        {"n": n, "kind": pa.array(["garden", "house"]).take(pa.array(n % 2)), "geom": shapely.to_wkb(shapes)}
    )
    options = {"driver": "GPKG", "geometry_name": "geom", "geometry_type": "Polygon", "crs": "EPSG:3857"}
    pyogrio.write_arrow(table, path, layer=layer, **options)
    return path
