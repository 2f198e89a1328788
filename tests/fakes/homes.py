"""Site folders as pilots bring them home, written quickly: the bulk of the tests of photos."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.sample.photo_tags import Shot
from tasks.sample.photos import PhotoKind, make_photo

MAST = (43.4674, -111.8851)
GROUND_M = 1432.0
FLOWN = datetime(2024, 5, 6, 15, 0, tzinfo=UTC)
SITE = "Ada/10234567-2024-05-06-Acme Towers"

FIELD_FOLDERS = {
    **{f"Orbit {height}ft": 96 for height in (40, 60, 80, 100, 120, 140, 160, 180)},
    "Orbit 200ft": 130,
    "Scan": 168,
    "Scan 2": 88,
    "Center": 48,
    "Downlook": 64,
    "Uplook": 60,
    "Civil": 42,
    "Civil/Foundation": 20,
    "Access Road": 36,
    "RF": 38,
    "Compound": 24,
}
"""Folder -> photos: 1,486 in 19, as one site of the field has."""


def shot(folder: str, number: int, count: int) -> Shot:
    """Where the n-th photo of a folder was taken: round the mast, over the ground in lines, or along the road."""
    height_m = 12.0 * (len(folder) % 5) + 20.0
    angle = 2 * math.pi * number / count
    if "Scan" in folder:
        row, place = divmod(number, 14)
        east_m, north_m = 12.0 * (place if row % 2 else 13 - place) - 78, 12.0 * row - 66
    elif "Road" in folder:
        east_m, north_m, height_m = 40 + 14.0 * number, -35 - 3.0 * number, 1.5
    else:
        radius_m = {"Center": 3.0, "Downlook": 9.0, "Uplook": 14.0}.get(folder, 28.0 + len(folder) % 4)
        east_m, north_m = radius_m * math.sin(angle), radius_m * math.cos(angle)
        digits = "".join(c for c in folder if c.isdigit())
        height_m = 0.3 * int(digits) if digits else 1.6 if "Civil" in folder else height_m
    latitude = MAST[0] + north_m / 111_130
    longitude = MAST[1] + east_m / (111_320 * math.cos(math.radians(MAST[0])))
    return Shot(
        (round(latitude, 7), round(longitude, 7)),
        altitude_m=round(GROUND_M + height_m, 2),
        relative_altitude_m=round(height_m, 1),
        direction_deg=round(math.degrees(angle + math.pi) % 360, 1),
        taken_at=FLOWN + timedelta(seconds=3 * number),
    )


def write_site(homes: Path, folders: Mapping[str, int], site: str = SITE) -> dict[Path, Shot]:
    """A site's photos, readable by everybody, and where each was taken."""
    written = {}
    for folder, count in folders.items():
        (homes / site / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = homes / site / folder / f"DJI_{number:04d}.JPG"
            written[path] = shot(folder, number, count)
            path.write_bytes(make_photo(PhotoKind.JPEG, written[path], number))
            os.utime(path, (FLOWN.timestamp(), FLOWN.timestamp()))
    return written
