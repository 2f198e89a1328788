"""Reading definitions, the workflow's parameters in them, and the JSON Schema of their files."""

from __future__ import annotations

import datetime as dt
import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigurationError
from tasks.geo.definition import Workflow
from tasks.geo.parameters import Unfit, placed
from tasks.geo.reading import load_workflow
from tasks.geo.template_files import workflow_source
from tasks.geo.workflow_schema import workflow_schema
from tasks.geo.workflow_text import parsed

WORKFLOW = """
id: plots
version: 2
metadata: {name: Plots, tags: [a, b]}
parameters: {distance: {type: number, default: 5}}
nodes:
  - {id: plots, type: data_source.geopackage, parameters: {file_path: plots.gpkg}}
  - {id: wide, type: geoprocessing.buffer, parameters: {distance: "${distance}"}, inputs: plots,
     execution: {max_retries: 1}}
  - {id: both, type: geoprocessing.merge, inputs: [plots, wide.output]}
  - {id: cut, type: geoprocessing.clip, inputs: {input: both, overlay: wide}}
edges:
  - {from: cut, to: saved}
"""


def edges(workflow: Workflow) -> list[str]:
    return [str(edge) for edge in workflow.edges]


def test_a_file_a_text_and_a_mapping_are_the_same_workflow(tmp_path: Path) -> None:
    mapping = parsed(WORKFLOW, "it")
    (tmp_path / "a.yaml").write_text(WORKFLOW)
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(mapping), "utf-8")
    found = load_workflow(WORKFLOW)
    assert found.problems == ()
    assert found.version == "2"
    assert {node.id: node for node in found.nodes}["wide"].execution.max_retries == 1
    assert edges(found) == [
        "cut.output -> saved.input",
        "plots.output -> wide.input",
        "plots.output -> both.input",
        "wide.output -> both.input",
        "both.output -> cut.input",
        "wide.output -> cut.overlay",
    ]
    for given_as in (tmp_path / "a.yaml", str(tmp_path / "a.json"), mapping, json.dumps(mapping)):
        assert load_workflow(given_as) == found


UNREADABLE = [
    ("id: a\n\tnodes: []", "line 2, column 1.*spaces, not tabs"),
    ("id: a\nid: b", "line 2, column 1: 'id' stands twice"),
    ('{"id": "a", "id": "b"}', "'id' stands twice"),
    ('{"id": "a",\n "nodes": [}', "line 2, column 12: expecting value"),
    ("id: a: b\n", "line 1, column 6: mapping values are not allowed"),
    ("id: !!python/object/apply:os.system [ls]\n", "line 1, column 5: the tag .* is not known here"),
    ("id: *a\n", r"\*a stands before the end of &a"),
    ("id: &a [*a]\n", r"\*a stands before the end of &a"),
    ("id: a\n---\nid: b\n", "line 2, column 1: a second document begins"),
    ("? [a]\n: b\n", "a name is wanted here"),
    ("id: a\x01\n", "control character at position 5"),
    ("- a\n- b\n", "is no workflow"),
    ("id: " + "[" * 100_000 + "\n", "more than 64 levels"),
    ('{"id": ' + "[" * 100_000, "more than 64 levels"),
    ('{"id": NaN}', "NaN is no number"),
    ('{"id": ' + "9" * 5000 + "}", "limit"),
    ("a0: &a0 [" + ",".join("x" * 10) + "]\n" + "".join(
        f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)
    ), "more than 1,000,000 values"),
    ("id: " + "x" * (9 << 20) + "\n", "larger than 8 MiB"),
]  # fmt: skip


@pytest.mark.parametrize(("given_text", "said"), UNREADABLE, ids=lambda v: v[:20])
def test_what_cannot_be_read_is_told_with_its_line(given_text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_workflow(given_text if "\n" in given_text or given_text[0] == "{" else given_text + "\n")


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"id: \xff\xfe")
    for path, said in (
        ("none.yaml", "There is no workflow file"),
        ("a.yaml", "cannot be read"),
        (".", "cannot be read"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            load_workflow(tmp_path / path)


@pytest.mark.parametrize("value", [{1: 2}, {"a": object()}, {"a": float("inf")}, {"a": "\x00"}, {"a": b"x"}])
def test_mappings_hold_what_json_has(value: dict[Any, Any]) -> None:
    with pytest.raises(ConfigurationError, match="the workflow holds"):
        load_workflow(value)


def test_yaml_has_no_surprises() -> None:
    said = "a: [no, NO, on, 1:30, 2024-01-01, 0x1f, 1_000, .inf, '5', 1e3, -7, .5, ~, True]"
    assert parsed(said, "it")["a"] == [
        "no", "NO", "on", "1:30", "2024-01-01", "0x1f", "1_000", ".inf", "5", 1000.0, -7, 0.5, None, True
    ]  # fmt: skip
    assert parsed("a: &x {b: 1}\nc: *x\nyes: 1", "it") == {"a": {"b": 1}, "c": {"b": 1}, "yes": 1}


# --- parameters in texts ---

VALUES: dict[str, Any] = {
    "n": -5, "t": "O'Brien \"x\"", "d": dt.date(2024, 1, 2), "l": ["a", "b'c"], "none": None, "yes": True,
}  # fmt: skip


@pytest.mark.parametrize(
    ("written", "language", "expected"),
    [
        ("${n}", None, -5),
        ("{{ parameters.n }}", None, -5),
        ("${d}", None, "2024-01-02"),
        ("${none}", None, None),
        ("a ${n} ${yes} ${d} $${n}", None, "a -5 true 2024-01-02 ${n}"),
        (["${n}", {"x": "${t}"}], None, [-5, {"x": VALUES["t"]}]),
        ("x -${n}", "sql", "x -(-5)"),
        ("x = ${t}", "sql", "x = 'O''Brien \"x\"'"),
        ("x like '%${t}%'", "sql", "x like '%O''Brien \"x\"%'"),
        ('"${t}" = 1', "sql", '"O\'Brien ""x""" = 1'),
        (
            "x in ${l} and y > ${d} and z = ${none}",
            "expression",
            "x in ('a', 'b''c') and y > DATE '2024-01-02' and z = NULL",
        ),
    ],
)
def test_parameters_take_their_places(written: Any, language: str | None, expected: Any) -> None:
    assert placed(written, VALUES, language) == expected


@pytest.mark.parametrize(
    ("written", "language", "said"),
    [
        ("a ${nn}", None, "has no parameter 'nn'; did you mean 'none'?"),
        ("a ${none}", None, "is nothing, which has no place in a text"),
        ("a ${l}", None, "is a list"),
        ("E'${t}'", "sql", "it comes quoted"),
        ("$$ ${t} $$", "sql", "it comes quoted"),
        ("1 -- ${t}", "sql", "it comes quoted"),
    ],
)
def test_parameters_that_have_no_place(written: str, language: str | None, said: str) -> None:
    with pytest.raises(Unfit, match=re.escape(said)):
        placed(written, VALUES, language)


@given(st.text("ab'\"\\$;-%{}\nŽ", max_size=20))
def test_no_text_breaks_out_of_sql(value: str) -> None:
    database = sqlite3.connect(":memory:")
    try:
        assert database.execute(placed("select ${t} || ''", {"t": value}, "sql")).fetchone() == (value,)
        assert database.execute(placed("select 'a ${t}'", {"t": value}, "sql")).fetchone() == ("a " + value,)
    finally:
        database.close()


@pytest.mark.parametrize("given", ["no-such", "~nobody-here/w", "a\0b", "x" * 5000])
def test_a_workflow_that_is_not_there_is_told(given: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no template|no path that can be used"):
        workflow_source(given)


# --- the schema ---


def test_the_schema_is_printed_for_editors() -> None:
    command = [sys.executable, "-m", "tasks.geo.workflow_schema"]
    printed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert json.loads(printed) == workflow_schema()


def test_the_schema_knows_right_from_wrong() -> None:
    schema = workflow_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    right = parsed(WORKFLOW, "it")
    assert list(judge.iter_errors(right)) == []
    for path, value in (
        (("type",), "geoprocessing.bufer"),
        (("parameters", "distance"), "far"),
        (("parameters", "x"), 1),
    ):
        wrong = json.loads(json.dumps(right))
        *above, last = path
        place = wrong["nodes"][1]
        for key in above:
            place = place[key]
        place[last] = value
        assert list(judge.iter_errors(wrong)), path


def test_every_node_documents_itself_in_the_schema() -> None:
    nodes = {name: part for name, part in workflow_schema()["$defs"].items() if "." in name}
    assert len(nodes) > 30
    assert [name for name, part in nodes.items() if not part.get("description")] == []
