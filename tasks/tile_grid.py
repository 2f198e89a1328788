"""The Web Mercator tile grid: tiles, degrees, metres, and which tiles a box of degrees takes. Pure.

Zoom z cuts the square of EPSG:3857 into 2^z x 2^z tiles. Tiles are named XYZ: x eastward from the
antimeridian, y southward from 85.0511 N (OpenStreetMap "slippy map"). TMS counts y northward.

    lon = x / 2^z * 360 - 180        lat = atan(sinh(pi * (1 - 2 * y / 2^z)))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tasks.errors import ConfigurationError

MAX_ZOOM = 30
"""x and y stay below 2^31: they fit PostgreSQL's `integer`."""

MAX_LATITUDE = math.degrees(math.atan(math.sinh(math.pi)))
"""85.0511...: where the square map ends, in degrees."""

HALF_WORLD_M = math.pi * 6_378_137.0
"""EPSG:3857 reaches from minus this to plus this, on both axes, in metres."""

TOUCH = 1e-9 / 360
"""Overlaps thinner than this share of the world (0.1 mm) are touches, and touching takes no tile."""


class Tile(NamedTuple):
    """A tile's name, XYZ."""

    z: int
    x: int
    y: int


class Bounds(NamedTuple):
    """A box: degrees (EPSG:4326) or metres (EPSG:3857), as its maker says."""

    west: float
    south: float
    east: float
    north: float


class Run(NamedTuple):
    """Tiles of one row, both ends included. PostgreSQL expands it with generate_series(x_first, x_last)."""

    z: int
    y: int
    x_first: int
    x_last: int

    @property
    def tiles(self) -> int:
        """How many tiles it has."""
        return self.x_last - self.x_first + 1


class Block(NamedTuple):
    """A rectangle of tiles of one zoom, all ends included. PostgreSQL expands it with two generate_series."""

    z: int
    x_first: int
    x_last: int
    y_first: int
    y_last: int

    @property
    def columns(self) -> int:
        """How many tiles wide it is."""
        return self.x_last - self.x_first + 1

    @property
    def rows(self) -> int:
        """How many tiles high it is."""
        return self.y_last - self.y_first + 1

    @property
    def tiles(self) -> int:
        """How many tiles it has."""
        return self.columns * self.rows


def tile_at(lon: float, lat: float, z: int) -> tuple[int, int]:
    """The tile (x, y) of zoom z that holds a point in degrees. Poles and lon 180 count to the last tile."""
    last = (1 << z) - 1
    x, y = math.floor(column_of(lon, z)), math.floor(row_of(lat, z))
    return min(max(x, 0), last), min(max(y, 0), last)


def column_of(lon: float, z: int) -> float:
    """Longitude in degrees to columns from the west edge, 0 to 2^z."""
    return math.ldexp((lon + 180.0) / 360.0, z)


def row_of(lat: float, z: int) -> float:
    """Latitude in degrees to rows from the north edge, 0 to 2^z; what lies beyond 85.0511 is put there."""
    clamped = min(max(lat, -MAX_LATITUDE), MAX_LATITUDE)
    share = 0.5 - math.asinh(math.tan(math.radians(clamped))) / (2 * math.pi)
    return math.ldexp(min(max(share, 0.0), 1.0), z)


def longitude_of(column: float, z: int) -> float:
    """Degrees of the line `column` tiles from the west edge."""
    return math.ldexp(column, -z) * 360.0 - 180.0


def latitude_of(row: float, z: int) -> float:
    """Degrees of the line `row` tiles from the north edge."""
    return math.degrees(math.atan(math.sinh(math.pi * (1.0 - math.ldexp(row, 1 - z)))))


def degree_bounds(z: int, x: int, y: int) -> Bounds:
    """The tile's box in degrees, EPSG:4326."""
    return Bounds(longitude_of(x, z), latitude_of(y + 1, z), longitude_of(x + 1, z), latitude_of(y, z))


def metre_bounds(z: int, x: int, y: int) -> Bounds:
    """The tile's box in metres, EPSG:3857; within 1e-8 m."""
    side = math.ldexp(HALF_WORLD_M, 1 - z)
    west, north = x * side - HALF_WORLD_M, HALF_WORLD_M - y * side
    return Bounds(west, HALF_WORLD_M - (y + 1) * side, (x + 1) * side - HALF_WORLD_M, north)


def block_degrees(block: Block) -> Bounds:
    """The box of a whole block in degrees, EPSG:4326."""
    low = degree_bounds(block.z, block.x_first, block.y_last)
    high = degree_bounds(block.z, block.x_last, block.y_first)
    return Bounds(low.west, low.south, high.east, high.north)


def block_metres(block: Block) -> Bounds:
    """The box of a whole block in metres, EPSG:3857."""
    low = metre_bounds(block.z, block.x_first, block.y_last)
    high = metre_bounds(block.z, block.x_last, block.y_first)
    return Bounds(low.west, low.south, high.east, high.north)


def pixel_metres(z: int, tile_px: int) -> float:
    """Side of a pixel in metres of EPSG:3857 (true metres only on the equator)."""
    return math.ldexp(HALF_WORLD_M, 1 - z) / tile_px


def flipped(z: int, y: int) -> int:
    """XYZ row to TMS row, and back."""
    return (1 << z) - 1 - y


def quadkey(z: int, x: int, y: int) -> str:
    """Bing's name of a tile: a digit 0-3 for each zoom; empty for the world."""
    if z == 0:
        return ""
    # The binary digits of x, read as decimal ones, plus twice those of y: no carry, as 1 + 2 = 3.
    return str(int(f"{x:b}") + 2 * int(f"{y:b}")).zfill(z)


def tile_of_quadkey(key: str) -> tuple[int, int, int]:
    """(z, x, y) of a quadkey. Raises ConfigurationError when it is none."""
    if len(key) > MAX_ZOOM or not set(key) <= set("0123"):
        raise ConfigurationError(f"{key!r} is no quadkey; give at most {MAX_ZOOM} digits of 0 to 3.")
    digits = [int(digit) for digit in key]
    x = sum((digit & 1) << place for place, digit in enumerate(reversed(digits)))
    y = sum((digit >> 1) << place for place, digit in enumerate(reversed(digits)))
    return len(key), x, y


def check_zooms(zoom: int | Sequence[int], highest: int) -> range:
    """One zoom, or [first, last], as the zooms from first to last. Raises ConfigurationError."""
    ends = [zoom, zoom] if isinstance(zoom, int) else list(zoom)
    whole = all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
    if len(ends) != 2 or not whole or not 0 <= ends[0] <= ends[1] <= highest:
        raise ConfigurationError(f"zoom {zoom!r} is not usable; give a number from 0 to {highest}, or [first, last].")
    return range(ends[0], ends[1] + 1)


def check_bbox(bbox: Sequence[float]) -> Bounds:
    """[west, south, east, north] in degrees; west > east crosses the antimeridian. Raises ConfigurationError."""
    try:
        box = Bounds(*(float(side) for side in bbox))
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(f"bbox {bbox!r} is not four numbers; give [west, south, east, north].") from exc
    if not (-180 <= box.west <= 180 and -180 <= box.east <= 180 and -90 <= box.south <= 90 and -90 <= box.north <= 90):
        remedy = "give [west, south, east, north]; across the antimeridian west is greater than east"
        raise ConfigurationError(f"bbox {list(box)} is not in degrees; {remedy}.")
    if box.south > box.north:
        raise ConfigurationError(f"bbox {list(box)} has its south above its north; give [west, south, east, north].")
    if box.south >= MAX_LATITUDE or box.north <= -MAX_LATITUDE:
        raise ConfigurationError(f"bbox {list(box)} lies beyond 85.0511 degrees, where Web Mercator has no tiles.")
    return box


def block_of_ranges(z: int, x_range: Sequence[int], y_range: Sequence[int], *, tms: bool = False) -> Block:
    """[first, last] of x and of y (both included, y counted northward with `tms`). Raises ConfigurationError."""
    (x_first, x_last), (y_first, y_last) = _ends("x_range", x_range, z), _ends("y_range", y_range, z)
    if tms:
        y_first, y_last = flipped(z, y_last), flipped(z, y_first)
    return Block(z, x_first, x_last, y_first, y_last)


def blocks_of_bbox(bbox: Sequence[float], zooms: Iterable[int]) -> Iterator[Block]:
    """The tiles that a box of degrees takes: a block for each zoom, two where it crosses the antimeridian.

    A tile is taken when it shares more than a touch (0.1 mm) with the box, so a box made of tile bounds takes
    those tiles and no neighbour. A box smaller than that takes the tile it lies in. Raises ConfigurationError.
    """
    box = check_bbox(bbox)
    crosses = box.west > box.east
    spans = [(box.west, 180.0), (-180.0, box.east)] if crosses else [(box.west, box.east)]
    for z in zooms:
        rows = _taken(row_of(box.north, z), row_of(box.south, z), z)
        columns = [_taken(column_of(west, z), column_of(east, z), z) for west, east in spans]
        yield from (Block(z, first, last, *rows) for first, last in _merged(columns))


def at_zoom(block: Block, z: int) -> Block:
    """The tiles of zoom z over the same ground: all children when finer, every parent touched when coarser."""
    finer = z - block.z
    if finer >= 0:
        firsts = (block.x_first << finer, block.y_first << finer)
        lasts = (((block.x_last + 1) << finer) - 1, ((block.y_last + 1) << finer) - 1)
    else:
        firsts = (block.x_first >> -finer, block.y_first >> -finer)
        lasts = (block.x_last >> -finer, block.y_last >> -finer)
    return Block(z, firsts[0], lasts[0], firsts[1], lasts[1])


def runs_of_block(block: Block) -> Iterator[Run]:
    """The block row by row."""
    for y in range(block.y_first, block.y_last + 1):
        yield Run(block.z, y, block.x_first, block.x_last)


def count_tiles(pieces: Iterable[Run | Block]) -> int:
    """How many tiles the runs or blocks have together; they must not overlap."""
    return sum(piece.tiles for piece in pieces)


def takes(low: float, high: float, touch: float) -> tuple[int, int]:
    """Whole cells that share more than `touch` with [low, high]: (first, last); last < first when none does."""
    return math.floor(low + touch), math.ceil(high - touch) - 1


def _taken(low: float, high: float, z: int) -> tuple[int, int]:
    """As `takes`, on the grid and never empty."""
    first, last = takes(low, high, math.ldexp(TOUCH, z))
    if last < first:
        first = last = math.floor((low + high) / 2)
    end = (1 << z) - 1
    return min(max(first, 0), end), min(max(last, 0), end)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Low zooms: both sides of the antimeridian may take the same tiles."""
    ordered = sorted(spans)
    if len(ordered) == 2 and ordered[1][0] <= ordered[0][1] + 1:
        return [(ordered[0][0], max(ordered[0][1], ordered[1][1]))]
    return ordered


def _ends(name: str, ends: Sequence[int], z: int) -> tuple[int, int]:
    last = (1 << z) - 1
    pair = tuple(ends)
    whole = all(isinstance(end, int) and not isinstance(end, bool) for end in pair)
    if len(pair) != 2 or not whole or not 0 <= pair[0] <= pair[1] <= last:
        raise ConfigurationError(
            f"{name} {list(ends)!r} is not usable at zoom {z}; give [first, last] from 0 to {last}."
        )
    return pair[0], pair[1]
