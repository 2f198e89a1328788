"""data_source.csv_geometry: CSV with geometries as text or as coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from pydantic import AfterValidator, BeforeValidator, Field

from tasks.errors import TerminalError
from tasks.geo.batches import Batch, Geometries
from tasks.geo.csv_reading import CsvFile
from tasks.geo.fields import suggested
from tasks.geo.file_columns import chosen, geometry_name, plain_array
from tasks.geo.file_sources import FileSource, NamedCrs
from tasks.geo.layouts import UNKNOWN, GeometryField, Layout
from tasks.geo.nodes import Described, NodeProblem, Outside, Work, node
from tasks.records import Reason

_FORMATS = {"wkt": "WKT", "wkb": "WKB", "latlon": "LatLon", "lonlat": "LatLon", "none": "none"}
_USUAL = {
    "geometry_column": ("geometry", "geom", "wkt", "wkb", "the_geom", "shape"),
    "lat_column": ("latitude", "lat", "y"),
    "lon_column": ("longitude", "lon", "lng", "long", "x"),
}
_NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$"

GeometryFormat = Annotated[
    Literal["WKT", "WKB", "LatLon", "none"], BeforeValidator(lambda word: _FORMATS.get(str(word).lower(), word))
]


def _plain(character: str) -> str:
    if not character.isascii() or character in "\r\n\0":
        raise ValueError(f"{character!r} cannot stand between fields or around them; take , or ; or a tab, or quotes.")
    return character


OneCharacter = Annotated[str, Field(min_length=1, max_length=1), AfterValidator(_plain)]


@node("data_source.csv_geometry")
class CsvSource(FileSource):
    """Reads CSV (RFC 4180) with a geometry on each line: WKT, WKB in hexadecimal, or latitude and longitude; or none.

    The file is read through once to find the columns' types, so that no later line can break them. Numbers that begin
    with a nought stay text. An empty field is null, "" is an empty text. The columns that make the geometry are no
    attributes.
    """

    geometry_format: GeometryFormat = Field(default="WKT", description="WKT, WKB, LatLon, or none for a table.")
    delimiter: OneCharacter = Field(default=",", description="Between fields.")
    quote_char: OneCharacter = Field(default='"', description="Around fields.")
    has_header: bool = Field(default=True, description="Whether the first line has names; else they are f0, f1, ...")
    geometry_column: str | None = Field(default=None, description="Where not given, geometry, geom, wkt ...")
    lat_column: str | None = Field(default=None, description="Where not given, latitude, lat or y.")
    lon_column: str | None = Field(default=None, description="Where not given, longitude, lon, lng or x.")
    encoding: str = Field(default="utf-8", max_length=40, description="Of the text (cp1250).")
    crs: NamedCrs = "EPSG:4326"

    def describe(self, outside: Outside) -> Described:
        """Layout and size; reads the file for the columns' types."""
        file = self._file(outside)
        return Described(self._layout(file), None, file.path.stat().st_size)

    def read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        """The features in the order of the file."""
        return self.limited(self._batches(self._file(work.outside)), work)

    def _file(self, outside: Outside) -> CsvFile:
        return CsvFile(
            self.path(outside), self.file_path, self.delimiter, self.quote_char, self.has_header, self.encoding
        )

    def _layout(self, file: CsvFile) -> Layout:
        shape = self._shape_columns(file.names)
        found = file.types(shape, self.limit)
        fields = [pa.field(name, found[name]) for name in chosen(list(found), self.columns, self.file_path)]
        if not shape:
            return Layout(pa.schema(fields))
        kind = "Point" if self.geometry_format == "LatLon" else UNKNOWN
        named = geometry_name("geometry", [field.name for field in fields])
        return self.placed(Layout(pa.schema(fields), GeometryField(named, kind)))

    def _batches(self, file: CsvFile) -> Iterator[Batch]:
        layout, shape, seen = self._layout(file), self._shape_columns(file.names), 0
        for texts in file.texts():
            used = texts if self.limit is None else texts.slice(0, self.limit - seen)
            attributes = tuple(plain_array(used.column(field.name), field.type) for field in layout.fields)
            geometry = self._geometry(used.select(shape), seen) if shape else None
            yield Batch(layout, attributes, geometry, used.num_rows)
            seen += used.num_rows

    def _geometry(self, texts: pa.RecordBatch, seen: int) -> Geometries:
        columns = [pc.utf8_trim_whitespace(column) for column in texts.columns]
        columns = [pc.if_else(pc.equal(column, ""), None, column) for column in columns]
        shapes, wrong = _points(*columns) if self.geometry_format == "LatLon" else self._parsed(columns[0])
        if wrong.any():
            row = int(wrong.argmax())
            shown = ", ".join(str(column[row].as_py())[:60] for column in columns)
            raise TerminalError(
                Reason.BAD_GEOMETRY,
                f"Row {seen + row + 1} of {self.file_path} has {shown!r}, no {self.geometry_format}; correct it.",
            )
        return Geometries(shapes=shapes)

    def _parsed(self, texts: pa.Array) -> tuple[Any, Any]:
        """Shapes, and which rows have a text that is none."""
        values = np.array(texts.to_pylist(), dtype=object)
        read = shapely.from_wkt if self.geometry_format == "WKT" else shapely.from_wkb
        shapes = np.atleast_1d(read(values, on_invalid="ignore"))
        return shapes, shapely.is_missing(shapes) & texts.is_valid().to_numpy(zero_copy_only=False)

    def _shape_columns(self, names: list[str]) -> list[str]:
        """The columns that make the geometry. Raises NodeProblem where they are not there."""
        if self.geometry_format == "none":
            return []
        fields = ["lat_column", "lon_column"] if self.geometry_format == "LatLon" else ["geometry_column"]
        return [self._column(field, names) for field in fields]

    def _column(self, field: str, names: list[str]) -> str:
        wanted = getattr(self, field)
        if wanted in names:
            return str(wanted)
        lowered = {name.lower(): name for name in reversed(names)}
        found = next((lowered[word] for word in _USUAL[field] if word in lowered), None)
        if wanted is None and found is not None:
            return found
        what = f"{self.file_path} has no column {wanted!r}" if wanted else f"name the {field} of {self.file_path}"
        raise NodeProblem(f"{what}; {suggested(wanted or _USUAL[field][0], names)}.", field)


def _points(latitudes: pa.Array, longitudes: pa.Array) -> tuple[Any, Any]:
    """Points, null where a coordinate is missing; and which rows have a text that is no number."""
    (y, no_y), (x, no_x) = _numbers(latitudes), _numbers(longitudes)
    there = np.isfinite(x) & np.isfinite(y)
    shapes = np.full(len(there), None, dtype=object)
    shapes[there] = shapely.points(x[there], y[there])
    return shapes, no_x | no_y


def _numbers(texts: pa.Array) -> tuple[Any, Any]:
    """Floats, NaN where there is none; and which texts are no numbers."""
    formed = pc.match_substring_regex(texts, _NUMBER)
    numbers = pc.cast(pc.replace_substring_regex(pc.if_else(formed, texts, None), r"^\+", ""), pa.float64())
    wrong = pc.fill_null(pc.invert(formed), False)
    return numbers.to_numpy(zero_copy_only=False), wrong.to_numpy(zero_copy_only=False)
