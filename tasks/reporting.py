"""What a run did and how far it is: progress in the terminal and the UI, artifacts, RunReport.

While a run goes on, page tasks add to an in-memory tally; the report at the end is counted from the rows
the run took, so it cannot disagree with the table.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger
from psycopg2.extras import Json
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from tasks.agenda import DATABASE_PATIENCE_S
from tasks.checkpoints import Step
from tasks.dead_runs import end_dead_runs
from tasks.owners import new_owner
from tasks.patience import patiently
from tasks.postgres import Database
from tasks.records import RunReport, Status
from tasks.tally import Tally, duration, size

ARTIFACT_EVERY_S = 4.0
LOG_EVERY_S = 10.0

PREFECT_AWAY = (httpx.HTTPError, PrefectException, RuntimeError)


class Run:
    """One run of a workload: its name, its tally, and its rows.

    steps   the workload's steps in order; the rows that carry `run_id` are the run's
    """

    def __init__(self, workload: str, database: Database, steps: Sequence[Step]) -> None:
        self.workload = workload
        self.database = database
        self.steps = steps
        self.run_id = _flow_run_id() or str(uuid.uuid4())
        self.tally = Tally([step.name for step in steps])
        self.log = run_logger()

    def page_done(self, number: int, counts: Mapping[str, int]) -> None:
        """Tell Prefect of a finished page: a custom event that automations and webhooks can listen to."""
        emit_event(
            event=f"landrecords.{self.workload}.page",
            resource={"prefect.resource.id": f"landrecords.{self.workload}.{self.run_id}"},
            payload={"page": number, "counts": dict(counts), "finished": self.tally.finished},
        )

    def empty_report(self, **fields: Any) -> RunReport:
        """A report without counts: of a dry run, or to be filled in."""
        seconds = round(time.monotonic() - self.tally.began, 2)
        report = RunReport(workload=self.workload, run_id=self.run_id, seconds=seconds, **fields)
        report.steps = {step.name or "status": {str(s): 0 for s in Status} for step in self.steps}
        return report

    def report(self, counts_sql: str, parameters: Mapping[str, Any] | None = None) -> RunReport:
        """The report, counted from the table by `counts_sql`: rows (step, status, reason, items)."""
        report = self.empty_report()
        arguments = {"run_id": self.run_id, **(parameters or {})}
        for step, status, reason, items in self.database.rows(counts_sql, arguments):
            _count(report, step, status, reason, items)
        report.bytes_in, report.bytes_out = self.tally.bytes_in, self.tally.bytes_out
        done = report.counts[Status.COMPLETED] + report.counts[Status.FAILED] + report.counts[Status.SKIPPED]
        report.items_per_second = round(done / max(report.seconds, 0.01), 2)
        return report


def _count(report: RunReport, step: str, status: str, reason: str | None, items: int) -> None:
    if step == "item":
        report.counts[status] += items
        if status == Status.FAILED:
            report.failures[reason or "unknown"] = report.failures.get(reason or "unknown", 0) + items
    elif step == "note":
        report.notes[reason or "unknown"] = report.notes.get(reason or "unknown", 0) + items
    else:
        report.steps.setdefault(step, {str(s): 0 for s in Status})[status] += items


@contextmanager
def reported(workload: str, database: Database, steps: Sequence[Step], parameters: Mapping[str, Any]) -> Iterator[Run]:
    """A run that is recorded in `landrecords_runs` and shows its progress for the length of the block."""
    end_dead_runs(database, workload)
    run = Run(workload, database, steps)
    database.rows(
        "INSERT INTO landrecords_runs (run_id, workload, parameters) VALUES (%s, %s, %s)"
        " ON CONFLICT (run_id) DO NOTHING",
        (run.run_id, workload, Json({**parameters, "owner": new_owner()})),
    )
    ended = threading.Event()
    shown = _Shown(run, ended)
    shown.start()
    try:
        yield run
    finally:
        ended.set()
        shown.join(timeout=5)
        with suppress(Exception):
            database.rows("UPDATE landrecords_runs SET ended_at = now() WHERE run_id = %s", (run.run_id,))


def publish(run: Run, report: RunReport, *, failed: Sequence[Mapping[str, Any]] = (), extra: str = "") -> RunReport:
    """Record the report and show it in the UI: a table of results, one of failures, and a page. Returns it."""
    told = (Json(report.model_dump(mode="json")), run.run_id)
    patiently(
        lambda: run.database.rows("UPDATE landrecords_runs SET report = %s WHERE run_id = %s", told),
        DATABASE_PATIENCE_S,
    )
    run.log.info("%s", summary(report))
    with suppress(*PREFECT_AWAY):
        create_table_artifact(
            key=f"{run.workload}-results",
            table=[{"step": s, **counts} for s, counts in report.steps.items()],
            description=f"Items of run {run.run_id} by step and status",
        )
        if failed:
            create_table_artifact(
                key=f"{run.workload}-failures", table=[dict(f) for f in failed], description="Failed items"
            )
        create_markdown_artifact(key=f"{run.workload}-report", markdown=markdown(report) + extra)
    return report


def summary(report: RunReport) -> str:
    """One sentence for logs."""
    if report.dry_run:
        return f"{report.workload}: a dry run of {duration(report.seconds)}; what it foretells is in the report"
    counts = ", ".join(f"{n:,} {status}" for status, n in report.counts.items() if n) or "nothing to do"
    return f"{report.workload}: {counts} in {duration(report.seconds)} ({report.items_per_second:.1f}/s)"


def markdown(report: RunReport) -> str:
    """The report as a page for the UI."""
    if report.dry_run:
        lines = [f"# {report.workload}: dry run", "", "| what | estimate |", "| --- | ---: |"]
        return "\n".join(lines + [f"| {name} | {value} |" for name, value in report.estimate.items()]) + "\n"
    saved = report.bytes_in - report.bytes_out if "optimize" in report.steps else 0
    lines = [
        f"# {report.workload}: run {report.run_id}",
        "",
        f"{summary(report)}. {size(report.bytes_in)} in, {size(report.bytes_out)} stored"
        + (f", {size(saved)} saved." if saved > 0 else "."),
        "",
        *_table("Step", report.steps),
    ]
    for title, counts in (("Failures", report.failures), ("Remarks", report.notes)):
        if counts:
            lines += ["", f"## {title}", "", "| reason | items |", "| --- | ---: |"]
            lines += [f"| {reason} | {n:,} |" for reason, n in sorted(counts.items(), key=lambda c: -c[1])]
    return "\n".join(lines) + "\n"


def _table(head: str, rows: Mapping[str, Mapping[str, int]]) -> list[str]:
    statuses = [str(s) for s in Status]
    lines = [f"| {head} | " + " | ".join(statuses) + " |", "| --- |" + " ---: |" * len(statuses)]
    return lines + [
        f"| {name} | " + " | ".join(f"{c.get(s, 0):,}" for s in statuses) + " |" for name, c in rows.items()
    ]


# --- progress while the run goes on ---


class _Shown(threading.Thread):
    """Refreshes the terminal's bar (or a log line every 10 s) and the UI's progress artifact."""

    def __init__(self, run: Run, ended: threading.Event) -> None:
        super().__init__(name="progress", daemon=True)
        self._run, self._ended = run, ended
        self._context = copy_context()  # Prefect's settings live in the context
        self._artifact = _new_artifact(run)

    def run(self) -> None:
        self._context.run(self._show)

    def _show(self) -> None:
        bar = _Bar(self._run) if sys.stderr.isatty() else None
        next_artifact = next_log = time.monotonic()
        while not self._ended.wait(0.5):
            tally = self._run.tally
            if bar:
                bar.show(tally)
            elif time.monotonic() >= next_log and tally.expected:
                self._run.log.info("%s", tally.line())
                next_log = time.monotonic() + LOG_EVERY_S
            if time.monotonic() >= next_artifact:
                self._to_ui(tally.percent)
                next_artifact = time.monotonic() + ARTIFACT_EVERY_S
        self._to_ui(self._run.tally.percent)
        if bar:
            bar.show(self._run.tally)
            bar.stop()

    def _to_ui(self, percent: float) -> None:
        if self._artifact is not None:
            with suppress(*PREFECT_AWAY):
                update_progress_artifact(
                    artifact_id=self._artifact, progress=percent, description=self._run.tally.line()
                )


class _Bar(Progress):
    """A line of the terminal; where it is narrow, the details are cut off, not the rate and the time to go."""

    def __init__(self, run: Run) -> None:
        details = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        columns = (
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16, table_column=Column(min_width=16)),
            TextColumn("{task.fields[headline]}", table_column=Column(no_wrap=True)),
            TextColumn("[dim]{task.fields[details]}", table_column=details),
        )
        super().__init__(*columns, console=Console(stderr=True), expand=True)
        self._task = self.add_task(run.workload, total=None, headline="starting", details="")
        self.start()

    def show(self, tally: Tally) -> None:
        headline, details = tally.headline(), tally.details()
        self.update(
            self._task, total=tally.expected or None, completed=tally.finished, headline=headline, details=details
        )


def _new_artifact(run: Run) -> uuid.UUID | None:
    with suppress(*PREFECT_AWAY):
        made = create_progress_artifact(progress=0.0, key=f"{run.workload}-progress", description="starting")
        return made if isinstance(made, uuid.UUID) else None
    return None


def _flow_run_id() -> str | None:
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context and context.flow_run else None


def run_logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    """The flow run's logger, whose lines the UI shows; a plain one outside a flow run."""
    try:
        return get_run_logger()
    except Exception:  # noqa: BLE001 - outside a flow run Prefect raises its own MissingContextError
        return logging.getLogger("landrecords")
