"""Sorting more than memory holds: sorted runs on disk as Arrow IPC, merged block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import refuse_when_stopped
from tasks.geo.batches import Batch
from tasks.geo.blocking_gathering import Held
from tasks.geo.layouts import Layout
from tasks.geo.nodes import BATCH_BYTES, BATCH_ROWS, Work
from tasks.partials import disk

Key = tuple[str, str, str]
"""Column, "ascending" or "descending", and where nulls go: "at_start" or "at_end"."""

RUN_BYTES = 256 << 20
"""A run at most: Arrow's texts and bytes have offsets of 32 bits, and a sort is not interrupted."""

BLOCK_BYTES = 512 << 10
FAN_IN = 16
"""Runs merged at once; of more, some are merged to one first."""


class Sorter:
    """Takes tables of one schema in any order, and gives their rows sorted, equal ones in the order they came.

    What the budget has room for stays in memory. Arrow's order: texts by their UTF-8 bytes, NaN beside the nulls.
    """

    def __init__(self, work: Work, keys: Sequence[Key]) -> None:
        self._work = work
        self._keys = list(keys)
        self._held = Held(work)
        self._tables: list[pa.Table] = []
        self._runs: list[Path] = []

    def __enter__(self) -> Sorter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._tables = []
        self._held.become(0)
        for path in self._runs:
            path.unlink(missing_ok=True)

    def add(self, table: pa.Table) -> None:
        """More rows. Raises StopRequested, and the errors of a disk."""
        refuse_when_stopped(self._work.stop)
        if not table.num_rows:
            return
        size_bytes = 2 * table.nbytes  # sorting makes a copy
        if self._tables and not (self._held.room(size_bytes) and self._held.size_bytes + size_bytes <= RUN_BYTES):
            self._spill()
        self._tables.append(table)
        self._held.become(self._held.size_bytes + size_bytes)

    def sorted(self) -> Iterator[pa.Table]:
        """All rows in order, in tables of BATCH_ROWS at most. Once."""
        if self._runs and self._tables:
            self._spill()
        if not self._runs:
            yield from _pieces(self._sorted_tables(), BATCH_ROWS) if self._tables else ()
            return
        while len(self._runs) > FAN_IN:  # neighbours: equal rows stay in their order
            self._runs = [self._one_run(self._runs[i : i + FAN_IN]) for i in range(0, len(self._runs), FAN_IN)]
        yield from (piece for table in self._merged(self._runs) for piece in _pieces(table, BATCH_ROWS))

    def _spill(self) -> None:
        self._runs.append(self._written(iter([self._sorted_tables()])))
        self._held.become(0)

    def _one_run(self, runs: list[Path]) -> Path:
        one = self._written(self._merged(runs))
        for path in runs:
            path.unlink()
        return one

    def _sorted_tables(self) -> pa.Table:
        tables, self._tables = self._tables, []
        table = pa.concat_tables(tables).combine_chunks()
        tables.clear()
        return table.take(pc.sort_indices(table, sort_keys=self._keys))

    def _written(self, tables: Iterator[pa.Table]) -> Path:
        """A run: one file of blocks of about BLOCK_BYTES."""
        path = self._work.folder / f"run-{uuid4().hex}.arrow"
        first = next(tables)
        with (
            disk(self._work.folder),
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_stream(file, first.schema) as writer,
        ):
            for table in (first, *tables):
                refuse_when_stopped(self._work.stop)
                writer.write_table(table, max_chunksize=_block_rows(table))
        return path

    def _merged(self, runs: list[Path]) -> Iterator[pa.Table]:
        """The rows of sorted runs in order.

        The blocks at hand are sorted together, and given up to where one of them ends: the next may belong there.
        """
        readers = [self._read(path) for path in runs]
        blocks: list[pa.Table | None] = [next(reader, None) for reader in readers]
        while any(block is not None for block in blocks):
            refuse_when_stopped(self._work.stop)
            at_hand = [(i, block) for i, block in enumerate(blocks) if block is not None]
            self._held.become(2 * sum(block.nbytes for _, block in at_hand))
            given, taken = self._next([block for _, block in at_hand])
            yield given
            for (i, block), rows in zip(at_hand, taken, strict=True):
                blocks[i] = block.slice(rows) if rows < block.num_rows else next(readers[i], None)

    def _next(self, blocks: list[pa.Table]) -> tuple[pa.Table, list[int]]:
        """The rows that are certainly next, and how many of them each block gives."""
        together = pa.concat_tables(blocks)
        order = pc.sort_indices(together, sort_keys=self._keys).to_numpy()
        block_of = np.repeat(np.arange(len(blocks)), [block.num_rows for block in blocks])
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        ends = np.cumsum([block.num_rows for block in blocks]) - 1
        chosen = order[: place[ends].min() + 1]
        return together.take(chosen), np.bincount(block_of[chosen], minlength=len(blocks)).tolist()

    def _read(self, path: Path) -> Iterator[pa.Table]:
        with disk(self._work.folder), pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])


def ascending(name: str) -> Key:
    """By that column, nulls last."""
    return name, "ascending", "at_end"


def table_of(batch: Batch) -> pa.Table:
    """Attributes, and the geometry as WKB in the last column."""
    return pa.Table.from_batches([batch.to_arrow()])


def batches_of(table: pa.Table, layout: Layout) -> Iterator[Batch]:
    """What `table_of` made, and others of its columns, as batches of the usual size."""
    rows = min(BATCH_ROWS, max(1, BATCH_BYTES * table.num_rows // max(1, table.nbytes)))
    for piece in _pieces(table, rows):
        yield Batch.from_arrow(piece.combine_chunks().to_batches()[0], layout)


def _pieces(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def _block_rows(table: pa.Table) -> int:
    return max(1, min(BATCH_ROWS, BLOCK_BYTES * int(table.num_rows) // max(1, int(table.nbytes))))
