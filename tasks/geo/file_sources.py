"""What sources of files have in common: where they read, when that has changed, how much of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tasks.errors import ConfigurationError, refuse_when_stopped
from tasks.geo.batches import Batch
from tasks.geo.layouts import Layout, crs_name, crs_of
from tasks.geo.nodes import BATCH_BYTES, BATCH_ROWS, NodeProblem, Outside, Source, Work

FilePath = Annotated[str, Field(min_length=1, max_length=4096, description="File, within the allowed folders.")]
Limit = Annotated[int | None, Field(ge=1, description="Features to read at most.")]
Columns = Annotated[tuple[str, ...] | None, Field(description="Attributes to read; all where it is not given.")]
NamedCrs = Annotated[
    str | None, Field(max_length=20_000, description="CRS of the coordinates where the file names none (EPSG:3857).")
]


class Features(Source):
    """A source whose amount and columns can be chosen."""

    columns: Columns = None
    limit: Limit = None
    crs: NamedCrs = None

    def placed(self, layout: Layout) -> Layout:
        """The layout with `crs` where the input names none. Raises NodeProblem where it names another."""
        if self.crs is None or layout.geometry is None:
            return layout
        try:
            wanted = crs_name(crs_of(self.crs))
        except ValueError as exc:
            raise NodeProblem(str(exc), "crs") from exc
        if layout.crs not in (None, wanted):
            raise NodeProblem(
                f"the file says its CRS is {layout.crs}; leave `crs` out, and put geoprocessing.reproject after it.",
                "crs",
            )
        return layout.placed(wanted)

    def limited(self, batches: Iterable[Batch], work: Work) -> Iterator[Batch]:
        """No more than `limit` features, in batches that are not too large. Raises StopRequested."""
        left = self.limit
        for batch in batches:
            taken = batch if left is None or batch.rows <= left else batch.slice(0, left)
            for piece in pieces(taken):
                refuse_when_stopped(work.stop)
                yield piece
            left = None if left is None else left - taken.rows
            if left == 0:
                return


class FileSource(Features):
    """A source that reads a file."""

    file_path: FilePath

    def path(self, outside: Outside) -> Path:
        """The file. Raises ConfigurationError where it may not be read, or is none."""
        path = outside.readable(self.file_path)
        if not path.is_file():
            raise ConfigurationError(f"{self.file_path} is no file; name a file.")
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"This user may not read {self.file_path}; change its mode, or name another file.")
        return path

    def files(self, path: Path) -> list[Path]:
        """All files that are read."""
        return [path]

    def fingerprint(self, outside: Outside) -> str:
        """Path, size and time of change of each file."""
        found = [(file, file.stat()) for file in self.files(self.path(outside)) if file.exists()]
        return "; ".join(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in found)


def pieces(batch: Batch) -> Iterator[Batch]:
    """The batch, in parts of BATCH_ROWS features and about BATCH_BYTES at most, which share its memory."""
    rows = min(BATCH_ROWS, max(1, batch.rows * BATCH_BYTES // max(batch.nbytes, 1)))
    if batch.rows <= rows:
        if batch.rows:
            yield batch
        return
    for first in range(0, batch.rows, rows):
        yield batch.slice(first, min(rows, batch.rows - first))


def head(path: Path, size_bytes: int) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(size_bytes)


def shares(first: int, last: int, at_most: int) -> list[dict[str, Any]]:
    """Ranges {"first", "last"}, both within, of about the same length and BATCH_ROWS at least."""
    count = max(1, min(at_most, (last - first + 1) // BATCH_ROWS))
    bounds = [first + (last - first + 1) * n // count for n in range(count + 1)]
    return [{"first": low, "last": high - 1} for low, high in pairwise(bounds)]
