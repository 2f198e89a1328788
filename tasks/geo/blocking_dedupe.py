"""attributes.dedupe: the first of the features that are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import Field

from tasks.geo.batches import Batch
from tasks.geo.blocking_distinct import digests, distinct
from tasks.geo.fields import column
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Blocking, NodeProblem, Work, node


@node("attributes.dedupe")
class Dedupe(Blocking):
    """The first of the features that are the same, in the order they came in.

    Geometries are the same when their vertices are, wherever their rings begin and whichever way they go round. Nulls
    are the same as nulls.
    """

    by: str | tuple[str, ...] = Field(default=(), description="the columns that say so; none: all, with the geometry")
    geometry: bool = Field(default=False, description="whether the geometry must be the same too")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same."""
        for name in self._columns(given["input"]):
            column(given["input"], name, "by")
        if self.geometry and given["input"].geometry is None:
            raise NodeProblem("the input has no geometry to compare.", "geometry")
        return {"output": given["input"]}

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        """Gives as it goes, as long as there is room to remember what has been."""
        layout = given["input"]
        names, geometry = self._columns(layout), layout.geometry is not None and (self.geometry or not self.by)
        yield from distinct(inputs["input"], lambda batch, _: digests(batch, names, geometry), layout, work)

    def _columns(self, layout: Layout) -> tuple[str, ...]:
        if not self.by and not self.geometry:
            return tuple(layout.names)
        return (self.by,) if isinstance(self.by, str) else self.by
