"""attributes.sort: features in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.geo.batches import Batch
from tasks.geo.blocking_sorting import Key, Sorter, batches_of, table_of
from tasks.geo.fields import column
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Blocking, NodeProblem, Work, node

_UNORDERED = ("list", "struct", "map", "union")


class SortKey(BaseModel):
    """A column to sort by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    order: Literal["ascending", "descending"] = "ascending"
    nulls: Literal["first", "last"] = Field(default="last", description="where features without a value go")


@node("attributes.sort")
class Sort(Blocking):
    """Features in the order of one or more columns; those that are equal stay in the order they came in.

    Texts are in the order of their UTF-8 bytes. Not a number stands beside the nulls.
    """

    by: str | tuple[str | SortKey, ...] = Field(min_length=1, description="column names, or {column, order, nulls}")

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """The same."""
        for key in self._keys:
            kind = column(given["input"], key.column, "by").type
            if str(kind).startswith(_UNORDERED):
                raise NodeProblem(f"{key.column!r} holds {kind}, which has no order; sort by another column.", "by")
        return {"output": given["input"]}

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        """An external merge sort."""
        keys: list[Key] = [(k.column, k.order, "at_start" if k.nulls == "first" else "at_end") for k in self._keys]
        with Sorter(work, keys) as sorter:
            for batch in inputs["input"]:
                sorter.add(table_of(batch))
            for table in sorter.sorted():
                yield from batches_of(table, given["input"])

    @property
    def _keys(self) -> list[SortKey]:
        by = (self.by,) if isinstance(self.by, str) else self.by
        return [SortKey(column=key) if isinstance(key, str) else key for key in by]
