"""The fused nodes of a stage: one batch in, what is to be written out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from tasks.errors import LandrecordsError, StopRequested, TransientError
from tasks.geo.batches import Batch
from tasks.geo.meters import Meter
from tasks.geo.nodes import Lookup, NodeProblem, Sink, Split, Stream
from tasks.geo.plan import Graph, Output, Stage
from tasks.records import Reason


class NodeFailed(LandrecordsError):
    """A node could not go on.

    error    why
    attempt  that failed, from 1
    again    whether to try once more
    """

    def __init__(self, node: str, error: BaseException) -> None:
        super().__init__(node, error)
        self.node = node
        self.error = error
        self.attempt = 1
        self.again = False

    def __str__(self) -> str:
        return f"node {self.node}: {message_of(self.error)}"


def overdue(node: str, limit_s: float | None) -> NodeFailed:
    """What to raise for a node that was at work longer than it may."""
    message = f"it took longer than its {limit_s:g} s; raise timeout_s, or give it less to do at a time."
    return NodeFailed(node, TransientError(Reason.TIMEOUT, message))


class Delivery(NamedTuple):
    """Something of a batch for the writer of an end: a sink's id, or the output that is stored."""

    end: str | Output
    packed: Any
    features: int
    size_bytes: int


class Chain:
    """Applies a stage's nodes to batches. Safe for threads, as the nodes are.

    built  what each lookup looks things up in
    dead   nodes that take nothing any more: one before them failed, and the run goes on without

    `most_bytes` is the most that a node has made of a batch.
    """

    def __init__(
        self,
        graph: Graph,
        stage: Stage,
        meters: Mapping[str, Meter],
        built: Callable[[str], Any],
        dead: Collection[str],
    ) -> None:
        self._graph, self._stage, self._meters = graph, stage, meters
        self._built, self._dead = built, dead
        self.most_bytes = 0

    def run(self, first: list[Batch]) -> list[Delivery]:
        """What is to be written of a batch; the list is emptied, so that nobody holds it longer than needed.

        Raises NodeFailed.
        """
        made: list[Delivery] = []
        todo = [(self._stage.start, first.pop())]
        while todo:
            output, batch = todo.pop()
            if not batch.rows:
                continue
            if output in self._stage.stores:
                made.append(Delivery(output, batch.to_arrow(), batch.rows, batch.nbytes))
            for name in self._stage.flows[output]:
                if name not in self._dead:
                    todo += self._applied(name, batch, made)
        return made

    def _applied(self, name: str, batch: Batch, made: list[Delivery]) -> Iterator[tuple[Output, Batch]]:
        """What the node makes of the batch; a sink's goes to `made`."""
        node, meter = self._graph.nodes[name], self._meters[name]
        results: Mapping[str, Batch] = {}
        with failing(name), meter.call():
            match node:
                case Sink():
                    made.append(Delivery(name, node.packed(batch), batch.rows, batch.nbytes))
                case Split():
                    results = node.apply(batch)
                case Lookup():
                    results = {node.outputs[0]: node.apply(batch, self._built(name))}
                case Stream():
                    results = {node.outputs[0]: node.apply(batch)}
        given = sum(result.rows for result in results.values())
        size_bytes = sum(result.nbytes for result in results.values())
        meter.count(batch.rows, given, size_bytes)
        self.most_bytes = max(self.most_bytes, size_bytes)
        return ((Output(name, port), result) for port, result in results.items())


class failing:  # noqa: N801 - reads as a statement
    """Context manager: what goes wrong in the block is the node's."""

    def __init__(self, node: str) -> None:
        self._node = node

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, _type: object, exc: BaseException | None, _traceback: object) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, StopRequested | NodeFailed):
            raise NodeFailed(self._node, exc) from exc


def message_of(error: BaseException) -> str:
    """What to tell a user: our errors are sentences, others are named by their class too."""
    said = str(error).strip()
    if isinstance(error, LandrecordsError | NodeProblem):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
