"""Batches of features: Arrow columns, and geometries as WKB or as shapely objects, whichever is at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import shapely

from tasks.errors import TerminalError
from tasks.geo.layouts import GeometryField, Layout
from tasks.geo.wkb import packed
from tasks.records import Reason

Shapes = np.ndarray[Any, Any]
"""Of shapely geometries; None where a feature has none."""


class Geometries:
    """A column of geometries. One node's shapes are the next node's: WKB is made only where it leaves the chain."""

    def __init__(self, *, shapes: Shapes | None = None, wkb: pa.Array | None = None) -> None:
        if (shapes is None) == (wkb is None):
            raise TypeError("give shapes or wkb")
        self._shapes: Any = shapes
        self._wkb: Any = wkb

    def __len__(self) -> int:
        return len(self._shapes) if self._shapes is not None else len(self._wkb)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.wkb,)

    @property
    def has_shapes(self) -> bool:
        """Whether shapely geometries are at hand: then they are quicker to read than WKB would be to make."""
        return self._shapes is not None

    @property
    def shapes(self) -> Shapes:
        """shapely geometries; None where there is none. Raises TerminalError on broken WKB."""
        if self._shapes is None:
            shapes, broken = self.readable()
            if broken.any():
                raise TerminalError(
                    Reason.BAD_GEOMETRY,
                    f"{int(broken.sum())} of {len(broken)} geometries are no WKB that can be read, the first in row "
                    f"{broken.argmax() + 1}; put quality.validate_geometry before this node to set them aside.",
                )
            self._shapes = shapes
        return cast(Shapes, self._shapes)

    def readable(self) -> tuple[Shapes, Shapes]:
        """The shapes, None for broken WKB; and which are broken."""
        if self._shapes is not None:
            return self._shapes, np.zeros(len(self), dtype=bool)
        values = np.asarray(self._wkb.to_numpy(zero_copy_only=False), dtype=object)
        shapes = np.atleast_1d(shapely.from_wkb(values, on_invalid="ignore"))
        return shapes, shapely.is_missing(shapes) & self._wkb.is_valid().to_numpy(zero_copy_only=False)

    @property
    def wkb(self) -> pa.Array:
        """ISO WKB without SRID, little endian, as pa.binary or pa.large_binary."""
        if self._wkb is None:
            self._wkb = packed(self._shapes)
        return self._wkb

    @property
    def nbytes(self) -> int:
        """Size as WKB, in bytes; an estimate where only shapes are at hand."""
        if self._wkb is not None:
            return int(self._wkb.nbytes)
        return int(shapely.get_num_coordinates(self._shapes).sum()) * 16 + 16 * len(self._shapes)

    def take(self, rows: Shapes) -> Geometries:
        """Those at the given positions (integers) or where true (booleans)."""
        if self._shapes is not None:
            return Geometries(shapes=self._shapes[rows])
        kept = self._wkb.filter(pa.array(rows)) if rows.dtype == bool else self._wkb.take(pa.array(rows))
        return Geometries(wkb=kept)

    def slice(self, first: int, count: int) -> Geometries:
        """So many from there on, in the same memory."""
        if self._shapes is not None:
            return Geometries(shapes=self._shapes[first : first + count])
        return Geometries(wkb=self._wkb.slice(first, count))


def _unpickled(wkb: pa.Array) -> Geometries:
    return Geometries(wkb=wkb)


@dataclass(frozen=True)
class Batch:
    """Some features. Never changed in place: nodes make new batches that share columns.

    layout      of the whole stream this is a part of
    attributes  one array for each of layout.fields, in that order
    geometry    None where layout.geometry is None
    rows        features
    """

    layout: Layout
    attributes: tuple[pa.Array, ...]
    geometry: Geometries | None
    rows: int

    @property
    def shapes(self) -> Shapes:
        """The geometries as shapely objects."""
        if self.geometry is None:
            raise TypeError("a table has no shapes")
        return self.geometry.shapes

    @property
    def nbytes(self) -> int:
        """Size of attributes and geometry in bytes, shapes as their WKB."""
        return sum(int(a.nbytes) for a in self.attributes) + (self.geometry.nbytes if self.geometry is not None else 0)

    def column(self, name: str) -> pa.Array:
        """The attribute of that name. Raises KeyError."""
        index = self.layout.fields.get_field_index(name)
        if index < 0:
            raise KeyError(name)
        return self.attributes[index]

    def reshaped(self, shapes: Shapes, layout: Layout) -> Batch:
        """The same attributes with other geometries."""
        return replace(self, layout=layout, geometry=Geometries(shapes=shapes))

    def with_attributes(self, attributes: Mapping[str, pa.Array], layout: Layout) -> Batch:
        """The same geometries with other attributes, by name; `layout` has their order."""
        return replace(self, layout=layout, attributes=tuple(attributes[name] for name in layout.names))

    def take(self, rows: Shapes) -> Batch:
        """The features at the given positions (integers, may repeat) or where true (booleans)."""
        chosen = pa.array(rows)
        pick = (lambda a: a.filter(chosen)) if rows.dtype == bool else (lambda a: a.take(chosen))
        count = int(rows.sum()) if rows.dtype == bool else len(rows)
        geometry = self.geometry.take(rows) if self.geometry is not None else None
        return Batch(self.layout, tuple(map(pick, self.attributes)), geometry, count)

    def slice(self, first: int, count: int) -> Batch:
        """The features from there on, so many, in the same memory."""
        geometry = self.geometry.slice(first, count) if self.geometry is not None else None
        return Batch(self.layout, tuple(array.slice(first, count) for array in self.attributes), geometry, count)

    def to_arrow(self) -> pa.RecordBatch:
        """One record batch, the geometry last as WKB with GeoArrow's extension name and CRS in the field's metadata."""
        fields, arrays = list(self.layout.fields), list(self.attributes)
        if self.geometry is not None:
            fields.append(arrow_geometry(self.layout))
            arrays.append(self.geometry.wkb.cast(pa.binary()))
        if not fields:  # a record batch without columns forgets how many rows it has
            return pa.RecordBatch.from_arrays([pa.nulls(self.rows)], names=[_ROWS])
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch, layout: Layout) -> Batch:
        """What `to_arrow` made."""
        arrays = tuple(batch.column(name) for name in layout.names)
        geometry = Geometries(wkb=batch.column(layout.geometry.name)) if layout.geometry else None
        return cls(layout, arrays, geometry, batch.num_rows)


_ROWS = "__rows__"


def arrow_geometry(layout: Layout) -> pa.Field:
    """The geometry column as GeoArrow WKB (geoarrow.org/extension-types)."""
    crs = {"crs": layout.crs} if layout.crs else {}
    metadata = {"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": json.dumps(crs)}
    return pa.field((layout.geometry or GeometryField()).name, pa.binary(), metadata=metadata)
