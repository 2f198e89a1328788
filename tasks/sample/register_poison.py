"""Answers of the sample register that no loader can take, each wrong in one way; the rest of them is right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Poison(StrEnum):
    """What is wrong with an answer, whenever it is asked for."""

    WRONG_TYPE = "wrong_type"
    """A number as text."""
    WRONG_LIST = "wrong_list"
    """A list that holds no objects."""
    BAD_DATE = "bad_date"
    """The 30th of February."""
    DUPLICATE_KEY = "duplicate_key"
    """The same registration twice, with different amounts."""
    DUPLICATE_NAME = "duplicate_name"
    """A name twice in one JSON object."""
    HUGE_TEXT = "huge_text"
    """A million characters in a name."""
    NAN = "nan"
    """Which is no JSON, though Python writes it."""
    BIG_NUMBER = "big_number"
    """Beyond what a database's number can be."""
    NUL = "nul"
    SURROGATE = "surrogate"
    """Half of a pair, which is no character."""
    TOO_DEEP = "too_deep"
    """Two hundred lists in one another, in a field nobody knows."""
    MISSING_ID = "missing_id"
    OTHER_ID = "other_id"
    """The property next door."""


REASONS: Mapping[Poison, str] = {
    Poison.WRONG_TYPE: "wrong_type",
    Poison.WRONG_LIST: "wrong_type",
    Poison.BAD_DATE: "bad_date",
    Poison.DUPLICATE_KEY: "duplicate_key",
    Poison.DUPLICATE_NAME: "duplicate_key",
    Poison.HUGE_TEXT: "too_large",
    Poison.NAN: "bad_number",
    Poison.BIG_NUMBER: "bad_number",
    Poison.NUL: "bad_text",
    Poison.SURROGATE: "bad_text",
    Poison.TOO_DEEP: "too_deep",
    Poison.MISSING_ID: "missing_field",
    Poison.OTHER_ID: "other_item",
}
"""The reason that must be found for each."""


def poisoned(answer: dict[str, Any], poison: Poison) -> bytes:
    """The body of an answer in the Danish shape, with that wrong."""
    changes: dict[Poison, dict[str, Any]] = {
        Poison.WRONG_TYPE: {"livingArea": "86"},
        Poison.WRONG_LIST: {"buildings": [["1"]]},
        Poison.BAD_DATE: {"registrations": [{"registrationID": 7, "date": "2015-02-30"}]},
        Poison.DUPLICATE_KEY: {"registrations": [{"registrationID": 7, "amount": n} for n in (1, 2)]},
        Poison.HUGE_TEXT: {"roadName": "Vej" * 350_000},
        Poison.NAN: {"weightedArea": float("nan")},
        Poison.BIG_NUMBER: {"latestValuation": 10**400},
        Poison.NUL: {"slug": "vej\0-1"},
        Poison.SURROGATE: {"cityName": "By \ud83d"},
        Poison.TOO_DEEP: {"attachments": _nested(200)},
        Poison.MISSING_ID: {"addressID": None},
        Poison.OTHER_ID: {"addressID": "0a3f50ba-aa33-32b8-e044-0003ba298018"},
    }
    text = json.dumps({**answer, **changes.get(poison, {})})
    if poison is Poison.DUPLICATE_NAME:
        text = '{"roadName": "Anden Vej", ' + text[1:]
    return text.encode()


def _nested(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner
