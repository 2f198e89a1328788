"""The properties flow while what it leans on fails: the register, the database, the process itself.

Afterwards the tables hold every property of the register, each loaded once, and what cannot be loaded has its reason.
"""

from __future__ import annotations

import math
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from tasks.pacing import host_of
from tasks.postgres import Database, migrate
from tasks.records import RunReport
from tasks.register_tables import TABLES
from tasks.sample.register import SampleRegister
from tasks.sample.register_poison import REASONS
from tasks.sample.witness import RequestRecord
from tests.fakes.own_postgres import OwnPostgres
from tests.fakes.registers import count, disagreements, profile_with
from tests.faults.conftest import Run, Scene, kills, until
from tests.flows.conftest import World, opened_world

TOWN, OTHER = "Helsingør", "Dragør"
KILLS = kills(4, 20)
SEED = 20261122
LONGEST_S = 1.2


@pytest.fixture
def world(tmp_path: Path, postgres_url: str, prefect_server: str) -> Iterator[World]:
    """For runs in this process."""
    with opened_world(tmp_path, postgres_url) as made:
        yield made


def load(register: SampleRegister, towns: list[str], **parameters: Any) -> RunReport:
    from flows.properties import properties

    fast = {"requests_per_second": 5000, "backoff_s": 0.2, "patience_s": 30.0}
    return properties(register.url, towns, **(fast | parameters))


def of_details(register: SampleRegister) -> list[RequestRecord]:
    return [r for r in register.requests if r.path.startswith("/addresses/")]


# --- the register ---


def test_everything_a_bad_register_has_is_loaded(world: World) -> None:
    """Refusals in both forms, errors, malformed and cut answers, slow pages, an order that shifts: nothing is lost."""
    rules = [
        {"kind": "too_many", "share": 0.02, "retry_after_s": 1},
        {"kind": "too_many", "share": 0.02, "retry_after_s": 1, "retry_after_as": "date"},
        {"kind": "unavailable", "share": 0.05, "times": 2},
        {"kind": "server_error", "share": 0.1, "times": 2},
        {"kind": "damaged", "share": 0.05},
        {"kind": "json", "share": 0.05},
        {"kind": "html", "share": 0.05},
        {"kind": "empty", "share": 0.03},
        {"kind": "reset", "share": 0.05, "times": 2},
        {"kind": "truncated", "share": 0.03},
        {"kind": "slow", "share": 0.05, "seconds": 0.3},
    ]
    with SampleRegister({TOWN: 220, OTHER: 60}, shifting=True) as register:
        register.faults = {"rules": rules}
        report = load(register, [TOWN, OTHER], profile=str(profile_with(world.home, size="10")))
        seen = {request.fault for request in register.requests}
    assert seen >= {rule["kind"] for rule in rules}
    assert (report.failures, report.shortfalls) == ({}, [])
    assert report.counts["completed"] == 280
    assert report.facts["requests"]["search"] > 28, "pages were read again"
    assert disagreements(world.database, register.land.truth(0)) == []


def test_a_page_that_never_comes_is_told_and_the_others_are_loaded(world: World) -> None:
    with SampleRegister({TOWN: 60, OTHER: 40}) as register:
        office = register.office
        bad = office.find(_request("/search/addresses", page_fields(2))).document
        register.faults = {"rules": [{"kind": "server_error", "documents": [bad], "times": None}]}
        report = load(register, [TOWN, OTHER], profile=str(profile_with(world.home, size="20")), backoff_s=0.05)
        assert len([r for r in register.requests if r.document == bad]) == 20, "four times in each of five attempts"
    (said,) = report.shortfalls
    assert said.startswith(f"villa in {TOWN}: not searched to its end (page 2 of villa in {TOWN}: http://127.0.0.1")
    assert report.exit_code == 1
    assert report.counts["completed"] == 80
    assert count(world.database, "properties", "vanished_at IS NOT NULL") == 0


def page_fields(page: int) -> dict[str, str]:
    """The parameters of a page of the search of TOWN, as the profile sends them."""
    order = {"sortBy": "address", "sortAscending": "true"}
    return {**order, "municipalities": TOWN, "addressTypes": "villa", "per_page": "20", "page": str(page)}


def _request(path: str, fields: dict[str, str]) -> Any:
    from urllib.parse import urlencode

    from tasks.sample.answers import parse_request

    return parse_request("GET", f"{path}?{urlencode(fields)}", b"", {})


def test_poisoned_records_are_put_aside_and_all_others_loaded(world: World) -> None:
    with SampleRegister({TOWN: 400}, poisoned=0.1) as register:
        office, land = register.office, register.land
        report = load(register, [TOWN])
        ids = land.ids(0)
        wrong = {item: poison for item in ids if (poison := office.poison_of(land.find(item) or 0))}
        assert len(set(wrong.values())) > 8
        assert report.failures == dict(Counter(REASONS[poison] for poison in wrong.values()))
        aside = dict(world.database.rows("SELECT property_id, reason FROM property_quarantine"))
        assert aside == {item: REASONS[poison] for item, poison in wrong.items()}
        assert report.counts == {
            **{"pending": 0, "in_progress": 0, "skipped": 0},
            **{"completed": 400 - len(wrong), "failed": len(wrong)},
        }
        right = world.database.rows("SELECT id FROM properties WHERE content_hash IS NOT NULL")
        assert {item for (item,) in right} == set(ids) - wrong.keys()
        office.habits = office.habits._replace(poisoned=0.0)
        assert sum(load(register, [TOWN]).counts.values()) == 0, "failed ones wait for an explicit retry"
        retry_all(world)
        assert load(register, [TOWN]).counts["completed"] == len(wrong)
    assert count(world.database, "property_quarantine") == 0
    assert disagreements(world.database, land.truth(0)) == []


def retry_all(world: World) -> None:
    from tasks.checkpoints import Queue
    from tasks.workloads import PROPERTIES

    Queue(world.database, PROPERTIES, run_id="retry").retry()


# --- several processes ---


@dataclass
class Loads:
    """Runs of one register as processes of their own."""

    scene: Scene
    register: SampleRegister
    given: dict[str, Any] = field(default_factory=dict)

    def start(self, *, wait: bool = False, **parameters: Any) -> Run:
        fixed = {"api_url": self.register.url, "municipalities": [TOWN, OTHER], "backoff_s": 0.3}
        return self.scene.launch("properties", {**fixed, **self.given, **parameters}, wait=wait)

    def check(self) -> None:
        self.scene.nobody_left()
        assert disagreements(self.scene.database, self.register.land.truth(0)) == []
        assert count(self.scene.database, "property_sightings") == 0


@pytest.fixture
def loads(scene: Scene) -> Iterator[Loads]:
    with SampleRegister({TOWN: 450, OTHER: 150}, latency_ms=5, cap=400) as register:
        profile = profile_with(scene.home, cap="400", size="25")
        yield Loads(scene, register, {"profile": str(profile)})


@pytest.mark.alone
def test_four_processes_keep_to_one_dial(loads: Loads) -> None:
    """By the server's log: searches and properties alike, each asked for once, no second above the dial."""
    loads.given["requests_per_second"] = 50.0
    runs = [loads.start(wait=True) for _ in range(4)]
    for run in runs:
        run.go()
    for run in runs:
        assert run.wait() == 0, run.said()
    at = sorted(r.at for r in loads.register.requests)
    busy = at[: -len(at) // 10]  # at the end there is less to do than the dial allows
    whole = busy[-1] - busy[0]
    print(f"{len(at)} requests, {len(busy) / whole:.2f}/s")
    assert len(busy) / whole <= 50.5
    assert max(sum(t <= other < t + 1 for other in at) for t in at) <= 52
    assert Counter(r.document for r in of_details(loads.register)) == dict.fromkeys(
        (r.document for r in of_details(loads.register)), 1
    )
    done = [run.report().counts["completed"] for run in runs]
    assert sum(done) == 600
    loads.check()


@pytest.mark.alone
def test_everybody_waits_where_the_register_says_so(loads: Loads) -> None:
    loads.given["requests_per_second"] = 100.0
    runs = [loads.start(wait=True), loads.start(wait=True)]
    for run in runs:
        run.go()
    register = loads.register
    until(lambda: len(of_details(register)) > 60, "both at work", 60)
    register.faults = {"rules": [{"kind": "too_many", "every": 1, "retry_after_s": 2}]}
    first = until(lambda: [r for r in register.requests if r.status == 429], "the refusal")[0].at
    register.faults = "none"
    for run in runs:
        assert run.wait() == 0, run.said()
    assert [r.at - first for r in register.requests if first + 0.5 < r.at < first + 1.9] == []
    assert count(loads.scene.database, "properties", "attempts > 1") == 0, "a 429 costs no attempt"
    loads.check()


def test_kills_then_resume(loads: Loads) -> None:
    """SIGKILL at any moment, searching and loading included; every fourth time to the whole process group. What was
    loaded stays so and is not asked for again; the pages of a search that were done are not read again."""
    moments, database = random.Random(SEED), loads.scene.database
    loads.given["requests_per_second"] = 90.0
    known: dict[str, datetime] = {}
    print(f"seed {SEED}")
    following = loads.start(wait=True)
    for number in range(1, KILLS + 1):
        run, following = following, loads.start(wait=True)
        asked = of_details if number % 3 else lambda register: register.requests  # else in its search
        before = len(asked(loads.register))
        run.go()
        until(lambda asked=asked, before=before: len(asked(loads.register)) > before, "the run at work", 60)
        time.sleep(moments.uniform(0.0, LONGEST_S))
        run.kill(signal.SIGKILL, group=number % 4 == 0)
        now = loaded(database)
        print(f"kill {number}: {len(now)} loaded, {len(loads.register.requests)} requests", flush=True)
        assert {item: now.get(item) for item in known} == known, "a loaded property was taken back"
        known = now
    following.go()
    assert following.wait() == 0, following.said()
    at_end = loaded(database)
    assert {item: at_end.get(item) for item in known} == known
    assert 0 < len(known) < len(at_end) == 600, "the kills came while there was work"
    asked = [(r.path.rpartition("/")[2], r.at) for r in of_details(loads.register)]
    assert [item for item, at in asked if item in known and at > known[item].timestamp()] == []
    new = database.rows("SELECT property_id FROM property_changes WHERE kind = 'new'")
    assert Counter(item for (item,) in new) == dict.fromkeys(at_end, 1)
    loads.check()
    with get_client(sync_client=True) as client:
        ids = [UUID(run_id) for (run_id,) in database.rows("SELECT run_id FROM landrecords_runs")]
        states = Counter(client.read_flow_run(run_id).state_name for run_id in ids)
        limit = client.read_concurrency_limit_by_tag(f"api-{host_of(loads.register.url)}")
    assert states == {"Crashed": KILLS, "Completed": 1}
    assert limit.active_slots == [], "given back"


def loaded(database: Database) -> dict[str, datetime]:
    """Property -> when it was loaded."""
    return dict(database.rows("SELECT id, completed_at FROM properties WHERE status = 'completed'"))


def test_a_killed_search_goes_on_where_it_was(loads: Loads) -> None:
    register, database = loads.register, loads.scene.database
    run = loads.start(requests_per_second=20.0)
    until(lambda: count(database, "property_queries", "cardinality(pages_done) > 5") > 0, "some pages done", 60)
    run.kill(signal.SIGKILL)
    done = [(filters["municipality"], page) for filters, pages in positions(database) for page in pages]
    before = len(register.requests)
    run = loads.start(requests_per_second=1000.0)
    assert run.wait() == 0, run.said()
    again = [r.path for r in register.requests[before:] if r.path.startswith("/search/") and "zipCodes" not in r.path]
    asked = Counter(path for path in again)
    assert len(done) > 5
    assert len(again) == len(asked) == pages_in_all() - len(done), "none that was done"
    loads.check()


def positions(database: Database) -> list[tuple[dict[str, Any], list[int]]]:
    return database.rows("SELECT filters, pages_done FROM property_queries")


def pages_in_all() -> int:
    """Of both searches: 400 of 450 homes are delivered, and 150."""
    return math.ceil(400 / 25) + math.ceil(150 / 25)


@pytest.mark.alone
def test_a_sigterm_ends_the_run_within_three_seconds(loads: Loads) -> None:
    run = loads.start(requests_per_second=100.0)
    until(lambda: len(of_details(loads.register)) > 100, "the run at work", 60)
    run.kill(signal.SIGTERM)
    began = time.monotonic()
    code = run.wait(timeout_s=30)
    assert time.monotonic() - began < 3.0
    assert (code, count(loads.scene.database, "properties", "status = 'in_progress'")) == (143, 0), run.said()
    assert "Traceback" not in run.said()
    last = loads.start(requests_per_second=2000.0)
    assert last.wait() == 0, last.said()
    loads.check()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["restart", "crash"])
def test_the_database_goes_away_while_properties_are_loaded(
    loads: Loads, own_postgres: OwnPostgres, how: signal.Signals
) -> None:
    scene = loads.scene
    migrate(Database(own_postgres.url))
    scene.environment["LANDRECORDS_DATABASE_URL"] = own_postgres.url
    scene.database = Database(own_postgres.url, size=2, application_name="the-test")
    run = loads.start(requests_per_second=200.0)
    until(lambda: len(of_details(loads.register)) > 150, "the run at work", 60)
    own_postgres.stop(how)
    time.sleep(1.0)
    own_postgres.start()
    assert run.wait() == 0, run.said()
    assert disagreements(scene.database, loads.register.land.truth(0)) == []
    written = {name: count(scene.database, name) for name in TABLES}
    assert written["properties"] == 600
    scene.database.close()
