"""What a run of a workflow works with in its process: the engine on its folders, the doors, the rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.errors import ConfigurationError, LandrecordsError
from tasks.geo.engine import Engine, Place
from tasks.geo.nodes import Sink, Source
from tasks.geo.outcome import node_states
from tasks.geo.part_dask import DaskParts
from tasks.geo.part_processes import PartProcesses
from tasks.geo.plan import Graph, Stage, plan
from tasks.geo.run_folders import opened_run
from tasks.geo.validation import Checked
from tasks.geoetl_outside import Doors, resolved
from tasks.geoetl_records import RunRecords
from tasks.records import Status
from tasks.settings import Settings
from tasks.tally import Tally
from tasks.work_folders import opened_work
from tasks.workloads import GEOETL_NODES

log = logging.getLogger(__name__)

Runner = Literal["threads", "processes", "dask"]


@dataclass(frozen=True)
class Job:
    """What a run's tasks are given: Prefect looks through every argument, so it is the name alone."""

    run_id: str


@dataclass(frozen=True)
class Request:
    """What is to be run.

    origin     the run whose folder is used: this one, or the first of those that it resumes
    spread     whether stages are divided as for processes, because the origin's were
    memory_mb  for features under way
    threads    that compute; None: as many as there are processors
    """

    run_id: str
    origin: str
    checked: Checked
    runner: Runner = "threads"
    spread: bool = False
    memory_mb: int = 256
    threads: int | None = None


def graph_of(checked: Checked) -> Graph:
    """What the engine needs of a workflow that can run."""
    workflow = checked.workflow
    execution = {node.id: node.execution for node in workflow.nodes}
    return Graph(checked.nodes, workflow.edges, checked.layouts, checked.described, execution)


class Toolbox:
    """Engine and rows of one run. Safe for threads."""

    def __init__(self, request: Request, outside: Doors, records: RunRecords, tally: Tally, place: Place) -> None:
        self.request, self.records, self._tally = request, records, tally
        self.job = Job(request.run_id)
        self.engine = Engine(
            plan(graph_of(request.checked), spread=request.spread),
            outside,
            place,
            memory_bytes=request.memory_mb << 20,
            threads=request.threads,
            progress=self._progress,
            changed=self._changed,
        )
        self.stop = self.engine.stop
        tally.expected = sum(described.features or 0 for described in request.checked.described.values())

    def _progress(self, node: str, features: int, size_bytes: int) -> None:
        """Features that sources gave are the run's items; what sinks wrote are its bytes."""
        kind = self.engine.graph.nodes[node]
        if isinstance(kind, Source):
            self._tally.add(GEOETL_NODES.name, Status.COMPLETED, items=features, bytes_in=size_bytes)
        elif isinstance(kind, Sink):
            self._tally.add(GEOETL_NODES.name, Status.COMPLETED, items=0, bytes_out=size_bytes)

    def _changed(self, stages: Sequence[Stage]) -> None:
        """The rows of these stages' nodes; where the database is away, the end of the run writes them."""
        names = {name for stage in stages for name in stage.nodes}
        try:
            self.records.nodes([state for state in node_states(self.engine) if state.node in names])
        except LandrecordsError as exc:
            log.warning("how the nodes stand is not recorded yet: %s", exc)


_toolboxes: dict[str, Toolbox] = {}


def toolbox(job: Job) -> Toolbox:
    """Of a run in this process. Raises ConfigurationError in any other."""
    if job.run_id not in _toolboxes:
        raise ConfigurationError(f"run {job.run_id} is not of this process; run the flow, not its tasks.")
    return _toolboxes[job.run_id]


@contextmanager
def opened_toolbox(
    request: Request, settings: Settings, outside: Doors, records: RunRecords, tally: Tally
) -> Iterator[Toolbox]:
    """The tools of a run for the block; at its end every loop sees `stop`.

    Raises ConfigurationError where the run to resume is not here, or at work elsewhere.
    """
    folder = settings.spool / "geoetl"
    with ExitStack() as opened:
        run = opened.enter_context(
            opened_run(folder / "runs", request.origin, resumed=request.origin != request.run_id)
        )
        scratch = opened.enter_context(opened_work(folder / "work"))
        tools = Toolbox(request, outside, records, tally, Place(run, scratch, request.origin))
        opened.callback(tools.engine.close)
        if request.runner != "threads":
            spread = PartProcesses(tools.engine) if request.runner == "processes" else DaskParts(tools.engine)
            tools.engine.run_part = spread.run
            opened.callback(spread.close)
        _toolboxes[request.run_id] = tools
        opened.callback(_toolboxes.pop, request.run_id)
        yield tools


def roots_of(given: list[str] | None, base: Path) -> tuple[Path, ...]:
    """The allowed folders, absolute. Raises ConfigurationError for one that is none."""
    found = tuple(resolved(base, root) for root in given or ())
    for root in found:
        if not root.is_dir():
            raise ConfigurationError(f"{root} is no folder; give folders that exist as roots.")
    return found
