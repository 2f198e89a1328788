"""Batches as rows of binary COPY, by numpy and Arrow on whole columns: no Python object for any value.

Format: PostgreSQL documentation, COPY, "Binary Format". A row is the number of its fields, then each field's length
in bytes (-1: NULL) and value. EWKB is WKB with the SRID after the type (PostGIS documentation, ST_AsEWKB).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import TerminalError
from tasks.geo.batches import Batch
from tasks.geo.postgres_types import EPOCHS, WIRES, stored_type
from tasks.geo.wkb import HEAD_BYTES, Numbers, at_any_byte, begin_as_iso, binary_array, binary_parts
from tasks.records import Reason

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

HAS_SRID, HAS_Z, HAS_M = 0x20000000, 0x80000000, 0x40000000
_EWKB_HEAD = np.dtype([("order", "u1"), ("type", "<u4"), ("srid", "<u4")])
_END = 1 << 31
_NUMERIC_SIGNS = (0x0000, 0x4000)


def packed_rows(batch: Batch, srid: int) -> pa.Array:
    """A binary value for each row; their bytes, one after the other, are what stands between HEADER and TRAILER.

    The geometry, if there is one, is the last field. Raises TerminalError for what Postgres cannot hold.
    """
    row = _Row(batch.rows)
    row.put(np.full(batch.rows, len(batch.attributes) + (batch.geometry is not None), ">i2"))
    for name, array in zip(batch.layout.names, batch.attributes, strict=True):
        _put_column(row, _storable(array, name), name)
    if batch.geometry is not None:
        _put_geometry(row, batch.geometry.wkb, srid)
    return row.joined()


class _Row:
    """Pieces of all rows in the making: numbers gather in a head, until bytes of differing length follow."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._head: list[Numbers] = []
        self._pieces: list[pa.Array] = []

    def put(self, values: Numbers) -> None:
        """A value of the same size in every row."""
        self._head.append(values)

    def put_bytes(self, lengths: Numbers, values: pa.Array) -> None:
        """A field: its length in every row (-1: NULL) and its bytes (none for NULL)."""
        self.put(lengths.astype(">i4"))
        self.put_rest(values)

    def put_rest(self, values: pa.Array) -> None:
        """Bytes whose length has been put."""
        self._flush()
        self._pieces.append(values)

    def joined(self) -> pa.Array:
        """The rows."""
        self._flush()
        return pc.binary_join_element_wise(*self._pieces, pa.scalar(b"", pa.binary()))

    def _flush(self) -> None:
        if self._head:
            self._pieces.append(_fixed(self._head, self._rows))
            self._head = []


def _fixed(columns: list[Numbers], rows: int) -> pa.Array:
    """Columns of numbers side by side, as one binary value a row."""
    table = np.empty(rows, [(f"f{i}", column.dtype) for i, column in enumerate(columns)])
    for i, column in enumerate(columns):
        table[f"f{i}"] = column
    return binary_array(np.arange(0, table.itemsize * (rows + 1), table.itemsize), table)


def _storable(array: pa.Array, name: str) -> pa.Array:
    stored = stored_type(array.type, name)
    try:
        return array if array.type == stored else array.cast(stored)
    except pa.ArrowInvalid as exc:  # nanoseconds that are no whole microseconds, text that is not UTF-8
        raise _unfit(name, str(exc).splitlines()[0]) from exc


def _unfit(column: str, why: str, row: int | None = None) -> TerminalError:
    where = f"column {column!r}" + (f" of row {row + 1} of the batch" if row is not None else "")
    return TerminalError(Reason.BAD_ROW, f"{where} cannot be written to Postgres: {why}.")


def _put_column(row: _Row, array: pa.Array, name: str) -> None:
    if pa.types.is_decimal(array.type):
        _put_values(row, array, _numerics(array))
    elif array.type in WIRES:
        _put_values(row, array, _numbers(array, name))
    else:
        _put_text(row, array, name)


def _put_values(row: _Row, array: pa.Array, values: Numbers) -> None:
    if not array.null_count:
        row.put(np.full(len(array), values.dtype.itemsize, ">i4"))
        row.put(values)
        return
    there = array.is_valid().to_numpy(zero_copy_only=False)
    size = values.dtype.itemsize
    offsets = np.concatenate([[0], np.cumsum(np.where(there, size, 0))])
    row.put_bytes(np.where(there, size, -1), binary_array(offsets, np.ascontiguousarray(values[there])))


def _numbers(array: pa.Array, name: str) -> Numbers:
    kind = array.type
    raw = array.fill_null(False).to_numpy(zero_copy_only=False) if pa.types.is_boolean(kind) else _raw(array)
    if kind in EPOCHS:
        limit = np.iinfo(raw.dtype).min + EPOCHS[kind]  # there "-infinity" is, and below it nothing
        wrong = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False) & (raw <= limit))
        if len(wrong):
            raise _unfit(name, "Postgres knows no date so long ago", int(wrong[0]))
        raw = raw - EPOCHS[kind]
    return raw.astype(WIRES[kind])


def _raw(array: pa.Array) -> Numbers:
    """The values as numbers of their own size; whatever there is for null."""
    dtype = np.dtype(WIRES[array.type]).newbyteorder("<")
    data = array.buffers()[1]
    return np.frombuffer(data, dtype)[array.offset : array.offset + len(array)] if data else np.empty(0, dtype)


def _put_text(row: _Row, array: pa.Array, name: str) -> None:
    text = pa.types.is_string(array.type) or array.type == pa.json_()
    array = array.storage if isinstance(array.type, pa.ExtensionType) else array
    if text:
        _refuse_nul(array, name)
    array = array.cast(pa.binary())
    offsets, _ = binary_parts(array)
    lengths = np.diff(offsets)
    if array.null_count:
        lengths[array.is_null().to_numpy(zero_copy_only=False)] = -1
        array = array.fill_null(b"")
    row.put_bytes(lengths, array)


def _refuse_nul(array: pa.Array, name: str) -> None:
    offsets, data = binary_parts(array)
    if (data[offsets[0] : offsets[-1]] == 0).any():
        found = pc.match_substring(array, "\0").fill_null(False)
        if pc.any(found).as_py():
            why = "the text has a NUL character; remove it with attributes.compute"
            raise _unfit(name, why, pc.index(found, True).as_py())


# --- numeric: digits of base 10,000 ---


def _numerics(array: pa.Array) -> Numbers:
    """All with the same number of digits, as Postgres drops zeros at either end (numeric_recv)."""
    scale, precision = array.type.scale, array.type.precision
    after, before = -(-scale // 4), -(-(precision - scale) // 4)
    negative, limbs = _absolute(array)
    _multiply(limbs, 10 ** (4 * after - scale))
    head = [("digits", ">i2"), ("weight", ">i2"), ("sign", ">u2"), ("scale", ">i2")]
    values = np.zeros(len(array), [*head, *((f"d{i}", ">i2") for i in range(after + before))])
    values["digits"], values["weight"], values["scale"] = after + before, before - 1, scale
    values["sign"] = np.where(negative, _NUMERIC_SIGNS[1], _NUMERIC_SIGNS[0])
    for i in reversed(range(after + before)):
        values[f"d{i}"] = _divide(limbs, 10_000)
    return values


def _absolute(array: pa.Array) -> tuple[Numbers, list[Numbers]]:
    """Whether each is below zero, and its size as five numbers of 32 bits, the highest first."""
    data = array.buffers()[1]
    words = np.frombuffer(data, "<u8").reshape(-1, 2)[array.offset : array.offset + len(array)]
    low, high = words[:, 0].copy(), words[:, 1].copy()
    negative = high >> np.uint64(63) == 1
    low[negative] = ~low[negative] + np.uint64(1)
    high[negative] = ~high[negative] + (low[negative] == 0)
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    return negative, [np.zeros(len(array), np.uint64), high >> half, high & mask, low >> half, low & mask]


def _multiply(limbs: list[Numbers], factor: int) -> None:
    carry: Any = np.uint64(0)
    for i in reversed(range(len(limbs))):
        product = limbs[i] * np.uint64(factor) + carry
        limbs[i], carry = product & np.uint64(0xFFFFFFFF), product >> np.uint64(32)


def _divide(limbs: list[Numbers], divisor: int) -> Numbers:
    """Divides in place; returns the remainders."""
    rest: Any = np.uint64(0)
    for i in range(len(limbs)):
        limbs[i], rest = np.divmod((rest << np.uint64(32)) | limbs[i], np.uint64(divisor))
    return np.asarray(rest)


# --- geometry ---


def _put_geometry(row: _Row, wkb: pa.Array, srid: int) -> None:
    wkb = wkb.cast(pa.binary())
    offsets, data = binary_parts(wkb)
    there = wkb.is_valid().to_numpy(zero_copy_only=False)
    broken = np.flatnonzero(there & ~begin_as_iso(offsets, data))
    if len(broken):  # into bytea it would go unseen
        raise TerminalError(
            Reason.BAD_GEOMETRY,
            f"the geometry of row {broken[0] + 1} of the batch is no WKB that can be read; put "
            "quality.validate_geometry before this node to set it aside.",
        )
    rest = pc.binary_slice(wkb, HEAD_BYTES, _END)
    if not wkb.null_count:
        row.put((np.diff(offsets) + _EWKB_HEAD.itemsize - HEAD_BYTES).astype(">i4"))
        row.put(_ewkb_heads(data, offsets[:-1], srid))
        row.put_rest(rest)
        return
    heads = np.zeros(len(wkb), _EWKB_HEAD)
    heads[there] = _ewkb_heads(data, offsets[:-1][there], srid)
    whole = pc.binary_join_element_wise(_fixed([heads], len(wkb)), rest, pa.scalar(b"", pa.binary())).fill_null(b"")
    row.put_bytes(np.where(there, np.diff(binary_parts(whole)[0]), -1), whole)


def _ewkb_heads(data: Numbers, starts: Numbers, srid: int) -> Numbers:
    codes = at_any_byte(data, "<u4")[starts + 1]
    level = codes // 1000
    flags = np.where((level == 1) | (level == 3), HAS_Z, 0) | np.where(level >= 2, HAS_M, 0) | HAS_SRID
    heads = np.empty(len(starts), _EWKB_HEAD)
    heads["order"], heads["type"], heads["srid"] = 1, (codes % 1000) | flags, srid
    return heads
