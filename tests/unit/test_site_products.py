"""The products of a site, read back by others' readers: json, csv, GDAL, SQLite."""

from __future__ import annotations

import csv
import io
import json
import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyogrio
import pytest
import shapely

from tasks.site_csv import csv_table
from tasks.site_geojson import geojson
from tasks.site_geopackage import geopackage
from tasks.site_outliers import find_outliers
from tasks.site_photo import SitePhoto, printable
from tasks.site_products import site_products
from tests.fakes.sites import NASTY, SITE, nastily_named, photo, tower

COLUMNS = (
    "site folder category path status flag outlier latitude longitude altitude_m altitude_ref relative_altitude_m "
    "direction_deg taken_at camera size"
).split()
WITHOUT_POSITION = {"blind.jpg", "nowhere.jpg", "unread.jpg"}


def features(photos: list[SitePhoto]) -> list[dict[str, Any]]:
    collection = json.loads(geojson(photos))
    assert collection["type"] == "FeatureCollection"
    return list(collection["features"])


def rows(photos: list[SitePhoto]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_table(photos).decode("utf-8", "strict"), newline="")))


def layer(path: Path, content: bytes) -> tuple[dict[str, Any], list[Any], dict[str, list[Any]]]:
    """GDAL's view of a file: what it is, its points, its columns."""
    path.write_bytes(content)
    said, _, points, columns = pyogrio.raw.read(path)
    names = list(said["fields"])
    return pyogrio.read_info(path), list(shapely.from_wkb(points)), dict(zip(names, map(list, columns), strict=True))


def base(path: str) -> str:
    return path.rpartition("/")[2]


# --- GeoJSON


def test_geojson_has_every_photo_with_a_position_in_order() -> None:
    photos = tower()
    found = features(random.Random(1).sample(photos, len(photos)))
    paths = [one["properties"]["path"] for one in found]
    assert {base(one.path) for one in photos} - {base(path) for path in paths} == WITHOUT_POSITION
    keys = [(one["properties"]["folder"], one["properties"]["path"]) for one in found]
    assert keys == sorted(keys)


def test_geojson_says_where_and_everything_else() -> None:
    taken = datetime(2024, 5, 6, 9, 0, 1, 500000, tzinfo=timezone(timedelta(hours=-6)))
    shot = photo("a.jpg", 10, 20, 30.1234567, direction_deg=359.99949, taken_at=taken, size=123, outlier=True)
    (feature,) = features([shot])
    assert set(feature) == {"type", "geometry", "properties"}
    assert feature["geometry"]["type"] == "Point"
    assert feature["geometry"]["coordinates"] == pytest.approx([shot.longitude, shot.latitude], abs=1e-9)
    assert feature["properties"] == {
        **{"site": SITE, "folder": "Orbit", "category": "orbit", "path": f"/homes/{SITE}/Orbit/a.jpg"},
        **{"status": "completed", "flag": "ok", "outlier": True, "altitude_m": 1462.223, "altitude_ref": 0},
        **{"relative_altitude_m": 30.123, "direction_deg": 359.999, "taken_at": "2024-05-06T09:00:01.500000-06:00"},
        **{"camera": "DJI FC6310", "size": 123},
    }


def test_gdal_reads_the_geojson(tmp_path: Path) -> None:
    photos = tower()
    said, points, columns = layer(tmp_path / "a.geojson", geojson(photos))
    assert (said["driver"], said["crs"], said["features"]) == ("GeoJSON", "EPSG:4326", len(photos) - 3)
    places = {base(path): (point.x, point.y) for path, point in zip(columns["path"], points, strict=True)}
    for one in photos:
        if base(one.path) in places:
            assert places[base(one.path)] == pytest.approx((one.longitude, one.latitude), abs=1e-8)


# --- CSV


def test_csv_has_every_photo_and_every_column() -> None:
    photos = tower()
    found = rows(photos)
    assert list(found[0]) == COLUMNS
    assert len(found) == len(photos)
    by_name = {base(row["path"]): row for row in found}
    assert [by_name["unread.jpg"][name] for name in ("flag", "status")] == ["", "failed"]
    assert [by_name["nowhere.jpg"][name] for name in ("flag", "latitude", "longitude")] == ["null_island", "0.0", "0.0"]
    assert [by_name["blind.jpg"][name] for name in ("flag", "latitude", "altitude_m")] == ["no_gps", "", ""]
    assert by_name["flat.jpg"]["taken_at"] == "2024-05-06T08:00:00"
    assert [by_name[name]["outlier"] for name in ("far.jpg", "flat.jpg")] == ["true", "false"]
    assert float(by_name["far.jpg"]["longitude"]) < -100  # a number, not text with an apostrophe


def test_no_cell_is_a_formula() -> None:
    starts = [f"{start}1+1" for start in "=+-@\t\r\n＝＋－＠"]
    photos = [
        replace(photo("a", n, 0), folder=text, path=text, site=text, camera=text) for n, text in enumerate(starts)
    ]
    for row in rows(photos):
        assert all(row[name].startswith("'") for name in ("site", "folder", "path", "camera"))
    assert sorted(row["path"][1:] for row in rows(photos)) == sorted(starts)


# --- GeoPackage


def test_gdal_reads_the_geopackage(tmp_path: Path) -> None:
    photos = tower()
    said, points, columns = layer(tmp_path / "a.gpkg", geopackage(photos))
    assert (said["driver"], said["crs"], said["geometry_type"]) == ("GPKG", "EPSG:4326", "Point")
    assert (said["layer_name"], said["features"]) == ("photos", len(photos) - 3)
    assert list(columns) == COLUMNS
    expected = {base(one.path): one for one in photos}
    for number, path in enumerate(columns["path"]):
        one = expected[base(path)]
        assert (points[number].x, points[number].y) == (one.longitude, one.latitude)
        assert bool(columns["outlier"][number]) is one.outlier
    assert columns["path"] == sorted(columns["path"], key=lambda path: (path.split("/")[-2], path))


def test_the_geopackage_is_a_sound_database_with_a_spatial_index(tmp_path: Path) -> None:
    path = tmp_path / "photos.gpkg"
    path.write_bytes(geopackage(tower()))
    opened = sqlite3.connect(path)
    try:
        assert opened.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert opened.execute("PRAGMA foreign_key_check").fetchall() == []
        assert opened.execute("SELECT count(*) FROM rtree_photos_geom WHERE maxy > 50").fetchone() == (1,)
        types = {name: kind for _, name, kind, *_ in opened.execute("PRAGMA table_info(photos)")}
        assert (types["outlier"], types["altitude_m"], types["size"]) == ("BOOLEAN", "REAL", "INTEGER")
    finally:
        opened.close()


@pytest.mark.parametrize("photos", [[], [photo("a", 0, 0, None, camera=None)]], ids=["none", "one that says little"])
def test_a_geopackage_of_nothing_keeps_its_columns(tmp_path: Path, photos: list[SitePhoto]) -> None:
    said, _, _ = layer(tmp_path / "a.gpkg", geopackage(photos))
    assert list(said["fields"]) == COLUMNS
    assert dict(zip(said["fields"], said["ogr_types"], strict=True))["altitude_m"] == "OFTReal"


# --- all of them


@pytest.mark.parametrize("make", [geojson, csv_table], ids=["geojson", "csv"])
def test_the_same_photos_give_the_same_bytes(make: Callable[[list[SitePhoto]], bytes]) -> None:
    photos = tower() + nastily_named()
    assert make(photos) == make(random.Random(2).sample(photos, len(photos)))
    assert make(photos) != make(photos[1:])


def test_names_of_any_characters_come_back(tmp_path: Path) -> None:
    expected = sorted(printable(name) for name in NASTY)
    assert sorted(one["properties"]["path"] for one in features(nastily_named())) == expected
    assert sorted(row["path"].removeprefix("'") for row in rows(nastily_named())) == expected
    _, _, columns = layer(tmp_path / "a.gpkg", geopackage(nastily_named()))
    assert sorted(columns["path"]) == expected
    assert sorted(columns["camera"]) == expected
    assert printable("caf\udce9 \ud800") == "caf\\xe9 \\ud800"


def test_site_products_are_all_there_and_open() -> None:
    made = {one.name: one for one in site_products(SITE, iter(tower()))}
    assert list(made) == ["photos.geojson", "photos.csv", "photos.gpkg", "map.html", "map.png"]
    assert made["photos.geojson"].content == geojson(tower())
    starts = {
        "photos.csv": b"site,",
        "photos.gpkg": b"SQLite format 3",
        "map.html": b"<!DOCTYPE html>",
        "map.png": b"\x89PNG",
    }
    for name, start in starts.items():
        assert made[name].content.startswith(start)
    assert made["photos.geojson"].media_type == "application/geo+json"


def test_products_of_no_photos() -> None:
    made = {one.name: one.content for one in site_products("Empty", [])}
    assert json.loads(made["photos.geojson"])["features"] == []
    assert made["photos.csv"].decode().strip() == ",".join(COLUMNS)


def test_real_photos(shared_data: Path) -> None:
    """What exiftool says of real photos goes in and comes out; the two far from the rest are outliers."""
    listed = json.loads((shared_data / "photos" / "exiftool.json").read_text())
    said = {base(one["SourceFile"]): one for one in listed if "Make" in one}
    photos = [
        SitePhoto(
            *(SITE, "", f"/homes/{SITE}/{name}"),
            flag="ok" if "GPSLatitude" in one else "no_gps",
            latitude=one.get("GPSLatitude"),
            longitude=one.get("GPSLongitude"),
            altitude_m=one.get("GPSAltitude"),
            taken_at=datetime.strptime(one["DateTimeOriginal"], "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC),
            camera=one["Model"],
        )
        for name, one in said.items()
    ]
    outliers = find_outliers(photos)
    marked = [replace(one, outlier=out) for one, out in zip(photos, outliers, strict=True)]
    assert {base(one.path) for one in marked if one.outlier} == {"IMG_5195.HEIC", "fuji_s1pro_1.jpg"}
    found = {base(one["properties"]["path"]): one["geometry"]["coordinates"] for one in features(marked)}
    assert len(found) == 11
    assert "no_gps_canon.jpg" not in found
    for name, coordinates in found.items():
        assert coordinates == pytest.approx([said[name]["GPSLongitude"], said[name]["GPSLatitude"]], abs=1e-7, rel=0)
    assert len(rows(marked)) == 12
    assert sum(len(one.content) for one in site_products("Real", marked)) > 100_000
