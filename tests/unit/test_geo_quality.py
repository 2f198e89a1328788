"""What validate_geometry and schema_contract say of data, and where it goes."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow as pa
import pytest
import shapely

from tasks.errors import TerminalError
from tasks.geo.batches import Batch, Geometries
from tasks.geo.nodes import NODES, NodeProblem
from tasks.geo.quality_contract import SchemaContract, UniqueContract
from tasks.geo.quality_geometry import ValidateGeometry
from tasks.records import Reason
from tests.fakes.geo import columns_of, shapes_of
from tests.fakes.geo_frames import Budget, batch_of, batches_of, cut, layer, run

BOW_TIE = "POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))"
HOLE_OUTSIDE = "POLYGON ((0 0, 1 0, 1 1, 0 1, 0 0), (5 5, 6 5, 6 6, 5 5))"


def contract(**parameters: Any) -> Any:
    """As the engine does it."""
    return NODES["quality.schema_contract"].model_validate(parameters)


def test_real_plots_are_valid(shared_data: Path, tmp_path: Path) -> None:
    plots = layer(shared_data / "geo" / "bubenec.gpkg", "plots")
    made = run(ValidateGeometry(), tmp_path, input=batches_of(plots))
    assert made["invalid"] == []
    assert (gpd.GeoSeries(shapes_of(made["output"])).to_wkb() == plots.geometry.to_wkb()).all()


def test_invalid_geometries_go_out_with_reason_and_place(tmp_path: Path) -> None:
    batch = batch_of(
        ["POINT Z (1 2 3)", BOW_TIE, HOLE_OUTSIDE, None, "POLYGON EMPTY", "POINT (Infinity 1)"], id=range(6)
    )
    made = run(ValidateGeometry(), tmp_path, input=[batch])
    assert columns_of(made["output"]) == {"id": [0]}
    assert columns_of(made["invalid"]) == {
        "id": [1, 2, 3, 4, 5],
        "invalid_reason": ["Self-intersection", "Hole lies outside shell", "null", "empty", "Invalid Coordinate"],
        "invalid_x": [0.5, 5.0, None, None, None],
        "invalid_y": [0.5, 5.0, None, None, None],
    }
    lenient = run(ValidateGeometry(allow_empty=True), tmp_path, input=[batch])
    assert columns_of(lenient["output"]) == {"id": [0, 3, 4]}


def test_unreadable_geometries_are_set_aside_as_they_are(tmp_path: Path) -> None:
    whole = batch_of(["POINT (1 2)", "POINT (3 4)"], id=[1, 2])
    broken = Batch(
        whole.layout, whole.attributes, Geometries(wkb=pa.array([b"\x01\x02", shapely.to_wkb(whole.shapes[1])])), 2
    )
    made = ValidateGeometry().apply(broken)
    assert columns_of([made["output"]]) == {"id": [2]}
    assert made["output"].shapes[0].wkt == "POINT (3 4)"
    assert columns_of([made["invalid"]])["invalid_reason"] == ["unreadable"]
    assert made["invalid"].geometry is not None
    assert made["invalid"].geometry.wkb.to_pylist() == [b"\x01\x02"]


def test_columns_that_are_taken_are_told() -> None:
    with pytest.raises(NodeProblem, match="'invalid_x'"):
        ValidateGeometry().layouts({"input": batch_of([], invalid_x=[1][:0]).layout})


ROWS = {
    "id": [1, 2, None, 4],
    "area": [10.0, -1.0, float("nan"), 5e9],
    "use": ["field", "forest", None, "moor"],
    "day": pa.array([datetime.date(2020, 1, 1), datetime.date(1899, 1, 1), None, datetime.date(2021, 1, 1)]),
}
RULES = {
    "id": {"type": "integer", "not_null": True},
    "area": {"type": "number", "min": 0, "max": 1e9},
    "use": {"type": "text", "allowed": ["field", "forest"]},
    "day": {"type": "date", "min": "1900-01-01"},
    "extra": {"required": False, "not_null": True},
}


def test_violations_are_routed_with_why(tmp_path: Path) -> None:
    batch = batch_of([f"POINT ({i} {i})" for i in range(4)], **ROWS)
    made = run(contract(columns=RULES, on_violation="route"), tmp_path, input=cut(batch, 3))
    assert columns_of(made["output"])["id"] == [1]
    assert columns_of(made["violations"])["violation"] == [
        "area: below 0.0; day: below 1900-01-01",
        "id: null; area: not a number",
        "area: above 1000000000.0; use: not among those allowed",
    ]
    assert [s.x for s in shapes_of(made["violations"])] == [1, 2, 3]


def test_violations_are_dropped_or_end_the_run(tmp_path: Path) -> None:
    batch = batch_of([None] * 4, **ROWS)
    made = run(contract(columns=RULES, on_violation="drop"), tmp_path, input=[batch])
    assert columns_of(made["output"])["id"] == [1]
    assert made["violations"] == []
    with pytest.raises(
        TerminalError, match=r"3 of 4 features break the contract: id: null \(1\), area: below 0\.0 \(1\)"
    ) as caught:
        run(contract(columns=RULES), tmp_path, input=[batch])
    assert caught.value.reason == Reason.CONTRACT
    assert columns_of(run(contract(columns=RULES), tmp_path, input=[batch.take(pa.array([0]).to_numpy())])["output"])[
        "id"
    ] == [1]


@pytest.mark.parametrize("room", [1 << 30, 0])
def test_unique_values_over_all_batches(tmp_path: Path, room: int) -> None:
    batch = batch_of([None] * 6, id=[1, 2, 1, None, None, 2], row=range(6))
    node = contract(columns={"id": {"unique": True}}, on_violation="drop")
    assert isinstance(node, UniqueContract)
    made = run(node, tmp_path, Budget(room), input=cut(batch, 2))["output"]
    assert columns_of(made)["row"] == [0, 1, 3, 4]
    with pytest.raises(TerminalError, match="2 features repeat a value of 'id'"):
        run(contract(columns={"id": {"unique": True}}), tmp_path, input=cut(batch, 2))
    assert columns_of(run(contract(columns={"row": {"unique": True}}), tmp_path, input=cut(batch, 2))["output"])[
        "row"
    ] == list(range(6))
    with pytest.raises(NodeProblem, match="cannot be routed"):
        contract(columns={"id": {"unique": True}}, on_violation="route").layouts({"input": batch.layout})


def test_bounds_of_every_numeric_type(tmp_path: Path) -> None:
    kinds = (pa.int16(), pa.uint64(), pa.float32(), pa.decimal128(10, 2))
    for kind in kinds:
        batch = batch_of([None] * 3, n=pa.array([Decimal(1), Decimal(5), Decimal(9)], pa.decimal128(10, 2)).cast(kind))
        made = run(contract(columns={"n": {"min": 1.5, "max": 8}}, on_violation="drop"), tmp_path, input=[batch])
        assert [float(v) for v in columns_of(made["output"])["n"]] == [5.0]
    times = batch_of(
        [None] * 2,
        t=pa.array(
            [datetime.datetime(1890, 5, 5, tzinfo=datetime.UTC), datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)],
            pa.timestamp("us", "UTC"),
        ),
    )
    made = run(
        contract(columns={"t": {"type": "datetime", "min": "1900-01-01"}}, on_violation="drop"), tmp_path, input=[times]
    )
    assert columns_of(made["output"])["t"] == [datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"idd": {}}, "has a column 'idd'.*did you mean 'id'"),
        ({"use": {"type": "integer"}}, "'use' is string, not integer"),
        ({"use": {"min": 3}}, r"not to be compared with 3"),
        ({"id": {"min": "2020-01-01"}}, r"not to be compared with 2020-01-01"),
        ({"id": {"allowed": ["x"]}}, "not all values allowed are that"),
    ],
)
def test_broken_contracts_are_found_before_the_run(rules: Any, words: str) -> None:
    node = contract(columns=rules)
    assert isinstance(node, SchemaContract)
    with pytest.raises(NodeProblem, match=words):
        node.layouts({"input": batch_of([None] * 4, **ROWS).layout})


def test_empty_batches(tmp_path: Path) -> None:
    empty = batch_of([None] * 4, **ROWS).take(pa.array([], pa.int64()).to_numpy())
    assert run(contract(columns=RULES, on_violation="route"), tmp_path, input=[empty]) == {
        "output": [],
        "violations": [],
    }
    assert run(ValidateGeometry(), tmp_path, input=[empty]) == {"output": [], "invalid": []}
