"""geoprocessing.buffer: the area within a distance of each feature, or of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self, cast

import shapely
from pydantic import Field, ModelWrapValidatorHandler, model_validator

from tasks.geo.batches import Batch, Shapes
from tasks.geo.blocking_gathering import Gathering
from tasks.geo.geometry_kinds import geometry_of, is_single, unit_m
from tasks.geo.geometry_union import told
from tasks.geo.layouts import UNKNOWN, Layout
from tasks.geo.nodes import Blocking, Stream, Work, node

Units = Literal["meters", "kilometers", "feet", "miles", "crs"]

_METRES = {"meters": 1.0, "kilometers": 1000.0, "feet": 0.3048, "miles": 1609.344}


@node("geoprocessing.buffer")
class Buffer(Stream):
    """The area within a distance of each feature; a negative distance shrinks areas.

    Distances are those of the plane of the input's CRS: lengths on a geographic CRS are refused, and in EPSG:3857 they
    grow with the latitude. A feature without geometry stays without; an area shrunk away becomes empty.
    """

    distance: float = Field(allow_inf_nan=False, description="how far, in `units`; negative: inwards")
    units: Units = Field(default="meters", description="of the distance; crs: the units of the coordinates")
    segments: int = Field(default=8, ge=1, le=1000, description="straight pieces of a quarter circle")
    dissolve: bool = Field(default=False, description="one area of all features together, without attributes")

    @model_validator(mode="wrap")
    @classmethod
    def _kind_of_node(cls, values: Any, made: ModelWrapValidatorHandler[Self]) -> Self:
        buffer = made(values)
        if not buffer.dissolve:
            return buffer
        return cast(Self, DissolvedBuffer(each=buffer.model_copy(update={"dissolve": False})))

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same attributes, with areas."""
        layout = given["input"]
        before = geometry_of(layout).kind
        self._distance(layout)
        one = is_single(before) and (self.distance > 0 or before != "Polygon")  # 0 parts a ring that touches itself
        return {"output": layout.shaped("Polygon" if one else UNKNOWN)}

    def apply(self, batch: Batch) -> Batch:
        """Raises TerminalError for geometries GEOS cannot work with."""
        return batch.reshaped(self.shapes(batch), self.layouts({"input": batch.layout})["output"])

    def shapes(self, batch: Batch) -> Shapes:
        """The areas around a batch's features."""
        with told(batch.shapes):
            made: Shapes = shapely.buffer(batch.shapes, self._distance(batch.layout), quad_segs=self.segments)
        return made

    def _distance(self, layout: Layout) -> float:
        """In units of the coordinates."""
        if self.units == "crs":
            return self.distance
        return self.distance * _METRES[self.units] / unit_m(layout, "units", "take the units of the coordinates (crs)")


class DissolvedBuffer(Blocking):
    """What geoprocessing.buffer with `dissolve` is."""

    type: ClassVar[str] = Buffer.type
    each: Buffer

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """One area, without attributes."""
        self.each.layouts(given)
        return {"output": given["input"].with_fields([]).shaped(UNKNOWN)}

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        """The union of all, held as far as the budget allows and united when it does not."""
        with Gathering(work) as gathering:
            for batch in inputs["input"]:
                gathering.add(self.each.shapes(batch))
            yield from gathering.batch(self.layouts(given)["output"])
