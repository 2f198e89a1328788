"""GeoParquet 1.1 by pyarrow, with a box for each feature, so that readers skip what lies elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from tasks.errors import TerminalError
from tasks.geo.batches import Batch
from tasks.geo.file_columns import geometry_name, plain_array, plain_type
from tasks.geo.file_formats import Format
from tasks.geo.geoparquet import BOX, KEY, Seen, box_column, metadata, seen_in
from tasks.geo.layouts import Layout
from tasks.partials import disk
from tasks.records import Reason

GROUP_ROWS = 65_536
GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class GeoParquet(Format):
    """GeoParquet 1.1: WKB, Zstandard, row groups of 65,536 features or 64 MiB.

    boxes  a column of boxes (`covering`), 16 bytes a feature
    """

    boxes: bool = True

    suffix: ClassVar[str] = ".parquet"
    media_type: ClassVar[str] = "application/vnd.apache.parquet"

    def check(self, layout: Layout) -> None:
        """Anything goes."""

    def packed(self, batch: Batch) -> tuple[pa.RecordBatch, Seen]:
        """A record batch with boxes, and what its geometries are."""
        schema = _schema(batch.layout, self.boxes)
        arrays = [plain_array(a, field.type) for a, field in zip(batch.attributes, schema, strict=False)]
        seen = Seen()
        if batch.geometry is not None:
            corners = shapely.bounds(batch.shapes)
            seen = seen_in(batch.shapes, corners)
            arrays += [plain_array(batch.geometry.wkb, pa.binary()), *([box_column(corners)] if self.boxes else [])]
        return pa.RecordBatch.from_arrays(arrays, schema=schema), seen

    def started(self, path: Path, layout: Layout, stop: threading.Event) -> GeoParquetEncoder:
        """With a writer that has not said yet which types of geometry there are."""
        return GeoParquetEncoder(path, layout, self.boxes)


def _box_name(layout: Layout) -> str:
    return geometry_name("bbox", [*layout.names, layout.geometry.name if layout.geometry else ""])


def _schema(layout: Layout, boxes: bool) -> pa.Schema:
    fields = [pa.field(field.name, plain_type(field.type)) for field in layout.fields]
    if layout.geometry:
        fields.append(pa.field(layout.geometry.name, pa.binary()))
        fields += [pa.field(_box_name(layout), BOX)] if boxes else []
    return pa.schema(fields)


class GeoParquetEncoder:
    """Gathers batches to row groups."""

    def __init__(self, path: Path, layout: Layout, boxes: bool) -> None:
        self._path, self._layout, self._boxes = path, layout, boxes
        self._seen = Seen()
        self._waiting: list[pa.RecordBatch] = []
        with self._mapped():
            self._writer = pq.ParquetWriter(path, _schema(layout, boxes), compression="zstd", store_schema=True)

    def write(self, packed: tuple[pa.RecordBatch, Seen]) -> None:
        """Append a batch."""
        batch, seen = packed
        self._seen.add(seen)
        self._waiting.append(batch)
        rows, size_bytes = sum(b.num_rows for b in self._waiting), sum(b.nbytes for b in self._waiting)
        if rows >= GROUP_ROWS or size_bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """The last row group, and the metadata."""
        self._flush()
        if self._layout.geometry:
            geo = metadata(self._layout.geometry, self._seen, _box_name(self._layout) if self._boxes else None)
            self._writer.add_key_value_metadata({KEY: geo})
        with self._mapped():
            self._writer.close()

    def abandon(self) -> None:
        """Closes it; the file is removed with its folder."""
        self._waiting = []
        with self._mapped():
            self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            table, self._waiting = pa.Table.from_batches(self._waiting), []
            with self._mapped():
                self._writer.write_table(table, row_group_size=table.num_rows)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            with disk(self._path.parent):
                yield
        except pa.ArrowException as exc:
            said = " ".join(str(exc).split())[:200]
            raise TerminalError(Reason.UNWRITABLE, f"Parquet cannot hold a column ({said}); cast it before.") from exc
