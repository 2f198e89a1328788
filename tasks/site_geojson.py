"""The photos of sites as GeoJSON (RFC 7946; EPSG:4326, longitude first)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tasks.site_photo import SitePhoto, described, in_order

MEDIA_TYPE = "application/geo+json"


def geojson(photos: Iterable[SitePhoto]) -> bytes:
    """A feature for every photo with a position, one a line, in order: the same photos give the same bytes.

    Points are flat and altitudes are properties: a third coordinate would be read as a height above the ellipsoid
    (GDAL takes such a file for EPSG:4979), and cameras tell that above the sea (`altitude_ref`, as in EXIF).
    """
    features = (_feature(photo) for photo in in_order(photos) if photo.position)
    return ('{"type": "FeatureCollection", "features": [\n' + ",\n".join(features) + "\n]}\n").encode()


def _feature(photo: SitePhoto) -> str:
    facts = described(photo)
    geometry = {"type": "Point", "coordinates": [facts.pop("longitude"), facts.pop("latitude")]}
    return json.dumps({"type": "Feature", "geometry": geometry, "properties": facts}, ensure_ascii=False)
