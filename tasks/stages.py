"""Stages: named selections of the index, read from `stages.toml` or a file of the user's own.

A stage becomes an SQL condition over bare column names, which the claim statement evaluates row by row while
it walks the index of pending rows.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tasks.errors import ConfigurationError


class Selection(BaseModel):
    """One stage as its file says it; see the head of `stages.toml`."""

    model_config = ConfigDict(extra="forbid")

    about: str = ""
    books: tuple[int, int] | None = None
    county_books: tuple[int, int] | None = None
    types: list[str] | None = Field(None, min_length=1)
    priorities: list[int] | None = Field(None, min_length=1)
    sources: list[str] | None = Field(None, min_length=1)
    limit: int | None = Field(None, ge=1)
    failed: bool = False

    @field_validator("books", "county_books")
    @classmethod
    def _in_order(cls, books: tuple[int, int] | None) -> tuple[int, int] | None:
        if books is not None and not 1 <= books[0] <= books[1]:
            raise ValueError("wants [first, last] with 1 <= first <= last")
        return books


@dataclass(frozen=True)
class Stage:
    """A selection ready for SQL.

    where         condition over bare column names with %(name)s parameters
    retry_failed  failed downloads of the selection go back to pending before the run
    """

    name: str
    where: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    retry_failed: bool = False


def stage_filter(
    name: str = "all",
    *,
    books: tuple[int, int] | None = None,
    types: Sequence[str] | None = None,
    priorities: Sequence[int] | None = None,
    file: Path | None = None,
) -> Stage:
    """The stage of that name, narrowed further by what is given. Raises ConfigurationError in one sentence."""
    stages = load_stages(file)
    if name not in stages:
        raise ConfigurationError(f"there is no stage {name!r}; {_suggested(name, stages)}.")
    given = _checked({"books": books, "types": types, "priorities": priorities}, "the parameters of the run")
    _refuse_nothing(name, stages[name], given)
    where, parameters = _conditions({"stage": stages[name], "given": given})
    return Stage(name, where, parameters, stages[name].limit, stages[name].failed)


def load_stages(file: Path | None = None) -> dict[str, Selection]:
    """All stages by name: the package's, and those of `file`, which may also put others in their place."""
    known = tomllib.loads(resources.files("tasks").joinpath("stages.toml").read_text(encoding="utf-8"))
    if file is not None:
        try:
            known |= tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise ConfigurationError(f"the stages file {file} cannot be read ({exc}); correct it.") from exc
    return {name: _checked(values, f"stage {name!r}") for name, values in known.items()}


def _refuse_nothing(name: str, stage: Selection, given: Selection) -> None:
    """Parameters narrow a stage. When nothing can be left, the user meant something else."""
    for what in ("books", "types", "priorities"):
        asked, has = getattr(given, what), getattr(stage, what)
        if asked is None or has is None:
            continue
        apart = asked[0] > has[1] or asked[1] < has[0] if what == "books" else not set(asked) & set(has)
        if apart:
            raise ConfigurationError(
                f"stage {name!r} has none of the {what} {_listed(asked)}; take another stage or other {what}."
            )


def _listed(values: Sequence[Any]) -> str:
    shown = " to " if isinstance(values, tuple) else ", "
    return shown.join(str(value) for value in values)


def _checked(values: Any, what: str) -> Selection:
    try:
        return Selection.model_validate(values)
    except ValidationError as exc:
        first = exc.errors()[0]
        key = str((first["loc"] or ("it",))[0])
        if first["type"] == "extra_forbidden":
            raise ConfigurationError(f"{what} has no key {key!r}; {_suggested(key, Selection.model_fields)}.") from exc
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{what}: {key} is not usable ({said}); correct it.") from exc


def _suggested(name: str, known: Iterable[str]) -> str:
    """The names there are, the nearest one first."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}use one of {', '.join(known)}"


_CONDITIONS = {
    "books": "book BETWEEN %({0}_first)s AND %({0}_last)s",
    "county_books": "(source = 'direct' OR book BETWEEN %({0}_first)s AND %({0}_last)s)",
    "types": "(instrument_type_parsed = ANY(%({0})s) OR document_type = ANY(%({0})s))",
    "priorities": "download_priority = ANY(%({0})s)",
    "sources": "source = ANY(%({0})s)",
}


def _conditions(selections: Mapping[str, Selection]) -> tuple[str, dict[str, Any]]:
    conditions, parameters = [], dict[str, Any]()
    for who, selection in selections.items():
        for what, template in _CONDITIONS.items():
            value, name = getattr(selection, what), f"{who}_{what}"
            if value is None:
                continue
            conditions.append(template.format(name))
            if isinstance(value, tuple):
                parameters |= {f"{name}_first": value[0], f"{name}_last": value[1]}
            else:
                parameters[name] = value
    return " AND ".join(conditions) or "true", parameters
