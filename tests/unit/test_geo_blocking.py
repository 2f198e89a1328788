"""Sorting, grouping and the like beside pandas, in memory and with budgets that spill at every step."""

from __future__ import annotations

import datetime
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import StopRequested
from tasks.geo import blocking_sorting, geometry_union
from tasks.geo.blocking_dedupe import Dedupe
from tasks.geo.blocking_groups import Aggregate, Dissolve
from tasks.geo.blocking_merge import Merge
from tasks.geo.blocking_sort import Sort
from tasks.geo.blocking_sorting import Sorter, ascending
from tasks.geo.layouts import UNKNOWN, Layout
from tasks.geo.nodes import NodeProblem
from tests.fakes.geo import columns_of, shapes_of, work_in
from tests.fakes.geo_frames import Budget, batch_of, batches_of, cut, layer, one, run, same_shapes, stopped

ROOM, LITTLE, NONE = 1 << 30, 60_000, 0


@pytest.fixture(scope="module")
def plots(shared_data: Path) -> gpd.GeoDataFrame:
    return layer(shared_data / "geo" / "bubenec.gpkg", "plots")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merges in many passes of many blocks."""
    monkeypatch.setattr(blocking_sorting, "FAN_IN", 4)
    monkeypatch.setattr(blocking_sorting, "BLOCK_BYTES", 12_000)


@pytest.mark.parametrize("size_bytes", [ROOM, LITTLE, NONE])
def test_sorted_as_pandas_does(plots: gpd.GeoDataFrame, tmp_path: Path, small_blocks: None, size_bytes: int) -> None:
    plots = plots.assign(row=range(len(plots)))
    node = Sort(by=("TYPPPD_KOD", {"column": "ID_2", "order": "descending"}))
    made = one(node, tmp_path, Budget(size_bytes), input=batches_of(plots, 10))
    expected = plots.sort_values(["TYPPPD_KOD", "ID_2"], ascending=[True, False], kind="stable")
    assert made["row"].tolist() == expected["row"].tolist()
    assert (made.geometry.to_wkb() == expected.geometry.to_wkb().to_numpy()).all()


rows = st.lists(
    st.tuples(
        st.none() | st.integers(-3, 3), st.none() | st.floats(allow_infinity=True), st.none() | st.text(max_size=2)
    ),
    max_size=60,
)


@given(
    rows,
    st.permutations(["a", "b", "c"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 9),
    st.sampled_from([ROOM, 500, NONE]),
)
@settings(max_examples=25, deadline=None)
def test_sorting_is_stable_whatever_spills(
    values: list[Any], by: list[str], down: bool, first: bool, size: int, room: int
) -> None:
    a, b, c = (pa.array([v[i] for v in values], k) for i, k in enumerate((pa.int64(), pa.float64(), pa.string())))
    batch = batch_of([None] * len(values), a=a, b=b, c=c, row=pa.array(range(len(values)), pa.int64()))
    order, nulls = "descending" if down else "ascending", "first" if first else "last"
    node = Sort(by=tuple({"column": k, "order": order, "nulls": nulls} for k in by[:2]))
    with tempfile.TemporaryDirectory() as folder:
        made = columns_of(run(node, Path(folder), Budget(room), input=cut(batch, size))["output"]).get("row", [])
        back = run(
            node, Path(folder), Budget(NONE), input=run(node, Path(folder), input=cut(batch, size))["output"] or [batch]
        )

    def key(row: int, name: str) -> tuple[int, Any]:
        value = values[row]["abc".index(name)]
        odd = 2 if value is None else 1 if value != value else 0  # nulls, then what is no number, then the rest
        return (-odd if first else odd), (0, b"") if odd else (0, value.encode()) if isinstance(value, str) else (
            value,
            b"",
        )

    expected = list(range(len(values)))
    for name in reversed(by[:2]):  # one key after the other, each stable
        expected.sort(key=lambda row: key(row, name)[1], reverse=down)
        expected.sort(key=lambda row: key(row, name)[0])
    assert made == expected
    assert columns_of(back["output"]).get("row", []) == expected


def test_spilled_runs_are_merged_in_passes(tmp_path: Path, small_blocks: None) -> None:
    numbers = np.random.default_rng(1).permutation(5_000)
    budget = Budget(NONE)
    work = replace(work_in(tmp_path), memory=budget)
    with Sorter(work, [ascending("n")]) as sorter:
        for piece in np.array_split(numbers, 50):
            sorter.add(pa.table({"n": piece, "text": [f"t{n:0100}" for n in piece]}))
        assert len(list(work.folder.iterdir())) == 49
        made = pa.concat_tables(sorter.sorted())
    assert made.column("n").to_pylist() == list(range(5_000))
    assert made.column("text").to_pylist() == [f"t{n:0100}" for n in range(5_000)]
    assert budget.held == 0
    assert budget.most < 150_000  # of 600,000: two copies of four blocks


def test_sorting_ends_when_told(tmp_path: Path) -> None:
    batches = [batch_of([None], id=[1])] * 3
    for node in (Sort(by="id"), Dedupe(by="id"), Aggregate(by="id"), Dissolve(by="id"), Merge()):
        work = work_in(tmp_path, stopped())
        with pytest.raises(StopRequested):
            list(node.run({"input": iter(batches)}, {"input": batches[0].layout}, work))
        assert not list(work.folder.iterdir())


@pytest.mark.parametrize("size_bytes", [ROOM, 40_000, NONE])
def test_deduped_as_pandas_does(plots: gpd.GeoDataFrame, tmp_path: Path, small_blocks: None, size_bytes: int) -> None:
    twice = pd.concat([plots, plots.iloc[::2]], ignore_index=True).assign(row=range(len(plots) + 204))
    for by in (("TYPPPD_KOD",), ("ID", "ID_2")):
        made = one(Dedupe(by=by), tmp_path, Budget(size_bytes), input=batches_of(twice, 60))
        assert made["row"].tolist() == twice.drop_duplicates(list(by))["row"].tolist()
    by_shape = Dedupe(by="OBEC_KOD", geometry=True)
    made = run(by_shape, tmp_path, Budget(size_bytes), input=batches_of(twice, 60))["output"]
    assert columns_of(made)["row"] == list(range(len(plots)))
    again = run(by_shape, tmp_path, Budget(size_bytes), input=made)["output"]
    assert columns_of(again) == columns_of(made)


def test_the_same_geometry_however_it_is_written(tmp_path: Path) -> None:
    square = [
        "POLYGON ((0 0, 0 1, 1 1, 1 0, 0 0))",
        "POLYGON ((1 1, 1 0, 0 0, 0 1, 1 1))",
        "POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0))",
    ]
    batch = batch_of([*square, None, None, "POLYGON ((0 0, 0 1, 1 1, 1 0.5, 0 0))"], n=[1.0] * 6)
    made = run(Dedupe(geometry=True), tmp_path, input=[batch])["output"]
    assert [s and s.wkt for s in shapes_of(made)] == [batch.shapes[i] and batch.shapes[i].wkt for i in (0, 3, 5)]
    values = batch_of([None] * 6, n=[0.0, -0.0, float("nan"), float("nan"), None, None])
    assert len(columns_of(run(Dedupe(), tmp_path, input=[values])["output"])["n"]) == 3


columns = st.lists(st.tuples(st.none() | st.integers(0, 3), st.none() | st.text(max_size=1)), max_size=50)


@given(columns, st.integers(1, 9), st.sampled_from([ROOM, 1_000, NONE]))
@settings(max_examples=25, deadline=None)
def test_dedupe_keeps_the_first_and_is_idempotent(values: list[Any], size: int, room: int) -> None:
    a, b = (pa.array([v[i] for v in values], k) for i, k in enumerate((pa.int64(), pa.string())))
    batch = batch_of([None] * len(values), a=a, b=b, row=pa.array(range(len(values)), pa.int64()))
    with tempfile.TemporaryDirectory() as folder:
        made = run(Dedupe(by=("a", "b")), Path(folder), Budget(room), input=cut(batch, size))["output"]
        again = run(Dedupe(by=("a", "b")), Path(folder), Budget(room), input=made or [batch])["output"]
    assert columns_of(made).get("row", []) == [i for i, v in enumerate(values) if v not in values[:i]]
    assert columns_of(again) == columns_of(made)


FUNCTIONS = ["count", "sum", "min", "max", "mean", "first"]


@pytest.mark.parametrize("size_bytes", [ROOM, LITTLE, NONE])
def test_aggregates_are_those_of_pandas(
    plots: gpd.GeoDataFrame, tmp_path: Path, small_blocks: None, size_bytes: int
) -> None:
    plots = plots.assign(size=plots.area, number=plots["ID_2"].astype("int64"))
    plots.loc[::7, "size"] = None
    aggregates = [{"function": f, "column": c} for f in FUNCTIONS for c in ("size", "number")]
    node = Aggregate(by="TYPPPD_KOD", aggregates=({"function": "count"}, *aggregates))
    made = one(node, tmp_path, Budget(size_bytes), input=batches_of(plots, 50))
    grouped = plots.groupby("TYPPPD_KOD", sort=False)
    assert made["TYPPPD_KOD"].tolist() == plots["TYPPPD_KOD"].drop_duplicates().tolist()
    assert made["count"].tolist() == grouped.size().tolist()
    for function in FUNCTIONS:
        for column in ("size", "number"):
            expected = getattr(grouped[column], function)()
            np.testing.assert_allclose(made[f"{column}_{function}"].astype(float), expected.astype(float), rtol=1e-12)


@pytest.mark.parametrize("size_bytes", [ROOM, LITTLE, NONE])
@pytest.mark.parametrize("by", ["TYPPPD_KOD", ["OBEC_KOD", "TYPPPD_KOD"], []])
def test_dissolved_as_geopandas_does(
    plots: gpd.GeoDataFrame, tmp_path: Path, small_blocks: None, size_bytes: int, by: Any
) -> None:
    node = Dissolve(by=by, aggregates=({"function": "sum", "column": "KATUZE_KOD"}, {"function": "count"}))
    budget = Budget(size_bytes)
    made = one(node, tmp_path, budget, input=batches_of(plots, 50))
    frame = plots.assign(everything=0)
    expected = frame.dissolve(by or "everything", aggfunc={"KATUZE_KOD": "sum"}, sort=False).reset_index()
    same_shapes(made.geometry, expected.geometry)
    assert made["KATUZE_KOD_sum"].tolist() == expected["KATUZE_KOD"].tolist()
    assert made["count"].sum() == len(plots)
    assert made.area.sum() == pytest.approx(plots.union_all().area if not by else expected.area.sum(), rel=1e-9)


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.lists(st.integers(0, 2), min_size=36, max_size=36),
    st.integers(1, 12),
    st.sampled_from([ROOM, NONE]),
)
@settings(max_examples=25, deadline=None)
def test_dissolving_a_coverage_keeps_its_area(wide: int, high: int, groups: list[int], size: int, room: int) -> None:
    cells = [shapely.box(x / 3, y / 7, (x + 1) / 3, (y + 1) / 7) for x in range(wide) for y in range(high)]
    of = groups[: len(cells)]
    batch = batch_of(cells, group=of)
    with tempfile.TemporaryDirectory() as folder:
        made = run(Dissolve(by="group"), Path(folder), Budget(room), input=cut(batch, size))["output"]
    assert columns_of(made)["group"] == list(dict.fromkeys(of))
    for group, shape in zip(columns_of(made)["group"], shapes_of(made), strict=True):
        assert shape.is_valid
        assert shape.area == pytest.approx(sum(c.area for c, g in zip(cells, of, strict=True) if g == group), rel=1e-9)


def test_united_in_neighbourhoods(plots: gpd.GeoDataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry_union, "PIECE", 20)
    same_shapes([geometry_union.united(plots.geometry.to_numpy())], [plots.union_all()])
    assert geometry_union.united(np.array([None, shapely.Point()])) is None
    with pytest.raises(StopRequested):
        geometry_union.united(plots.geometry.to_numpy(), stopped())


@pytest.mark.parametrize("size_bytes", [ROOM, NONE])
def test_collected_geometries(tmp_path: Path, size_bytes: int) -> None:
    batch = batch_of(["POINT (1 1)", "POINT (2 2)", None, "POINT (3 3)"], kind="Point", g=["a", "a", "b", None])
    made = run(Aggregate(by="g", geometry="collect"), tmp_path, Budget(size_bytes), input=cut(batch, 1))["output"]
    assert [b.layout.geometry.kind for b in made if b.layout.geometry] == ["MultiPoint"] * len(made)
    assert columns_of(made)["g"] == ["a", "b", None]
    assert [s and s.wkt for s in shapes_of(made)] == ["MULTIPOINT ((1 1), (2 2))", None, "MULTIPOINT ((3 3))"]
    mixed = batch_of(["POINT (1 1)", "LINESTRING (0 0, 1 1)"], g=[1, 1])
    assert (
        run(Aggregate(by="g", geometry="collect"), tmp_path, input=[mixed])["output"][0].shapes[0].geom_type
        == "GeometryCollection"
    )


def test_groups_of_odd_keys_are_one_group_each(tmp_path: Path) -> None:
    keys = [0.0, -0.0, float("nan"), None, float("nan"), None, 1.5]
    batch = batch_of([None] * 7, k=keys, v=["x", None, "z", None, "a", None, "q"])
    node = Aggregate(by="k", aggregates=tuple({"function": f, "column": "v"} for f in ("first", "max", "count")))
    for room in (ROOM, NONE):
        made = columns_of(run(node, tmp_path, Budget(room), input=cut(batch, 2))["output"])
        assert [str(k) for k in made["k"]] == ["0.0", "nan", "None", "1.5"]
        assert (made["v_first"], made["v_max"], made["v_count"]) == (
            ["x", "z", None, "q"],
            ["x", "z", None, "q"],
            [1, 2, 0, 1],
        )
    dates = batch_of([None] * 2, k=[1, 1], d=[datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)])
    node = Aggregate(
        aggregates=({"function": "max", "column": "d", "name": "latest"}, {"function": "mean", "column": "k"})
    )
    assert columns_of(run(node, tmp_path, input=[dates])["output"]) == {
        "latest": [datetime.date(2021, 1, 1)],
        "k_mean": [1.0],
    }


def test_merged_with_all_columns_of_all(tmp_path: Path) -> None:
    one_, two = (
        batch_of(["POINT (1 1)"], kind="Point", a=[1], b=["x"]),
        batch_of(["LINESTRING (0 0, 1 1)"], kind="LineString", b=["y"], c=[2.5]),
    )
    three = batch_of([None], kind="Point", a=pa.array([7.5]))
    made = run(Merge(), tmp_path, input=[one_], input_2=[two, two], input_3=[three])["output"]
    assert made[0].layout.names == ["a", "b", "c"]
    assert made[0].layout.geometry == one_.layout.shaped(UNKNOWN).geometry
    assert columns_of(made) == {"a": [1.0, None, None, 7.5], "b": ["x", "y", "y", None], "c": [None, 2.5, 2.5, None]}
    assert [s and s.geom_type for s in shapes_of(made)] == ["Point", "LineString", "LineString", None]


def test_mistakes_are_found_before_the_run() -> None:
    batch = batch_of([], "EPSG:3857", n=[1][:0], lists=pa.array([], pa.list_(pa.int64())), t=pa.array([], pa.string()))
    given_ = {"input": batch.layout}
    for node, words in (
        (Sort(by="m"), "no column 'm'"),
        (Sort(by="lists"), "no order"),
        (Dedupe(by=("n", "geometry")), "is the geometry"),
        (Aggregate(by="n", aggregates=({"function": "mean", "column": "t"},)), "'t' is string, which has no mean"),
        (Aggregate(by="n", aggregates=({"function": "sum"},)), "needs a column"),
        (
            Aggregate(by="n", aggregates=({"function": "count", "name": "n"},)),
            "two columns of the result are named 'n'",
        ),
    ):
        with pytest.raises(NodeProblem, match=words):
            node.layouts(given_)
    table = Layout(batch.layout.fields)
    with pytest.raises(NodeProblem, match="no geometry"):
        Dissolve().layouts({"input": table})
    for other, words in (
        (batch_of([], "EPSG:4326").layout, r"several CRS \(EPSG:3857, EPSG:4326\)"),
        (table, "some have none"),
        (batch_of([], t=[1][:0] or pa.array([], pa.int64())).layout, "'t' is string in one input and int64 in another"),
    ):
        with pytest.raises(NodeProblem, match=words):
            Merge().layouts({"input": batch.layout, "input#2": other})


def test_nothing_at_all(tmp_path: Path) -> None:
    empty = batch_of([], n=pa.array([], pa.int64()))
    for node in (Sort(by="n"), Dedupe(), Aggregate(by="n"), Aggregate(), Dissolve(), Merge()):
        assert run(node, tmp_path, input=[empty, empty]) == {"output": []}
