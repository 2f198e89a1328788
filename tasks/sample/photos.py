"""Sample site photos with known positions: small pictures with the tags that drones and cameras write.

The pictures are drawn and compressed once and kept; a photo is one of them with its own tags put in, which
takes microseconds: the same shot, the same bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache

from PIL import Image, ImageDraw

from tasks.sample.chance import seeded
from tasks.sample.drawing import noise
from tasks.sample.photo_tags import Shot, exif_block, longs, octets, shorts, xmp_packet

PICTURES = 8
"""How many different pictures there are of each kind."""

_SIZE_PX = (320, 240)
_HORIZON_PX = 130


class PhotoKind(StrEnum):
    """The file's ending."""

    JPEG = "jpg"
    PNG = "png"
    TIFF = "tif"
    WEBP = "webp"


def make_photo(kind: PhotoKind, shot: Shot, picture: int = 0) -> bytes:
    """A photo file of 10-60 KB, 320 x 240 px, that any viewer opens.

    picture  which of the `PICTURES` it shows, modulo their number
    """
    return _MAKERS[kind](shot, picture % PICTURES)


@lru_cache(maxsize=PICTURES)
def _scene(picture: int) -> Image.Image:
    """A mast on a field, seen from one of several sides."""
    image = Image.new("RGB", _SIZE_PX, (170, 200, 230))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, _HORIZON_PX, *_SIZE_PX), fill=(90 + 6 * picture, 130, 70))
    draw.polygon([(0, _HORIZON_PX), (60 + 30 * picture, 95), (200 + 15 * picture, _HORIZON_PX)], fill=(120, 150, 120))
    middle = 60 + 27 * picture
    draw.polygon([(middle - 18, 205), (middle, 25), (middle + 18, 205)], outline=(70, 70, 80), width=3)
    for top in range(50, 205, 22):
        half = (top - 25) // 10
        draw.line((middle - half, top, middle + half, top), fill=(200, 60, 50), width=3)
    draw.rectangle((middle + 25, 180, middle + 65, 208), fill=(225, 220, 210), outline=(60, 60, 60))
    grain = noise(seeded(f"scene {picture}"), _SIZE_PX).convert("RGB")
    return Image.blend(image, grain, 0.1)


@lru_cache(maxsize=3 * PICTURES)
def _compressed(picture: int, form: str) -> bytes:
    buffer = io.BytesIO()
    _scene(picture).save(buffer, form, quality=92)
    return buffer.getvalue()


def _jpeg(shot: Shot, picture: int) -> bytes:
    bare, packet = _compressed(picture, "JPEG"), xmp_packet(shot)
    labelled = [b"Exif\0\0" + exif_block(shot), b"http://ns.adobe.com/xap/1.0/\0" + packet if packet else b""]
    segments = [struct.pack(">2sH", b"\xff\xe1", 2 + len(content)) + content for content in labelled if content]
    return bare[:2] + b"".join(segments) + bare[2:]


def _png(shot: Shot, picture: int) -> bytes:
    bare, packet = _compressed(picture, "PNG"), xmp_packet(shot)
    chunks = [(b"eXIf", exif_block(shot)), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet if packet else b"")]
    made = [_chunk(kind, content) for kind, content in chunks if content]
    header_end = 8 + 25  # the magic number and IHDR
    return bare[:header_end] + b"".join(made) + bare[header_end:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _webp(shot: Shot, picture: int) -> bytes:
    packet = xmp_packet(shot)
    width, height = (side - 1 for side in _SIZE_PX)
    flags = 8 | (4 if packet else 0)  # there is an EXIF chunk, there is an XMP chunk
    extended = bytes([flags, 0, 0, 0]) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
    chunks = _riff(b"VP8X", extended) + _compressed(picture, "WEBP")[12:] + _riff(b"EXIF", exif_block(shot))
    return _riff(b"RIFF", b"WEBP" + chunks + (_riff(b"XMP ", packet) if packet else b""))


def _riff(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


@lru_cache(maxsize=PICTURES)
def _strip(picture: int) -> bytes:
    return zlib.compress(_scene(picture).tobytes())


def _tiff(shot: Shot, picture: int) -> bytes:
    strip, packet = _strip(picture), xmp_packet(shot)
    width, height = _SIZE_PX
    tags = {256: shorts(width), 257: shorts(height), 258: shorts(8, 8, 8), 259: shorts(8), 262: shorts(2)}
    tags |= {273: longs(8), 277: shorts(3), 278: shorts(height), 279: longs(len(strip))}
    return exif_block(shot, tags | ({700: octets(packet)} if packet else {}), before=strip)


_MAKERS: dict[PhotoKind, Callable[[Shot, int], bytes]] = {
    PhotoKind.JPEG: _jpeg,
    PhotoKind.PNG: _png,
    PhotoKind.TIFF: _tiff,
    PhotoKind.WEBP: _webp,
}
