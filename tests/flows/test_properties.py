"""The properties flow against the sample register: what it finds, fetches, loads, leaves alone and says."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId
from prefect.exceptions import ParameterTypeError
from pydantic import SecretStr

from flows import cli
from flows.blocks import LandrecordsRegister
from tasks import properties_work
from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.pacing import host_of
from tasks.properties_tools import Toolbox
from tasks.records import RunReport
from tasks.register_profile import load_register
from tasks.register_tables import TABLES
from tasks.sample.answers import Answer
from tasks.sample.register import API_KEY, SampleRegister
from tests.fakes.http_server import unused_port
from tests.fakes.registers import count, disagreements, profile_with
from tests.flows.conftest import World, opened_world
from tests.flows.prefect_evidence import prefect_says, wait_for

BIG, SMALL = "Helsingør", "Dragør"
TOWNS = [BIG, SMALL]
VILLAS = {BIG: 300, SMALL: 60}
HOMES = sum(VILLAS.values())
PAGE, CAP = 20, 240

Load = Callable[..., RunReport]


def load(register: SampleRegister, towns: list[str] | None = None, **parameters: Any) -> RunReport:
    """The flow as a plain function."""
    from flows.properties import properties

    fast = {"requests_per_second": 5000, "backoff_s": 0.2, "patience_s": 20.0}
    return properties(register.url, TOWNS if towns is None else towns, **(fast | parameters))


def details(register: SampleRegister) -> Counter[str]:
    """Id -> how often the property was asked for."""
    return Counter(r.path.rpartition("/")[2] for r in register.requests if r.path.startswith("/addresses/"))


def searches(register: SampleRegister) -> int:
    return sum(r.path.startswith(("/search/", "/v2/parcels?")) for r in register.requests)


@dataclass(frozen=True)
class First:
    """A finished run over a town that is over the cap and one that is not, and all it can be judged by."""

    world: World
    register: SampleRegister
    profile: Path
    report: RunReport


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, prefect_server: str) -> Iterator[First]:
    home = tmp_path_factory.mktemp("properties")
    profile = profile_with(home, cap=str(CAP), size=str(PAGE))
    with opened_world(home, postgres_url) as world, SampleRegister(VILLAS, cap=CAP, unknown=0.05) as register:
        yield First(world, register, profile, load(register, profile=str(profile), export="both"))


# --- what is found, fetched and loaded ---


def test_every_property_of_the_server_is_in_the_tables_once(first: First) -> None:
    assert details(first.register) == dict.fromkeys(first.register.land.ids(0), 1)
    assert disagreements(first.world.database, first.register.land.truth(0)) == []
    assert first.report.counts == {"pending": 0, "in_progress": 0, "completed": HOMES, "failed": 0, "skipped": 0}
    assert (first.report.failures, first.report.shortfalls, first.report.exit_code) == ({}, [], 0)


def test_a_town_over_the_cap_is_divided_by_zip_code(first: First) -> None:
    rows = first.world.database.rows("SELECT filters, reason, total, found FROM property_queries ORDER BY id")
    whole = {filters["municipality"]: (reason, total) for filters, reason, total, _ in rows if len(filters) == 2}
    assert whole == {BIG: ("divided", VILLAS[BIG]), SMALL: (None, VILLAS[SMALL])}
    parts = [(filters, total, found) for filters, _, total, found in rows if len(filters) > 2]
    assert {*chain(*(filters for filters, _, _ in parts))} == {"municipality", "address_type", "zip_code"}
    assert sum(total for _, total, _ in parts) == VILLAS[BIG]
    assert all(total == found for _, total, found in parts)
    assert first.report.facts["searches"] == {"whole": 2, "short": 0, "unfinished": 0, "properties": HOMES}
    assert count(first.world.database, "property_sightings") == 0, "the notes of a search go with it"


def test_no_page_beyond_the_cap_or_twice_is_asked_for(first: First) -> None:
    asked = [r.path for r in first.register.requests if r.path.startswith("/search/")]
    assert len(asked) == len(set(asked)) == first.report.facts["requests"]["search"]
    assert first.report.facts["requests"]["detail"] == HOMES
    assert {r.status for r in first.register.requests} == {200}


def test_the_report_is_the_tables(first: First) -> None:
    """Shared rows may be written by two pages at once, so those are at least as many."""
    written = first.report.facts["written"]
    there = {name: count(first.world.database, name) for name in TABLES}
    owned = {name for name, table in TABLES.items() if table.of_property or name == "properties"}
    assert {name: n for name, n in written.items() if name in owned} == {n: there[n] for n in owned if there[n]}
    assert all(written[name] >= n for name, n in there.items() if name not in owned)
    assert first.report.facts["changes"] == {"new": HOMES, "changed": 0, "price": 0, "vanished": 0, "returned": 0}
    assert first.report.bytes_in == sum(r.sent for r in first.register.requests if r.path.startswith("/addresses/"))
    recorded = first.world.database.rows("SELECT report -> 'facts' FROM landrecords_runs WHERE report IS NOT NULL")
    assert json.loads(json.dumps(first.report.facts)) in [facts for (facts,) in recorded]


def test_unknown_fields_are_kept_and_counted(first: First) -> None:
    office, land = first.register.office, first.register.land
    unknown = sum(office.is_unknown(land.find(item) or 0) for item in land.ids(0))
    assert unknown > 5
    assert first.report.facts["unknown_fields"]["floodRisk"] == unknown
    assert count(first.world.database, "properties", "extra ? 'floodRisk'") == unknown


def test_what_prefect_shows(first: First) -> None:
    host, number = host_of(first.register.url), UUID(first.report.run_id)
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[number]))
    of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[number]))
    with get_client(sync_client=True) as client:
        runs = wait_for(lambda: ended(client.read_task_runs(flow_run_filter=mine)))
        limit = client.read_concurrency_limit_by_tag(f"api-{host}")
        artifacts = {artifact.key: artifact.data for artifact in client.read_artifacts(artifact_filter=of_run)}
    names = {run.name.partition("-")[0] for run in runs}
    assert names == {"search", "properties", "export", "upload"}
    assert all(f"api-{host}" in run.tags for run in runs if run.name.startswith(("search-", "properties-")))
    assert limit.active_slots == []
    assert set(artifacts) == {*("properties-progress", "properties-results", "properties-report", "properties-summary")}
    assert artifacts["properties-progress"] == 100.0
    page = str(artifacts["properties-report"])
    assert "| floodRisk |" in page
    assert f"| registrations | {first.report.facts['written']['registrations']:,} |" in page
    assert "data:image/png;base64," in page


def ended(runs: list[Any]) -> list[Any]:
    return runs if runs and all(run.state and run.state.is_final() for run in runs) else []


def test_a_snapshot_is_in_the_store(first: First) -> None:
    keys = first.report.facts["exported"]
    assert {Path(key).name for key in keys} >= {"properties.parquet", "properties.csv.gz", "snapshot.json"}
    assert all((first.world.store / key).is_file() for key in keys)


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """Exit code and output of the `landrecords` command."""
    monkeypatch.setattr(sys, "argv", ["landrecords", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0), capsys.readouterr().out


def test_status_counts_the_properties(
    first: First, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = command(capsys, monkeypatch, "status", "properties", "--json")
    assert (code, json.loads(said)) == (0, {"status": first.report.counts})


# --- once more: the order of these tests is that of the register's versions ---


def test_a_second_run_fetches_no_property(first: First) -> None:
    before = len(first.register.requests)
    report = load(first.register, profile=str(first.profile), export="both")
    assert sum(report.counts.values()) == report.facts["requests"]["detail"] == 0
    assert len(first.register.requests) - before == first.report.facts["requests"]["search"]
    assert report.facts["exported"] == [], "no snapshot of what did not change"


def test_what_changed_is_written_and_told_and_nothing_else(first: First) -> None:
    """Some of it is asked for on condition: what did not change is answered 304, and its rows stay untouched."""
    database, register, land = first.world.database, first.register, first.register.land
    before, rows = len(register.requests), versions(first)
    register.version = 6
    report = load(register, profile=str(first.profile), refresh="stale", stale_after_days=0)
    changed, there = set(land.changed(0, 6)), set(land.ids(6))
    new, gone = there - set(land.ids(0)), set(land.ids(0)) - there
    assert min(len(changed), len(new), len(gone)) > 1
    of_kind = dict[str, set[str]]()
    for kind, item in database.rows(
        "SELECT kind, property_id FROM property_changes WHERE run_id = %s", (report.run_id,)
    ):
        of_kind.setdefault(kind, set()).add(item)
    priced = {item for item, events in land.changed(0, 6).items() if "repriced" in events}
    assert (of_kind["new"], of_kind["changed"], of_kind["vanished"]) == (new, changed, gone)
    assert of_kind.get("price", set()) <= priced
    kinds = report.facts["changes"]
    assert (kinds["new"], kinds["changed"], kinds["vanished"]) == (len(new), len(changed), len(gone))
    asked = [r for r in register.requests[before:] if r.path.startswith("/addresses/")]
    assert Counter(r.status for r in asked) == {304: len(there) - len(changed | new), 200: len(changed | new)}
    assert report.notes == {"unchanged": len(there) - len(changed | new)}
    assert {item for item, version in versions(first).items() if rows.get(item) != version} == changed | new
    assert disagreements(database, land.truth(6)) == []


def versions(first: First) -> dict[str, Any]:
    """Property -> when its content was written last."""
    return dict(first.world.database.rows("SELECT id, changed_at FROM properties"))


def test_everything_anew_asks_without_condition(first: First) -> None:
    before = len(first.register.requests)
    report = load(first.register, [SMALL], profile=str(first.profile), refresh="all")
    asked = [r for r in first.register.requests[before:] if r.path.startswith("/addresses/")]
    assert Counter(r.status for r in asked) == {200: report.counts["completed"]}
    assert report.counts["completed"] == len(first.register.land.ids(6, [SMALL]))
    assert report.notes == {"unchanged": report.counts["completed"]}


def test_only_what_is_on_the_market(first: First) -> None:
    """Without a search: the daily run of the real register."""
    before, there = searches(first.register), count(first.world.database, "properties", "is_on_market")
    report = load(first.register, profile=str(first.profile), on_market_only=True, refresh="all")
    assert searches(first.register) == before
    assert report.counts["completed"] == there > 0


# --- choices ---


@pytest.fixture
def register() -> Iterator[SampleRegister]:
    with SampleRegister({BIG: 120, SMALL: 40}) as opened:
        yield opened


def test_villas_and_condos_are_searches_of_their_own(world: World, register: SampleRegister) -> None:
    report = load(register, [SMALL, SMALL + " "], address_types=["villa", "condo"])
    assert report.facts["searches"]["whole"] == 2
    assert disagreements(world.database, register.land.truth(0, [SMALL], ["villa", "condo"])) == []


def test_limit_is_exact_and_ends_the_search_early(world: World, register: SampleRegister) -> None:
    report = load(register, limit=30, workers=2)
    assert report.counts["completed"] == sum(details(register).values()) == 30
    assert report.facts["searches"]["unfinished"] > 0
    assert searches(register) < 6
    rest = load(register)
    assert (rest.counts["completed"], rest.facts["searches"]["whole"]) == (130, 2)
    assert set(details(register).values()) == {1}
    assert disagreements(world.database, register.land.truth(0)) == []


def test_a_dry_run_writes_nothing_and_says_how_long(world: World, register: SampleRegister) -> None:
    report = load(register, dry_run=True, requests_per_second=50)
    assert report.dry_run
    assert len(register.requests) == 2
    wanted = {"properties": 160, "loaded_before": 0, "detail_requests": 160, "search_requests": 4}
    assert {name: report.estimate[name] for name in wanted} == wanted
    assert report.estimate["seconds"] == pytest.approx(164 / 50, abs=0.1)
    assert report.estimate[f"villa in {BIG}"] == 120
    assert count(world.database, "properties") == count(world.database, "property_searches") == 0
    load(register, [SMALL])
    again = load(register, dry_run=True)
    assert (again.estimate["loaded_before"], again.estimate["detail_requests"]) == (40, 120)


def test_bands_of_price_and_what_no_part_has_is_told(world: World, register: SampleRegister, tmp_path: Path) -> None:
    """One zip code, so price divides. Homes that were never valued are in no band: those that the cap hides are
    reported by partition, and nothing is called vanished."""
    with SampleRegister({SMALL: 200}, cap=100) as other:
        profile = profile_with(tmp_path, cap="100", size="20")
        report = load(other, [SMALL], profile=str(profile))
        ids, rows = other.land.ids(0), other.land.truth(0)["properties"]
        hidden = {row["id"] for row in rows if row["latest_valuation"] is None} - set(ids[:100])
    assert hidden
    found = {item for (item,) in world.database.rows("SELECT id FROM properties")}
    assert found == set(ids) - hidden
    parts = world.database.rows("SELECT filters -> 'price', total, found FROM property_queries WHERE filters ? 'price'")
    assert len(parts) >= 2
    assert all(total == named <= 100 for _, total, named in parts)
    valued = sum(total for _, total, _ in parts)
    assert report.shortfalls == [f"villa in {SMALL}: its parts have {valued} of 200"]
    assert report.exit_code == 1


def test_a_zip_code_that_no_page_shows_is_found_by_price(world: World, tmp_path: Path) -> None:
    """The third road of a town has a zip code of its own, and lies beyond the cap."""
    with SampleRegister({BIG: 120}, cap=80) as other:
        report = load(other, [BIG], profile=str(profile_with(tmp_path, cap="80", size="20")))
        land = other.land
    zips = [zip_code for (zip_code,) in world.database.rows("SELECT filters ->> 'zip_code' FROM property_queries")]
    truth = {row["zip_code"] for row in land.truth(0)["properties"]}
    assert len(truth) == 3
    assert len(truth - set(zips)) == 1, "one that no search was divided by"
    assert count(world.database, "property_queries", "filters ? 'price'") >= 2
    assert (report.shortfalls, report.facts["searches"]["whole"]) == ([], 1)
    assert disagreements(world.database, land.truth(0)) == []


def test_filters_that_the_register_does_not_heed_do_not_divide_for_ever(world: World) -> None:
    with SampleRegister({SMALL: 200}, cap=100) as register:
        profile = profile_with(world.home, cap="100", size="20")
        text = profile.read_text().replace("zipCodes", "zips").replace("priceMin", "least").replace("priceMax", "most")
        profile.write_text(text)
        report = load(register, [SMALL], profile=str(profile))
        assert searches(register) == 5 + 3, "five pages, and the first of each band"
    assert report.counts["completed"] == 100
    assert len(report.shortfalls) == 3
    assert report.shortfalls[0].endswith("found 20 of 200")


def test_a_register_that_claims_more_than_it_has_is_told_by_partition(world: World) -> None:
    with SampleRegister({SMALL: 40}, overstated=3) as register:
        report = load(register, [SMALL])
    assert report.shortfalls == [f"villa in {SMALL}: found 40 of 43"]
    assert (report.counts["completed"], report.exit_code) == (40, 1)
    assert report.facts["searches"]["short"] == 1


def test_a_search_that_falls_short_calls_nothing_vanished(world: World, register: SampleRegister) -> None:
    load(register, [SMALL])
    register.office.habits = register.office.habits._replace(overstated=3)
    register.version = 20
    report = load(register, [SMALL])
    assert report.shortfalls
    assert count(world.database, "properties", "vanished_at IS NOT NULL") == 0
    register.office.habits = register.office.habits._replace(overstated=0)
    gone = set(register.land.ids(0, [SMALL])) - set(register.land.ids(20, [SMALL]))
    assert gone
    assert load(register, [SMALL]).facts["changes"]["vanished"] == len(gone)
    register.office.habits = register.office.habits._replace(overstated=3)
    register.version = 0
    report = load(register, [SMALL])
    assert report.shortfalls
    assert (report.facts["changes"]["returned"], report.facts["changes"]["vanished"]) == (len(gone), 0)


# --- another register: a cursor, a key, other names of everything ---


KEY_VARIABLE = "LANDRECORDS_SAMPLE_COUNTY_KEY"


def test_the_other_profile_is_configuration_alone(
    world: World, register: SampleRegister, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its key reaches the register and nothing else: not rows, parameters, logs, artifacts, messages, files."""
    monkeypatch.setenv(KEY_VARIABLE, API_KEY)
    county = load_register("sample-county")
    bad = register.land.find(register.land.ids(0)[5])
    register.faults = {"rules": [{"kind": "server_error", "documents": [bad], "times": None}]}
    report = load(register, profile="sample-county", backoff_s=0.02)
    assert report.failures == {"http_error": 1}
    told = {**prefect_says(report.run_id), "logged": caplog.text, "report": report.model_dump_json()}
    for table in ("properties", "landrecords_runs", "host_clocks", "property_searches", "property_queries"):
        told[table] = str(world.database.rows(f"SELECT to_jsonb(t) FROM {table} AS t"))
    assert [where for where, text in told.items() if API_KEY in text] == []
    files = [path for path in world.home.rglob("*") if path.is_file() and API_KEY.encode() in path.read_bytes()]
    assert files == []
    register.faults = "none"
    assert world.database.rows("SELECT count(*) FROM properties WHERE status = 'failed'") == [(1,)]
    cli_retry(monkeypatch)
    assert load(register, profile="sample-county").counts["completed"] == 1
    assert disagreements(world.database, register.land.truth(0), county) == []


def cli_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["landrecords", "retry", "properties", "--reason", "http_error"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0


def test_a_cursor_that_leads_nowhere_ends_its_search(
    world: World, register: SampleRegister, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last page names itself as the next, as if there always were one."""
    monkeypatch.setenv(KEY_VARIABLE, API_KEY)
    right = register.office._county_search

    def endless(fields: Mapping[str, str]) -> Answer:
        answer = right(fields)
        said = json.loads(answer.body)
        said["page"].setdefault("next", fields.get("cursor"))
        answer.body = json.dumps(said).encode()
        return answer

    monkeypatch.setattr(register.office, "_county_search", endless)
    report = load(register, [BIG], profile="sample-county")
    assert (report.counts["completed"], report.facts["requests"]["search"]) == (120, 2)
    assert report.shortfalls == []


def test_two_registers_in_one_table(world: World, register: SampleRegister, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, API_KEY)
    load(register, [SMALL], profile="sample-county")
    load(register, [SMALL])
    by_source = dict(world.database.rows("SELECT source, count(*) FROM properties GROUP BY 1"))
    assert by_source == {"boligsiden": 40, "sample-county": 40}
    assert sum(load(register, [SMALL]).counts.values()) == 0


def test_a_block_says_address_profile_and_key(
    world: World, register: SampleRegister, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.properties import properties

    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    block = LandrecordsRegister(url=register.url, profile="sample-county", key=SecretStr(API_KEY))
    block.save("county", overwrite=True)
    report = properties("block:county", [SMALL], requests_per_second=5000)
    assert report.counts["completed"] == 40
    assert API_KEY not in str(prefect_says(report.run_id))
    LandrecordsRegister.delete("county")


# --- refusals ---


def test_a_name_the_register_does_not_know(world: World, register: SampleRegister) -> None:
    with pytest.raises(ConfigurationError, match="nothing of what was asked for: villa in Kobenhavn: nothing found"):
        load(register, ["Kobenhavn"])
    report = load(register, [SMALL, "Kobenhavn"])
    assert report.shortfalls == ["villa in Kobenhavn: nothing found; is it written as the register writes it?"]
    assert report.counts["completed"] == 40


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_address_of_something_else(world: World, register: SampleRegister, dry_run: bool) -> None:
    register.faults = {"rules": [{"kind": "html", "every": 1, "times": None}]}
    with pytest.raises(OutsideUnreachable, match=r"gave nothing but errors|the answer.* is no JSON"):
        load(register, [SMALL], backoff_s=0.02, patience_s=1.0, dry_run=dry_run)


def test_a_profile_that_asks_for_properties_in_the_wrong_place(world: World, register: SampleRegister) -> None:
    profile = profile_with(world.home)
    profile.write_text(profile.read_text().replace("addresses/{id}", "elsewhere/{id}"))
    with pytest.raises(OutsideUnreachable, match=r"not one of 40 properties .* correct the profile"):
        load(register, [SMALL], profile=str(profile))
    assert count(world.database, "properties", "status = 'failed'") == 40


def test_a_wrong_key(world: World, register: SampleRegister, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "wrong-key")
    with pytest.raises(OutsideUnreachable, match=r"answered no search: .* access refused"):
        load(register, profile="sample-county")


def test_a_register_that_is_away(world: World) -> None:
    from flows.properties import properties

    with pytest.raises(OutsideUnreachable, match=r"gave nothing but errors|answered no search"):
        properties(f"http://127.0.0.1:{unused_port()}", [SMALL], backoff_s=0.02, patience_s=1.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"api_url": "ftp://register.example"}, "api_url in register profile boligsiden is not usable"),
        ({"api_url": "block:nowhere"}, "there is no block 'nowhere'"),
        ({"profile": "boligsidn"}, "boligsiden"),
        ({"profile": "nowhere.toml"}, "nowhere.toml cannot be read"),
        ({"municipalities": [" "]}, "municipalities has an empty name"),
        ({"address_types": ["villa", ""]}, "address_types has an empty name"),
        ({"municipalities": ["Drag\0r"]}, "municipalities has 'Drag.*' in it"),
        ({"profile": "sample-county"}, KEY_VARIABLE),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    mistaken: World, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    from flows.properties import properties

    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(ConfigurationError, match=said):
        properties(**({"api_url": "http://127.0.0.1:1", "municipalities": [SMALL]} | given))
    assert count(mistaken.database, "properties") == 0


@pytest.mark.parametrize(
    "given", [{"municipalities": []}, {"refresh": "new"}, {"workers": 0}, {"limit": 0}, {"stale_after_days": 1e12}]
)
def test_parameters_have_bounds(mistaken: World, given: dict[str, Any]) -> None:
    from flows.properties import properties

    with pytest.raises(ParameterTypeError):
        properties(**({"api_url": "http://127.0.0.1:1", "municipalities": [SMALL]} | given))


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, prefect_server: str) -> Iterator[World]:
    """A world in which nothing is ever done."""
    with opened_world(tmp_path_factory.mktemp("mistakes"), postgres_url) as world:
        yield world


def test_a_search_that_another_run_began_is_ended_by_who_settles_its_last_query(
    monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    """The other run ended the first search, began the next, and found nothing to do while this one had its query."""

    def begin(tools: Toolbox) -> None:
        properties_work.begin(tools)
        tools.database.rows("UPDATE property_searches SET ended_at = now()")
        properties_work.begin(tools)

    monkeypatch.setattr("flows.properties.begin", begin)
    with SampleRegister({SMALL: 60}) as register:
        report = load(register, [SMALL])
    assert report.facts["searches"] == {"whole": 1, "short": 0, "unfinished": 0, "properties": 60}
    assert count(world.database, "property_sightings") == 0
