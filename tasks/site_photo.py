"""One photo of a site, as every product tells it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from tasks.exif import Flag
from tasks.site_folders import category_of

_DEGREE_DIGITS = 9  # 0.1 mm
_METRE_DIGITS = 3
_SURROGATE = re.compile("[\ud800-\udfff]")


class Position(NamedTuple):
    """Signed degrees, WGS 84."""

    latitude: float
    longitude: float


@dataclass(frozen=True, slots=True)
class SitePhoto:
    """A row of the photos' table. None: not known.

    site     path of the site's folder below the root, `Pilot/Folder`
    folder   path of the photo's folder below the site's; empty for the site's own
    path     of the file on its server; bytes that are no UTF-8 are lone surrogates
    flag     `tasks.exif.Flag`, None when the photo was not read
    outlier  as `tasks.site_outliers.find_outliers` says
    status   `tasks.records.Status`

    The others are as in `tasks.exif.PhotoFacts`; taken_at may be text.
    """

    site: str
    folder: str
    path: str
    flag: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    altitude_ref: int | None = None
    relative_altitude_m: float | None = None
    direction_deg: float | None = None
    taken_at: datetime | str | None = None
    camera: str | None = None
    size: int | None = None
    outlier: bool = False
    status: str = "completed"

    @property
    def position(self) -> Position | None:
        """Where it was taken, as far as it says so. A receiver that distrusted itself counts, 0, 0 does not."""
        if self.latitude is None or self.longitude is None or self.flag == Flag.NULL_ISLAND:
            return None
        return Position(self.latitude, self.longitude)

    @property
    def trusted(self) -> bool:
        """Whether its position is beyond doubt, so that others may be judged by it."""
        return self.flag == Flag.OK and self.position is not None

    @property
    def settled(self) -> bool:
        """Whether it shows where its site is."""
        return self.trusted and not self.outlier


Fact = str | int | float | bool | None


def in_order(photos: Iterable[SitePhoto]) -> list[SitePhoto]:
    """By site, folder and path: the order of every product, so that the same photos give the same bytes."""
    return sorted(photos, key=lambda photo: (photo.site, photo.folder, photo.path))


def described(photo: SitePhoto) -> dict[str, Fact]:
    """Everything that is said of a photo, by the names that all products share; text is safe to encode."""
    return {
        "site": printable(photo.site),
        "folder": printable(photo.folder),
        "category": str(category_of(photo.folder)),
        "path": printable(photo.path),
        "status": photo.status,
        "flag": photo.flag,
        "outlier": photo.outlier,
        "latitude": _rounded(photo.latitude, _DEGREE_DIGITS),
        "longitude": _rounded(photo.longitude, _DEGREE_DIGITS),
        "altitude_m": _rounded(photo.altitude_m, _METRE_DIGITS),
        "altitude_ref": photo.altitude_ref,
        "relative_altitude_m": _rounded(photo.relative_altitude_m, _METRE_DIGITS),
        "direction_deg": _rounded(photo.direction_deg, _METRE_DIGITS),
        "taken_at": photo.taken_at.isoformat() if isinstance(photo.taken_at, datetime) else photo.taken_at,
        "camera": None if photo.camera is None else printable(photo.camera),
        "size": photo.size,
    }


def printable(text: str) -> str:
    """The text with `\\xe9` for every byte that is no UTF-8: no format can hold lone surrogates."""
    return _SURROGATE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else f"\\u{number:04x}"


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)
