"""From a checked workflow to stages: what runs as one fused chain, what is stored between, what waits for what.

A stage begins at a source, at a blocking node or at a stored output, and goes through streaming nodes until a sink or
an output that is stored. An output is stored where a node needs the whole of it (a blocking node, the overlay of a
lookup), and where two streaming branches go on from it: each then runs at its own pace, and nothing is read twice.
Sinks hang on the stage that makes their features.
"""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from tasks.geo.definition import Edge, Execution
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Blocking, Described, Lookup, Node, Sink, Source


class Output(NamedTuple):
    """What comes out of a node's port."""

    node: str
    port: str = "output"

    def __str__(self) -> str:
        return f"{self.node}.{self.port}"


@dataclass(frozen=True)
class Graph:
    """A checked workflow, as far as running it needs to know.

    layouts    of every output port
    described  of every source
    """

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    layouts: Mapping[tuple[str, str], Layout]
    described: Mapping[str, Described] = field(default_factory=dict)
    execution: Mapping[str, Execution] = field(default_factory=dict)

    def consumers(self, output: Output) -> list[Edge]:
        """Edges that leave this output, in the definition's order."""
        return [edge for edge in self.edges if (edge.source, edge.from_port) == output]

    def feeders(self, node: str, port: str = "input") -> list[Output]:
        """What comes to this port, in the definition's order."""
        return [Output(e.source, e.from_port) for e in self.edges if (e.target, e.to_port) == (node, port)]

    def inputs(self, node: str) -> dict[str, Output]:
        """Input port -> what comes there; further streams of a `many` node come to input#2, input#3 ..."""
        found: dict[str, Output] = {}
        for port in self.nodes[node].inputs:
            for number, output in enumerate(self.feeders(node, port), 1):
                found[port if number == 1 else f"{port}#{number}"] = output
        return found

    def gathered(self, node: str) -> list[Output]:
        """What the node needs the whole of before it can begin."""
        kind = self.nodes[node]
        if not isinstance(kind, Blocking | Lookup):
            return []
        streamed = "input" if isinstance(kind, Lookup) else None
        return [output for port, output in self.inputs(node).items() if port != streamed]

    def given(self, node: str) -> dict[str, Layout]:
        """Input port -> the layout of what comes there."""
        return {port: self.layouts[output] for port, output in self.inputs(node).items()}

    def outputs(self, node: str) -> list[Output]:
        """Of this node."""
        return [Output(node, port) for port in self.nodes[node].outputs]

    def ran(self, node: str) -> Execution:
        """How the node is to be run."""
        return self.execution.get(node) or Execution()

    @cached_property
    def below(self) -> Mapping[str, frozenset[str]]:
        """Node -> all that come after it."""
        after: dict[str, set[str]] = {name: set() for name in self.nodes}
        order = graphlib.TopologicalSorter({n: {e.target for e in self.edges if e.source == n} for n in self.nodes})
        for name in order.static_order():
            for edge in self.edges:
                if edge.source == name:
                    after[name] |= {edge.target} | after[edge.target]
        return {name: frozenset(found) for name, found in after.items()}


@dataclass(frozen=True)
class Stage:
    """What runs at one go.

    root    id of the source or blocking node it begins with; or the stored output
    nodes   ids, in order of the flow, the root's among them
    flows   output -> the nodes of this stage that take it batch by batch
    stores  outputs that are kept for later stages
    needs   stored outputs that must be there
    """

    root: str | Output
    nodes: tuple[str, ...]
    flows: Mapping[Output, tuple[str, ...]]
    stores: tuple[Output, ...]
    needs: tuple[Output, ...]

    @property
    def name(self) -> str:
        """Its nodes."""
        return "+".join(self.nodes)

    @property
    def start(self) -> Output:
        """What the first batches are."""
        return Output(self.root) if isinstance(self.root, str) else self.root


@dataclass(frozen=True)
class Plan:
    """Stages, each after those it needs."""

    graph: Graph
    stages: tuple[Stage, ...]

    @cached_property
    def makers(self) -> Mapping[Output, Stage]:
        """Stored output -> the stage that makes it."""
        return {output: stage for stage in self.stages for output in stage.stores}

    def before(self, stage: Stage, without: Collection[str] = ()) -> list[Stage]:
        """The stages it waits for, when some of its nodes are left out."""
        needs = [stage.root] if isinstance(stage.root, Output) else []
        needs += [output for name in stage.nodes if name not in without for output in self.graph.gathered(name)]
        return list({self.makers[need].name: self.makers[need] for need in needs}.values())

    def ends(self, stage: Stage, without: Collection[str] = ()) -> list[str]:
        """Nodes that something of the stage is written of: its sinks, and those whose outputs are stored."""
        found = [*self.sinks(stage), *(output.node for output in stage.stores)]
        return [name for name in found if name not in without]

    def sinks(self, stage: Stage) -> list[str]:
        """Ids of its sinks."""
        return [name for name in stage.nodes if isinstance(self.graph.nodes[name], Sink)]


def plan(graph: Graph, *, spread: bool = False) -> Plan:
    """The stages of a graph without cycles.

    spread  parts of a stage run in processes of their own: a sink that takes the whole stream in order is apart

    A lookup is cut off from its stage where that would wait for itself: what it looks things up in may come from
    the very nodes before it.
    """
    cut: frozenset[str] = frozenset()
    while True:
        stages = _Fusing(graph, cut, spread).stages()
        makers = {output: number for number, stage in enumerate(stages) for output in stage.stores}
        waits = {number: {makers[need] for need in stage.needs} for number, stage in enumerate(stages)}
        try:
            order = graphlib.TopologicalSorter(waits).static_order()
            return Plan(graph, tuple(stages[number] for number in order))
        except graphlib.CycleError as exc:
            looping = {name for number in exc.args[1] for name in stages[number].nodes}
            more = {name for name in looping if isinstance(graph.nodes[name], Lookup)} - cut
            if not more:
                raise
            cut |= more


class _Fusing:
    """One attempt: the graph in stages, with these lookups at the beginning of theirs."""

    def __init__(self, graph: Graph, cut: frozenset[str], spread: bool) -> None:
        self._graph, self._cut, self._spread = graph, cut, spread

    def stages(self) -> list[Stage]:
        graph = self._graph
        roots = [name for name, node in graph.nodes.items() if isinstance(node, Source | Blocking)]
        made = [self._grown(name, ()) for name in roots]
        for stage in made:  # grows while it is walked: stages after stages
            made += [self._grown(o, (e.target,)) for o in stage.stores for e in graph.consumers(o) if self._begins(e)]
        return made

    def _begins(self, edge: Edge) -> bool:
        """Whether a stage begins with this edge of a stored output."""
        if isinstance(self._graph.nodes[edge.target], Sink):
            return self._apart(edge.target)
        return not self._whole(edge)

    def _whole(self, edge: Edge) -> bool:
        """Whether the node at the edge's end takes the stream as a whole."""
        node = self._graph.nodes[edge.target]
        return isinstance(node, Blocking) or (isinstance(node, Lookup) and edge.to_port != "input")

    def _apart(self, name: str) -> bool:
        node = self._graph.nodes[name]
        return self._spread and isinstance(node, Sink) and not node.parallel

    def _fused(self, output: Output) -> tuple[tuple[str, ...], bool]:
        """The nodes that go on with an output in its stage, and whether it is stored."""
        edges = self._graph.consumers(output)
        sinks = tuple(e.target for e in edges if isinstance(self._graph.nodes[e.target], Sink))
        here = tuple(name for name in sinks if not self._apart(name))
        others = [e for e in edges if not isinstance(self._graph.nodes[e.target], Sink)]
        alone = len(others) == 1 and not self._whole(others[0]) and others[0].target not in self._cut
        if alone and here == sinks:
            return (*here, others[0].target), False
        return here, bool(others) or here != sinks

    def _grown(self, root: str | Output, first: tuple[str, ...]) -> Stage:
        nodes: list[str] = [] if isinstance(root, Output) else [root]
        flows: dict[Output, tuple[str, ...]] = {}
        stores: list[Output] = []
        todo = [root if isinstance(root, Output) else Output(root)]
        while todo:
            output = todo.pop()
            if output == root:
                targets, stored = first, False
            else:
                targets, stored = self._fused(output)
            flows[output] = targets
            stores += [output] if stored else []
            nodes += targets
            todo += [o for name in targets for o in self._graph.outputs(name)]
        return Stage(root, tuple(nodes), flows, tuple(stores), tuple(self._needs(root, nodes)))

    def _needs(self, root: str | Output, nodes: Iterable[str]) -> dict[Output, None]:
        first = [root] if isinstance(root, Output) else []
        return dict.fromkeys([*first, *(output for name in nodes for output in self._graph.gathered(name))])
