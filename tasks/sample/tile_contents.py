"""What the sample tile server has: every tile a function of layer, zoom, column, row and version.

A tile's pixels are a piece of the sample village that costs nothing to find again, and yet no two tiles are
alike: of a PNG the colours of the houses, of a JPEG the quantisation of fine detail follow from the tile's name,
and a comment names it. Both are changes of a few bytes in the header; nothing is compressed per tile.
"""

from __future__ import annotations

import io
import struct
from enum import StrEnum
from functools import lru_cache
from typing import Literal
from zlib import crc32

from PIL import Image

from tasks.sample.chance import dice
from tasks.sample.tile_pictures import HOUSES, aerial_photo, parcel_map
from tasks.sample.tile_village import ROUND, TILE_PX

LAYERS = ("parcels", "ortho")
MAX_ZOOM = 30

_WATER, _NOTHING = (174, 208, 232), (255, 255, 255)
_FIRST_OF_ZOOM = [(4**z - 1) // 3 for z in range(MAX_ZOOM + 1)]
_REGION = 2
"""A power of two: regions of 4 x 4 tiles are missing or blank as a whole."""

_HEAD_BYTES = 33  # PNG signature and IHDR
_JFIF_END = 20  # SOI and APP0
_FINE = range(9, 25)  # entries of a quantisation table, in zigzag order


class Sort(StrEnum):
    """What there is of a tile."""

    PICTURE = "picture"
    BLANK = "blank"
    """Of a single colour; all blank tiles of a format are the same bytes."""
    MISSING = "missing"
    """Outside the coverage, or outside the grid."""


def extension_of(layer: str) -> Literal["png", "jpg"]:
    """Layers whose name begins with ortho are aerial photographs, all others parcel maps."""
    return "jpg" if layer.startswith("ortho") else "png"


def tile_number(layer: str, z: int, x: int, y: int) -> int:
    """53 bits that stand for the tile: its `document` in the request log and in a fault's `documents`."""
    return dice(_seed(layer), _FIRST_OF_ZOOM[z] + (x << z) + y) >> 11  # JSON readers keep no more than 53


def tile_sort(layer: str, z: int, x: int, y: int) -> Sort:
    """Of 100 tiles some 5 are missing and 9 blank, two thirds of them in regions of 4 x 4 tiles."""
    if not (0 <= z <= MAX_ZOOM and 0 <= x < 1 << z and 0 <= y < 1 << z):
        return Sort.MISSING
    tile = tile_number(layer, z, x, y) % 1000
    region = tile_number(layer + " region", z, x >> _REGION, y >> _REGION) % 1000
    if tile < 18 or region < 30:
        return Sort.MISSING
    return Sort.BLANK if tile < 48 or region < 90 else Sort.PICTURE


def tile_edition(layer: str, z: int, x: int, y: int, version: int) -> int:
    """How often the tile has changed up to a version of the server: each changes one picture in ten."""
    if version == 0 or tile_sort(layer, z, x, y) is not Sort.PICTURE:
        return 0
    number = tile_number(layer, z, x, y)
    return sum(dice(number, later) % 10 == 0 for later in range(1, version + 1))


def tile_content(layer: str, z: int, x: int, y: int, version: int = 0) -> bytes | None:
    """The tile's bytes: PNG or JPEG, 256 x 256 px, 7-15 KB. None where there is none."""
    sort, extension = tile_sort(layer, z, x, y), extension_of(layer)
    if sort is Sort.MISSING:
        return None
    if sort is Sort.BLANK:
        return blank_content(extension)
    edition = tile_edition(layer, z, x, y, version)
    bits, name = dice(tile_number(layer, z, x, y), -edition), f"{layer}/{z}/{x}/{y} {edition}".encode()
    if extension == "jpg":
        return _jpg(bits, name, x % ROUND, y % ROUND)
    return _png(bits, name, x % ROUND, y % ROUND)


def draw_all() -> None:
    """Make every piece of the village, so that no request waits for it: 1 s, once in a process."""
    for place in range(ROUND * ROUND):
        _parcel_cell(place % ROUND, place // ROUND)
        _photo_cell(place % ROUND, place // ROUND)


@lru_cache(maxsize=2)
def blank_content(extension: Literal["png", "jpg"]) -> bytes:
    """The one blank tile of a format: open water on the parcel map, white in a photograph."""
    if extension == "jpg":
        return _saved(Image.new("RGB", (TILE_PX, TILE_PX), _NOTHING), "JPEG")
    picture = Image.new("P", (TILE_PX, TILE_PX))
    picture.putpalette(_WATER)
    return _saved(picture, "PNG")


def damaged_content(content: bytes) -> bytes:
    """The same tile with wrong bits inside a sound container: only decoding it shows that."""
    at = content.find(b"\xff\xc4") + 5 if content.startswith(b"\xff\xd8") else len(content) // 2
    return content[:at] + bytes(255 - byte for byte in content[at : at + 16]) + content[at + 16 :]


@lru_cache(maxsize=256)
def _seed(layer: str) -> int:
    return crc32(layer.encode())


def _png(bits: int, name: bytes, column: int, row: int) -> bytes:
    palette, rest = _parcel_cell(column, row)
    tints = bytes(tint - 8 + (bits >> 4 * place & 15) for place, tint in enumerate((*HOUSES[0], *HOUSES[1])))
    colours = _chunk(b"PLTE", palette + tints)
    return b"".join((_parcel_head(), colours, _chunk(b"tEXt", b"Comment\0" + name), rest))


@lru_cache(maxsize=1)
def _parcel_head() -> bytes:
    return _parcel_file(0, 0)[:_HEAD_BYTES]


@lru_cache(maxsize=ROUND * ROUND)
def _parcel_cell(column: int, row: int) -> tuple[bytes, bytes]:
    """The palette but for the houses, and everything behind it."""
    content = _parcel_file(column, row)
    (length,) = struct.unpack_from(">I", content, _HEAD_BYTES)
    begin = _HEAD_BYTES + 8
    return content[begin : begin + length - 6], content[begin + length + 4 :]


def _parcel_file(column: int, row: int) -> bytes:
    return _saved(_cut_out(parcel_map(), column, row), "PNG")


def _jpg(bits: int, name: bytes, column: int, row: int) -> bytes:
    tables, rest = _photo_cell(column, row)
    changed = bytearray(tables)
    for place in range(2 * len(_FINE)):
        table, entry = divmod(place, len(_FINE))
        changed[table * 69 + 5 + _FINE[entry]] += bits >> place & 1
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(name)) + name
    return b"".join((_photo_head(), comment, changed, rest))


@lru_cache(maxsize=1)
def _photo_head() -> bytes:
    return _photo_file(0, 0)[:_JFIF_END]


@lru_cache(maxsize=ROUND * ROUND)
def _photo_cell(column: int, row: int) -> tuple[bytes, bytes]:
    """The two segments with quantisation tables (69 bytes each), and everything behind them."""
    content = _photo_file(column, row)
    end = _JFIF_END + 2 * 69
    return content[_JFIF_END:end], content[end:]


def _photo_file(column: int, row: int) -> bytes:
    return _saved(_cut_out(aerial_photo(), column, row), "JPEG")


def _cut_out(sheet: Image.Image, column: int, row: int) -> Image.Image:
    left, top = column * TILE_PX, row * TILE_PX
    return sheet.crop((left, top, left + TILE_PX, top + TILE_PX))


def _saved(picture: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=72)
    return buffer.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))
