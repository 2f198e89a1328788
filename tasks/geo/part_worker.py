"""A process that runs parts of stages for another, until that one is gone.

It is told over a socket which plan it works for, and then part after part; it answers with progress and with what
became of the part.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tasks.errors import TerminalError
from tasks.geo.chain import NodeFailed, message_of
from tasks.geo.engine import Engine, Place
from tasks.geo.nodes import Outside
from tasks.geo.part_work import PartRecord, PartWork
from tasks.geo.plan import Plan
from tasks.geo.stage_folder import StageRecord
from tasks.geo.stage_work import StageWork
from tasks.geo.workers import in_thread
from tasks.records import Reason


@dataclass(frozen=True)
class Setup:
    """What a worker must know of the run."""

    plan: Plan
    outside: Outside
    place: Place
    memory_bytes: int
    fingerprints: dict[str, str]


@dataclass(frozen=True)
class PartTask:
    """A part to run.

    dead    nodes that take nothing any more
    before  records of the stages whose stored outputs it needs, by name
    """

    stage: str
    number: int
    part: dict[str, Any]
    dead: frozenset[str]
    before: dict[str, StageRecord]


@dataclass(frozen=True)
class Progress:
    """Features that a source gave, or a sink wrote."""

    node: str
    features: int
    size_bytes: int


def setup_of(engine: Engine) -> Setup:
    """Of this run: each worker has its share of the memory."""
    place = Place(engine.folder, engine.scratch, engine.run_id)
    memory_bytes = engine.budget.size_bytes // engine.threads
    return Setup(engine.plan, engine.outside, place, memory_bytes, engine.fingerprints)


def task_of(engine: Engine, work: StageWork, number: int, part: dict[str, Any]) -> PartTask:
    """A part of this run's."""
    before = {stage.name: engine.record.stages[stage.name] for stage in engine.plan.before(work.stage)}
    return PartTask(work.stage.name, number, part, frozenset(work.dead), before)


@contextlib.contextmanager
def opened_engine(setup: Setup, send: Any) -> Iterator[Engine]:
    """An engine for parts of this run, with one thread that computes: the processes are as many as the processors."""
    scratch = Path(tempfile.mkdtemp(dir=setup.place.scratch))
    engine = Engine(
        setup.plan,
        setup.outside,
        Place(setup.place.folder, scratch, setup.place.run_id),
        memory_bytes=setup.memory_bytes,
        threads=1,
        progress=lambda node, features, size_bytes: send(Progress(node, features, size_bytes)),
        fingerprints=setup.fingerprints,
    )
    try:
        yield engine
    finally:
        engine.close()
        shutil.rmtree(scratch, ignore_errors=True)


def run_part(engine: Engine, task: PartTask) -> PartRecord:
    """What became of the part. Raises NodeFailed, its error one that can be sent."""
    for name, work in engine.works.items():
        if name != task.stage:
            work.close()
    engine.record.stages = task.before
    work = engine.works[task.stage]
    work.dead = set(task.dead)
    try:
        return PartWork(work, task.number, task.part).run()
    except NodeFailed as exc:
        raise NodeFailed(exc.node, _sendable(exc.error)) from None


def _sendable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    except Exception:  # noqa: BLE001 - whatever it is that a library's error holds
        return TerminalError(Reason.INTERNAL, message_of(error))
    return error


def serve(connection: Connection) -> None:
    """Work until the other end is gone; then at once, whatever is under way."""
    sending = threading.Lock()

    def send(said: Any) -> None:
        with sending:
            connection.send(said)

    def work(engine: Engine, task: PartTask) -> None:
        try:
            send(run_part(engine, task))
        except BaseException as exc:  # noqa: BLE001 - the other end raises it
            send(exc)

    with contextlib.suppress(EOFError, OSError), opened_engine(connection.recv(), send) as engine:
        while True:
            task = connection.recv()
            in_thread("geo-part", lambda task=task: work(engine, task))  # type: ignore[misc]
    os._exit(0)


def main() -> None:
    """The only argument is the descriptor of the socket."""
    serve(Connection(int(sys.argv[1])))
