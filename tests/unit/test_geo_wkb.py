"""WKB by the batch: what numpy makes and moves is what GEOS and PROJ make and move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from tasks.errors import TerminalError
from tasks.geo.batches import Geometries
from tasks.geo.geometry_transforms import transformer
from tasks.geo.reprojection import reprojected
from tasks.geo.wkb import ROWS_AT_ONCE, has_heights, moved, packed

KINDS = [
    "POINT (1 2)",
    "POINT EMPTY",
    "LINESTRING (0 0, 1 1, 2 0)",
    "LINESTRING EMPTY",
    "POLYGON EMPTY",
    "POLYGON ((0 0, 9 0, 9 9, 0 0))",
    "POLYGON ((0 0, 9 0, 9 9, 0 9, 0 0), (1 1, 2 1, 2 2, 1 1), (4 4, 5 4, 5 5, 4 4))",
    "MULTIPOINT (1 1, 2 2)",
    "MULTILINESTRING ((0 0, 1 1), (2 2, 3 3, 4 4))",
    "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)), ((5 5, 9 5, 9 9, 5 5), (6 6, 7 6, 7 7, 6 6)))",
    "GEOMETRYCOLLECTION (POINT (1 1), GEOMETRYCOLLECTION (LINESTRING (0 0, 1 1)), POLYGON ((0 0, 1 0, 1 1, 0 0)))",
    "GEOMETRYCOLLECTION EMPTY",
    "POINT Z (1 2 3)",
    "LINESTRING M (0 0 5, 1 1 6)",
    "POLYGON ZM ((0 0 1 2, 9 0 3 4, 9 9 5 6, 0 0 1 2))",
    "MULTIPOLYGON Z (((0 0 1, 1 0 1, 1 1 1, 0 0 1)))",
]
SHAPES = np.array([*shapely.from_wkt(KINDS), None], object)


def by_geos(shapes: Any) -> list[bytes | None]:
    return list(shapely.to_wkb(shapes, flavor="iso", byte_order=1))


def shift(points: Any) -> Any:
    return points + (10 + 20j)


def shifted(shapes: Any) -> Any:
    return shapely.transform(shapes, lambda p: p + np.array([10, 20, 0][: p.shape[1]]), include_z=None)


mixtures = st.lists(st.sampled_from(range(len(SHAPES))), max_size=40)


@given(mixtures)
@settings(max_examples=60, deadline=None)
def test_packed_is_what_geos_writes(rows: list[int]) -> None:
    assert packed(SHAPES[rows]).to_pylist() == by_geos(SHAPES[rows])


@given(mixtures)
@settings(max_examples=60, deadline=None)
def test_points_move_and_nothing_else_does(rows: list[int]) -> None:
    flat = SHAPES[[row for row in rows if SHAPES[row] is None or not shapely.has_m(SHAPES[row])]]
    wanted = by_geos(shifted(flat))
    assert packed(flat, shift).to_pylist() == wanted
    assert moved(pa.array(by_geos(flat), pa.binary()), shift).to_pylist() == wanted


def test_measures_stay() -> None:
    before = pa.array(by_geos(shapely.from_wkt(["LINESTRING M (0 0 5, 1 1 6)", "POINT ZM (1 2 3 4)"])), pa.binary())
    after = shapely.to_wkt(shapely.from_wkb(moved(before, shift).to_pylist()))
    assert list(after) == ["LINESTRING M (10 20 5, 11 21 6)", "POINT ZM (11 22 3 4)"]


def test_blocks_and_slices_of_arrays() -> None:
    shapes = shapely.box(*np.arange(4).repeat(ROWS_AT_ONCE).reshape(4, -1), ccw=False)
    shapes[5], shapes[-1] = None, shapely.MultiPoint([(0, 0), (1, 1)])
    wkb = packed(shapes)
    assert wkb.to_pylist() == by_geos(shapes)
    assert moved(wkb.slice(3, ROWS_AT_ONCE - 3), shift).to_pylist() == by_geos(shifted(shapes))[3:]
    assert moved(wkb.cast(pa.large_binary()), shift).to_pylist() == by_geos(shifted(shapes))


@pytest.mark.parametrize("large", [pa.binary(), pa.large_binary()])
def test_heights_are_seen(large: pa.DataType) -> None:
    assert not has_heights(pa.array(by_geos(SHAPES[:6]), large))
    assert not has_heights(pa.array([None], large))
    assert has_heights(pa.array(by_geos(SHAPES), large))


WHOLE = by_geos(SHAPES)[6] or b""


@pytest.mark.parametrize("end", range(1, len(WHOLE)))
def test_wkb_that_ends_early_is_refused(end: int) -> None:
    with pytest.raises(TerminalError, match="row 2 of a batch ends too early"):
        moved(pa.array([WHOLE, WHOLE[:end], WHOLE]), shift)


@pytest.mark.parametrize(
    ("wkb", "why"),
    [
        (WHOLE + b"\0", "bytes after its end"),
        (b"\0" + WHOLE[1:], "not little-endian ISO WKB"),
        (b"\1\x08\0\0\0" + WHOLE[5:], "not little-endian ISO WKB"),
        (b"\1\3\0\0\x20" + WHOLE[5:], "not little-endian ISO WKB"),
        (b"\1\6\0\0\0\xff\xff\xff\xff" + WHOLE, "ends too early"),
    ],
)
def test_bytes_that_are_no_wkb_are_refused(wkb: bytes, why: str) -> None:
    with pytest.raises(TerminalError, match=why):
        moved(pa.array([wkb]), shift)


# --- reprojection ---

PAIRS = [
    ("EPSG:3857", "EPSG:4326"),
    ("EPSG:4326", "EPSG:3857"),
    ("EPSG:3857", "EPSG:25833"),
    ("EPSG:32633", "EPSG:4326"),
]


def around(crs: str) -> Any:
    """Some thousand plots near Prague, some with holes, as shapes and as WKB."""
    to_crs = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_crs.transform(*np.random.default_rng(1).uniform((14, 49.9), (15, 50.2), (3000, 2)).T)
    size = 0.001 if crs == "EPSG:4326" else 30
    shapes = shapely.box(x, y, x + size, y + size)
    shapes[::7] = shapely.difference(shapes[::7], shapely.buffer(shapely.centroid(shapes[::7]), size / 5))
    shapes[::11] = None
    return shapes


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_reprojected_is_what_pyproj_says(source: str, target: str) -> None:
    shapes = around(source)
    mover = Transformer.from_crs(source, target, always_xy=True)
    wanted = shapely.transform(shapes, mover.transform, interleaved=False)
    tolerance = 1e-9 if target == "EPSG:4326" else 1e-7
    for given_as in (Geometries(shapes=shapes), Geometries(wkb=packed(shapes))):
        found = reprojected(given_as, source, target, transformer(source, target).transform)
        assert found is not None
        assert (shapely.is_missing(found.shapes) == shapely.is_missing(wanted)).all()
        there = ~shapely.is_missing(wanted)
        assert shapely.equals_exact(found.shapes[there], wanted[there], tolerance).all()


@pytest.mark.parametrize(
    ("wkt", "source", "target"),
    [
        ("POINT (0 91)", "EPSG:4326", "EPSG:3857"),
        ("POINT (inf 0)", "EPSG:3857", "EPSG:4326"),
        ("POINT EMPTY", "EPSG:3857", "EPSG:4326"),
        ("LINESTRING (179 0, 181 0)", "EPSG:4326", "EPSG:3857"),
        ("POINT Z (1 2 3)", "EPSG:3857", "EPSG:25833"),
    ],
)
def test_what_needs_a_closer_look(wkt: str, source: str, target: str) -> None:
    shape = shapely.Point(np.inf, 0) if "inf" in wkt else shapely.from_wkt(wkt)
    given = Geometries(shapes=np.array([shape], object))
    assert reprojected(given, source, target, transformer(source, target).transform) is None
    broken = Geometries(wkb=pa.array([b"\1\3"]))
    assert reprojected(broken, source, target, transformer(source, target).transform) is None
