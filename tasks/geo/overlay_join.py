"""overlay.spatial_join: columns of the features that each feature meets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import shapely
from pydantic import Field

from tasks.geo.batches import Batch
from tasks.geo.blocking_gathering import Held
from tasks.geo.geometry_kinds import geometry_of
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Lookup, Work, node
from tasks.geo.overlay_columns import WithColumns, side_by_side
from tasks.geo.overlay_lookup import Overlay, Predicate, gathered

_OF_OVERLAY: dict[str, Predicate] = {
    "intersects": shapely.intersects,
    "within": shapely.contains,
    "contains": shapely.within,
    "covers": shapely.covered_by,
    "covered_by": shapely.covers,
    "touches": shapely.touches,
    "crosses": shapely.crosses,
    "overlaps": shapely.overlaps,
}
"""The predicate as the overlay's feature sees it: that side is the prepared one."""


@node("overlay.spatial_join")
class SpatialJoin(WithColumns, Lookup):
    """The features of `input` with the columns of those of `overlay` that they meet, once for each of them.

    The geometry is the input's. The overlay is held in memory; the input streams.
    """

    predicate: Literal["intersects", "within", "contains", "covers", "covered_by", "touches", "crosses", "overlaps"] = (
        Field(default="intersects", description="what the input's feature does with the overlay's")
    )
    how: Literal["inner", "left"] = Field(default="inner", description="left: keep features that meet none, with nulls")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The input with the overlay's columns."""
        geometry_of(given["input"])
        return {"output": self.joined(given)}

    def build(self, overlay: Iterator[Batch], layout: Layout, work: Work) -> Overlay:
        """A tree of the overlay's features."""
        return gathered(overlay, self.side(layout), Held(work), work)

    def apply(self, batch: Batch, built: Any) -> Batch:
        """Raises TerminalError for geometries GEOS cannot compare."""
        rows, others = built.pairs(batch.shapes, _OF_OVERLAY[self.predicate])
        if self.how == "left":
            alone = np.setdiff1d(np.arange(batch.rows), rows)
            rows, others = np.concatenate([rows, alone]), np.concatenate([others, np.full(len(alone), -1)])
            order = np.argsort(rows, kind="stable")
            rows, others = rows[order], others[order]
        return side_by_side(batch, rows, built, others, self.joined({"input": batch.layout, "overlay": built.layout}))
