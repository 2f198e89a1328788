"""Sinks of files that GDAL writes: GeoPackage, FlatGeobuf, Shapefile."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from tasks.errors import ConfigurationError
from tasks.geo.file_formats import Format
from tasks.geo.file_sources import head
from tasks.geo.format_gdal import FlatGeobuf, GeoPackage
from tasks.geo.format_shapefile import Shapefile
from tasks.geo.gdal_reading import GEOPACKAGE
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Work, node
from tasks.geo.sinks_files import FileSink, TargetCrs, checked_crs
from tasks.partials import disk

LayerName = Field(default=None, min_length=1, max_length=200, description="Layer to make; else the file's name.")


@node("data_sink.geopackage")
class GeoPackageSink(FileSink):
    """Writes a layer of a GeoPackage, with a spatial index. Other layers of a file that is there stay as they are."""

    table_name: str | None = LayerName
    crs: TargetCrs = None

    def prepare(self, layout: Layout, work: Work) -> None:
        """Refuses to add a layer to what is no GeoPackage; GDAL would obey some files that it opens."""
        place = work.outside.writable(self.place)
        with disk(place.parent):
            other = place.exists() and head(place, len(GEOPACKAGE)) != GEOPACKAGE
        if other:
            raise ConfigurationError(f"{self.output_path} is there and is no GeoPackage; choose another output_path.")

    def form(self) -> Format:
        """Of the file."""
        return GeoPackage(self.table_name or Path(self.output_path).stem)

    def target_crs(self) -> str | None:
        """CRS of the layer."""
        return checked_crs(self.crs)


@node("data_sink.flatgeobuf")
class FlatGeobufSink(FileSink):
    """Writes a FlatGeobuf file (flatgeobuf.org). With its index, features stand in the index's order."""

    spatial_index: bool = Field(default=True, description="Has no place for features without geometry.")
    crs: TargetCrs = None

    def form(self) -> Format:
        """Of the file."""
        return FlatGeobuf(self.spatial_index)

    def target_crs(self) -> str | None:
        """CRS of the file."""
        return checked_crs(self.crs)


@node("data_sink.shapefile")
class ShapefileSink(FileSink):
    """Writes a Shapefile: names of ten characters, texts of 254 bytes, moments as text, one type of geometry, 2 GB."""

    zip: bool | None = Field(default=None, description="Pack it; where not given, if output_path ends with .zip.")
    crs: TargetCrs = None

    @property
    def place(self) -> str:
        """The archive, or the `.shp`."""
        path = Path(self.output_path)
        zipped = path.suffix.lower() == ".zip" if self.zip is None else self.zip
        return str(path.with_suffix(".zip" if zipped else ".shp"))

    def form(self) -> Format:
        """Of the file."""
        place = Path(self.place)
        return Shapefile(place.stem, place.suffix == ".zip")

    def target_crs(self) -> str | None:
        """CRS of the file."""
        return checked_crs(self.crs)
