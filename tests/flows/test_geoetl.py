"""The geoetl flow end to end: one run looked at from all sides, failures, resuming, choices."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyogrio
import pytest
import shapely
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId

from flows import cli
from flows.geoetl import geoetl
from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.geoetl_tools import Runner
from tasks.records import RunReport
from tests.fakes.geo_files import squares_file
from tests.flows.conftest import SECRET, World, opened_world
from tests.flows.test_tiles import ended, wait_for

FEATURES = 2000
NODES = ["plots", "checked", "invalid", "wider", "placed", "table", "file"]


def workflow(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition of these nodes."""
    return {"id": "test", "nodes": list(nodes), **more}


def node(
    name: str, kind: str, inputs: Any = None, execution: dict[str, Any] | None = None, **given: Any
) -> dict[str, Any]:
    made: dict[str, Any] = {"id": name, "type": kind, "parameters": given}
    return made | ({"inputs": inputs} if inputs else {}) | ({"execution": execution} if execution else {})


def source(path: Path, **given: Any) -> dict[str, Any]:
    return node("plots", "data_source.geopackage", file_path=str(path), table_name="plots", **given)


def geopackage(path: Path, inputs: str, name: str = "file") -> dict[str, Any]:
    return node(name, "data_sink.geopackage", inputs, output_path=str(path), table_name="plots")


@dataclass(frozen=True)
class Done:
    """A finished run and everything it can be judged by."""

    world: World
    report: RunReport
    source: Path
    output: Path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, prefect_server: str) -> Iterator[Done]:
    """One run of a template."""
    with opened_world(tmp_path_factory.mktemp("geoetl"), postgres_url) as world:
        given, output = squares_file(world.home / "in.gpkg", FEATURES), world.home / "out" / "made.gpkg"
        report = geoetl("plots-buffered", {"source": str(given), "output": str(output), "distance": 4})
        yield Done(world, report, given, output)


def test_what_comes_out_is_what_went_in_buffered(done: Done) -> None:
    made = pyogrio.raw.read(done.output, layer="plots")
    assert made[0]["crs"] == "EPSG:4326"
    assert len(made[2]) == FEATURES
    given = shapely.from_wkb(pyogrio.raw.read(done.source)[2])
    back = shapely.from_wkb(made[2])
    assert bool(np.all(shapely.get_num_coordinates(back) > shapely.get_num_coordinates(given)))
    rows = done.world.database.rows("SELECT count(*), count(DISTINCT n) FROM plots_buffered")
    assert rows == [(FEATURES, FEATURES)]


def test_the_report_counts_nodes_and_features(done: Done) -> None:
    report = done.report
    assert report.counts == {"pending": 0, "in_progress": 0, "completed": 7, "failed": 0, "skipped": 0}
    assert (report.exit_code, report.failures) == (0, {})
    assert (report.facts["features_in"], report.facts["features_out"]) == (FEATURES, 2 * FEATURES)
    assert list(report.facts["nodes"]) == NODES
    assert all(of["seconds"] > 0 and of["peak_memory_mb"] > 0 for of in report.facts["nodes"].values())
    assert report.bytes_in > 100_000
    assert str(done.output) in report.facts["outputs"]["file"][0]


def test_the_rows_say_the_same(done: Done) -> None:
    database, run_id = done.world.database, done.report.run_id
    (run,) = database.rows(
        "SELECT id, workflow_id, status::text, trigger::text, runner, features_in, features_out, error,"
        " ended_at > created_at FROM geoetl_workflow_runs"
    )
    expected = (run_id, "plots-buffered", "completed", "manual", "threads", FEATURES, 2 * FEATURES, None, True)
    assert run == expected
    nodes = database.rows(
        "SELECT node_id, status::text, attempts, features_in, features_out, completed_at >= began_at"
        " FROM geoetl_node_runs WHERE run_id = %s ORDER BY id",
        (run_id,),
    )
    assert [row[0] for row in nodes] == NODES
    assert {row[1:3] for row in nodes} == {("completed", 1)}
    assert [row[3:5] for row in nodes] == [(0, FEATURES), (FEATURES, FEATURES), (0, 0)] + [(FEATURES, FEATURES)] * 4
    assert all(row[5] for row in nodes)
    found = database.rows("SELECT tableoid::regclass::text FROM geoetl_workflow_runs")[0][0]
    assert found.startswith("geoetl_workflow_runs_2"), "in the partition of its month"


def test_lineage_leads_from_the_input_to_the_outputs(done: Done) -> None:
    rows = done.world.database.rows(
        "SELECT node_id, direction, place, fingerprint IS NOT NULL, length(sha256), features"
        " FROM geoetl_lineage ORDER BY id"
    )
    assert [(row[0], row[1], row[5]) for row in rows] == [
        ("plots", "input", FEATURES),
        ("invalid", "output", 0),
        ("table", "output", FEATURES),
        ("file", "output", FEATURES),
    ]
    assert str(done.source) in rows[0][2]
    assert rows[0][3]
    assert {row[0]: row[4] for row in rows}["file"] == 64


def test_status_counts_runs_and_nodes(
    done: Done, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["landrecords", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out + said.err

    code, said = command("status", "geoetl", "--json")
    none = dict.fromkeys(["pending", "running", "failed", "cancelled", "timeout", "skipped"], 0)
    assert (code, json.loads(said)) == (0, {"runs": {**none, "completed": 1}, "nodes": {**none, "completed": 7}})
    assert command("failed", "geoetl") == (0, "Nothing failed.\n")
    code, said = command("retry", "geoetl")
    assert (code, "resume_run_id" in said) == (2, True)


def test_prefect_shows_stages_parts_table_and_picture(done: Done) -> None:
    of_run = UUID(done.report.run_id)
    with get_client(sync_client=True) as client:
        runs = wait_for(
            lambda: ended(client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[of_run]))), 2)
        )
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[of_run]))
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=mine)}
    stage = "+".join(NODES)
    assert sorted(run.name for run in runs) == [stage, f"{stage} 0"]
    page = str(artifacts["geoetl-report"].data)
    assert "```mermaid\nflowchart" in page
    assert f"| wider (geoprocessing.buffer) | completed | {FEATURES:,} | {FEATURES:,} |" in page


def test_nothing_is_left_of_a_complete_run(done: Done) -> None:
    folder = done.world.spool / "geoetl"
    assert [path for path in folder.rglob("*") if path.name not in {"runs", "work"}] == []


def test_no_password_is_kept(done: Done) -> None:
    dump = done.world.database.rows(
        "SELECT jsonb_agg(w)::text || jsonb_agg(r)::text FROM geoetl_workflows w, geoetl_workflow_runs r"
    )
    assert SECRET not in dump[0][0]


# --- failures and resuming ---


def test_a_failed_run_is_resumed_where_it_failed(world: World) -> None:
    """The database refuses a value, as only it knows; what was read before is not read again."""
    given = squares_file(world.home / "in.gpkg", FEATURES)
    world.database.rows("CREATE TABLE narrow (n bigint CHECK (n < 0), kind text, geom bytea)")
    definition = workflow(
        source(given),
        node("ordered", "attributes.sort", "plots", by="n"),
        node("table", "data_sink.postgis", "ordered", {"max_retries": 0}, table="narrow", srid=3857, mode="append"),
    )
    with pytest.raises(Exception, match=r"node table: The table refuses row 1 .*resume_run_id='") as caught:
        geoetl(definition)
    run_id = str(caught.value).rpartition("resume_run_id='")[2].partition("'")[0]
    assert "\n" not in str(caught.value)
    rows = "SELECT node_id, status::text, restored FROM geoetl_node_runs WHERE run_id = %s ORDER BY id"
    states = {name: status for name, status, _ in world.database.rows(rows, (run_id,))}
    assert (states["plots"], states["table"]) == ("completed", "failed")
    definition["nodes"][2]["parameters"] |= {"table": "wide", "mode": "replace"}
    report = geoetl(definition, resume_run_id=run_id)
    assert report.facts["restored"] == ["plots"]
    assert report.counts["completed"] == 3
    assert world.database.rows("SELECT count(*) FROM wide") == [(FEATURES,)]
    resumed = world.database.rows("SELECT resumed_from FROM geoetl_workflow_runs WHERE id = %s", (report.run_id,))
    assert resumed == [(run_id,)]
    with pytest.raises(ConfigurationError, match="is complete: there is nothing to resume"):
        geoetl(definition, resume_run_id=report.run_id)


def test_the_rest_goes_on_and_the_report_says_so(world: World) -> None:
    given = squares_file(world.home / "in.gpkg", 100)
    world.database.rows("CREATE TABLE narrow (n bigint CHECK (n < 0), kind text, geom bytea)")
    tolerant = {"continue_on_error": True, "max_retries": 0}
    definition = workflow(
        source(given),
        node("table", "data_sink.postgis", "plots", tolerant, table="narrow", srid=3857, mode="append"),
        geopackage(world.home / "whole.gpkg", "plots"),
    )
    report = geoetl(definition)
    assert (report.counts["completed"], report.counts["failed"], report.exit_code) == (2, 1, 1)
    assert len(pyogrio.raw.read(world.home / "whole.gpkg")[2]) == 100
    with pytest.raises(ConfigurationError, match=f"Run {report.run_id} is of workflow test, not other; resume it with"):
        geoetl({**definition, "id": "other"}, resume_run_id=report.run_id)
    world.database.rows("ALTER TABLE narrow DROP CONSTRAINT narrow_n_check")
    resumed = geoetl(definition, resume_run_id=report.run_id)
    assert (resumed.counts["completed"], resumed.exit_code) == (3, 0)
    assert world.database.rows("SELECT count(*) FROM narrow") == [(100,)]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"type": "data_source.geopakage"}, "data_source.geopackage"),
        ({"parameters": {"file_path": "/nowhere/at/all.gpkg"}}, "There is no file /nowhere/at/all.gpkg"),
        ({"parameters": {"file": "x"}}, "file_path"),
    ],
)
def test_a_wrong_workflow_is_refused_before_anything_runs(world: World, changed: dict[str, Any], said: str) -> None:
    given = source(squares_file(world.home / "in.gpkg", 10))
    definition = workflow({**given, **changed}, geopackage(world.home / "out.gpkg", "plots"))
    with pytest.raises(ConfigurationError, match=said):
        geoetl(definition)
    assert world.database.rows("SELECT count(*) FROM geoetl_workflow_runs") == [(0,)]


def test_files_outside_the_allowed_folders_are_refused(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    given = squares_file(world.home / "in.gpkg", 10)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (world.home / "link.gpkg").symlink_to(squares_file(elsewhere / "secret.gpkg", 10))
    for path in (elsewhere / "secret.gpkg", world.home / "link.gpkg", Path("..") / elsewhere.name / "secret.gpkg"):
        definition = workflow(source(path), geopackage(world.home / "out.gpkg", "plots"))
        with pytest.raises(ConfigurationError, match=r"lies outside of .* \(roots\)"):
            geoetl(definition, roots=[str(world.home)])
    definition = workflow(source(given), geopackage(elsewhere / "out.gpkg", "plots"))
    with pytest.raises(ConfigurationError, match="lies outside of"):
        geoetl(definition, roots=[str(world.home)])
    with pytest.raises(ConfigurationError, match=r"'/vsimem/x\.gpkg' is an address of GDAL's; give the path"):
        geoetl(workflow(source(given), geopackage(Path("/vsimem/x.gpkg"), "plots")))


def test_a_database_that_is_away_is_told_as_such(world: World) -> None:
    url = "postgresql://user@127.0.0.1:1/gone"
    definition = workflow(
        node("rows", "data_source.postgres", url=url, table="plots"), geopackage(world.home / "out.gpkg", "rows")
    )
    with pytest.raises(OutsideUnreachable, match=r"gone at 127\.0\.0\.1 does not answer"):
        geoetl(definition)


def test_a_password_in_a_workflow_file_is_refused(world: World) -> None:
    nodes = [node("rows", "data_source.postgres", url=f"postgresql://clerk:{SECRET}@127.0.0.1/x", table="plots")]
    file = world.home / "w.json"
    file.write_text(json.dumps(workflow(*nodes, geopackage(world.home / "out.gpkg", "rows"))))
    with pytest.raises(ConfigurationError, match=r"node rows, url: it holds a password.*env:NAME") as caught:
        geoetl(str(file))
    assert SECRET not in str(caught.value)


def test_a_database_may_be_named_by_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = workflow(
        node("rows", "data_source.postgres", url="env:PLOTS_URL", table="plots"),
        geopackage(world.home / "out.gpkg", "rows"),
    )
    with pytest.raises(ConfigurationError, match="PLOTS_URL is not set"):
        geoetl(definition)
    monkeypatch.setenv("PLOTS_URL", "postgresql://user:s3cret@127.0.0.1:1/gone")
    with pytest.raises(OutsideUnreachable) as caught:
        geoetl(definition)
    assert "s3cret" not in str(caught.value)


# --- choices ---


def test_a_dry_run_says_what_would_be_done_and_does_nothing(world: World) -> None:
    given, output = squares_file(world.home / "in.gpkg", 500), world.home / "new" / "out.gpkg"
    report = geoetl("plots-buffered", {"source": str(given), "output": str(output)}, dry_run=True)
    assert report.dry_run
    assert report.estimate["features"] == 500
    assert report.estimate["stages"] == ["+".join(NODES)]
    assert not output.parent.exists()
    assert world.database.rows("SELECT to_regclass('plots_buffered')") == [(None,)]


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_other_runners_make_the_same(world: World, runner: Runner) -> None:
    given = squares_file(world.home / "in.gpkg", FEATURES)
    definition = workflow(
        source(given),
        node("wider", "geoprocessing.buffer", "plots", distance=3),
        node("whole", "geoprocessing.dissolve", "wider", by="kind"),
        geopackage(world.home / "out.gpkg", "wider"),
        geopackage(world.home / "whole.gpkg", "whole", "areas"),
    )
    report = geoetl(definition, runner=runner, memory_mb=128)
    assert report.counts["completed"] == 5
    assert len(pyogrio.raw.read(world.home / "out.gpkg")[2]) == FEATURES
    assert len(pyogrio.raw.read(world.home / "whole.gpkg")[2]) == 2
