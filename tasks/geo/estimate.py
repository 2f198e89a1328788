"""How much a workflow will read, hold and write, as far as that can be told without reading features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tasks.geo.definition import Edge, Problem
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Blocking, Described, Lookup, Node

GEOMETRY_BYTES = 400
"""Of a geometry where nothing is known: 19 vertices, as cadastral plots have, at 16 bytes, and its frame."""

TEXT_BYTES = 24
VALUE_BYTES = 8


@dataclass(frozen=True)
class Expected:
    """What a node will give and hold at most; None: not known. Filters and overlays may give less, `explode` more.

    memory_bytes  gathered before the node can go on; but for overlays, spilled to disk where the budget has no room
    """

    features: int | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = 0


def expected_of(
    order: Sequence[str],
    nodes: Mapping[str, Node],
    edges: Sequence[Edge],
    layouts: Mapping[tuple[str, str], Layout],
    described: Mapping[str, Described],
) -> dict[str, Expected]:
    """For each node, in an order in which inputs come first."""
    found: dict[str, Expected] = {}
    for name in order:
        if name in described:
            found[name] = _read(described[name])
            continue
        coming = [(e.to_port, found.get(e.source, Expected())) for e in edges if e.target == name]
        features = _sum([given.features for port, given in coming if port == "input"])
        layout = next((layouts[name, port] for port in nodes[name].outputs if (name, port) in layouts), None)
        size = _sum([given.size_bytes for port, given in coming if port == "input"])
        if layout is not None and features is not None:
            size = features * row_bytes(layout)
        found[name] = Expected(features, size, _held(nodes[name], coming))
    return found


def _read(source: Described) -> Expected:
    size = source.features * row_bytes(source.layout) if source.features is not None else source.size_bytes
    return Expected(source.features, size)


def _held(node: Node, coming: Sequence[tuple[str, Expected]]) -> int | None:
    if isinstance(node, Lookup):
        return _sum([given.size_bytes for port, given in coming if port != "input"])
    return _sum([given.size_bytes for _, given in coming]) if isinstance(node, Blocking) else 0


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def row_bytes(layout: Layout) -> int:
    """About what a feature of that layout takes in memory."""
    wide = sum(TEXT_BYTES if not pa.types.is_primitive(f.type) else VALUE_BYTES for f in layout.fields)
    return max(1, wide + (GEOMETRY_BYTES if layout.geometry else 0))


def told(nodes: Mapping[str, Node], expected: Mapping[str, Expected]) -> list[Problem]:
    """What a user should know of the nodes that gather features before they go on."""
    notes = []
    for name, node in nodes.items():
        if not isinstance(node, Blocking | Lookup) or name not in expected:
            continue
        held = expected[name].memory_bytes
        much = f"about {max(1, held >> 20):,} MiB" if held is not None else "an amount that is not known beforehand"
        what, beyond = "its input", "beyond the budget it uses the disk"
        if isinstance(node, Lookup):
            what, beyond = "its overlay", "the budget (memory_mb) has to have room for it"
        notes.append(Problem(name, None, f"gathers {what} before it goes on, {much}; {beyond}."))
    return notes
