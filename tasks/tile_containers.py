"""What a picture's container says without decoding a pixel: its kind, whether it is whole, how large, and
whether it can be of one colour. Pure; microseconds for a map tile.

Whole means that the format's own end is there: PNG's IEND with its checksum, JPEG's EOI behind the header, GIF's
trailer, WebP's RIFF length, and for AVIF every box and pixel data. Bytes behind that end are tolerated, as every
viewer does. Not seen: a JPEG cut exactly behind FF D9 inside a table between two scans, or an AVIF whose last box
has no length of its own (ISO 14496-12 allows that; no encoder known to us does it).

Sources: ITU T.81, RFC 9649 (WebP), GIF89a, ISO 14496-12 and 23008-12 (AVIF).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from tasks.tile_frames import MAX_PIXELS, Frame, Kind, damaged, no_tile, truncated
from tasks.tile_png import SIGNATURE, png_frame

_SOI_AND_MARKER = b"\xff\xd8\xff"
_EOI = b"\xff\xd9"
_SOS = 0xDA
_JPEG_SEGMENT = struct.Struct(">BBH")
_JPEG_FRAME = struct.Struct(">BHHB")
_NO_FRAME = {0xC4, 0xC8, 0xCC}
"""Markers between C0 and CF that are tables."""

_RIFF_CHUNK = struct.Struct("<4sI")
_BOX = struct.Struct(">I4s")


def kind_of(body: bytes) -> Kind | None:
    """The kind of picture, by its first bytes alone; None for anything else."""
    if body.startswith(SIGNATURE):
        return "png"
    if body.startswith(_SOI_AND_MARKER):
        return "jpg"
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return "webp"
    if body.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if body[4:8] == b"ftyp":  # the brand may be the major one or, behind "mif1", a compatible one
        brands = body[8 : int.from_bytes(body[:4], "big")]
        return "avif" if b"avif" in brands or b"avis" in brands else None
    return None


def read_frame(kind: Kind, body: bytes) -> Frame:
    """Walk the container of a picture of this kind.

    Raises TransientError(truncated), TerminalError(damaged, too_large).
    """
    try:
        frame = _READERS[kind](body)
    except (IndexError, struct.error):  # the walk ran off the end
        raise truncated(kind, body) from None
    pixels = frame.width_px * frame.height_px
    if not 0 < pixels <= MAX_PIXELS:
        raise no_tile(kind, frame)
    return frame


def _jpg(body: bytes) -> Frame:
    at, marker, frame_at = 2, 0, 0
    while marker != _SOS:
        lead, marker, length = _JPEG_SEGMENT.unpack_from(body, at)
        if lead != 0xFF:
            raise damaged("jpg")
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            frame_at = at + 4
        at += 2 + length
    # Inside scans FF is followed by 00 or a restart: FF D9 behind the header is the end, in a thumbnail it is not.
    end = len(body) - 2 if body.endswith(_EOI) and len(body) - 2 >= at else body.rfind(_EOI, at)
    if end < 0:
        raise truncated("jpg", body)
    if not frame_at:
        raise damaged("jpg")
    return _jpg_frame(body, frame_at, end - at)


def _jpg_frame(body: bytes, frame_at: int, pixel_bytes: int) -> Frame:
    _, height, width, components = _JPEG_FRAME.unpack_from(body, frame_at)
    factors = [body[frame_at + 7 + 3 * number] for number in range(components)]
    across, down = max((f >> 4 for f in factors), default=0), max((f & 15 for f in factors), default=0)
    if not across or not down:
        raise damaged("jpg")
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    blocks = units * sum((f >> 4) * (f & 15) for f in factors)
    # An 8 x 8 block that differs in nothing takes 6 bits with the usual Huffman tables (T.81 K.3); a progressive
    # picture takes fewer, and ten small tables.
    return Frame(width, height, pixel_bytes <= blocks * 3 // 4 + 320)


def _webp(body: bytes) -> Frame:
    end = int.from_bytes(body[4:8], "little") + 8
    if len(body) < end:
        raise truncated("webp", body)
    at, pixel_bytes = 12, 0
    while at < end:
        name, length = _RIFF_CHUNK.unpack_from(body, at)
        at += 8 + length + length % 2
        if name in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF"):
            pixel_bytes += length
    if at > end + 1 or not pixel_bytes:  # + 1: a padding byte left out at the end
        raise damaged("webp")
    width, height = _webp_size(body)
    return Frame(width, height, pixel_bytes <= width * height // 64 + 256)


def _webp_size(body: bytes) -> tuple[int, int]:
    match body[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(body[24:27], "little"), 1 + int.from_bytes(body[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(body[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(body[26:28], "little") & 0x3FFF, int.from_bytes(body[28:30], "little") & 0x3FFF
    raise damaged("webp")


def _gif(body: bytes) -> Frame:
    width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
    at, pixel_bytes = 13 + _colour_table(body[10]), 0
    while (block := body[at]) != 0x3B:
        if block == 0x2C:
            begin = at + 11 + _colour_table(body[at + 9])
            at = _behind_sub_blocks(body, begin)
            pixel_bytes += at - begin
        elif block == 0x21:
            at = _behind_sub_blocks(body, at + 2)
        else:
            raise damaged("gif")
    if not pixel_bytes:
        raise damaged("gif")
    return Frame(width, height, pixel_bytes <= width * height // 128 + 320)


def _colour_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_sub_blocks(body: bytes, at: int) -> int:
    while length := body[at]:
        at += length + 1
    return at + 1


def _avif(body: bytes) -> Frame:
    at, pixel_bytes = 0, 0
    while at < len(body):
        length, name = _BOX.unpack_from(body, at)
        if length == 1:
            length = int.from_bytes(body[at + 8 : at + 16], "big")
        elif length == 0:
            length = len(body) - at
        if length < 8:
            raise damaged("avif")
        at += length
        pixel_bytes += length if name == b"mdat" else 0
    if at > len(body) or not (pixel_bytes or b"idat" in body):
        raise truncated("avif", body)
    size_at = body.find(b"ispe") + 8
    if size_at < 8:
        raise damaged("avif")
    width, height = struct.unpack_from(">II", body, size_at)
    return Frame(width, height, pixel_bytes <= width * height // 512 + 320)


_READERS: dict[Kind, Callable[[bytes], Frame]] = {
    "png": png_frame,
    "jpg": _jpg,
    "webp": _webp,
    "gif": _gif,
    "avif": _avif,
}
