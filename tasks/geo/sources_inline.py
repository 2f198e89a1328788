"""Features that stand in the workflow itself, or in a GeoJSON file: data_source.inline, data_source.file."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import orjson
from pydantic import Field

from tasks.geo.batches import Batch
from tasks.geo.file_sources import Features
from tasks.geo.gdal_reading import Dataset, address, batches, layout_of
from tasks.geo.nodes import Described, NodeProblem, Outside, Work, node
from tasks.geo.sources_gdal import GeoJsonSource
from tasks.partials import disk

MAX_BYTES = 10 << 20
_GEOMETRIES = {
    "Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon", "GeometryCollection"
}  # fmt: skip
_TYPES = _GEOMETRIES | {"Feature", "FeatureCollection"}

GeoJsonContent = str | dict[str, Any] | list[dict[str, Any]]


class Content(Features):
    """Features in a parameter."""

    def text(self) -> bytes:
        """GeoJSON. Raises NodeProblem."""
        raise NotImplementedError

    def describe(self, outside: Outside) -> Described:
        """The layout is found by reading."""
        text = self.text()
        with _as_file(text, self.type) as dataset:
            return Described(self.placed(layout_of(dataset, self.columns)), None, len(text))

    def fingerprint(self, outside: Outside) -> str:
        """Of the text."""
        return hashlib.sha256(self.text()).hexdigest()

    def read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        """The features in their order."""
        with _as_file(self.text(), self.type) as dataset:
            given = (replace(batch, layout=self.placed(batch.layout)) for batch in batches(dataset, self.columns))
            yield from self.limited(given, work)


@node("data_source.inline")
class InlineSource(Content):
    """Features that stand in the workflow: a GeoJSON collection, a list of features, a feature or a geometry; 10 MB."""

    features: GeoJsonContent = Field(description="GeoJSON, as a map, a list or a text.")

    def text(self) -> bytes:
        """As JSON."""
        return geojson_text(self.features, "features")


@node("data_source.file")
class TextOrFileSource(Content):
    """Reads GeoJSON that stands in the workflow (`content`) or in a file of the allowed folders (`url`)."""

    content: GeoJsonContent | None = Field(default=None, description="GeoJSON, as a map or a text; 10 MB.")
    url: str | None = Field(default=None, max_length=4096, description="Path of a file, or file:///path.")
    format: Literal["geojson"] = Field(default="geojson", description="Of the content.")

    def text(self) -> bytes:
        """Of the content."""
        if self.content is None:
            raise NodeProblem("neither `content` nor `url` is given; give one of them.", "content")
        return geojson_text(self.content, "content")

    def describe(self, outside: Outside) -> Described:
        """Of the file, or of the content."""
        return self._file.describe(outside) if self._file else super().describe(outside)

    def fingerprint(self, outside: Outside) -> str:
        """Of the file, or of the content."""
        return self._file.fingerprint(outside) if self._file else super().fingerprint(outside)

    def read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        """The features in their order."""
        return self._file.read(part, work) if self._file else super().read(part, work)

    @property
    def _file(self) -> GeoJsonSource | None:
        if self.url is None:
            return None
        if self.content is not None:
            raise NodeProblem("both `content` and `url` are given; give one of them.", "url")
        parts = urlsplit(self.url)
        if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
            raise NodeProblem(
                f"{parts.scheme}:// is not read from here; fetch the file first, and name its path.", "url"
            )
        path = unquote(parts.path) if parts.scheme else self.url
        return GeoJsonSource(file_path=path, columns=self.columns, limit=self.limit, crs=self.crs)


def geojson_text(given: GeoJsonContent, field: str) -> bytes:
    """Checked GeoJSON. Raises NodeProblem for what is none, or too large."""
    try:
        parsed = orjson.loads(given) if isinstance(given, str) else given
        if isinstance(parsed, list):
            parsed = {"type": "FeatureCollection", "features": parsed}
        text = orjson.dumps(parsed)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError) as exc:
        raise NodeProblem(f"it is no JSON ({exc}); correct it.", field) from exc
    kind = parsed.get("type") if isinstance(parsed, dict) else None
    if kind not in _TYPES:
        raise NodeProblem(f"its type is {kind!r}, which GeoJSON does not have; give a FeatureCollection.", field)
    if len(text) > MAX_BYTES:
        raise NodeProblem(f"it has {len(text):,} bytes, and {MAX_BYTES:,} are allowed; put it in a file.", field)
    return text


@contextmanager
def _as_file(text: bytes, shown: str) -> Iterator[Dataset]:
    """GDAL is told which driver to use by the address of a file; by content it may choose one that obeys commands."""
    with tempfile.TemporaryDirectory(prefix="landrecords-inline-") as folder:
        path = Path(folder) / "inline.geojson"
        with disk(path.parent):
            path.write_bytes(text)
        yield Dataset(address(path, "GeoJSON"), shown)
