"""SIGKILL at any moment: the next run goes on, nothing is lost, nothing is fetched twice, nothing is left behind."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tasks.sample.corpus import ODDITIES
from tasks.sample.portal import SamplePortal
from tests.faults.conftest import Run, Scene, until

KILLS = 20
SEED = 20261122
LONGEST_S = 3.5
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
def test_twenty_kills_then_resume(scene: Scene, make_portal: Callable[..., SamplePortal]) -> None:
    """Of the run's process, every fourth time of its whole process group."""
    moments = random.Random(SEED)
    portal = make_portal(160, oddities=ODDITIES, latency_ms=20)
    index = scene.index_of(portal)
    known: dict[int, datetime] = {}
    print(f"seed {SEED}")
    for number in range(1, KILLS + 1):
        delay_s = moments.uniform(0.0, LONGEST_S)
        given = {"index": index} if number <= 3 else {}
        kill_at_work(scene, portal, delay_s, asking=number % 2 == 1, group=number % 4 == 0, workers=3, **given)
        print(f"kill {number} after {delay_s:.2f} s; {standing(scene)}", flush=True)
        now = settled(scene)
        assert {n: now.get(n) for n in known} == known, "a settled download was taken back"
        known = now
    scene.finish(portal.url)
    at_end = settled(scene)
    assert {n: at_end.get(n) for n in known} == known
    again = [r.path for r in portal.requests if r.document in at_end and r.at > at_end[r.document].timestamp()]
    assert again == [], "asked for again after the download was settled"
    assert scene.count("true") == 160
    scene.nothing_left()
