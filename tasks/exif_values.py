"""Values of EXIF tags: numbers, text, coordinates, times, the name of a camera. Pure.

Source: CIPA DC-008-2023 (Exif 3.0), sections 4.6.2 (types), 4.6.5 (times) and 4.6.6 (GPS).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo

TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
    129: 1,
}
"""Bytes of one value by its type; 13 and 16-18 are libtiff's, 129 is the UTF-8 of Exif 3.0."""

_FORMATS = {
    1: "B",
    3: "H",
    4: "I",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
_RATIONALS = {5: "II", 10: "ii"}
_MAX_NAME = 64
_DATE = re.compile(r"\s*(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})")
_CLOCK = re.compile(r"[ T]+(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?(?:[.,]\d*)?\s*(Z|[+-]\d{1,2}:?\d{2})?")
_ZONE = re.compile(r"\s*(?:(Z)|([+-])(\d{1,2}):?(\d{2}))")
_GPS_EPOCH = datetime(1980, 1, 7, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Value:
    """One tag's value as the file holds it. order: `<` or `>`."""

    kind: int
    raw: bytes
    order: str


def numbers(value: Value | None) -> list[float]:
    """The numbers of a value: NaN stands for 0/0 (not known), infinity for n/0. Empty for text and for no value."""
    if value is None:
        return []
    code = _RATIONALS.get(value.kind) or _FORMATS.get(value.kind)
    if code is None:
        return []
    form = struct.Struct(value.order + code)
    whole = value.raw[: len(value.raw) // form.size * form.size]
    return [_ratio(*numbers_) for numbers_ in form.iter_unpack(whole)]


def _ratio(numerator: float, denominator: float = 1) -> float:
    if denominator:
        return numerator / denominator
    return math.inf if numerator else math.nan


def number(value: Value | None) -> float | None:
    """The first number of a value, when it is one."""
    found = numbers(value)
    return found[0] if found and math.isfinite(found[0]) else None


def text(value: Value | None) -> str:
    """Text up to its first NUL, without control characters; UTF-8, else Latin-1. Empty for no value."""
    if value is None:
        return ""
    raw = value.raw.partition(b"\0")[0]
    try:
        decoded = raw.decode()
    except UnicodeDecodeError:
        decoded = raw.decode("latin-1")
    return " ".join("".join(c if c.isprintable() else " " for c in decoded).split())


def degrees(parts: Sequence[float]) -> float:
    """Degrees from degrees, minutes and seconds, unsigned parts or all of one sign; NaN when they tell no angle.

    Seconds of 0/0 are not known, and what the degrees and minutes say is kept. Another zero denominator spoils
    the whole.
    """
    wanted = [*parts, 0.0, 0.0, 0.0][:3]
    if math.isnan(wanted[2]):
        wanted[2] = 0.0
    if not parts or not all(map(math.isfinite, wanted)):
        return math.nan
    size = sum(abs(part) / scale for part, scale in zip(wanted, (1, 60, 3600), strict=True))
    return -size if any(part < 0 for part in wanted) else size


def camera_name(make: str, model: str) -> str | None:
    """`Canon EOS 7D` from Canon and Canon EOS 7D, `NIKON D70` from NIKON CORPORATION and NIKON D70."""
    make, model = make[:_MAX_NAME].strip(), model[:_MAX_NAME].strip()
    repeated = make and model.lower().startswith(make.split()[0].lower())
    return (model if repeated else f"{make} {model}".strip()) or None


def gps_time(date: str, clock: Sequence[float]) -> datetime | None:
    """UTC from GPSDateStamp and GPSTimeStamp; None unless both are there and mean a time.

    The first day of GPS, 6 January 1980, is what receivers write before they know the time.
    """
    if len(clock) != 3 or not all(map(math.isfinite, clock)):
        return None
    when = _moment(date, clock, UTC)
    return when if when and when >= _GPS_EPOCH else None


def camera_time(written: str, offset: str) -> datetime | None:
    """DateTimeOriginal: with a zone when `offset` (OffsetTimeOriginal) or the text itself names one, else without."""
    date = _DATE.match(written)
    clock = _CLOCK.match(written, date.end()) if date else None
    if not clock:
        return None
    hours, minutes, seconds, zone = clock.groups(default="")
    return _moment(written, (float(hours), float(minutes), float(seconds or 0)), _zone(offset) or _zone(zone))


def _moment(date: str, clock: Sequence[float], zone: tzinfo | None) -> datetime | None:
    found = _DATE.match(date)
    hours, minutes, seconds = clock
    if not found or not (0 <= hours <= 24 and 0 <= minutes < 60 and 0 <= seconds < 61):  # 60: a leap second
        return None
    year, month, day = map(int, found.groups())
    if not 1900 <= year <= 9000:  # 0000 is an unset clock; far from where arithmetic overflows
        return None
    try:
        midnight = datetime(year, month, day, tzinfo=zone)
    except ValueError:
        return None
    return midnight + timedelta(hours=hours, minutes=minutes, seconds=seconds)


def _zone(written: str) -> timezone | None:
    found = _ZONE.match(written)
    if not found:
        return None
    if found[1]:
        return UTC
    offset = timedelta(hours=int(found[3]), minutes=int(found[4]))
    if offset > timedelta(hours=14):  # Kiribati, the farthest there is
        return None
    return timezone(-offset if found[2] == "-" else offset)
