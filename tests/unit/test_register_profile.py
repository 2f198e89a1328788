"""Profiles of registers: those that come with the package, mistakes in one's own, and what they ask."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tasks.errors import ConfigurationError
from tasks.register_mapping import BadRecord
from tasks.register_profile import load_register, shipped_registers
from tasks.register_requests import detail_url, read_hits, search_url
from tasks.register_tables import TABLES

DANISH, COUNTY = load_register("boligsiden"), load_register("sample-county")


def raw(name: str) -> dict[str, Any]:
    return tomllib.loads(resources.files("tasks").joinpath("register_profiles", f"{name}.toml").read_text())


def asked(url: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(url)
    return f"{parts.netloc}{parts.path}", dict(parse_qsl(parts.query))


# --- profiles ---


def test_two_profiles_come_with_the_package() -> None:
    assert shipped_registers() == ["boligsiden", "sample-county"]
    for name in shipped_registers():
        assert load_register(name).source == name


def test_the_danish_profile_fills_every_column_of_all_14_tables() -> None:
    assert DANISH.tables.keys() == TABLES.keys()
    assert len(TABLES) == 14
    for name, table in TABLES.items():
        assert DANISH.tables[name].columns.keys() == table.columns.keys(), name
    assert DANISH.requests_per_second <= 2
    assert DANISH.search.cap == 200 * DANISH.search.paging.size


def test_one_may_have_a_file_of_ones_own(tmp_path: Path) -> None:
    given = {**raw("boligsiden"), "source": "mine"}
    (tmp_path / "mine.json").write_text(json.dumps(given))
    assert load_register(tmp_path / "mine.json").source == "mine"
    assert load_register(tmp_path / "mine.json", "http://127.0.0.1:5000/api").api_url == "http://127.0.0.1:5000/api/"
    (tmp_path / "mine.toml").write_text('source = "x')
    (tmp_path / "list.json").write_text("[]")
    unknown = "~nobody-of-that-name/mine.toml"
    for wrong in (tmp_path / "mine.toml", tmp_path / "list.json", tmp_path / "none.toml", "boligside", unknown):
        with pytest.raises(ConfigurationError):
            load_register(wrong)


Wrong = Callable[[dict[str, Any]], Any]
MISTAKES: list[tuple[Wrong, str]] = [
    (lambda p: p.update(sorce="x"), "sorce"),
    (lambda p: p.update(source="Bad Name"), "source"),
    (lambda p: p.update(api_url="ftp://x"), "api_url"),
    (lambda p: p.update(api_url="https://x/?a=b"), "api_url"),
    (lambda p: p["detail"].update(path="addresses"), "detail.path"),
    (lambda p: p["search"].update(id="a..b"), "search.id"),
    (lambda p: p["search"]["values"].update(colour="c"), "colour"),
    (lambda p: p["search"].update(partition=["colour"]), "use one of"),
    (lambda p: p["search"]["filters"].pop("address_type"), "address_type"),
    (lambda p: p["search"]["paging"].update(next="a"), "cursor"),
    (lambda p: p["search"]["paging"].update(kind="cursor"), "cursor"),
    (lambda p: p.update(key={"header": "X", "environment": "HOME"}), "key.environment"),
    (lambda p: p["tables"].pop("properties"), "properties"),
    (lambda p: p["tables"].update(registrants={"columns": {"id": "x"}}), "did you mean 'registrations'"),
    (lambda p: p["tables"]["cases"]["columns"].update(state="x"), "did you mean 'status'"),
    (lambda p: p["tables"]["cases"]["columns"].pop("case_id"), "cases needs case_id"),
    (lambda p: p["tables"]["cases"]["columns"].update(case_id="^^x"), "further out"),
    (lambda p: p["tables"]["cases"]["columns"].update(case_id="a b"), "no path"),
    (lambda p: p["tables"]["cases"]["columns"].update(case_id={}), "path or pieces"),
    (lambda p: p["tables"]["cases"]["columns"].update(case_id={"path": "x", "pieces": ["{y}"]}), "path or pieces"),
    (lambda p: p["tables"]["cases"]["columns"].update(slug={"pieces": ["{a b}"]}), "no path"),
    (lambda p: p["tables"]["cases"]["columns"].update(year_built={"pieces": ["{a}"]}), "integer"),
    (lambda p: p["tables"]["cases"]["columns"].update(year_built={"path": "a", "words": {"a": "b"}}), "integer"),
    (lambda p: p["tables"]["cases"]["columns"].update(slug={"path": "a", "written": "text"}), "kind text"),
    (lambda p: p["tables"]["cases"]["columns"].update(slug={"path": "a", "written": "%Y"}), "no date"),
    (lambda p: p["tables"]["cases"]["columns"].update(sold_date={"path": "a", "written": "%Y"}), "month and day"),
    (lambda p: p["tables"]["cases"]["columns"].update(sold_date={"path": "a", "written": "%Y-%Q"}), "no format"),
    (lambda p: p["tables"]["cases"].update(take="last"), "take"),
    (lambda p: p["tables"]["properties"].update(take="rest"), "properties cannot take the rest"),
]


@pytest.mark.parametrize(("mistake", "named"), MISTAKES)
def test_a_mistake_is_named_in_one_sentence(tmp_path: Path, mistake: Wrong, named: str) -> None:
    given = raw("boligsiden")
    mistake(given)
    (tmp_path / "mine.json").write_text(json.dumps(given))
    with pytest.raises(ConfigurationError) as caught:
        load_register(tmp_path / "mine.json")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LANDRECORDS_SAMPLE_COUNTY_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="LANDRECORDS_SAMPLE_COUNTY_KEY"):
        COUNTY.request_headers()
    monkeypatch.setenv("LANDRECORDS_SAMPLE_COUNTY_KEY", " s3cret ")
    assert COUNTY.request_headers() == {"X-Api-Key": "s3cret"}
    assert "s3cret" not in repr(COUNTY)
    assert DANISH.request_headers() == {"Accept": "application/json"}


# --- requests ---


def test_pages_are_counted_or_follow_a_cursor() -> None:
    filters = {"municipality": "Høje-Taastrup", "address_type": "villa"}
    place, fields = asked(search_url(DANISH, filters, 3))
    assert place == "api.boligsiden.dk/search/addresses"
    assert fields == {"municipalities": "Høje-Taastrup", "addressTypes": "villa", "per_page": "50", "page": "3",
                      "sortBy": "address", "sortAscending": "true"}  # fmt: skip
    assert asked(search_url(DANISH, filters))[1]["page"] == "1"
    assert asked(search_url(COUNTY, filters))[1] == {"district": "Høje-Taastrup", "use": "villa", "limit": "100"}
    assert asked(search_url(COUNTY, filters, "Mj=="))[1]["cursor"] == "Mj=="


def test_filters_narrow_a_search() -> None:
    assert asked(search_url(DANISH, {"price": (1, None), "zip_code": "2100"}))[1].items() >= {
        ("priceMin", "1"),
        ("zipCodes", "2100"),
    }
    assert asked(search_url(COUNTY, {"price": (0, 5)}))[1].items() >= {("assessed_from", "0"), ("assessed_to", "5")}
    for wrong in ({"colour": "red"}, {"price": "5"}, {"zip_code": (1, 2)}):
        with pytest.raises(ConfigurationError):
            search_url(DANISH, wrong)  # type: ignore[arg-type]


def test_a_property_is_asked_for_by_the_registers_own_id() -> None:
    assert detail_url(DANISH, "0a3f-1") == "https://api.boligsiden.dk/addresses/0a3f-1"
    assert detail_url(COUNTY, "county:7/å?") == "http://127.0.0.1:8096/v2/parcels/7%2F%C3%A5%3F"


def test_hits_say_ids_total_and_what_to_divide_by() -> None:
    body = {
        "addresses": [{"addressID": "a", "zipCode": 2100, "latestValuation": 5}, {"addressID": "b"}],
        "totalHits": 9,
    }
    hits = read_hits(DANISH, json.dumps(body).encode())
    assert (hits.ids, hits.total, hits.next) == (("a", "b"), 9, None)
    assert hits.values == {"municipality": (), "address_type": (), "zip_code": (2100,), "price": (5,)}
    county = {"results": [{"parcel": 7}], "page": {"next": "Mg==", "matched": 300}}
    hits = read_hits(COUNTY, json.dumps(county).encode())
    assert (hits.ids, hits.total, hits.next) == (("county:7",), 300, "Mg==")


def test_hits_that_no_row_can_hold_are_left_out() -> None:
    bad = [{}, {"addressID": "a\0"}, {"addressID": "\ud800"}, {"addressID": "a\\b"}, {"addressID": "a" * 201}]
    bad += [{"addressID": value, "zipCode": {"code": 1}, "latestValuation": [5]} for value in (None, "", {}, 10**30)]
    hits = [*bad, {"addressID": 7, "zipCode": "\0", "latestValuation": 4.5}, {"addressID": "b", "zipCode": ""}]
    body = json.dumps({"addresses": hits, "totalHits": len(hits)}).replace("4.5", "1e999")
    found = read_hits(DANISH, body.encode())
    assert (found.ids, found.total) == (("7", "b"), len(hits))
    assert found.values == {"municipality": (), "address_type": (), "zip_code": (), "price": ()}
    assert read_hits(DANISH, body.replace("1e999", "4.5").encode()).values["price"] == (4.5,)
    silent = DANISH.search.model_copy(update={"total": ""})
    with pytest.raises(BadRecord, match="addressID is missing in a hit"):
        read_hits(DANISH.model_copy(update={"search": silent}), body.encode())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"addresses": {}, "totalHits": 1},
        {"addresses": []},
        {"addresses": ["a"], "totalHits": 1},
        {"addresses": [], "totalHits": "1"},
        {"addresses": [], "totalHits": -1},
        {"addresses": [], "totalHits": 2**31},
        {"addresses": [{}], "totalHits": 1},
        {"addresses": [{"addressID": ""}], "totalHits": 1},
        {"error": {"code": 500}},
        [],
        5,
    ],
)
def test_an_answer_that_is_no_page_of_hits_is_refused(body: Any) -> None:
    with pytest.raises(BadRecord):
        read_hits(DANISH, json.dumps(body).encode())
