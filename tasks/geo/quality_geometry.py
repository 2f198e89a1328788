"""quality.validate_geometry: the invalid geometries apart from the valid ones, with reason and place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import shapely
from pydantic import Field

from tasks.geo.batches import Batch, Shapes
from tasks.geo.geometry_kinds import geometry_of
from tasks.geo.layouts import Layout
from tasks.geo.nodes import NodeProblem, Split, node

_EXPLAINED = {"invalid_reason": pa.string(), "invalid_x": pa.float64(), "invalid_y": pa.float64()}

_WITH_PLACE = re.compile(r"^(?P<reason>[^\[]+)\[(?P<x>\S+) (?P<y>[^\s\]]+).*\]$")
"""GEOS: `Self-intersection[1603012.5 6463811]`."""


@node("quality.validate_geometry")
class ValidateGeometry(Split):
    """Valid geometries go out of `output`, the others out of `invalid` with reason and place.

    `invalid` has three more columns: invalid_reason (GEOS' words, such as Self-intersection; or null, empty,
    unreadable), invalid_x and invalid_y (where it is, in the CRS of the input).
    """

    outputs: ClassVar[tuple[str, ...]] = ("output", "invalid")

    allow_empty: bool = Field(default=False, description="let features without geometry pass, null or empty")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same; for `invalid` with the columns that explain."""
        layout = given["input"]
        geometry_of(layout)
        if taken := [name for name in _EXPLAINED if name in layout.names]:
            raise NodeProblem(f"the input has a column {taken[0]!r}, which this node would add; rename it before.")
        fields = [*layout.fields, *(pa.field(name, kind) for name, kind in _EXPLAINED.items())]
        return {"output": layout, "invalid": layout.with_fields(fields)}

    def apply(self, batch: Batch) -> Mapping[str, Batch]:
        """Never fails: a geometry that cannot even be read is `unreadable`."""
        reasons = self._reasons(batch)
        bad = np.array([reason is not None for reason in reasons], dtype=bool)
        apart = batch.take(bad)
        explained = zip(*map(_explained, reasons[bad]), strict=True) if bad.any() else ((), (), ())
        columns = [pa.array(list(v), k) for v, k in zip(explained, _EXPLAINED.values(), strict=True)]
        layout = self.layouts({"input": batch.layout})["invalid"]
        return {
            "output": batch.take(~bad),
            "invalid": Batch(layout, (*apart.attributes, *columns), apart.geometry, apart.rows),
        }

    def _reasons(self, batch: Batch) -> Shapes:
        """Why each is not valid; None where it is."""
        shapes, unreadable = _readable(batch)
        reasons = np.full(batch.rows, None, dtype=object)
        if not self.allow_empty:
            reasons[shapely.is_empty(shapes)] = "empty"
            reasons[shapely.is_missing(shapes)] = "null"
        broken = ~(shapely.is_valid(shapes) | shapely.is_missing(shapes))
        reasons[broken] = shapely.is_valid_reason(shapes[broken])
        reasons[unreadable] = "unreadable"
        return reasons


def _readable(batch: Batch) -> tuple[Shapes, Shapes]:
    """The shapes, None for broken WKB, and which are broken."""
    if batch.geometry is None or not batch.rows:
        return np.empty(0, dtype=object), np.zeros(0, dtype=bool)
    return batch.geometry.readable()


def _explained(reason: str) -> tuple[str, float | None, float | None]:
    found = _WITH_PLACE.match(reason)
    return (found["reason"], *_place(found)) if found else (reason, None, None)


def _place(found: re.Match[str]) -> tuple[Any, Any]:
    """None where the trouble is that the coordinate is no number."""
    x, y = float(found["x"]), float(found["y"])
    return (x, y) if np.isfinite([x, y]).all() else (None, None)
