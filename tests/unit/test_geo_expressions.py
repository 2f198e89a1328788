"""Expressions: against a slow reference, against SQLite for the three-valued logic, and their mistakes."""

from __future__ import annotations

import datetime as dt
import math
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import TerminalError
from tasks.geo.expression_syntax import MAX_LENGTH, parsed
from tasks.geo.expressions import ExpressionProblem, compiled

COLUMNS = {
    "i": (pa.int32(), st.none() | st.integers(-50, 50)),
    "n": (pa.float64(), st.none() | st.sampled_from([0.0, 0.5, -2.25, 1e3, 7.0, math.nan])),
    "t": (pa.string(), st.none() | st.text("ab%_ Ž'", max_size=4)),
    "b": (pa.bool_(), st.none() | st.booleans()),
    "d": (pa.date32(), st.none() | st.dates(dt.date(1950, 1, 1), dt.date(2050, 1, 1))),
}
SCHEMA = pa.schema([(name, type_) for name, (type_, _) in COLUMNS.items()])
ROWS = st.lists(st.fixed_dictionaries({name: values for name, (_, values) in COLUMNS.items()}), max_size=6)
Row = dict[str, Any]


@dataclass
class Made:
    """An expression as text, and what it means for one row."""

    text: str
    of: Callable[[Row], Any]


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def strict(run: Callable[..., Any]) -> Callable[..., Any]:
    """Null where anything given is null."""
    return lambda *given: None if None in given else run(*given)


def call(shape: str, run: Callable[..., Any], *parts: Made) -> Made:
    return Made("(" + shape.format(*(p.text for p in parts)) + ")", lambda row: run(*(p.of(row) for p in parts)))


def known(name: str) -> Made:
    return Made(name, lambda row: finite(row[name]) if name == "n" else row[name])


def both(left: bool | None, right: bool | None) -> bool | None:
    return False if False in (left, right) else None if None in (left, right) else True


def either(left: bool | None, right: bool | None) -> bool | None:
    return True if True in (left, right) else None if None in (left, right) else False


def remainder(left: int, right: int) -> int | None:
    return None if right == 0 else int(math.fmod(left, right))


def divided(left: float, right: float) -> float | None:
    return None if right == 0 else finite(left / right)


def like(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(like(text[k:], pattern[1:]) for k in range(len(text) + 1))
    return bool(text) and pattern[0] in ("_", text[0]) and like(text[1:], pattern[1:])


def compared(kind: st.SearchStrategy[Made]) -> st.SearchStrategy[Made]:
    import operator as o

    signs = {"=": o.eq, "<>": o.ne, "<": o.lt, "<=": o.le, ">": o.gt, ">=": o.ge, "==": o.eq, "!=": o.ne}
    return st.builds(
        lambda s, a, b: call(f"{{}} {s} {{}}", strict(signs[s]), a, b), st.sampled_from(list(signs)), kind, kind
    )


def chosen(kind: st.SearchStrategy[Made], tests: st.SearchStrategy[Made]) -> st.SearchStrategy[Made]:
    case = st.builds(
        lambda c, a, b: call("case when {} then {} else {} end", lambda c, a, b: a if c is True else b, c, a, b),
        tests,
        kind,
        kind,
    )
    first = st.builds(lambda a, b: call("coalesce({}, {})", lambda a, b: b if a is None else a, a, b), kind, kind)
    null = st.builds(
        lambda a, b: call("nullif({}, {})", lambda a, b: None if a is not None and a == b else a, a, b), kind, kind
    )
    return case | first | null


@cache
def integers(depth: int) -> st.SearchStrategy[Made]:
    leaf = st.just(known("i")) | st.integers(-9, 9).map(lambda v: Made(str(v), lambda _: v))
    if not depth:
        return leaf | st.just(call("year({})", strict(lambda d: d.year), known("d")))
    own, text, logical = integers(depth - 1), texts(depth - 1), logicals(depth - 1)
    signs = {"+": int.__add__, "-": int.__sub__, "%": remainder}
    return st.one_of(
        leaf,
        st.builds(lambda s, a, b: call(f"{{}} {s} {{}}", strict(signs[s]), a, b), st.sampled_from("+-%"), own, own),
        text.map(lambda a: call("length({})", strict(len), a)),
        own.map(lambda a: call("abs({})", strict(abs), a)),
        text.map(lambda a: call("try_cast({} as integer)", strict(as_integer), a)),
        chosen(own, logical),
    )


@cache
def numbers(depth: int) -> st.SearchStrategy[Made]:
    leaf = st.just(known("n")) | st.sampled_from([0.0, 0.5, 2.0, 1e200]).map(lambda v: Made(repr(v), lambda _: v))
    if not depth:
        return leaf
    own = numbers(depth - 1)
    return st.one_of(
        leaf,
        st.builds(lambda a, b: call("{} / {}", strict(divided), a, b), own, integers(depth - 1)),
        st.builds(lambda a, b: call("{} * {}", strict(lambda x, y: finite(x * y)), a, b), own, own),
        own.map(lambda a: call("-{}", strict(lambda v: -v), a)),
        chosen(own, logicals(depth - 1)),
    )


@cache
def texts(depth: int) -> st.SearchStrategy[Made]:
    written = st.text("ab' Ž7", max_size=3).map(lambda v: Made("'" + v.replace("'", "''") + "'", lambda _: v))
    if not depth:
        return st.just(known("t")) | written
    own = texts(depth - 1)
    return st.one_of(
        written,
        st.builds(lambda a, b: call("{} || {}", strict(str.__add__), a, b), own, own),
        st.builds(lambda a, b: call("concat({}, {})", lambda a, b: (a or "") + (b or ""), a, b), own, own),
        own.map(lambda a: call("upper({})", strict(str.upper), a)),
        own.map(lambda a: call("substr({}, 2, 2)", strict(lambda v: v[1:3]), a)),
        own.map(lambda a: call("right({}, 2)", strict(lambda v: v[-2:]), a)),
        own.map(lambda a: call("replace({}, 'a', 'bb')", strict(lambda v: v.replace("a", "bb")), a)),
        own.map(lambda a: call("split_part({}, 'b', 2)", strict(lambda v: [*v.split("b"), ""][1]), a)),
        integers(depth - 1).map(lambda a: call("cast({} as text)", strict(str), a)),
        chosen(own, logicals(depth - 1)),
    )


@cache
def logicals(depth: int) -> st.SearchStrategy[Made]:
    words = {"true": True, "false": False, "null": None}
    leaf = st.just(known("b")) | st.sampled_from(list(words)).map(lambda w: Made(w, lambda _: words[w]))
    if not depth:
        date = dt.date(2000, 2, 29)
        return leaf | st.just(call("d >= '2000-02-29'", strict(lambda d: d >= date), known("d")))
    own, whole, text = logicals(depth - 1), integers(depth - 1), texts(depth - 1)
    return st.one_of(
        leaf,
        compared(whole),
        compared(numbers(depth - 1)),
        compared(text),
        st.builds(lambda a, b: call("{} and {}", both, a, b), own, own),
        st.builds(lambda a, b: call("{} or {}", either, a, b), own, own),
        own.map(lambda a: call("not {}", strict(lambda v: not v), a)),
        text.map(lambda a: call("{} is null", lambda v: v is None, a)),
        whole.map(lambda a: call("{} is not null", lambda v: v is not None, a)),
        whole.map(lambda a: call("{} in (1, 2, null)", strict(lambda v: True if v in (1, 2) else None), a)),
        text.map(lambda a: call("{} not in ('a', 'b')", strict(lambda v: v not in ("a", "b")), a)),
        st.builds(
            lambda a, p: call(f"{{}} like '{p}'", strict(lambda v: like(v, p)), a), text, st.text("ab%_", max_size=4)
        ),
    )


def as_integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\s*[-+]?[0-9]+\s*", text) else None


EXPRESSIONS = st.one_of(*(kind(depth) for kind in (integers, numbers, texts, logicals) for depth in (1, 3)))


def run(text: str, rows: list[Row]) -> list[Any]:
    arrays = {name: pa.array([row[name] for row in rows], type_) for name, (type_, _) in COLUMNS.items()}
    expression = compiled(text, SCHEMA)
    result = expression(arrays, len(rows))
    assert result.type == expression.type
    assert len(result) == len(rows)
    return result.to_pylist()


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-12)
    return bool(left == right) and (left is None) == (right is None)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EXPRESSIONS, ROWS)
def test_every_row_has_the_value_of_the_slow_reference(made: Made, rows: list[Row]) -> None:
    try:
        found = run(made.text, rows)
    except ExpressionProblem as exc:  # null alone has no type
        assert made.text == "null", exc  # noqa: PT017
        return
    expected = [made.of(row) for row in rows]
    assert all(map(same, found, expected)), f"{made.text}\n{rows}\n{found}\n{expected}"


LOGIC = [
    "a and b", "a or b", "not a", "a = b", "a <> b", "x < y", "x in (1, 2)", "x not in (1, null)", "x in (1, null)",
    "x between y and 2", "x not between 1 and y", "case when a then x when b then y end", "coalesce(x, y, 3)",
    "nullif(x, y)", "a is null or b is not null", "not (a and b) or x > y", "x % 2 = 0 and a", "x + y", "x - y * 2",
    "case x when 1 then 'one' when y then 'y' else 'other' end", "-x < y", "(a or null) and b", "x = null",
]  # fmt: skip


@pytest.mark.parametrize("text", LOGIC)
def test_three_valued_logic_is_that_of_sql(text: str) -> None:
    rows = list(product([True, False, None], [True, False, None], [1, 2, None], [0, 1, None]))
    database = sqlite3.connect(":memory:")
    database.execute("create table t (a, b, x, y)")
    database.executemany("insert into t values (?, ?, ?, ?)", rows)
    expected = [value for (value,) in database.execute(f"select {text} from t order by rowid")]
    database.close()
    schema = pa.schema([("a", pa.bool_()), ("b", pa.bool_()), ("x", pa.int64()), ("y", pa.int64())])
    arrays = {name: pa.array([row[k] for row in rows], schema.field(k).type) for k, name in enumerate(schema.names)}
    assert compiled(text, schema)(arrays, len(rows)).to_pylist() == expected


SAID = [
    ("i = t", "i (integer) and t (text) do not go together (character 3); cast one, as in cast(i as text)."),
    ("i + t", "t (text) at character 5 is no number; texts are joined with ||."),
    ("b and i", "i (integer) at character 7 stands where boolean is wanted; compare it with a value."),
    ("b < b", "true and false have no order (character 3); compare them with = or <>."),
    ("upper(i)", "i (integer) at character 7 stands where text is wanted; write cast(... as text) around it."),
    ("case when b then 1 else 'x' end", "1 (integer) and 'x' (text) do not go together (character 1)"),
    ("I + 1", "there is no column 'I' (character 1); did you mean 'i'?"),
    ("uper(t)", "there is no function 'uper' (character 1); did you mean 'upper'?"),
    ("cast(t as integr)", "there is no type 'integr' (character 1); did you mean 'integer'?"),
    ("cast(d as integer)", "d (date) at character 1 cannot become integer"),
    ("d > 'soon'", "'soon' at character 5 is no date; write it as '2024-12-31'."),
    ("date '2024-02-30'", "'2024-02-30' at character 6 is no date; write 2024-12-31."),
    ("1 < i < 3", "a < b and b < c"),
    ("i +", "the expression ends at character 4 where a value is wanted"),
    ("(i", "the expression ends at character 3 where ) is wanted"),
    ("i t", "t stands at character 3 where a sign such as =, + or and is wanted"),
    ("'abc", "the ' at character 1 is not closed"),
    ("i ; t", "';' at character 3 has no meaning here"),
    ("5x", "no number; put a name that begins with a digit in double quotes"),
    ("in = 1", 'a column of that name is written "in"'),
    ("null", "it is always null, of no type"),
    ("i in (n)", "the list after in (character 3) has to hold constants"),
    ("t like t", "the pattern of like (character 3) has to be a text"),
    ("matches(t, '[')", "matches at character 1 cannot work: Invalid regular expression"),
    ("replace(t, '', 'x')", "the text to replace is empty"),
    ("substr(t, i)", "i (integer) at character 11 stands where a whole number has to be written out"),
    ("round()", "round at character 1 takes 1 to 2 values, not 0"),
    ("9223372036854775808", "is too large"),
    ("1e999", "is too large"),
    ("__import__('os')", "there is no function '__import__'"),
    ("t.__class__", "'.' at character 2 has no meaning here"),
    ("", "the expression ends at character 1 where a value is wanted"),
]


@pytest.mark.parametrize(("text", "said"), SAID)
def test_what_is_said_of_a_wrong_expression(text: str, said: str) -> None:
    with pytest.raises(ExpressionProblem) as caught:
        compiled(text, SCHEMA)
    assert said in str(caught.value)
    assert str(caught.value).endswith(".")


DEEP = [
    "(" * 50 + "i" + ")" * 50,
    "not " * 50 + "b",
    "- " * 50 + "i",
    "+".join("i" * 50),
    "coalesce(" * 50 + "i" + ")" * 50,
]


@pytest.mark.parametrize("text", [*DEEP, "(" * 4000, "case when " * 900, "i in (" * 1500], ids=lambda t: t[:9])
def test_deep_expressions_are_refused_not_run_out_of_stack(text: str) -> None:
    with pytest.raises(ExpressionProblem, match="it has more than 40 levels"):
        parsed(text)


def test_long_expressions_are_refused_and_wide_ones_run() -> None:
    with pytest.raises(ExpressionProblem, match=r"it is 10,001 characters long; 10,000 are allowed"):
        parsed("1" * (MAX_LENGTH + 1))
    row = {"i": 1, "n": None, "t": None, "b": None, "d": None}
    assert run(" or ".join(["b"] * 1000 + ["i = 1"]), [row]) == [True]


@settings(max_examples=200, deadline=None)
@given(st.text("it'\"()+-*/%<>=!|,. 019eE\nŽ€\x00_", max_size=30))
def test_any_text_is_an_expression_or_a_problem(text: str) -> None:
    try:
        compiled(text, SCHEMA)
    except ExpressionProblem as exc:
        assert str(exc).endswith(".")  # noqa: PT017


def test_a_branch_that_is_not_taken_cannot_fail() -> None:
    rows = [{"i": 1, "n": None, "t": t, "b": None, "d": None} for t in ("12", "x", None)]
    assert run("case when matches(t, '^[0-9]+$') then cast(t as integer) else -1 end", rows) == [12, -1, -1]
    assert run("coalesce(i, cast(t as integer))", rows) == [1, 1, 1]
    with pytest.raises(TerminalError, match="'x' is no integer; correct the value") as caught:
        run("cast(t as integer)", rows)
    assert caught.value.reason == "bad_number"
    with pytest.raises(TerminalError, match="overflow"):
        run("i + 9223372036854775807", rows)


def test_text_that_grows_without_end_is_stopped() -> None:
    rows = [{"i": 1, "n": None, "t": "a" * 1000, "b": None, "d": None}] * 6
    text = "t"
    for _ in range(8):
        text = f"replace({text}, 'a', 'aaaaaaaaaa')"
    with pytest.raises(TerminalError, match="more than 256 MiB of text") as caught:
        run(text, rows)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize(
    "text",
    [
        "concat(" + ", ".join(["lpad('', 10000)"] * 500) + ")",
        "replace(lpad('', 10000), ' ', '" + "a" * 9000 + "')",
        "concat(" + ", ".join(["lpad(t, 10000)"] * 600) + ")",
        "replace(lpad('', 10000), ' ', '" + "a" * 100 + "') || t",
    ],
    ids=lambda text: text[:18],
)
def test_nor_does_text_that_is_written_out(text: str) -> None:
    rows = [{"i": 1, "n": None, "t": "a", "b": None, "d": None}] * 2000
    with pytest.raises(TerminalError, match="more than 256 MiB of text"):
        run(text, rows)


@pytest.mark.parametrize(
    "level", ["case {} when 1 then 1 when 2 then 2 end", "case when {} between 0 and 1 then 1 end"]
)
def test_parts_that_multiply_are_refused(level: str) -> None:
    text = "i"
    for _ in range(15):
        text = level.format(text)
    with pytest.raises(ExpressionProblem, match="it comes to more than 10,000 parts; divide it"):
        compiled(text, SCHEMA)


def test_integers_are_rounded_to_tens_too() -> None:
    rows = [{"i": i, "n": None, "t": None, "b": None, "d": None} for i in (125, -125, None)]
    assert run("round(i, -1)", rows) == [130, -130, None]
    assert run("round(i, 1)", rows) == [125, -125, None]


def test_columns_of_every_width_and_zone_are_taken() -> None:
    moment = dt.datetime(2024, 1, 2, 23, 30, tzinfo=dt.timezone(dt.timedelta(hours=-5)))
    arrays = {
        "small": pa.array([1, None], pa.uint8()),
        "money": pa.array(["1.50", None]).cast(pa.decimal128(10, 2)),
        "kind": pa.array(["a", None]).dictionary_encode(),
        "seen": pa.array([moment, None], pa.timestamp("ns", "America/New_York")),
        "raw bytes": pa.array([b"x", None]),
    }
    schema = pa.schema([(name, array.type) for name, array in arrays.items()])
    for text, expected in {
        "small * 300": [300, None],
        "money / small": [1.5, None],
        "kind || '!'": ["a!", None],
        "seen > '2024-01-03'": [True, None],
        "cast(seen as date)": [dt.date(2024, 1, 3), None],
        '"raw bytes" is null': [False, True],
        '"raw bytes"': [b"x", None],
    }.items():
        assert compiled(text, schema)(arrays, 2).to_pylist() == expected, text
