"""What the GPS tags of a photo say, and how far that can be believed. Pure.

Source: CIPA DC-008-2023 (Exif 3.0), section 4.6.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tasks.exif_values import Value, degrees, gps_time, number, numbers, text

GPS_VERSION = 0
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4
_ALTITUDE_REF, _ALTITUDE = 5, 6
_TIME, _STATUS = 7, 9
_DIRECTION_REF, _DIRECTION = 16, 17
_DATE = 29
GPS_TAGS = (
    *(_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE, _ALTITUDE_REF, _ALTITUDE),
    *(_TIME, _STATUS, _DIRECTION_REF, _DIRECTION, _DATE),
)
_BELOW = (1, 3)
_DIGITS = {"0": 0, "1": 1, "2": 2, "3": 3}
_NULL_ISLAND_DEG = 1e-6


class Flag(StrEnum):
    """What became of a photo's position. Only UNREADABLE and TOO_LARGE say that the photo could not be read."""

    OK = "ok"
    NO_GPS = "no_gps"
    """No GPS tags at all, or nothing in them but their version: the camera has no receiver."""
    NO_FIX = "no_fix"
    """GPS tags, but no position among them, or one that is not on earth."""
    NULL_ISLAND = "null_island"
    """0, 0: what some receivers write before they know."""
    MISSING_REF = "missing_ref"
    """A position that does not say north or south, or east or west."""
    ZERO_DENOMINATOR = "zero_denominator"
    """Degrees or minutes divided by zero, or not a number."""
    VOID = "void"
    """The receiver said that its position is not to be trusted (GPSStatus V)."""
    UNREADABLE = "unreadable"
    """Not a photo, or one whose structure is broken on the way to its GPS tags."""
    TOO_LARGE = "too_large"
    """Reaching the GPS tags would have cost more bytes or asks than allowed."""


class DirectionRef(StrEnum):
    """What north a direction is measured from."""

    TRUE = "true"
    MAGNETIC = "magnetic"


@dataclass(frozen=True, slots=True)
class Gps:
    """The GPS tags of one photo; fields as in `tasks.exif.PhotoFacts`. utc: GPS date and time."""

    flag: Flag
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    altitude_ref: int | None = None
    direction_deg: float | None = None
    direction_ref: DirectionRef | None = None
    utc: datetime | None = None


def read_gps(tags: Mapping[int, Value], *, present: bool = True) -> Gps:
    """The GPS directory's values as facts.

    present  False when the directory holds nothing but its version
    """
    flag, latitude, longitude = _position(tags) if present else (Flag.NO_GPS, None, None)
    altitude_ref = _altitude_ref(tags.get(_ALTITUDE_REF))
    return Gps(
        flag,
        latitude,
        longitude,
        _altitude(number(tags.get(_ALTITUDE)), altitude_ref),
        altitude_ref,
        _direction(number(tags.get(_DIRECTION))),
        _direction_ref(text(tags.get(_DIRECTION_REF))),
        gps_time(text(tags.get(_DATE)), numbers(tags.get(_TIME))),
    )


def judged(latitude: float, longitude: float) -> Flag:
    """OK, NULL_ISLAND or NO_FIX for signed degrees (WGS 84)."""
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return Flag.NO_FIX
    near = max(abs(latitude), abs(longitude)) < _NULL_ISLAND_DEG
    return Flag.NULL_ISLAND if near else Flag.OK


def _position(tags: Mapping[int, Value]) -> tuple[Flag, float | None, float | None]:
    void = text(tags.get(_STATUS)).upper().startswith("V")
    flag, latitude, longitude = _unquestioned(tags)
    return Flag.VOID if void else flag, latitude, longitude


def _unquestioned(tags: Mapping[int, Value]) -> tuple[Flag, float | None, float | None]:
    """The position as the receiver wrote it, whatever it thought of it."""
    if _LATITUDE not in tags or _LONGITUDE not in tags:
        return Flag.NO_FIX, None, None
    latitude, longitude = degrees(numbers(tags[_LATITUDE])), degrees(numbers(tags[_LONGITUDE]))
    if math.isnan(latitude) or math.isnan(longitude):
        return Flag.ZERO_DENOMINATOR, None, None
    flag = judged(latitude, longitude)
    if flag is Flag.NULL_ISLAND:
        return flag, 0.0, 0.0
    south = _is_negative(text(tags.get(_LATITUDE_REF)), "NS")
    west = _is_negative(text(tags.get(_LONGITUDE_REF)), "EW")
    if flag is Flag.NO_FIX:
        return flag, None, None
    if south is None or west is None:
        return Flag.MISSING_REF, None, None
    return flag, -abs(latitude) if south else latitude, -abs(longitude) if west else longitude


def _is_negative(ref: str, letters: str) -> bool | None:
    """Whether a reference is the second of its two letters; None when it is neither."""
    letter = ref[:1].upper()
    return letter == letters[1] if letter and letter in letters else None


def _altitude_ref(value: Value | None) -> int | None:
    """0-3; some writers give the digit instead of the number."""
    code = number(value)
    if code is None or code >= ord("0"):
        code = _DIGITS.get(text(value))
    return int(code) if code is not None and 0 <= code <= 3 else None


def _altitude(metres: float | None, ref: int | None) -> float | None:
    return -abs(metres) if metres is not None and ref in _BELOW else metres


def _direction(found: float | None) -> float | None:
    return found if found is not None and 0 <= found <= 360 else None


def _direction_ref(written: str) -> DirectionRef | None:
    return {"T": DirectionRef.TRUE, "M": DirectionRef.MAGNETIC}.get(written[:1].upper())
