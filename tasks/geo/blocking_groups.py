"""Nodes that make one feature of each group: attributes.aggregate, geoprocessing.dissolve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import pyarrow as pa
from pydantic import Field

from tasks.errors import refuse_when_stopped
from tasks.geo.batches import Batch
from tasks.geo.blocking_gathering import Held, Reduce
from tasks.geo.blocking_sorting import Sorter, ascending, batches_of
from tasks.geo.blocking_states import ROW, Aggregated, States, starts
from tasks.geo.fields import column
from tasks.geo.geometry_kinds import geometry_of, multiple
from tasks.geo.geometry_union import collected, united
from tasks.geo.layouts import UNKNOWN, Layout
from tasks.geo.nodes import Blocking, NodeProblem, Work, node


class Grouping(Blocking):
    """What both have in common. Groups come in the order of their first features; nulls are a group of their own."""

    by: str | tuple[str, ...] = Field(default=(), description="columns; none: all features are one group")
    aggregates: tuple[Aggregated, ...] = Field(default=(), description="further columns of the result")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The columns of `by`, then the aggregates."""
        layout = given["input"]
        fields = [column(layout, name, "by").remove_metadata() for name in self._names]
        fields += [aggregate.field(layout) for aggregate in self.aggregates]
        if twice := [name for name, count in Counter(f.name for f in fields).items() if count > 1]:
            raise NodeProblem(
                f"two columns of the result are named {twice[0]!r}; give aggregates a name.", "aggregates"
            )
        return {"output": self._shaped(layout.with_fields(fields))}

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        """Sorted by group, which spills: one group is held at a time, and combined early where even that is much."""
        made = self.layouts(given)["output"]
        states = States(given["input"], self._names, self.aggregates, self._reduce, work.stop)
        with (
            Sorter(work, [ascending(key) for key in states.keys]) as grouped,
            Sorter(work, [ascending(ROW)]) as ordered,
        ):
            for whole in whole_groups(self._by_key(inputs["input"], states, grouped, work), states, work):
                ordered.add(states.together(whole))
            for table in ordered.sorted():
                yield from batches_of(states.results(table, made), made)

    def _by_key(self, batches: Iterator[Batch], states: States, grouped: Sorter, work: Work) -> Iterator[pa.Table]:
        """The states of all rows, those of a group beside one another."""
        rows = 0
        for batch in batches:
            refuse_when_stopped(work.stop)
            table = states.of_rows(batch, rows)
            rows += batch.rows
            table = table if self._reduce else states.together(table)
            if self._names:
                grouped.add(table)
            elif table.num_rows:
                yield table
        yield from grouped.sorted()

    @property
    def _names(self) -> Sequence[str]:
        return (self.by,) if isinstance(self.by, str) else self.by

    @property
    def _reduce(self) -> Reduce | None:
        """What becomes of the geometries of a group; None: they are left out."""
        raise NotImplementedError

    def _shaped(self, layout: Layout) -> Layout:
        """The result's geometry, beside its columns."""
        raise NotImplementedError


@node("attributes.aggregate")
class Aggregate(Grouping):
    """One feature for each group of features that agree in some columns, with counts, sums and the like."""

    geometry: Literal["drop", "collect", "union"] = Field(
        default="drop", description="leave geometries out, put them side by side, or unite them"
    )

    @property
    def _reduce(self) -> Reduce | None:
        return {"drop": None, "collect": collected, "union": united}[self.geometry]

    def _shaped(self, layout: Layout) -> Layout:
        if self.geometry == "drop":
            return Layout(layout.fields)
        return layout.shaped(multiple(geometry_of(layout).kind) if self.geometry == "collect" else UNKNOWN)


@node("geoprocessing.dissolve")
class Dissolve(Grouping):
    """One feature for each group of features that agree in some columns: borders within a group vanish.

    A unary union, right for overlapping areas as well as for coverages. Empty geometries add nothing; a group
    without any geometry has none.
    """

    @property
    def _reduce(self) -> Reduce | None:
        return united

    def _shaped(self, layout: Layout) -> Layout:
        geometry_of(layout)
        return layout.shaped(UNKNOWN)


def whole_groups(tables: Iterator[pa.Table], states: States, work: Work) -> Iterator[pa.Table]:
    """The same rows in tables that no group goes beyond. A group the budget has no room for is combined early."""
    with Held(work) as held:
        pending: list[pa.Table] = []
        for table in tables:
            before = pending[-1].slice(pending[-1].num_rows - 1) if pending else table.slice(0, 0)
            begins = starts(pa.concat_tables([before, table]), states.keys) - before.num_rows
            if len(begins):
                yield pa.concat_tables([*pending, table.slice(0, begins[-1])])
                pending, table = [], table.slice(begins[-1])  # noqa: PLW2901 - the rest of it
            if pending and not held.room(_bytes(table)):
                pending = [states.together(pa.concat_tables(pending))]
            pending.append(table)
            held.become(sum(map(_bytes, pending)))
        if pending:
            yield pa.concat_tables(pending)


def _bytes(table: pa.Table) -> int:
    """With the geometries it becomes."""
    return 3 * int(table.nbytes)
