"""The head of a GeoTIFF: directories of the mosaic, its mask and its overviews, classic or BigTIFF. Pure.

Sources: TIFF 6.0; BigTIFF (libtiff); OGC 19-008r4 GeoTIFF 1.1 (keys); GDAL's internal masks (NewSubfileType 4,
one bit, deflated). A map tile that is missing has offset and size 0: a sparse tile, which GDAL reads as nothing.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.geotiff_pixels import Pixels
from tasks.tile_grid import Bounds

CLASSIC_BYTES = 1 << 32
"""Offsets of a classic TIFF end here."""

_ASCII, _SHORT, _LONG, _RATIONAL, _DOUBLE, _LONG8 = 2, 3, 4, 5, 12, 16
_FORMATS = {_ASCII: "B", _SHORT: "H", _LONG: "I", _RATIONAL: "I", _DOUBLE: "d", _LONG8: "Q"}
_COMPRESSIONS = {"deflate": 8, "zstd": 50_000, "jpeg": 7}
_SAMPLES = {"L": 1, "RGB": 3, "RGBA": 4}
_REDUCED, _MASK = 1, 4
_MASKS_COUNT, _YCBCR, _RGB, _GREY = 4, 6, 2, 1
_UNASSOCIATED_ALPHA = 2
_CITATION = "WGS 84 / Pseudo-Mercator|"
_PROJECTED, _PIXEL_IS_AREA, _WEB_MERCATOR, _METRE = 1, 1, 3857, 9001


@dataclass(slots=True)
class Layer:
    """One picture of the file, in tiles: the mosaic or an overview, or the mask of one.

    offsets, sizes  of each tile, row by row; 0 where there is none
    """

    level: int
    is_mask: bool
    columns: int
    rows: int
    offsets: array[int] = field(init=False)
    sizes: array[int] = field(init=False)

    def __post_init__(self) -> None:
        self.offsets = array("Q", bytes(8 * self.columns * self.rows))
        self.sizes = array("I", bytes(4 * self.columns * self.rows))

    def put(self, column: int, row: int, offset: int, size: int) -> None:
        """Where a tile lies."""
        place = row * self.columns + column
        self.offsets[place], self.sizes[place] = offset, size


@dataclass(frozen=True, slots=True)
class Place:
    """Where the mosaic lies: its corner and pixels in metres of EPSG:3857, its size in pixels."""

    bounds: Bounds
    pixel_m: float
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Tag:
    code: int
    kind: int
    values: Sequence[Any] | array[int] | bytes

    def count(self) -> int:
        return len(self.values) // (2 if self.kind == _RATIONAL else 1)

    def packed(self, big: bool) -> tuple[int, bytes]:
        """Kind and bytes. Offsets are 8 bytes in BigTIFF and 4 in classic TIFF."""
        kind = _LONG if self.kind == _LONG8 and not big else self.kind
        if isinstance(self.values, bytes):
            return kind, self.values
        if isinstance(self.values, array):
            return kind, _little(array(_FORMATS[kind], self.values))
        return kind, struct.pack(f"<{len(self.values)}{_FORMATS[kind]}", *self.values)


def _little(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def head_of(layers: Sequence[Layer], pixels: Pixels, place: Place, texts: tuple[str, str], *, big: bool) -> bytes:
    """Header and directories, ready for the start of the file.

    layers  in the order of the file: the mosaic, then masks and overviews
    texts   description and copyright; empty ones are left out
    """
    directories = [_tags(layer, pixels, place, texts) for layer in layers]
    head = bytearray(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8))
    for number, tags in enumerate(directories):
        head += _directory(tags, len(head), big, last=number == len(directories) - 1)
    return bytes(head)


def _directory(tags: list[_Tag], start: int, big: bool, *, last: bool) -> bytes:
    """One directory and, after it, the values that do not fit into its entries."""
    entry, room = ("<HHQ", 8) if big else ("<HHI", 4)
    pointer = "<Q" if big else "<I"
    after = start + struct.calcsize("<Q" if big else "<H") + len(tags) * (struct.calcsize(entry) + room) + room
    entries, outside = bytearray(), bytearray()
    for tag in sorted(tags, key=lambda tag: tag.code):
        kind, value = tag.packed(big)
        entries += struct.pack(entry, tag.code, kind, tag.count())
        if len(value) > room:
            entries += struct.pack(pointer, after + len(outside))
            outside += value + bytes(-len(value) % 8)
        else:
            entries += value.ljust(room, b"\0")
    outside += bytes(-(after + len(outside)) % 8)
    following = 0 if last else after + len(outside)
    return struct.pack("<Q" if big else "<H", len(tags)) + bytes(entries) + struct.pack(pointer, following) + outside


def _tags(layer: Layer, pixels: Pixels, place: Place, texts: tuple[str, str]) -> list[_Tag]:
    tags = [
        _Tag(254, _LONG, [(_REDUCED if layer.level else 0) | (_MASK if layer.is_mask else 0)]),
        _Tag(256, _LONG, [-(-place.width >> layer.level)]),
        _Tag(257, _LONG, [-(-place.height >> layer.level)]),
        _Tag(284, _SHORT, [1]),
        _Tag(322, _LONG, [pixels.tile_px]),
        _Tag(323, _LONG, [pixels.tile_px]),
        _Tag(324, _LONG8, layer.offsets),
        _Tag(325, _LONG, layer.sizes),
        *(_mask_tags() if layer.is_mask else _image_tags(pixels)),
    ]
    if not layer.level and not layer.is_mask:
        tags += _place_tags(place) + _text_tags(texts)
    return tags


def _mask_tags() -> list[_Tag]:
    compression = _COMPRESSIONS["deflate"]
    return [
        _Tag(258, _SHORT, [1]),
        _Tag(259, _SHORT, [compression]),
        _Tag(262, _SHORT, [_MASKS_COUNT]),
        _Tag(277, _SHORT, [1]),
    ]


def _image_tags(pixels: Pixels) -> list[_Tag]:
    samples = _SAMPLES[pixels.mode]
    jpeg = pixels.compression == "jpeg"
    colour = _GREY if samples == 1 else _YCBCR if jpeg else _RGB
    tags = [
        _Tag(258, _SHORT, [8] * samples),
        _Tag(259, _SHORT, [_COMPRESSIONS[pixels.compression]]),
        _Tag(262, _SHORT, [colour]),
        _Tag(277, _SHORT, [samples]),
    ]
    if not jpeg:
        tags.append(_Tag(317, _SHORT, [2]))
    if samples == 4:
        tags.append(_Tag(338, _SHORT, [_UNASSOCIATED_ALPHA]))
    if colour == _YCBCR:
        tags.append(_Tag(530, _SHORT, list(pixels.sampling)))
        tags.append(_Tag(532, _RATIONAL, [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1]))  # JFIF's full range
    return tags


def _place_tags(place: Place) -> list[_Tag]:
    keys = [
        *(1, 1, 1, 4),  # version 1.1, four keys follow: id, where, count, value
        *(1024, 0, 1, _PROJECTED),
        *(1025, 0, 1, _PIXEL_IS_AREA),
        *(1026, 34737, len(_CITATION), 0),
        *(3072, 0, 1, _WEB_MERCATOR),
        *(3076, 0, 1, _METRE),
    ]
    keys[3] = (len(keys) - 4) // 4
    return [
        _Tag(33550, _DOUBLE, [place.pixel_m, place.pixel_m, 0.0]),
        _Tag(33922, _DOUBLE, [0.0, 0.0, 0.0, place.bounds.west, place.bounds.north, 0.0]),
        _Tag(34735, _SHORT, keys),
        _Tag(34737, _ASCII, _CITATION.encode() + b"\0"),
    ]


def _text_tags(texts: tuple[str, str]) -> list[_Tag]:
    named = zip((270, 33432), texts, strict=True)
    tags = [_Tag(code, _ASCII, text.encode() + b"\0") for code, text in named if text]
    return [*tags, _Tag(305, _ASCII, b"landrecords\0")]
