"""One part of a stage at work: a thread reads, the run's workers compute, a thread writes, all at the same time.

Batches are written in the order they were read. Between the three there are few of them, and never more than the run's
memory budget has room for. The caller's thread does none of the work: it looks after time and the stop event, so it
can leave at any moment, whatever the others hang in.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tasks.errors import StopRequested
from tasks.geo.batches import Batch
from tasks.geo.chain import Chain, Delivery, failing, overdue
from tasks.geo.memory import Account
from tasks.geo.meters import Measured, Meter
from tasks.geo.nodes import BATCH_BYTES, Blocking, Sink, Source, Work, Writer, Written
from tasks.geo.plan import Output
from tasks.geo.stored import Piece, StoredPart, StoreWriter, read_pieces
from tasks.geo.workers import in_thread

if TYPE_CHECKING:
    from tasks.geo.stage_work import StageWork

TICK_S = 0.2
"""How often one who waits looks whether it should stop."""

GRACE_S = 1.0
"""How long a part that ends early waits for its threads: to roll back, and to remove what is half done."""

AHEAD = 3
"""Batches under way in a part, besides those that the workers are at."""

PROBE_ROWS = 1_024
"""Features of a stage that go ahead: they tell how many bytes its nodes make of one."""

LEAST_ROWS = 64
"""Of a piece of a batch, however much becomes of it."""

BUDGETS_SHARE = 4
"""So much of the budget, all workers together, is what they are at: its copies in nodes and libraries come on top."""


@dataclass(frozen=True)
class PartRecord:
    """What became of a part: kept in the run's folder, so that it is not done again."""

    measured: dict[str, Measured]
    written: dict[str, Written]
    stored: dict[str, StoredPart]


Item = Future[list[Delivery]]


class PartWork:
    """Runs one part once."""

    def __init__(self, of: StageWork, number: int, part: dict[str, Any]) -> None:
        self._of, self._number, self._part = of, number, part
        self._graph, self._stage = of.engine.graph, of.stage
        budget = of.engine.budget
        self._meters = {name: Meter(budget, self._graph.ran(name).timeout_s) for name in of.stage.nodes}
        self._account = Account(budget)
        self._piece_bytes = min(BATCH_BYTES, budget.size_bytes // (BUDGETS_SHARE * of.engine.threads))
        self._ended, self._done = threading.Event(), threading.Event()
        self._queue: queue.Queue[Item | None] = queue.Queue(of.engine.threads + AHEAD)
        self._works = ExitStack()
        self._failure: BaseException | None = None
        self._record: PartRecord | None = None
        self._submitted = self._delivered = 0  # each counted by one thread only: what is between is under way

    def run(self) -> PartRecord:
        """Raises NodeFailed, or StopRequested."""
        threads = [in_thread(f"geo-{work.__name__}", work) for work in (self._read, self._write)]
        try:
            while not self._done.wait(TICK_S):
                self._look()
        finally:
            self._ended.set()
            deadline = time.monotonic() + GRACE_S
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            self._account.close()
            self._works.close()
        if self._failure is not None:
            raise self._failure
        return cast(PartRecord, self._record)

    def _look(self) -> None:
        if self._of.stop.is_set():
            self._fail(StopRequested("the run is ending; what this part had not done is left out."))
        for name, meter in self._meters.items():
            if meter.overdue:
                self._of.engine.workers.add()
                self._fail(overdue(name, self._graph.ran(name).timeout_s))

    def _fail(self, exc: BaseException) -> None:
        """The first failure counts: what follows from it is none."""
        if not self._ended.is_set():
            self._failure = exc
            self._ended.set()
        self._done.set()

    def _work(self, node: str) -> Work:
        return self._works.enter_context(self._of.work(node, str(self._number), self._ended))

    # --- reading ---

    def _read(self) -> None:
        try:
            with closing(self._batches()) as batches:
                for batch in batches:
                    self._submit(batch)
                    del batch
            self._put(None)
        except BaseException as exc:  # noqa: BLE001 - told by run()
            self._fail(exc)

    def _batches(self) -> Generator[Batch, None, None]:
        """What comes in, counted for the root."""
        root = self._stage.root
        if isinstance(root, Output):
            pieces = [Piece(*piece) for piece in self._part["pieces"]]
            folder = self._of.engine.stored_folder(root)
            yield from read_pieces(folder, pieces, self._graph.layouts[root], self._ended)
            return
        meter = self._meters[root]
        with failing(root), meter.call():
            batches = self._of_root(root)
        while True:
            with failing(root), meter.call():
                batch = next(batches, None)
            if batch is None:
                return
            meter.count(features_out=batch.rows, bytes_out=batch.nbytes)
            self._of.engine.progress(root, batch.rows, batch.nbytes)
            yield batch

    def _of_root(self, root: str) -> Iterator[Batch]:
        node = self._graph.nodes[root]
        if isinstance(node, Source):
            return node.read(self._part, self._work(root))
        blocking = cast(Blocking, node)
        inputs = {port: self._whole(root, output) for port, output in self._graph.inputs(root).items()}
        return blocking.run(inputs, self._graph.given(root), self._work(root))

    def _whole(self, node: str, output: Output) -> Iterator[Batch]:
        for batch in self._of.engine.whole(output, self._ended):
            self._meters[node].count(features_in=batch.rows)
            yield batch

    def _submit(self, batch: Batch) -> None:
        """Give it to the workers, in pieces that nodes do not make too much of: buffers are many times larger."""
        first, size_bytes = 0, max(batch.nbytes, 1)
        while first < batch.rows:
            growth = self._of.growth
            most = int(batch.rows * self._piece_bytes / (size_bytes * growth)) if growth else PROBE_ROWS
            last = min(batch.rows, first + max(most, LEAST_ROWS))
            self._submit_piece(batch.slice(first, last - first), growth)
            first = last

    def _submit_piece(self, piece: Batch, growth: float | None) -> None:
        """Once there is room: where nothing is under way, at once. The stage's first is waited for."""
        size_bytes = max(piece.nbytes, min(int(piece.nbytes * (growth or 1)), self._piece_bytes))
        while self._submitted > self._delivered and not self._account.budget.await_room(size_bytes, TICK_S):
            self._refuse_when_ended()
        with failing(self._stage.start.node):
            self._account.hold(size_bytes)
        self._submitted += 1
        first = [piece]
        made = self._of.engine.workers.submit(lambda: self._applied(first, size_bytes))
        self._put(made)
        while growth is None and wait([made], TICK_S).not_done:
            self._refuse_when_ended()

    def _put(self, item: Item | None) -> None:
        while True:
            self._refuse_when_ended()
            try:
                return self._queue.put(item, timeout=TICK_S)
            except queue.Full:
                continue

    def _refuse_when_ended(self) -> None:
        if self._ended.is_set():
            raise StopRequested("this part has ended.")

    # --- computing, in the workers' threads ---

    def _applied(self, first: list[Batch], size_bytes: int) -> list[Delivery]:
        self._refuse_when_ended()
        given_bytes = max(first[0].nbytes, 1)
        chain = Chain(self._graph, self._stage, self._meters, self._built, self._of.dead)
        made = chain.run(first)
        made_bytes = sum(delivery.size_bytes for delivery in made)
        self._of.growth = max(self._of.growth or 1.0, max(chain.most_bytes, made_bytes) / given_bytes)
        with failing(self._stage.nodes[-1]):
            self._account.hold(made_bytes - size_bytes)
        return made

    def _built(self, name: str) -> Any:
        return self._of.built(name, self._meters[name], self._ended)

    # --- writing ---

    def _write(self) -> None:
        writers: dict[str | Output, Any] = {}
        try:
            for name in self._of.sinks:
                writers[name] = self._opened(name)
            for output in self._stage.stores:
                with failing(output.node):
                    file = self._of.folder.stored_file(output, self._number)
                    writers[output] = StoreWriter(file, self._graph.layouts[output])
            while (item := self._next()) is not None:
                self._deliver(item.result(), writers)
            self._record = self._finished(writers)
            self._done.set()
        except BaseException as exc:  # noqa: BLE001 - told by run()
            self._fail(exc)
            self._abandon(writers)

    def _opened(self, name: str) -> Writer:
        node = cast(Sink, self._graph.nodes[name])
        with failing(name), self._meters[name].call():
            return node.open(self._graph.given(name)["input"], self._work(name))

    def _next(self) -> Item | None:
        while True:
            self._refuse_when_ended()
            try:
                return self._queue.get(timeout=TICK_S)
            except queue.Empty:
                continue

    def _deliver(self, made: list[Delivery], writers: dict[str | Output, Any]) -> None:
        self._refuse_when_ended()
        for end, packed, features, size_bytes in made:
            if isinstance(end, Output):
                with failing(end.node):
                    writers[end].write(packed)
            elif end not in self._of.dead:
                with failing(end), self._meters[end].call():
                    writers[end].write(packed)
                self._of.engine.progress(end, features, size_bytes)
            self._account.hold(-size_bytes)
        self._delivered += 1

    def _finished(self, writers: dict[str | Output, Any]) -> PartRecord:
        """Stores first: what a sink has written is there for good."""
        stored: dict[str, StoredPart] = {}
        for output in self._stage.stores:
            with failing(output.node):
                stored[str(output)] = writers[output].finish()
            del writers[output]
        written: dict[str, Written] = {}
        for name in self._of.sinks:
            self._refuse_when_ended()
            if name in self._of.dead:
                continue
            meter = self._meters[name]
            with failing(name), meter.call():
                written[name] = writers[name].finish()
            del writers[name]
            meter.count(features_out=written[name].features, bytes_out=written[name].size_bytes)
        self._abandon(writers)
        return PartRecord({name: meter.measured for name, meter in self._meters.items()}, written, stored)

    def _abandon(self, writers: dict[str | Output, Any]) -> None:
        for writer in writers.values():
            try:
                writer.abandon()
            except Exception as exc:  # noqa: BLE001 - the first failure is told
                self._of.engine.log.warning("a part that was given up left something behind: %s", exc)
