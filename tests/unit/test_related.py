"""Related items: every spelling seen in an index, and the texts that are none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.related import related_items, related_items_json

REFERENCES = [
    ("945431 bk:4140/753", [("945431", 4140, 753)]),
    ("945431 bk:4140/753; 945432 bk:4140/760", [("945431", 4140, 753), ("945432", 4140, 760)]),
    ("945431 bk:4140/753, 945432 bk:4140/760", [("945431", 4140, 753), ("945432", 4140, 760)]),
    ("945431 bk:4140/753\r\n945432 bk:4140/760\n", [("945431", 4140, 753), ("945432", 4140, 760)]),
    ("945431 bk:4140/753 945432 bk:4140/760", [("945431", 4140, 753), ("945432", 4140, 760)]),
    ("945431bk:4140/753", [("945431", 4140, 753)]),
    ("945431 BK: 4140 / 753", [("945431", 4140, 753)]),
    ("945431 BK. 4140 PG. 753", [("945431", 4140, 753)]),
    ("Book: 4140 Page: 753", [(None, 4140, 753)]),
    ("Book 4140, Page 753", [(None, 4140, 753)]),
    ("bk:4140-753", [(None, 4140, 753)]),
    ("bk:4140/pg 753", [(None, 4140, 753)]),
    ("4140/753", [(None, 4140, 753)]),
    ("945431 4140/753", [("945431", 4140, 753)]),
    ("2003-00123 BK 12 P 3", [("2003-00123", 12, 3)]),
    ("945431", [("945431", None, None)]),
    ("A-123456 945432", [("A-123456", None, None), ("945432", None, None)]),
    ("945431 bk:4140/", [("945431", 4140, None)]),
    ("945431 bk:/753", [("945431", None, 753)]),
    ("945431 bk:0/0", [("945431", None, None)]),
    ("0 bk:12/3", [(None, 12, 3)]),
    ("000945431 bk:0000000000000471/0012", [("000945431", 471, 12)]),
    ("", []),
    (" ;, \n", []),
]

NO_REFERENCES = [
    "SEE PLAT CABINET",
    "see 12/31/1999",
    "bookkeeping 5",
    "bk:0/0",
    "945431 bk:99999999999/1",
    f"{'1' * 50}/3",
    "é \N{WAVING HAND SIGN}",
]


@pytest.mark.parametrize(("text", "expected"), REFERENCES)
def test_references(text: str, expected: list[tuple[str | None, int | None, int | None]]) -> None:
    items = related_items(text)
    assert [(item.instrument_number, item.book, item.page) for item in items] == expected
    assert all(item.raw is None and not item.exists_in_db and item.target_id is None for item in items)


@pytest.mark.parametrize("text", NO_REFERENCES)
def test_what_is_no_reference_is_kept_as_it_stands(text: str) -> None:
    (item,) = related_items(text)
    assert item.raw == text
    assert (item.instrument_number, item.book, item.page) == (None, None, None)


def test_words_around_a_reference_are_kept_beside_it() -> None:
    items = related_items("REL OF 945431 bk:4140/753 (PARTIAL)")
    assert [item.raw or item.page for item in items] == ["REL OF", 753, "(PARTIAL)"]


def test_a_lettered_book_is_not_taken_for_a_number() -> None:
    items = related_items("945431 bk:4140A/753")
    assert [(item.instrument_number, item.book, item.raw) for item in items] == [
        ("945431", None, None),
        (None, None, "4140A/753"),
    ]


def test_json_has_the_keys_the_table_promises() -> None:
    reference, junk = json.loads(related_items_json("945431 bk:4140/753; é"))
    assert reference == {
        "instrument_number": "945431",
        "book": 4140,
        "page": 753,
        "exists_in_db": False,
        "target_id": None,
    }
    assert junk["raw"] == "é"


@given(st.text(alphabet="0123456789 bkpg:/-;,A\n", max_size=60))
def test_no_digit_is_dropped(text: str) -> None:
    """Whatever stands there comes back as a number or as raw text; only zeros may go ("not known")."""
    kept = "".join(f"{i.instrument_number or ''}{i.book or ''}{i.page or ''}{i.raw or ''}" for i in related_items(text))
    assert _digits(kept) == _digits(text)


def _digits(text: str) -> list[str]:
    return sorted(sign for sign in text if sign in "123456789")


@pytest.mark.parametrize("piece", ["9", "9 ", "bk ", "A-", "9/", "bk 9 ,", "9 bk "])
def test_hostile_texts_take_no_time(piece: str) -> None:
    """A field may hold 128 KB; an expression that backtracks would not come back from that."""
    related_items(piece * (131_072 // len(piece)))
