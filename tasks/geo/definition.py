"""A workflow as its file says it: nodes, edges, parameters.

    id: plots-buffered
    version: 1
    parameters:
      distance: {type: number, description: metres, default: 5, min: 0, max: 100}
    nodes:
      - {id: plots, type: data_source.geopackage, parameters: {file_path: plots.gpkg}}
      - {id: wider, type: geoprocessing.buffer, parameters: {distance: "${distance}"}, inputs: plots}
      - {id: saved, type: data_sink.postgis, parameters: {table: wider}, inputs: wider}

`inputs: plots` is short for an edge; so are `inputs: [a, b]`, `inputs: {overlay: a}` and `inputs: a.rejected`, which
names the port it comes from. Whoever reads on after `load_workflow` calls `tasks.geo.validation.check`, which tells
everything that is wrong at once, `Workflow.problems` among it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

ParameterType = Literal["string", "integer", "number", "boolean", "date", "crs", "array", "object"]

NAME = r"^\w[\w-]{0,62}$"
"""Of a node or a parameter: no dots, so that `inputs: filter.rejected` names a port."""

MAX_NODES = 1_000


@dataclass(frozen=True)
class Problem:
    """What is wrong, or worth knowing, with its place and the remedy.

    node   its id; None: the workflow itself
    field  the parameter, or the port; None: the whole node
    """

    node: str | None
    field: str | None
    message: str

    def __str__(self) -> str:
        place = ", ".join(filter(None, [self.node and f"node {self.node}", self.field]))
        return f"{place}: {self.message}" if place else self.message


def _written(value: object) -> object:
    """Ids and versions may be written as numbers."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Word = Annotated[str, BeforeValidator(_written)]
Name = Annotated[str, BeforeValidator(_written), Field(pattern=NAME)]


class Definition(BaseModel):
    """What the parts of a definition have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Metadata(Definition):
    """For people: who made the workflow, and what for."""

    name: str = ""
    description: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()
    category: str = ""


class Parameter(Definition):
    """A value that is given when the workflow is run; nodes use it as ${name}."""

    type: ParameterType = "string"
    description: str = ""
    default: Any = Field(default=None, description="the value where none is given; of the parameter's type")
    required: bool = Field(default=False, description="whether a run must give it; else the node decides")
    min: float | None = Field(default=None, description="least value of a number, or length of a text or an array")
    max: float | None = Field(default=None, description="greatest value of a number, or length of a text or an array")
    allowed: tuple[Any, ...] | None = Field(default=None, min_length=1, description="the only values there may be")


class Execution(Definition):
    """How a node is run."""

    timeout_s: float | None = Field(default=None, gt=0, le=604_800, description="seconds it may take; none: unlimited")
    max_retries: int = Field(default=2, ge=0, le=10, description="further attempts after a failure that may heal")
    continue_on_error: bool = Field(default=False, description="whether the rest goes on when this node fails")


class NodeSpec(Definition):
    """A node of the graph; `type` says which parameters it takes."""

    id: Name
    type: str = Field(min_length=1)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    execution: Execution = Field(default_factory=Execution)


class Edge(Definition):
    """Features go from a node's port to another's."""

    source: Name = Field(alias="from")
    target: Name = Field(alias="to")
    from_port: str = "output"
    to_port: str = "input"

    def __str__(self) -> str:
        return f"{self.source}.{self.from_port} -> {self.target}.{self.to_port}"


class Workflow(Definition):
    """A definition, read.

    problems  what was wrong in the file: those parts are left out or left at their defaults; `check` tells them
    """

    id: Name
    version: Word = "1"
    metadata: Metadata = Field(default_factory=Metadata)
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    nodes: tuple[NodeSpec, ...] = Field(default=(), max_length=MAX_NODES)
    edges: tuple[Edge, ...] = Field(default=(), max_length=10 * MAX_NODES)
    problems: tuple[Problem, ...] = Field(default=(), exclude=True)
