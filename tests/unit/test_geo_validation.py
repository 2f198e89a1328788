"""Wrong workflows, and what is said of each: the node, the field, and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyogrio
import pytest
import shapely
from shapely.geometry import Point, box

from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.geo.picture import mermaid
from tasks.geo.reading import load_workflow
from tasks.geo.validation import Checked, check
from tests.fakes.geo import Rooted

PLOTS = "{id: plots, type: data_source.geopackage, parameters: {file_path: plots.gpkg, table_name: plots}}"
PLACES = "{id: places, type: data_source.geopackage, parameters: {file_path: places.gpkg, table_name: places}}"
SAVED = "{id: saved, type: data_sink.geopackage, parameters: {output_path: out.gpkg, table_name: x}, inputs: %s}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """plots.gpkg, polygons in metres; places.gpkg, points in degrees."""
    made = tmp_path_factory.mktemp("geo")
    pyogrio.set_gdal_config_options({"OGR_SQLITE_SYNCHRONOUS": "OFF"})  # a busy disk takes minutes to be sure
    _write(made / "plots.gpkg", "plots", [box(0, 0, 10, 10)], "Polygon", "EPSG:3857", owner=["A"], storeys=[2])
    _write(made / "places.gpkg", "places", [Point(14, 50)], "Point", "EPSG:4326", name=["B"])
    pyogrio.set_gdal_config_options({"OGR_SQLITE_SYNCHRONOUS": None})
    return made


def _write(path: Path, layer: str, shapes: list[Any], kind: str, crs: str, **columns: list[Any]) -> None:
    import numpy as np

    data = [np.array(values, dtype=object if isinstance(values[0], str) else None) for values in columns.values()]
    geometry = np.array([shapely.to_wkb(shape) for shape in shapes], dtype=object)
    pyogrio.raw.write(path, geometry, data, list(columns), layer=layer, driver="GPKG", geometry_type=kind, crs=crs)


def flow(*nodes: str, more: str = "", parameters: str = "{}") -> str:
    lines = "\n".join(f"  - {node}" for node in nodes)
    return f"id: test\nparameters: {parameters}\nnodes:\n{lines}\n{more}\n"


def checked(text: str, folder: Path, **values: Any) -> Checked:
    return check(load_workflow(text), values, Rooted(folder))


def buffer(parameters: str, origin: str = "plots", name: str = "wide") -> str:
    return f"{{id: {name}, type: geoprocessing.buffer, parameters: {parameters}, inputs: {origin}}}"


def simple(parameters: str, type_: str = "geoprocessing.buffer", source: str = PLOTS) -> str:
    origin = "places" if source is PLACES else "plots"
    node = f"{{id: wide, type: {type_}, parameters: {parameters}, inputs: {origin}}}"
    return flow(source, node, SAVED % "wide")


OF_A_NODE: list[tuple[str, str, str | None, str | None, str]] = [
    # what is wrong, the workflow, the node, the field, a part of what is said
    ("unknown type", simple("{}", "geoprocessing.bufer"), "wide", "type", "did you mean 'geoprocessing.buffer'?"),
    ("unknown parameter", simple("{distance: 5, segmnts: 5}"), "wide", "segmnts", "did you mean 'segments'?"),
    ("missing parameter", simple("{}"), "wide", "distance", "'distance' is missing; give it"),
    ("text for a number", simple("{distance: far}"), "wide", "distance", "it wants a number, not a text"),
    ("unknown choice", simple("{distance: 5, units: metres}"), "wide", "units", "did you mean 'meters'?"),
    ("out of range", simple("{distance: 5, segments: 0}"), "wide", "segments", "1 or more"),
    ("metres in degrees", simple("{distance: 5}", source=PLACES), "wide", None, "reproject"),
    ("unknown crs", simple("{target_crs: 'EPSG:99999'}", "geoprocessing.reproject"), "wide", "target_crs", "99999"),
    (
        "unknown column",
        simple("{columns: [ownr]}", "attributes.select"),
        "wide",
        "columns",
        "there is no column 'ownr'; did you mean 'owner'?",
    ),
    (
        "the geometry as a column",
        simple("{columns: [geom]}", "attributes.select"),
        "wide",
        "columns",
        "is the geometry, not an attribute",
    ),
    (
        "unknown column in an expression",
        simple("{expression: 'storey > 1'}", "attributes.filter"),
        "wide",
        "expression",
        "did you mean 'storeys'?",
    ),
    (
        "text compared with a number",
        simple("{expression: 'owner > 5'}", "attributes.filter"),
        "wide",
        "expression",
        "owner (text) and 5 (integer) do not go together (character 7); cast one, as in cast(owner as integer)",
    ),
    (
        "no condition",
        simple("{expression: 'storeys + 1'}", "attributes.filter"),
        "wide",
        "expression",
        "it gives integer, not true or false",
    ),
    (
        "broken expression",
        simple("{expressions: {a: 'storeys +'}}", "attributes.compute"),
        "wide",
        "expressions.a",
        "the expression ends at character 10 where a value is wanted",
    ),
    (
        "unknown function",
        simple("{expressions: {a: 'uper(owner)'}}", "attributes.compute"),
        "wide",
        "expressions.a",
        "did you mean 'upper'?",
    ),
    (
        "two columns of one name",
        simple("{columns: {owner: storeys}}", "attributes.rename"),
        "wide",
        "columns",
        "two columns are named 'storeys'",
    ),
    (
        "unknown field of a node",
        flow(PLOTS[:-1] + ", executon: {}}", SAVED % "plots"),
        "plots",
        "executon",
        "did you mean 'execution'?",
    ),
    (
        "timeout of nothing",
        flow(PLOTS[:-1] + ", execution: {timeout_s: 0}}", SAVED % "plots"),
        "plots",
        "execution.timeout_s",
        "0 has to be more than 0",
    ),
    ("node without a type", flow(PLOTS, "{id: x}"), "x", "type", "'type' is missing"),
    ("node that is a text", flow(PLOTS, "zz", SAVED % "plots"), None, "nodes[1]", "it wants a map"),
    ("duplicate id", flow(PLOTS, PLOTS, SAVED % "plots"), "plots", "id", "2 nodes have the id 'plots'"),
    ("edge from nowhere", flow(PLOTS, SAVED % "plotz"), "saved", "inputs.input", "did you mean 'plots'?"),
    (
        "edge to nowhere",
        flow(PLOTS, SAVED % "plots", more="edges: [{from: plots, to: savd}]"),
        "plots",
        "inputs.input",
        "did you mean 'saved'?",
    ),
    (
        "edge with unknown field",
        flow(PLOTS, SAVED % "~", more="edges: [{from: plots, to: saved, too: saved}]"),
        None,
        "edges[0].too",
        "did you mean 'to'?",
    ),
    ("unconnected input", flow(PLOTS, SAVED % "~"), "saved", "inputs.input", "nothing comes in"),
    ("result that goes nowhere", flow(PLOTS, SAVED % "plots", buffer("{distance: 5}")), "wide", None, "goes nowhere"),
    (
        "unconnected overlay",
        flow(PLOTS, "{id: cut, type: geoprocessing.clip, inputs: plots}", SAVED % "cut"),
        "cut",
        "inputs.overlay",
        "nothing comes in",
    ),
    (
        "doubly connected input",
        flow(PLOTS, PLOTS.replace("plots,", "more,", 1), SAVED % "[plots, more]"),
        "saved",
        "inputs.input",
        "plots and more both come in here",
    ),
    (
        "edge that stands twice",
        flow(PLOTS, SAVED % "plots", more="edges: [{from: plots, to: saved}]"),
        "saved",
        "inputs.input",
        "stands 2 times",
    ),
    ("unknown port out", flow(PLOTS, SAVED % "plots.rejected"), "saved", "inputs.input", "no port 'rejected'"),
    (
        "unknown port in",
        flow(PLOTS, "{id: cut, type: geoprocessing.clip, inputs: {input: plots, overlap: plots}}", SAVED % "cut"),
        "cut",
        "inputs.overlap",
        "did you mean 'overlay'?",
    ),
    (
        "input of a source",
        flow(PLOTS, PLACES[:-1] + ", inputs: plots}", SAVED % "places"),
        "places",
        "inputs.input",
        "it reads, and takes no input",
    ),
    (
        "circle",
        flow(PLOTS, buffer("{distance: 1}", "far", "near"), buffer("{distance: 1}", "near", "far"), SAVED % "far"),
        "near",
        "inputs",
        "near -> far -> near",
    ),
    (
        "two coordinate systems",
        flow(
            PLOTS,
            PLACES,
            "{id: cut, type: geoprocessing.clip, inputs: {input: plots, overlay: places}}",
            SAVED % "cut",
        ),
        "cut",
        "inputs.overlay",
        "places is in EPSG:4326, but plots is in EPSG:3857; put geoprocessing.reproject with target_crs: EPSG:3857",
    ),
    (
        "polygons united with points",
        flow(
            PLOTS,
            PLACES,
            "{id: there, type: geoprocessing.reproject, parameters: {target_crs: 'EPSG:3857'}, inputs: places}",
            "{id: all, type: geoprocessing.union, inputs: {input: plots, overlay: there}}",
            SAVED % "all",
        ),
        "all",
        "overlay",
        "both must be of one dimension",
    ),
    (
        "buffer of a table",
        flow(
            PLOTS,
            "{id: table, type: attributes.select, parameters: {geometry: false}, inputs: plots}",
            buffer("{distance: 5}", "table"),
            SAVED % "wide",
        ),
        "wide",
        None,
        "the input has no geometry",
    ),
    (
        "file that is not there",
        flow(PLOTS.replace(".gpkg", ".gpk"), SAVED % "plots"),
        "plots",
        "file_path",
        "not there",
    ),
    (
        "file outside the roots",
        flow(PLOTS.replace("plots.gpkg", "../../secret.gpkg"), SAVED % "plots"),
        "plots",
        "file_path",
        "outside the allowed folders",
    ),
    (
        "output outside the roots",
        flow(PLOTS, SAVED.replace("out.gpkg", "/etc/out.gpkg") % "plots"),
        "saved",
        "output_path",
        "outside the allowed folders",
    ),
    ("no such table", flow(PLOTS.replace("e: plots", "e: plot"), SAVED % "plots"), "plots", "table_name", "plots"),
    ("no nodes", "id: test\nnodes: []\n", None, "nodes", "there are none"),
    ("no id", "nodes: []\n", None, "id", "'id' is missing"),
    ("unknown field", "id: a\nnods: []\n", None, "nods", "did you mean 'nodes'?"),
    ("nodes as a map", "id: a\nnodes: {a: b}\n", None, "nodes", "it wants a list"),
    ("id with a blank", "id: my flow\nnodes: []\n", None, "id", "letters, digits, _ and -"),
]


@pytest.mark.parametrize(
    ("text", "node", "place", "said"), [row[1:] for row in OF_A_NODE], ids=[r[0] for r in OF_A_NODE]
)
def test_what_is_said_of_a_wrong_workflow(
    text: str, node: str | None, place: str | None, said: str, folder: Path
) -> None:
    problems = checked(text, folder).problems
    places = [p for p in problems if p.node == node and place in (None, p.field) and said in p.message]
    assert len(places) == 1, "\n".join(map(str, problems))
    assert str(places[0]).endswith(".")


@pytest.mark.parametrize(
    ("text", "node", "place", "said"), [row[1:] for row in OF_A_NODE], ids=[r[0] for r in OF_A_NODE]
)
def test_one_mistake_is_told_once(text: str, node: str | None, place: str | None, said: str, folder: Path) -> None:
    """What hangs on it is not told too, but for the loose end that a missing part leaves."""
    others = [p for p in checked(text, folder).problems if said not in p.message]
    assert all("nothing comes in" in p.message or "goes nowhere" in p.message or p.field == "nodes" for p in others), (
        others
    )
    assert len(others) <= 2


def test_there_are_thirty_kinds_of_mistakes_and_more() -> None:
    assert len({row[0] for row in OF_A_NODE}) >= 40


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    text = flow(
        PLOTS.replace("plots.gpkg", "none.gpkg"),
        buffer("{distance: far, unit: meters}"),
        "{id: cut, type: geoprocessing.clp, inputs: wide}",
        SAVED % "cutt",
        parameters="{a: {type: numbr}}",
    )
    told = {(p.node, p.field) for p in checked(text, folder, b=1).problems}
    assert told == {
        (None, "parameters.a.type"),
        (None, "parameters.b"),
        ("plots", "file_path"),
        ("wide", "distance"),
        ("wide", "unit"),
        ("cut", "type"),
        ("saved", "inputs.input"),
    }
    with pytest.raises(ConfigurationError, match="has 7 problems:\n"):
        checked(text, folder, b=1).require()


PARAMETERS: list[tuple[str, str, dict[str, Any], str]] = [
    ("{type: number, min: 0, max: 10}", "5", {"d": 11}, "it is 11, more than 10"),
    ("{type: number, min: 0, max: 10}", "5", {"d": -1}, "it is -1, less than 0"),
    ("{type: number}", "5", {"d": "far"}, "its value has to be a number, not a text"),
    ("{type: number}", "5", {"d": True}, "its value has to be a number, not true or false"),
    ("{type: integer}", "5", {"d": 1.5}, "its value has to be an integer, not a number"),
    ("{type: number, required: true, description: metres}", "5", {}, "it has no value; give a number (metres)"),
    ("{type: number, allowed: [1, 2]}", "5", {"d": 3}, "3 is not allowed"),
    ("{type: number, min: 5, max: 1}", "5", {"d": 3}, "min 5 is more than max 1"),
    ("{type: number, default: far}", "5", {}, "its default has to be a number"),
    ("{type: crs}", "5", {"d": "EPSG:1"}, "a coordinate reference system such as EPSG:4326"),
    ("{type: date}", "5", {"d": "2024-02-30"}, "a date such as 2024-12-31"),
]


@pytest.mark.parametrize(("declared", "distance", "values", "said"), PARAMETERS)
def test_what_is_said_of_wrong_values(
    declared: str, distance: str, values: dict[str, Any], said: str, folder: Path
) -> None:
    text = flow(PLOTS, buffer(f"{{distance: {distance}}}"), SAVED % "wide", parameters=f"{{d: {declared}}}")
    (problem,) = checked(text, folder, **values).problems
    assert problem.node is None
    assert problem.field == "parameters.d"
    assert said in problem.message


def test_a_right_workflow_has_layouts_and_no_problems(folder: Path) -> None:
    text = flow(
        PLOTS,
        buffer('{distance: "${d}"}'),
        "{id: tall, type: attributes.filter, parameters: {expression: 'storeys >= ${least}'}, inputs: wide}",
        SAVED % "tall",
        parameters="{d: {type: number, default: 5}, least: {type: integer}, idle: {}}",
    )
    found = checked(text, folder, least="2")
    assert found.problems == []
    assert [str(n) for n in found.notes] == ["parameters.idle: no node uses it; remove it, or write ${idle}."]
    assert found.nodes["wide"].model_dump()["distance"] == 5
    assert found.nodes["tall"].model_dump()["expression"] == "storeys >= 2"
    assert found.layouts["tall", "rejected"].names == ["owner", "storeys"]
    assert found.layouts["tall", "rejected"].crs == "EPSG:3857"
    assert found.described["plots"].features == 1
    assert found.expected["tall"].features == 1
    found.require()


def test_gathering_nodes_tell_their_memory(folder: Path) -> None:
    text = flow(PLOTS, "{id: whole, type: geoprocessing.dissolve, inputs: plots}", SAVED % "whole")
    found = checked(text, folder)
    assert found.problems == []
    (note,) = found.notes
    assert note.node == "whole"
    assert "about 1 MiB; beyond the budget it uses the disk" in note.message
    assert found.expected["whole"].memory_bytes


def test_an_overlay_has_to_fit_into_memory(folder: Path) -> None:
    text = flow(PLOTS, "{id: cut, type: geoprocessing.clip, inputs: {input: plots, overlay: plots}}", SAVED % "cut")
    (note,) = checked(text, folder).notes
    assert "gathers its overlay before it goes on, about 1 MiB; the budget (memory_mb) has to have room" in note.message


@pytest.mark.parametrize(
    "url", ["postgresql://clerk:t0ps3cret@h/db", "host=h password=t0ps3cret", "postgresql://h/db?password=t0ps3cret"]
)
def test_a_password_in_a_file_is_refused(folder: Path, url: str) -> None:
    """Also one that comes by a parameter: definition and parameters are kept with the run."""
    sink = "{id: table, type: data_sink.postgis, parameters: {table: x, srid: 3857, url: '${to}'}, inputs: plots}"
    found = checked(flow(PLOTS, sink, parameters=f"{{to: {{default: '{url}'}}}}"), folder)
    (problem,) = found.problems
    assert (problem.node, problem.field) == ("table", "url")
    assert "it holds a password; put the address into the environment, and give env:NAME here" in problem.message
    assert checked(flow(PLOTS, sink, parameters="{to: {}}"), folder, to="env:PLACE").problems == []


def test_streams_that_meet_are_given_to_merge_by_edge(folder: Path) -> None:
    more = PLOTS.replace("plots,", "more,", 1)
    text = flow(PLOTS, more, "{id: both, type: geoprocessing.merge, inputs: [plots, more]}", SAVED % "both")
    found = checked(text, folder)
    assert found.problems == []
    assert found.layouts["both", "output"].names[:2] == ["owner", "storeys"]


def test_a_parameter_without_a_value_leaves_the_nodes_default(folder: Path) -> None:
    text = flow(PLOTS, buffer('{distance: 5, segments: "${s}"}'), SAVED % "wide", parameters="{s: {type: integer}}")
    assert checked(text, folder).nodes["wide"].model_dump()["segments"] == 8
    assert checked(text, folder, s=3).nodes["wide"].model_dump()["segments"] == 3


class Away(Rooted):
    """Its files are behind a system that does not answer."""

    @contextmanager
    def postgres(self, url: str | None) -> Iterator[Any]:
        raise OutsideUnreachable("The database does not answer; start it.")
        yield


def test_a_system_that_is_away_is_told_when_nothing_else_is_wrong(folder: Path) -> None:
    source = "{id: plots, type: data_source.postgis, parameters: {table: plots}}"
    with pytest.raises(OutsideUnreachable):
        check(load_workflow(flow(source, SAVED % "plots")), {}, Away(folder))
    wrong = check(load_workflow(flow(source, SAVED % "plotz")), {}, Away(folder))
    assert any("plotz" in p.message for p in wrong.problems)


def test_a_thousand_nodes_are_checked_soon(folder: Path) -> None:
    chain = [buffer("{distance: 1}", f"n{i - 1}" if i else "plots", f"n{i}") for i in range(900)]
    found = checked(flow(PLOTS, *chain, SAVED % "n899"), folder)
    assert found.problems == []
    assert len(found.layouts) == 901


def test_the_picture_has_every_node_and_edge(folder: Path) -> None:
    text = flow(
        PLOTS,
        "{id: tall, type: attributes.filter, parameters: {expression: 'storeys > 1'}, inputs: plots}",
        "{id: cut, type: geoprocessing.clip, inputs: {input: plots, overlay: tall.rejected}}",
    )
    drawn = mermaid(load_workflow(text), {"tall": "failed"}, {"tall": '5 "features" <b>'})
    assert drawn.splitlines() == [
        "flowchart LR",
        '    n0(["plots<br/>data_source.geopackage"])',
        '    n1["tall<br/>attributes.filter<br/>5 #34;features#34; #60;b#62;"]',
        '    n2["cut<br/>geoprocessing.clip"]',
        "    n0 --> n1",
        "    n0 --> n2",
        '    n1 -->|"rejected to overlay"| n2',
        "    classDef failed fill:#fadbd8,stroke:#c0392b",
        "    class n1 failed",
    ]
