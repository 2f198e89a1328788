"""GeoJSON (RFC 7946): longitude and latitude of WGS 84, outer rings anticlockwise."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from tasks.geo.batches import Batch, Shapes
from tasks.geo.file_columns import has_parts, plain_array, plain_type
from tasks.geo.file_formats import Format, refuse_no_geometry
from tasks.geo.layouts import Layout
from tasks.geo.nodes import NodeProblem
from tasks.partials import disk

WGS84 = "EPSG:4326"


@dataclass(frozen=True)
class GeoJson(Format):
    """A collection of features, one a line.

    pretty    indented; several times the size
    decimals  of the coordinates; 9 are a tenth of a millimetre. None: as many as there are
    lines     a feature on each line and nothing else (newline-delimited GeoJSON)
    """

    pretty: bool = False
    decimals: int | None = 9
    lines: bool = False

    suffix: ClassVar[str] = ".geojson"
    media_type: ClassVar[str] = "application/geo+json"

    def check(self, layout: Layout) -> None:
        """A table is refused, and a CRS that is not known: coordinates are to be longitude and latitude."""
        refuse_no_geometry(layout, "GeoJSON")
        if layout.crs is None:
            raise NodeProblem("the input's CRS is not known, and GeoJSON is in EPSG:4326; give its source a `crs`.")

    def packed(self, batch: Batch) -> bytes:
        """The features' text, between them what stands between features."""
        names, columns = batch.layout.names, [_values(array) for array in batch.attributes]
        rows = zip(*columns, strict=True) if columns else iter([()] * batch.rows)
        geometries = (orjson.Fragment(text) for text in self._geometries(batch.shapes))
        return self._between.join(self._features(names, rows, geometries))

    @property
    def _between(self) -> bytes:
        return b"\n" if self.lines else b",\n"

    def _features(self, names: list[str], rows: Any, geometries: Any) -> Iterator[bytes]:
        for row, geometry in zip(rows, geometries, strict=True):
            feature = {"type": "Feature", "properties": dict(zip(names, row, strict=True)), "geometry": geometry}
            text = orjson.dumps(feature)
            yield orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2) if self.pretty else text

    def _geometries(self, shapes: Shapes) -> list[str]:
        turned = shapely.orient_polygons(shapes)
        if self.decimals is not None:
            turned = shapely.transform(turned, lambda points: np.round(points, self.decimals), include_z=None)
        texts: Any = shapely.to_geojson(turned)
        texts[shapely.is_missing(shapes)] = "null"
        for row in np.flatnonzero(shapely.is_empty(shapes)):  # GEOS says [[]] of an empty polygon, which nobody reads
            kind = shapes[row].geom_type
            inner = "geometries" if kind == "GeometryCollection" else "coordinates"
            texts[row] = f'{{"type":"{kind}","{inner}":[]}}'
        return list(texts)

    def started(self, path: Path, layout: Layout, stop: threading.Event) -> TextEncoder:
        """A collection, or lines."""
        if self.lines:
            return TextEncoder(path, b"", b"\n", b"\n")
        return TextEncoder(path, b'{"type":"FeatureCollection","features":[\n', b",\n", b"\n]}\n")


class TextEncoder:
    """Appends pieces of text."""

    def __init__(self, path: Path, head: bytes, between: bytes, tail: bytes) -> None:
        self._path, self._next, self._between, self._tail = path, head, between, tail
        with disk(path.parent):
            self._file = path.open("wb")

    def write(self, packed: bytes) -> None:
        """Append a batch."""
        with disk(self._path.parent):
            self._file.write(self._next)
            self._file.write(packed)
        self._next = self._between

    def close(self) -> None:
        """The end of the text."""
        with disk(self._path.parent):
            if self._next is not self._between:
                self._file.write(self._next)
            self._file.write(self._tail)
            self._file.close()

    def abandon(self) -> None:
        """Closes it."""
        with disk(self._path.parent):
            self._file.close()


_WRITTEN: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], Any]], ...] = (
    (pa.types.is_binary, lambda value: base64.b64encode(value).decode()),
    (pa.types.is_decimal, float),
    (pa.types.is_temporal, lambda value: value.isoformat()),
    (has_parts, lambda value: value),
)


def _values(array: pa.Array) -> list[Any]:
    """Of a column, as JSON has them: moments in ISO 8601, bytes in base 64, no numbers that are not finite."""
    plain = plain_array(array, plain_type(array.type))
    if pa.types.is_timestamp(plain.type):
        plain = pc.cast(plain, pa.timestamp("us", plain.type.tz), safe=False)
    if pa.types.is_duration(plain.type):
        plain = pc.cast(plain, pa.string())
    change = next((change for is_one, change in _WRITTEN if is_one(plain.type)), None)
    values = plain.to_pylist()
    return values if change is None else [None if value is None else change(value) for value in values]
