"""Sample sites as pilots bring them home: `{Pilot}/{SiteID-Date-Client}`, folders of photos with known positions.

A few photos are as in the field: without a position, far off, cut short.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from tasks.sample.photo_tags import Shot
from tasks.sample.photos import PhotoKind, make_photo

FOLDERS = ("Orbit 1", "Orbit 2", "Scan", "Center", "Downlook", "Uplook", "Civil", "Access Road")
_RADII_M = {"Orbit 1": 30.0, "Orbit 2": 45.0, "Scan": 60.0, "Center": 5.0, "Downlook": 12.0, "Uplook": 12.0}
_METRES_A_DEGREE = 111_320.0
_FLOWN = datetime(2024, 5, 6, 15, 0, tzinfo=UTC)


class Site(NamedTuple):
    """A site folder and the mast in its middle, in degrees."""

    path: str
    latitude: float
    longitude: float
    ground_m: float


SITES = (
    Site("Ada/10234567-2024-05-06-Acme Towers", 43.4674, -111.8851, 1432.0),
    Site("Ada/10234890-2024-05-07-Acme Towers", 43.5012, -112.0204, 1440.0),
    Site("Ben/20987654-20240611-Borough", 50.1011, 14.4032, 205.0),
)


class Photo(NamedTuple):
    """A file to be: its path below the root, what it says, and whether it is cut short."""

    path: str
    shot: Shot
    kind: PhotoKind
    damaged: bool


def photos_of(site: Site, a_folder: int) -> Iterator[Photo]:
    """The photos of a site, `a_folder` in each of its folders; the same every time."""
    for place, folder in enumerate(FOLDERS):
        for number in range(a_folder):
            kind = (PhotoKind.JPEG, PhotoKind.JPEG, PhotoKind.JPEG, PhotoKind.WEBP)[number % 4]
            shot = _shot(site, folder, place, number, a_folder)
            damaged = folder == "Scan" and number == 4
            yield Photo(f"{site.path}/{folder}/DJI_{place}{number:04d}.{kind}", shot, kind, damaged)


def _shot(site: Site, folder: str, place: int, number: int, a_folder: int) -> Shot:
    if folder == "Center" and number == 1:
        return Shot(None)  # the receiver had no fix
    angle = 2 * math.pi * number / a_folder
    radius_m = _RADII_M.get(folder, 150.0 + 10 * number)
    if folder == "Orbit 2" and number == 2:
        radius_m = 9_000.0  # of another site, put into the wrong folder
    north_m, east_m = radius_m * math.cos(angle), radius_m * math.sin(angle)
    latitude = site.latitude + north_m / _METRES_A_DEGREE
    longitude = site.longitude + east_m / _METRES_A_DEGREE / math.cos(math.radians(site.latitude))
    height_m = 0.0 if folder in ("Civil", "Access Road") else 40.0 + 3 * place
    return Shot(
        (round(latitude, 7), round(longitude, 7)),
        altitude_m=round(site.ground_m + height_m, 2),
        relative_altitude_m=height_m,
        direction_deg=round(math.degrees(angle + math.pi) % 360, 1),
        taken_at=_FLOWN + timedelta(seconds=4 * number, hours=place),
    )


def lay_out(root: Path, a_folder: int) -> int:
    """Write the sample's files below `root` where they are not there yet; returns how many there are."""
    count = 0
    for site in SITES:
        for number, photo in enumerate(photos_of(site, a_folder)):
            path = root / photo.path
            count += 1
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                body = make_photo(photo.kind, photo.shot, number)
                path.write_bytes(body[:40] if photo.damaged else body)
                os.utime(path, (_FLOWN.timestamp(), _FLOWN.timestamp()))
    return count
