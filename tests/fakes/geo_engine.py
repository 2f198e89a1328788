"""Small nodes for the engine: numbered squares that are slow, fail or hang when told to, and graphs of them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import shapely
from pydantic import SecretStr

from tasks.errors import TerminalError, TransientError
from tasks.geo.batches import Batch, Geometries
from tasks.geo.definition import Edge, Execution
from tasks.geo.engine import Engine, Place
from tasks.geo.layouts import GeometryField, Layout
from tasks.geo.nodes import Blocking, Described, Lookup, Node, Outside, Sink, Source, Split, Stream, Work, Written
from tasks.geo.plan import Graph, Plan, plan

LAYOUT = Layout(pa.schema([pa.field("n", pa.int64())]), GeometryField(kind="Polygon", crs="EPSG:3857"))
TABLE = Layout(pa.schema([pa.field("n", pa.int64())]))

reads: list[tuple[str, int]] = []
"""(name, first number) of every part that was read."""

calls: dict[str, int] = {}
"""Name -> times a flaky node was called."""


def squares(numbers: range) -> Batch:
    """One unit square a number."""
    n = np.arange(numbers.start, numbers.stop)
    return Batch(LAYOUT, (pa.array(n),), Geometries(shapes=shapely.box(n, 0, n + 1, 1)), len(n))


class Numbers(Source):
    """The squares 0 .. features-1, in batches of `rows`."""

    type: ClassVar[str] = "test.numbers"
    name: str = "numbers"
    features: int = 1000
    rows: int = 100
    batch_s: float = 0.0
    print: str = "1"
    shares: int = 4

    def describe(self, outside: Outside) -> Described:
        return Described(LAYOUT, self.features, self.features * 100)

    def fingerprint(self, outside: Outside) -> str:
        return self.print

    def parts(self, outside: Outside, at_most: int) -> list[dict[str, Any]]:
        count = min(at_most, self.shares)
        bounds = [self.features * k // count for k in range(count + 1)]
        return [{"first": a, "last": b} for a, b in pairwise(bounds)]

    def read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        reads.append((self.name, part["first"]))
        for first in range(part["first"], part["last"], self.rows):
            time.sleep(self.batch_s)
            yield squares(range(first, min(first + self.rows, part["last"])))


class Plus(Stream):
    """Adds to every number; slow, hung or failing where told to."""

    type: ClassVar[str] = "test.plus"
    add: int = 0
    batch_s: float = 0.0
    burn_s: float = 0.0
    fails_at: int | None = None
    flaky: str | None = None
    flaky_times: int = 1

    def apply(self, batch: Batch) -> Batch:
        time.sleep(self.batch_s)
        until = time.thread_time() + self.burn_s
        while time.thread_time() < until:
            pass
        if self.fails_at is not None and self.fails_at in batch.column("n").to_pylist():
            raise TerminalError("bad_row", f"{self.fails_at} is no good; leave it out.")
        if self.flaky is not None:
            calls[self.flaky] = calls.get(self.flaky, 0) + 1
            if calls[self.flaky] <= self.flaky_times:
                raise TransientError("connection", "it broke off; it may come back.")
        numbers = pa.array(batch.column("n").to_numpy() + self.add)
        return batch.with_attributes({"n": numbers}, batch.layout)


class Uneven(Numbers):
    """In batches of 10,000 when it is read for the first time, of 7,000 from then on."""

    type: ClassVar[str] = "test.uneven"

    def read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        rows = 7_000 if reads else 10_000
        return self.model_copy(update={"rows": rows})._read(part, work)

    def _read(self, part: dict[str, Any], work: Work) -> Iterator[Batch]:
        return super().read(part, work)


class Deadly(Stream):
    """Ends its process, the first time."""

    type: ClassVar[str] = "test.deadly"
    mark: Path

    def apply(self, batch: Batch) -> Batch:
        if not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return batch


class Parity(Split):
    """Even and odd numbers."""

    type: ClassVar[str] = "test.parity"
    outputs: ClassVar[tuple[str, ...]] = ("even", "odd")

    def apply(self, batch: Batch) -> Mapping[str, Batch]:
        even = batch.column("n").to_numpy() % 2 == 0
        return {"even": batch.take(even), "odd": batch.take(~even)}


class Among(Lookup):
    """Only numbers that the overlay has."""

    type: ClassVar[str] = "test.among"
    batch_s: float = 0.0
    build_s: float = 0.0
    hold_bytes: int = 0
    flaky_times: int = 0

    def build(self, overlay: Iterator[Batch], layout: Layout, work: Work) -> Any:
        work.memory.hold(self.hold_bytes)
        time.sleep(self.build_s)
        calls["build"] = calls.get("build", 0) + 1
        if calls["build"] <= self.flaky_times:
            raise TransientError("connection", "it broke off; it may come back.")
        return np.concatenate([np.empty(0, int), *(batch.column("n").to_numpy() for batch in overlay)])

    def apply(self, batch: Batch, built: Any) -> Batch:
        time.sleep(self.batch_s)
        return batch.take(np.isin(batch.column("n").to_numpy(), built))


class Total(Blocking):
    """The sum of all numbers of all streams, as a table of one row."""

    type: ClassVar[str] = "test.total"
    many: ClassVar[bool] = True
    hold_bytes: int = 0
    batch_s: float = 0.0

    def layouts(self, given: Mapping[str, Layout]) -> Mapping[str, Layout]:
        return {"output": TABLE}

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        total = 0
        for batch in chain.from_iterable(inputs.values()):
            time.sleep(self.batch_s)
            work.memory.hold(self.hold_bytes)
            total += int(batch.column("n").to_numpy().sum())
        yield Batch(TABLE, (pa.array([total]),), None, 1)


class Ordered(Blocking):
    """Everything again, in order of the numbers."""

    type: ClassVar[str] = "test.ordered"

    def run(self, inputs: Mapping[str, Iterator[Batch]], given: Mapping[str, Layout], work: Work) -> Iterator[Batch]:
        numbers = sorted(n for batch in inputs["input"] for n in batch.column("n").to_pylist())
        for first in range(0, len(numbers), 100):
            chosen = numbers[first : first + 100]
            yield Batch(
                LAYOUT,
                (pa.array(chosen, pa.int64()),),
                Geometries(shapes=shapely.box(np.array(chosen), 0, np.array(chosen) + 1, 1)),
                len(chosen),
            )


class Kept(Sink):
    """Writes the numbers of each part into a file; all parts of all attempts are in `folder`."""

    type: ClassVar[str] = "test.kept"
    parallel: ClassVar[bool] = True
    folder: Path
    write_s: float = 0.0
    broken: bool = False
    hang_s: float = 0.0
    conclude_s: float = 0.0
    fails_in: str = ""
    url: SecretStr | None = None

    def prepare(self, layout: Layout, work: Work) -> None:
        if self.fails_in == "prepare":
            raise TerminalError("bad_row", "the table lacks a column; add it.")

    def packed(self, batch: Batch) -> Any:
        return batch.column("n").to_pylist()

    def open(self, layout: Layout, work: Work) -> KeptWriter:
        return KeptWriter(self, work)

    def conclude(self, parts: list[Written], work: Work) -> Written:
        time.sleep(self.conclude_s)
        if self.fails_in == "conclude":
            raise TerminalError("bad_row", "the index cannot be made; look at the table.")
        (self.folder / "all.json").write_text(json.dumps(self.numbers()))
        return super().conclude(parts, work)

    def numbers(self) -> list[int]:
        """What is written, in the order of the parts."""
        files = sorted(self.folder.glob("part-*.json"), key=lambda file: int(file.stem.split("-")[1]))
        return [n for file in files for n in json.loads(file.read_text())]


class KeptWriter:
    def __init__(self, sink: Kept, work: Work) -> None:
        self._sink, self._path = sink, sink.folder / f"part-{work.part}.json"
        sink.folder.mkdir(parents=True, exist_ok=True)
        self._numbers: list[int] = []

    def write(self, packed: Any) -> None:
        time.sleep(self._sink.write_s)
        if self._sink.broken:
            raise TransientError("connection", "the table is away; look whether it is back.")
        self._numbers += packed

    def finish(self) -> Written:
        time.sleep(self._sink.hang_s)
        self._path.write_text(json.dumps(self._numbers))
        return Written(len(self._numbers), 8 * len(self._numbers), (str(self._path),))

    def abandon(self) -> None:
        self._path.with_suffix(".gone").touch()


class InOrder(Kept):
    """The same, of the whole stream in its order."""

    type: ClassVar[str] = "test.in_order"
    parallel: ClassVar[bool] = False


class NoOutside:
    """For nodes that reach nothing."""

    def readable(self, path: str) -> Path:
        raise AssertionError(path)

    def writable(self, path: str) -> Path:
        raise AssertionError(path)

    def postgres(self, url: str | None) -> Any:
        raise AssertionError(url)

    def put(self, key: str, path: Path, media_type: str) -> str:
        raise AssertionError(key)


def graph(nodes: Mapping[str, Node], edges: str, **execution: Execution) -> Graph:
    """`edges`: "a>b a.odd>c.overlay"; `execution` by node."""
    parsed = [_edge(edge) for edge in edges.split()]
    layouts: dict[tuple[str, str], Layout] = {}
    todo = dict(nodes)
    while todo:
        for name, made in list(todo.items()):
            mine = [edge for edge in parsed if edge.target == name]
            if isinstance(made, Source):
                layouts[name, "output"] = made.describe(NoOutside()).layout
            elif all((edge.source, edge.from_port) in layouts for edge in mine):
                given = {edge.to_port: layouts[edge.source, edge.from_port] for edge in mine}
                layouts |= {(name, port): layout for port, layout in made.layouts(given).items()}
            else:
                continue
            del todo[name]
    described = {name: made.describe(NoOutside()) for name, made in nodes.items() if isinstance(made, Source)}
    return Graph(nodes, tuple(parsed), layouts, described, execution)


def _edge(text: str) -> Edge:
    source, _, target = text.partition(">")
    name, _, from_port = source.partition(".")
    to, _, to_port = target.partition(".")
    return Edge.model_validate(
        {"from": name, "to": to, "from_port": from_port or "output", "to_port": to_port or "input"}
    )


class Bench:
    """Engines on one run's folder, one after another, as a run and its resumed runs are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened = ExitStack()

    def engine(self, of: Graph | Plan, **options: Any) -> Engine:
        made = plan(of) if isinstance(of, Graph) else of
        for name in ("run", "scratch"):
            (self.folder / name).mkdir(exist_ok=True, parents=True)
        place = Place(self.folder / "run", self.folder / "scratch", "run-1")
        engine = Engine(made, NoOutside(), place, **{"threads": 2, **options})
        self._opened.callback(engine.close)
        return engine

    def close(self) -> None:
        self._opened.close()


def after(seconds: float, event: threading.Event) -> None:
    """Sets the event so much later."""
    timer = threading.Timer(seconds, event.set)
    timer.daemon = True
    timer.start()
