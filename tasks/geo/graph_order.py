"""Orders and circles of a graph of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from tasks.geo.definition import Edge


def ordered(names: Sequence[str], edges: Sequence[Edge]) -> list[str]:
    """Every node after those it takes its input from; nodes of a circle, and what hangs on them, are left out."""
    waiting = origins_of(names, edges)
    done: set[str] = set()
    found: list[str] = []
    while ready := [name for name, origins in waiting.items() if origins <= done]:
        found += ready
        done.update(ready)
        waiting = {name: origins for name, origins in waiting.items() if name not in done}
    return found


def origins_of(names: Sequence[str], edges: Sequence[Edge]) -> dict[str, set[str]]:
    """Each node's nodes before it."""
    origins: dict[str, set[str]] = {name: set() for name in names}
    for edge in edges:
        if edge.target in origins:
            origins[edge.target].add(edge.source)
    return origins


def circles(names: Sequence[str], edges: Sequence[Edge]) -> list[list[str]]:
    """Circles in the order of the flow; of several that share a node only one, until that is mended."""
    found: list[list[str]] = []
    rest = list(names)
    while rest:
        try:
            TopologicalSorter(
                {name: origins & set(rest) for name, origins in origins_of(rest, edges).items()}
            ).prepare()
        except CycleError as exc:
            circle: list[str] = exc.args[1][:-1]
            start = circle.index(min(circle, key=names.index))
            found.append(circle[start:] + circle[:start])
            rest = [name for name in rest if name not in circle]
        else:
            break
    return found
