"""GeoPackage and FlatGeobuf, as GDAL writes them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import shapely

from tasks.errors import TerminalError, refuse_when_stopped
from tasks.geo.batches import Batch, arrow_geometry
from tasks.geo.file_columns import geometry_name
from tasks.geo.file_formats import Format, held_arrays, held_as, refuse_no_geometry, refuse_parts
from tasks.geo.gdal_reading import Dataset, address, layers
from tasks.geo.gdal_writing import GdalProcess, write_here
from tasks.geo.layouts import UNKNOWN, GeometryField, Layout
from tasks.partials import disk
from tasks.records import Reason

_HELD: dict[pa.DataType, pa.DataType] = {
    pa.null(): pa.string(),
    pa.uint64(): pa.int64(),
    pa.time64("us"): pa.time32("ms"),
    pa.time64("ns"): pa.time32("ms"),
}
_COPY_BYTES = 8 << 20
SMALL_BYTES = 2 << 20
"""Written within 0.1 s, for which the interpreter's lock may be held."""


def _types(layout: Layout) -> list[pa.DataType]:
    """GDAL's moments have milliseconds. Those of a zone are given in UTC: FlatGeobuf forgets the zone."""
    held = (held_as(given, _HELD) for given in layout.fields.types)
    return [pa.timestamp("ms", t.tz and "UTC") if pa.types.is_timestamp(t) else t for t in held]


def record_batch(batch: Batch) -> pa.RecordBatch:
    """Arrow with WKB, in types that GDAL has."""
    types = _types(batch.layout)
    fields = [pa.field(name, kind) for name, kind in zip(batch.layout.names, types, strict=True)]
    return Batch(
        batch.layout.with_fields(fields), tuple(held_arrays(batch, types)), batch.geometry, batch.rows
    ).to_arrow()


def empty_batch(layout: Layout) -> pa.RecordBatch:
    """Without features."""
    fields = [pa.field(name, kind) for name, kind in zip(layout.names, _types(layout), strict=True)]
    fields += [arrow_geometry(layout)] if layout.geometry else []
    return pa.RecordBatch.from_pylist([], schema=pa.schema(fields))


class GdalEncoder:
    """Gathers a little; what is more goes to a process. The first batch tells whether there are heights."""

    def __init__(self, order: dict[str, Any], empty: pa.RecordBatch, stop: threading.Event) -> None:
        self._order, self._empty, self._stop = order, empty, stop
        self._waiting: list[pa.RecordBatch] = []
        self._process: GdalProcess | None = None

    def write(self, packed: pa.RecordBatch) -> None:
        """Hand on a batch."""
        if self._process is None:
            self._waiting.append(packed)
            if sum(batch.nbytes for batch in self._waiting) < SMALL_BYTES:
                return
            self._process = GdalProcess(self._dimensioned(), self._stop)
        pieces, self._waiting = self._waiting or [packed], []
        for piece in pieces:
            self._process.write(piece)

    def close(self) -> None:
        """Waits until the file is complete."""
        if self._process is not None:
            self._process.close()
        else:
            write_here(self._waiting or [self._empty], self._dimensioned())

    def abandon(self) -> None:
        """Ends the process."""
        self._waiting = []
        if self._process:
            self._process.abandon()

    def _dimensioned(self) -> dict[str, Any]:
        kind, name = self._order["kind"], self._order["geometry"]
        if kind is None or not self._waiting:
            return self._order
        return self._order | {"kind": _dimensioned(kind, self._waiting[0].column(name))}


def _dimensioned(kind: str, wkb: pa.Array) -> str:
    """The geometry type as pyogrio names it, with the dimension of the first feature that has one."""
    first = next((value.as_py() for value in wkb if value.is_valid), None)
    shape = shapely.from_wkb(first, on_invalid="ignore") if first else None
    if kind == UNKNOWN or shape is None:
        return kind
    has_z, has_m = bool(shapely.has_z(shape)), bool(shapely.has_m(shape))
    if not has_m:
        return f"{kind} Z" if has_z else kind
    return f"Measured 3D {kind}" if has_z else ("PointM" if kind == "Point" else f"Measured {kind}")


def order_for(path: Path, driver: str, layer: str, layout: Layout, **options: str) -> dict[str, Any]:
    """See tasks.geo.gdal_process."""
    shape = layout.geometry
    return {
        "path": str(path), "driver": driver, "layer": layer, "options": options, "crs": layout.crs,
        "geometry": shape.name if shape else None, "kind": shape.kind if shape else None,
    }  # fmt: skip


@dataclass(frozen=True)
class GeoPackage(Format):
    """OGC GeoPackage 1.4 with a spatial index. Other layers of a file that is there stay."""

    layer: str = "features"

    suffix: ClassVar[str] = ".gpkg"
    media_type: ClassVar[str] = "application/geopackage+sqlite3"

    def check(self, layout: Layout) -> None:
        """Lists are refused."""
        refuse_parts(layout, "a GeoPackage")

    def packed(self, batch: Batch) -> pa.RecordBatch:
        """Arrow with WKB."""
        return record_batch(batch)

    def started(self, path: Path, layout: Layout, stop: threading.Event) -> GdalEncoder:
        """The numbers of features are in `fid`, or where an attribute has that name, in `fid_`."""
        options = {"FID": geometry_name("fid", [name.lower() for name in layout.names])}
        if layout.geometry:
            options["GEOMETRY_NAME"] = geometry_name(layout.geometry.name, layout.names)
        return GdalEncoder(order_for(path, "GPKG", self.layer, layout, **options), empty_batch(layout), stop)

    def completed(self, made: Path, place: Path, stop: threading.Event) -> Path:
        """Where the place is taken by a GeoPackage with other layers: a copy of it, with this layer."""
        known = layers(Dataset(address(place), place.name)) if place.exists() else {}
        if not set(known) - {self.layer}:
            return made
        both = made.with_name(f"both-{made.name}")
        _copy(place, both, stop)
        kind = layers(Dataset(address(made), made.name))[self.layer]
        _merge(made, both, self.layer, kind, stop)
        return both


def _copy(source: Path, target: Path, stop: threading.Event) -> None:
    with disk(target.parent), source.open("rb") as old, target.open("wb") as new:
        while piece := old.read(_COPY_BYTES):
            refuse_when_stopped(stop)
            new.write(piece)


def _merge(made: Path, both: Path, layer: str, kind: str | None, stop: threading.Event) -> None:
    import pyogrio

    found = pyogrio.read_info(str(made), layer=layer)
    layout = Layout(pa.schema([]), GeometryField(found["geometry_name"], kind, found["crs"]) if kind else None)
    order = order_for(both, "GPKG", layer, layout, FID=found["fid_column"])
    if layout.geometry:
        order["options"]["GEOMETRY_NAME"] = layout.geometry.name
    process = GdalProcess(order | {"source": str(made)}, stop)
    try:
        process.close()
    except BaseException:
        process.abandon()
        raise


@dataclass(frozen=True)
class FlatGeobuf(Format):
    """FlatGeobuf 3 (flatgeobuf.org). With its index, a packed Hilbert R-tree, features stand in the index's order."""

    spatial_index: bool = True

    suffix: ClassVar[str] = ".fgb"
    media_type: ClassVar[str] = "application/vnd.flatgeobuf"

    def check(self, layout: Layout) -> None:
        """A table is refused, and lists."""
        refuse_no_geometry(layout, "FlatGeobuf")
        refuse_parts(layout, "FlatGeobuf")

    def packed(self, batch: Batch) -> pa.RecordBatch:
        """Arrow with WKB. Raises TerminalError for a feature without geometry, for which the index has no place."""
        found = record_batch(batch)
        if self.spatial_index and batch.geometry is not None and batch.geometry.wkb.null_count:
            raise TerminalError(
                Reason.UNWRITABLE,
                "There are features without geometry, for which a FlatGeobuf's index has no place; "
                "set spatial_index to false, or set them aside with quality.validate_geometry.",
            )
        return found

    def started(self, path: Path, layout: Layout, stop: threading.Event) -> GdalEncoder:
        """Its index is made at the end, from a file beside it."""
        index = "YES" if self.spatial_index else "NO"
        order = order_for(path, "FlatGeobuf", path.stem, layout, SPATIAL_INDEX=index, TEMPORARY_DIR=str(path.parent))
        return GdalEncoder(order, empty_batch(layout), stop)
