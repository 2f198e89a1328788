"""Positions in XMP packets: those of DJI's drones, and the standard ones. Pure.

A packet is searched as text, piece by piece, until what is wanted is found: it may be 64 KB long and mostly
padding, and its XML need not be whole. Sources: Adobe XMP specification part 2 (exif: GPSCoordinate); packets of
DJI cameras, whose `GpsLongtitude` is spelt so by firmware before 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.exif_ranges import Broken, OverBudget, Steps, Window

_PIECE_BYTES = 8 * 1024
_FIRST_BYTES = 1536  # DJI's own properties come first; that much is in hand when the packet's head is
_MAX_BYTES = 64 * 1024
_END = b"</x:xmpmeta>"
_PROPERTY = re.compile(
    rb"(?<=[\s<])(drone-dji:(?:RelativeAltitude|GpsLatitude|GpsLongitude|GpsLongtitude)|exif:GPS(?:Latitude|Longitude))"
    rb"""(?:\s*=\s*["']([^"'<]{1,40})["']|>([^<]{1,40})<)"""
)
_DECIMAL = re.compile(r"\s*([+-]?\d{1,9}(?:\.\d*)?)\s*")
_COORDINATE = re.compile(r"\s*(\d{1,3}),(\d{1,2}(?:\.\d*)?)(?:,(\d{1,2}(?:\.\d*)?))?([NSEW])\s*")


@dataclass(frozen=True, slots=True)
class Xmp:
    """Signed degrees (WGS 84) and metres above the take-off point; None for what the packet does not say."""

    latitude: float | None
    longitude: float | None
    relative_altitude_m: float | None


def read_xmp(packet: Window, *, position: bool) -> Steps[Xmp]:
    """What a packet says, from as little of it as will do; of one that is cut off, what is there.

    position  False when the height above take-off is all that is wanted
    """
    whole = min(packet.length, _MAX_BYTES)
    length, found = min(whole, _FIRST_BYTES), Xmp(None, None, None)
    while True:
        try:
            content = yield from packet.read(0, length)
        except (Broken, OverBudget):
            return found
        found = _facts(_properties(content))
        complete = found.relative_altitude_m is not None and not (position and found.latitude is None)
        if complete or length == whole or _END in content:
            return found
        length = min(whole, length + _PIECE_BYTES)


def _properties(packet: bytes) -> dict[str, str]:
    return {name.decode(): (one or other).decode("latin-1") for name, one, other in _PROPERTY.findall(packet)}


def _facts(found: Mapping[str, str]) -> Xmp:
    dji = {name.removeprefix("drone-dji:"): _decimal(value) for name, value in found.items()}
    longitude = dji.get("GpsLongitude", dji.get("GpsLongtitude"))
    pairs = [
        (dji.get("GpsLatitude"), longitude),
        (_coordinate(found.get("exif:GPSLatitude", ""), "NS"), _coordinate(found.get("exif:GPSLongitude", ""), "EW")),
    ]
    latitude, longitude = next((pair for pair in pairs if None not in pair), (None, None))
    return Xmp(latitude, longitude, dji.get("RelativeAltitude"))


def _decimal(written: str) -> float | None:
    found = _DECIMAL.fullmatch(written)
    return float(found[1]) if found else None


def _coordinate(written: str, letters: str) -> float | None:
    """`43,28.0353N` or `43,28,2N`."""
    found = _COORDINATE.fullmatch(written)
    if not found or found[4] not in letters:
        return None
    size = int(found[1]) + float(found[2]) / 60 + float(found[3] or 0) / 3600
    return -size if found[4] == letters[1] else size
