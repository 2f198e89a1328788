"""What a run of a workflow would do, and what it did: rows, lineage, the report. No tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tasks.agenda import DATABASE_PATIENCE_S
from tasks.errors import (
    ConfigurationError,
    ItemError,
    LandrecordsError,
    OutsideUnreachable,
    StopRequested,
    TerminalError,
)
from tasks.geo.chain import NodeFailed, message_of
from tasks.geo.memory import resident_bytes
from tasks.geo.nodes import NodeProblem, Sink, Source
from tasks.geo.outcome import NodeState, State, node_states
from tasks.geo.picture import mermaid
from tasks.geo.plan import plan
from tasks.geo.run_folders import forget
from tasks.geo.validation import Checked
from tasks.geoetl_records import STATUS_OF, lineage_of
from tasks.geoetl_tools import Runner, Toolbox, graph_of
from tasks.patience import patiently
from tasks.postgres import Database
from tasks.records import Reason, RunReport, Status
from tasks.reporting import Run, publish
from tasks.tally import duration, size

SHOWN_FAILURES = 200


@dataclass(frozen=True)
class Before:
    """What a resumed run goes on with.

    origin      the run whose folder it uses: the first of those that were resumed
    parameters  that the run was given
    runner      of the origin: its stages are divided accordingly, and so are those that are found in its folder
    """

    origin: str
    parameters: dict[str, Any]
    runner: Runner


def before_of(database: Database, run_id: str, workflow_id: str) -> Before:
    """Raises ConfigurationError for a run that there is not, that is complete, or of another workflow."""
    query = (
        "SELECT origin.id, run.parameters, origin.runner, run.workflow_id, run.status::text,"
        " EXISTS (SELECT FROM geoetl_node_runs WHERE run_id = run.id AND status IN ('failed', 'timeout'))"
        " FROM geoetl_workflow_runs AS run"
        " JOIN geoetl_workflow_runs AS origin ON origin.id = coalesce(run.resumed_from, run.id) WHERE run.id = %s"
    )
    found = database.rows(query, (run_id,))
    if not found:
        raise ConfigurationError(
            f"There is no run {run_id} to resume; `landrecords failed geoetl` lists those there are."
        )
    origin, parameters, runner, of_workflow, status, some_failed = found[0]
    if of_workflow != workflow_id:
        raise ConfigurationError(f"Run {run_id} is of workflow {of_workflow}, not {workflow_id}; resume it with that.")
    if status == State.COMPLETED and not some_failed:
        raise ConfigurationError(f"Run {run_id} is complete: there is nothing to resume; start a new run.")
    return Before(origin, parameters, runner)


def estimate(database: Database, checked: Checked) -> dict[str, Any]:
    """What the workflow would read, hold and write, from its sources' descriptions; how long, from its last run."""
    read = [checked.expected[name] for name in checked.described]
    features = None if any(e.features is None for e in read) else sum(e.features or 0 for e in read)
    query = (
        "SELECT features_in / greatest(extract(epoch FROM ended_at - created_at), 0.1) FROM geoetl_workflow_runs"
        " WHERE workflow_id = %s AND status = 'completed' AND features_in > 0 ORDER BY created_at DESC LIMIT 1"
    )
    found = database.rows(query, (checked.workflow.id,))
    seconds = features / float(found[0][0]) if found and features is not None else None
    return {
        "features": features,
        "bytes": None if any(e.size_bytes is None for e in read) else sum(e.size_bytes or 0 for e in read),
        "seconds": None if seconds is None else round(seconds, 1),
        "duration": "unknown: no run of it is complete" if seconds is None else duration(seconds),
        "stages": [stage.name for stage in plan(graph_of(checked)).stages],
        "nodes": {name: asdict(expected) for name, expected in checked.expected.items()},
        "notes": [str(note) for note in checked.notes],
    }


def told(failed: NodeFailed, run_id: str) -> LandrecordsError:
    """A node's failure as the run's, of the class that says what happens next, with the way on."""
    said = f"{failed} Then give resume_run_id={run_id!r}: what is done is not done again."
    match failed.error:
        case ConfigurationError() | NodeProblem():
            return ConfigurationError(said)
        case OutsideUnreachable():
            return OutsideUnreachable(said)
        case ItemError() as error:
            return TerminalError(error.reason, said)
        case _:
            return TerminalError(Reason.INTERNAL, said)


def closing_report(run: Run, tools: Toolbox, failure: BaseException | None) -> RunReport:
    """Write the rows, publish the report; what is kept for resuming is removed where all is done."""
    states = node_states(tools.engine, ended=True)
    ended = _run_state(states, failure)
    peak_mb = round(max([s.measured.peak_memory_mb for s in states] + [resident_bytes() / 1e6]), 1)
    error = message_of(failure) if failure else None
    for write in (
        partial(tools.records.nodes, states),
        partial(tools.records.end, ended, error, peak_mb),
        # last: a run that is told to end may have no time left to hash its files
        lambda: tools.records.lineage(lineage_of(tools.engine, states)),
    ):
        patiently(write, DATABASE_PATIENCE_S)
    if ended == State.COMPLETED and not tools.engine.record.failures:
        forget(tools.engine.folder)
    report = run_report(run, tools, states, peak_mb)
    return publish(run, report, failed=list(_failures(states)), extra="".join(_pages(tools, states)))


def _run_state(states: Sequence[NodeState], failure: BaseException | None) -> State:
    if failure is None:
        return State.COMPLETED
    if isinstance(failure, NodeFailed):
        return next((state.state for state in states if state.node == failure.node), State.FAILED)
    ended = isinstance(failure, StopRequested) or not isinstance(failure, Exception)  # Prefect's signals are none
    return State.CANCELLED if ended else State.FAILED


def run_report(run: Run, tools: Toolbox, states: Sequence[NodeState], peak_mb: float) -> RunReport:
    """Items are the nodes; the rate is that of the features that were read."""
    report = run.empty_report()
    for state in states:
        status = STATUS_OF[state.state]
        report.counts[status] += 1
        if status == Status.FAILED:
            reason = state.reason or str(state.state)
            report.failures[reason] = report.failures.get(reason, 0) + 1
    report.steps = {"nodes": dict(report.counts)}
    mine = [state for state in states if not state.restored]
    read = [s.measured for s in mine if isinstance(tools.engine.graph.nodes[s.node], Source)]
    made = [s for s in mine if isinstance(tools.engine.graph.nodes[s.node], Sink)]
    report.bytes_in, report.bytes_out = sum(m.bytes_out for m in read), sum(s.measured.bytes_out for s in made)
    features = sum(m.features_out for m in read)
    report.items_per_second = round(features / max(report.seconds, 0.01), 1)
    report.facts = {
        "features_in": features,
        "features_out": sum(s.written.features for s in made),
        "features_per_second": report.items_per_second,
        "peak_memory_mb": peak_mb,
        "cpu_s": round(sum(s.measured.cpu_ms for s in mine) / 1000, 2),
        "restored": [s.node for s in states if s.restored],
        "outputs": {s.node: list(s.written.places) for s in states if s.written.places},
        "nodes": {s.node: _facts(s) for s in states},
    }
    return report


def _facts(state: NodeState) -> dict[str, Any]:
    measured = state.measured.as_json()
    return {"type": state.type, "status": str(state.state), "stage": state.stage, "retries": state.retries, **measured}


def _failures(states: Sequence[NodeState]) -> Iterator[dict[str, Any]]:
    failed = [state for state in states if STATUS_OF[state.state] == Status.FAILED]
    for state in failed[:SHOWN_FAILURES]:
        yield {"node": state.node, "type": state.type, "reason": state.reason, "error": state.error}


def _pages(tools: Toolbox, states: Sequence[NodeState]) -> Iterator[str]:
    """The table of nodes, what was made, and the picture of the workflow."""
    yield "\n## Nodes\n\n| node | status | features in | out | bytes | at work | features/s | CPU | memory at most |\n"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    yield from map(_line, states)
    places = [(state.node, place) for state in states for place in state.written.places]
    if places:
        yield "\n## Made\n\n" + "".join(f"- {node}: `{place}`\n" for node, place in places)
    colours = {state.node: str(state.state) for state in states}
    notes = {s.node: f"{max(s.measured.features_in, s.measured.features_out):,} features" for s in states}
    yield f"\n## Workflow\n\n```mermaid\n{mermaid(tools.request.checked.workflow, colours, notes)}\n```\n"


def _line(state: NodeState) -> str:
    m = state.measured
    features = max(m.features_in, m.features_out)
    cells = (
        f"{state.node} ({state.type})",
        f"{state.state}{', restored' if state.restored else ''}",
        f"{m.features_in:,}",
        f"{m.features_out:,}",
        size(m.bytes_out),
        duration(m.seconds) if m.seconds >= 1 else f"{m.seconds * 1000:.0f} ms",
        f"{features / m.seconds:,.0f}" if m.seconds else "",
        f"{m.cpu_ms / 1000:.1f} s",
        f"{m.peak_memory_mb:.0f} MB",
    )
    return "| " + " | ".join(cells) + " |\n"
