"""Runs a plan: every stage starts when those it needs are done, and nothing else holds it up.

What a stage stores and what it did lies in the run's folder under a key made of its nodes, its source's fingerprint and
the keys of the stages before it. A run that is resumed finds there what is done; what was changed meanwhile, a
parameter or an input, is done anew with all that follows from it.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from tasks.errors import StopRequested
from tasks.geo.batches import Batch
from tasks.geo.chain import NodeFailed
from tasks.geo.keys import Keys
from tasks.geo.memory import Budget
from tasks.geo.nodes import Outside, Source
from tasks.geo.part_work import TICK_S, PartRecord, PartWork
from tasks.geo.plan import Output, Plan, Stage
from tasks.geo.stage_folder import StageRecord
from tasks.geo.stage_work import StageWork
from tasks.geo.stored import StoredPart, read_all
from tasks.geo.workers import Workers, in_thread

log = logging.getLogger(__name__)

STAGES_AT_ONCE = 7
RETRY_AFTER_S = (2.0, 5.0, 15.0)
"""Delays before further attempts; the last one again and again."""


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Place:
    """Where a run works.

    folder   of the run: what its stages stored; stays until the run is complete
    scratch  for files of nodes at work; empty, gone with the process
    """

    folder: Path
    scratch: Path
    run_id: str


RunPart = Callable[[StageWork, int, dict[str, Any]], PartRecord]
"""Runs a part of a stage, given its number and what its source said of it. Raises NodeFailed, or StopRequested."""


@dataclass
class RunRecord:
    """What became of a run.

    stages    name -> its record, of those that are done
    restored  names of those that an earlier attempt had done
    failures  node -> why it failed
    skipped   nodes that were left out since one before them failed
    """

    stages: dict[str, StageRecord] = field(default_factory=dict)
    restored: set[str] = field(default_factory=set)
    failures: dict[str, BaseException] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)


class Engine:
    """A plan at work in this process. `stop`, once set, ends it within seconds.

    progress  called with a node, features and their bytes: of those that give a stage its features, of sinks
    changed   called with stages that began or ended, first of all with those there are
    fingerprints  of the sources, where they are known already
    """

    def __init__(
        self,
        plan: Plan,
        outside: Outside,
        place: Place,
        *,
        memory_bytes: int = 256 << 20,
        threads: int | None = None,
        progress: Callable[[str, int, int], None] = lambda _node, _features, _bytes: None,
        changed: Callable[[Sequence[Stage]], None] = lambda _stages: None,
        fingerprints: Mapping[str, str] | None = None,
    ) -> None:
        self.plan, self.graph, self.outside = plan, plan.graph, outside
        self.folder, self.scratch, self.run_id = place.folder, place.scratch, place.run_id
        self.threads = threads or cores()
        self.progress, self._changed = progress, changed
        self.log = log
        self.stop = threading.Event()
        self.budget = Budget(memory_bytes)
        self.workers = Workers(self.threads)
        self.record = RunRecord()
        self.flying: dict[str, threading.Thread] = {}
        self.fingerprints = dict(fingerprints) if fingerprints is not None else self._fingerprints()
        self.run_part: RunPart = lambda work, number, part: PartWork(work, number, part).run()
        self.keys = Keys(plan, self.fingerprints)
        self.works = {stage.name: StageWork(self, stage, self.keys.stages[stage.name]) for stage in plan.stages}

    def _fingerprints(self) -> dict[str, str]:
        sources = {name: node for name, node in self.graph.nodes.items() if isinstance(node, Source)}
        return {name: node.fingerprint(self.outside) for name, node in sources.items()}

    def close(self) -> None:
        """Stop everything and give it back."""
        self.stop.set()
        self.workers.close()
        for work in self.works.values():
            work.close()

    # --- what stages ask for ---

    def whole(self, output: Output, stop: threading.Event) -> Iterator[Batch]:
        """All of a stored output, in order."""
        return read_all(self.stored_folder(output), self.stored(output), self.graph.layouts[output], stop)

    def stored(self, output: Output) -> list[StoredPart]:
        """The files of a stored output."""
        return self.record.stages[self.plan.makers[output].name].stored[str(output)]

    def stored_folder(self, output: Output) -> Path:
        """Where they are."""
        return self.works[self.plan.makers[output].name].folder.path

    # --- running ---

    def run(self, run_stage: Callable[[StageWork], StageRecord] | None = None) -> RunRecord:
        """Every stage that is not done yet.

        run_stage  runs one stage to its end; by default in threads of this process

        Raises the first failure that is not to be borne, after everything else has stopped; StopRequested.
        """
        self._restore()
        self._changed(self.plan.stages)
        todo = [stage for stage in self.plan.stages if stage.name not in self.record.stages]
        ended: queue.SimpleQueue[tuple[Stage, StageRecord | BaseException]] = queue.SimpleQueue()
        flying = self.flying
        failure: BaseException | None = None
        while todo or flying:
            if failure is None and not self.stop.is_set():
                for stage in self._ready(todo)[: STAGES_AT_ONCE - len(flying)]:
                    todo.remove(stage)
                    flying[stage.name] = self._started(stage, run_stage or self.run_stage, ended)
                    self._changed([stage])
            elif not flying:
                break
            try:
                stage, result = ended.get(timeout=TICK_S)
            except queue.Empty:
                continue
            flying.pop(stage.name).join()
            self.works[stage.name].close()
            self.record.failures |= self.works[stage.name].failures
            if isinstance(result, BaseException):
                failure = failure or self._failed(stage, result, todo)
            else:
                self.record.stages[stage.name] = result
                self._leave_out(self.works[stage.name].dead, todo)
                self._forget_inputs(stage)
            self._changed([stage])
        if failure is not None:
            raise failure
        if self.stop.is_set():
            raise StopRequested("the run was stopped; it can be resumed.")
        return self.record

    def _ready(self, todo: list[Stage]) -> list[Stage]:
        done, works = self.record.stages, self.works
        return [s for s in todo if all(b.name in done for b in self.plan.before(s, works[s.name].dead))]

    def _started(
        self,
        stage: Stage,
        run_stage: Callable[[StageWork], StageRecord],
        ended: queue.SimpleQueue[tuple[Stage, StageRecord | BaseException]],
    ) -> threading.Thread:
        def work() -> None:
            try:
                ended.put((stage, run_stage(self.works[stage.name])))
            except BaseException as exc:  # noqa: BLE001 - told by run()
                ended.put((stage, exc))

        return in_thread(f"geo-stage-{stage.name}", work)

    def _failed(self, stage: Stage, exc: BaseException, todo: list[Stage]) -> BaseException | None:
        """The failure, or None where the run goes on without the node and all that comes after it."""
        if isinstance(exc, NodeFailed):
            self.record.failures[exc.node] = exc.error
            if self.graph.ran(exc.node).continue_on_error:
                self._leave_out(set(stage.nodes).union(*(self.graph.below[name] for name in stage.nodes)), todo)
                return None
        self.stop.set()
        return exc

    def _leave_out(self, lost: set[str], todo: list[Stage]) -> None:
        """Nothing came of these nodes: what needs them is skipped, and the rest of its stage goes on without."""
        self.record.skipped |= lost - self.record.failures.keys()
        for stage in list(todo):
            if stage.start.node in lost or not self.plan.ends(stage, lost):
                todo.remove(stage)
            self.works[stage.name].dead |= lost & set(stage.nodes)

    def _restore(self) -> None:
        """Take over what is done: all of it, but for stages whose stored outputs are needed and gone."""
        found = {name: work.folder.done() for name, work in self.works.items()}
        missing: set[str] = set()
        for stage in reversed(self.plan.stages):
            done = found[stage.name]
            if done is None or stage.name in missing:
                missing.add(stage.name)
                for need in stage.needs:
                    maker = self.plan.makers[need].name
                    before, folder = found[maker], self.works[maker].folder.path
                    if before is None or not all(part.intact(folder) for part in before.stored[str(need)]):
                        missing.add(maker)
        for name, done in found.items():
            if done is not None and name not in missing:
                self.record.stages[name] = done
                self.record.restored.add(name)

    def _forget_inputs(self, stage: Stage) -> None:
        """Remove stored outputs that no stage needs any more."""
        for need in stage.needs:
            users = [other.name for other in self.plan.stages if need in other.needs]
            if all(name in self.record.stages and not self.works[name].dead for name in users):
                for part in self.stored(need):
                    (self.stored_folder(need) / part.file).unlink(missing_ok=True)

    def run_stage(self, work: StageWork) -> StageRecord:
        """One stage in threads of this process."""
        numbers = self.patiently(work.prepare)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="geo-part") as pool:
            for _ in pool.map(lambda number: self.patiently(partial(work.run_part, number)), numbers):
                pass
        return cast(StageRecord, self.patiently(work.conclude))

    def patiently(self, call: Callable[[], Any]) -> Any:
        """The call's result, after further attempts where that may help."""
        while True:
            try:
                return call()
            except NodeFailed as exc:
                if not self.waits(exc):
                    raise

    def waits(self, failed: NodeFailed) -> bool:
        """Whether to try again, after a delay that the end of the run cuts short."""
        delay_s = RETRY_AFTER_S[min(failed.attempt, len(RETRY_AFTER_S)) - 1]
        failed.again = failed.again and not self.stop.wait(delay_s)
        return failed.again
