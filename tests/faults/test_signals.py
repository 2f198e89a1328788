"""SIGTERM and Ctrl-C in the middle of a run: it ends within 3 s, its rows are given back, nothing stays behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from tasks.sample.portal import SamplePortal
from tests.faults.conftest import Scene, until

pytestmark = pytest.mark.alone

EXIT_WITHIN_S = 3.0


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_in_the_middle_of_a_run(
    scene: Scene, make_portal: Callable[..., SamplePortal], number: signal.Signals, exit_code: int
) -> None:
    """Sent while documents are downloaded and optimised; the next run finishes the rest."""
    portal = make_portal(40, latency_ms=20)
    run = scene.start(portal.url, index=scene.index_of(portal), requests_per_second=12)
    until(lambda: scene.count("optimize_status IN ('in_progress', 'completed')"), "the first document to optimise")
    run.kill(number)
    began = time.monotonic()
    code = run.wait(timeout_s=30)
    took_s = time.monotonic() - began
    print(f"ended after {took_s:.2f} s with {code}")
    assert scene.count("'in_progress' IN (download_status, optimize_status, upload_status)") == 0
    assert code == exit_code, run.said()
    if number == signal.SIGTERM:  # after Ctrl-C Prefect is left to tell its server of every page
        assert took_s < EXIT_WITHIN_S
    assert scene.count("download_status = 'pending'") > 0, "it was in the middle"
    report = scene.finish(portal.url, requests_per_second=100)
    assert report.failures == {}
    assert scene.count("upload_status = 'completed'") == 40
    scene.nothing_left()
