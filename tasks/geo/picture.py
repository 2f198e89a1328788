"""The graph of a workflow as a Mermaid flowchart (mermaid.js.org/syntax/flowchart), which Markdown viewers draw."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.geo.definition import Edge, NodeSpec, Workflow
from tasks.geo.nodes import NODES, Sink, Source

_COLOURS = {
    "completed": "fill:#d9f2d9,stroke:#2e7d32",
    "failed": "fill:#fadbd8,stroke:#c0392b",
    "running": "fill:#d6eaf8,stroke:#2471a3",
    "skipped": "fill:#eeeeee,stroke:#888888",
    "cancelled": "fill:#fdebd0,stroke:#ca6f1e",
    "timeout": "fill:#fdebd0,stroke:#ca6f1e",
}
_PLAIN_PORTS = ("output", "input")


def mermaid(workflow: Workflow, states: Mapping[str, str] | None = None, notes: Mapping[str, str] | None = None) -> str:
    """A flowchart from left to right.

    states  of nodes, by id (completed, failed, running, ...): they colour them
    notes   a line more in a node's box, by id, such as "1,000,000 features"
    """
    names = {node.id: f"n{index}" for index, node in enumerate(workflow.nodes)}
    boxes = [f"    {names[node.id]}{_box(node, (notes or {}).get(node.id, ''))}" for node in workflow.nodes]
    lines = [_line(edge, names) for edge in workflow.edges if edge.source in names and edge.target in names]
    used = {name: state for name, state in (states or {}).items() if name in names and state in _COLOURS}
    colours = [f"    classDef {state} {_COLOURS[state]}" for state in sorted(set(used.values()))]
    classes = [f"    class {names[name]} {state}" for name, state in used.items()]
    return "\n".join(["flowchart LR", *boxes, *lines, *colours, *classes])


def _box(node: NodeSpec, note: str) -> str:
    """Sources and sinks are round, all else has corners."""
    text = "<br/>".join(_safe(part) for part in (node.id, node.type, note) if part)
    kind = NODES.get(node.type)
    return f'(["{text}"])' if kind is not None and issubclass(kind, Source | Sink) else f'["{text}"]'


def _line(edge: Edge, names: Mapping[str, str]) -> str:
    ports = [port for port, plain in zip((edge.from_port, edge.to_port), _PLAIN_PORTS, strict=True) if port != plain]
    label = f'|"{_safe(" to ".join(ports))}"|' if ports else ""
    return f"    {names[edge.source]} -->{label} {names[edge.target]}"


def _safe(text: str) -> str:
    """Mermaid's entity codes for what would end a label or be taken as HTML."""
    return "".join(c if c.isalnum() or c in " .,:_-/()%" else f"#{ord(c)};" for c in text)
