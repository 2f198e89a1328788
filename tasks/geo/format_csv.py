"""CSV with geometries as text (RFC 4180): well-known text, well-known binary in hexadecimal, or two coordinates."""

from __future__ import annotations

import csv
import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import shapely

from tasks.errors import TerminalError
from tasks.geo.batches import Batch, Shapes
from tasks.geo.casting import finite
from tasks.geo.file_columns import plain_array, plain_type
from tasks.geo.file_formats import Format, refuse_parts
from tasks.geo.format_geojson import TextEncoder
from tasks.geo.layouts import UNKNOWN, Layout
from tasks.geo.nodes import NodeProblem
from tasks.records import Reason

GeometryFormat = Literal["WKT", "WKB", "LatLon"]


@dataclass(frozen=True)
class Csv(Format):
    """UTF-8 without a mark, CRLF not wanted. An empty text is "", a null is nothing, bytes are hexadecimal.

    With another quote_char than " an empty text is nothing too.
    """

    geometry_format: GeometryFormat = "WKT"
    delimiter: str = ","
    quote_char: str = '"'
    has_header: bool = True
    geometry_column: str = "geometry"
    lat_column: str = "latitude"
    lon_column: str = "longitude"

    suffix: ClassVar[str] = ".csv"
    media_type: ClassVar[str] = "text/csv; charset=utf-8"

    def check(self, layout: Layout) -> None:
        """Lists are refused, names that are there already, and coordinates of what may be no point."""
        refuse_parts(layout, "CSV")
        if self.delimiter == self.quote_char:
            raise NodeProblem(f"delimiter and quote_char are both {self.delimiter!r}; choose another.", "delimiter")
        if layout.geometry is None:
            return
        taken = [name for name in self._geometry_columns if name in layout.names]
        if taken:
            field = {self.lat_column: "lat_column", self.lon_column: "lon_column"}.get(taken[0], "geometry_column")
            raise NodeProblem(f"there is an attribute {taken[0]!r} already; give the geometry another name.", field)
        if self.geometry_format == "LatLon" and layout.geometry.kind not in ("Point", UNKNOWN):
            raise NodeProblem(
                f"a {layout.geometry.kind} has no single latitude and longitude; write WKT, or put "
                "geoprocessing.centroid before it.", "geometry_format")  # fmt: skip

    @property
    def _geometry_columns(self) -> list[str]:
        return [self.lat_column, self.lon_column] if self.geometry_format == "LatLon" else [self.geometry_column]

    def packed(self, batch: Batch) -> bytes:
        """Lines without the names."""
        arrays = [_text(array) for array in batch.attributes]
        if batch.geometry is not None:
            arrays += self._geometry(batch.shapes)
        return self._lines(pa.RecordBatch.from_arrays(arrays, names=[str(n) for n in range(len(arrays))]))

    def _geometry(self, shapes: Shapes) -> list[pa.Array]:
        if self.geometry_format == "WKT":
            return [pa.array(shapely.to_wkt(shapes, rounding_precision=-1), pa.string())]
        if self.geometry_format == "WKB":
            return [pa.array(shapely.to_wkb(shapes, hex=True, flavor="iso", byte_order=1), pa.string())]
        other = ~shapely.is_missing(shapes) & (shapely.get_type_id(shapes) != shapely.GeometryType.POINT)
        if other.any():
            raise TerminalError(
                Reason.UNWRITABLE,
                f"A {shapes[other][0].geom_type} has no single latitude and longitude; write WKT, or put "
                "geoprocessing.centroid before the sink.")  # fmt: skip
        return [pa.array(axis(shapes), from_pandas=True) for axis in (shapely.get_y, shapely.get_x)]

    def _lines(self, table: pa.RecordBatch) -> bytes:
        if self.quote_char == '"':
            sink = pa.BufferOutputStream()
            pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(include_header=False, delimiter=self.delimiter))
            return bytes(sink.getvalue())
        text = io.StringIO(newline="")  # pyarrow has no other quotes
        writer = csv.writer(text, delimiter=self.delimiter, quotechar=self.quote_char, lineterminator="\n")
        writer.writerows(zip(*(pc.cast(column, pa.string()).to_pylist() for column in table.columns), strict=True))
        return text.getvalue().encode()

    def started(self, path: Path, layout: Layout, stop: threading.Event) -> TextEncoder:
        """The names first."""
        names = [*layout.names, *(self._geometry_columns if layout.geometry else [])]
        named = self._lines(pa.RecordBatch.from_arrays([pa.array([n]) for n in names], names=names)) if names else b""
        return TextEncoder(path, named if self.has_header else b"", b"", b"")


def _text(array: pa.Array) -> pa.Array:
    """The column in a type that pyarrow writes."""
    plain = plain_array(array, plain_type(array.type))
    if pa.types.is_binary(plain.type):
        values: list[Any] = plain.to_pylist()
        return pa.array([None if value is None else value.hex() for value in values], pa.string())
    if pa.types.is_timestamp(plain.type):
        zoned = "%Ez" if plain.type.tz else ""
        return pc.strftime(pc.cast(plain, pa.timestamp("us", plain.type.tz), safe=False), f"%Y-%m-%dT%H:%M:%S{zoned}")
    if pa.types.is_floating(plain.type):
        return pc.cast(finite(pc.cast(plain, pa.float64())), pa.string())
    return plain if pa.types.is_boolean(plain.type) else pc.cast(plain, pa.string())
