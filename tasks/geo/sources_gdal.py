"""Sources of files that GDAL reads: GeoPackage, FlatGeobuf, Shapefile, GeoJSON."""

from __future__ import annotations

import contextlib
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import Field

from tasks.errors import ConfigurationError, TerminalError
from tasks.geo.batches import Batch
from tasks.geo.fields import suggested
from tasks.geo.file_sources import FileSource, head, shares
from tasks.geo.gdal_reading import GEOPACKAGE, Dataset, address, amount, batches, layers, layout_of
from tasks.geo.nodes import BATCH_BYTES, BATCH_ROWS, Described, NodeProblem, Outside, Work, node
from tasks.records import Reason

_SEPARATOR = b"\x1e"
"""Before each text of a sequence (RFC 8142)."""

_PIECE_BYTES = 8 << 20


class GdalFile(FileSource):
    """A file that GDAL reads."""

    magic: ClassVar[bytes] = b""
    driver: ClassVar[str] = ""
    """Named in the address where the first bytes do not tell."""
    format_name: ClassVar[str] = ""
    exact: ClassVar[bool] = False
    """Whether fewer features than count() said mean that the file is damaged: GDAL leaves out what it cannot read."""

    def dataset(self, outside: Outside) -> Dataset:
        """What to open. Raises ConfigurationError where the file is of another format."""
        path = self.path(outside)
        if self.magic and head(path, len(self.magic)) != self.magic:
            raise ConfigurationError(f"{self.file_path} is no {self.format_name}; use the node of its format.")
        return Dataset(address(path, self.driver), self.file_path)

    def count(self, outside: Outside) -> int | None:
        """Features in the file; None where that is only known from reading them all."""
        return amount(self.dataset(outside))[0]

    def describe(self, outside: Outside) -> Described:
        """Layout, features, size of the file."""
        dataset, features = self.dataset(outside), self.count(outside)
        if self.limit is not None and features is not None:
            features = min(features, self.limit)
        size_bytes = sum(file.stat().st_size for file in self.files(self.path(outside)) if file.exists())
        return Described(self.placed(layout_of(dataset, self.columns)), features, size_bytes)

    def read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        """The features in the order of the file. Raises TerminalError where some of them cannot be read."""
        dataset, seen = self.dataset(work.outside), 0
        given = batches(dataset, self.columns, self.where(part), self._rows(work.outside))
        for batch in self.limited(map(self.relaid, given), work):
            seen += batch.rows
            yield batch
        expected = self.count(work.outside) if self.exact and self.limit is None else None
        if expected is not None and seen < expected:
            raise TerminalError(
                Reason.DAMAGED,
                f"{expected - seen} of {expected} features of {self.file_path} cannot be read; fetch it anew.",
            )

    def about(self, outside: Outside) -> int:
        """Roughly the number of features."""
        return self.count(outside) or 0

    def _rows(self, outside: Outside) -> int:
        """So many at once that they have about BATCH_BYTES, if features are alike."""
        size_bytes = self.path(outside).stat().st_size
        if size_bytes <= BATCH_BYTES:
            return BATCH_ROWS
        return max(1, min(BATCH_ROWS, BATCH_BYTES * self.about(outside) // size_bytes))

    def where(self, part: dict[str, Any]) -> str | None:
        """Which features are the part's, as SQL; None: all."""
        return None

    def relaid(self, batch: Batch) -> Batch:
        """The batch with describe()'s layout."""
        layout = self.placed(batch.layout)
        return batch if layout is batch.layout else Batch(layout, batch.attributes, batch.geometry, batch.rows)


@node("data_source.geopackage")
class GeoPackageSource(GdalFile):
    """Reads a layer of a GeoPackage (OGC 12-128r19), or a table without geometry.

    Where the file has a single layer, or a single one with geometry, it need not be named.
    """

    table_name: str | None = Field(default=None, max_length=200, description="Layer or table.")

    magic = GEOPACKAGE
    format_name = "GeoPackage"

    def dataset(self, outside: Outside) -> Dataset:
        """Of the layer. Raises NodeProblem that lists the layers where none or a wrong one is named."""
        found = super().dataset(outside)
        return Dataset(found.address, found.shown, self._layer(layers(found)))

    def _layer(self, known: dict[str, str | None]) -> str:
        if self.table_name is not None:
            if self.table_name in known:
                return self.table_name
            raise NodeProblem(
                f"{self.file_path} has no layer {self.table_name!r}; {suggested(self.table_name, list(known))}.",
                "table_name",
            )
        spatial = [name for name, kind in known.items() if kind] or list(known)
        if len(spatial) == 1:
            return spatial[0]
        listed = ", ".join(spatial) or "none"
        raise NodeProblem(f"{self.file_path} has {len(spatial)} layers; name one of them: {listed}.", "table_name")

    def parts(self, outside: Outside, at_most: int) -> list[dict[str, Any]]:
        """Ranges of the features' numbers; one for a view, or with a limit."""
        if at_most <= 1 or self.limit is not None:
            return [{}]
        dataset = self.dataset(outside)
        fid = amount(dataset)[1]
        bounds = _bounds(self.path(outside), str(dataset.layer), fid) if fid else None
        return [part | {"fid": fid} for part in shares(*bounds, at_most)] if bounds else [{}]

    def where(self, part: dict[str, Any]) -> str | None:
        """A range of features' numbers."""
        if not part.get("fid"):
            return None
        fid = _quoted(part["fid"])
        return f"{fid} >= {int(part['first'])} AND {fid} <= {int(part['last'])}"


def _bounds(path: Path, table: str, fid: str) -> tuple[int, int] | None:
    """Least and greatest number of a feature; None for an empty table, and for a view, which has no such numbers."""
    name = _quoted(fid)
    statement = f"SELECT min({name}), max({name}) FROM {_quoted(table)}"  # noqa: S608 - names are quoted
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as file:
            first, last = file.execute(statement).fetchone() if _is_table(file, table) else (None, None)
    except sqlite3.Error:
        return None
    return (first, last) if isinstance(first, int) and isinstance(last, int) else None


def _is_table(file: sqlite3.Connection, name: str) -> bool:
    return bool(file.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@node("data_source.flatgeobuf")
class FlatGeobufSource(GdalFile):
    """Reads a FlatGeobuf file (flatgeobuf.org, version 3)."""

    magic = b"fgb\x03fgb"
    format_name = "FlatGeobuf file"
    exact = True


@node("data_source.geojson")
class GeoJsonSource(GdalFile):
    """Reads a GeoJSON file (RFC 7946): a collection of features, one feature, or a geometry.

    The columns and their types are found by reading it through once: integers, numbers, text, dates and moments.
    """

    driver = "GeoJSON"

    def count(self, outside: Outside) -> int | None:
        """Only known from reading."""
        return None

    def about(self, outside: Outside) -> int:
        """What looks like one."""
        with self.path(outside).open("rb") as file:
            return sum(piece.count(b'"Feature"') for piece in iter(partial(file.read, _PIECE_BYTES), b""))


@node("data_source.geojsonl")
class GeoJsonLinesSource(GdalFile):
    """Reads GeoJSON text sequences (RFC 8142) and files with a feature on each line."""

    driver = "GeoJSONSeq"
    exact = True

    def count(self, outside: Outside) -> int | None:
        """Texts that are not blank: lines, or what stands between separators where the first byte is one."""
        path = self.path(outside)
        separated = head(path, 1) == _SEPARATOR
        with path.open("rb") as file:
            return sum(line.count(_SEPARATOR) if separated else bool(line.strip()) for line in file)


@node("data_source.shapefile")
class ShapefileSource(GdalFile):
    """Reads a Shapefile: the `.shp` with its `.dbf`, `.shx`, `.prj` and `.cpg` beside it, or a `.zip` of them."""

    encoding: str | None = Field(
        default=None, max_length=40, description="Of the texts, where the file does not say (cp1250)."
    )

    magic = b"\x00\x00\x27\x0a"
    format_name = "Shapefile"

    def files(self, path: Path) -> list[Path]:
        """The archive, or all five."""
        suffixes = () if path.suffix.lower() == ".zip" else (".dbf", ".shx", ".prj", ".cpg")
        return [path, *(path.with_suffix(suffix) for suffix in suffixes)]

    def dataset(self, outside: Outside) -> Dataset:
        """Of the file, or of the one in the archive."""
        path = self.path(outside)
        if not zipfile.is_zipfile(path):
            return Dataset(super().dataset(outside).address, self.file_path, None, self.encoding, mixed=True)
        inside = f"/vsizip/{{{address(path)}}}/{self._member(path)}"
        return Dataset(inside, self.file_path, None, self.encoding, mixed=True)

    def _member(self, path: Path) -> str:
        with self._archive(path) as archive:
            found = [n for n in archive.namelist() if n.lower().endswith(".shp") and not n.startswith("__MACOSX/")]
            if len(found) != 1:
                listed = ", ".join(found) or "none"
                raise ConfigurationError(f"{self.file_path} has {len(found)} Shapefiles ({listed}); pack just one.")
            with archive.open(found[0]) as member:
                if member.read(len(self.magic)) == self.magic:
                    return found[0]
        raise ConfigurationError(f"{found[0]} in {self.file_path} is no Shapefile; pack it anew.")

    @contextlib.contextmanager
    def _archive(self, path: Path) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(path) as archive:
                yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as exc:  # the last: encrypted, packed oddly
            raise ConfigurationError(f"{self.file_path} cannot be unpacked ({exc}); pack it anew.") from exc
