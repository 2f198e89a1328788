"""The JSON Schema of workflow files (json-schema.org, draft 2020-12), made from the node classes; editors check by it.

`python -m tasks.geo.workflow_schema > workflow.schema.json` makes it of the nodes there are.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

from tasks.geo.catalogue import NODES
from tasks.geo.definition import MAX_NODES, NAME, Edge, Execution, Metadata, Parameter
from tasks.geo.nodes import Node

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def workflow_schema() -> dict[str, Any]:
    """The schema as a mapping."""
    shared = {model.__name__: _plain(model.model_json_schema()) for model in (Metadata, Parameter, Execution, Edge)}
    nodes = {name: _node(name, NODES[name]) for name in sorted(NODES)}
    fields = {
        "id": _name(),
        "version": {"type": ["string", "number"]},
        "metadata": _reference("Metadata"),
        "parameters": {"type": "object", "additionalProperties": _reference("Parameter")},
        "nodes": {"type": "array", "maxItems": MAX_NODES, "items": _one_of(list(nodes))},
        "edges": {"type": "array", "maxItems": 10 * MAX_NODES, "items": _reference("Edge")},
    }
    head = {"$schema": _DRAFT, "title": "landrecords workflow", **_object(fields, ["id", "nodes"])}
    return {**head, "$defs": {**shared, "Inputs": _INPUTS, **nodes}}


_ORIGINS: dict[str, Any] = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_INPUTS: dict[str, Any] = {
    "description": "where its input comes from: a node's id, or id.port; or several; or these by the port they go to",
    "oneOf": [*_ORIGINS["oneOf"], {"type": "object", "additionalProperties": _ORIGINS}],
}


def _one_of(names: list[str]) -> dict[str, Any]:
    """By the type, so that an editor says what is wrong with that type of node, not that no type fits."""
    choices = [{"if": {"properties": {"type": {"const": name}}}, "then": _reference(name)} for name in names]
    return {"type": "object", "properties": {"type": {"enum": names}}, "required": ["id", "type"], "allOf": choices}


def _node(name: str, kind: type[Node]) -> dict[str, Any]:
    parameters = _plain(kind.model_json_schema(ref_template="#/$defs/" + name + "/$defs/{model}"))
    inner = parameters.pop("$defs", {})
    parameters["properties"] = {key: _given(value) for key, value in parameters.get("properties", {}).items()}
    fields = {
        "id": _name(),
        "type": {"const": name},
        "description": {"type": "string"},
        "parameters": parameters,
        "execution": _reference("Execution"),
        "inputs": _reference("Inputs"),
    }
    required = ["id", "type", "parameters"] if parameters.get("required") else ["id", "type"]
    return {"description": inspect.getdoc(kind), **_object(fields, required), **({"$defs": inner} if inner else {})}


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, or a parameter of the workflow in its place."""
    about: dict[str, Any] = {key: schema[key] for key in ("description", "default") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in about}
    return {**about, "anyOf": [rest, {"type": "string", "pattern": r"^(\$\{[^}]+\}|\{\{[^}]+\}\})$"}]}


def _plain(schema: Any) -> Any:
    """Without the titles that pydantic makes up of the names, where a title is not itself a property."""
    if isinstance(schema, list):
        return [_plain(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _plain(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}


def _object(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _name() -> dict[str, Any]:
    return {"type": ["string", "integer"], "pattern": NAME}


if __name__ == "__main__":
    print(json.dumps(workflow_schema(), indent=1))  # noqa: T201 - what the command is for
