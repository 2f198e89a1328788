"""Sinks that write a file: complete in its place, or not there."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tasks.errors import StopRequested
from tasks.geo.batches import Batch
from tasks.geo.file_formats import Encoder, Format
from tasks.geo.geometry_reproject import Reproject
from tasks.geo.layouts import Layout, crs_name, crs_of
from tasks.geo.nodes import NodeProblem, Sink, Work, Written
from tasks.partials import disk
from tasks.work_folders import publish, work_folder

OutputPath = Annotated[
    str, Field(min_length=1, max_length=4096, description="File to make, within the allowed folders.")
]
TargetCrs = Annotated[
    str | None,
    Field(max_length=20_000, description="CRS to write in (EPSG:4326); features of unknown CRS are taken to be in it."),
]
_TICK_S = 0.05


class FormatSink(Sink):
    """A sink that makes a file of some format."""

    def form(self) -> Format:
        """Of the file."""
        raise NotImplementedError

    def target_crs(self) -> str | None:
        """CRS of the file, as layouts name it; None: the input's. Raises NodeProblem."""
        return None

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Raises NodeProblem for what the format cannot hold."""
        self.form().check(self.placed(given["input"]))
        return {}

    def placed(self, layout: Layout) -> Layout:
        """The layout as it is written."""
        target = self.target_crs()
        if target is None or layout.geometry is None:
            return layout
        return layout.placed(target) if layout.crs is None else _reproject(target).layouts({"input": layout})["output"]

    def packed(self, batch: Batch) -> Any:
        """Encoded, in the file's CRS."""
        target, layout = self.target_crs(), batch.layout
        if target is not None and layout.geometry is not None and layout.crs is None:
            batch = Batch(layout.placed(target), batch.attributes, batch.geometry, batch.rows)
        elif target is not None and layout.geometry is not None and layout.crs != target:
            batch = _reproject(target).apply(batch)
        return batch.rows, self.form().packed(batch)


def _reproject(target: str) -> Reproject:
    return Reproject(target_crs=target)


def checked_crs(name: str | None) -> str | None:
    """A CRS of a sink's parameter `crs`, as layouts name it. Raises NodeProblem."""
    try:
        return None if name is None else crs_name(crs_of(name))
    except ValueError as exc:
        raise NodeProblem(str(exc), "crs") from exc


class FileSink(FormatSink):
    """A sink that makes a file at a path."""

    output_path: OutputPath

    @property
    def place(self) -> str:
        """Path of the file."""
        return self.output_path

    def prepare(self, layout: Layout, work: Work) -> None:
        """Looks whether the file may be made."""
        work.outside.writable(self.place)

    def open(self, layout: Layout, work: Work) -> FileWriter:
        """Of the whole stream."""
        return FileWriter(self.form(), work.outside.writable(self.place), self.placed(layout), work)


class FileWriter:
    """Writes a file in a folder beside its place, then gives it its place."""

    def __init__(self, form: Format, place: Path, layout: Layout, work: Work) -> None:
        self._form, self._place, self._work = form, place, work
        self._rows = 0
        self._stack = contextlib.ExitStack()
        with disk(place.parent):
            place.parent.mkdir(parents=True, exist_ok=True)
        self._made = self._stack.enter_context(work_folder(place)) / f"made{form.suffix}"
        try:
            self._encoder: Encoder = form.started(self._made, layout, work.stop)
        except BaseException:
            self._stack.close()
            raise

    def write(self, packed: tuple[int, Any]) -> None:
        """Append a batch."""
        rows, piece = packed
        self._rows += rows
        self._encoder.write(piece)

    def finish(self) -> Written:
        """Complete, synced, renamed."""
        self._encoder.close()
        with _alone(self._place.parent, self._work):
            made = self._form.completed(self._made, self._place, self._work.stop)
            size_bytes = made.stat().st_size
            publish(made, self._place)
        self._stack.close()
        return Written(self._rows, size_bytes, (str(self._place),))

    def abandon(self) -> None:
        """Leaves nothing behind."""
        self._encoder.abandon()
        self._stack.close()


@contextlib.contextmanager
def _alone(folder: Path, work: Work) -> Iterator[None]:
    """One at a time in a folder, over all processes: two sinks may add layers to one file. Raises StopRequested."""
    with disk(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if work.stop.wait(_TICK_S):
                    raise StopRequested("the run is ending.") from None
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(descriptor)
