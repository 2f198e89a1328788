"""Values of a register's answers, checked strictly and written as COPY reads them: texts, numbers, JSON.

Each reader takes one JSON value that is not null and returns the text of a field of COPY's text format, or raises
Unusable. So a value is looked at once: what comes out is what is hashed, compared and sent to the database.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from tasks.records import Reason

NULL = "\\N"

CODE_CHARS = 200
"""Codes are keys: an entry of a B-tree index holds some 2,700 bytes."""

TEXT_CHARS = 100_000
JSON_CHARS = 1_000_000
JSON_LEVELS = 32
INTEGER_MAX = 2**31 - 1
BIG_MAX = 2**63 - 1
MONEY_MAX = 1e12
Reader = Callable[[Any], str]


class Unusable(Exception):
    """A value that cannot be kept: a typed reason, and what is wrong with it in words that follow its name.

    inside  where it is, within what the caller looked at
    """

    inside = ""

    def __init__(self, reason: Reason, said: str) -> None:
        super().__init__(said)
        self.reason = reason


# --- text ---

_SPECIAL = re.compile("[\\\\\t\n\r\0\ud800-\udfff]").search
_UNSTORABLE = re.compile("[\0\ud800-\udfff]").search
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _escaped(text: str) -> str:
    if _SPECIAL(text) is None:
        return text
    found = _UNSTORABLE(text)
    if found:
        what = "a NUL" if found[0] == "\0" else "half of a surrogate pair"
        raise Unusable(Reason.BAD_TEXT, f"holds {what}")
    return text.translate(_ESCAPES)


def read_text(value: Any) -> str:
    """At most 100,000 characters that Postgres can hold."""
    if type(value) is not str:
        raise Unusable(Reason.WRONG_TYPE, f"is {said_type(value)}, not text")
    if len(value) > TEXT_CHARS:
        raise Unusable(Reason.TOO_LARGE, f"has {len(value):,} characters; {TEXT_CHARS:,} are the most")
    return _escaped(value)


def read_code(value: Any) -> str:
    """A text or a whole number; an empty text counts as absent."""
    if type(value) is int and abs(value) <= BIG_MAX:
        return str(value)
    if type(value) is not str:
        raise Unusable(Reason.WRONG_TYPE, f"is {said_type(value)}, not a code")
    if len(value) > CODE_CHARS:
        raise Unusable(Reason.TOO_LARGE, f"has {len(value):,} characters; a code has at most {CODE_CHARS}")
    return _escaped(value) or NULL


# --- numbers ---


def read_integer(value: Any, most: int = INTEGER_MAX) -> str:
    """A whole number, also one written 86.0; at most `most`, which is what an `integer` holds."""
    if type(value) is float and value.is_integer():  # some serializers write 86.0
        value = int(value)
    if type(value) is not int:
        raise Unusable(*_no_number(value, "a whole number"))
    if not -most <= value <= most:
        raise Unusable(Reason.BAD_NUMBER, f"is {_shown(value)}, beyond {most:,}")
    return str(value)


def read_number(value: Any) -> str:
    """A finite number."""
    kind = type(value)
    if (kind is int and abs(value) <= BIG_MAX) or (kind is float and math.isfinite(value)):
        return repr(value)
    raise Unusable(*_no_number(value, "a number"))


def read_money(value: Any) -> str:
    """A number below 10^12."""
    said = read_number(value)
    if abs(value) >= MONEY_MAX:
        raise Unusable(Reason.BAD_NUMBER, f"is {_shown(value)}, more than an amount can be")
    return said


def _no_number(value: Any, wanted: str) -> tuple[Reason, str]:
    if type(value) in (int, float):
        return Reason.BAD_NUMBER, f"is {_shown(value)}, not {wanted} that can be kept"
    return Reason.WRONG_TYPE, f"is {said_type(value)}, not {wanted}"


def _shown(value: Any) -> str:
    return f"{value:g}" if type(value) is float or abs(value) < 1e300 else "a number of hundreds of digits"


def read_boolean(value: Any) -> str:
    """true or false, and no other word for it."""
    if type(value) is not bool:
        raise Unusable(Reason.WRONG_TYPE, f"is {said_type(value)}, not true or false")
    return "t" if value else "f"


def read_numbers(value: Any) -> str:
    """A list of whole numbers, as an array."""
    if type(value) is not list:
        raise Unusable(Reason.WRONG_TYPE, f"is {said_type(value)}, not a list")
    return "{" + ",".join([read_integer(item, BIG_MAX) for item in value]) + "}"


# --- JSON ---

_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000").search


def read_json(value: Any) -> str:
    """Any JSON value as jsonb takes it. Names of an object are sorted: their order says nothing."""
    check_depth(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except ValueError:
        raise Unusable(Reason.BAD_NUMBER, "holds NaN or infinity") from None
    if len(text) > JSON_CHARS:
        raise Unusable(Reason.TOO_LARGE, f"has {len(text):,} characters; {JSON_CHARS:,} are the most")
    if "\\u0000" in text and _NUL_IN_JSON(text):
        raise Unusable(Reason.BAD_TEXT, "holds a NUL")
    return _escaped(text)


def check_depth(value: Any, levels: int = JSON_LEVELS) -> None:
    """Raises Unusable for a value nested deeper than `levels`, so that nothing that recurses has to give up."""
    if levels < 0:
        raise Unusable(Reason.TOO_DEEP, f"is nested deeper than {JSON_LEVELS} levels")
    if type(value) in (dict, list):
        for item in value.values() if type(value) is dict else value:
            if type(item) in (dict, list):
                check_depth(item, levels - 1)


_NAMES = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "an object"}


def said_type(value: Any) -> str:
    """What a value is, in words."""
    return _NAMES.get(type(value), f"of type {type(value).__name__}")
