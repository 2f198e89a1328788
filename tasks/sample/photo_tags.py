"""The Exif block and the XMP packet of a sample photo.

Sources: TIFF 6.0, section 2; CIPA DC-008-2023 (Exif 3.0), sections 4.6 and 4.7; the packets of DJI's cameras.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL = 1, 2, 3, 4, 5
_SECOND_PARTS = 1_000_000  # of arc: 0.03 mm
_PARTS = 1000  # of metres, degrees of direction, seconds of time


@dataclass(frozen=True, slots=True)
class Shot:
    """What a photo says of itself; None: nothing.

    position        latitude and longitude, signed degrees, WGS 84
    altitude_m, relative_altitude_m   above sea level, above the place of take-off
    direction_deg   0-360, clockwise from true north
    taken_at        with a zone it is written as GPS time as well; without, as the camera's alone
    camera          maker and model
    """

    position: tuple[float, float] | None
    altitude_m: float | None = None
    relative_altitude_m: float | None = None
    direction_deg: float | None = None
    taken_at: datetime | None = None
    camera: tuple[str, str] = ("DJI", "FC6310")


@dataclass(frozen=True, slots=True)
class Tag:
    """A value as a directory keeps it: type, count, little-endian bytes."""

    kind: int
    count: int
    raw: bytes


Tags = dict[int, Tag]


def shorts(*values: int) -> Tag:
    """16-bit numbers."""
    return Tag(_SHORT, len(values), struct.pack(f"<{len(values)}H", *values))


def longs(*values: int) -> Tag:
    """32-bit numbers."""
    return Tag(_LONG, len(values), struct.pack(f"<{len(values)}I", *values))


def octets(raw: bytes) -> Tag:
    """Bytes."""
    return Tag(_BYTE, len(raw), raw)


def exif_block(shot: Shot, further: Mapping[int, Tag] | None = None, before: bytes = b"") -> bytes:
    """A little-endian TIFF that says what the shot says.

    further  more tags of its first directory
    before   what lies between the header and the directories, from offset 8 on
    """
    block = bytearray(8) + before + bytes(len(before) % 2)
    links = {}
    for link, tags in ((34665, _exif_tags(shot)), (34853, _gps_tags(shot))):
        if tags:
            links[link] = longs(len(block))
            block += _directory(tags, len(block))
    block[:8] = struct.pack("<2sHI", b"II", 42, len(block))
    camera = {271: _text(shot.camera[0]), 272: _text(shot.camera[1])}
    return bytes(block + _directory({**camera, **links, **(further or {})}, len(block)))


def xmp_packet(shot: Shot) -> bytes:
    """DJI's packet; empty when the height above take-off is not known."""
    if shot.relative_altitude_m is None:
        return b""
    said = {"AbsoluteAltitude": shot.altitude_m, "RelativeAltitude": shot.relative_altitude_m}
    lines = [f'   drone-dji:{name}="{value:+.3f}"' for name, value in said.items() if value is not None]
    return "\n".join((
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>',
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">',
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">',
        '  <rdf:Description rdf:about="DJI Meta Data" xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"',
        *lines,
        '  />\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>',
    )).encode()  # fmt: skip


def _exif_tags(shot: Shot) -> Tags:
    taken = shot.taken_at
    if taken is None:
        return {}
    tags = {36867: _text(f"{taken:%Y:%m:%d %H:%M:%S}")}
    if taken.tzinfo:
        tags[36881] = _text(taken.isoformat()[-6:])  # +02:00
    return tags


def _gps_tags(shot: Shot) -> Tags:
    if shot.position is None:
        return {}
    (latitude, longitude), taken = shot.position, shot.taken_at
    tags = {0: octets(b"\2\3\0\0")}
    tags |= {1: _text("S" if latitude < 0 else "N"), 2: _degrees(latitude)}
    tags |= {3: _text("W" if longitude < 0 else "E"), 4: _degrees(longitude)}
    if shot.altitude_m is not None:
        tags |= {5: octets(bytes([shot.altitude_m < 0])), 6: _decimals(abs(shot.altitude_m))}
    if taken and taken.tzinfo:
        utc = taken.astimezone(UTC)
        tags |= {7: _decimals(utc.hour, utc.minute, utc.second + utc.microsecond / 1e6), 29: _text(f"{utc:%Y:%m:%d}")}
    if shot.direction_deg is not None:
        tags |= {16: _text("T"), 17: _decimals(shot.direction_deg)}
    return tags


def _text(text: str) -> Tag:
    raw = text.encode("ascii", "replace") + b"\0"
    return Tag(_ASCII, len(raw), raw)


def _decimals(*values: float) -> Tag:
    pairs = [(round(value * _PARTS), _PARTS) for value in values]
    return Tag(_RATIONAL, len(pairs), b"".join(struct.pack("<II", *pair) for pair in pairs))


def _degrees(angle: float) -> Tag:
    minutes, seconds = divmod(round(abs(angle) * 3600 * _SECOND_PARTS), 60 * _SECOND_PARTS)
    parts = struct.pack("<6I", minutes // 60, 1, minutes % 60, 1, seconds, _SECOND_PARTS)
    return Tag(_RATIONAL, 3, parts)


def _directory(tags: Mapping[int, Tag], start: int) -> bytes:
    """A directory at offset `start`, the last of its file, and the values that do not fit into it."""
    after = start + 2 + 12 * len(tags) + 4
    entries, values = bytearray(), bytearray()
    for number, tag in sorted(tags.items()):
        entries += struct.pack("<HHI", number, tag.kind, tag.count)
        if len(tag.raw) <= 4:
            entries += tag.raw.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", after + len(values))
            values += tag.raw + bytes(len(tag.raw) % 2)
    return struct.pack("<H", len(tags)) + bytes(entries) + bytes(4) + bytes(values)
