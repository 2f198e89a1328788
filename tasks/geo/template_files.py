"""Workflows that come with landrecords, by name; and where a run's workflow is read from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError
from tasks.geo.fields import suggested
from tasks.geo.reading import is_text

FOLDER = Path(__file__).with_name("templates")


def template_names() -> list[str]:
    """Of all templates."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def workflow_source(given: str | Mapping[str, Any]) -> Path | str | Mapping[str, Any]:
    """What `load_workflow` reads: a definition as it is, a file, or a template's file.

    Raises ConfigurationError where there is neither file nor template of that name.
    """
    if isinstance(given, Mapping) or is_text(given):
        return given
    try:
        path = Path(given).expanduser()
        if path.suffix or os.access(path, os.F_OK):
            return path
    except (RuntimeError, ValueError) as exc:  # an unknown ~user, a NUL
        raise ConfigurationError(f"{given!r} is no path that can be used; correct it.") from exc
    if given in template_names():
        return FOLDER / f"{given}.yaml"
    said = suggested(given, template_names())
    raise ConfigurationError(f"There is no workflow file and no template {given!r}; {said}.")
