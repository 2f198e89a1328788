"""Values of a register's answers: what is taken, as which text, and why the rest is not."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.register_readers import reader_of
from tasks.register_tables import Kind
from tasks.register_values import NULL, TEXT_CHARS, Unusable, check_depth, read_json

NAN, INFINITE = math.nan, math.inf


def nested(levels: int) -> Any:
    inner: Any = 1
    for number in range(levels):
        inner = [inner] if number % 2 else {"a": inner}
    return inner


TAKEN = [
    (Kind.CODE, "0a3f-é", "0a3f-é"),
    (Kind.CODE, 4804148, "4804148"),
    (Kind.CODE, "", NULL),
    (Kind.TEXT, "", ""),
    (Kind.TEXT, "Rådhuspladsen 🏛", "Rådhuspladsen 🏛"),
    (Kind.TEXT, "a\\N\tb\r\n", "a\\\\N\\tb\\r\\n"),
    (Kind.TEXT, "x" * TEXT_CHARS, "x" * TEXT_CHARS),
    (Kind.INTEGER, 0, "0"),
    (Kind.INTEGER, -(2**31 - 1), "-2147483647"),
    (Kind.INTEGER, 86.0, "86"),
    (Kind.NUMBER, 86, "86"),
    (Kind.NUMBER, 0.1, "0.1"),
    (Kind.NUMBER, -1.5e-7, "-1.5e-07"),
    (Kind.NUMBER, 1e308, "1e+308"),
    (Kind.MONEY, 8995000, "8995000"),
    (Kind.MONEY, -12.5, "-12.5"),
    (Kind.BOOLEAN, True, "t"),
    (Kind.BOOLEAN, False, "f"),
    (Kind.DATE, "2015-08-27", "2015-08-27"),
    (Kind.DATE, "2016-02-29", "2016-02-29"),
    (Kind.DATE, "2015-08-27T00:00:00Z", "2015-08-27"),
    (Kind.DATE, "2015-08-27T00:00:00.000+02:00", "2015-08-27"),
    (Kind.MOMENT, "2025-03-22", "2025-03-22T00:00:00+00:00"),
    (Kind.MOMENT, "2025-03-22T10:15:30Z", "2025-03-22T10:15:30+00:00"),
    (Kind.MOMENT, "2025-03-22 10:15", "2025-03-22T10:15:00+00:00"),
    (Kind.MOMENT, "2025-03-22T10:15:30.123456789+01:00", "2025-03-22T09:15:30.123456+00:00"),
    (Kind.NUMBERS, [], "{}"),
    (Kind.NUMBERS, [327329, 2**63 - 1], "{327329,9223372036854775807}"),
    (Kind.JSON, [], "[]"),
    (Kind.JSON, {"b": [1, None], "a": "é\\"}, '{"a":"é\\\\\\\\","b":[1,null]}'),
    (Kind.JSON, nested(32), json.dumps(nested(32), separators=(",", ":"))),
    (Kind.JSON, "\\u0000", '"\\\\\\\\u0000"'),
]

REFUSED = [
    (Kind.CODE, True, "wrong_type"),
    (Kind.CODE, 1.5, "wrong_type"),
    (Kind.CODE, ["a"], "wrong_type"),
    (Kind.CODE, "x" * 201, "too_large"),
    (Kind.CODE, "a\0", "bad_text"),
    (Kind.TEXT, 86, "wrong_type"),
    (Kind.TEXT, {"a": 1}, "wrong_type"),
    (Kind.TEXT, "x" * (TEXT_CHARS + 1), "too_large"),
    (Kind.TEXT, "a\0b", "bad_text"),
    (Kind.TEXT, "\ud83d", "bad_text"),
    (Kind.TEXT, "\udc00\ud800", "bad_text"),
    (Kind.INTEGER, "86", "wrong_type"),
    (Kind.INTEGER, True, "wrong_type"),
    (Kind.INTEGER, 86.5, "bad_number"),
    (Kind.INTEGER, 2**31, "bad_number"),
    (Kind.INTEGER, 1e300, "bad_number"),
    (Kind.INTEGER, 10**400, "bad_number"),
    (Kind.INTEGER, NAN, "bad_number"),
    (Kind.NUMBER, "86", "wrong_type"),
    (Kind.NUMBER, False, "wrong_type"),
    (Kind.NUMBER, NAN, "bad_number"),
    (Kind.NUMBER, -INFINITE, "bad_number"),
    (Kind.NUMBER, 10**400, "bad_number"),
    (Kind.MONEY, 1e12, "bad_number"),
    (Kind.MONEY, [1], "wrong_type"),
    (Kind.BOOLEAN, 1, "wrong_type"),
    (Kind.BOOLEAN, "true", "wrong_type"),
    (Kind.DATE, "2015-02-30", "bad_date"),
    (Kind.DATE, "2015-13-01", "bad_date"),
    (Kind.DATE, "2015-2-3", "bad_date"),
    (Kind.DATE, "20150203", "bad_date"),
    (Kind.DATE, "2015-W05-2", "bad_date"),
    (Kind.DATE, "٢٠١٥-٠٢-٠٣", "bad_date"),
    (Kind.DATE, "27/08/2015", "bad_date"),
    (Kind.DATE, "0001-01-01", "bad_date"),
    (Kind.DATE, "", "bad_date"),
    (Kind.DATE, "2015-08-27T10:00:00Z", "bad_date"),
    (Kind.DATE, 1440633600, "wrong_type"),
    (Kind.MOMENT, "0001-01-01T00:00:00Z", "bad_date"),
    (Kind.MOMENT, "2025-03-22T25:00:00Z", "bad_date"),
    (Kind.MOMENT, "yesterday", "bad_date"),
    (Kind.MOMENT, "2025-03-22T10:15:30Z ", "bad_date"),
    (Kind.MOMENT, 5, "wrong_type"),
    (Kind.NUMBERS, 327329, "wrong_type"),
    (Kind.NUMBERS, [1, "2"], "wrong_type"),
    (Kind.NUMBERS, [2**63], "bad_number"),
    (Kind.JSON, [NAN], "bad_number"),
    (Kind.JSON, {"a": "b\0"}, "bad_text"),
    (Kind.JSON, {"\0": 1}, "bad_text"),
    (Kind.JSON, "\\\0", "bad_text"),
    (Kind.JSON, ["\ud800"], "bad_text"),
    (Kind.JSON, nested(34), "too_deep"),
    (Kind.JSON, nested(100_000), "too_deep"),
    (Kind.JSON, ["x" * 1_000_001], "too_large"),
]


def shown(value: Any) -> str:
    return "deep or long" if isinstance(value, list | dict) or len(str(value)) > 40 else repr(value)


@pytest.mark.parametrize(("kind", "value", "text"), TAKEN, ids=lambda value: shown(value))
def test_a_value_becomes_the_text_that_copy_reads(kind: Kind, value: Any, text: str) -> None:
    assert reader_of(kind)(value) == text


@pytest.mark.parametrize(("kind", "value", "reason"), REFUSED, ids=lambda value: shown(value))
def test_what_cannot_be_kept_is_refused_with_its_reason(kind: Kind, value: Any, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        reader_of(kind)(value)
    assert caught.value.reason == reason
    assert 5 < len(str(caught.value)) < 200


def test_every_kind_is_tried() -> None:
    assert {kind for kind, *_ in TAKEN} == {kind for kind, *_ in REFUSED} == set(Kind)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Kind.MONEY, "1,250,000.50", "1250000.5"),
        (Kind.MONEY, " 740000 ", "740000"),
        (Kind.INTEGER, "-7", "-7"),
        (Kind.INTEGER, "86.0", "86"),
        (Kind.NUMBER, "+0.5", "0.5"),
        (Kind.NUMBER, "", NULL),
        (Kind.BOOLEAN, "Y", "t"),
        (Kind.BOOLEAN, "no", "f"),
    ],
)
def test_numbers_and_yes_or_no_may_be_written_as_text(kind: Kind, value: str, text: str) -> None:
    assert reader_of(kind, written="text")(value) == text


@pytest.mark.parametrize("value", ["1,25", "1.2.3", "1e5", "NaN", "12 m2", "0x10", "٣", "1,250,00", 5, None, "9" * 31])
def test_other_writing_is_refused(value: Any) -> None:
    with pytest.raises(Unusable):
        reader_of(Kind.MONEY, written="text")(value)


def test_dates_may_be_written_in_another_way() -> None:
    assert reader_of(Kind.DATE, written="%d/%m/%Y")("27/08/2015") == "2015-08-27"
    assert reader_of(Kind.MOMENT, written="%m/%d/%Y %H:%M")("08/27/2015 09:30") == "2015-08-27T09:30:00+00:00"
    assert reader_of(Kind.MOMENT, written="%Y%m%d %H%M%z")("20150827 0930+0200") == "2015-08-27T07:30:00+00:00"
    for wrong in ("08/27/2015 09:30 ", "2015-08-27", "27/08/1015", "31/02/2015", 5):
        with pytest.raises(Unusable):
            reader_of(Kind.DATE, written="%d/%m/%Y")(wrong)


def test_words_are_translated_and_others_stay() -> None:
    read = reader_of(Kind.TEXT, words={"ACTIVE": "open", "a\\b": "c\td"})
    assert [read("ACTIVE"), read("OTHER"), read("a\tb"), read("a\\b")] == ["open", "OTHER", "a\\tb", "c\\td"]
    with pytest.raises(Unusable):
        read(1)


def unescaped(text: str) -> str:
    """As COPY reads a field of its text format."""
    found, signs = [], iter(text)
    for sign in signs:
        found.append({"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}[next(signs)] if sign == "\\" else sign)
    return "".join(found)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_any_text_is_found_again(text: str) -> None:
    field = reader_of(Kind.TEXT)(text)
    assert unescaped(field) == text
    assert not set(field) & set("\t\n\r")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=7)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def holds_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(holds_nul(part) for pair in value.items() for part in pair)
    return any(map(holds_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


@given(json_values)
def test_any_json_is_found_again_but_for_a_nul(value: Any) -> None:
    if holds_nul(value):
        with pytest.raises(Unusable):
            read_json(value)
    else:
        assert json.loads(unescaped(read_json(value))) == value


@given(st.integers(-11_676_000_000, 7_289_000_000).map(lambda second: datetime.fromtimestamp(second, UTC)))
def test_any_moment_is_found_again(moment: datetime) -> None:
    assert datetime.fromisoformat(reader_of(Kind.MOMENT)(moment.isoformat())) == moment


def test_depth_is_counted_in_lists_and_objects() -> None:
    check_depth(nested(5), levels=4)
    with pytest.raises(Unusable):
        check_depth(nested(6), levels=4)
