"""PNG without decoding it: whether all chunks are there and right, and a quick look for a second colour. Pure.

Source: PNG specification, third edition (W3C).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from tasks.tile_frames import Frame, damaged, truncated

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_IEND_CRC = b"\xaeB`\x82"
_HEAD = struct.Struct(">I4sIIBBxxB")
_CHUNK = struct.Struct(">I4s")
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ROWS = 16
"""Rows that are unpacked at a time."""


def png_frame(body: bytes) -> Frame:
    """Walk the chunks to IEND and its checksum.

    Raises struct.error where they run off the end, TransientError(truncated), TerminalError(damaged).
    """
    _, name, width, height, depth, colour, interlaced = _HEAD.unpack_from(body, len(SIGNATURE))
    if name != b"IHDR" or colour not in _SAMPLES:
        raise damaged("png")
    data_bytes = end = 0
    for name, begin, length in _chunks(body):
        end = begin + length
        if name == b"IDAT":
            data_bytes += length
    if body[end : end + 4] != _IEND_CRC:
        raise truncated("png", body)
    raw_bytes = height * (width * depth * _SAMPLES[colour] // 8 + 1)
    # deflate's fixed codes, the dearest, need 13 bits for 258 equal bytes, and some more where a row ends
    return Frame(width, height, data_bytes <= raw_bytes // 150 + (8 if interlaced else 4) * height + 64)


def has_broken_chunk(png: bytes) -> bool:
    """Whether a checksum of a whole PNG is wrong: its pixels or tables are then not what was drawn."""
    view = memoryview(png)
    return any(
        zlib.crc32(view[begin - 4 : begin + length]) != int.from_bytes(png[begin + length : begin + length + 4], "big")
        for _, begin, length in _chunks(png)
    )


def shows_two_colours(png: bytes) -> bool:
    """Whether some row of a whole PNG has two colours: known long before the picture would be decoded.

    Whatever its filter (clause 9), a row of one colour repeats its second pixel to the end. False: perhaps not.
    """
    _, _, width, _, depth, colour, interlaced = _HEAD.unpack_from(png, len(SIGNATURE))
    bits = depth * _SAMPLES[colour]
    pixel, row_bytes = max(1, bits // 8), (width * bits + 7) // 8 + 1
    inflating, data = zlib.decompressobj(), b"" if interlaced else _image_data(png)
    try:
        while rows := inflating.decompress(data, _ROWS * row_bytes):
            data = inflating.unconsumed_tail
            for row in range(0, len(rows) - row_bytes + 1, row_bytes):
                rest = rows[row + 1 + pixel : row + row_bytes - 1]  # the last byte may be filled up with zeros
                if rest[pixel:] != rest[:-pixel]:
                    return True
    except zlib.error:
        pass  # for the decoder to say
    return False


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and length of the data of every chunk up to IEND."""
    at, name = len(SIGNATURE), b""
    while name != b"IEND":
        length, name = _CHUNK.unpack_from(png, at)
        yield name, at + 8, length
        at += length + 12


def _image_data(png: bytes) -> bytes:
    return b"".join(png[begin : begin + length] for name, begin, length in _chunks(png) if name == b"IDAT")
