"""The first of the rows that are the same, told by digests: in memory, and by sorting what has no room there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from tasks.errors import refuse_when_stopped
from tasks.geo.batches import Batch, Shapes
from tasks.geo.blocking_gathering import Held
from tasks.geo.blocking_sorting import Sorter, ascending, batches_of, table_of
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Work

_DIGEST, _ROW = "__digest__", "__row__"

SEEN_BYTES = 128
"""Of a digest in a set: 49 bytes of Python's, up to 64 of the set's."""


class Seen:
    """Digests of rows that have been; in memory, so only as many as the budget has room for."""

    def __init__(self, work: Work) -> None:
        self._held = Held(work)
        self._seen: set[bytes] = set()
        self._full = False

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *exc: object) -> None:
        self._seen.clear()
        self._held.become(0)

    def full(self, more: int) -> bool:
        """Whether there is no room for so many more; once full, always full."""
        self._full = self._full or not self._held.room(more * SEEN_BYTES)
        return self._full

    def new(self, digests: Shapes) -> Shapes:
        """Which are the first of their kind; they are remembered."""
        first = np.zeros(len(digests), dtype=bool)
        for row, digest in enumerate(digests):
            if digest not in self._seen:
                self._seen.add(digest)
                first[row] = True
        self._held.become(len(self._seen) * SEEN_BYTES)
        return first

    def unseen(self, digests: Shapes) -> Shapes:
        """Which were not among those remembered."""
        return np.array([digest not in self._seen for digest in digests], dtype=bool)


def digests(batch: Batch, names: Sequence[str], geometry: bool) -> Shapes:
    """16 bytes for each row, the same where those values are: 2**64 rows before two others are likely to share them.

    Geometries count by their vertices, wherever rings begin and whichever way they go.
    """
    columns = [_comparable(batch.column(name)) for name in names]
    if geometry:
        columns.append(shapely.to_wkb(shapely.normalize(batch.shapes)).tolist())
    values = zip(*columns, strict=True) if columns else [()] * batch.rows
    made = np.empty(batch.rows, dtype=object)
    made[:] = [blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=16).digest() for row in values]
    return made


Digests = Callable[[Batch, int], Shapes]
"""Of a batch whose first row has that number."""


def distinct(batches: Iterable[Batch], digests_of: Digests, layout: Layout, work: Work) -> Iterator[Batch]:
    """The first of the rows with the same digest, in the order they came in.

    Gives as it goes, remembering 16 bytes a row; what comes when there is no room for those is sorted and follows.
    """
    with (
        Seen(work) as seen,
        Sorter(work, [ascending(_DIGEST)]) as late,
        Sorter(work, [ascending(_ROW)]) as kept,
    ):
        rows = 0
        for batch in batches:
            refuse_when_stopped(work.stop)
            found = digests_of(batch, rows)
            if seen.full(batch.rows):
                new = seen.unseen(found)
                late.add(_numbered(table_of(batch.take(new)), found[new], rows))
            else:
                yield batch.take(seen.new(found))
            rows += batch.rows
        for table in _firsts(late.sorted()):
            kept.add(table)
        for table in kept.sorted():
            yield from batches_of(table, layout)


def _firsts(sorted_tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The first row of each digest, of tables sorted by it."""
    last = None
    for table in sorted_tables:
        values = table.column(_DIGEST).to_pylist()
        new = np.array([value != before for before, value in zip([last, *values], values, strict=False)], dtype=bool)
        last = values[-1]
        yield table.filter(pa.array(new))


def _numbered(table: pa.Table, digests: Shapes, first: int) -> pa.Table:
    numbers = pa.array(np.arange(first, first + table.num_rows))
    return table.append_column(_DIGEST, pa.array(digests, pa.binary(16))).append_column(_ROW, numbers)


def _comparable(array: pa.Array) -> list[Any]:
    """Values whose repr is the same where they are: no negative zero."""
    values: list[Any] = (pc.add(array, 0.0) if pa.types.is_floating(array.type) else array).to_pylist()
    return values
