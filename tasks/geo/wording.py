"""pydantic's findings as sentences for a user: which field, what it is, what it wants, the nearest name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tasks.geo.definition import NAME
from tasks.geo.fields import suggested

_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a text", list: "a list", dict: "a map"}
_WANTED = {
    "string": "a text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a map",
    "model": "a map",
    "date": "a date such as 2024-12-31",
}
_LIMITS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "multiple_of": "a multiple of {multiple_of:g}",
    "string_too_short": "{min_length} or more characters long",
    "string_too_long": "{max_length} characters long at the most",
    "too_short": "{min_length} or more entries long",
    "too_long": "{max_length} entries long at the most",
    "string_pattern_mismatch": "of the form {pattern}",
    "finite_number": "a finite number",
}


def findings(error: ValidationError, model: type[BaseModel], given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Field, as execution.timeout_s or columns[2], and what is said of it; one for each field.

    model  whose fields were wanted
    given  what was validated
    """
    said: dict[str, list[Mapping[str, Any]]] = {}
    for found in error.errors(include_url=False):
        said.setdefault(_field(found["loc"], given), []).append(dict(found))
    return [(name, _sentence(name, of_field, model)) for name, of_field in said.items()]


def _field(loc: tuple[int | str, ...], given: Any) -> str:
    """The place within what was given; pydantic also names the members of unions, which no user wrote."""
    path = ""
    for depth, part in enumerate(loc):
        if isinstance(given, dict) and (part in given or depth == 0):
            path, given = f"{path}.{part}" if path else str(part), given.get(part)
        elif isinstance(given, list | tuple) and isinstance(part, int) and part < len(given):
            path, given = f"{path}[{part}]", given[part]
        elif isinstance(given, dict) and depth == len(loc) - 1:
            path = f"{path}.{part}"
    return path


def _sentence(name: str, found: list[Mapping[str, Any]], model: type[BaseModel]) -> str:
    first, last = found[0], name.rpartition(".")[2]
    kind, context, value = first["type"], first.get("ctx", {}), first["input"]
    about = _about(model, name)
    if kind == "missing":
        said = f"{last!r} is missing; give it{about}"
    elif kind == "extra_forbidden":
        said = f"there is no {last!r} here; {suggested(last, _names(model, name))}"
    elif context.get("pattern") == NAME:
        said = f"{_shown(value)} has to consist of letters, digits, _ and -, 63 at the most"
    elif kind in _LIMITS:
        said = f"{_shown(value)} has to be {_LIMITS[kind].format(**context)}{about}"
    elif kind in ("literal_error", "enum"):
        choices = [word.strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(", ")]
        said = f"{_shown(value)} is not known here; {suggested(str(value), choices)}"
    elif kind == "value_error":
        said = str(context["error"])
    else:
        wanted = " or ".join(dict.fromkeys(filter(None, (_wanted(f) for f in found))))
        said = f"it wants {wanted or first['msg']}, not {kind_of(value)}{about}"
    return said if said.endswith(".") else f"{said}."


def _wanted(found: Mapping[str, Any]) -> str:
    return _WANTED.get(str(found["type"]).partition("_")[0], "")


def kind_of(value: object) -> str:
    """What kind of value it is, in words; never the value itself, which may be a secret."""
    return "nothing" if value is None else _KINDS.get(type(value), f"a {type(value).__name__}")


def _shown(value: object) -> str:
    return repr(value) if len(repr(value)) <= 60 else kind_of(value)


def _about(model: type[BaseModel], name: str) -> str:
    field = model.model_fields.get(name) or next((f for f in model.model_fields.values() if f.alias == name), None)
    return f" ({field.description})" if field is not None and field.description else ""


def _names(model: type[BaseModel], name: str) -> Collection[str]:
    """What may stand beside the field: of the model, or of the model in its field."""
    for part in name.split(".")[:-1]:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ()
        model = inner
    return [field.alias or key for key, field in model.model_fields.items()]
