"""Geometry nodes beside geopandas and shapely on real plots, and on what real data has too: nulls, Z, broken rings."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from shapely.geometry.polygon import orient

from tasks.errors import TerminalError
from tasks.geo.batches import Batch, Geometries
from tasks.geo.geometry_buffer import Buffer, DissolvedBuffer
from tasks.geo.geometry_measure import Measured
from tasks.geo.geometry_reproject import Reproject
from tasks.geo.geometry_shapes import Centroid, CommonHull, ConvexHull, Explode, MakeValid, Simplify
from tasks.geo.geometry_transforms import transformer
from tasks.geo.layouts import UNKNOWN
from tasks.geo.nodes import NODES, NodeProblem
from tasks.records import Reason
from tests.fakes.geo import columns_of
from tests.fakes.geo_frames import Budget, batch_of, batches_of, cut, layer, one, run, same_shapes

BOW_TIE = "POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))"
SHAPES = [
    None,
    "POINT EMPTY",
    "POINT Z (1 2 3)",
    "LINESTRING (0 0, 4 3)",
    "POLYGON ((0 0, 4 0, 4 4, 0 4, 0 0))",
    BOW_TIE,
]


@pytest.fixture(scope="module")
def gpkg(shared_data: Path) -> Path:
    return shared_data / "geo" / "bubenec.gpkg"


@pytest.fixture(scope="module")
def plots(gpkg: Path) -> gpd.GeoDataFrame:
    return layer(gpkg, "plots")


def make(name: str, **parameters: Any) -> Any:
    """As the engine does it."""
    return NODES[name].model_validate(parameters)


@pytest.mark.parametrize("name", ["plots", "buildings", "streets", "tessellation"])
@pytest.mark.parametrize("distance", [5.0, -2.0])
def test_buffers_are_those_of_geopandas(gpkg: Path, tmp_path: Path, name: str, distance: float) -> None:
    frame = layer(gpkg, name)
    made = one(make("geoprocessing.buffer", distance=distance), tmp_path, input=batches_of(frame))
    assert (made.geometry.to_wkb() == frame.buffer(distance, quad_segs=8).to_wkb()).all()
    assert made.drop(columns="geometry").equals(frame.drop(columns="geometry"))


def test_units_are_those_of_the_crs(plots: gpd.GeoDataFrame, tmp_path: Path) -> None:
    feet = plots.to_crs(2263)  # US survey feet; far from New York, so the plane is a poor map of Prague: no matter
    made = one(make("geoprocessing.buffer", distance=0.01, units="kilometers"), tmp_path, input=batches_of(feet))
    assert (made.geometry.to_wkb() == feet.buffer(10 * 3937 / 1200, quad_segs=8).to_wkb()).all()
    miles = make("geoprocessing.buffer", distance=1, units="miles", segments=1)
    assert run(miles, tmp_path, input=[batch_of(["POINT (0 0)"])])["output"][0].shapes[0].area == pytest.approx(
        2 * 1609.344**2
    )


def test_metres_on_degrees_are_refused_with_the_remedy() -> None:
    degrees = {"input": batch_of(["POINT (14 50)"], "EPSG:4326").layout}
    with pytest.raises(NodeProblem, match=r"EPSG:4326 counts in degrees.*geoprocessing.reproject.*crs") as caught:
        Buffer(distance=5).layouts(degrees)
    assert caught.value.field == "units"
    Buffer(distance=0.1, units="crs").layouts(degrees)
    with pytest.raises(NodeProblem, match="not known"):
        Buffer(distance=5).layouts({"input": batch_of(["POINT (14 50)"], None).layout})


@pytest.mark.parametrize("size_bytes", [1 << 30, 0])
def test_dissolved_buffers_are_the_union(plots: gpd.GeoDataFrame, tmp_path: Path, size_bytes: int) -> None:
    node = make("geoprocessing.buffer", distance=3, dissolve=True)
    assert isinstance(node, DissolvedBuffer)
    made = one(node, tmp_path, Budget(size_bytes), input=batches_of(plots, rows=40))
    same_shapes(made.geometry, [plots.buffer(3, quad_segs=8).union_all()])
    assert list(made.columns) == ["geometry"]


@pytest.mark.parametrize("topology", [True, False])
def test_simplified_as_geopandas_does(plots: gpd.GeoDataFrame, tmp_path: Path, topology: bool) -> None:
    node = Simplify(tolerance=1.5, preserve_topology=topology)
    made = one(node, tmp_path, input=batches_of(plots))
    assert (made.geometry.to_wkb() == plots.simplify(1.5, preserve_topology=topology).to_wkb()).all()


def test_centroids_and_hulls_are_those_of_geopandas(plots: gpd.GeoDataFrame, tmp_path: Path) -> None:
    batches = batches_of(plots)
    assert (one(Centroid(), tmp_path, input=batches).geometry.to_wkb() == plots.centroid.to_wkb()).all()
    hulls = one(make("geoprocessing.convex_hull"), tmp_path, input=batches)
    assert (hulls.geometry.to_wkb() == plots.convex_hull.to_wkb()).all()
    common = make("geoprocessing.convex_hull", per_feature=False)
    assert isinstance(common, CommonHull)
    for budget in (None, Budget(0)):
        same_shapes(one(common, tmp_path, budget, input=batches).geometry, [plots.union_all().convex_hull])


def test_make_valid_repairs_the_broken_and_leaves_the_rest(tmp_path: Path) -> None:
    batch = batch_of(SHAPES)
    made = run(MakeValid(), tmp_path, input=[batch])["output"][0]
    assert made.shapes[5].equals(shapely.make_valid(batch.shapes[5]))
    assert made.shapes[5].geom_type == "MultiPolygon"
    assert [made.shapes[i] is batch.shapes[i] for i in (0, 2, 3, 4)] == [True] * 4
    flat = run(
        MakeValid(method="structure", keep_collapsed=False), tmp_path, input=[batch_of(["POLYGON ((0 0, 1 1, 0 0))"])]
    )
    assert flat["output"][0].shapes[0].is_empty


def test_explodes_as_geopandas_does(plots: gpd.GeoDataFrame, tmp_path: Path) -> None:
    several = plots.dissolve("TYPPPD_KOD").reset_index()
    made = one(make("geoprocessing.explode"), tmp_path, input=batches_of(several, rows=3))
    expected = several.explode(ignore_index=True)
    assert len(made) > len(several)
    assert (made.geometry.to_wkb() == expected.geometry.to_wkb()).all()
    assert (made["TYPPPD_KOD"] == expected["TYPPPD_KOD"]).all()


def test_explode_loses_no_feature(tmp_path: Path) -> None:
    nested = "GEOMETRYCOLLECTION (POINT (1 1), GEOMETRYCOLLECTION (MULTIPOINT (2 2, 3 3)), POLYGON EMPTY)"
    batch = batch_of([None, "MULTIPOINT EMPTY", nested, "POINT (4 4)"], id=[1, 2, 3, 4], lists=[[1, 2], [], None, [3]])
    made = run(Explode(), tmp_path, input=[batch])["output"][0]
    assert made.column("id").to_pylist() == [1, 2, 3, 3, 3, 3, 4]
    assert all(s is None or not hasattr(s, "geoms") or s.is_empty for s in made.shapes)
    listed = run(Explode(column="lists"), tmp_path, input=cut(batch, 3))["output"]
    assert columns_of(listed) == {"id": [1, 1, 2, 3, 4], "lists": [1, 2, None, None, 3]}
    with pytest.raises(NodeProblem, match="not lists"):
        Explode(column="id").layouts({"input": batch.layout})
    typed = run(Explode(), tmp_path, input=[batch_of(["MULTIPOINT EMPTY", "MULTIPOINT (1 1, 2 2)"], kind="MultiPoint")])
    assert typed["output"][0].layout.geometry.kind == "Point"


def test_measures_on_the_map_and_on_the_ellipsoid(plots: gpd.GeoDataFrame, tmp_path: Path) -> None:
    measures = ("area_m2", "area_ha", "area_acres", "length_m", "length_ft")
    planar = one(Measured(measures=measures, method="planar"), tmp_path, input=batches_of(plots))
    np.testing.assert_allclose(planar["area_m2"], plots.area, rtol=1e-12)
    np.testing.assert_allclose(planar["area_acres"] * 4046.8564224, plots.area, rtol=1e-12)
    np.testing.assert_allclose(planar["length_ft"] * 0.3048, plots.length, rtol=1e-12)
    geod, degrees = Geod(ellps="WGS84"), plots.to_crs(4326)
    made = one(Measured(measures=measures), tmp_path, input=batches_of(plots))
    areas = [abs(geod.geometry_area_perimeter(orient(shape))[0]) for shape in degrees.geometry]
    np.testing.assert_allclose(made["area_m2"], areas, atol=1e-4)
    np.testing.assert_allclose(made["area_ha"] * 10_000, made["area_m2"], rtol=1e-12)
    borders = [geod.geometry_length(shape.boundary) for shape in degrees.geometry]
    np.testing.assert_allclose(made["length_m"], borders, rtol=1e-9)
    assert (planar["area_m2"] / made["area_m2"]).between(2.4, 2.5).all()  # 1 / cos(50 degrees) squared


def test_measures_of_everything_there_is(tmp_path: Path) -> None:
    collection = "GEOMETRYCOLLECTION (LINESTRING (0 0, 3 4), POLYGON ((0 0, 2 0, 2 2, 0 2, 0 0)))"
    batch = batch_of([*SHAPES[:5], collection])
    made = run(Measured(measures=("area_m2", "length_m"), method="planar"), tmp_path, input=[batch])["output"][0]
    assert made.column("area_m2").to_pylist() == [None, 0, 0, 0, 16, 4]
    assert made.column("length_m").to_pylist() == [None, 0, 0, 5, 16, 13]
    around = run(Measured(measures=("area_m2", "length_m")), tmp_path, input=[batch])["output"][0]
    np.testing.assert_allclose(around.column("length_m").to_pylist()[3:], [5, 16, 13], rtol=0.01)
    paris = batch_of(["POLYGON ((0 52, 1 52, 1 53, 0 53, 0 52))"], "EPSG:4807")  # grads, from the meridian of Paris
    size = run(Measured(measures=("area_km2",)), tmp_path, input=[paris])["output"][0].column("area_km2")[0].as_py()
    assert size == pytest.approx(100.1 * 68.0, rel=0.01)


def test_measures_that_cannot_be() -> None:
    degrees = {"input": batch_of(["POINT (14 50)"], "EPSG:4326", area_m2=[1.0]).layout}
    with pytest.raises(NodeProblem, match=r"degrees.*method: geodesic"):
        Measured(measures=("area_ha",), method="planar").layouts(degrees)
    with pytest.raises(NodeProblem, match="prefix"):
        Measured(measures=("area_m2",)).layouts(degrees)
    assert Measured(measures=("area_m2",), prefix="plot_").layouts(degrees)["output"].names == [
        "area_m2",
        "plot_area_m2",
    ]


@pytest.mark.parametrize("target", ["EPSG:4326", "EPSG:5514", "EPSG:32633", "EPSG:25833", "EPSG:3035", "EPSG:3857"])
@pytest.mark.parametrize("name", ["plots", "streets"])
def test_reprojected_as_geopandas_does(gpkg: Path, tmp_path: Path, target: str, name: str) -> None:
    frame = layer(gpkg, name)
    made = one(Reproject(target_crs=target.lower()), tmp_path, input=batches_of(frame))
    assert made.crs == target
    ours, theirs = (shapely.get_coordinates(f.geometry.to_numpy()) for f in (made, frame.to_crs(target)))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 if target == "EPSG:4326" else 1e-8)


@pytest.mark.parametrize(("target", "tolerance_m"), [("EPSG:32633", 1e-6), ("EPSG:5514", 5e-3)])  # a Helmert shift
def test_reprojected_there_and_back(plots: gpd.GeoDataFrame, tmp_path: Path, target: str, tolerance_m: float) -> None:
    there = run(Reproject(target_crs=target), tmp_path, input=batches_of(plots))["output"]
    back = one(Reproject(target_crs="EPSG:3857"), tmp_path, input=there)
    ours, theirs = (shapely.get_coordinates(f.geometry.to_numpy()) for f in (back, plots))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance_m)


@given(
    st.lists(st.tuples(st.floats(-179.9, 179.9), st.floats(-85, 85)), min_size=1, max_size=20),
    st.sampled_from(["EPSG:3857", "EPSG:6933", "EPSG:3395"]),
)
@settings(max_examples=40, deadline=None)
def test_any_place_goes_there_and_back(places: list[tuple[float, float]], target: str) -> None:
    batch = batch_of([shapely.Point(p) for p in places], "EPSG:4326", "Point")
    back = Reproject(target_crs="EPSG:4326").apply(Reproject(target_crs=target).apply(batch))
    np.testing.assert_allclose(shapely.get_coordinates(back.shapes), places, rtol=0, atol=1e-7)


def test_heights_nulls_and_empties_come_through(tmp_path: Path) -> None:
    batch = batch_of(
        [None, "POINT EMPTY", "POINT Z (14 50 300)", "POINT (14 50)", "LINESTRING Z (14 50 1, 15 50 2)"], "EPSG:4326"
    )
    for target in ("EPSG:3857", "EPSG:32633", "EPSG:5514"):
        for batches in ([batch], cut(batch, 2)):
            made = [s for b in run(Reproject(target_crs=target), tmp_path, input=batches)["output"] for s in b.shapes]
            frame = gpd.GeoSeries(batch.shapes, crs=4326).to_crs(target)
            assert [s is not None and s.has_z for s in made] == [False, False, True, False, True]
            for ours, theirs in zip(made[2:], frame[2:], strict=True):
                np.testing.assert_allclose(
                    shapely.get_coordinates(ours, include_z=True),
                    shapely.get_coordinates(theirs, include_z=True),
                    atol=1e-8,
                )


@pytest.mark.parametrize(
    ("shape", "source", "target", "why"),
    [
        ("POINT (0 95)", "EPSG:4326", "EPSG:3857", "outside of where EPSG:3857"),
        ("POINT (NaN 5)", "EPSG:4326", "EPSG:32633", "outside of where EPSG:32633"),
        (shapely.box(179, 0, 181, 1), "EPSG:4326", "EPSG:3857", "antimeridian of EPSG:3857"),
        (shapely.box(3_200_000, 0, 3_500_000, 1000), "EPSG:3832", "EPSG:4326", "antimeridian of EPSG:4326"),
        (shapely.box(-1e6, -1e6, 1e6, 1e6), "EPSG:3995", "EPSG:4326", "antimeridian of EPSG:4326"),  # round the pole
    ],
)
def test_no_infinite_coordinate_comes_out(shape: Any, source: str, target: str, why: str, tmp_path: Path) -> None:
    good = shapely.Point(1, 2)
    for batch in (batch_of([good, shape, None], source), cut(batch_of([good, shape, None], source), 9)[0]):
        with pytest.raises(TerminalError, match=f"1 of 3 geometries.*{why}.*on_failure") as caught:
            Reproject(target_crs=target).apply(batch)
        assert caught.value.reason == Reason.OUTSIDE_CRS
        left_out = run(Reproject(target_crs=target, on_failure="null"), tmp_path, input=[batch])["output"][0]
        assert shapely.is_missing(left_out.shapes).tolist() == [False, True, True]
        assert np.isfinite(shapely.get_coordinates(left_out.shapes)).all()


def test_what_only_looks_torn_is_left_alone(tmp_path: Path) -> None:
    across = batch_of([shapely.box(179, 0, 181, 1)], "EPSG:4326")
    made = run(Reproject(target_crs="EPSG:3832"), tmp_path, input=[across])["output"][0]  # the Pacific in the middle
    assert 0 < made.shapes[0].bounds[2] - made.shapes[0].bounds[0] < 300_000
    world = batch_of([shapely.box(-180, -80, 180, 80)], "EPSG:4326")
    whole = run(Reproject(target_crs="EPSG:3857"), tmp_path, input=[world])["output"][0]
    assert whole.shapes[0].bounds[2] == pytest.approx(20037508.34, abs=0.01)


def test_bad_operations_are_refused_with_the_grids_they_lack() -> None:
    tennessee = batch_of(["POINT (-85 35)"], "EPSG:4267")
    Reproject(target_crs="EPSG:4326").layouts({"input": tennessee.layout})
    with pytest.raises(
        TerminalError, match=r"only good to \d+ m here, for want of grids \(.*us_noaa_.*pyproj sync"
    ) as caught:
        Reproject(target_crs="EPSG:4326").apply(tennessee)
    assert caught.value.reason == Reason.INACCURATE
    Reproject(target_crs="EPSG:4326", accuracy_m=30).apply(tennessee)
    heights = batch_of(["POINT Z (14 50 300)"], "EPSG:9707")
    with pytest.raises(NodeProblem, match=r"us_nga_egm96_15\.tif"):
        Reproject(target_crs="EPSG:4979").layouts({"input": heights.layout})


def test_crs_that_are_none_or_unknown() -> None:
    unknown = {"input": batch_of(["POINT (14 50)"], None).layout}
    for parameters, field in (
        ({"target_crs": "EPSG:4326"}, "source_crs"),
        ({"target_crs": "EPSG:999999", "source_crs": "EPSG:4326"}, "target_crs"),
        ({"target_crs": "EPSG:4326", "source_crs": "somewhere"}, "source_crs"),
    ):
        with pytest.raises(NodeProblem) as caught:
            Reproject(**parameters).layouts(unknown)
        assert caught.value.field == field
    named = Reproject(target_crs="EPSG:3857", source_crs="EPSG:4326").layouts(unknown)["output"]
    assert named.crs == "EPSG:3857"


def test_threads_have_transformers_of_their_own(plots: gpd.GeoDataFrame) -> None:
    transformer.cache_clear()
    batch = batch_of(plots.geometry.to_numpy(), "EPSG:3857")
    expected = shapely.get_coordinates(plots.to_crs(5514).geometry.to_numpy())
    node, together = Reproject(target_crs="EPSG:5514"), threading.Barrier(8)

    def work(_: int) -> bool:
        together.wait(10)
        return all((shapely.get_coordinates(node.apply(batch).shapes) == expected).all() for _ in range(3))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


NODES_OF_SHAPES = [
    Buffer(distance=1), Buffer(distance=-1), Simplify(tolerance=1), Centroid(), MakeValid(), ConvexHull(), Explode(),
    Reproject(target_crs="EPSG:32633"), Measured(measures=("area_m2", "length_m")),
    make("geoprocessing.buffer", distance=1, dissolve=True), make("geoprocessing.convex_hull", per_feature=False),
]  # fmt: skip


@pytest.mark.parametrize("node", NODES_OF_SHAPES, ids=lambda n: n.type)
def test_empty_batches_mixtures_and_nothing_at_all(node: Any, tmp_path: Path) -> None:
    assert not any(run(node, tmp_path, input=[batch_of([], id=pa.array([], pa.int64()))]).values())
    made = run(
        node,
        tmp_path,
        input=[batch_of(SHAPES[:5], id=range(5)), batch_of([None], id=[9]), batch_of([], id=pa.array([], pa.int64()))],
    )
    rows = sum(batch.rows for batch in made["output"])
    assert rows == (1 if isinstance(node, DissolvedBuffer | CommonHull) else 6)


@pytest.mark.parametrize("node", NODES_OF_SHAPES, ids=lambda n: n.type)
def test_tables_are_refused(node: Any) -> None:
    table = batch_of([]).layout.__class__(pa.schema([("id", pa.int64())]))
    with pytest.raises(NodeProblem, match="no geometry"):
        node.layouts({"input": table})


def test_broken_bytes_are_told() -> None:
    whole = batch_of(["POINT (1 2)"])
    broken = Batch(whole.layout, (), Geometries(wkb=pa.array([None, shapely.to_wkb(whole.shapes[0]), b"\x01\x02"])), 3)
    for node in NODES_OF_SHAPES[:-2]:
        with pytest.raises(TerminalError, match=r"1 of 3 geometries.*row 3.*quality.validate_geometry"):
            node.apply(broken)


def test_kinds_are_kept_where_they_are_certain() -> None:
    def kind(node: Any, before: str) -> str:
        return node.layouts({"input": batch_of([], kind=before).layout})["output"].geometry.kind

    assert [kind(Buffer(distance=1), k) for k in ("Point", "Polygon", "MultiPolygon", UNKNOWN)] == ["Polygon"] * 2 + [
        UNKNOWN
    ] * 2
    assert [kind(Buffer(distance=distance), "Polygon") for distance in (-1, 0)] == [UNKNOWN] * 2
    touching = batch_of(["POLYGON ((0 0, 1 1, 2 0, 2 2, 1 1, 0 2, 0 0))"], kind="Polygon")
    assert Buffer(distance=0).apply(touching).shapes[0].geom_type == "MultiPolygon"
    assert [kind(Explode(), k) for k in ("MultiPolygon", "Polygon", UNKNOWN)] == ["Polygon", "Polygon", UNKNOWN]
    assert kind(Simplify(tolerance=1), "Polygon") == "Polygon"
    assert kind(Simplify(tolerance=1, preserve_topology=False), "Polygon") == UNKNOWN
