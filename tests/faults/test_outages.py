"""What a run leans on goes away and comes back: the database, the portal, the bucket, the disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tasks.postgres import Database, migrate
from tasks.sample.binding import damaged
from tasks.sample.corpus import ODDITIES
from tasks.sample.portal import SamplePortal
from tests.fakes.gcs import FakeGcs
from tests.fakes.own_postgres import OwnPostgres
from tests.faults.conftest import Scene, until
from tests.flows.evidence import disagreements

MakePortal = Callable[..., SamplePortal]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["restart", "crash"])
def test_the_database_goes_away_in_the_middle(
    scene: Scene, make_portal: MakePortal, own_postgres: OwnPostgres, how: signal.Signals
) -> None:
    portal, postgres = make_portal(60, latency_ms=20), own_postgres
    migrate(Database(postgres.url))
    scene.environment["LANDRECORDS_DATABASE_URL"] = postgres.url
    scene.database = Database(postgres.url, size=2, application_name="the-test")
    run = scene.start(portal.url, index=scene.index_of(portal), workers=4, requests_per_second=60.0)
    until(lambda: len(portal.requests) > 30, "the run at work")
    postgres.stop(how)
    time.sleep(1.0)
    postgres.start()
    assert run.wait() == 0, run.said()
    assert scene.count("upload_status = 'completed'") == 60
    assert disagreements(scene.database, scene.store, scene.spool) == []
    scene.database.close()


@pytest.mark.parametrize(("how", "seconds"), [("refuse", 5.0), ("reset", 2.0)])
def test_the_portal_is_down_while_all_workers_are_busy(
    scene: Scene, make_portal: MakePortal, how: str, seconds: float
) -> None:
    portal = make_portal(60, latency_ms=20)
    run = scene.start(portal.url, index=scene.index_of(portal), workers=8, requests_per_second=60.0)
    until(lambda: len(portal.requests) > 20, "the run at work")
    portal.go_down(seconds, how=how)
    assert run.wait() == 0, run.said()
    assert scene.count("upload_status = 'completed'") == 60
    scene.nothing_left()


def test_everything_a_nasty_portal_has_is_stored_and_the_rest_has_its_reason(
    scene: Scene, make_portal: MakePortal
) -> None:
    portal = make_portal(100, oddities=ODDITIES, faults="nasty")
    report = scene.finish(portal.url, index=scene.index_of(portal), workers=8, requests_per_second=500.0, timeout_s=150)
    assert sum(report.counts.values()) == 100
    assert report.counts["pending"] == report.counts["in_progress"] == 0
    assert scene.count("download_status = 'failed' AND download_reason IS NULL") == 0
    assert scene.count("download_status = 'failed' AND download_attempts = 0") == 0
    assert report.counts["completed"] > 60
    assert list(not_the_portals(scene, portal)) == []
    scene.nothing_left()


def not_the_portals(scene: Scene, portal: SamplePortal) -> Iterator[tuple[int, str | None]]:
    """Documents whose stored source is not, byte for byte, what the portal has (cut ones above all)."""
    columns = "gin::int - 1000000, download_reason, source_sha256"
    query = f"SELECT {columns} FROM index_documents WHERE download_status = 'completed'"
    for number, remark, found in scene.database.rows(query):
        scan = portal.corpus.scan(portal.corpus.document(number)).content
        versions = [scan, damaged(scan)] if remark == "damaged" else [scan]
        # a fault that encrypts makes other bytes each time
        if remark != "encrypted" and found not in {hashlib.sha256(v).hexdigest() for v in versions}:
            yield number, remark


@pytest.mark.parametrize("fault", ["unavailable", "commit_then_drop"])
def test_the_bucket_fails_for_a_while(scene: Scene, make_portal: MakePortal, fault: str) -> None:
    portal = make_portal(40)
    with FakeGcs() as bucket:
        scene.environment |= {
            "LANDRECORDS_STORE_URL": f"gs://{bucket.bucket.name}/county",
            "STORAGE_EMULATOR_HOST": bucket.url,
        }
        if fault == "unavailable":
            bucket.faults.add("status", on="upload", status=503, after=5, seconds=5.0)
        else:
            bucket.faults.add("commit_then_drop", on="upload", times=10)
        report = scene.finish(portal.url, index=scene.index_of(portal), requests_per_second=200.0)
        assert report.counts["completed"] == 40
        stored = {name: obj for name, obj in bucket.objects.items() if name.startswith("county/documents/")}
        assert len(stored) == 40
        rows = scene.database.rows("SELECT gcs_path, stored_sha256 FROM index_documents")
        for path, sha256 in rows:
            assert stored[path.removeprefix(f"gs://{bucket.bucket.name}/")].metadata["sha256"] == sha256


@pytest.mark.alone
def test_two_processes_obey_one_retry_after(scene: Scene, make_portal: MakePortal) -> None:
    pause_s = 3
    portal = make_portal(80, latency_ms=20)
    index = scene.index_of(portal)
    scene.finish(portal.url, index=index, requests_per_second=40.0, limit=2)
    runs = [scene.start(portal.url, requests_per_second=40.0, workers=4) for _ in range(2)]
    until(lambda: len(portal.requests) > 40, "both at work")
    portal.faults = {"rules": [{"kind": "too_many", "on": "any", "every": 1, "times": 1, "retry_after_s": pause_s}]}
    refused = until(lambda: [r for r in portal.requests if r.status == 429], "the refusal")[0]
    portal.faults = "none"
    for run in runs:
        assert run.wait() == 0, run.said()
    last = max(r.at for r in portal.requests if r.status == 429)
    in_pause = [r for r in portal.requests if refused.at + 0.5 < r.at < refused.at + pause_s - 0.1]
    assert in_pause == [], f"asked in the pause; the last refusal was at {last - refused.at:.2f} s"
    assert scene.count("upload_status = 'completed'") == 80
    assert scene.count("download_attempts > 1") == 0, "a 429 costs no attempt"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_stops_the_run_in_one_sentence(scene: Scene, make_portal: MakePortal) -> None:
    portal = make_portal(40)
    small = scene.home / "spool"
    small.mkdir()
    mount = shutil.which("mount")
    made = subprocess.run([str(mount), "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], check=False)
    if made.returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        index = scene.index_of(portal)
        run = scene.start(portal.url, index=index, requests_per_second=200.0)
        assert run.wait(150) == 3, run.said()
        assert "Traceback" not in run.said().splitlines()[-1]
        assert str(small) in run.said().splitlines()[-1]
        assert scene.count("download_status IN ('in_progress', 'failed')") == 0
        subprocess.run([str(mount), "-o", "remount,size=50m", str(small)], check=True)
        assert scene.finish(portal.url).counts["failed"] == 0
        assert scene.count("upload_status = 'completed'") == 40
        scene.nothing_left()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
