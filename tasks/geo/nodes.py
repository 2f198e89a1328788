"""What a node is: a small frozen model of its parameters with a pure function on batches.

A node's class docstring is its documentation; its fields' descriptions document the parameters. Every node is
registered under the name that workflow files use: `@node("geoprocessing.buffer")`.

    Source    reads: parts of it side by side, each a stream of batches
    Stream    batch in, batch out; chains of them are fused
    Split     batch in, one batch for each port out
    Lookup    the side input is gathered first, then it streams
    Blocking  takes whole streams, spills, then gives a stream
    Sink      writes
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from tasks.geo.batches import Batch
from tasks.geo.layouts import Layout

BATCH_ROWS = 16_384
"""Features a batch at most; fewer where they are large."""

BATCH_BYTES = 32 << 20


class NodeProblem(Exception):
    """What is wrong with a node's parameters or inputs, as a sentence with the remedy; `field` is the parameter."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Outside(Protocol):
    """What nodes may reach, and the only way they reach it; all errors are those of tasks.errors."""

    def readable(self, path: str) -> Path:
        """A local file to read. Raises ConfigurationError outside the allowed roots, or where there is none."""

    def writable(self, path: str) -> Path:
        """A local file to make. Raises ConfigurationError outside the allowed roots."""

    def postgres(self, url: str | None) -> AbstractContextManager[Any]:
        """A psycopg2 connection, in no transaction; None: the landrecords database. Closed or given back at the end."""

    def put(self, key: str, path: Path, media_type: str) -> str:
        """Upload a file to the store; returns its address."""


class Memory(Protocol):
    """The run's memory budget, shared by all that hold batches."""

    def room(self, size_bytes: int) -> bool:
        """Whether so much more may be held."""

    def hold(self, size_bytes: int) -> None:
        """Count it as held (negative: given back). Raises ConfigurationError (raise the budget) when far over."""


@dataclass(frozen=True)
class Work:
    """What a node at work is given beside its batches.

    stop    set when the run is ending: long loops look at it and raise StopRequested
    memory  the run's budget; a blocking node spills what has no room
    folder  for spilled files; its own, empty, removed after the node
    run_id, node_id, part  name a sink's part: written once, however often it is tried
    """

    outside: Outside
    stop: threading.Event
    memory: Memory
    folder: Path
    run_id: str = ""
    node_id: str = ""
    part: str = ""


@dataclass(frozen=True)
class Described:
    """A source before it is read.

    features, size_bytes  None: not known without reading
    """

    layout: Layout
    features: int | None = None
    size_bytes: int | None = None


@dataclass(frozen=True)
class Written:
    """What a sink or a part of one wrote."""

    features: int = 0
    size_bytes: int = 0
    places: tuple[str, ...] = field(default=())


class Node(BaseModel):
    """Parameters of a node; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]] = ("input",)
    outputs: ClassVar[tuple[str, ...]] = ("output",)
    many: ClassVar[bool] = False
    """Whether `input` takes any number of edges: `given` and `inputs` then have "input", "input#2", "input#3" ..."""

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Output port -> what it gives, from input port -> what comes.

        Raises NodeProblem for what cannot work: an unknown column, a missing CRS, metres in degrees.
        """
        return dict.fromkeys(self.outputs, given["input"])


class Source(Node):
    """Reads features."""

    inputs: ClassVar[tuple[str, ...]] = ()

    def describe(self, outside: Outside) -> Described:
        """Looks without reading the features. Raises NodeProblem or an error of tasks.errors."""
        raise NotImplementedError

    def fingerprint(self, outside: Outside) -> str:
        """Changes when what would be read changes (path, size, time; or a database's word); for resuming."""
        raise NotImplementedError

    def parts(self, outside: Outside, at_most: int) -> list[dict[str, Any]]:
        """JSON values that each read a share; together everything once, in order. One where it cannot be shared."""
        return [{}]

    def shared(self, outside: Outside) -> AbstractContextManager[dict[str, Any]]:
        """Open while parts are read; what it gives is added to each of them (a database's snapshot)."""
        return nullcontext({})

    def read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        """The batches of a part, of describe()'s layout, in order: BATCH_ROWS features, about BATCH_BYTES at most."""
        raise NotImplementedError


class Stream(Node):
    """One batch in, one batch out; thread-safe and picklable, so it may run in any thread or process."""

    def apply(self, batch: Batch) -> Batch:
        """Pure. The layout of the result is layouts()'s."""
        raise NotImplementedError


class Split(Node):
    """One batch in, one for each port out."""

    def apply(self, batch: Batch) -> Mapping[str, Batch]:
        """Pure. Every port is present, its batch perhaps without rows."""
        raise NotImplementedError


class Lookup(Node):
    """Gathers its `overlay` port once, then streams `input` past it."""

    inputs: ClassVar[tuple[str, ...]] = ("input", "overlay")

    def build(self, overlay: Iterator[Batch], layout: Layout, work: Work) -> Any:
        """What apply() looks things up in: picklable, thread-safe."""
        raise NotImplementedError

    def apply(self, batch: Batch, built: Any) -> Batch:
        """Pure."""
        raise NotImplementedError


class Blocking(Node):
    """Takes whole streams, gives a stream."""

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        """May begin to give before it has taken everything. Spills to work.folder what work.memory has no room for."""
        raise NotImplementedError


class Writer(Protocol):
    """An open part of a sink."""

    def write(self, packed: Any) -> None:
        """Called in order, from one thread, with what Sink.packed() made."""

    def finish(self) -> Written:
        """Makes it durable, as a whole; a part finished before is left as it is."""

    def abandon(self) -> None:
        """Leaves nothing behind. Called instead of finish(), or after it failed."""


class Sink(Node):
    """Writes features."""

    outputs: ClassVar[tuple[str, ...]] = ()
    parallel: ClassVar[bool] = False
    """Whether parts may be written side by side, in any order."""

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        """Nothing; raises NodeProblem for what it cannot write."""
        return {}

    def prepare(self, layout: Layout, work: Work) -> None:
        """Once before any part, and again when the run is resumed."""

    def packed(self, batch: Batch) -> Any:
        """What the writer is given of a batch, made in any thread: encode here, then it is done on all cores. Pure."""
        return batch

    def open(self, layout: Layout, work: Work) -> Writer:
        """For a part: of a sink that is not parallel there is only one, of the whole stream."""
        raise NotImplementedError

    def conclude(self, parts: list[Written], work: Work) -> Written:
        """Once after all parts: swap, index, upload. Idempotent."""
        total = sum(p.features for p in parts), sum(p.size_bytes for p in parts)
        return Written(*total, tuple(place for p in parts for place in p.places))


NODES: dict[str, type[Node]] = {}

N = TypeVar("N", bound=type[Node])


def node(name: str) -> Callable[[N], N]:
    """Register a node class under the name that workflow files use."""

    def registered(cls: N) -> N:
        if name in NODES:
            raise TypeError(f"two nodes are named {name}")
        cls.type = name
        NODES[name] = cls
        return cls

    return registered
