"""What the names of site folders and photo files say. Pure.

Photos lie in `{Pilot}/{SiteID-Date-Client}/...`, typed by hand in the field: every spelling of a date occurs.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from datetime import date

from tasks.site_photo import printable

PHOTO_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dng", ".heic", ".webp"})

_APPLE_DOUBLE = "._"  # what macOS leaves beside each file on foreign disks: the same ending, no picture
_SITE_ID = re.compile(r"(?<![0-9])[0-9]{8,10}(?![0-9])")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_YEAR, _YEAR_2, _DAY, _GAP = r"(?P<y>20\d\d)", r"(?P<y>(?:20)?\d\d)", r"(?P<d>\d\d?)", r"[-_. ,]*"
_MONTH_TAILS = "uary|ruary|ch|il|e|y|ust|t|tember|ober|ember"
_MONTH = rf"(?<![a-z])(?P<m>{'|'.join(_MONTHS)})(?:{_MONTH_TAILS})?(?![a-z])"
_DATES = [
    re.compile(rf"(?<!\d){spelling}(?!\d)", re.ASCII | re.IGNORECASE)
    for spelling in (
        rf"{_YEAR}(?P<gap>[-_. ])(?P<m>\d\d?)(?P=gap){_DAY}",  # 2024-05-06
        rf"(?P<m>\d\d?)(?P<gap>[-_. ]){_DAY}(?P=gap){_YEAR_2}",  # 05-06-2024, 5.6.24: the month is first
        rf"{_DAY}(?P<gap>[-_. ])(?P<m>\d\d?)(?P=gap){_YEAR_2}",  # 16-05-2024: unless it cannot be
        rf"{_YEAR}(?P<m>\d\d)(?P<d>\d\d)",  # 20240506
        rf"(?P<m>\d\d)(?P<d>\d\d){_YEAR}",  # 05062024
        rf"(?P<d>\d\d)(?P<m>\d\d){_YEAR}",  # 16052024
        rf"{_DAY}(?:st|nd|rd|th)?{_GAP}{_MONTH}{_GAP}{_YEAR_2}",  # 6 May 2024, 06MAY24
        rf"{_MONTH}{_GAP}{_DAY}(?:st|nd|rd|th)?[-_. ,]+{_YEAR_2}",  # May 6, 2024
        rf"{_YEAR}{_GAP}{_MONTH}{_GAP}{_DAY}",  # 2024-May-06
        r"(?P<m>\d\d)(?P<d>\d\d)(?P<y>\d\d)",  # 050624
        r"(?P<y>\d\d)(?P<m>\d\d)(?P<d>\d\d)",  # 240506
    )
]
_EDGES = " -_.,"
_PLAIN_BYTES_MAX = 120


@dataclass(frozen=True, slots=True)
class SiteName:
    """A site folder by its name.

    folder   the name itself
    site_id  8 to 10 digits, as text: leading zeros count
    day      of the flight; None when the name gives none
    client   the rest of the name; empty when there is none
    """

    pilot: str
    folder: str
    site_id: str
    day: date | None
    client: str

    @property
    def path(self) -> str:
        """`Pilot/Folder`, below the root."""
        return f"{self.pilot}/{self.folder}"

    @property
    def label(self) -> str:
        """The path as rows, logs and the UI show it: any bytes, printable."""
        return printable(self.path)


def parse_site(pilot: str, folder: str) -> SiteName | None:
    """The site that a pilot's folder is named for; None when no run of 8 to 10 digits is in its name.

    The first such run is the site, even when it could be a date. In 05-06-2024 the month is first, unless only the
    day can be; years are 2000 to 2099.
    """
    number = _SITE_ID.search(folder)
    if number is None:
        return None
    before, after = folder[: number.start()], folder[number.end() :]
    day, rest = _without_date(after)
    if day is None:
        day, before = _without_date(before)
    words = (part.strip(_EDGES) for part in (before, rest))
    return SiteName(pilot, folder, number[0], day, " ".join(filter(None, words)))


def is_photo(name: str) -> bool:
    """Whether a file of this name is to be read: by its ending, in any case."""
    return os.path.splitext(name)[1].lower() in PHOTO_ENDINGS and not name.startswith(_APPLE_DOUBLE)  # noqa: PTH122 - a name of the server's


def store_folder(site: str) -> str:
    """A folder of the store for a site's products, from its path below the root (`Pilot/Folder`).

    Any name gives a safe key, and no two sites share one: a name that had to be changed carries a mark of its own.
    """
    return "/".join(["photos", *(_plain(part) for part in site.split("/"))])


def _plain(name: str) -> str:
    plain = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).lstrip(".")[:_PLAIN_BYTES_MAX]
    if plain == name and name:
        return name
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{plain}-{mark}" if plain else mark


def _without_date(text: str) -> tuple[date | None, str]:
    """The first spelling that gives a day, and the text without it."""
    for pattern in _DATES:
        for found in pattern.finditer(text):
            day = _day(found)
            if day:
                return day, f"{text[: found.start()].rstrip(_EDGES)} {text[found.end() :].lstrip(_EDGES)}"
    return None, text


def _day(found: re.Match[str]) -> date | None:
    month = found["m"].lower()
    number = _MONTHS.index(month) + 1 if month in _MONTHS else int(month)
    try:
        return date(2000 + int(found["y"]) % 100, number, int(found["d"]))
    except ValueError:
        return None
