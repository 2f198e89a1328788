"""Rows of binary COPY as Arrow columns, by numpy on the bytes of all rows at once.

Format: see tasks.geo.postgres_packing. A field's place depends on the lengths of those before it in its row, so the
columns are read one after the other, each for all rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from tasks.errors import TerminalError
from tasks.geo.batches import Geometries
from tasks.geo.postgres_packing import HAS_M, HAS_SRID, HAS_Z
from tasks.geo.postgres_types import EPOCHS, TIME, WIRES
from tasks.geo.wkb import HEAD_BYTES, Numbers, at_any_byte, binary_array, binary_parts, packed
from tasks.records import Reason

DAY_US = 86_400_000_000
_INLINE = 12
"""Bytes that a binary view holds itself (Arrow columnar format, "Variable-size Binary View Layout")."""


def unpacked_rows(rows: Sequence[bytes], kinds: Sequence[pa.DataType], names: Sequence[str]) -> list[pa.Array]:
    """The columns of rows as COPY sent them, without header and trailer.

    Raises TerminalError for values that have no like in Arrow (infinite dates, 24:00, NaN in exact numbers).
    """
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    data = np.frombuffer(b"".join([*rows, bytes(_INLINE)]), np.uint8)
    at = np.cumsum(lengths) - lengths + 2  # behind the number of fields
    columns = []
    for kind, name in zip(kinds, names, strict=True):
        sizes = at_any_byte(data, ">i4")[at].astype(np.int64)
        at = at + 4
        columns.append(_column(data, at, sizes, kind, name))
        at = at + np.maximum(sizes, 0)
    return columns


def _column(data: Numbers, at: Numbers, sizes: Numbers, kind: pa.DataType, name: str) -> pa.Array:
    null = sizes < 0
    if kind in WIRES:
        return _numbers(data, np.where(null, 0, at), null, kind, name)
    values = _binaries(data, at, sizes, null)
    if pa.types.is_binary(kind):
        return values
    try:
        return values.cast(pa.string()).cast(kind)
    except pa.ArrowInvalid as exc:
        raise _unreadable(name, str(exc).splitlines()[0]) from exc


def _unreadable(name: str, why: str) -> TerminalError:
    return TerminalError(
        Reason.BAD_ROW,
        f"column {name!r} has values that cannot be read ({why}); filter them out, or cast them in query.",
    )


def _numbers(data: Numbers, at: Numbers, null: Numbers, kind: pa.DataType, name: str) -> pa.Array:
    wire = np.dtype(WIRES[kind])
    values = at_any_byte(data, wire)[at].astype(wire.newbyteorder("="))
    values[null] = 0
    if kind in EPOCHS:
        values = _since_1970(values, EPOCHS[kind], name)
    if kind == TIME and (values == DAY_US).any():
        raise _unreadable(name, "24:00")
    mask = null if null.any() else None
    if pa.types.is_boolean(kind):
        return pa.array(values.astype(bool), mask=mask)
    return pa.array(values, mask=mask).view(kind)


def _since_1970(values: Numbers, epoch: int, name: str) -> Numbers:
    limits = np.iinfo(values.dtype)
    if ((values == limits.min) | (values == limits.max)).any():
        raise _unreadable(name, "infinity")
    if (values > limits.max - epoch).any():
        raise _unreadable(name, "dates beyond what Arrow can hold")
    return np.asarray(values + values.dtype.type(epoch))


def _binaries(data: Numbers, at: Numbers, sizes: Numbers, null: Numbers) -> pa.Array:
    """The bytes at those places, as views first: those need no copy, and Arrow then makes the copy that lasts."""
    sizes = np.where(null, 0, sizes)
    at = np.where(null, 0, at)
    views = np.zeros(len(at), [("size", "<i4"), ("head", "u1", 4), ("buffer", "<i4"), ("place", "<i4")])
    views["size"], views["place"] = sizes, at
    head = np.ndarray((len(data) - _INLINE + 1, _INLINE), np.uint8, buffer=data, strides=(1, 1))[at]
    views["head"] = head[:, :4]
    short = sizes <= _INLINE
    inline = views.view(np.uint8).reshape(-1, 16)[:, 4:]
    inline[short] = np.where(np.arange(_INLINE) < sizes[short][:, None], head[short], 0)
    validity = pa.array(~null).buffers()[1] if null.any() else None
    buffers: list[Any] = [validity, pa.py_buffer(views), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary_view(), len(at), buffers).cast(pa.binary())


# --- geometry ---

_EWKB_HEAD, _END = 9, 1 << 31


def iso_wkb(ewkb: pa.Array, srid: int, name: str) -> pa.Array:
    """EWKB, or WKB, of a bytea column as ISO WKB without SRID. Raises TerminalError for another SRID than that."""
    offsets, data = binary_parts(ewkb.drop_null())
    starts = offsets[:-1]
    if (np.diff(offsets) < _EWKB_HEAD).any():
        return _by_geos(ewkb, srid, name)
    codes = at_any_byte(data, "<u4")[starts + 1]
    flat = (data[starts] == 1) & (codes & (HAS_Z | HAS_M) == 0)
    if not flat.all() or len(np.unique(codes & HAS_SRID)) > 1:
        return _by_geos(ewkb, srid, name)
    if not len(codes) or not codes[0] & HAS_SRID:
        return ewkb
    _check_srid(np.unique(at_any_byte(data, "<u4")[starts + HEAD_BYTES]), srid, name)
    heads = np.empty(len(ewkb), [("order", "u1"), ("type", "<u4")])
    heads["order"] = 1
    heads["type"][ewkb.is_valid().to_numpy(zero_copy_only=False)] = codes & ~np.uint32(HAS_SRID)
    head = binary_array(np.arange(0, HEAD_BYTES * (len(ewkb) + 1), HEAD_BYTES), heads)
    return pc.binary_join_element_wise(head, pc.binary_slice(ewkb, _EWKB_HEAD, _END), pa.scalar(b"", pa.binary()))


def _by_geos(ewkb: pa.Array, srid: int, name: str) -> pa.Array:
    shapes = Geometries(wkb=ewkb).shapes
    _check_srid(np.unique(shapely.get_srid(shapes[~shapely.is_missing(shapes)])), srid, name)
    return packed(shapes)


def _check_srid(found: Numbers, srid: int, name: str) -> None:
    other = found[found != srid]
    if len(other):
        raise TerminalError(
            Reason.BAD_GEOMETRY,
            f"column {name!r} has geometries of srid {other[0]} beside {srid}; choose one with filter.",
        )
