"""Everything that is made of one site's photos, to lie beside one another in the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tasks import site_csv, site_geojson, site_geopackage, site_map, site_thumbnail
from tasks.site_photo import SitePhoto

MAP, THUMBNAIL = "map.html", "map.png"


class Product(NamedTuple):
    """A file: its name within the site's folder, what is in it, and its media type."""

    name: str
    content: bytes
    media_type: str


def site_products(title: str, photos: Iterable[SitePhoto]) -> Iterator[Product]:
    """Make the products of one site, one after the other: GeoJSON, CSV, GeoPackage, map, thumbnail.

    The same photos in any order give the same bytes, but for the GeoPackage, which holds the time of its making.
    """
    rows = list(photos)
    yield Product("photos.geojson", site_geojson.geojson(rows), site_geojson.MEDIA_TYPE)
    yield Product("photos.csv", site_csv.csv_table(rows), site_csv.MEDIA_TYPE)
    yield Product("photos.gpkg", site_geopackage.geopackage(rows), site_geopackage.MEDIA_TYPE)
    yield Product(MAP, site_map.site_map(title, rows), site_map.MEDIA_TYPE)
    yield Product(THUMBNAIL, site_thumbnail.site_thumbnail(title, rows), site_thumbnail.MEDIA_TYPE)
