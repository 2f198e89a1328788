"""Profiles as files: what differs from server to server, in TOML or JSON, checked against a model."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tasks.errors import ConfigurationError

M = TypeVar("M", bound=BaseModel)


def read_profile(path: Path, kind: str, others: str) -> dict[str, Any]:
    """What a .toml or .json file says. Raises ConfigurationError in one sentence.

    kind    "portal profile"
    others  what may be given instead of a file: "use 'duprocess'"
    """
    if path.suffix not in (".toml", ".json"):
        raise ConfigurationError(f"there is no {kind} {str(path)!r}; {others}, or a .toml or .json file.")
    try:
        text = path.expanduser().read_text(encoding="utf-8")
        given = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as exc:
        raise ConfigurationError(f"{kind} {path} cannot be read ({exc.strerror}); give another.") from exc
    except (ValueError, RuntimeError) as exc:  # TOML, JSON, UTF-8, nesting; a ~user whom nobody knows
        raise ConfigurationError(f"{kind} {path} is not valid {path.suffix[1:].upper()} ({exc}); correct it.") from exc
    if not isinstance(given, dict):
        raise ConfigurationError(f"{kind} {path} is no object; give one with the names of a profile.")
    return given


def checked(model: type[M], given: dict[str, Any], said_of: str) -> M:
    """The profile. Raises ConfigurationError that names the first setting that is wrong, and what it is `said_of`."""
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{where} in {said_of} is not usable ({said}); correct it.") from None
