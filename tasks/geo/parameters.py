"""Parameters of a workflow: their values, checked, and their places in the nodes' parameters.

    distance: "${distance}"            the value itself, of its type; left out where there is none
    table: "plots_${county}"           as a part of a text
    expression: "owner = ${owner}"     in expressions and SQL a literal: quoted, or a number, or (a, b, c)
    note: "$${left as it is}"

`{{parameters.distance}}`, which older workflow files have, means the same.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError

from tasks.geo.definition import Parameter, Problem
from tasks.geo.fields import suggested
from tasks.geo.layouts import crs_of
from tasks.geo.wording import kind_of

_PLACE = re.compile(r"\$\$\{|\$\{\s*([\w-]+)\s*\}|\{\{\s*parameters\.([\w-]+)\s*\}\}")
_QUOTED = re.compile(
    r"(?P<text>(?<!\w)'(?:[^']|'')*')|(?P<name>\"(?:[^\"]|\"\")*\")"
    r"|(?P<other>\w+'(?:\\.|[^'\\]|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/)",
    re.DOTALL,
)


class Unfit(Exception):
    """Why a value cannot stand where it is wanted."""


def _not_logical(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("true or false is no number")
    return value


def _known_crs(value: str) -> str:
    crs_of(value)
    return value


Number = Annotated[float, BeforeValidator(_not_logical)]
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "string": TypeAdapter(str, config={"coerce_numbers_to_str": True}),
    "integer": TypeAdapter(Annotated[int, BeforeValidator(_not_logical)]),
    "number": TypeAdapter(Annotated[int | float, BeforeValidator(_not_logical)], config={"allow_inf_nan": False}),
    "boolean": TypeAdapter(bool),
    "date": TypeAdapter(dt.date),
    "crs": TypeAdapter(Annotated[str, AfterValidator(_known_crs)]),
    "array": TypeAdapter(list[Any]),
    "object": TypeAdapter(dict[str, Any]),
}
_IN_WORDS = {
    "string": "a text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "date": "a date such as 2024-12-31",
    "crs": "a coordinate reference system such as EPSG:4326",
    "array": "a list",
    "object": "a map",
}


def valued(declared: Mapping[str, Parameter], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Every parameter's value, None where it has none, and what is wrong with those given or with their declaration."""
    problems = [
        Problem(None, f"parameters.{name}", f"the workflow has no parameter {name!r}; {suggested(name, declared)}.")
        for name in given.keys() - declared.keys()
    ]
    values: dict[str, Any] = {}
    for name, parameter in declared.items():
        values[name] = None
        try:
            values[name] = _value(parameter, given.get(name))
        except Unfit as exc:
            problems.append(Problem(None, f"parameters.{name}", str(exc)))
    return values, problems


def _value(parameter: Parameter, given: Any) -> Any:
    allowed = [_typed(parameter, value, "allowed") for value in parameter.allowed or ()]
    default = _typed(parameter, parameter.default, "default")
    if parameter.min is not None and parameter.max is not None and parameter.min > parameter.max:
        raise Unfit(f"min {parameter.min:g} is more than max {parameter.max:g}; exchange them.")
    value = default if given is None else _typed(parameter, given, "value")
    if value is None and parameter.required:
        raise Unfit(f"it has no value; give {_IN_WORDS[parameter.type]}{_about(parameter)}.")
    if value is None:
        return None
    if allowed and value not in allowed:
        raise Unfit(f"{value!r} is not allowed; {suggested(str(value), [str(a) for a in allowed])}.")
    _in_range(parameter, value)
    return value


def _typed(parameter: Parameter, value: Any, what: str) -> Any:
    if value is None:
        return None
    try:
        return _ADAPTERS[parameter.type].validate_python(value)
    except ValidationError as exc:
        wanted = _IN_WORDS[parameter.type]
        raise Unfit(f"its {what} has to be {wanted}, not {kind_of(value)}{_about(parameter)}.") from exc


def _about(parameter: Parameter) -> str:
    return f" ({parameter.description})" if parameter.description else ""


def _in_range(parameter: Parameter, value: Any) -> None:
    sized = not isinstance(value, int | float)
    if parameter.type in ("boolean", "date", "crs") or (parameter.min is None and parameter.max is None):
        return
    size, what = (len(value), "its length") if sized else (value, "it")
    if parameter.min is not None and size < parameter.min:
        raise Unfit(f"{what} is {size:g}, less than {parameter.min:g}; give more{_about(parameter)}.")
    if parameter.max is not None and size > parameter.max:
        raise Unfit(f"{what} is {size:g}, more than {parameter.max:g}; give less{_about(parameter)}.")


def names_in(value: Any) -> set[str]:
    """The parameters that a value of a node's uses."""
    if isinstance(value, str):
        return {name for match in _PLACE.finditer(value) if (name := match[1] or match[2])}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {name for each in inner for name in names_in(each)}


def placed(value: Any, values: Mapping[str, Any], language: str | None = None) -> Any:
    """The same with every ${name} replaced. None: a text that is nothing but a parameter without a value.

    language  "sql" or "expression": of the texts in it
    Raises Unfit.
    """
    if isinstance(value, dict):
        return {key: placed(inner, values, language) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [placed(inner, values, language) for inner in value]
    if not isinstance(value, str) or not _PLACE.search(value):
        return value
    whole = _PLACE.fullmatch(value)
    if whole and (name := whole[1] or whole[2]):
        found = _found(name, values)
        return found.isoformat() if isinstance(found, dt.date) else found
    return _PLACE.sub(_writer(value, values, language), value)


def _writer(text: str, values: Mapping[str, Any], language: str | None) -> Callable[[re.Match[str]], str]:
    quoted = list(_QUOTED.finditer(text)) if language else []

    def written(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not name:
            return "${"
        value = _found(name, values)
        if language is None:
            return _bare(name, value)
        around = next((q for q in quoted if q.start() < match.start() < q.end()), None)
        return _literal(name, value) if around is None else _within(name, value, around)

    return written


def _found(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise Unfit(f"the workflow has no parameter {name!r}; {suggested(name, values)}.")
    return values[name]


def _bare(name: str, value: Any) -> str:
    if value is None or isinstance(value, list | dict):
        raise Unfit(f"${{{name}}} is {kind_of(value)}, which has no place in a text; give it a value, or a default.")
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def _literal(name: str, value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        plain = _bare(name, value)
        return f"({plain})" if plain.startswith("-") else plain  # `a -${b}` must not begin a comment
    if isinstance(value, dt.date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, list) and value and not any(isinstance(v, list | dict) for v in value):
        return f"({', '.join(_literal(name, v) for v in value)})"
    raise Unfit(f"${{{name}}} is a map, a list of lists or an empty list, which has no place here; give plain values.")


def _within(name: str, value: Any, around: re.Match[str]) -> str:
    """Inside quotes, where only the quotes themselves have to be doubled."""
    mark = {"text": "'", "name": '"'}.get(str(around.lastgroup))
    if mark is None:
        raise Unfit(f"${{{name}}} stands in a comment or an escaped text; write it outside: it comes quoted.")
    return _bare(name, value).replace(mark, mark * 2)
