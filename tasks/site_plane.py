"""Metres on the ground around a site, from WGS 84 degrees (EPSG:4326). Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tasks.site_photo import Position

_A_M = 6_378_137.0  # WGS 84, semi-major axis
_E2 = 0.00669437999014  # WGS 84, first eccentricity squared


class Point(NamedTuple):
    """Metres east and north of the plane's origin."""

    east_m: float
    north_m: float


class Plane:
    """The plane that touches the ellipsoid at an origin, with its axes east and north.

    A degree is as long as at the origin: along the meridian M = a (1 - e2) / (1 - e2 sin2 phi)^1.5, along the
    parallel N cos phi with N = a / (1 - e2 sin2 phi)^0.5. Source: J. P. Snyder, Map Projections - A Working Manual
    (USGS Professional Paper 1395, 1987), equations 4-19 to 4-21. Within 1 km of the origin distances are true to
    some 0.2 m at 50 degrees north; far away they are only long, which is what an outlier needs.
    """

    def __init__(self, origin: Position) -> None:
        self.origin = origin
        phi = math.radians(origin.latitude)
        w2 = 1 - _E2 * math.sin(phi) ** 2
        self._north_m = math.radians(_A_M * (1 - _E2) / w2**1.5)
        self._east_m = math.radians(_A_M / math.sqrt(w2) * math.cos(phi))

    def point(self, position: Position) -> Point:
        """Where a position lies, reached the short way round the earth."""
        east_deg = (position.longitude - self.origin.longitude + 180) % 360 - 180
        return Point(east_deg * self._east_m, (position.latitude - self.origin.latitude) * self._north_m)


def plane_around(positions: Sequence[Position]) -> Plane:
    """The plane whose origin has the median latitude and longitude, on either side of the 180th meridian.

    The longitudes are cut open at their widest gap, so that neither the meridian nor a far outlier lies within.
    """
    longitudes = sorted(position.longitude for position in positions)
    before = [longitudes[-1] - 360, *longitudes[:-1]]
    _, start = max((value - last, value) for last, value in zip(before, longitudes, strict=True))
    longitude = start + statistics.median((value - start) % 360 for value in longitudes)
    latitude = statistics.median(position.latitude for position in positions)
    return Plane(Position(latitude, (longitude + 180) % 360 - 180))


class Extent(NamedTuple):
    """A rectangle of the plane, metres."""

    west: float
    south: float
    east: float
    north: float

    def holds(self, point: Point) -> bool:
        """Whether a point lies in it or on its edge."""
        return self.west <= point.east_m <= self.east and self.south <= point.north_m <= self.north


def extent_of(points: Iterable[Point], *, least_m: float) -> Extent:
    """The smallest rectangle around points, of which there is one at least, but with no side below `least_m`."""
    easts, norths = zip(*points, strict=True)
    west, east = _widened(min(easts), max(easts), least_m)
    south, north = _widened(min(norths), max(norths), least_m)
    return Extent(west, south, east, north)


def _widened(low: float, high: float, least: float) -> tuple[float, float]:
    more = max(0.0, least - (high - low)) / 2
    return low - more, high + more


def round_length(longest: float) -> float:
    """The longest of 1, 2, 5, 10, 20, 50, ... (metres and parts) that is not longer than `longest`."""
    power = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (1, 2, 5) if step * power <= longest * (1 + 1e-9))
