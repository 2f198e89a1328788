"""From a file, a text or a mapping to a Workflow. What is wrong in single places is kept beside what is right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tasks.errors import ConfigurationError
from tasks.geo.definition import MAX_NODES, NAME, Definition, Edge, Metadata, NodeSpec, Parameter, Problem, Workflow
from tasks.geo.fields import suggested
from tasks.geo.wording import findings, kind_of
from tasks.geo.workflow_text import MAX_BYTES, checked, parsed

_FIELDS = ("id", "version", "metadata", "parameters", "nodes", "edges")
_NODE_FIELDS = (*NodeSpec.model_fields, "inputs")
_UNNAMED = "workflow"
UNTYPED = "?"
"""Type of a node that gave none: already a problem, not to be told again."""

_NONE: Mapping[str, Any] = {}

D = TypeVar("D", bound=Definition)


def load_workflow(definition: Path | str | Mapping[str, Any]) -> Workflow:
    """The workflow in a .yaml, .yml or .json file, in a text (of several lines, or in braces), or in a mapping.

    Raises ConfigurationError where nothing can be read; single mistakes are in `Workflow.problems`.
    """
    if isinstance(definition, Mapping):
        raw = dict(definition)
        checked(raw, "the workflow")
        return _Reading().workflow(raw)
    if isinstance(definition, str) and is_text(definition):
        return _Reading().workflow(parsed(definition, "the workflow"))
    path = Path(definition)
    return _Reading().workflow(parsed(_text(path), path.name))


def is_text(given: str) -> bool:
    """Whether it is a definition, and no path."""
    return "\n" in given or given.lstrip()[:1] == "{"


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigurationError(f"{path} is larger than {MAX_BYTES >> 20} MiB; name its data as files.")
        return path.read_text("utf-8-sig")
    except FileNotFoundError as exc:
        raise ConfigurationError(f"There is no workflow file {path}; give the path of a .yaml or .json file.") from exc
    except (OSError, ValueError) as exc:  # ValueError: not UTF-8, or a NUL in the name
        raise ConfigurationError(f"{path} cannot be read as a text; give a YAML or JSON file in UTF-8.") from exc


class _Reading:
    """One definition being read, with the problems so far."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def workflow(self, raw: dict[str, Any]) -> Workflow:
        for name in raw.keys() - set(_FIELDS):
            self._wrong(None, name, f"there is no {name!r} here; {suggested(name, _FIELDS)}.")
        head: dict[str, Any] = {name: raw[name] for name in ("id", "version") if name in raw}
        read = self._model(Workflow, head, None, "", {"id": _UNNAMED}) or Workflow(id=_UNNAMED)
        metadata = self._model(Metadata, self._map(raw, "metadata"), None, "metadata.")
        made = {"metadata": metadata or Metadata(), "parameters": self._parameters(raw)}
        edges = self._edges(self._list(raw, "edges", 10 * MAX_NODES))
        nodes, short = self._nodes(self._list(raw, "nodes", MAX_NODES))
        parts = {"nodes": nodes, "edges": edges + short, "problems": tuple(self.problems)}
        return read.model_copy(update=made | parts)

    def _wrong(self, node: str | None, field: str | None, message: str) -> None:
        self.problems.append(Problem(node, field, message))

    def _map(self, raw: Mapping[str, Any], name: str) -> dict[str, Any]:
        value = raw.get(name)
        if isinstance(value, dict | None):
            return value or {}
        self._wrong(None, name, f"it wants a map, not {kind_of(value)}.")
        return {}

    def _list(self, raw: Mapping[str, Any], name: str, at_most: int) -> list[Any]:
        value = raw.get(name)
        if isinstance(value, list | tuple | None) and len(value or ()) <= at_most:
            return list(value or ())
        what = f"{len(value):,}" if isinstance(value, list | tuple) else kind_of(value)
        self._wrong(None, name, f"it wants a list of {at_most:,} entries at the most, not {what}.")
        return []

    def _parameters(self, raw: Mapping[str, Any]) -> dict[str, Parameter]:
        read = {}
        for name, value in self._map(raw, "parameters").items():
            field = f"parameters.{name}"
            if not isinstance(value, dict):
                self._wrong(None, field, "it wants a map such as {type: number, default: 5}.")
            elif not re.fullmatch(NAME, name):
                self._wrong(None, field, "a name has letters, digits, _ and - only; rename it.")
            given = value if isinstance(value, dict) else {}
            read[name] = self._model(Parameter, given, None, f"{field}.") or Parameter()
        return read

    def _nodes(self, values: list[Any]) -> tuple[tuple[NodeSpec, ...], tuple[Edge, ...]]:
        nodes: list[NodeSpec] = []
        edges: list[Edge] = []
        for index, value in enumerate(values):
            if isinstance(value, dict):
                nodes.append(read := self._node(value, f"nodes[{index}]"))
                edges += self._short_edges(read.id, value.get("inputs"))
            else:
                self._wrong(None, f"nodes[{index}]", f"it wants a map with id: and type:, not {kind_of(value)}.")
        return tuple(nodes), tuple(edges)

    def _node(self, value: dict[str, Any], place: str) -> NodeSpec:
        name = str(value.get("id", place))
        given = {key: inner for key, inner in value.items() if key in NodeSpec.model_fields}
        for key in value.keys() - set(_NODE_FIELDS):
            self._wrong(name, key, f"there is no {key!r} here; {suggested(key, _NODE_FIELDS)}.")
        stand_in: dict[str, Any] = {"id": "x", "type": UNTYPED}
        read = self._model(NodeSpec, given, name, "", stand_in) or NodeSpec(**stand_in)
        return read.model_copy(update={"id": name})

    def _edges(self, values: list[Any]) -> tuple[Edge, ...]:
        edges = []
        for index, value in enumerate(values):
            place = f"edges[{index}]"
            if not isinstance(value, dict):
                self._wrong(None, place, "it wants a map such as {from: plots, to: buffer}.")
            elif read := self._model(Edge, value, None, f"{place}."):
                edges.append(read)
        return tuple(edges)

    def _short_edges(self, target: str, inputs: Any) -> list[Edge]:
        """`inputs: a`, `inputs: a.rejected`, `inputs: [a, b]` or `inputs: {overlay: a}`."""
        by_port = inputs if isinstance(inputs, dict) else {"input": inputs}
        edges = []
        for port, origins in by_port.items():
            for origin in origins if isinstance(origins, list) else [origins]:
                if isinstance(origin, str | int) and str(origin).strip("."):
                    source, _, from_port = str(origin).partition(".")
                    ports = {"from_port": from_port or "output", "to_port": port}
                    edges.append(Edge.model_construct(None, source=source, target=target, **ports))
                elif origin is not None:
                    self._wrong(target, f"inputs.{port}", "it wants the id of a node, or id.port.")
        return edges

    def _model(
        self, model: type[D], given: dict[str, Any], node: str | None, prefix: str, stand_in: Mapping[str, Any] = _NONE
    ) -> D | None:
        """What was given, without the fields that are wrong: those are told, and take their defaults or stand-ins."""
        try:
            return model.model_validate(given)
        except ValidationError as exc:
            for field, message in findings(exc, model, given):
                self._wrong(node, prefix + field, message)
            wrong = {error["loc"][0] for error in exc.errors(include_url=False)}
        try:
            return model.model_validate({**stand_in, **{key: v for key, v in given.items() if key not in wrong}})
        except ValidationError:
            return None
