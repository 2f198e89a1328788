"""SIGKILL at any moment: the next run goes on, nothing is lost, nothing is fetched twice, nothing is left behind."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks import services
from tasks.pacing import host_of
from tasks.pipeline import threads_needed
from tasks.postgres import Database
from tasks.sample.corpus import ODDITIES
from tasks.sample.portal import SamplePortal
from tests.faults.conftest import Run, Scene, kills, until
from tests.flows.evidence import objects_in

KILLS = kills(7, 20)
SEED = 20261122
LONGEST_S = 3.0
DOCUMENTS = 160
FIRST_GIN = 1_000_000


def kill_at_work(scene: Scene, portal: SamplePortal, delay_s: float, *, asking: bool, group: bool, **given: Any) -> Run:
    """Start a run; kill it `delay_s` after its first request, or after it began with what the last one left."""
    requests, runs = len(portal.requests), runs_begun(scene)
    run = scene.start(portal.url, **given)

    def at_work() -> bool:
        return len(portal.requests) > requests if asking else runs_begun(scene) > runs

    until(lambda: at_work() or run.process.poll() is not None, "the run at work")
    deadline = time.monotonic() + delay_s
    while time.monotonic() < deadline and run.process.poll() is None:
        time.sleep(0.01)
    run.kill(signal.SIGKILL, group=group)
    return run


def runs_begun(scene: Scene) -> int:
    return int(scene.database.rows("SELECT count(*) FROM landrecords_runs")[0][0])


def settled(scene: Scene) -> dict[int, datetime]:
    """Document number -> when its download was settled."""
    query = "SELECT gin::int - %s, downloaded_at FROM index_documents WHERE download_status = 'completed'"
    return dict(scene.database.rows(query, (FIRST_GIN,)))


def standing(scene: Scene) -> str:
    steps = ("download", "optimize", "upload")
    at_work = [f"{step} {scene.count(f'{step}_status = $$in_progress$$')}" for step in steps]
    return f"at work: {', '.join(at_work)}; stored: {scene.count('upload_status = $$completed$$')}"


@pytest.mark.timeout(400)
def test_kills_then_resume(scene: Scene, make_portal: Callable[..., SamplePortal]) -> None:
    """Of the run's process, every fourth time of its whole process group."""
    moments = random.Random(SEED)
    portal = make_portal(DOCUMENTS, oddities=ODDITIES, latency_ms=20)
    given: dict[str, Any] = {"index": scene.index_of(portal), "requests_per_second": 12}
    known: dict[int, datetime] = {}
    print(f"seed {SEED}")
    for number in range(1, KILLS + 1):
        delay_s, asking, group = moments.uniform(0.0, LONGEST_S), number % 2 == 1, number % 4 == 0
        kill_at_work(scene, portal, delay_s, asking=asking, group=group, **given)
        print(f"kill {number} after {delay_s:.2f} s; {standing(scene)}; {len(portal.requests)} requests", flush=True)
        now = settled(scene)
        assert {n: now.get(n) for n in known} == known, "a settled download was taken back"
        known = now
        if number >= 3:
            given.pop("index", None)  # loaded again twice, then the rows alone must do
    report = scene.finish(portal.url, requests_per_second=60)
    at_end = settled(scene)
    assert {n: at_end.get(n) for n in known} == known
    again = [r.path for r in portal.requests if r.document in at_end and r.at > at_end[r.document].timestamp()]
    assert again == [], "asked for again after the download was settled"
    assert scene.count("true") == DOCUMENTS
    scene.nothing_left()
    assert killed_runs_in_prefect(scene, but=report.run_id) == {"Crashed": KILLS}
    assert taken_slots(host_of(portal.url)) == 0


def killed_runs_in_prefect(scene: Scene, *, but: str) -> Counter[str | None]:
    """State -> runs. Prefect hears nothing of a SIGKILL; the next run tells it."""
    ids = [run_id for (run_id,) in scene.database.rows("SELECT run_id FROM landrecords_runs") if run_id != but]
    with get_client(sync_client=True) as client:
        return Counter(client.read_flow_run(UUID(run_id)).state_name for run_id in ids)


def taken_slots(host: str) -> int:
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(f"tag:portal-{host}").active_slots


def test_a_killed_run_takes_its_servers_with_it(
    tmp_path: Path, make_portal: Callable[..., SamplePortal], prefect_home: Callable[[Path], None]
) -> None:
    """Nothing configured: the run starts Postgres and the Prefect server itself. The next one starts them again."""
    portal = make_portal(30, latency_ms=20)
    unused = Database("postgresql://127.0.0.1:1/unused")
    prefect_home(tmp_path)
    scene = Scene(tmp_path, unused, {"LANDRECORDS_HOME": str(tmp_path)})
    try:
        index = scene.index_of(portal)
        kill_own(scene, portal, index)
        until(lambda: not scene.runs[0].children(scene.home), "servers and workers gone", 30)
        run = scene.start(portal.url, index=index, requests_per_second=60)
        api = until(lambda: (services.running(scene.home / "prefect") or {}).get("api_url"), "its server", 60)
        before = len(portal.requests)
        until(lambda: len(portal.requests) > before, "the first request", 60)
        with temporary_settings({PREFECT_API_URL: api}):
            assert taken_slots(host_of(portal.url)) <= threads_needed(1), "slots of the killed run are still taken"
        assert run.wait() == 0, run.said()
        assert run.report().counts["failed"] == 0
        until(lambda: not run.children(scene.home), "servers gone", 30)
        assert len(objects_in(scene.store)) == 30 + len(["the manifest"])
    finally:
        scene.close()


def kill_own(scene: Scene, portal: SamplePortal, index: Path) -> None:
    run = scene.start(portal.url, index=index, requests_per_second=60)
    until(lambda: len(portal.requests) > 10 or run.process.poll() is not None, "the run at work", 90)
    run.kill(signal.SIGKILL)
