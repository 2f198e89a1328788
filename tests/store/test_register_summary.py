"""The lines and the picture that a report shows of a register: counted once more, from the rows."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from statistics import median
from typing import Any

import pytest

from tasks.postgres import Database
from tasks.register_picture import ZipPrice, register_picture
from tasks.register_summary import picture, summary_table
from tasks.register_tables import TABLES
from tasks.sample.register_land import Land
from tasks.sample.register_office import RegisterOffice
from tests.fakes.register_client import body_of, find, load_all, rows_of

VILLAS = 300

Values = dict[str, Any]


@pytest.fixture
def loaded(database: Database) -> Database:
    """A database with the sample register in it; one home has vanished."""
    office = RegisterOffice(Land({"København": VILLAS}))
    find(database, office.land.ids(0))
    load_all(database, body_of(office))
    database.rows("UPDATE properties SET vanished_at = now() WHERE id = %s", (office.land.ids(0)[0],))
    return database


def homes_of(database: Database) -> dict[str, Values]:
    columns = ["id", "zip_code", "is_on_market", "living_area", "vanished_at"]
    return {row["id"]: row for row in rows_of(database, "properties", columns)}


def sales_of(database: Database, homes: dict[str, Values]) -> list[Values]:
    """What counts as a sale, told once more."""
    sales = []
    for row in rows_of(database, "registrations", TABLES["registrations"].names):
        if row["type"] == "normal" and row["date"] <= datetime.now(UTC).date():
            home = homes[row["property_id"]]
            price = row["per_area_price"] or float(row["amount"]) / (row["living_area"] or home["living_area"])
            sales.append({**row, "zip": home["zip_code"], "price": price})
    return sales


def test_the_summary_is_counted_right(loaded: Database) -> None:
    one = "(SELECT min(registration_id) FROM registrations)"
    loaded.rows(f"UPDATE registrations SET date = '2199-01-01' WHERE registration_id = {one}")
    homes = homes_of(loaded)
    sales = sales_of(loaded, homes)
    last = max(sale["date"] for sale in sales)
    recent = [sale for sale in sales if sale["date"] > last.replace(year=last.year - 1)]
    assert recent
    there = [home for home in homes.values() if not home["vanished_at"]]
    table = summary_table(loaded, "boligsiden")
    assert {row["zip"]: row["homes"] for row in table} == Counter(home["zip_code"] for home in there)
    on_market = Counter(home["zip_code"] for home in there if home["is_on_market"])
    deeds = {(sale["zip"], sale["registration_id"]) for sale in recent}
    for row in table:
        prices = [sale["price"] for sale in recent if sale["zip"] == row["zip"]]
        assert row["on market"] == on_market[row["zip"]]
        assert row["sales in 12 months"] == sum(zip_code == row["zip"] for zip_code, _ in deeds)
        assert row["median price per m2"] == (round(median(prices)) if prices else None)
        assert row["municipality"] == "København"
        assert row["newest change"] == datetime.now(UTC).date().isoformat()
    open_cases = [c for c in rows_of(loaded, "cases", ["property_id", "status"]) if c["status"] == "open"]
    expected = sum(not homes[case["property_id"]]["vanished_at"] for case in open_cases)
    assert sum(row["open cases"] for row in table) == expected > 0
    assert json.loads(json.dumps(table)) == table
    assert summary_table(loaded, "another") == []


def test_homes_of_which_little_is_known_have_a_line(database: Database) -> None:
    database.rows(
        "INSERT INTO properties (id, source, content_hash, changed_at) VALUES ('a', 's', 'h', '2026-01-02'),"
        " ('b', 's', 'h', NULL), ('not loaded', 's', NULL, NULL)"
    )
    assert summary_table(database, "s") == [
        {
            "municipality": "",
            "zip": "",
            "town": "",
            "homes": 2,
            "on market": 0,
            "open cases": 0,
            "sales in 12 months": 0,
            "median price per m2": None,
            "newest change": "2026-01-02",
        }
    ]


def test_sales_of_a_register_without_kinds_or_areas_of_them(database: Database) -> None:
    """The county's: amounts alone, all of them sales. A deed over two homes is one."""
    database.rows(
        "INSERT INTO properties (id, source, content_hash, zip_code, living_area) VALUES"
        " ('a', 's', 'h', '1000', 100), ('b', 's', 'h', '1000', 0), ('c', 's', 'h', '1000', NULL)"
    )
    database.rows(
        "INSERT INTO registrations (property_id, registration_id, amount, date, type) VALUES"
        " ('a', '1', 500000, '2020-02-29', NULL), ('b', '1', 500000, '2020-02-29', NULL),"
        " ('a', '2', 10, '2019-02-28', NULL), ('a', '3', 10, '2020-01-01', 'family'),"
        " ('c', '4', 70000, '2020-01-01', NULL)"
    )
    [row] = summary_table(database, "s")
    assert (row["homes"], row["sales in 12 months"], row["median price per m2"]) == (3, 2, 5000)


def test_the_picture_is_of_these_figures(loaded: Database) -> None:
    sales = sales_of(loaded, homes_of(loaded))
    last = max(sale["date"] for sale in sales)
    recent = [sale for sale in sales if sale["date"] > last.replace(year=last.year - 1)]
    towns = dict(loaded.rows("SELECT code, name FROM zip_codes"))
    prices = [
        ZipPrice(zip_code, towns[zip_code], len(of), median(of))
        for zip_code in towns
        if (of := [sale["price"] for sale in recent if sale["zip"] == zip_code])
    ]
    years = Counter(sale["date"].year for sale in sales)
    assert picture(loaded, "boligsiden") == register_picture("boligsiden", prices, years, last)
    assert picture(loaded, "another") == register_picture("another", [], {}, None)
