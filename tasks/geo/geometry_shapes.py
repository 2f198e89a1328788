"""Nodes that change a geometry by itself: simplify, convex_hull, centroid, make_valid, explode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Event
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from pydantic import Field, ModelWrapValidatorHandler, model_validator

from tasks.geo.batches import Batch, Shapes
from tasks.geo.blocking_gathering import Gathering
from tasks.geo.fields import column
from tasks.geo.geometry_kinds import dimension_of, geometry_of, single
from tasks.geo.geometry_union import plain_parts, told
from tasks.geo.layouts import UNKNOWN, Layout
from tasks.geo.nodes import Blocking, NodeProblem, Stream, Work, node


@node("geoprocessing.simplify")
class Simplify(Stream):
    """Fewer vertices: none of those left out is further than the tolerance from the line that is left.

    Douglas-Peucker on each feature by itself: borders that neighbours share may part.
    """

    tolerance: float = Field(
        ge=0, allow_inf_nan=False, description="in units of the coordinates (degrees for EPSG:4326)"
    )
    preserve_topology: bool = Field(default=True, description="keep areas valid, and rings and parts from vanishing")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same; areas that may fall apart are of unknown type."""
        kind = geometry_of(given["input"]).kind
        kept = self.preserve_topology or dimension_of(kind) != 2
        return {"output": given["input"].shaped(kind if kept else UNKNOWN)}

    def apply(self, batch: Batch) -> Batch:
        """Raises TerminalError for geometries GEOS cannot work with."""
        with told(batch.shapes):
            made = shapely.simplify(batch.shapes, self.tolerance, preserve_topology=self.preserve_topology)
        return batch.reshaped(made, self.layouts({"input": batch.layout})["output"])


@node("geoprocessing.centroid")
class Centroid(Stream):
    """The centre of gravity of each feature; it may lie outside an area. Empty geometries have an empty point."""

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same attributes, with points."""
        geometry_of(given["input"])
        return {"output": given["input"].shaped("Point")}

    def apply(self, batch: Batch) -> Batch:
        """Points, without Z."""
        return batch.reshaped(shapely.centroid(batch.shapes), batch.layout.shaped("Point"))


@node("geoprocessing.make_valid")
class MakeValid(Stream):
    """Repairs invalid geometries and leaves valid ones untouched, bit by bit."""

    method: Literal["linework", "structure"] = Field(
        default="linework",
        description="linework: every vertex and crossing is kept (as PostGIS and geopandas do); "
        "structure: rings first, so overlapping parts are united",
    )
    keep_collapsed: bool = Field(default=True, description="of structure: parts without area become lines or points")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Of unknown type: a bow tie becomes two triangles."""
        kind = geometry_of(given["input"]).kind
        return {"output": given["input"].shaped(kind if dimension_of(kind) == 0 else UNKNOWN)}

    def apply(self, batch: Batch) -> Batch:
        """Raises TerminalError for coordinates that are no numbers."""
        shapes = batch.shapes
        broken = ~(shapely.is_valid(shapes) | shapely.is_missing(shapes))
        if broken.any():
            shapes = shapes.copy()
            shapes[broken] = self._repaired(shapes[broken])
        return batch.reshaped(shapes, self.layouts({"input": batch.layout})["output"])

    def _repaired(self, broken: Shapes) -> Any:
        keep = self.keep_collapsed or self.method == "linework"  # linework has no choice
        with told(broken):
            return shapely.make_valid(broken, method=self.method, keep_collapsed=keep)


@node("geoprocessing.convex_hull")
class ConvexHull(Stream):
    """The smallest convex area around each feature, or around all of them; of a point, the point."""

    per_feature: bool = Field(default=True, description="false: one hull of all features, without attributes")

    @model_validator(mode="wrap")
    @classmethod
    def _kind_of_node(cls, values: Any, made: ModelWrapValidatorHandler[Self]) -> Self:
        hull = made(values)
        return hull if hull.per_feature else cast(Self, CommonHull())

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Of unknown type: the hull of a straight line is a line."""
        geometry_of(given["input"])
        return {"output": given["input"].shaped(UNKNOWN)}

    def apply(self, batch: Batch) -> Batch:
        """The hulls."""
        return batch.reshaped(shapely.convex_hull(batch.shapes), batch.layout.shaped(UNKNOWN))


class CommonHull(Blocking):
    """What geoprocessing.convex_hull without `per_feature` is."""

    type: ClassVar[str] = ConvexHull.type

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """One area, without attributes."""
        geometry_of(given["input"])
        return {"output": given["input"].with_fields([]).shaped(UNKNOWN)}

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        """The hull of the hulls of the batches: nothing much is held."""
        with Gathering(work, _hull) as gathering:
            for batch in inputs["input"]:
                gathering.add(np.array([_hull(batch.shapes, work.stop)]))
            yield from gathering.batch(self.layouts(given)["output"])


def _hull(shapes: Shapes, stop: Event) -> Any:  # noqa: ARG001 - a Reduce
    """None where there is no coordinate at all."""
    points = shapely.multipoints(shapely.get_coordinates(shapes))
    return None if points.is_empty else shapely.convex_hull(points)


@node("geoprocessing.explode")
class Explode(Stream):
    """A feature for each part of a multi-geometry or collection, or for each value of a list.

    Features without geometry, or without values, stay as they are: none is lost.
    """

    column: str | None = Field(default=None, description="a column of lists; none: the geometries")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Parts instead of multi-geometries, or values instead of lists."""
        layout = given["input"]
        if self.column is None:
            return {"output": layout.shaped(single(geometry_of(layout).kind))}
        field = column(layout, self.column, "column")
        if not _is_list(field.type):
            raise NodeProblem(f"{self.column!r} holds {field.type}, not lists; name a column of lists.", "column")
        fields = [
            f.with_type(f.type.value_type).with_nullable(True) if f.name == field.name else f for f in layout.fields
        ]
        return {"output": layout.with_fields(fields)}

    def apply(self, batch: Batch) -> Batch:
        """As many features as there are parts."""
        layout = self.layouts({"input": batch.layout})["output"]
        if self.column is None:
            parts, rows = exploded(batch.shapes, layout)
            return batch.take(rows).reshaped(parts, layout)
        values, rows = _values(batch.column(self.column))
        repeated = batch.take(rows)
        attributes = dict(zip(layout.names, repeated.attributes, strict=True)) | {self.column: values}
        return repeated.with_attributes(attributes, layout)


def exploded(shapes: Shapes, layout: Layout) -> tuple[Shapes, Shapes]:
    """Their parts, of collections within collections too, and the row each came from."""
    rows = np.arange(len(shapes))
    whole = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    parts, came_from = plain_parts(shapes[~whole])
    kept = shapes[whole].copy()
    kept[~shapely.is_missing(kept)] = _EMPTY.get(geometry_of(layout).kind, shapely.GeometryCollection())
    came_from = np.concatenate([rows[~whole][came_from], rows[whole]])
    order = np.argsort(came_from, kind="stable")
    return np.concatenate([parts, kept])[order], came_from[order]


_EMPTY = {"Point": shapely.Point(), "LineString": shapely.LineString(), "Polygon": shapely.Polygon()}


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _values(lists: pa.Array) -> tuple[pa.Array, Shapes]:
    """The values of lists in order, null for a list without any, and the row each came from."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(lists)), np.maximum(lengths, 1))
    positions = np.full(len(rows), -1)
    positions[np.repeat(lengths > 0, np.maximum(lengths, 1))] = np.arange(lengths.sum())
    return pc.list_flatten(lists).take(pa.array(positions, mask=positions < 0)), rows
