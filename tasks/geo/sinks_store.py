"""Sinks of the store: data_sink.store, and data_sink.output, whose results are kept with the run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.geo.file_formats import Format
from tasks.geo.format_csv import Csv
from tasks.geo.format_gdal import FlatGeobuf, GeoPackage
from tasks.geo.format_geojson import WGS84, GeoJson
from tasks.geo.format_geoparquet import GeoParquet
from tasks.geo.format_shapefile import Shapefile
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Work, Written, node
from tasks.geo.sinks_files import FileWriter, FormatSink, TargetCrs, checked_crs

RESULTS = "geoetl/results"

FormatName = Annotated[
    Literal["geoparquet", "geopackage", "flatgeobuf", "geojson", "csv", "shapefile"], Field(description="Of the file.")
]
_FORMATS: dict[str, Format] = {
    "geoparquet": GeoParquet(),
    "geopackage": GeoPackage(),
    "flatgeobuf": FlatGeobuf(),
    "geojson": GeoJson(),
    "csv": Csv(),
    "shapefile": Shapefile(),
}


class StoredSink(FormatSink):
    """A sink that makes a file and uploads it."""

    def object_key(self, work: Work) -> str:
        """Of the object."""
        raise NotImplementedError

    def open(self, layout: Layout, work: Work) -> StoreWriter:
        """Of the whole stream."""
        return StoreWriter(self.form(), self.object_key(work), self.placed(layout), work)


class StoreWriter(FileWriter):
    """Makes the file in the node's folder."""

    def __init__(self, form: Format, key: str, layout: Layout, work: Work) -> None:
        super().__init__(form, work.folder / f"upload{form.suffix}", layout, work)
        self._key = key

    def finish(self) -> Written:
        """Complete, then uploaded."""
        written = super().finish()
        try:
            url = self._work.outside.put(self._key, self._place, self._form.media_type)
        finally:
            self._place.unlink(missing_ok=True)
        return Written(written.features, written.size_bytes, (url,))


def _plain_key(key: str) -> str:
    if any(part in ("", ".", "..") for part in key.split("/")) or not key.isprintable() or "\\" in key:
        raise ValueError(f"{key!r} is no key of an object; write it as exports/plots.gpkg.")
    return key


@node("data_sink.store")
class StoreSink(StoredSink):
    """Writes a file and uploads it to the store, where it replaces the object of that key."""

    key: Annotated[str, AfterValidator(_plain_key)] = Field(
        min_length=1, max_length=900, description="Of the object (exports/plots.gpkg)."
    )
    format: FormatName = "geoparquet"
    crs: TargetCrs = None

    def object_key(self, work: Work) -> str:
        """As given."""
        return self.key

    def form(self) -> Format:
        """Of the file."""
        return _FORMATS[self.format]

    def target_crs(self) -> str | None:
        """CRS of the file."""
        return WGS84 if self.format == "geojson" else checked_crs(self.crs)


@node("data_sink.output")
class OutputSink(StoredSink):
    """Keeps a named result with the run: a file in the store, listed in the run's report."""

    name: str = Field(default="output", pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$", description="Of the result.")
    format: FormatName = "geoparquet"

    def object_key(self, work: Work) -> str:
        """Under the run's."""
        return f"{RESULTS}/{work.run_id}/{self.name}{self.form().suffix}"

    def form(self) -> Format:
        """Of the file."""
        return _FORMATS[self.format]

    def target_crs(self) -> str | None:
        """That of RFC 7946 for GeoJSON, else the input's."""
        return WGS84 if self.format == "geojson" else None
