"""The functions of expressions. All but concat and coalesce give null where a value they are given is null.

    abs(n) round(n[, digits]) floor(n) ceil(n) sqrt(n) exp(n) ln(n) log10(n) power(n, n)
    upper(t) lower(t) trim(t) ltrim(t) rtrim(t) length(t) substr(t, start[, count]) left(t, count) right(t, count)
    replace(t, old, new) starts_with(t, t) ends_with(t, t) contains(t, t) matches(t, regex)
    regexp_replace(t, regex, new) split_part(t, separator, index) lpad(t, width[, fill]) rpad(t, width[, fill])
    year(d) month(d) day(d)
    coalesce(a, ...) nullif(a, b) least(a, ...) greatest(a, ...) concat(a, ...)

Regular expressions are RE2's (no backtracking, so no text takes exponential time). What has no finite number as its
result is null: sqrt(-1), ln(0), power(0, -1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import TerminalError
from tasks.geo.casting import Kind, finite
from tasks.geo.nodes import BATCH_ROWS
from tasks.records import Reason

MAX_COUNT = 10_000
"""Of characters that lpad and rpad make, and of parts that split_part counts, at most."""

MAX_TEXT_BYTES = 256 << 20
"""Text that one operation makes of one batch at most: nested replacements would grow without end."""


@dataclass(frozen=True)
class Function:
    """One function.

    takes     for each argument "number", "numeric" (an integer stays one), "text" or "moment"; with ! behind it the
              argument has to be written out, and comes to `run` as a Python value; with ? it may be left out
    gives     None: what the first argument is
    run       on arrays of Arrow; further arguments may be scalars
    fallible  whether a value may make it fail: an untaken branch of CASE must not run it
    """

    takes: tuple[str, ...]
    gives: Kind | None
    run: Callable[..., Any]
    fallible: bool = False


def roomy(size_bytes: int) -> None:
    """Raises TerminalError when one operation would make that much text."""
    if size_bytes > MAX_TEXT_BYTES:
        message = f"An expression makes more than {MAX_TEXT_BYTES >> 20} MiB of text of one batch; shorten its texts."
        raise TerminalError(Reason.TOO_LARGE, message)


def joined(texts: Iterable[Any], *, skip_nulls: bool) -> Any:
    """Texts end to end. null_handling="skip" loses rows where all are null (Arrow 26), so nulls are replaced."""
    parts: list[Any] = []
    size_bytes = 0
    for text in texts:
        parts.append(text)
        size_bytes += text_bytes(text)
        roomy(size_bytes)
    handling = "replace" if skip_nulls else "emit_null"
    return pc.binary_join_element_wise(*parts, "", null_handling=handling, null_replacement="")


def text_bytes(datum: Any) -> int:
    """Of an array; of a scalar for every row of a batch, which it may come to stand in."""
    if isinstance(datum, pa.Array):
        return int(datum.nbytes)
    text = datum.as_buffer() if isinstance(datum, pa.StringScalar) else None
    return text.size * BATCH_ROWS if text is not None else 0


def _numbers(run: Callable[..., Any], count: int = 1) -> Function:
    return Function(("number",) * count, Kind.NUMBER, lambda *given: finite(run(*given)))


def _texts(run: Callable[..., Any], *further: str, gives: Kind = Kind.TEXT, fallible: bool = False) -> Function:
    return Function(("text", *further), gives, run, fallible)


def _moment(run: Callable[..., Any]) -> Function:
    return Function(("moment",), Kind.INTEGER, run)


def _rounded(value: Any, digits: int = 0) -> Any:
    if pa.types.is_integer(value.type):
        return value if digits >= 0 else pc.cast(pc.round(value, digits, "half_towards_infinity"), value.type)
    return finite(pc.round(value, ndigits=max(-300, min(300, digits)), round_mode="half_towards_infinity"))


def _part(text: Any, start: int, count: int | None = None) -> Any:
    first = max(start, 1) - 1
    return pc.utf8_slice_codeunits(text, first, stop=None if count is None else max(start - 1 + max(count, 0), first))


def _left(text: Any, count: int) -> Any:
    return pc.utf8_slice_codeunits(text, 0, stop=max(count, 0))


def _right(text: Any, count: int) -> Any:
    return _left(text, 0) if count <= 0 else pc.utf8_slice_codeunits(text, -count)


def _piece(text: Any, separator: str, index: int) -> Any:
    """The part at that index, from 1; an empty text where there are fewer."""
    _wanted(bool(separator), "the separator is empty; write one")
    _wanted(1 <= index <= MAX_COUNT, f"the index has to be from 1 to {MAX_COUNT:,}")
    return pc.binary_join(pc.list_slice(pc.split_pattern(text, pattern=separator), index - 1, index), "")


def _replaced(text: Any, old: str, new: str) -> Any:
    _wanted(bool(old), "the text to replace is empty; write one")  # Arrow 26 never ends on it
    roomy(text.nbytes + (pc.sum(pc.count_substring(text, pattern=old)).as_py() or 0) * len(new.encode()))
    return pc.replace_substring(text, pattern=old, replacement=new)


def _rewritten(text: Any, regex: str, new: str) -> Any:
    found = pc.sum(pc.count_substring_regex(text, pattern=regex)).as_py() or 0
    roomy(text.nbytes * (1 + new.count("\\")) + found * len(new.encode()))
    return pc.replace_substring_regex(text, pattern=regex, replacement=new)


def _padded(run: Callable[..., Any]) -> Callable[..., Any]:
    def padded(text: Any, width: int, fill: str = " ") -> Any:
        _wanted(0 <= width <= MAX_COUNT, f"the width has to be from 0 to {MAX_COUNT:,}")
        _wanted(len(fill) == 1, "the fill has to be one character")
        roomy(text.nbytes + len(text) * width * len(fill.encode()))
        return run(_left(text, width), width=width, padding=fill)

    return padded


def _wanted(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise pa.ArrowInvalid(otherwise)


def _logic(run: Callable[..., Any]) -> Function:
    return _texts(lambda text, other: run(text, pattern=other), "text!", gives=Kind.BOOLEAN)


FUNCTIONS: dict[str, Function] = {
    "abs": Function(("numeric",), None, pc.abs_checked, fallible=True),
    "round": Function(("numeric", "integer!?"), None, _rounded, fallible=True),
    "floor": _numbers(pc.floor),
    "ceil": _numbers(pc.ceil),
    "sqrt": _numbers(pc.sqrt),
    "exp": _numbers(pc.exp),
    "ln": _numbers(pc.ln),
    "log10": _numbers(pc.log10),
    "power": _numbers(pc.power, 2),
    "upper": _texts(pc.utf8_upper),
    "lower": _texts(pc.utf8_lower),
    "trim": _texts(pc.utf8_trim_whitespace),
    "ltrim": _texts(pc.utf8_ltrim_whitespace),
    "rtrim": _texts(pc.utf8_rtrim_whitespace),
    "length": _texts(lambda text: pc.cast(pc.utf8_length(text), pa.int64()), gives=Kind.INTEGER),
    "substr": _texts(_part, "integer!", "integer!?"),
    "left": _texts(_left, "integer!"),
    "right": _texts(_right, "integer!"),
    "replace": _texts(_replaced, "text!", "text!", fallible=True),
    "starts_with": _logic(pc.starts_with),
    "ends_with": _logic(pc.ends_with),
    "contains": _logic(pc.match_substring),
    "matches": _logic(pc.match_substring_regex),
    "regexp_replace": _texts(_rewritten, "text!", "text!", fallible=True),
    "split_part": _texts(_piece, "text!", "integer!"),
    "lpad": _texts(_padded(pc.utf8_lpad), "integer!", "text!?", fallible=True),
    "rpad": _texts(_padded(pc.utf8_rpad), "integer!", "text!?", fallible=True),
    "year": _moment(pc.year),
    "month": _moment(pc.month),
    "day": _moment(pc.day),
}
UNIFIED = ("coalesce", "nullif", "least", "greatest", "concat")
"""Whose arguments are of one kind (concat: of any)."""
