"""Tiles of polygons: the rows found from edges equal asking every tile of the zoom (shapely)."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from typing import Any

import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigurationError
from tasks.tile_grid import Block, Run, block_degrees, count_tiles, degree_bounds, runs_of_block
from tasks.tile_polygons import polygon_bounds, polygons_of, runs_of_polygons

CLOSE_DEG = 1e-7  # tiles that are only this near to the border may be taken or not: the oracle has errors too


def test_a_polygon_of_tile_bounds_takes_those_tiles_and_no_neighbour() -> None:
    for block in (Block(21, 1728675, 1728680, 1051362, 1051364), Block(3, 0, 7, 0, 7), Block(9, 255, 256, 255, 256)):
        square = shapely.box(*block_degrees(block))
        assert list(runs(square, block.z)) == list(runs_of_block(block))


@st.composite
def shapes(draw: st.DrawFn) -> list[shapely.Polygon]:
    """Stars, thin triangles, shapes with a hole, several that may overlap, some beyond 85.05 degrees."""
    seed = draw(st.integers(0, 10**9))
    made = [_shape(random.Random(seed + n)) for n in range(draw(st.integers(1, 3)))]
    parts = [part for shape in made if shape.is_valid for part in shapely.get_parts(shape)]
    return [part for part in parts if part.area > 0] or [_box()]


@settings(max_examples=100, deadline=None)
@given(shapes(), st.integers(0, 6))
def test_rows_equal_asking_every_tile(polygons: list[shapely.Polygon], z: int) -> None:
    ours = tiles_of(runs_of_polygons(rings_of(polygons), [z]))
    surely, perhaps = brute_force(shapely.union_all(polygons), z)
    assert surely <= ours <= perhaps


@settings(max_examples=40, deadline=None)
@given(shapes(), st.integers(0, 7))
def test_runs_are_in_order_and_never_overlap(polygons: list[shapely.Polygon], z: int) -> None:
    found = list(runs_of_polygons(rings_of(polygons), [z]))
    assert found == sorted(found)
    for before, after in itertools.pairwise(found):
        assert before.y < after.y or before.x_last + 1 < after.x_first
    assert all(0 <= run.x_first <= run.x_last < 2**z and 0 <= run.y < 2**z for run in found)


def test_a_hole_takes_away_the_tiles_wholly_in_it() -> None:
    outer, inner = block_degrees(Block(6, 10, 19, 10, 19)), block_degrees(Block(6, 13, 15, 13, 15))
    shape = shapely.box(*outer).difference(shapely.box(*inner))
    ours = tiles_of(runs(shape, 6))
    assert len(ours) == 100 - 9
    assert (14, 14) not in ours


def test_a_polygon_within_one_tile_takes_it() -> None:
    bounds = degree_bounds(21, 1728675, 1051362)
    width, height = bounds.east - bounds.west, bounds.north - bounds.south
    shape = shapely.box(
        bounds.west + 0.4 * width, bounds.south + 0.7 * height, bounds.west + 0.5 * width, bounds.south + 0.8 * height
    )
    assert list(runs(shape, 21)) == [Run(21, 1051362, 1728675, 1728675)]


def test_overlapping_features_take_no_tile_twice() -> None:
    collection = {
        "type": "FeatureCollection",
        "features": [feature(shapely.box(0, 0, 20, 20)), feature(shapely.box(10, 10, 30, 30))],
    }
    found = list(runs_of_polygons(polygons_of(collection), [7]))
    ours = tiles_of(found)
    assert len(ours) == count_tiles(found)
    assert ours == tiles_of(runs(shapely.union(shapely.box(0, 0, 20, 20), shapely.box(10, 10, 30, 30)), 7))


def test_many_zooms_come_one_after_the_other() -> None:
    zooms = [run.z for run in runs_of_polygons(polygons_of(mapping(shapely.box(0, 0, 5, 5))), range(3, 7))]
    assert zooms == sorted(zooms)
    assert set(zooms) == {3, 4, 5, 6}


def test_a_country_at_zoom_18_is_counted_in_little_memory() -> None:
    country = shapely.Point(14, 50).buffer(2.0, quad_segs=64)
    tracemalloc.start()
    tiles = count_tiles(runs(country, 18))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    degrees_a_tile = 360 / 2**18
    # Mercator stretches by 1/cos(lat) northward; over the disc that is 1.558 on average
    assert tiles == pytest.approx(country.area / degrees_a_tile**2 * 1.558, rel=0.01)
    assert peak < 2_000_000


def test_heights_and_open_rings_are_read() -> None:
    open_ring = {"type": "Polygon", "coordinates": [[[0, 0, 9.5], [10, 0, 9.5], [10, 10, 9.5]]]}
    (polygon,) = polygons_of(open_ring)
    assert polygon == [[(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 0.0)]]
    assert polygon_bounds([polygon]) == (0, 0, 10, 10)


def test_features_without_a_place_are_passed_over() -> None:
    collection = {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "geometry": None}, feature(shapely.box(0, 0, 1, 1))],
    }
    assert len(polygons_of(collection)) == 1


@pytest.mark.parametrize(
    ("geojson", "says"),
    [
        ({"type": "Point", "coordinates": [0, 0]}, "Point"),
        ({"type": "FeatureCollection", "features": []}, "no polygon"),
        ({"type": "Feature", "geometry": None}, "no polygon"),
        ({"type": "Polygon", "coordinates": []}, "without rings"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}, "three corners"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [2, 0]]]}, "longitude, latitude"),
        ({"type": "Polygon", "coordinates": [[[5e5, 5e6], [5e5, 5.1e6], [5.1e5, 5e6]]]}, "4326"),
        ({"type": "Polygon"}, "a list is due"),
        ({"type": "FeatureCollection", "features": "all"}, "a list is due"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [10**400, 1], [2, 0]]]}, "longitude, latitude"),
        ({"type": ["Polygon"]}, "no area"),
        ({"type": "Point", "crs": {"properties": None}}, "Point"),
        ({}, "None"),
        ([], "not an object"),
    ],
)
def test_geojson_that_cannot_work(geojson: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        polygons_of(geojson)


@pytest.mark.parametrize(
    ("name", "fine"), [("urn:ogc:def:crs:OGC:1.3:CRS84", True), ("EPSG:4326", True), ("EPSG:5514", False)]
)
def test_an_old_file_may_name_its_system(name: str, fine: bool) -> None:
    geojson = mapping(shapely.box(0, 0, 1, 1)) | {"crs": {"type": "name", "properties": {"name": name}}}
    if fine:
        assert polygons_of(geojson)
    else:
        with pytest.raises(ConfigurationError, match="EPSG:5514"):
            polygons_of(geojson)


def runs(shape: shapely.Geometry, z: int) -> list[Run]:
    return list(runs_of_polygons(polygons_of(mapping(shape)), [z]))


def mapping(shape: shapely.Geometry) -> dict[str, Any]:
    return dict(shapely.geometry.mapping(shape))


def feature(shape: shapely.Geometry) -> dict[str, Any]:
    return {"type": "Feature", "properties": {}, "geometry": mapping(shape)}


def rings_of(polygons: list[shapely.Polygon]) -> list[Any]:
    return [p for polygon in polygons for p in polygons_of(mapping(polygon))]


def tiles_of(found: Any) -> set[tuple[int, int]]:
    return {(x, run.y) for run in found for x in range(run.x_first, run.x_last + 1)}


def brute_force(shape: shapely.Geometry, z: int) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Tiles that surely share ground with the shape, and those that may, the border's errors allowed for."""
    tiles = [(x, y) for x in range(2**z) for y in range(2**z)]
    boxes = shapely.box(*zip(*(degree_bounds(z, x, y) for x, y in tiles), strict=True))
    shapely.prepare(shape)
    surely = shapely.intersects(shape, shapely.buffer(boxes, -CLOSE_DEG, join_style="mitre"))
    perhaps = shapely.intersects(shape, shapely.buffer(boxes, CLOSE_DEG, join_style="mitre"))
    named = list(zip(tiles, surely, perhaps, strict=True))
    return {tile for tile, sure, _ in named if sure}, {tile for tile, _, maybe in named if maybe}


def _shape(rng: random.Random) -> shapely.Polygon:
    lon, lat = rng.uniform(-170, 170), rng.uniform(-88, 88)
    size = 10 ** rng.uniform(-3, 2)
    corners = [(lon + size * rng.uniform(-1, 1), lat + size * rng.uniform(-1, 1)) for _ in range(rng.randint(3, 9))]
    hull = shapely.Polygon([(min(max(x, -180), 180), min(max(y, -90), 90)) for x, y in corners])
    if rng.random() < 0.3:
        return _snapped(rng)
    if rng.random() < 0.4 and hull.is_valid and hull.area > 0:
        middle = hull.representative_point()
        return hull.difference(middle.buffer(size * rng.uniform(0.05, 0.6)))
    return hull


def _snapped(rng: random.Random) -> shapely.Polygon:
    """Corners on corners of tiles."""
    z = rng.randint(1, 6)
    picked = [degree_bounds(z, rng.randrange(2**z), rng.randrange(2**z)) for _ in range(rng.randint(3, 6))]
    return shapely.Polygon([(bounds.west, bounds.north) for bounds in picked])


def _box() -> shapely.Polygon:
    return shapely.box(-10, -10, 10, 10)
