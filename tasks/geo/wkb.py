"""Well-known binary by the batch: numpy on the bytes of all rows at once, without a Python object for each.

Formats: OGC 06-103r4 section 8 (ISO WKB: type + 1000 for Z, 2000 for M, 3000 for both). WKB lists its parts in
order, each after its header, so a reader needs no stack: only how many geometries and rings of a row are still to come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import shapely

from tasks.errors import TerminalError
from tasks.records import Reason

Numbers = np.ndarray[Any, Any]

Move = Callable[[Numbers], Numbers]
"""Gives each point its new place. Points are complex numbers, x + yj: numpy copies those as one."""

HEAD_BYTES = 5
"""Byte order and type."""

_ISO_TYPES = 4000
"""Types are below; EWKB sets bits far above."""

ROWS_AT_ONCE = 2048
"""Rows whose points are in the processor's cache while they are worked on; twice as fast as a whole batch."""

POINT, LINE, POLYGON = 1, 2, 3
_HEADS = {  # the bytes before the points of a geometry with one run of them, as WKB has them
    POINT: np.dtype([("order", "u1"), ("type", "<u4")]),
    LINE: np.dtype([("order", "u1"), ("type", "<u4"), ("points", "<u4")]),
    POLYGON: np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4")]),
}


def at_any_byte(buffer: Numbers, kind: str | np.dtype[Any]) -> Numbers:
    """A view of bytes with one element of `kind` for each byte that one may begin at."""
    dtype = np.dtype(kind)
    size = len(buffer) - dtype.itemsize + 1
    return np.ndarray((size,), dtype, buffer=buffer, strides=(1,)) if size > 0 else np.empty(0, dtype)


def binary_parts(array: pa.Array) -> tuple[Numbers, Numbers]:
    """Offsets (rows + 1, int64) and bytes (uint8) of a binary or string array, large or not."""
    kind = "<i8" if pa.types.is_large_binary(array.type) or pa.types.is_large_string(array.type) else "<i4"
    if not len(array):
        return np.zeros(1, np.int64), np.empty(0, np.uint8)
    _, offsets, data = array.buffers()
    first = np.frombuffer(offsets, kind)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    return first, np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)


def binary_array(offsets: Numbers, data: Any, null: Numbers | None = None) -> pa.Array:
    """The array of those bytes; `null`: which rows have none."""
    large = int(offsets[-1]) > np.iinfo(np.int32).max
    kind, dtype = (pa.large_binary(), np.int64) if large else (pa.binary(), np.int32)
    validity = pa.array(~null).buffers()[1] if null is not None and null.any() else None
    rows = len(offsets) - 1
    return pa.Array.from_buffers(kind, rows, [validity, pa.py_buffer(offsets.astype(dtype)), pa.py_buffer(data)])


def begin_as_iso(offsets: Numbers, data: Numbers) -> Numbers:
    """Which rows have the head of little-endian ISO WKB; what follows it may still be broken."""
    long = np.flatnonzero(np.diff(offsets) >= HEAD_BYTES)
    starts = offsets[:-1][long]
    found = np.zeros(len(offsets) - 1, bool)
    found[long] = (data[starts] == 1) & (at_any_byte(data, "<u4")[starts + 1] < _ISO_TYPES)
    return found


# --- shapes to WKB ---


def packed(shapes: Numbers, move: Move | None = None) -> pa.Array:
    """ISO WKB of shapely geometries, little endian, without SRID; with `move`, of geometries moved so."""
    blocks = [_packed(shapes[at : at + ROWS_AT_ONCE], move) for at in range(0, len(shapes), ROWS_AT_ONCE)]
    return pa.concat_arrays(blocks) if blocks else pa.array([], pa.binary())


def _packed(shapes: Numbers, move: Move | None) -> pa.Array:
    kinds = _kinds_of_one_run(shapes)
    plain = kinds > 0
    if plain.all():
        return _of_one_run(shapes, kinds, move)
    others = _by_geos(shapes[~plain])
    if move:
        others = moved(others, move)
    if not plain.any():
        return others
    order = np.empty(len(shapes), np.int64)
    order[np.concatenate([np.flatnonzero(plain), np.flatnonzero(~plain)])] = np.arange(len(shapes))
    return pa.concat_arrays([_of_one_run(shapes[plain], kinds[plain], move), others]).take(pa.array(order))


def _kinds_of_one_run(shapes: Numbers) -> Numbers:
    """WKB's type where a geometry is flat and one run of points (POINT, LINE, or POLYGON without holes), else 0."""
    ids = shapely.get_type_id(shapes)
    kinds = np.select([ids == 0, ids == 1, ids == 3], [POINT, LINE, POLYGON], 0)
    flat = ~(shapely.has_z(shapes) | shapely.has_m(shapes) | shapely.is_empty(shapes))
    return np.where(flat & (shapely.get_num_interior_rings(shapes) == 0), kinds, 0)


def _by_geos(shapes: Numbers) -> pa.Array:
    rows = shapely.to_wkb(shapes, flavor="iso", byte_order=1)
    null: Numbers = shapely.is_missing(shapes)
    rows[null] = b""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return binary_array(_offsets(lengths), b"".join(rows), null)


def _of_one_run(shapes: Numbers, kinds: Numbers, move: Move | None) -> pa.Array:
    counts = shapely.get_num_coordinates(shapes).astype(np.int64)
    points = shapely.get_coordinates(shapes).view(np.complex128).ravel()
    heads = np.select([kinds == kind for kind in _HEADS], [head.itemsize for head in _HEADS.values()])
    offsets = _offsets(heads + 16 * counts)
    data = np.empty(offsets[-1], np.uint8)
    for kind, head in _HEADS.items():
        which = np.flatnonzero(kinds == kind)
        values = np.ones(len(which), head)
        values["type"] = kind
        if kind != POINT:
            values["points"] = counts[which]
        at_any_byte(data, head)[offsets[which]] = values
    at_any_byte(data, "<c16")[_places(offsets[:-1] + heads, counts)] = move(points) if move else points
    return binary_array(offsets, data)


def _offsets(lengths: Numbers) -> Numbers:
    return np.concatenate([[0], np.cumsum(lengths)])


# --- the points within WKB ---


def moved(wkb: pa.Array, move: Move) -> pa.Array:
    """The same geometries elsewhere; Z and M stay. Raises TerminalError on broken WKB."""
    blocks = [_moved(wkb[at : at + ROWS_AT_ONCE], move, at) for at in range(0, len(wkb), ROWS_AT_ONCE)]
    return pa.concat_arrays(blocks) if blocks else wkb


def _moved(wkb: pa.Array, move: Move, first_row: int) -> pa.Array:
    offsets, data = binary_parts(wkb)
    fresh = data[offsets[0] : offsets[-1]].copy()
    offsets -= offsets[0]
    null = wkb.is_null().to_numpy(zero_copy_only=False) if wkb.null_count else None
    runs = point_runs(fresh, offsets, first_row)
    places = _places(runs.starts, runs.counts, runs.strides)
    points = at_any_byte(fresh, "<c16")
    points[places] = move(points[places])
    return binary_array(offsets, fresh, null)


def has_heights(wkb: pa.Array) -> bool:
    """Whether any row has Z or M."""
    offsets, data = binary_parts(wkb)
    filled = np.diff(offsets) > _HEADS[POINT].itemsize
    return bool((at_any_byte(data, "<u4")[offsets[:-1][filled] + 1] > 1000).any())


class Runs(NamedTuple):
    """Where points are: `counts` of them from byte `starts` on, each `strides` bytes after the one before."""

    starts: Numbers
    counts: Numbers
    strides: Numbers
    rows: Numbers


def point_runs(data: Numbers, offsets: Numbers, first_row: int) -> Runs:
    """Every run of points in the WKB of many rows; rows without bytes have none. Raises TerminalError."""
    reader = _Reader(data, offsets, first_row)
    while len(reader.row):
        reader.step()
    return reader.runs()


class _Reader:
    """One cursor a row. A step takes each over one header or one ring; rows that are read to their end drop out."""

    def __init__(self, data: Numbers, offsets: Numbers, first_row: int) -> None:
        filled = np.flatnonzero(np.diff(offsets))
        self.row = filled + first_row
        self.at, self.end = offsets[:-1][filled], offsets[1:][filled]
        self.geometries = np.ones(len(self.row), np.int64)  # still to come
        self.rings = np.zeros(len(self.row), np.int64)  # of the polygon the cursor is in
        self.stride = np.zeros(len(self.row), np.int64)
        self._bytes, self._words = data, at_any_byte(data, "<u4")
        self._found: list[tuple[Numbers, ...]] = []

    def step(self) -> None:
        """Each row's next header or ring."""
        in_ring = self.rings > 0
        self._read_rings(np.flatnonzero(in_ring))
        self._read_headers(np.flatnonzero(~in_ring))
        live = (self.rings > 0) | (self.geometries > 0)
        self._refuse(np.flatnonzero(~live & (self.at != self.end)), "has bytes after its end")
        if not live.all():
            for name in ("row", "at", "end", "geometries", "rings", "stride"):
                setattr(self, name, getattr(self, name)[live])

    def runs(self) -> Runs:
        """What was found."""
        if not self._found:
            return Runs(*[np.empty(0, np.int64)] * 4)
        return Runs(*map(np.concatenate, zip(*self._found, strict=True)))

    def _read_rings(self, which: Numbers) -> None:
        if len(which):
            self._run(which, self._word(which, 0), 4)
            self.rings[which] -= 1

    def _read_headers(self, which: Numbers) -> None:
        if not len(which):
            return
        kind, dimensions = self._kinds(which)
        self.stride[which] = 8 * dimensions
        self.geometries[which] -= 1
        points, lines, polygons = which[kind == POINT], which[kind == LINE], which[kind == POLYGON]
        many = which[kind > POLYGON]
        self._run(points, np.ones(len(points), np.int64), 5)
        self._run(lines, self._word(lines, 5), 9)
        self.rings[polygons] = self._word(polygons, 5)
        self.geometries[many] += self._word(many, 5)
        for nested in (polygons, many):
            self.at[nested] += 9

    def _kinds(self, which: Numbers) -> tuple[Numbers, Numbers]:
        self._need(which, np.full(len(which), 5))
        codes = self._word(which, 1)
        kind, level = codes % 1000, codes // 1000
        unknown = (kind < POINT) | (kind > 7) | (level > 3) | (self._bytes[self.at[which]] != 1)
        self._refuse(which[unknown], "is not little-endian ISO WKB of a simple feature")
        return kind, 2 + np.where(level == 3, 2, np.minimum(level, 1))

    def _word(self, which: Numbers, after: int) -> Numbers:
        self._need(which, np.full(len(which), after + 4))
        return np.asarray(self._words[self.at[which] + after], np.int64)

    def _run(self, which: Numbers, counts: Numbers, head: int) -> None:
        sizes = head + counts * self.stride[which]
        self._need(which, sizes)
        self._found.append((self.at[which] + head, counts, self.stride[which], self.row[which]))
        self.at[which] += sizes

    def _need(self, which: Numbers, sizes: Numbers) -> None:
        self._refuse(which[self.at[which] + sizes > self.end[which]], "ends too early")

    def _refuse(self, which: Numbers, why: str) -> None:
        if len(which):
            raise TerminalError(
                Reason.BAD_GEOMETRY,
                f"the WKB of row {self.row[which[0]] + 1} of a batch {why}; repair the source, or leave the row out.",
            )


def _places(starts: Numbers, counts: Numbers, strides: Numbers | None = None) -> Numbers:
    """The byte at which each point begins."""
    before = np.cumsum(counts) - counts
    if strides is None or (strides == 16).all():
        places = np.arange(0, 16 * int(counts.sum()), 16)
        return np.asarray(places + np.repeat(starts - 16 * before, counts))
    within = np.arange(int(counts.sum())) - np.repeat(before, counts)
    return np.asarray(np.repeat(starts, counts) + np.repeat(strides, counts) * within)
