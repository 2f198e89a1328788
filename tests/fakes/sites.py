"""Sites as a drone would fly them, with positions known in metres."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pyproj import Geod

from tasks.site_photo import SitePhoto

SITE = "Bob/10234567-2024-05-06-Acme"
TAKE_OFF_M = 1432.1
NASTY = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "=cmd|' /C calc'!A0",
    "+1\n2",
    "@SUM(1)\t",
    "-x\r\ny",
    "a \"quoted\", 'one'; with; everything",
    "caf\udce9 of bytes",
    "lone \ud800 half",
    "\u202ereversed\u2028line",
    "@TITLE@ @DATA@ & \\u003c",
    "日本 🗼 é",
    "\x1b[31mred",
]
_WGS84 = Geod(ellps="WGS84")


@functools.cache
def degrees(east_m: float, north_m: float, origin: tuple[float, float]) -> tuple[float, float]:
    """Latitude and longitude of a place, by geodesics of PROJ."""
    away, bearing = math.hypot(east_m, north_m), math.degrees(math.atan2(east_m, north_m))
    longitude, latitude, _ = _WGS84.fwd(origin[1], origin[0], bearing, away)
    return latitude, longitude


def photo(
    name: str,
    east_m: float,
    north_m: float,
    height_m: float | None = 0.0,
    *,
    folder: str = "Orbit",
    origin: tuple[float, float] = (43.4674, -111.8851),
    **facts: Any,
) -> SitePhoto:
    """A photo so many metres from the site's origin, above take-off."""
    latitude, longitude = degrees(east_m, north_m, origin)
    told: dict[str, Any] = {"flag": "ok", "latitude": latitude, "longitude": longitude, "camera": "DJI FC6310"}
    if height_m is not None:
        told |= {"altitude_m": TAKE_OFF_M + height_m, "altitude_ref": 0, "relative_altitude_m": height_m}
    return SitePhoto(SITE, folder, f"/homes/{SITE}/{folder}/{name}", **{**told, **facts})


def ring(many: int, radius_m: float, height_m: float, folder: str, **facts: Any) -> list[SitePhoto]:
    """Photos around the origin that look at it, a few seconds apart."""
    start, found = datetime(2024, 5, 6, 14, 0, 0, tzinfo=UTC), []
    for n in range(many):
        bearing = 360 * n / many
        east, north = (radius_m * turned(math.radians(bearing)) for turned in (math.sin, math.cos))
        looking = {
            "direction_deg": (bearing + 180) % 360,
            "taken_at": start + timedelta(seconds=3 * n),
            "size": 4_800_000,
        }
        name = f"DJI_{round(height_m)}_{n:04d}.JPG"
        found.append(photo(name, east, north, height_m, folder=folder, **{**looking, **facts}))
    return found


def tower() -> list[SitePhoto]:
    """Three orbits, one of them low, a road, two outliers, and photos of which each lacks something else."""
    photos = ring(40, 30, 20, "Orbit 40ft") + ring(40, 34, 40, "Orbit 120ft") + ring(20, 12, 2, "Uplook")
    photos += [photo(f"road {n}.jpg", 20 + 4 * n, -25, 1.5, folder="Access Road") for n in range(8)]
    photos += [photo("far.jpg", 3000, 900, 5, outlier=True), photo("abroad.jpg", 0, 2.5e6, 5, outlier=True)]
    photos += [
        photo("distrusted.jpg", 3, 4, 9, flag="void"),
        photo("flat.jpg", -3, 4, None, taken_at=datetime(2024, 5, 6, 8, 0, 0)),  # noqa: DTZ001 - the camera's own clock
        replace(photo("blind.jpg", 0, 0), flag="no_gps", latitude=None, longitude=None, altitude_m=None),
        replace(photo("nowhere.jpg", 0, 0), flag="null_island", latitude=0.0, longitude=0.0),
        replace(photo("unread.jpg", 0, 0), flag=None, latitude=None, longitude=None, status="failed"),
    ]
    return photos


def nastily_named() -> list[SitePhoto]:
    """Every text of a photo is one that something could trip over."""
    return [
        replace(photo("x", 10 * n, 5 * n, n), site=f"{name}/{name}", folder=name, path=name, camera=name)
        for n, name in enumerate(NASTY)
    ]
