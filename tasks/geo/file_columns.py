"""Columns as files hold them, and as streams do: plain types, ISO WKB, names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from pyproj.exceptions import CRSError

from tasks.errors import TerminalError
from tasks.geo.batches import Geometries
from tasks.geo.fields import suggested
from tasks.geo.layouts import UNKNOWN, crs_name
from tasks.geo.nodes import NodeProblem
from tasks.geo.wkb import HEAD_BYTES, begin_as_iso, binary_parts
from tasks.records import Reason

_PLAIN = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
}
_WITH_PARTS = (
    pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view,
    pa.types.is_large_list_view, pa.types.is_struct, pa.types.is_map, pa.types.is_union,
)  # fmt: skip


def plain_type(given: pa.DataType) -> pa.DataType:
    """What streams hold it as: values without dictionaries, runs, views or extensions."""
    if isinstance(given, pa.BaseExtensionType):
        return plain_type(given.storage_type)
    if pa.types.is_dictionary(given) or pa.types.is_run_end_encoded(given):
        return plain_type(given.value_type)
    return pa.binary() if pa.types.is_fixed_size_binary(given) else _PLAIN.get(given, given)


def has_parts(given: pa.DataType) -> bool:
    """Whether one value consists of several: lists, maps."""
    return any(is_one(given) for is_one in _WITH_PARTS)


def plain_fields(given: Iterable[pa.Field], shown: str) -> list[pa.Field]:
    """Attributes of a stream. Raises NodeProblem for columns of lists and maps, which streams do not have."""
    fields = [pa.field(field.name, plain_type(field.type)) for field in given]
    for field in fields:
        if has_parts(field.type):
            raise NodeProblem(
                f"column {field.name!r} of {shown} holds lists or maps ({field.type}), which no node can work on; "
                "name the columns to read in `columns`, without it.", "columns")  # fmt: skip
    return fields


def plain_array(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The values as that type. Raises TerminalError for what has no room in it."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if array.type == wanted:
        return array
    try:
        # narrower units of time lose their digits on purpose; for numbers that would be an error
        return pc.cast(array, wanted, safe=not pa.types.is_temporal(wanted))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise TerminalError(Reason.BAD_TEXT, f"A column of {array.type} cannot be read as {wanted} ({exc}).") from exc


def chosen(names: Collection[str], wanted: Collection[str] | None, shown: str) -> list[str]:
    """The attributes to read, in the order of the file. Raises NodeProblem for one that is not there."""
    missing = [name for name in wanted or () if name not in names]
    if missing:
        raise NodeProblem(f"{shown} has no column {missing[0]!r}; {suggested(missing[0], names)}.", "columns")
    return [name for name in names if wanted is None or name in wanted]


def geometry_name(wanted: str, taken: Collection[str]) -> str:
    """A name for the geometry that no attribute has."""
    while wanted in taken:
        wanted += "_"
    return wanted


def flat_kind(given: str | None) -> str:
    """A geometry type as layouts name it, without the word for its dimension; UNKNOWN for none."""
    words = (given or UNKNOWN).removesuffix("M").split() if given == "PointM" else (given or UNKNOWN).split()
    plain = [word for word in words if word not in ("Z", "M", "ZM", "2.5D", "3D", "Measured")]
    return plain[0] if plain else UNKNOWN


def file_crs(named: object) -> str | None:
    """A CRS that a file names, as layouts write it. Longitude first is what every stream has: CRS84 is EPSG:4326.

    Raises ValueError for one that PROJ does not know.
    """
    try:
        name = crs_name(named)
    except CRSError as exc:
        raise ValueError(f"its coordinate reference system is not known: {exc}") from exc
    if name and "Undefined " in name and "EPSG" not in name.partition("[")[0]:  # GeoPackage: srs_id 0 and -1
        return None
    return "EPSG:4326" if name == "OGC:CRS84" else name


def iso_wkb(given: pa.Array) -> Geometries:
    """WKB from a file. ISO and little endian, as nearly all are, it is taken as it is; other kinds are rewritten.

    Broken WKB stays as it is, so that quality.validate_geometry can set it aside.
    """
    wkb = plain_array(given, pa.binary())
    offsets, data = binary_parts(wkb)
    if (begin_as_iso(offsets, data) | (np.diff(offsets) < HEAD_BYTES)).all():
        return Geometries(wkb=wkb)
    values: Any = np.asarray(wkb.to_numpy(zero_copy_only=False), dtype=object)
    rewritten = shapely.to_wkb(shapely.from_wkb(values, on_invalid="ignore"), flavor="iso", byte_order=1)
    broken = np.array([new is None for new in rewritten], dtype=bool)
    return Geometries(wkb=pa.array(np.where(broken, values, rewritten), pa.binary()))
