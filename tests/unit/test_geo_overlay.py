"""Overlays and spatial joins beside geopandas on real plots, streets and buildings, and their algebra by properties."""

from __future__ import annotations

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import TerminalError
from tasks.geo.layouts import UNKNOWN
from tasks.geo.nodes import NodeProblem
from tasks.geo.overlay_cut import Clip, Difference, Intersection
from tasks.geo.overlay_join import SpatialJoin
from tasks.geo.overlay_union import Union
from tasks.records import Reason
from tests.fakes.geo import work_in
from tests.fakes.geo_frames import Budget, batch_of, batches_of, layer, one, run, same_shapes

BOW_TIE = "POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))"


@pytest.fixture(scope="module")
def layers(shared_data: Path) -> dict[str, gpd.GeoDataFrame]:
    path = shared_data / "geo" / "bubenec.gpkg"
    found = {name: layer(path, name) for name in ("plots", "buildings", "streets", "tessellation")}
    found["buildings"] = found["buildings"].assign(ID=[f"b{i}" for i in range(144)])  # a name the plots have too
    found["districts"] = gpd.GeoDataFrame(  # three that overlap, and leave a part of the plots out
        {"district": ["north", "middle", "south"]},
        geometry=[shapely.Point(1603300, y).buffer(450, quad_segs=64) for y in (6464600, 6464200, 6463800)],
        crs=3857,
    )
    return found


def _without_slivers(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """geopandas takes one neighbour after the other away, not all together: where they meet, its noise stays."""
    slivers = (frame.area < 1e-3) & (frame.geom_type.isin(["Polygon", "MultiPolygon"]))
    assert frame[slivers].area.sum() < 1e-2
    return frame[~slivers].reset_index(drop=True)


def ordered(frame: Any, by: list[str]) -> Any:
    return frame.sort_values(by, kind="stable").reset_index(drop=True)


PREDICATES = ["intersects", "within", "contains", "covers", "covered_by", "touches", "crosses", "overlaps"]


@pytest.mark.parametrize("predicate", PREDICATES)
@pytest.mark.parametrize(
    "pair", [("plots", "buildings"), ("plots", "districts"), ("streets", "plots"), ("buildings", "plots")]
)
def test_joins_are_those_of_geopandas(layers: Any, tmp_path: Path, predicate: str, pair: tuple[str, str]) -> None:
    ours, theirs = (layers[name].assign(row=range(len(layers[name]))) for name in pair)
    made = one(SpatialJoin(predicate=predicate), tmp_path, input=batches_of(ours), overlay=batches_of(theirs, 50))
    expected = gpd.sjoin(ours, theirs, predicate=predicate)
    assert list(zip(made["row"], made["row_overlay"], strict=True)) == sorted(
        zip(expected["row_left"], expected["row_right"], strict=True)
    )
    assert (made.geometry.to_wkb() == ours.geometry.iloc[made["row"]].to_wkb().to_numpy()).all()


def test_left_joins_keep_those_that_meet_none(layers: Any, tmp_path: Path) -> None:
    plots, buildings = layers["plots"], layers["buildings"]
    node = SpatialJoin(how="left", columns=("ID",), suffix="_of_building")
    made = one(node, tmp_path, input=batches_of(plots), overlay=batches_of(buildings))
    expected = gpd.sjoin(plots, buildings[["ID", "geometry"]], how="left")
    assert list(made.columns) == [*plots.columns.drop("geometry"), "ID_of_building", "geometry"]
    assert made["ID_of_building"].isna().sum() == expected["ID_right"].isna().sum() > 0
    key = lambda frame, name: sorted(zip(frame["ID_2"], frame[name].fillna(""), strict=True))  # noqa: E731
    assert key(made, "ID_of_building") == key(expected, "ID_right")


@pytest.mark.parametrize(
    "pair", [("plots", "buildings"), ("plots", "districts"), ("streets", "plots"), ("tessellation", "plots")]
)
def test_intersections_are_those_of_geopandas(layers: Any, tmp_path: Path, pair: tuple[str, str]) -> None:
    ours, theirs = (layers[name][["geometry"]].assign(row=range(len(layers[name]))) for name in pair)
    made = one(Intersection(), tmp_path, input=batches_of(ours), overlay=batches_of(theirs))
    expected = gpd.overlay(ours, theirs, how="intersection", keep_geom_type=True)
    expected = ordered(expected, ["row_1", "row_2"])
    assert made["row"].tolist() == expected["row_1"].tolist()
    assert made["row_overlay"].tolist() == expected["row_2"].tolist()
    same_shapes(made.geometry, expected.geometry)


@pytest.mark.parametrize(
    "pair", [("plots", "buildings"), ("plots", "districts"), ("streets", "buildings"), ("tessellation", "plots")]
)
def test_differences_are_those_of_geopandas(layers: Any, tmp_path: Path, pair: tuple[str, str]) -> None:
    ours, theirs = (layers[name][["geometry"]].assign(row=range(len(layers[name]))) for name in pair)
    made = one(Difference(), tmp_path, input=batches_of(ours), overlay=batches_of(theirs))
    expected = gpd.overlay(ours, theirs, how="difference", keep_geom_type=True)
    made, expected = _without_slivers(made), _without_slivers(expected)
    assert made["row"].tolist() == expected["row"].tolist()
    np.testing.assert_allclose(made.area, expected.area, rtol=1e-9, atol=1e-6)
    same_shapes(made.geometry, ours.geometry.iloc[made["row"]].difference(theirs.union_all()))


@pytest.mark.parametrize("pair", [("plots", "districts"), ("streets", "districts"), ("plots", "buildings")])
def test_clips_are_those_of_geopandas(layers: Any, tmp_path: Path, pair: tuple[str, str]) -> None:
    ours, theirs = (layers[name].assign(row=range(len(layers[name]))) for name in pair)
    made = one(Clip(), tmp_path, input=batches_of(ours), overlay=batches_of(theirs))
    expected = gpd.clip(ours, theirs, keep_geom_type=True, sort=True)
    assert made["row"].tolist() == expected["row"].tolist()
    assert list(made.columns) == [*ours.columns.drop("geometry"), "geometry"]
    same_shapes(made.geometry, expected.geometry)


@pytest.mark.parametrize("pair", [("plots", "districts"), ("tessellation", "plots")])
@pytest.mark.parametrize("rows", [150])
def test_unions_are_those_of_geopandas(layers: Any, tmp_path: Path, pair: tuple[str, str], rows: int) -> None:
    ours, theirs = (layers[name][["geometry"]].assign(row=range(len(layers[name]))) for name in pair)
    budget = Budget(1)
    made = one(Union(), tmp_path, budget, input=batches_of(ours, rows), overlay=batches_of(theirs, rows))
    assert budget.most > 0
    made = ordered(_without_slivers(made).rename(columns={"row": "row_1", "row_overlay": "row_2"}), ["row_1", "row_2"])
    expected = _without_slivers(gpd.overlay(ours, theirs, how="union", keep_geom_type=True))
    expected = ordered(expected, ["row_1", "row_2"])
    pd.testing.assert_frame_equal(made[["row_1", "row_2"]], expected[["row_1", "row_2"]], check_dtype=False)
    np.testing.assert_allclose(made.area, expected.area, rtol=1e-9, atol=1e-6)


square = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 6)] * 2).map(
    lambda s: shapely.box(s[0], s[1], s[0] + s[2], s[1] + s[3])
)
turned = st.tuples(square, st.integers(0, 90)).map(lambda s: shapely.affinity.rotate(*s))
squares = st.lists(square | turned, max_size=8)


@given(squares, squares)
@settings(max_examples=30, deadline=None)
def test_what_is_inside_and_what_is_outside_make_the_whole(ours: list[Any], theirs: list[Any]) -> None:
    a, b = batch_of(ours, id=range(len(ours))), batch_of(theirs)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        inside, outside = ({} for _ in range(2))
        for node, parts in ((Clip(), inside), (Difference(), outside)):
            for batch in run(node, root, input=[a], overlay=[b])["output"]:
                parts.update(zip(batch.column("id").to_pylist(), batch.shapes, strict=True))
        for i, shape in enumerate(ours):
            pieces = [parts.get(i, shapely.Polygon()) for parts in (inside, outside)]
            assert shapely.intersection(*pieces).area == pytest.approx(0, abs=1e-9)
            assert sum(p.area for p in pieces) == pytest.approx(shape.area, rel=1e-9)
        both = [s for batch in run(Union(), root, input=[a], overlay=[b])["output"] for s in batch.shapes]
        assert shapely.union_all([*both, shapely.Polygon()]).area == pytest.approx(
            shapely.union_all([*ours, *theirs, shapely.Polygon()]).area, rel=1e-9, abs=1e-9
        )


def test_what_only_touches_has_nothing_in_common(tmp_path: Path) -> None:
    left, right = batch_of([shapely.box(0, 0, 1, 1)], id=[1]), batch_of([shapely.box(1, 0, 2, 1)])
    for node in (Clip(), Intersection()):
        assert run(node, tmp_path, input=[left], overlay=[right]) == {"output": []}
    comb = batch_of(["POLYGON ((1 0, 3 0, 3 1, 2 1, 2 0.5, 1 0.5, 1 0.8, 0.5 0.8, 0.5 0.5, 0 0.5, 0 0, 1 0))"])
    made = run(Intersection(), tmp_path, input=[left], overlay=[comb])["output"][0]
    assert made.shapes[0].geom_type in ("Polygon", "MultiPolygon")


@pytest.mark.parametrize("node", [Clip(), Difference(), Intersection(), Union()], ids=lambda n: n.type)
def test_invalid_areas_are_told_with_place_and_remedy(node: Any, tmp_path: Path) -> None:
    good, bad = batch_of(["POLYGON ((0.1 0.1, 0.9 0.1, 0.9 2, 0.1 0.1))"]), batch_of([BOW_TIE])
    for ports in ({"input": [bad], "overlay": [good]}, {"input": [good], "overlay": [bad]}):
        with pytest.raises(TerminalError, match=r"1 invalid.*Self-intersection\[0\.5 0\.5\].*make_valid") as caught:
            run(node, tmp_path, **ports)
        assert caught.value.reason == Reason.BAD_GEOMETRY


@pytest.mark.parametrize(
    "node",
    [Clip(), Difference(), Intersection(), Union(), SpatialJoin(), SpatialJoin(how="left")],
    ids=lambda n: n.type,
)
def test_nothing_at_all_on_either_side(node: Any, tmp_path: Path) -> None:
    some = batch_of([shapely.box(0, 0, 1, 1), None, "POLYGON EMPTY"], id=[1, 2, 3])
    nulls = batch_of([None, "POLYGON EMPTY"], id=[4, 5])
    assert run(node, tmp_path, input=[nulls.take(np.array([], dtype=np.int64))], overlay=[nulls]) == {"output": []}
    for overlay in ([nulls], [nulls.take(np.array([False, False]))]):
        made = run(node, tmp_path, input=[some], overlay=overlay)["output"]
        ids = [i for batch in made for i in batch.column("id").to_pylist()]
        left = isinstance(node, SpatialJoin) and node.how == "left"
        assert ids == ([1, 2, 3] if left else [1] if isinstance(node, Difference | Union) else [1, 2, 3][:0])


def test_mistakes_are_found_before_the_run() -> None:
    areas, lines = batch_of([], kind="Polygon", id=[1][:0]).layout, batch_of([], kind="LineString").layout
    with pytest.raises(NodeProblem, match="no Polygon would be left; exchange them"):
        Clip().layouts({"input": areas, "overlay": lines})
    with pytest.raises(NodeProblem, match="one dimension"):
        Union().layouts({"input": areas, "overlay": lines})
    with pytest.raises(NodeProblem, match="did you mean 'id'"):
        SpatialJoin(columns=("idd",)).layouts({"input": lines, "overlay": areas})
    clash = batch_of([], id=[1][:0], id_overlay=[1][:0]).layout
    with pytest.raises(NodeProblem, match="'id_overlay'; give another suffix"):
        Intersection().layouts({"input": clash, "overlay": areas})
    assert Clip().layouts({"input": areas, "overlay": areas})["output"].geometry == areas.shaped(UNKNOWN).geometry


def test_one_tree_serves_all_threads(layers: Any, tmp_path: Path) -> None:
    plots, districts = batches_of(layers["plots"], 1000)[0], batches_of(layers["districts"])
    node = SpatialJoin(predicate="within")
    built = node.build(iter(districts), districts[0].layout, work_in(tmp_path))
    expected, together = node.apply(plots, built).column("district"), threading.Barrier(8)

    def work(_: int) -> bool:
        together.wait(10)
        return all(node.apply(plots, built).column("district").equals(expected) for _ in range(5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
