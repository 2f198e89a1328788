"""geoprocessing.union: two inputs cut by each other, with nothing left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import shapely

from tasks.errors import refuse_when_stopped
from tasks.geo.batches import Batch, Shapes
from tasks.geo.blocking_gathering import Held, shapes_bytes
from tasks.geo.geometry_kinds import dimension_of, geometry_of
from tasks.geo.geometry_union import told
from tasks.geo.layouts import UNKNOWN, Layout
from tasks.geo.nodes import BATCH_ROWS, Blocking, NodeProblem, Work, node
from tasks.geo.overlay_columns import WithColumns, only_overlay, side_by_side
from tasks.geo.overlay_lookup import Overlay, check_valid, gathered, same_dimension, unions


@node("geoprocessing.union")
class Union(WithColumns, Blocking):
    """What the features of two inputs have in common, with the columns of both; then what is left of either.

    The columns of the side that has no part in a feature are null. Features without geometry are left out. The overlay
    is held in memory, and what is left of it is given at the end; the input streams.
    """

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The columns of both, any of them null."""
        ours, theirs = (geometry_of(given[port]).kind for port in self.inputs)
        if None not in (dims := {dimension_of(ours), dimension_of(theirs)}) and len(dims) > 1:
            raise NodeProblem(
                f"the input has {ours}s and the overlay {theirs}s; both must be of one dimension.", "overlay"
            )
        joined = self.joined(given)
        return {"output": joined.with_fields([f.with_nullable(True) for f in joined.fields]).shaped(UNKNOWN)}

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        """Each batch with what it has in common; at the end the overlay without all that came."""
        layout = self.layouts(given)["output"]
        with Held(work) as held:
            overlay = gathered(inputs["overlay"], self.side(given["overlay"]), held, work)
            held.become(held.size_bytes + shapes_bytes(overlay.shapes))
            left_over = overlay.shapes.copy()
            for batch in inputs["input"]:
                refuse_when_stopped(work.stop)
                check_valid(batch.shapes)
                rows, others = overlay.pairs(batch.shapes)
                yield _of_batch(batch, overlay, rows, others, layout, work)
                order = np.argsort(others, kind="stable")
                left_over = _without(left_over, others[order], batch.shapes, rows[order], work)
            remaining = np.flatnonzero(~shapely.is_missing(left_over))
            for start in range(0, len(remaining), BATCH_ROWS):
                chosen = remaining[start : start + BATCH_ROWS]
                yield only_overlay(overlay, chosen, left_over[chosen], layout)


def _of_batch(batch: Batch, overlay: Overlay, rows: Shapes, others: Shapes, layout: Layout, work: Work) -> Batch:
    """What the batch has in common with the overlay, and what it has alone."""
    with told(batch.shapes):
        common = same_dimension(shapely.intersection(batch.shapes[rows], overlay.shapes[others]), batch.shapes[rows])
    alone = _without(batch.shapes, rows, overlay.shapes, others, work)
    some, single = ~shapely.is_missing(common), np.flatnonzero(~(shapely.is_missing(alone) | shapely.is_empty(alone)))
    ours = np.concatenate([rows[some], single])
    theirs = np.concatenate([others[some], np.full(len(single), -1)])
    made = side_by_side(batch, ours, overlay, theirs, layout)
    return made.reshaped(np.concatenate([common[some], alone[single]]), layout)


def _without(shapes: Shapes, rows: Shapes, others: Shapes, members: Shapes, work: Work) -> Shapes:
    """The shapes without those of the others that each meets (`rows` sorted); None where nothing is left."""
    cut, masks = unions(others, rows, members, work.stop)
    left = shapes.copy()
    with told(shapes):
        left[cut] = same_dimension(shapely.difference(shapes[cut], masks), shapes[cut])
    return left
