"""SIGKILL at any moment: the next run goes on, nothing is lost, nothing is fetched twice, nothing is left behind."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from datetime import datetime

import pytest

from tasks.sample.corpus import ODDITIES
from tasks.sample.portal import SamplePortal
from tests.faults.conftest import Run, Scene, until

KILLS = 20
FIRST_GIN = 1_000_000


def kill_after_first_request(
    scene: Scene, portal: SamplePortal, delay_s: float, *, group: bool, **given: object
) -> Run:
    """Start a run, wait until it asks the portal, kill it `delay_s` later."""
    before = len(portal.requests)
    run = scene.start(portal.url, **given)
    until(lambda: len(portal.requests) > before or run.process.poll() is not None, "the first request")
    deadline = time.monotonic() + delay_s
    while time.monotonic() < deadline and run.process.poll() is None:
        time.sleep(0.01)
    run.kill(signal.SIGKILL, group=group)
    return run


def settled(scene: Scene) -> dict[int, datetime]:
    """Document number -> when its download was settled."""
    query = "SELECT gin::int - %s, downloaded_at FROM index_documents WHERE download_status = 'completed'"
    return dict(scene.database.rows(query, (FIRST_GIN,)))


def standing(scene: Scene) -> str:
    parts = []
    for step in ("download", "optimize", "upload"):
        for status in ("in_progress", "completed"):
            parts.append(f"{step} {status} {scene.count(f'{step}_status = {status!r}')}")
    return ", ".join(parts)


@pytest.mark.timeout(400)
def test_twenty_kills_then_resume(scene: Scene, make_portal: Callable[..., SamplePortal]) -> None:
    """Of the run's process, or (every fourth time) of its whole process group."""
    seed = 20261122
    moments = random.Random(seed)
    portal = make_portal(240, oddities=ODDITIES, latency_ms=20)
    index = scene.home / "index.csv"
    portal.write_index(index)
    known: dict[int, datetime] = {}
    print(f"seed {seed}")
    for number in range(1, KILLS + 1):
        delay_s, group = moments.uniform(0.0, 3.5), number % 4 == 0
        given = {"index": index} if number <= 3 else {}
        run = kill_after_first_request(scene, portal, delay_s, group=group, requests_per_second=60, **given)
        print(f"kill {number} after {delay_s:.2f} s, exit {run.process.returncode}: {standing(scene)}", flush=True)
        now = settled(scene)
        assert {n: now.get(n) for n in known} == known, "a settled download was taken back"
        known = now
    report = scene.finish(portal.url)
    print(report.model_dump_json(), flush=True)
    at_end = settled(scene)
    assert {n: at_end.get(n) for n in known} == known
    again = [
        request.path
        for request in portal.requests
        if request.document in at_end and request.at > at_end[request.document].timestamp()
    ]
    assert again == [], "asked for again after the download was settled"
    scene.nothing_left()
