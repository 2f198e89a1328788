"""What a file format is to the nodes that write files: sinks of a path, of the store, of a run's results."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from tasks.geo.batches import Batch
from tasks.geo.file_columns import has_parts, plain_array, plain_type
from tasks.geo.layouts import Layout
from tasks.geo.nodes import NodeProblem


class Encoder(Protocol):
    """A file being written. All is called from one thread."""

    def write(self, packed: Any) -> None:
        """What `Format.packed` made of a batch. Raises TerminalError for what the format cannot hold."""

    def close(self) -> None:
        """Completes the file."""

    def abandon(self) -> None:
        """Stops writing. May follow anything."""


class Format(Protocol):
    """How features become a file. Picklable."""

    suffix: ClassVar[str]
    media_type: ClassVar[str]

    def check(self, layout: Layout) -> None:
        """Raises NodeProblem for a layout that it cannot hold."""

    def packed(self, batch: Batch) -> Any:
        """The greater part of the work; pure, in any thread."""

    def started(self, path: Path, layout: Layout, stop: threading.Event) -> Encoder:
        """A new file. Raises errors of tasks.errors."""

    def completed(self, made: Path, place: Path, stop: threading.Event) -> Path:
        """Last, before `made` takes its place; what is to take it instead. One at a time in a folder."""
        return made


def refuse_parts(layout: Layout, format_name: str) -> None:
    """Raises NodeProblem for columns of lists and maps."""
    for field in layout.fields:
        if has_parts(field.type):
            raise NodeProblem(
                f"column {field.name!r} holds lists or maps ({field.type}), which {format_name} cannot; "
                "leave it out with attributes.select."
            )


def refuse_no_geometry(layout: Layout, format_name: str) -> None:
    """Raises NodeProblem for a table."""
    if layout.geometry is None:
        raise NodeProblem(f"the input has no geometry, which {format_name} needs; write CSV or GeoParquet instead.")


def held_as(given: pa.DataType, replaced: Mapping[pa.DataType, pa.DataType]) -> pa.DataType:
    """The type that a format holds values of another as: decimals as floats, and what `replaced` says."""
    plain = plain_type(given)
    return pa.float64() if pa.types.is_decimal(plain) else replaced.get(plain, plain)


def held_arrays(batch: Batch, types: list[pa.DataType]) -> list[pa.Array]:
    """The attributes as those types. Raises TerminalError for what has no room in them."""
    return [plain_array(array, kind) for array, kind in zip(batch.attributes, types, strict=True)]
