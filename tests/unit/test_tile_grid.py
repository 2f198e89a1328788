"""The tile grid against published values, itself, and pyproj."""

from __future__ import annotations

import math

import pyproj
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import tile_grid as grid
from tasks.errors import ConfigurationError
from tasks.tile_grid import Block, Bounds, Run

WORLD = grid.MAX_LATITUDE


@st.composite
def tiles(draw: st.DrawFn, max_zoom: int = 24) -> tuple[int, int, int]:
    z = draw(st.integers(0, max_zoom))
    return z, draw(st.integers(0, 2**z - 1)), draw(st.integers(0, 2**z - 1))


@st.composite
def blocks(draw: st.DrawFn, max_zoom: int = 24, widest: int = 50) -> Block:
    z, x, y = draw(tiles(max_zoom))
    end = 2**z - 1
    return Block(z, x, draw(st.integers(x, min(end, x + widest))), y, draw(st.integers(y, min(end, y + widest))))


@pytest.mark.parametrize(
    ("lon", "lat", "z", "tile"),
    [
        (0.0, 0.0, 0, (0, 0)),
        (0.0, 0.0, 1, (1, 1)),
        (-122.4194, 37.7749, 10, (163, 395)),  # San Francisco
        (14.4208, 50.0880, 12, (2212, 1387)),  # Praha
        (180.0, 0.0, 3, (7, 4)),
        (-180.0, 90.0, 3, (0, 0)),
        (0.0, -90.0, 3, (4, 7)),
    ],
)
def test_the_tile_at_a_point(lon: float, lat: float, z: int, tile: tuple[int, int]) -> None:
    assert grid.tile_at(lon, lat, z) == tile


def test_the_land_agencys_corner_is_where_it_is() -> None:
    bounds = grid.degree_bounds(21, 1728675, 1051362)
    assert bounds.west == pytest.approx(116.7474, abs=1e-3)
    assert 0 < -bounds.north < 1
    assert Block(21, 1728675, 1729154, 1051362, 1052034).tiles == 323_040


@given(tiles())
def test_the_middle_of_a_tile_lies_in_it(tile: tuple[int, int, int]) -> None:
    z, x, y = tile
    bounds = grid.degree_bounds(z, x, y)
    middle = ((bounds.west + bounds.east) / 2, (bounds.south + bounds.north) / 2)
    assert grid.tile_at(*middle, z) == (x, y)


@given(tiles(max_zoom=22))
def test_metres_agree_with_proj(tile: tuple[int, int, int]) -> None:
    degrees, metres = grid.degree_bounds(*tile), grid.metre_bounds(*tile)
    transform = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
    for corner in ((0, 1), (2, 3)):
        found = transform.transform(degrees[corner[0]], degrees[corner[1]])
        assert found == pytest.approx((metres[corner[0]], metres[corner[1]]), abs=1e-6)


@given(tiles(max_zoom=23))
def test_neighbours_share_their_border(tile: tuple[int, int, int]) -> None:
    z, x, y = tile
    for bounds in (grid.degree_bounds, grid.metre_bounds):
        own = bounds(z, x, y)
        assert own.east == bounds(z, x + 1, y).west
        assert own.south == bounds(z, x, y + 1).north


def test_the_world_is_one_tile() -> None:
    assert grid.degree_bounds(0, 0, 0) == pytest.approx((-180, -WORLD, 180, WORLD))
    assert grid.metre_bounds(0, 0, 0) == (-grid.HALF_WORLD_M, -grid.HALF_WORLD_M, grid.HALF_WORLD_M, grid.HALF_WORLD_M)
    assert grid.pixel_metres(0, 256) == pytest.approx(156543.03392804097)


@given(tiles(max_zoom=30))
def test_quadkeys_and_flips_come_back(tile: tuple[int, int, int]) -> None:
    z, x, y = tile
    assert grid.tile_of_quadkey(grid.quadkey(z, x, y)) == tile
    assert len(grid.quadkey(z, x, y)) == z
    assert grid.flipped(z, grid.flipped(z, y)) == y


def test_a_published_quadkey() -> None:
    assert grid.quadkey(3, 3, 5) == "213"  # Bing Maps Tile System
    assert grid.quadkey(0, 0, 0) == ""


@pytest.mark.parametrize("key", ["4", "01a", "0" * 31])
def test_what_is_no_quadkey(key: str) -> None:
    with pytest.raises(ConfigurationError, match="quadkey"):
        grid.tile_of_quadkey(key)


@given(blocks())
def test_a_box_of_tile_bounds_takes_those_tiles_and_no_neighbour(block: Block) -> None:
    assert list(grid.blocks_of_bbox(grid.block_degrees(block), [block.z])) == [block]


@given(st.floats(-180, 180), st.floats(-85, 85), st.integers(0, 24))
def test_a_box_that_is_a_point_takes_one_tile(lon: float, lat: float, z: int) -> None:
    (block,) = grid.blocks_of_bbox([lon, lat, lon, lat], [z])
    assert block.tiles == 1
    bounds = grid.block_degrees(block)
    assert bounds.west - 1e-8 <= lon <= bounds.east + 1e-8
    assert bounds.south - 1e-8 <= lat <= bounds.north + 1e-8


@given(
    st.tuples(st.floats(-180, 180), st.floats(-180, 180)).map(sorted),
    st.tuples(st.floats(-84, 84), st.floats(-84, 84)).map(sorted),
    st.integers(0, 5),
)
def test_a_box_takes_the_tiles_that_overlap_it(lons: list[float], lats: list[float], z: int) -> None:
    (block,) = grid.blocks_of_bbox([lons[0], lats[0], lons[1], lats[1]], [z])
    for x in range(2**z):
        for y in range(2**z):
            own = grid.degree_bounds(z, x, y)
            width = min(own.east, lons[1]) - max(own.west, lons[0])
            height = min(own.north, lats[1]) - max(own.south, lats[0])
            taken = block.x_first <= x <= block.x_last and block.y_first <= y <= block.y_last
            if width > 1e-6 and height > 1e-6:
                assert taken
            elif width < -1e-6 or height < -1e-6:
                assert not taken


def test_a_box_across_the_antimeridian_is_two_blocks() -> None:
    east, west = sorted(grid.blocks_of_bbox([170, -20, -170, -10], [4]), reverse=True)
    assert (east.x_first, east.x_last) == (15, 15)
    assert (west.x_first, west.x_last) == (0, 0)
    assert (east.y_first, east.y_last) == (west.y_first, west.y_last) == (8, 8)


def test_a_box_across_the_antimeridian_takes_no_tile_twice_at_low_zooms() -> None:
    assert list(grid.blocks_of_bbox([170, -20, -170, -10], [0])) == [Block(0, 0, 0, 0, 0)]
    assert list(grid.blocks_of_bbox([10, 10, -10, 20], [1])) == [Block(1, 0, 1, 0, 0)]


def test_the_whole_world_and_the_poles() -> None:
    assert list(grid.blocks_of_bbox([-180, -90, 180, 90], [2])) == [Block(2, 0, 3, 0, 3)]
    assert list(grid.blocks_of_bbox([0, 84, 1, 90], [8])) == [Block(8, 128, 128, 0, 7)]  # asinh(tan 84) = 2.95


@pytest.mark.parametrize(
    ("bbox", "says"),
    [
        ([0, 0, 1], "four numbers"),
        (["a", 0, 1, 1], "four numbers"),
        ([0, 0, 200, 1], "degrees"),
        ([float("nan"), 0, 1, 1], "degrees"),
        ([500000, 5400000, 500100, 5400100], "degrees"),
        ([0, 2, 1, 1], "south above its north"),
        ([0, 86, 1, 89], "beyond 85.0511"),
        ([0, -89, 1, -86], "beyond 85.0511"),
    ],
)
def test_boxes_that_cannot_work(bbox: list[float], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        list(grid.blocks_of_bbox(bbox, [3]))


@given(blocks(max_zoom=20), st.integers(0, 4))
def test_going_finer_and_back_gives_the_same_block(block: Block, finer: int) -> None:
    fine = grid.at_zoom(block, block.z + finer)
    assert fine.tiles == block.tiles * 4**finer
    assert grid.at_zoom(fine, block.z) == block
    assert grid.block_degrees(fine) == pytest.approx(grid.block_degrees(block))


def test_ranges_of_x_and_y() -> None:
    assert grid.block_of_ranges(3, [1, 2], [0, 0]) == Block(3, 1, 2, 0, 0)
    assert grid.block_of_ranges(3, (1, 2), (0, 1), tms=True) == Block(3, 1, 2, 6, 7)


@pytest.mark.parametrize("ends", [[3], [2, 1], [0, 8], [-1, 2], [0, 1, 2], [0.0, 1.0], [True, True]])
def test_ranges_that_cannot_work(ends: list[int]) -> None:
    with pytest.raises(ConfigurationError, match="x_range"):
        grid.block_of_ranges(3, ends, [0, 0])


@pytest.mark.parametrize(("zoom", "zooms"), [(0, [0]), (21, [21]), ([3, 5], [3, 4, 5]), ((4, 4), [4])])
def test_zooms(zoom: int | list[int], zooms: list[int]) -> None:
    assert list(grid.check_zooms(zoom, grid.MAX_ZOOM)) == zooms


@pytest.mark.parametrize("zoom", [-1, 31, [5, 3], [1, 2, 3], [], True, [1.0, 2.0]])
def test_zooms_that_cannot_work(zoom: int | list[int]) -> None:
    with pytest.raises(ConfigurationError, match="zoom"):
        grid.check_zooms(zoom, grid.MAX_ZOOM)


def test_counting_does_not_list() -> None:
    block = Block(30, 0, 2**30 - 1, 0, 2**30 - 1)
    assert grid.count_tiles([block]) == 4**30
    assert grid.count_tiles([Run(3, 1, 2, 5), Run(3, 2, 2, 2)]) == 5
    assert sum(run.tiles for run in grid.runs_of_block(Block(5, 1, 3, 2, 4))) == 9


def test_bounds_are_named() -> None:
    assert Bounds(1, 2, 3, 4).north == 4
    assert math.isclose(grid.latitude_of(0, 7), WORLD)
