"""A stage of a run: prepared, its parts run, concluded."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tasks.errors import (
    LandrecordsError,
    OutsideUnreachable,
    RateLimited,
    TransientError,
    refuse_when_stopped,
)
from tasks.geo.chain import NodeFailed, failing, overdue
from tasks.geo.memory import Account
from tasks.geo.meters import Measured, Meter
from tasks.geo.nodes import Lookup, NodeProblem, Sink, Source, Work, Written
from tasks.geo.part_work import TICK_S, PartRecord
from tasks.geo.plan import Output, Stage
from tasks.geo.stage_folder import StageFolder, StageRecord
from tasks.geo.stored import shares
from tasks.geo.workers import in_thread
from tasks.partials import disk

if TYPE_CHECKING:
    from tasks.geo.engine import Engine

T = TypeVar("T")

PART_FEATURES = 65_536
PART_BYTES = 64 << 20
MOST_PARTS = 64
"""A part is about so many features, or bytes; a big input's parts are larger."""


class StageWork:
    """A stage in this process: what its parts share. Safe for threads.

    dead    nodes that take nothing any more: they failed, or one before them did, and the run goes on without them
    growth  bytes that its nodes made of one of a batch, at most; None: not known yet
    """

    def __init__(self, engine: Engine, stage: Stage, key: str) -> None:
        self.engine, self.stage, self.key = engine, stage, key
        self.folder = StageFolder(engine.folder / key)
        self.stop = engine.stop
        self.dead: set[str] = set()
        self.growth: float | None = None
        self.failures: dict[str, BaseException] = {}
        self.retries = Counter[str]()
        self.concluded: StageRecord | None = None
        self._attempts = Counter[tuple[str, str]]()
        self._slots = threading.BoundedSemaphore(engine.threads)
        self._built: dict[str, Any] = {}
        self._shared: dict[str, Any] | None = None
        self._keys: dict[str, str] = {}
        self._lock, self._building = threading.Lock(), threading.Lock()
        self._held = ExitStack()

    def close(self) -> None:
        """Give back what lookups and sources hold."""
        self._built.clear()
        self._shared = None
        self._held.close()

    @property
    def sinks(self) -> list[str]:
        """Ids of its sinks that are not dead."""
        return [name for name in self.engine.plan.sinks(self.stage) if name not in self.dead]

    # --- before ---

    def prepare(self) -> list[int]:
        """Make everything ready; returns the numbers of the parts that are to be run. Raises NodeFailed."""
        return self._bearing("prepare", self._prepared)

    def _prepared(self) -> list[int]:
        self.folder.make(self._parts)
        for name in self.sinks:
            sink = cast(Sink, self.engine.graph.nodes[name])
            self._aside(name, partial(sink.prepare, self.engine.graph.given(name)["input"]))
        self._share()
        return [n for n in range(len(self.folder.parts)) if self.record(n) is None]

    def _share(self) -> None:
        """What the source keeps open while its parts are read."""
        root = self.stage.root
        node = self.engine.graph.nodes[root] if isinstance(root, str) else None
        if isinstance(node, Source) and self._shared is None:
            with failing(str(root)):
                self._shared = self._held.enter_context(node.shared(self.engine.outside))

    def _parts(self) -> list[dict[str, Any]]:
        """Of a sink that takes everything in order there is one; of a dead one too, which a resumed run tries again."""
        graph, root = self.engine.graph, self.stage.root
        alone = any(not cast(Sink, graph.nodes[name]).parallel for name in self.engine.plan.sinks(self.stage))
        at_most = 1 if alone else MOST_PARTS
        if isinstance(root, Output):
            found = shares(self.engine.stored_folder(root), self.engine.stored(root), at_most)
            return [{"pieces": [list(asdict(piece).values()) for piece in pieces]} for pieces in found]
        node = graph.nodes[root]
        if not isinstance(node, Source):
            return [{}]
        with failing(root):
            return node.parts(self.engine.outside, min(at_most, self._share_count(root)))

    def _share_count(self, root: str) -> int:
        described = self.engine.graph.described[root]
        by_rows = -(-(described.features or 0) // PART_FEATURES)
        by_bytes = -(-(described.size_bytes or 0) // PART_BYTES)
        known = described.features is not None or described.size_bytes is not None
        return max(1, min(MOST_PARTS, max(by_rows, by_bytes))) if known else MOST_PARTS // 8

    # --- parts ---

    def run_part(self, number: int) -> PartRecord:
        """Run it, or return what it did before. Raises NodeFailed, or StopRequested."""
        found = self.record(number)
        if found is not None:
            return found
        part = {**self.folder.parts[number], **(self._shared or {})}
        with self._slots:
            refuse_when_stopped(self.stop)
            record = self._bearing(f"part {number}", lambda: self.engine.run_part(self, number, part))
        self.folder.keep_part(number, record)
        return record

    def _bearing(self, what: str, call: Callable[[], T]) -> T:
        """The call's result; without nodes that may fail, once they did."""
        while True:
            try:
                with self._attempt(what):
                    return call()
            except NodeFailed as exc:
                if exc.again or not self._borne(exc):
                    raise

    @contextmanager
    def _attempt(self, what: str) -> Iterator[None]:
        """Says of a failure in the block whether another attempt is due."""
        try:
            yield
        except NodeFailed as exc:
            with self._lock:
                self._attempts[what, exc.node] += 1
                exc.attempt = self._attempts[what, exc.node]
                exc.again = heals(exc.error) and exc.attempt <= self.engine.graph.ran(exc.node).max_retries
                self.retries[exc.node] += exc.again
            self._tell(exc)
            raise

    def _tell(self, exc: NodeFailed) -> None:
        """A line for the log; of an error that nobody raised on purpose, all there is."""
        foreign = not isinstance(exc.error, LandrecordsError | NodeProblem)
        again = "; it is tried again" if exc.again else ""
        self.engine.log.warning("%s%s", exc, again, exc_info=exc.error if foreign else None)

    def _borne(self, exc: NodeFailed) -> bool:
        """Whether the stage goes on without the node: some other end of it must be left."""
        graph = self.engine.graph
        if not graph.ran(exc.node).continue_on_error:
            return False
        with self._lock:
            dead = self.dead | {exc.node} | graph.below[exc.node]
            if not self.engine.plan.ends(self.stage, dead):
                return False
            self.failures[exc.node] = exc.error
            self.dead = dead
        return True

    def record(self, number: int) -> PartRecord | None:
        """Of a part that was done, if what it stored is there."""
        record = self.folder.part(number)
        return record if record and record.written.keys() >= set(self.sinks) else None

    def built(self, name: str, meter: Meter, stop: threading.Event) -> Any:
        """What a lookup looks things up in; built by the first who asks. What fails gives back what it held."""
        with self._building, ExitStack() as opened:
            if name not in self._built:
                node = cast(Lookup, self.engine.graph.nodes[name])
                port = next(port for port in node.inputs if port != "input")
                work = opened.enter_context(self.work(name, "", stop))
                overlay = self.engine.whole(self.engine.graph.inputs(name)[port], stop)
                self._built[name] = node.build(overlay, self.engine.graph.given(name)[port], work)
                self._held.enter_context(opened.pop_all())
            return self._built[name]

    @contextmanager
    def work(self, node: str, part: str, stop: threading.Event) -> Iterator[Work]:
        """What a node is given, with a folder of its own; what it holds of the budget is given back with it."""
        with disk(self.engine.scratch):
            folder = Path(tempfile.mkdtemp(prefix=f"{node}-", dir=self.engine.scratch))
        account = Account(self.engine.budget)
        try:
            yield Work(self.engine.outside, stop, account, folder, self._written_as(node), node, part)
        finally:
            account.close()
            rmtree(folder, ignore_errors=True)

    def _written_as(self, node: str) -> str:
        """The run, and what its parts are to this node: the same where only other nodes of the stage were corrected."""
        if node not in self._keys:
            self._keys[node] = self.engine.keys.of_node(node, self.folder.parts_text)
        return f"{self.engine.run_id}-{self._keys[node]}"

    def _aside(self, name: str, call: Callable[[Work], T]) -> tuple[T, Measured]:
        """The call's result, made in a thread of its own: neither a stop nor the end of the node's time waits for it.

        Raises NodeFailed, StopRequested.
        """
        limit_s = self.engine.graph.ran(name).timeout_s
        meter, made = Meter(self.engine.budget, limit_s), Future[T]()

        def work() -> None:
            try:
                with failing(name), meter.call(), self.work(name, "", self.stop) as given:
                    result = call(given)
                made.set_result(result)
            except BaseException as exc:  # noqa: BLE001 - raised by who waits
                made.set_exception(exc)

        in_thread(f"geo-aside-{name}", work)
        while wait([made], TICK_S).not_done:
            refuse_when_stopped(self.stop)
            if meter.overdue:
                raise overdue(name, limit_s)
        return made.result(), meter.measured

    # --- after ---

    def conclude(self) -> StageRecord:
        """Once all parts are run: swap, index, upload. Raises NodeFailed."""
        return self._bearing("conclude", self._concluded)

    def _concluded(self) -> StageRecord:
        records = [cast(PartRecord, self.record(n)) for n in range(len(self.folder.parts))]
        measured = dict.fromkeys(self.stage.nodes, Measured())
        for record in records:
            for name, each in record.measured.items():
                measured[name] = measured[name].plus(each)
        written: dict[str, Written] = {}
        for name in self.sinks:
            sink = cast(Sink, self.engine.graph.nodes[name])
            written[name], took = self._aside(
                name, partial(sink.conclude, [record.written[name] for record in records])
            )
            measured[name] = measured[name].plus(took)
        stored = {str(o): [record.stored[str(o)] for record in records] for o in self.stage.stores}
        done = StageRecord(measured, written, stored)
        if not self.dead:  # else a resumed run tries again
            self.folder.keep_done(done)
        self.concluded = done
        return done


def heals(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    return isinstance(error, TransientError | RateLimited | OutsideUnreachable)
