"""Sinks of text files: GeoJSON and CSV."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tasks.geo.file_formats import Format
from tasks.geo.format_csv import Csv, GeometryFormat
from tasks.geo.format_geojson import WGS84, GeoJson
from tasks.geo.layouts import Layout
from tasks.geo.nodes import node
from tasks.geo.sinks_files import FileSink, TargetCrs, checked_crs
from tasks.geo.sources_csv import OneCharacter

Decimals = Field(default=9, ge=0, le=17, description="Of coordinates; 7 are a centimetre. null: all there are.")


@node("data_sink.geojson")
class GeoJsonSink(FileSink):
    """Writes GeoJSON (RFC 7946): in EPSG:4326 whatever the input's CRS, outer rings anticlockwise, a feature a line.

    A path that ends with .geojsonl or .ndjson is given features on lines and nothing else.
    """

    pretty: bool = Field(default=False, description="Indent; several times the size.")
    decimals: int | None = Decimals

    def form(self) -> Format:
        """Of the file."""
        lines = Path(self.output_path).suffix.lower() in (".geojsonl", ".ndjson", ".geojsons", ".jsonl")
        return GeoJson(self.pretty and not lines, self.decimals, lines)

    def target_crs(self) -> str | None:
        """That of RFC 7946."""
        return WGS84

    def placed(self, layout: Layout) -> Layout:
        """What is not known to be anywhere is not taken to be in degrees."""
        return layout if layout.crs is None else super().placed(layout)


@node("data_sink.csv_geometry")
class CsvSink(FileSink):
    """Writes CSV (RFC 4180) with the geometry as WKT, WKB in hexadecimal, or latitude and longitude of points."""

    geometry_format: GeometryFormat = Field(default="WKT", description="WKT, WKB or LatLon.")
    delimiter: OneCharacter = Field(default=",", description="Between fields.")
    quote_char: OneCharacter = Field(default='"', description="Around fields that need it.")
    has_header: bool = Field(default=True, description="Whether the first line has the names.")
    geometry_column: str = Field(default="geometry", min_length=1, description="Of WKT or WKB.")
    lat_column: str = Field(default="latitude", min_length=1, description="Of latitudes, or northings.")
    lon_column: str = Field(default="longitude", min_length=1, description="Of longitudes, or eastings.")
    crs: TargetCrs = None

    def form(self) -> Format:
        """Of the file."""
        return Csv(
            self.geometry_format, self.delimiter, self.quote_char, self.has_header, self.geometry_column,
            self.lat_column, self.lon_column,
        )  # fmt: skip

    def target_crs(self) -> str | None:
        """CRS of the coordinates."""
        return checked_crs(self.crs)
