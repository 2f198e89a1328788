"""Outputs of stages as Arrow IPC files: what later stages read, and what a resumed run finds.

A file has its name once it is complete. It is not synced: after a power failure its length or its footer is wrong,
and its part is done again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from tasks.errors import refuse_when_stopped
from tasks.geo.batches import Batch, arrow_geometry
from tasks.geo.layouts import Layout
from tasks.geo.nodes import BATCH_ROWS
from tasks.partials import disk

_FEW_ROWS = BATCH_ROWS // 4
"""Smaller batches are put together: what a filter leaves of them."""


@dataclass(frozen=True)
class StoredPart:
    """A file of a stored output."""

    file: str
    features: int
    size_bytes: int

    def intact(self, folder: Path) -> bool:
        """Whether the file is there, whole."""
        path = folder / self.file
        return path.is_file() and path.stat().st_size == self.size_bytes


class StoreWriter:
    """Writes one part of a stored output."""

    def __init__(self, path: Path, layout: Layout) -> None:
        # of this attempt alone: one that was given up may still hang in a batch
        self._path, self._partial = path, path.with_name(f".{path.name}.{uuid4().hex}.part")
        self._schema = schema_of(layout)
        self._small: list[pa.RecordBatch] = []
        self._small_rows = self._rows = 0
        with disk(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pa.OSFile(str(self._partial), "wb")
            self._writer = pa.ipc.new_file(self._file, self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Append; little ones wait for company."""
        self._small.append(batch)
        self._small_rows += batch.num_rows
        if self._small_rows >= _FEW_ROWS:
            self._flush()

    def finish(self) -> StoredPart:
        """Give it its name."""
        self._flush()
        with disk(self._path.parent):
            self._writer.close()
            self._file.close()
            size_bytes = self._partial.stat().st_size
            self._partial.replace(self._path)
        return StoredPart(self._path.name, self._rows, size_bytes)

    def abandon(self) -> None:
        """Leave nothing."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._small:
            return
        batch = self._small[0] if len(self._small) == 1 else _combined(self._small)
        with disk(self._path.parent):
            self._writer.write_batch(batch)
        self._rows += self._small_rows
        self._small, self._small_rows = [], 0


def schema_of(layout: Layout) -> pa.Schema:
    """Of the files of a stored output: what `Batch.to_arrow` gives."""
    fields = list(layout.fields) + ([arrow_geometry(layout)] if layout.geometry else [])
    return pa.schema(fields) if fields else Batch(layout, (), None, 0).to_arrow().schema


def _combined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


@dataclass(frozen=True)
class Piece:
    """Some rows of a stored file. Not batches: a file that is made again has the same rows, divided otherwise."""

    file: str
    first: int
    last: int


def shares(folder: Path, stored: Iterable[StoredPart], at_most: int) -> list[list[Piece]]:
    """All rows in order, in at most so many shares of about as many batches each."""
    bounds_of = ((part.file, pairwise(_bounds(folder / part.file))) for part in stored)
    pieces = [Piece(file, first, last) for file, bounds in bounds_of for first, last in bounds]
    count = max(1, min(at_most, len(pieces)))
    bounds = [len(pieces) * n // count for n in range(count + 1)]
    return [pieces[first:last] for first, last in pairwise(bounds)]


def read_pieces(folder: Path, pieces: Iterable[Piece], layout: Layout, stop: threading.Event) -> Iterator[Batch]:
    """The batches. Read, not mapped: what is done with leaves the memory. Raises StopRequested."""
    for file, of_file in groupby(pieces, key=lambda piece: piece.file):
        with pa.OSFile(str(folder / file), "rb") as source:
            reader = pa.ipc.open_file(source)
            bounds = _bounds(folder / file)
            for piece in of_file:
                for number, (first, last) in enumerate(pairwise(bounds)):
                    begin, end = max(first, piece.first), min(last, piece.last)
                    if begin >= end:
                        continue
                    refuse_when_stopped(stop)
                    yield Batch.from_arrow(reader.get_batch(number).slice(begin - first, end - begin), layout)


def _bounds(path: Path) -> list[int]:
    """The first row of each batch of a file, and the end. Mapped: only what describes the batches is read."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        rows = (reader.get_batch(number).num_rows for number in range(reader.num_record_batches))
        return [0, *accumulate(rows)]


def read_all(folder: Path, stored: Iterable[StoredPart], layout: Layout, stop: threading.Event) -> Iterator[Batch]:
    """Every batch of a stored output, in order."""
    pieces = (Piece(part.file, 0, part.features) for part in stored)
    return read_pieces(folder, pieces, layout, stop)
