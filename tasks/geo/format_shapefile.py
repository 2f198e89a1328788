"""ESRI Shapefile, as GDAL writes it: several files, or an archive of them."""

from __future__ import annotations

import shutil
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import TerminalError, refuse_when_stopped
from tasks.geo.batches import Batch
from tasks.geo.file_formats import Format, refuse_no_geometry, refuse_parts
from tasks.geo.format_gdal import GdalEncoder, empty_batch, order_for, record_batch
from tasks.geo.layouts import Layout
from tasks.geo.nodes import NodeProblem
from tasks.partials import disk
from tasks.records import Reason
from tasks.work_folders import publish

MAX_NAME = 10
MAX_TEXT_BYTES = 254
_PIECE_BYTES = 8 << 20
_OF_ANOTHER = (".qix", ".sbn", ".sbx", ".idm", ".ind")
"""Indexes that readers take for those of the file they lie beside."""


@dataclass(frozen=True)
class Shapefile(Format):
    """ESRI Shapefile (J-7855, 1998), its texts in UTF-8.

    zipped  in an archive
    """

    layer: str = "features"
    zipped: bool = True

    suffix: ClassVar[str] = ".zip"
    media_type: ClassVar[str] = "application/zip"

    def check(self, layout: Layout) -> None:
        """A table is refused, and lists, and names that would be the same once they are cut."""
        refuse_no_geometry(layout, "a Shapefile")
        refuse_parts(layout, "a Shapefile")
        cut: dict[str, str] = {}
        for name in layout.names:
            other = cut.setdefault(name.encode()[:MAX_NAME].decode(errors="ignore").lower(), name)
            if other != name:
                raise NodeProblem(
                    f"a Shapefile cuts names after {MAX_NAME} bytes, and then {other!r} and {name!r} are the same; "
                    "rename one with attributes.rename, or write a GeoPackage."
                )

    def packed(self, batch: Batch) -> pa.RecordBatch:
        """Arrow with WKB. Raises TerminalError for a text that would be cut."""
        for name, array in zip(batch.layout.names, batch.attributes, strict=True):
            longest = pc.max(pc.binary_length(array)).as_py() if pa.types.is_string(array.type) else None
            if longest and longest > MAX_TEXT_BYTES:
                raise TerminalError(
                    Reason.UNWRITABLE,
                    f"Column {name!r} has a text of {longest} bytes, and a Shapefile has room for {MAX_TEXT_BYTES}; "
                    "shorten it with attributes.compute, or write a GeoPackage.",
                )
        return record_batch(batch)

    def started(self, path: Path, layout: Layout, stop: threading.Event) -> ShapefileEncoder:
        """A folder of files, and then their archive."""
        return ShapefileEncoder(path, self, layout, stop)

    def completed(self, made: Path, place: Path, stop: threading.Event) -> Path:
        """The archive; or the `.shp`, all others being in their places."""
        if self.zipped:
            return made
        for file in _folder(made).iterdir():
            if file.suffix != ".shp":
                publish(file, place.with_suffix(file.suffix))
        for suffix in _OF_ANOTHER:
            place.with_suffix(suffix).unlink(missing_ok=True)
        return _folder(made) / f"{self.layer}.shp"


class ShapefileEncoder:
    """Writes the files, then packs them."""

    def __init__(self, path: Path, form: Shapefile, layout: Layout, stop: threading.Event) -> None:
        self._path, self._form, self._stop = path, form, stop
        with disk(path.parent):
            _folder(path).mkdir()
        order = order_for(_folder(path) / f"{form.layer}.shp", "ESRI Shapefile", form.layer, layout)
        order["options"]["2GB_LIMIT"] = "YES"  # more cannot be read everywhere
        self._encoder = GdalEncoder(order | {"encoding": "UTF-8"}, empty_batch(layout), stop)

    def write(self, packed: pa.RecordBatch) -> None:
        """Hand on a batch."""
        self._encoder.write(packed)

    def close(self) -> None:
        """Packs the archive."""
        self._encoder.close()
        if not self._form.zipped:
            return
        with (
            disk(self._path.parent),
            zipfile.ZipFile(self._path, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive,
        ):
            for file in sorted(_folder(self._path).iterdir()):
                with file.open("rb") as source, archive.open(file.name, "w", force_zip64=True) as target:
                    self._pack(source, target)
                file.unlink()
        shutil.rmtree(_folder(self._path))

    def _pack(self, source: Any, target: Any) -> None:
        while piece := source.read(_PIECE_BYTES):
            refuse_when_stopped(self._stop)
            target.write(piece)

    def abandon(self) -> None:
        """Ends the process."""
        self._encoder.abandon()


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.files")
