"""All nodes: importing this registers every one of them in `tasks.geo.nodes.NODES`."""

# ruff: noqa: F401 - imported for what they register

from tasks.geo import (
    attributes,
    blocking_dedupe,
    blocking_groups,
    blocking_merge,
    blocking_sort,
    geometry_buffer,
    geometry_measure,
    geometry_reproject,
    geometry_shapes,
    overlay_cut,
    overlay_join,
    overlay_union,
    quality_contract,
    quality_geometry,
    sinks_gdal,
    sinks_geoparquet,
    sinks_postgres,
    sinks_store,
    sinks_text,
    sources_csv,
    sources_gdal,
    sources_geoparquet,
    sources_inline,
    sources_postgres,
)
from tasks.geo.nodes import NODES

__all__ = ["NODES"]
