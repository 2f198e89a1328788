"""The kinds of values that expressions know, and how one becomes another. Follows PostgreSQL's casts.

Columns are taken as the nearest kind: every width of integer as 64 bits, floats and decimals as 64-bit floats, moments
with a time zone as UTC. A float that is no finite number counts as null.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.errors import TerminalError
from tasks.records import Reason


class Kind(StrEnum):
    """Of values in expressions."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    DATE = "date"
    TIMESTAMP = "timestamp"
    NOTHING = "null"
    """Of null itself, which goes with every other kind."""
    OTHER = "other"
    """Bytes, lists, maps: may be passed on, and asked whether they are null."""


ARROW: dict[Kind, pa.DataType] = {
    Kind.BOOLEAN: pa.bool_(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.TEXT: pa.string(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.NOTHING: pa.null(),
}
NAMES = {
    **{str(kind): kind for kind in ARROW if kind is not Kind.NOTHING},
    **dict.fromkeys(("int", "bigint"), Kind.INTEGER),
    **dict.fromkeys(("float", "double"), Kind.NUMBER),
    **dict.fromkeys(("string", "varchar"), Kind.TEXT),
    "bool": Kind.BOOLEAN,
    "datetime": Kind.TIMESTAMP,
}
"""What a type may be called."""

_TESTS: tuple[tuple[Any, Kind], ...] = (
    (pa.types.is_boolean, Kind.BOOLEAN),
    (pa.types.is_integer, Kind.INTEGER),
    (pa.types.is_floating, Kind.NUMBER),
    (pa.types.is_decimal, Kind.NUMBER),
    (pa.types.is_string, Kind.TEXT),
    (pa.types.is_large_string, Kind.TEXT),
    (pa.types.is_string_view, Kind.TEXT),
    (pa.types.is_date, Kind.DATE),
    (pa.types.is_timestamp, Kind.TIMESTAMP),
    (pa.types.is_null, Kind.NOTHING),
)
_FORMS = {
    Kind.INTEGER: r"^[-+]?[0-9]{1,19}$",
    Kind.NUMBER: r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?$",
    Kind.DATE: r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    Kind.TIMESTAMP: r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?$",
}
_LOGICAL = {"true": ("true", "t", "yes", "y", "on", "1"), "false": ("false", "f", "no", "n", "off", "0")}
_REASONS = {
    Kind.INTEGER: Reason.BAD_NUMBER,
    Kind.NUMBER: Reason.BAD_NUMBER,
    Kind.DATE: Reason.BAD_DATE,
    Kind.TIMESTAMP: Reason.BAD_DATE,
}


def kind_of(type_: pa.DataType) -> Kind:
    """The kind that a column of that type is taken as."""
    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    return next((kind for is_one, kind in _TESTS if is_one(type_)), Kind.OTHER)


def plain(values: pa.Array) -> pa.Array:
    """A column in the type of its kind. Raises TerminalError for an unsigned integer that has no room there."""
    kind = kind_of(values.type)
    if kind is Kind.OTHER or values.type == ARROW[kind] != pa.float64():
        return values
    try:
        # narrower units of time lose their digits on purpose; for numbers that would be an error
        cast = pc.cast(values, ARROW[kind], safe=kind is not Kind.TIMESTAMP)
    except pa.ArrowInvalid as exc:
        raise TerminalError(Reason.BAD_NUMBER, f"A value of type {values.type} has no room in 64 bits.") from exc
    return finite(cast) if kind is Kind.NUMBER else cast


def finite(values: Any) -> Any:
    """An array or scalar of floats, null where there is no finite number."""
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))


def castable(given: Kind, wanted: Kind) -> bool:
    """Whether values of one kind may become values of the other."""
    numbers = {Kind.INTEGER, Kind.NUMBER}
    ways = (numbers, {Kind.BOOLEAN, Kind.INTEGER}, {Kind.DATE, Kind.TIMESTAMP})
    return given == wanted or Kind.TEXT in (given, wanted) or any({given, wanted} <= way for way in ways)


def cast(values: pa.Array, wanted: Kind, *, lenient: bool) -> pa.Array:
    """Plain values as another, castable kind. lenient: null for what has no such value, else TerminalError."""
    found = _halved(values, wanted)
    lost = pc.and_(pc.is_valid(values), pc.is_null(found))
    if lenient or not pc.any(lost).as_py():
        return found
    first = values.filter(lost)[0].as_py()
    shown = repr(first) if len(repr(first)) <= 60 else "A long text"
    message = f'{shown} is no {wanted}; correct the value, or let such values be null (try_cast, on_error: "null").'
    raise TerminalError(_REASONS.get(wanted, Reason.BAD_TEXT), message)


def _halved(values: pa.Array, wanted: Kind) -> pa.Array:
    """Converted, null where that fails. Arrow does not say which value failed: the halves are tried, and theirs."""
    try:
        return _converted(values, wanted)
    except pa.ArrowInvalid:
        if len(values) == 1:
            return pa.nulls(1, ARROW[wanted])
    middle = len(values) // 2
    return pa.concat_arrays([_halved(values[:middle], wanted), _halved(values[middle:], wanted)])


def _converted(values: pa.Array, wanted: Kind) -> pa.Array:
    """Null where the text has not the form. Raises pa.ArrowInvalid where another value cannot be converted."""
    given = kind_of(values.type)
    if given is wanted:
        return values
    if given is Kind.TEXT:
        return _from_text(pc.utf8_trim_whitespace(values), wanted)
    if (given, wanted) == (Kind.NUMBER, Kind.INTEGER):
        return pc.cast(pc.round(values, round_mode="half_towards_infinity"), pa.int64())
    if (given, wanted) == (Kind.TIMESTAMP, Kind.DATE):
        return pc.cast(pc.floor_temporal(values, unit="day"), pa.date32())
    return pc.cast(values, ARROW[wanted], safe=wanted is not Kind.NUMBER)


def _from_text(values: pa.Array, wanted: Kind) -> pa.Array:
    if wanted is Kind.BOOLEAN:
        lowered = pc.utf8_lower(values)
        true, false = (pc.is_in(lowered, pa.array(_LOGICAL[word])) for word in ("true", "false"))
        return pc.if_else(pc.or_(true, false), true, pa.scalar(None, pa.bool_()))
    formed = pc.if_else(pc.match_substring_regex(values, _FORMS[wanted]), values, pa.scalar(None, pa.string()))
    if wanted is Kind.INTEGER:
        formed = pc.replace_substring_regex(formed, "^[+]", "")
    found = pc.cast(formed, ARROW[wanted])
    return finite(found) if wanted is Kind.NUMBER else found
