"""GDAL through pyogrio, reading: record batches while it reads, never the whole file.

GDAL opens a file by what it holds, whatever its name: a text that begins as JSON may be a pipeline of commands (GDALG),
XML may name other files (VRT). So callers look at the first bytes themselves, or name the driver in the address.
Measured with pyogrio 0.13, GDAL 3.12: 600,000 plots/s from GeoPackage, 350,000 from FlatGeobuf, 30,000 from GeoJSON,
which is parsed twice; the interpreter's lock is free meanwhile.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from tasks.errors import ConfigurationError, TerminalError
from tasks.geo.batches import Batch
from tasks.geo.file_columns import chosen, file_crs, flat_kind, geometry_name, iso_wkb, plain_array, plain_fields
from tasks.geo.layouts import UNKNOWN, GeometryField, Layout
from tasks.geo.nodes import BATCH_BYTES, BATCH_ROWS, NodeProblem
from tasks.records import Reason

GEOPACKAGE = b"SQLite format 3\0"
"""Its first bytes."""

MAX_OBJECT_MB = 64
"""A feature of a GeoJSON file at most."""

_REFUSED = (DataLayerError, DataSourceError)
_BAD_NAME = frozenset("!;?")

pyogrio.set_gdal_config_options(
    {
        "OGR_ARROW_MEM_LIMIT": BATCH_BYTES,  # a batch of a GeoPackage ends there; others have no limit but that of rows
        "OGR_GEOJSON_MAX_OBJ_SIZE": MAX_OBJECT_MB,
        # GDAL 3.12.4's own stream of FlatGeobuf gives broken arrays after a feature without geometry; 1.3 us each
        "OGR_FLATGEOBUF_STREAM_BASE_IMPL": True,
    }
)


@dataclass(frozen=True)
class Dataset:
    """A layer of a file as GDAL is to open it.

    address   the path with the driver's name before it where its content does not tell; or the content
    shown     how messages name it
    mixed     a layer said to hold one type may hold parts and multi-parts (Shapefile)
    """

    address: str | bytes
    shown: str
    layer: str | None = None
    encoding: str | None = None
    mixed: bool = False


def address(path: object, driver: str = "") -> str:
    """Of a local file. Raises ConfigurationError for a name that pyogrio would take for an archive or an URL."""
    found = sorted(_BAD_NAME.intersection(str(path)))
    if found:
        raise ConfigurationError(f"{path} has {found[0]!r} in its name, which GDAL takes for an archive; rename it.")
    return f"{driver}:{path}" if driver else str(path)


def layers(dataset: Dataset) -> dict[str, str | None]:
    """Name of each layer -> its geometry type, None for a table. Raises ConfigurationError."""
    with _opening(dataset):
        return {str(name): kind for name, kind in pyogrio.list_layers(dataset.address)}


def amount(dataset: Dataset) -> tuple[int | None, str | None]:
    """Features where the file knows without being read, and the column of the features' numbers."""
    with _opening(dataset):
        found = pyogrio.read_info(dataset.address, layer=dataset.layer, encoding=dataset.encoding)
    return (found["features"] if found["features"] >= 0 else None), found["fid_column"] or None


def layout_of(dataset: Dataset, columns: tuple[str, ...] | None) -> Layout:
    """What `batches` gives. GeoJSON is read through for that. Raises ConfigurationError or NodeProblem."""
    with _opening(dataset), _opened(dataset, columns) as (layout, _, _):
        return layout


def batches(
    dataset: Dataset, columns: tuple[str, ...] | None, where: str | None = None, rows: int = BATCH_ROWS
) -> Iterator[Batch]:
    """The features, `rows` at once.

    Raises ConfigurationError where the file cannot be opened, TerminalError where it is damaged.
    """
    with contextlib.ExitStack() as stack:
        with _opening(dataset):
            layout, shape, reader = stack.enter_context(_opened(dataset, columns, where, rows))
        while (batch := _next(reader, dataset)) is not None:
            if batch.num_rows:
                yield _batch(batch, layout, shape)


@contextlib.contextmanager
def _opened(
    dataset: Dataset, columns: tuple[str, ...] | None, where: str | None = None, rows: int = BATCH_ROWS
) -> Iterator[tuple[Layout, str | None, pa.RecordBatchReader]]:
    """The layout, the geometry's column in the file, and a reader."""
    with pyogrio.open_arrow(
        dataset.address, layer=dataset.layer, encoding=dataset.encoding, where=where, columns=columns,
        batch_size=rows, use_pyarrow=True,
    ) as (meta, reader):  # fmt: skip
        shape = (meta["geometry_name"] or "wkb_geometry") if meta["geometry_type"] else None
        chosen([str(name) for name in meta["fields"]], columns, dataset.shown)
        fields = plain_fields([field for field in reader.schema if field.name != shape], dataset.shown)
        named = geometry_name(meta["geometry_name"] or "geometry", [field.name for field in fields])
        kind = flat_kind(meta["geometry_type"])
        kind = UNKNOWN if dataset.mixed and kind in ("Polygon", "LineString") else kind
        geometry = GeometryField(named, kind, file_crs(meta["crs"])) if shape else None
        yield Layout(pa.schema(fields), geometry), shape, reader


def _batch(given: pa.RecordBatch, layout: Layout, shape: str | None) -> Batch:
    attributes = tuple(plain_array(given.column(field.name), field.type) for field in layout.fields)
    geometry = iso_wkb(given.column(shape)) if shape else None
    return Batch(layout, attributes, geometry, given.num_rows)


def _next(reader: Any, dataset: Dataset) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
    except (OSError, pa.ArrowException, *_REFUSED) as exc:
        raise TerminalError(Reason.DAMAGED, f"{dataset.shown} is damaged ({_brief(exc)}); fetch it anew.") from exc


@contextlib.contextmanager
def _opening(dataset: Dataset) -> Iterator[None]:
    """Maps what pyogrio says when it opens a file."""
    try:
        yield
    except NodeProblem:
        raise
    except (*_REFUSED, OSError, pa.ArrowException, ValueError, LookupError) as exc:
        message = f"{dataset.shown} cannot be read ({_brief(exc)}); check that it is a whole file of that format."
        raise ConfigurationError(message) from exc


def _brief(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:200].rstrip(".")


# GDAL's remarks on what it reads (rings wound the other way, ...) are no news; catching them is not thread-safe
for place in ("pyogrio", "pyarrow", "tasks.geo"):
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=place)
warnings.filterwarnings("ignore", message=r"Measured \(M\) geometry types|'crs' was not provided")
