"""attributes.*: what columns come out, and that they are of the very layout that was promised."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely

from tasks.errors import TerminalError
from tasks.geo.attributes import Cast, Compute, Filter, Hash, Rename, Select
from tasks.geo.batches import Batch, Geometries
from tasks.geo.layouts import GeometryField, Layout
from tasks.geo.nodes import Node, NodeProblem, Stream
from tests.fakes.geo import check_stream

COLUMNS = {
    "owner": pa.array(["A", None, "O'B", ""]),
    "storeys": pa.array([1, 2, None, 4], pa.int16()),
    "price": pa.array(["10", "x", None, " 7.5 "]),
    "raw": pa.array([b"1", None, b"", b"x"]),
}
LAYOUT = Layout(
    pa.schema([(name, array.type) for name, array in COLUMNS.items()]), GeometryField("geom", "Point", "EPSG:3857")
)
SHAPES = np.array([shapely.Point(k, k) for k in range(4)], dtype=object)
BATCH = Batch(LAYOUT, tuple(COLUMNS.values()), Geometries(shapes=SHAPES), 4)


def through(node: Stream, batch: Batch = BATCH) -> dict[str, list[Any]]:
    """The columns that come out; as promised, also after a journey to another process, and of an empty batch."""
    layout = node.layouts({"input": batch.layout})["output"]
    sent = pickle.loads(pickle.dumps(node))
    (made,) = check_stream(layout, [sent.apply(batch)])
    empty = node.apply(batch.take(np.zeros(batch.rows, bool)))
    assert (empty.layout, empty.rows) == (layout, 0)
    return {name: made.column(name).to_pylist() for name in layout.names}


def test_select_keeps_or_leaves_out() -> None:
    assert list(through(Select(columns=("storeys", "owner")))) == ["storeys", "owner"]
    assert list(through(Select(exclude=("raw",)))) == ["owner", "storeys", "price"]
    table = Select(columns=("owner",), geometry=False)
    assert table.layouts({"input": LAYOUT})["output"].geometry is None
    assert table.apply(BATCH).geometry is None
    assert through(Select(columns=())) == {}


def test_rename_changes_names_only() -> None:
    found = through(Rename(columns={"owner": "storeys", "storeys": "owner"}))
    assert found["storeys"] == COLUMNS["owner"].to_pylist()
    assert found["owner"] == COLUMNS["storeys"].to_pylist()


def test_compute_replaces_appends_and_builds_on_itself() -> None:
    node = Compute(expressions={"storeys": "storeys * 2", "label": "coalesce(owner, '?') || storeys_text", "n": "1"})
    with pytest.raises(NodeProblem, match="no column 'storeys_text'") as caught:
        node.layouts({"input": LAYOUT})
    assert caught.value.field == "expressions.label"
    found = through(
        Compute(
            expressions={"storeys": "storeys * 2", "text": "cast(storeys as text)", "label": "owner || text", "n": "1"}
        )
    )
    assert list(found) == [*LAYOUT.names, "text", "label", "n"]
    assert found["storeys"] == [2, 4, None, 8]
    assert found["label"] == ["A2", None, None, "8"]
    assert found["n"] == [1, 1, 1, 1]


def test_filter_loses_nothing_and_null_is_rejected() -> None:
    node = Filter(expression="storeys > 1")
    ports = pickle.loads(pickle.dumps(node)).apply(BATCH)
    assert node.layouts({"input": LAYOUT}) == {"output": LAYOUT, "rejected": LAYOUT}
    assert ports["output"].column("storeys").to_pylist() == [2, 4]
    assert ports["rejected"].column("storeys").to_pylist() == [1, None]
    assert [p.x for p in ports["output"].shapes] == [1, 3]
    assert [p.x for p in ports["rejected"].shapes] == [0, 2]
    everything = Filter(expression="true").apply(BATCH)
    assert (everything["output"].rows, everything["rejected"].rows) == (4, 0)


def test_cast_fails_aloud_or_gives_null() -> None:
    found = through(Cast(columns={"price": "number", "storeys": "text", "owner": "string"}, on_error="null"))
    assert found["price"] == [10.0, None, None, 7.5]
    assert found["storeys"] == ["1", "2", None, "4"]
    with pytest.raises(TerminalError, match="'x' is no number") as caught:
        Cast(columns={"price": "number"}).apply(BATCH)
    assert caught.value.reason == "bad_number"
    with pytest.raises(NodeProblem, match="'raw' is other, which cannot be text"):
        Cast(columns={"raw": "text"}).layouts({"input": LAYOUT})


def test_hash_is_equal_for_equal_features_only() -> None:
    found = through(Hash(columns=("owner", "storeys")))
    assert found["hash"][0] == hashlib.sha256(b"1:A1:1").hexdigest()
    assert len(set(found["hash"])) == 4
    rows = [("a", "b"), ("ab", ""), ("", "ab"), (None, "ab"), ("ab", None), ("1:", "x"), ("a", "b")]
    arrays = tuple(pa.array(column, pa.string()) for column in zip(*rows, strict=True))
    table = Batch(Layout(pa.schema([("x", pa.string()), ("y", pa.string())])), arrays, None, len(rows))
    digests = through(Hash(algorithm="md5"), table)["hash"]
    assert len(set(digests)) == 6
    assert digests[0] == digests[-1]
    placed = through(Hash(columns=("owner",), geometry=True, name="digest"))["digest"]
    assert placed != through(Hash(columns=("owner",), name="digest"))["digest"]


@pytest.mark.parametrize(
    ("node", "field", "said"),
    [
        (Select(columns=("ownr",)), "columns", "did you mean 'owner'?"),
        (Select(columns=("owner", "owner")), "columns", "two columns are named 'owner'"),
        (Select(exclude=("geom",)), "exclude", "is the geometry"),
        (Rename(columns={"owner": "geom"}), "columns", "is the name of the geometry"),
        (Rename(columns={"owner": "raw"}), "columns", "two columns are named 'raw'"),
        (Rename(columns={"owner": ""}), "columns", "is no name for a column"),
        (Compute(expressions={"geom": "1"}), "expressions", "is the name of the geometry"),
        (Filter(expression="owner"), "expression", "it gives text, not true or false"),
        (Hash(), "columns", "'raw' holds lists or bytes"),
    ],
)
def test_what_is_said_of_wrong_parameters(node: Node, field: str, said: str) -> None:
    with pytest.raises(NodeProblem) as caught:
        node.layouts({"input": LAYOUT})
    assert caught.value.field == field
    assert said in str(caught.value)
