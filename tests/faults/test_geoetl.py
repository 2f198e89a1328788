"""Workflows while their process is killed or told to end: every feature is there once, and nothing is left behind."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tasks.records import RunReport
from tests.fakes.geo_files import squares_file
from tests.faults.conftest import Run, Scene, until

FEATURES = 20_000
KILLS = 4
SEED = 20261122
LONGEST_S = 1.5


def definition(source: Path, output: Path, *, segments: int) -> dict[str, Any]:
    """Read, sort (stored before and after), a slow buffer, then a table in parts and a file in order."""
    nodes: list[dict[str, Any]] = [
        {"id": "plots", "type": "data_source.geopackage", "parameters": {"file_path": str(source)}},
        {"id": "ordered", "type": "attributes.sort", "parameters": {"by": "n"}, "inputs": "plots"},
        {
            "id": "wider",
            "type": "geoprocessing.buffer",
            "parameters": {"distance": 3, "segments": segments},
            "inputs": "ordered",
        },
        {
            "id": "table",
            "type": "data_sink.postgis",
            "parameters": {"table": "wider", "srid": 3857, "mode": "append"},
            "inputs": "wider",
        },
        {"id": "all", "type": "geoprocessing.merge", "inputs": ["ordered"]},
        {"id": "file", "type": "data_sink.geopackage", "parameters": {"output_path": str(output)}, "inputs": "all"},
    ]
    return {"id": "killed", "nodes": nodes}


@dataclass
class Runs:
    """Runs of one workflow as processes of their own."""

    scene: Scene
    workflow: dict[str, Any]
    given: dict[str, Any] = field(default_factory=dict)

    def start(self, *, wait: bool = False, **more: Any) -> Run:
        return self.scene.launch("geoetl", {"workflow": self.workflow, **self.given, **more}, wait=wait)

    def ids(self) -> list[str]:
        """Of all runs, the newest last."""
        return [run_id for (run_id,) in self.rows("SELECT id FROM geoetl_workflow_runs ORDER BY created_at")]

    def rows(self, query: str, *arguments: Any) -> list[tuple[Any, ...]]:
        return self.scene.database.rows(query, arguments or None)

    def states(self, run_id: str) -> dict[str, str]:
        query = "SELECT node_id, status::text FROM geoetl_node_runs WHERE run_id = %s"
        return dict(self.rows(query, run_id))

    def check(self, report: RunReport) -> None:
        """Everything is there once; nobody and nothing is left."""
        assert report.counts["completed"] == 6
        found = self.rows("SELECT count(*), count(DISTINCT n), min(n), max(n) FROM wider")
        assert found == [(FEATURES, FEATURES, 0, FEATURES - 1)]
        self.scene.nobody_left()
        folder = self.scene.spool / "geoetl"
        assert [path for path in folder.rglob("*") if path.name not in {"runs", "work"}] == []


@pytest.fixture
def runs(scene: Scene) -> Runs:
    source = squares_file(scene.home / "in.gpkg", FEATURES)
    return Runs(scene, definition(source, scene.home / "out.gpkg", segments=96))


def test_a_run_killed_in_its_middle_stage_is_resumed_from_it(runs: Runs) -> None:
    """The input is not read again: its node stands as the killed run left it."""
    run = runs.start()
    until(lambda: (ids := runs.ids()) and runs.states(ids[0]).get("wider") == "running", "the middle stage", 60)
    run.kill(signal.SIGKILL)
    (killed,) = runs.ids()
    times = "SELECT began_at, completed_at FROM geoetl_node_runs WHERE run_id = %s AND node_id = 'plots'"
    before = runs.rows(times, killed)
    resumed = runs.start(resume_run_id=killed)
    assert resumed.wait() == 0, resumed.said()
    report = resumed.report()
    assert "plots" in report.facts["restored"]
    assert runs.rows(times, report.run_id) == before
    states = runs.states(killed)
    assert (states["plots"], states["wider"]) == ("completed", "failed")
    ended = "SELECT status::text, error FROM geoetl_workflow_runs WHERE id = %s"
    assert runs.rows(ended, killed) == [("failed", "Its process was killed; give its id as resume_run_id to go on.")]
    runs.check(report)


@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_kills_at_any_moment_then_resume(runs: Runs, runner: str) -> None:
    """SIGKILL in any stage, the whole group or the process alone: every feature is in the table once."""
    moments = random.Random(SEED)
    print(f"seed {SEED}")
    runs.given = {"runner": runner}
    kills = KILLS if runner == "threads" else 2
    last: str | None = None
    for number in range(kills):
        run = runs.start(**({"resume_run_id": last} if last else {}))
        count = len(runs.ids())
        until(lambda count=count: len(runs.ids()) > count, "the run at work", 60)  # type: ignore[misc]
        time.sleep(moments.uniform(0, LONGEST_S))
        if run.process.poll() is not None:
            break  # it was done before: the machine is quick
        last = runs.ids()[-1]
        print(f"kill {number}: {runs.states(last)}", flush=True)
        run.kill(signal.SIGKILL, group=number % 2 == 0)
    resumed = runs.start(resume_run_id=last)
    assert resumed.wait() == 0, resumed.said()
    runs.check(resumed.report())
    assert [len(run.children(runs.scene.home)) for run in runs.scene.runs] == [0] * len(runs.scene.runs)


@pytest.mark.alone
@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_a_sigterm_ends_the_run_within_three_seconds(runs: Runs, runner: str) -> None:
    run = runs.start(runner=runner)
    until(lambda: (ids := runs.ids()) and runs.states(ids[0]).get("wider") == "running", "the middle stage", 60)
    time.sleep(0.5)
    run.kill(signal.SIGTERM)
    began = time.monotonic()
    code = run.wait(timeout_s=30)
    took_s = time.monotonic() - began
    print(f"ended after {took_s:.2f} s with {code}")
    assert code == 143, run.said()
    assert took_s < 3.0
    assert "Traceback" not in run.said()
    runs.scene.nobody_left()
    (ended,) = runs.ids()
    resumed = runs.start(resume_run_id=ended)
    assert resumed.wait() == 0, resumed.said()
    assert runs.states(ended)["wider"] in {"cancelled", "failed"}
    assert runs.rows("SELECT status::text FROM geoetl_workflow_runs WHERE id = %s", ended) == [("cancelled",)]
    runs.check(resumed.report())
