"""The sample register over real sockets: what it has, how it is searched, how it changes, and how it misbehaves."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests

from tasks.errors import ItemError, TransientError
from tasks.register_profile import RegisterProfile, load_register
from tasks.register_requests import Filters, Hits, detail_url, read_hits, search_url
from tasks.register_rows import RegisterReader
from tasks.sample.faults import FaultKind
from tasks.sample.register import API_KEY, SampleRegister, main
from tasks.sample.register_land import Land
from tasks.sample.register_office import Habits, RegisterOffice

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tasks.sample.register"]
VILLAS = {"København": 620, "Dragør": 90}


class Client:
    """Asks as a flow would, without patience."""

    def __init__(self, register: SampleRegister, name: str = "boligsiden") -> None:
        self.profile: RegisterProfile = load_register(name, register.url)
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["X-Api-Key"] = API_KEY

    def get(self, url: str, **headers: str) -> requests.Response:
        return self.session.get(url, headers=headers, timeout=5)

    def hits(self, filters: Filters, page: int | str | None = None) -> Hits:
        answer = self.get(search_url(self.profile, filters, page))
        assert answer.status_code == 200, answer.text
        return read_hits(self.profile, answer.content)

    def all_ids(self, filters: Filters) -> list[str]:
        """Page by page, until the register says that there is no more."""
        ids: list[str] = []
        page: int | str | None = None if self.profile.search.paging.kind == "cursor" else 1
        while True:
            answer = self.get(search_url(self.profile, filters, page))
            if answer.status_code in self.profile.search.past_end:
                return ids
            hits = read_hits(self.profile, answer.content)
            ids += hits.ids
            if isinstance(page, int):
                page += 1
            elif hits.next is None:
                return ids
            else:
                page = hits.next

    def detail(self, item: str, **headers: str) -> requests.Response:
        return self.get(detail_url(self.profile, item), **headers)


@pytest.fixture(scope="module")
def register() -> Iterator[SampleRegister]:
    with SampleRegister(VILLAS) as register:
        yield register


@pytest.fixture
def client(register: SampleRegister) -> Iterator[Client]:
    client = Client(register)
    yield client
    client.session.close()
    register.faults = "none"
    register.version = 0


TOWN: Filters = {"municipality": "København", "address_type": "villa"}


# --- what there is ---


def test_homes_are_spread_over_towns_or_given_by_town(register: SampleRegister) -> None:
    assert Counter(len(register.land.ids(0, [town])) for town in VILLAS) == Counter(VILLAS.values())
    assert len(register.land.ids(0, types=["condo"])) == 71
    spread = Land(14_368)
    assert len(set(spread.ids(0))) == len(spread.ids(0)) == 14_368
    assert len(spread.towns) == 10


def test_ids_are_uuids_that_lead_back_to_their_home(register: SampleRegister) -> None:
    for item in register.land.ids(3)[::7]:
        assert str(UUID(item)) == item
        number = register.land.find(item)
        assert number is not None
        assert register.land.home(number, 0)["properties"][0]["id"] == item
        other = f"{'1' if item[0] == '0' else '0'}{item[1:]}"
        assert register.land.find(other) is None
    for wrong in ("", "x", "0a3f50ba-aa33-32b8-e044-0003ba298018", "-", "é-éééééééééééé"):
        assert register.land.find(wrong) is None


def test_homes_are_of_the_real_shape() -> None:
    truth = Land(3000).truth(0)
    homes = len(truth["properties"])
    assert 1.5 < len(truth["registrations"]) / homes < 1.9
    assert 0.01 < len(truth["cases"]) / homes < 0.025
    assert 0.9 < len(truth["main_buildings"]) / homes < 1
    assert 0.02 < len([row for row in truth["properties"] if row["place_id"]]) / homes < 0.08
    assert len(truth) == 14
    assert all(rows for rows in truth.values())
    registrations = {row["registration_id"].isdigit() for row in truth["registrations"]}
    assert registrations == {True, False}
    assert {row["type"] for row in truth["registrations"]} == {"normal", "family", "auction", "other"}
    assert {row["status"] for row in truth["cases"]} == {"open", "sold", "withdrawn"}


def test_the_same_seed_is_the_same_register_in_another_process() -> None:
    code = (
        "import hashlib; from tasks.sample.register_land import Land;"
        "print(hashlib.sha256(repr(Land(60).truth(2)).encode()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(repr(Land(60).truth(2)).encode()).hexdigest()
    assert Land(60, seed=8).truth(2) != Land(60).truth(2)


@pytest.mark.parametrize("name", ["boligsiden", "sample-county"])
def test_every_answer_is_understood_in_both_shapes(register: SampleRegister, name: str) -> None:
    client = Client(register, name)
    reader = RegisterReader(client.profile)
    for item in register.land.ids(0)[::9]:
        asked = client.profile.id_prefix + item
        answer = client.detail(asked)
        record = reader.read(asked, answer.content)
        assert record.unknown == frozenset()
        assert "null" not in answer.text or name == "sample-county"
        truth = register.land.home(register.land.find(item) or 0, 0)
        assert len(record.lines.get("registrations", [])) == len(truth["registrations"])
    client.session.close()


# --- searches ---


@pytest.mark.parametrize("name", ["boligsiden", "sample-county"])
def test_a_search_delivers_each_home_once(register: SampleRegister, name: str) -> None:
    client = Client(register, name)
    prefix = client.profile.id_prefix
    for filters, wanted in (
        (TOWN, register.land.ids(0, ["København"])),
        ({**TOWN, "address_type": "condo"}, register.land.ids(0, ["København"], ["condo"])),
        ({"municipality": "Dragør,København", "address_type": "villa"}, register.land.ids(0)),
        ({"municipality": "Atlantis", "address_type": "villa"}, []),
    ):
        found = client.all_ids(filters)
        assert sorted(found) == sorted(prefix + item for item in wanted)
        assert client.hits(filters).total == len(wanted)
    client.session.close()


def test_zips_and_bands_divide_a_search(register: SampleRegister, client: Client) -> None:
    pages = [client.hits(TOWN, page) for page in range(1, 14)]
    zips = {str(value) for hits in pages for value in hits.values["zip_code"]}
    assert 5 < len(zips) <= 8
    whole = client.all_ids(TOWN)
    assert sorted(whole) == sorted(item for code in zips for item in client.all_ids({**TOWN, "zip_code": code}))
    assert client.hits({**TOWN, "zip_code": ",".join(zips)}).total == len(whole)
    prices = sorted(value for hits in pages for value in hits.values["price"])
    middle = prices[len(prices) // 2]
    low, high = (client.all_ids({**TOWN, "price": band}) for band in ((None, middle - 1), (middle, None)))
    assert len(low) + len(high) == len(prices)
    assert set(low).isdisjoint(high)
    valued = {row["id"] for row in register.land.truth(0, ["København"])["properties"] if row["latest_valuation"]}
    assert {*low, *high} == valued != set(whole), "homes without a valuation are in no band"


def test_what_is_no_page_of_a_query_is_400(client: Client) -> None:
    base = search_url(client.profile, TOWN, 13)
    assert client.get(base).status_code == 200
    wrong = ["page=14", "page=0", "page=x", "page=201", "per_page=101", "per_page=0", "priceMin=x"]
    for change in wrong:
        answer = client.get(f"{base}&{change}")
        assert (answer.status_code, list(answer.json())) == (400, ["error"]), change


def test_a_query_delivers_no_more_than_the_cap() -> None:
    with SampleRegister({"København": 620}, cap=200) as register:
        client = Client(register)
        assert len(client.all_ids(TOWN)) == 200
        assert client.hits(TOWN).total == 620
        client.session.close()


def test_shifting_pages_overlap_and_miss_some_until_they_are_asked_again() -> None:
    with SampleRegister({"København": 620}, shifting=True, overstated=3) as register:
        client = Client(register)
        rounds = [client.all_ids(TOWN) for _ in range(12)]
        assert any(len(set(found)) < len(found) for found in rounds)
        assert any(set(found) < set(register.land.ids(0)) for found in rounds)
        assert set().union(*rounds) == set(register.land.ids(0))
        assert client.hits(TOWN).total == 623
        client.session.close()


def test_the_county_wants_a_key(register: SampleRegister) -> None:
    client = Client(register, "sample-county")
    del client.session.headers["X-Api-Key"]
    for url in (search_url(client.profile, TOWN), detail_url(client.profile, register.land.ids(0)[0])):
        assert client.get(url).status_code == 401
        assert client.get(url, **{"X-Api-Key": API_KEY}).status_code == 200
    assert client.get(search_url(client.profile, TOWN, "?"), **{"X-Api-Key": API_KEY}).status_code == 400
    client.session.close()


# --- versions ---


def test_each_version_changes_one_in_a_hundred_and_takes_and_adds_some() -> None:
    land = Land({"København": 5000})
    before, after = land.ids(0), land.ids(1)
    changed = land.changed(0, 1)
    assert 30 < len(changed) < 75
    assert 4 < len(set(before) - set(after)) < 20
    assert len(set(after) - set(before)) == 5
    for item in set(before) & set(after):
        number = land.find(item) or 0
        assert (land.home(number, 0) != land.home(number, 1)) == (item in changed)
    assert land.changed(1, 1) == {}
    assert {event for events in land.changed(0, 9).values() for event in events} == {
        "sold", "valued", "renovated", "repriced", "corrected"
    }  # fmt: skip


def test_a_client_that_has_it_already_is_told_so(register: SampleRegister, client: Client) -> None:
    changed = register.land.changed(0, 6)
    gone = set(register.land.ids(0)) - set(register.land.ids(6))
    steady = next(item for item in register.land.ids(6) if item not in changed)
    tags = {item: client.detail(item).headers["ETag"] for item in (*changed, *gone, steady)}
    register.version = 6
    statuses = {item: client.detail(item, **{"If-None-Match": tag}).status_code for item, tag in tags.items()}
    assert statuses == dict.fromkeys(changed, 200) | dict.fromkeys(gone, 404) | {steady: 304}
    assert set(client.all_ids(TOWN)) == set(register.land.ids(6, ["København"]))
    assert client.detail("0a3f50ba-aa33-32b8-e044-0003ba298018").status_code == 404


# --- faults ---

FAULTS = {
    "too_many": "429",
    "unavailable": "503",
    "server_error": "500",
    "reset": "cut",
    "reset_midway": "cut",
    "stall": "timeout",
    "truncated": "cut",
    "chunked_cut": "cut",
    "empty": "malformed_json",
    "html": "malformed_json",
    "damaged": "malformed_json",
    "wrong_length": "malformed_json",
    "unbounded_cut": "malformed_json",
    "json": "portal_error",
    "slow": "whole",
}


def outcome(client: Client, item: str) -> str:
    """Of a request on a connection of its own: what a fault leaves on the wire must not reach the next."""
    try:
        answer = requests.get(detail_url(client.profile, item), timeout=0.5)
    except requests.Timeout:
        return "timeout"
    except requests.RequestException:
        return "cut"
    if answer.status_code != 200:
        return str(answer.status_code)
    try:
        RegisterReader(client.profile).read(item, answer.content)
    except ItemError as exc:
        return exc.reason
    return "whole"


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_hits_a_home_and_heals(register: SampleRegister, client: Client, kind: str) -> None:
    item, other = register.land.ids(0)[:2]
    number = register.land.find(item)
    seconds = 0.7 if kind == "stall" else 0.05
    register.faults = {"rules": [{"kind": kind, "documents": [number], "times": 2, "seconds": seconds}]}
    before = len(register.requests)
    assert [outcome(client, item) for _ in range(3)] == [FAULTS[kind], FAULTS[kind], "whole"]
    assert outcome(client, other) == "whole"
    assert [record.fault for record in register.requests[before:]] == [kind, kind, None, None]


def test_all_faults_that_concern_a_register_are_tried() -> None:
    others = {"encrypted", "wrong_book", "stall_midway"}
    assert set(FAULTS) == {str(kind) for kind in FaultKind} - others


def test_searches_have_faults_of_their_own(register: SampleRegister, client: Client) -> None:
    register.faults = {"rules": [{"kind": "damaged", "on": "lookup", "share": 1}]}
    with pytest.raises(TransientError):
        client.hits(TOWN, 2)
    assert client.hits(TOWN, 2).total == 620
    assert client.detail(register.land.ids(0)[0]).status_code == 200
    register.faults = {"rules": [{"kind": "server_error", "every": 3, "lasts_s": 0.2}]}
    statuses = [client.get(search_url(client.profile, TOWN, 1)).status_code for _ in range(5)]
    assert statuses == [200, 200, 500, 500, 500]


def test_patience_is_asked_for(register: SampleRegister, client: Client) -> None:
    url = search_url(client.profile, TOWN, 3)
    register.faults = {"rules": [{"kind": "too_many", "share": 1, "retry_after_s": 3}]}
    assert client.get(url).headers["Retry-After"] == "3"
    register.faults = {"rules": [{"kind": "too_many", "share": 1, "retry_after_s": 30, "retry_after_as": "date"}]}
    asked = parsedate_to_datetime(client.get(url).headers["Retry-After"]).timestamp()
    assert 30 <= asked - register.requests[-1].at < 32
    register.faults = {"max_requests_per_second": 5}
    assert Counter(client.get(url).status_code for _ in range(8)) == {200: 5, 429: 3}


def test_unknown_fields_are_in_as_many_homes_as_was_said() -> None:
    office = RegisterOffice(Land(2000), Habits(unknown=0.1, poisoned=0.05))
    numbers = [office.land.find(item) or 0 for item in office.land.ids(0)]
    assert 150 < sum(map(office.is_unknown, numbers)) < 250
    assert 60 < sum(office.poison_of(number) is not None for number in numbers) < 140
    strange = next(number for number in numbers if office.is_unknown(number) and not office.poison_of(number))
    assert json.loads(office.body(strange, 0))["floodRisk"]
    assert json.loads(office.body(strange, 0, county=True))["data"]["floodRisk"]


# --- as a process ---


def test_process_announces_serves_logs_and_stops(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    arguments = ["--log", str(log), "--villas", '{"Køge": 30}', "--version", "2", "--cap", "20", "--die-with-parent"]
    process = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        assert (ready["pid"], ready["towns"]) == (process.pid, ["Køge"])
        item = Land({"Køge": 30}).ids(2)[0]
        answer = requests.get(f"{ready['url']}/addresses/{item}", timeout=10)
        assert answer.json()["addressID"] == item
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    record = json.loads(log.read_text())
    assert (record["status"], record["sent"], record["fault"]) == (200, len(answer.content), None)


@pytest.mark.parametrize("villas", ["many", '{"Atlantis": 3}', "-1", '{"Køge": "3"}', "[1]"])
def test_process_refuses_what_cannot_work_in_one_sentence(villas: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--villas", villas]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_hits_and_answers_agree(register: SampleRegister, client: Client) -> None:
    hits: Any = client.get(search_url(client.profile, TOWN, 1)).json()["addresses"]
    for hit in hits[:10]:
        answer = client.detail(hit["addressID"]).json()
        assert {name: answer[name] for name in hit if name != "municipality"} == {
            name: value for name, value in hit.items() if name != "municipality"
        }
        assert hit["municipality"].items() <= answer["municipality"].items()
