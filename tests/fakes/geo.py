"""What nodes are given in tests, and what every stream of batches has to keep."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import ConfigurationError
from tasks.geo.batches import Batch
from tasks.geo.layouts import UNKNOWN, Layout
from tasks.geo.nodes import BATCH_ROWS, Sink, Source, Work, Written


class Rooted:
    """An Outside with one folder; its store is the folder `store` in it. No database."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def readable(self, path: str) -> Path:
        found = self._within(path)
        if not found.exists():
            raise ConfigurationError(f"{path} is not there; give a file that is.")
        return found

    def writable(self, path: str) -> Path:
        return self._within(path)

    def _within(self, path: str) -> Path:
        found = (self.root / path).resolve()
        if not found.is_relative_to(self.root):
            raise ConfigurationError(f"{path} lies outside the allowed folders; name one in {self.root}.")
        return found

    @contextmanager
    def postgres(self, url: str | None) -> Iterator[Any]:
        raise ConfigurationError("there is no database here.")
        yield

    def put(self, key: str, path: Path, media_type: str) -> str:
        place = self.root / "store" / key
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
        return place.as_uri()


class Boundless:
    """A memory budget without end, which knows what is held."""

    held = 0

    def room(self, size_bytes: int) -> bool:
        return True

    def hold(self, size_bytes: int) -> None:
        self.held += size_bytes


def work_in(root: Path, stop: threading.Event | None = None) -> Work:
    """What a node at work is given: files within `root`, a folder for spilled ones, no end of memory."""
    folder = root / "spilled"
    folder.mkdir(parents=True, exist_ok=True)
    return Work(Rooted(root), stop or threading.Event(), Boundless(), folder, "run", "node", "0")


def check_stream(layout: Layout, batches: Iterable[Batch]) -> list[Batch]:
    """The batches, each of the very layout that was promised: columns, types, lengths, geometry type."""
    checked = list(batches)
    for batch in checked:
        check_batch(layout, batch)
        assert 0 < batch.rows <= BATCH_ROWS
    return checked


def check_batch(layout: Layout, batch: Batch) -> None:
    """Of the very layout that was promised."""
    assert batch.layout == layout, f"{batch.layout} is not the promised {layout}"
    assert [a.type for a in batch.attributes] == layout.fields.types
    assert {len(a) for a in batch.attributes} <= {batch.rows}
    assert (batch.geometry is None) == (layout.geometry is None)
    if batch.geometry is not None:
        assert len(batch.geometry) == batch.rows
        _check_kind(layout, batch)


def _check_kind(layout: Layout, batch: Batch) -> None:
    """Every geometry is of the promised type, and its WKB is ISO and little endian."""
    assert layout.geometry is not None
    kinds = {shape.geom_type for shape in batch.shapes if shape is not None}
    assert layout.geometry.kind == UNKNOWN or kinds <= {layout.geometry.kind}, f"{kinds} are not {layout.geometry.kind}"
    heads = [wkb.as_py()[:5] for wkb in batch.geometry.wkb if wkb.is_valid] if batch.geometry else []
    assert all(head[0] == 1 and int.from_bytes(head[1:], "little") < 4000 for head in heads)


def read_all(source: Source, work: Work, at_most: int = 1) -> list[Batch]:
    """All parts of a source, in order, checked against what it said of itself."""
    described = source.describe(work.outside)
    found = [
        batch
        for part in source.parts(work.outside, at_most)
        for batch in check_stream(described.layout, source.read(part, work))
    ]
    if described.features is not None:
        assert sum(batch.rows for batch in found) == described.features
    return found


def write_all(sink: Sink, layout: Layout, batches: Iterable[Batch], work: Work) -> Written:
    """The batches through a sink, as an engine does it."""
    sink.layouts({"input": layout})
    sink.prepare(layout, work)
    writer = sink.open(layout, work)
    try:
        for batch in batches:
            writer.write(sink.packed(batch))
        written = writer.finish()
    except BaseException:
        writer.abandon()
        raise
    return sink.conclude([written], work)


def columns_of(batches: Iterable[Batch]) -> Mapping[str, list[Any]]:
    """Attribute -> its values in all batches."""
    found: dict[str, list[Any]] = {}
    for batch in batches:
        for name, array in zip(batch.layout.names, batch.attributes, strict=True):
            found.setdefault(name, []).extend(array.to_pylist())
    return found


def shapes_of(batches: Iterable[Batch]) -> Any:
    """The geometries of all batches as one array."""
    arrays = [batch.shapes for batch in batches]
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=object)
