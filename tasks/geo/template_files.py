"""Workflows that come with landrecords, by name; and where a run's workflow is read from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError
from tasks.geo.fields import suggested

FOLDER = Path(__file__).with_name("templates")


def template_names() -> list[str]:
    """Of all templates."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def workflow_source(given: str | Mapping[str, Any]) -> Path | str | Mapping[str, Any]:
    """What `load_workflow` reads: a definition as it is, a file, or a template's file.

    Raises ConfigurationError where there is neither file nor template of that name.
    """
    if isinstance(given, Mapping) or "\n" in given or given.lstrip().startswith("{"):
        return given
    path = Path(given).expanduser()
    template = FOLDER / f"{given}.yaml"
    if path.suffix or path.exists():
        return path
    if given not in template_names():
        said = suggested(given, template_names())
        raise ConfigurationError(f"There is no workflow file and no template {given!r}; {said}.")
    return template
