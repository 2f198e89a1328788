"""The tiles flow while what it leans on fails: the server, the database, the disk, the process itself.

Afterwards every tile the server has is stored byte for byte, and every other has its reason.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from tasks.errors import OutsideUnreachable
from tasks.pacing import host_of
from tasks.postgres import Database, migrate
from tasks.records import RunReport
from tasks.sample.faults import NASTY_TILES, FaultKind, Outage
from tasks.sample.tile_contents import tile_number
from tasks.sample.tiles import SampleTiles
from tasks.store_wire import Patience
from tasks.tiles import fetch_page
from tests.fakes.gcs import FakeGcs
from tests.fakes.own_postgres import OwnPostgres
from tests.faults.conftest import Run, Scene, kills, until
from tests.flows.conftest import World, opened_world
from tests.flows.evidence import objects_in
from tests.flows.tile_evidence import contents_of, leftovers, sample, tile_disagreements, tile_rows

Z, X, Y = 21, 1_728_675, 1_051_362
LAYER, SERVED = "cadastre", "parcels"
KILLS = kills(5, 20)
SEED = 20261122
LONGEST_S = 1.2


def area(columns: int, rows: int) -> dict[str, Any]:
    return {"x_range": [X, X + columns - 1], "y_range": [Y, Y + rows - 1]}


@pytest.fixture
def server() -> Iterator[SampleTiles]:
    with SampleTiles(latency_ms=10) as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, postgres_url: str, prefect_server: str) -> Iterator[World]:
    """For runs in this process."""
    with opened_world(tmp_path, postgres_url) as made:
        yield made


def check(database: Database, home: Path, *, may_fail: bool = False) -> None:
    """Rows, objects and server agree, and nothing else lies about."""
    store = home / "store"
    rows, contents = tile_rows(database, LAYER), contents_of(store, LAYER)
    assert tile_disagreements(rows, contents, sample(SERVED), may_fail=may_fail) == []
    assert leftovers(store, home / "spool") == []


def crawl(world: World, server: SampleTiles, **parameters: Any) -> RunReport:
    return world.tiles(server.template(SERVED), LAYER, Z, **parameters)


# --- the server ---


class Meanwhile(threading.Thread):
    """Does something once the server has had so many requests."""

    def __init__(self, server: SampleTiles, requests: int, do: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._server, self._requests, self._do = server, requests, do

    def run(self) -> None:
        until(lambda: len(self._server.requests) > self._requests, "the run at work", 60)
        self._do()


OUTAGE_S = 5.0
EVERYTHING = {"lasts_s": OUTAGE_S, "times": None}


@pytest.mark.parametrize(
    "how",
    [
        {"outages": [{"lasts_s": OUTAGE_S, "how": "refuse"}]},
        {"rules": [{"kind": "unavailable", **EVERYTHING}]},
    ],
    ids=["refused", "unavailable"],
)
def test_everything_fails_for_five_seconds_while_all_transfers_are_in_flight(
    world: World, server: SampleTiles, how: dict[str, Any]
) -> None:
    """Nothing deadlocks, nothing is given up: the run goes on when the server does, and all is there."""

    def fail() -> None:
        server.faults = how

    outage = Meanwhile(server, 300, fail)
    outage.start()
    report = crawl(world, server, **area(40, 25), requests_per_second=400.0, backoff_s=1.0)
    outage.join()
    assert report.failures == {}
    assert report.seconds > OUTAGE_S
    asked = Counter(request.document for request in server.requests)
    assert max(asked.values()) <= 5
    check(world.database, world.home)


def test_everything_a_nasty_server_has_is_stored_and_the_rest_has_its_reason(world: World, server: SampleTiles) -> None:
    """Truncations, HTML, JSON, resets, stalls, wrong lengths, damage and two outages, some of it for good."""
    # without the rules that ask everybody for a pause: each would take some seconds
    rules = [rule for rule in NASTY_TILES.rules if not (rule.kind is FaultKind.TOO_MANY or rule.every)]
    shorter = tuple(rule.model_copy(update={"seconds": min(2.0, rule.seconds)}) for rule in rules)
    outages = Outage(starts_s=1, lasts_s=1, how="refuse"), Outage(starts_s=4, lasts_s=0.5, how="reset")
    server.faults = NASTY_TILES.model_copy(update={"rules": shorter, "outages": outages})
    report = crawl(world, server, **area(25, 20), decode=True, backoff_s=0.2)
    assert sum(report.counts.values()) == 500
    assert report.counts["pending"] == report.counts["in_progress"] == 0
    assert set(report.failures) <= {"html_error_page", "damaged", "truncated", "connection", "timeout", "http_error"}
    assert {"html_error_page", "damaged"} <= set(report.failures)
    assert report.counts["failed"] < 500 * 0.08
    assert {request.fault for request in server.requests} >= {
        *("truncated", "html", "json", "reset", "reset_midway", "stall", "wrong_length", "unbounded_cut", "chunked_cut")
    }
    check(world.database, world.home, may_fail=True)


# --- several processes ---


@dataclass
class Crawls:
    """Runs of one layer as processes of their own."""

    scene: Scene
    server: SampleTiles
    given: dict[str, Any] = field(default_factory=dict)

    def start(self, *, wait: bool = False, **parameters: Any) -> Run:
        fixed = {"url_template": self.server.template(SERVED), "layer": LAYER, "zoom": Z, "backoff_s": 0.3}
        return self.scene.launch("tiles", {**fixed, **self.given, **parameters}, wait=wait)

    def finish(self, **parameters: Any) -> RunReport:
        run = self.start(**parameters)
        assert run.wait() == 0, run.said()
        return run.report()

    def count(self, condition: str) -> int:
        return int(self.scene.database.rows(f"SELECT count(*) FROM tiles WHERE {condition}")[0][0])

    def runs_at_work(self) -> int:
        return int(self.scene.database.rows("SELECT count(DISTINCT run_id) FROM tiles")[0][0])

    def check(self) -> None:
        self.scene.nobody_left()
        check(self.scene.database, self.scene.home)


@pytest.fixture
def crawls(scene: Scene, server: SampleTiles) -> Crawls:
    return Crawls(scene, server)


@pytest.mark.alone
def test_two_processes_share_a_layer_and_obey_one_retry_after(crawls: Crawls) -> None:
    """In seconds, then as a date. The server's log: each tile asked for once but for those refused, none in a pause."""
    server = crawls.server
    crawls.given = {**area(30, 25), "requests_per_second": 150.0}
    runs = [crawls.start(wait=True), crawls.start(wait=True)]
    for run in runs:
        run.go()
    until(lambda: crawls.runs_at_work() == 2, "both at work", 60)
    first, over = refuse(server, "seconds", 2)
    until(lambda: [r for r in server.requests if r.at > over], "the run after the pause", 30)
    pauses = [(first, over), refuse(server, "date", 2)]
    for run in runs:
        assert run.wait() == 0, run.said()
    for first, over in pauses:
        assert [r.at - first for r in server.requests if first + 0.5 < r.at < over - 0.1] == []
        assert [r for r in server.requests if over - 0.1 < r.at < over + 2.0], "and then it goes on"
    refused = {r.document for r in server.requests if r.status == 429}
    asked = Counter(r.document for r in server.requests if r.status != 429)
    assert asked == dict.fromkeys(asked, 1)
    assert len(asked) == 750
    assert refused <= set(asked)
    assert crawls.count("attempts > 1") == 0, "a 429 costs no attempt"
    counts = [run.report().counts for run in runs]
    assert sum(sum(of.values()) for of in counts) == 750
    assert all(of["completed"] > 50 for of in counts)
    crawls.check()


def refuse(server: SampleTiles, said_as: str, pause_s: int) -> tuple[float, float]:
    """Answer with 429 for a moment: when it was said first, and when the pause is over."""
    before = len(server.requests)
    refusal = {"kind": "too_many", "every": 1, "retry_after_s": pause_s, "retry_after_as": said_as}
    server.faults = {"rules": [refusal]}
    first = until(lambda: [r for r in server.requests[before:] if r.status == 429], "the refusal")[0].at
    server.faults = "none"
    return first, first + pause_s if said_as == "seconds" else math.ceil(first + pause_s)


def test_kills_then_resume(crawls: Crawls) -> None:
    """SIGKILL at any moment, planning and storing included; every fourth time to the whole process group."""
    moments, server = random.Random(SEED), crawls.server
    crawls.given = {**area(40, 30), "requests_per_second": 220.0, "archive": "pmtiles"}
    known: dict[int, datetime] = {}
    print(f"seed {SEED}")
    following = crawls.start(wait=True)
    for number in range(1, KILLS + 1):
        run, following = following, crawls.start(wait=True)
        kill_at_work(crawls, run, moments.uniform(0.0, LONGEST_S), asking=number % 3 > 0, group=number % 4 == 0)
        now = settled(crawls)
        print(f"kill {number}: {len(now)} settled, {len(server.requests)} requests", flush=True)
        assert {n: now.get(n) for n in known} == known, "a settled tile was taken back"
        known = now
    following.go()
    assert following.wait() == 0, following.said()
    at_end = settled(crawls)
    assert {n: at_end.get(n) for n in known} == known
    assert len(at_end) == 1200
    assert 0 < len(known) < 1200, "the kills came while there was work"
    again = [r.path for r in server.requests if r.document in known and r.at > known[r.document].timestamp()]
    assert again == [], "asked for again after the tile was settled"
    crawls.check()
    made = {path.name for path in objects_in(crawls.scene.store / "archives")}
    assert made == {f"{LAYER}.pmtiles", f"{LAYER}.html", f"{LAYER}-coverage.png"}
    assert states_in_prefect(crawls) == {"Crashed": KILLS, "Completed": 1}
    with get_client(sync_client=True) as client:
        assert client.read_concurrency_limit_by_tag(f"tiles-{host_of(server.url)}").active_slots == [], "given back"


def kill_at_work(crawls: Crawls, run: Run, delay_s: float, *, asking: bool, group: bool) -> None:
    """Kill the run so long after its first request, or after it began to plan."""
    runs, requests = runs_begun(crawls), len(crawls.server.requests)
    run.go()
    until(
        lambda: len(crawls.server.requests) > requests if asking else runs_begun(crawls) > runs, "the run at work", 60
    )
    time.sleep(delay_s)
    run.kill(signal.SIGKILL, group=group)


def runs_begun(crawls: Crawls) -> int:
    return int(crawls.scene.database.rows("SELECT count(*) FROM landrecords_runs")[0][0])


def settled(crawls: Crawls) -> dict[int, datetime]:
    """Tile -> when it was settled."""
    query = "SELECT z, x, y, completed_at FROM tiles WHERE status IN ('completed', 'skipped')"
    return {tile_number(SERVED, z, x, y): at for z, x, y, at in crawls.scene.database.rows(query)}


def states_in_prefect(crawls: Crawls) -> Counter[str | None]:
    ids = [run_id for (run_id,) in crawls.scene.database.rows("SELECT run_id FROM landrecords_runs")]
    with get_client(sync_client=True) as client:
        return Counter(client.read_flow_run(UUID(run_id)).state_name for run_id in ids)


@pytest.mark.alone
def test_a_sigterm_ends_the_run_within_three_seconds(crawls: Crawls) -> None:
    crawls.given = {**area(40, 25), "connections": 20}
    run = crawls.start(requests_per_second=150.0)
    until(lambda: len(crawls.server.requests) > 200, "the run at work", 60)
    run.kill(signal.SIGTERM)
    began = time.monotonic()
    code = run.wait(timeout_s=30)
    took_s = time.monotonic() - began
    print(f"ended after {took_s:.2f} s with {code}")
    assert (code, crawls.count("status = 'in_progress'")) == (143, 0), run.said()
    assert took_s < 3.0
    assert "Traceback" not in run.said()
    assert 100 < crawls.count("status <> 'pending'") < 1000
    assert crawls.finish(requests_per_second=2000.0).failures == {}
    crawls.check()


# --- database, bucket and disk ---


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["restart", "crash"])
def test_the_database_goes_away_in_the_middle(crawls: Crawls, own_postgres: OwnPostgres, how: signal.Signals) -> None:
    scene = crawls.scene
    migrate(Database(own_postgres.url))
    scene.environment["LANDRECORDS_DATABASE_URL"] = own_postgres.url
    scene.database = Database(own_postgres.url, size=2, application_name="the-test")
    run = crawls.start(**area(25, 20), requests_per_second=150.0)
    until(lambda: len(crawls.server.requests) > 150, "the run at work", 60)
    own_postgres.stop(how)
    time.sleep(1.0)
    own_postgres.start()
    assert run.wait() == 0, run.said()
    check(scene.database, scene.home)
    assert crawls.count("true") == 500
    scene.database.close()


def test_the_bucket_fails_for_a_while(world: World, server: SampleTiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the door is patient: pages fail and are run again, no tile is blamed for it."""
    monkeypatch.setattr(fetch_page, "retry_delay_seconds", [1.0, 1.0, 1.0])
    monkeypatch.setattr("tasks.store_gcs.Patience", lambda: Patience(delays_s=(0.05, 0.1)))
    with FakeGcs() as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        monkeypatch.setenv("LANDRECORDS_STORE_URL", f"gs://{bucket.bucket.name}/county")
        bucket.faults.add("status", on="multipart", status=503, after=20, times=150)
        assert crawl(world, server, **area(15, 10)).failures == {}
        assert sum(entry.status == 503 for entry in bucket.log) == 150
        folder = f"county/{LAYER}/"
        contents = {name.removeprefix(folder): found.data for name, found in bucket.objects.items() if folder in name}
    rows = tile_rows(world.database, LAYER)
    assert tile_disagreements(rows, contents, sample(SERVED)) == []
    assert {row["attempts"] for row in rows.values()} == {1}


@pytest.fixture
def small_store(world: World) -> Iterator[Callable[[str], None]]:
    """The store lies on a disk of 1 MB; `small_store(options)` mounts it anew. Needs root."""
    store = world.home / "store"
    store.mkdir()
    mount = shutil.which("mount") or "mount"
    if (
        os.geteuid()
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(store)], check=False).returncode
    ):
        pytest.skip("mounting a small disk needs root")

    def remount(options: str) -> None:
        subprocess.run([mount, "-o", f"remount,{options}", str(store)], check=True)

    yield remount
    subprocess.run(["umount", "-l", str(store)], check=False)


def test_a_full_disk_ends_the_run_in_one_sentence(
    world: World, server: SampleTiles, small_store: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are run again a few times, in vain; what fitted is whole and settled, the rest is pending."""
    monkeypatch.setattr(fetch_page, "retry_delay_seconds", [0.1, 0.1, 0.1])
    with pytest.raises(OutsideUnreachable, match="is full; free space there") as caught:
        crawl(world, server, **area(25, 20))
    assert "\n" not in str(caught.value)
    assert len(server.requests) < 500 * 8, "it does not go on for ever"
    rows = tile_rows(world.database, LAYER)
    states = Counter(str(row["status"]) for row in rows.values())
    assert states["failed"] == states["in_progress"] == 0
    assert states["pending"] > 100
    done = {name: row for name, row in rows.items() if row["status"] != "pending"}
    contents = contents_of(world.store, LAYER)
    known = tile_disagreements(done, contents, sample(SERVED))
    assert [line for line in known if "belongs to no row" not in line] == []
    whole = {f"{z}/{x}/{y}.png": sample(SERVED)(z, x, y) for z, x, y in rows}
    assert [key for key, body in contents.items() if not key.startswith("blank/") and whole[key] != body] == []
    assert leftovers(world.store, world.spool) == []
    small_store("size=50m")
    assert crawl(world, server, **area(25, 20)).failures == {}
    check(world.database, world.home)
