"""How searches over a cap are divided, and what a search lacks in the end."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from tasks.register_profile import load_register
from tasks.register_requests import Band, Filters
from tasks.register_search import divide, filters_from, is_over_cap, label, pages_of
from tasks.register_searches import shortfalls

PROFILE = load_register("boligsiden")
WHOLE: Filters = {"municipality": "København", "address_type": "villa"}
ZIP: Filters = {**WHOLE, "zip_code": "2100"}


@pytest.mark.parametrize(
    ("total", "pages", "over"),
    [(0, 1, False), (1, 1, False), (50, 1, False), (51, 2, False), (10_000, 200, False), (10_001, 200, True)],
)
def test_pages_of_a_query(total: int, pages: int, over: bool) -> None:
    assert (pages_of(PROFILE.search, total), is_over_cap(PROFILE.search, total)) == (pages, over)


def test_zip_codes_come_before_prices() -> None:
    parts = divide(PROFILE, WHOLE, 14_368, {"zip_code": ["2200", 2100, "2100"], "price": [1, 2, 3]})
    assert parts == [{**WHOLE, "zip_code": "2100"}, {**WHOLE, "zip_code": "2200"}]


def test_what_was_tried_divides_no_more() -> None:
    seen = {"zip_code": [2100, 2200], "price": list(range(1000))}
    parts = divide(PROFILE, WHOLE, 14_368, seen, ["zip_code"])
    assert [set(part) - set(WHOLE) for part in parts] == [{"price"}] * 3
    assert divide(PROFILE, WHOLE, 14_368, seen, ["zip_code", "price"]) == []


def test_one_zip_code_divides_nothing() -> None:
    parts = divide(PROFILE, WHOLE, 14_368, {"zip_code": ["2791"], "price": list(range(1000))})
    assert [set(part) - set(WHOLE) for part in parts] == [{"price"}] * len(parts)
    assert len(parts) >= 2


@pytest.mark.parametrize("band", [(None, None), (None, 700), (300, None), (300, 700), (699, 700)])
@pytest.mark.parametrize("seen", [[5], [700] * 50, [300] * 50, list(range(300, 701)), [300, 700], [1.5, "650", None]])
def test_bands_are_side_by_side_and_make_up_the_whole(band: Band, seen: list[Any]) -> None:
    parts = divide(PROFILE, {**ZIP, "price": band}, 30_000, {"price": seen})
    bands: list[Any] = [part["price"] for part in parts]
    if not bands:
        return
    assert len(bands) >= 2
    assert (bands[0][0], bands[-1][1]) == band
    assert all(before[1] + 1 == after[0] for before, after in pairwise(bands))
    assert all(low is None or high is None or low <= high for low, high in bands)


def test_bands_hold_about_as_many_each() -> None:
    dice = random.Random(7)
    prices = [dice.lognormvariate(15, 0.6) for _ in range(10_000)]
    parts = divide(PROFILE, ZIP, 40_000, {"price": prices})
    held = [sum((low or 0) <= p < (high or 1e12) + 1 for p in prices) for low, high in (p["price"] for p in parts)]  # type: ignore[misc]
    assert len(parts) == 6
    assert max(held) < 1.1 * min(held)


@pytest.mark.parametrize(("band", "seen"), [((5, 5), [5]), ((None, None), []), ((None, None), ["unknown"])])
def test_what_cannot_be_divided(band: Band, seen: list[Any]) -> None:
    assert divide(PROFILE, {**ZIP, "price": band}, 30_000, {"price": seen}) == []


def test_filters_come_back_from_a_row_in_their_order() -> None:
    stored = {"price": [None, 9], "zip_code": "2100", "address_type": "villa", "municipality": "København"}
    assert label(filters_from(stored)) == "villa in København, price up to 9, zip_code 2100"


# --- what a search lacks ---


def query(total: int | None, found: int | None, **said: Any) -> dict[str, Any]:
    standing = {"status": "completed", "reason": None, "error": None, "of_parts": None}
    return {"filters": dict(WHOLE), "total": total, "found": found, **standing, **said}


DIVIDED = query(300, 100, reason="divided", of_parts=290)


@pytest.mark.parametrize(
    ("queries", "found", "said"),
    [
        ([query(40, 40)], 40, []),
        ([query(None, 7)], 7, []),
        ([query(40, 38)], 38, ["found 38 of 40"]),
        ([query(1, 0)], 0, ["found 0 of 1", "nothing found"]),
        ([query(0, 0)], 0, ["nothing found"]),
        ([DIVIDED, query(290, 290)], 300, []),
        ([DIVIDED, query(290, 290)], 290, ["its parts have 290 of 300"]),
        ([DIVIDED, query(290, 280)], 280, ["its parts have 290 of 300", "found 280 of 290"]),
        ([query(40, None, status="failed", error="page 2: away")], 20, [r"not searched to its end \(page 2: away\)"]),
    ],
)
def test_shortfalls_are_told_by_query(queries: list[dict[str, Any]], found: int, said: list[str]) -> None:
    told = shortfalls(queries, found)
    assert len(told) == len(said)
    for sentence, part in zip(told, said, strict=True):
        assert sentence.startswith("villa in København: ")
        assert part.replace("\\", "") in sentence
