"""GeoParquet 1.1 (geoparquet.org/releases/v1.1.0): what its metadata say, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from tasks.errors import ConfigurationError
from tasks.geo.batches import Shapes
from tasks.geo.file_columns import file_crs, flat_kind
from tasks.geo.layouts import UNKNOWN, GeometryField, crs_of

KEY = b"geo"
VERSION = "1.1.0"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
BOX = pa.struct([pa.field(corner, pa.float32()) for corner in _CORNERS])


@dataclass(frozen=True)
class GeoColumns:
    """Which columns of a file are the geometry and its boxes.

    geometry  None: a plain Parquet file
    hidden    columns that are no attributes: boxes, and other geometries
    """

    geometry: GeometryField | None
    hidden: frozenset[str] = frozenset()


def geo_columns(schema: pa.Schema, said: Mapping[bytes, bytes] | None, shown: str) -> GeoColumns:
    """From the file's own metadata. Raises ConfigurationError where they make no sense."""
    text = (said or {}).get(KEY)
    try:
        if text is None:
            return GeoColumns(_by_extension(schema))
        geo = json.loads(text)
        primary, columns = geo["primary_column"], geo["columns"]
        return GeoColumns(_field(primary, columns[primary], shown), _hidden(columns, primary))
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise ConfigurationError(f"{shown} has GeoParquet metadata that make no sense; write it anew.") from exc


def _by_extension(schema: pa.Schema) -> GeometryField | None:
    """A column marked as GeoArrow's WKB, as Parquet's own GEOMETRY type is read."""
    for field in schema:
        marks = field.metadata or {}
        if marks.get(b"ARROW:extension:name") == b"geoarrow.wkb":
            said = json.loads(marks.get(b"ARROW:extension:metadata") or b"{}")
            return GeometryField(field.name, UNKNOWN, file_crs(said.get("crs")))
    return None


def _field(name: str, said: dict[str, Any], shown: str) -> GeometryField:
    if said["encoding"] != "WKB":
        raise ConfigurationError(
            f"{shown} has geometries encoded as {said['encoding']!r}, which is not read; write it anew with WKB."
        )
    kinds = {flat_kind(kind) for kind in said.get("geometry_types") or [UNKNOWN]}
    crs = file_crs(said["crs"]) if "crs" in said else "EPSG:4326"
    return GeometryField(name, kinds.pop() if len(kinds) == 1 else UNKNOWN, crs)


def _hidden(columns: dict[str, Any], primary: str) -> frozenset[str]:
    boxes = (said.get("covering", {}).get("bbox", {}).get("xmin", [None])[0] for said in columns.values())
    return frozenset({name for name in columns if name != primary} | {box for box in boxes if box})


@dataclass
class Seen:
    """What is known of the geometries once they are written."""

    kinds: frozenset[str] = frozenset()
    box: tuple[float, ...] | None = None

    def add(self, other: Seen) -> None:
        """Take others into account."""
        self.kinds |= other.kinds
        corners = [box for box in (self.box, other.box) if box]
        if corners:
            lows, highs = np.min(corners, axis=0)[:2], np.max(corners, axis=0)[2:]
            self.box = (*map(float, lows), *map(float, highs))


def seen_in(shapes: Shapes, boxes: np.ndarray[Any, Any]) -> Seen:
    """Types, with Z where there are heights, and the box of everything."""
    there = shapes[~shapely.is_missing(shapes)]
    pairs = set(zip(shapely.get_type_id(there).tolist(), shapely.has_z(there).tolist(), strict=True))
    kinds = frozenset(_NAMES[number] + (" Z" if has_z else "") for number, has_z in pairs)
    finite = boxes[np.isfinite(boxes).all(axis=1)]
    box = (*map(float, finite[:, :2].min(axis=0)), *map(float, finite[:, 2:].max(axis=0))) if len(finite) else None
    return Seen(kinds, box)


_NAMES = (
    "Point", "LineString", "LinearRing", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon",
    "GeometryCollection",
)  # fmt: skip


def box_column(boxes: np.ndarray[Any, Any]) -> pa.Array:
    """A box for each feature, in 32 bits and not smaller than in 64; null where there are no coordinates."""
    low, high = boxes[:, :2].astype(np.float32), boxes[:, 2:].astype(np.float32)
    low = np.where(low > boxes[:, :2], np.nextafter(low, np.float32(-np.inf)), low)
    high = np.where(high < boxes[:, 2:], np.nextafter(high, np.float32(np.inf)), high)
    none = pa.array(~np.isfinite(boxes).all(axis=1))
    corners = [pa.array(column) for column in (*low.T, *high.T)]
    return pa.StructArray.from_arrays(corners, fields=list(BOX), mask=none)


def metadata(geometry: GeometryField, seen: Seen, box: str | None) -> bytes:
    """The value of the key `geo`. `box`: name of the column of boxes."""
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(seen.kinds)}
    column["crs"] = crs_of(geometry.crs).to_json_dict() if geometry.crs else None
    if seen.box:
        column["bbox"] = list(seen.box)
    if box:
        column["covering"] = {"bbox": {corner: [box, corner] for corner in _CORNERS}}
    return json.dumps(
        {"version": VERSION, "primary_column": geometry.name, "columns": {geometry.name: column}}
    ).encode()
