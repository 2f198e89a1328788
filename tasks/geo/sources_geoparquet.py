"""data_source.geoparquet: GeoParquet 1.1 and plain Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import ConfigurationError, LandrecordsError, TerminalError
from tasks.geo.batches import Batch
from tasks.geo.file_columns import chosen, geometry_name, iso_wkb, plain_array, plain_fields
from tasks.geo.file_sources import FileSource
from tasks.geo.geoparquet import GeoColumns, geo_columns
from tasks.geo.layouts import Layout
from tasks.geo.nodes import BATCH_BYTES, BATCH_ROWS, Described, Outside, Work, node
from tasks.records import Reason

_BUFFER_BYTES = 1 << 20


@node("data_source.geoparquet")
class GeoParquetSource(FileSource):
    """Reads GeoParquet 1.1 with geometries as WKB, or Parquet without geometry.

    Row groups are read side by side. A geometry column without a CRS in the metadata is in longitude and latitude.
    """

    def describe(self, outside: Outside) -> Described:
        """From the file's footer."""
        path = self.path(outside)
        with self._opened(outside) as file:
            rows = file.metadata.num_rows if self.limit is None else min(file.metadata.num_rows, self.limit)
            return Described(self._layout(file)[0], rows, path.stat().st_size)

    def parts(self, outside: Outside, at_most: int) -> list[dict[str, Any]]:
        """Row groups; all together where there is a limit."""
        with self._opened(outside) as file:
            count = 1 if self.limit is not None else max(1, min(at_most, file.num_row_groups))
            bounds = [file.num_row_groups * n // count for n in range(count + 1)]
        return [{"first": first, "last": last - 1} for first, last in pairwise(bounds)]

    def read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        """The features of the row groups, in order."""
        return self.limited(self._batches(part, work.outside), work)

    def _batches(self, part: dict[str, Any], outside: Outside) -> Iterator[Batch]:
        with self._opened(outside) as file:
            layout, shape = self._layout(file)
            names = [*layout.names, *([shape] if shape else [])]
            groups = range(part.get("first", 0), part.get("last", file.num_row_groups - 1) + 1)
            for given in file.iter_batches(_batch_rows(file), list(groups), columns=names, use_threads=False):
                arrays = tuple(plain_array(given.column(field.name), field.type) for field in layout.fields)
                yield Batch(layout, arrays, iso_wkb(given.column(shape)) if shape else None, given.num_rows)

    def _layout(self, file: pq.ParquetFile) -> tuple[Layout, str | None]:
        """The layout, and the geometry's column in the file."""
        schema = file.schema_arrow
        found: GeoColumns = geo_columns(schema, file.metadata.metadata, self.file_path)
        shape = found.geometry.name if found.geometry else None
        known = [name for name in schema.names if name != shape and name not in found.hidden]
        fields = plain_fields([schema.field(n) for n in chosen(known, self.columns, self.file_path)], self.file_path)
        if found.geometry is None:
            return Layout(pa.schema(fields)), None
        schema.field(found.geometry.name)  # KeyError: metadata of another file
        named = replace(found.geometry, name=geometry_name(found.geometry.name, [field.name for field in fields]))
        return self.placed(Layout(pa.schema(fields), named)), shape

    @contextmanager
    def _opened(self, outside: Outside) -> Iterator[pq.ParquetFile]:
        """Reads pages through a small buffer: a row group may be as large as the file."""
        path = self.path(outside)
        try:
            file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        except (pa.ArrowException, OSError) as exc:
            raise ConfigurationError(f"{self.file_path} is no whole Parquet file; name one that is.") from exc
        with file:
            try:
                yield file
            except (LandrecordsError, GeneratorExit):
                raise
            except KeyError as exc:
                raise ConfigurationError(f"{self.file_path} has no column {exc}; write it anew.") from exc
            except (pa.ArrowException, OSError) as exc:
                said = " ".join(str(exc).split())[:200]
                raise TerminalError(Reason.DAMAGED, f"{self.file_path} is damaged ({said}); fetch it anew.") from exc


def _batch_rows(file: pq.ParquetFile) -> int:
    """So many that a batch has about BATCH_BYTES at most, if rows are alike."""
    size_bytes = sum(file.metadata.row_group(n).total_byte_size for n in range(file.num_row_groups))
    rows = int(BATCH_BYTES * file.metadata.num_rows // max(size_bytes, 1))
    return max(1, min(BATCH_ROWS, rows))
