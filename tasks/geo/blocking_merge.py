"""geoprocessing.merge: the features of several inputs, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import pyarrow as pa

from tasks.errors import refuse_when_stopped
from tasks.geo.batches import Batch
from tasks.geo.layouts import UNKNOWN, Layout
from tasks.geo.nodes import Blocking, NodeProblem, Work, node


@node("geoprocessing.merge")
class Merge(Blocking):
    """The features of all inputs, one input after the other; columns that an input does not have are null there.

    Columns of one name must be of one type, or of two numeric types. Geometries must be in one CRS.
    """

    many: ClassVar[bool] = True

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """All columns of all inputs."""
        layouts = list(given.values())
        if len({layout.geometry is None for layout in layouts}) > 1:
            raise NodeProblem("some inputs have geometry and some have none; merge only those alike.", "input")
        if len({layout.crs for layout in layouts}) > 1:
            listed = ", ".join(sorted({layout.crs or "unknown" for layout in layouts}))
            raise NodeProblem(f"the inputs are in several CRS ({listed}); put geoprocessing.reproject before.", "input")
        kinds = {layout.geometry.kind for layout in layouts if layout.geometry}
        made = layouts[0].with_fields(_all_fields(layouts))
        return {"output": made.shaped(kinds.pop() if len(kinds) == 1 else UNKNOWN) if made.geometry else made}

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        """Nothing is held."""
        layout = self.layouts(given)["output"]
        for batches in inputs.values():
            for batch in batches:
                refuse_when_stopped(work.stop)
                yield Batch(layout, tuple(_filled(batch, field) for field in layout.fields), batch.geometry, batch.rows)


def _all_fields(layouts: list[Layout]) -> list[pa.Field]:
    fields: dict[str, pa.Field] = {}
    for layout in layouts:
        for field in layout.fields:
            fields[field.name] = _common(fields.get(field.name, field), field)
    everywhere = {name for name in fields if all(name in layout.names for layout in layouts)}
    return [field if field.name in everywhere else field.with_nullable(True) for field in fields.values()]


def _common(one: pa.Field, other: pa.Field) -> pa.Field:
    try:
        found = pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive").field(0)
    except pa.ArrowException as exc:
        raise NodeProblem(
            f"column {one.name!r} is {one.type} in one input and {other.type} in another; rename or convert it before.",
            "input",
        ) from exc
    return found.with_nullable(one.nullable or other.nullable).remove_metadata()


def _filled(batch: Batch, field: pa.Field) -> pa.Array:
    if field.name not in batch.layout.names:
        return pa.nulls(batch.rows, field.type)
    return batch.column(field.name).cast(field.type, safe=False)
