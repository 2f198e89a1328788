"""What the Prefect UI's form says of a flow's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar, get_type_hints

from pydantic import Field
from pydantic.fields import FieldInfo

P = ParamSpec("P")
R = TypeVar("R")


def explained(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with titles and descriptions of its parameters kept where Prefect does not lose them.

    Prefect 3.8 calls a field by its parameter's name and describes it by the docstring alone, whatever its
    `Field` says (`process_v2_params`); only `json_schema_extra` reaches the form. Bounds pass as they are.
    """
    hints = get_type_hints(function, include_extras=True)
    function.__annotations__ = {name: _kept(name, hint) for name, hint in hints.items()}
    return function


def _kept(name: str, hint: Any) -> Any:
    fields = [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, FieldInfo)]
    if not fields:
        return hint
    title = fields[-1].title or _spelled(name)
    description = fields[-1].description
    said = {"title": title, **({"description": description} if description else {})}
    return Annotated[hint, Field(json_schema_extra=dict(said))]


def _spelled(name: str) -> str:
    """`requests_per_second` -> `Requests per second`, `backoff_s` -> `Backoff, seconds`."""
    words = name.removesuffix("_s").replace("_", " ").capitalize()
    return f"{words}, seconds" if name.endswith("_s") else words
