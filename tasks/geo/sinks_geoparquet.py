"""data_sink.geoparquet."""

from __future__ import annotations

from pydantic import Field

from tasks.geo.file_formats import Format
from tasks.geo.format_geoparquet import GeoParquet
from tasks.geo.nodes import node
from tasks.geo.sinks_files import FileSink, TargetCrs, checked_crs


@node("data_sink.geoparquet")
class GeoParquetSink(FileSink):
    """Writes GeoParquet 1.1: WKB, the CRS as PROJJSON, a box for each feature; Parquet for a table without geometry."""

    bbox: bool = Field(default=True, description="A column of boxes, so that readers skip what lies elsewhere.")
    crs: TargetCrs = None

    def form(self) -> Format:
        """Of the file."""
        return GeoParquet(self.bbox)

    def target_crs(self) -> str | None:
        """CRS of the file."""
        return checked_crs(self.crs)
