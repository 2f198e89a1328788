"""What the parameters of nodes have in common: kinds of text, columns, and the nearest name to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import pyarrow as pa

from tasks.geo.layouts import Layout
from tasks.geo.nodes import Node, NodeProblem

MAX_NAMES = 12
"""Names listed in a message at most."""


@dataclass(frozen=True)
class Language:
    """Marks a parameter as a program's text: ${name} within it becomes a quoted literal, not bare text."""

    name: str


Expression = Annotated[str, Language("expression")]
"""Of tasks.geo.expressions."""

Sql = Annotated[str, Language("sql")]


def languages(node: type[Node]) -> dict[str, str]:
    """Parameter -> its language, of those that have one."""
    marks = {name: [f.annotation, *f.metadata] for name, f in node.model_fields.items()}
    return {name: mark.name for name, parts in marks.items() for part in parts for mark in _marks(part)}


def _marks(annotation: Any) -> Iterator[Language]:
    if isinstance(annotation, Language):
        yield annotation
    for inner in get_args(annotation):
        yield from _marks(inner)


def suggested(name: str, known: Collection[str], none: str = "there are none") -> str:
    """How a sentence about an unknown name ends: the nearest name there is, and the others."""
    if not known:
        return none
    more = f" and {len(known) - MAX_NAMES} more" if len(known) > MAX_NAMES else ""
    listed = ", ".join(list(known)[:MAX_NAMES]) + more
    lowered = {n.lower(): n for n in known}
    nearest = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f"did you mean {lowered[nearest[0]]!r}? Known are {listed}" if nearest else f"known are {listed}"


def column(layout: Layout, name: str, field: str) -> pa.Field:
    """The attribute of that name. Raises NodeProblem at the parameter `field` with the nearest name."""
    index = layout.fields.get_field_index(name)
    if index >= 0:
        return layout.fields.field(index)
    if layout.geometry is not None and name == layout.geometry.name:
        raise NodeProblem(f"{name!r} is the geometry, not an attribute; name an attribute.", field)
    raise NodeProblem(f"there is no column {name!r}; {suggested(name, layout.names)}.", field)
