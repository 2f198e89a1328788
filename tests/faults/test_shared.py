"""Several runs on one queue, and pages that Prefect runs again: no document is fetched twice, no limit exceeded."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.postgres import Database, migrate
from tasks.sample.portal import SamplePortal
from tests.fakes.own_postgres import OwnPostgres
from tests.faults.conftest import Scene, until

MakePortal = Callable[..., SamplePortal]


def files_asked_for(portal: SamplePortal) -> Counter[int | None]:
    """Document -> how often its file was asked for."""
    paths = ("/pdf-records.php", "/historical-image.php", "/files/")
    return Counter(r.document for r in portal.requests if r.path.startswith(paths))


def test_two_runs_of_one_home_fetch_each_document_once(scene: Scene, make_portal: MakePortal) -> None:
    """They share queue, spool and store. The second sweeps the spool while files of the first lie in it."""
    portal = make_portal(60, latency_ms=30)
    index = scene.index_of(portal)
    first = scene.start(portal.url, index=index, requests_per_second=12)
    second = scene.start(portal.url, wait=True, requests_per_second=12)
    until(lambda: len(portal.requests) > 10, "the first run at work")
    second.go()
    for run in (first, second):
        assert run.wait() == 0, run.said()
    assert files_asked_for(portal) == dict.fromkeys(range(60), 1)
    assert scene.count("upload_status = 'completed'") == 60
    assert first.report().counts["completed"] + second.report().counts["completed"] == 60
    assert second.report().counts["completed"] > 0
    scene.nothing_left()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[OwnPostgres]:
    """A server that only this test uses, so that it may be stopped."""
    own = OwnPostgres(tmp_path / "own")
    database = Database(own.url)
    migrate(database)
    database.close()
    yield own
    own.close()


def test_a_page_that_runs_again_keeps_to_the_limit(
    scene: Scene, make_portal: MakePortal, postgres: OwnPostgres
) -> None:
    """The database is away, pages fail and are run again: the run still takes exactly as many rows as it may."""
    portal = make_portal(60, latency_ms=20)
    scene.environment["LANDRECORDS_DATABASE_URL"] = postgres.url
    scene.database = Database(postgres.url, size=2, application_name="the-test")
    run = scene.start(portal.url, index=scene.index_of(portal), limit=30, workers=4, requests_per_second=40)
    until(lambda: len(portal.requests) > 20, "the run at work")
    postgres.stop(signal.SIGINT)
    postgres.start()
    assert run.wait() == 0, run.said()
    assert scene.count("run_id IS NOT NULL") == 30
    assert scene.count("upload_status = 'completed'") == 30
    assert len(files_asked_for(portal)) == 30
    scene.database.close()
