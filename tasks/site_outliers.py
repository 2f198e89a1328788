"""Photos that cannot have been taken where the rest of their site was. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tasks.site_folders import APART, category_of
from tasks.site_photo import SitePhoto
from tasks.site_plane import plane_around

_REACH = 4.0  # times the interquartile range, beyond the quartiles
_FEWEST = 4
_ACCURACY_M = 5.0


class _Bounds(NamedTuple):
    low: float
    high: float

    def hold(self, value: float | None) -> bool:
        """Whether a value lies in them; one that is not known does."""
        return value is None or self.low <= value <= self.high


def find_outliers(photos: Sequence[SitePhoto]) -> list[bool]:
    """Whether each photo of one site lies apart from the others: east, north or in altitude.

    A coordinate is apart when it is more than 4 interquartile ranges below the first or above the third quartile
    (J. W. Tukey, Exploratory Data Analysis, 1977, whose 3 mark what is "far out"). A range below 5 m, what a receiver
    in the open is good for (gps.gov, GPS accuracy), is taken as 5 m: photos from one spot would make outliers of their
    neighbours. Photos of the civil works and the road, and positions that the receiver distrusted, are judged but
    do not set the bounds; a photo without a position is no outlier. Under 4 photos nothing is said.
    """
    places = [photo.position for photo in photos]
    judges = [n for n, photo in enumerate(photos) if photo.trusted and category_of(photo.folder) not in APART]
    known = [place for n in judges if (place := places[n])]
    if len(known) < _FEWEST:
        return [False] * len(photos)
    plane = plane_around(known)
    points = [plane.point(place) if place else None for place in places]
    heights = [photo.altitude_m if place else None for photo, place in zip(photos, places, strict=True)]
    easts = _apart([point.east_m if point else None for point in points], judges)
    norths = _apart([point.north_m if point else None for point in points], judges)
    return [any(axes) for axes in zip(easts, norths, _apart(heights, judges), strict=True)]


def _apart(values: list[float | None], judges: list[int]) -> list[bool]:
    bounds = _bounds([value for n in judges if (value := values[n]) is not None])
    return [bounds is not None and not bounds.hold(value) for value in values]


def _bounds(values: list[float]) -> _Bounds | None:
    if len(values) < _FEWEST:
        return None
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    reach = _REACH * max(third - first, _ACCURACY_M)
    return _Bounds(first - reach, third + reach)
