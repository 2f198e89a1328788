"""Which pages a documents run still has to do, and what it did: plain queries, no tasks."""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tasks.agenda import DATABASE_PATIENCE_S, Orders, PageOrder
from tasks.checkpoints import Scope, Step
from tasks.documents_tools import STEPS, Toolbox
from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.ghostscript import tool_versions
from tasks.index import load_index
from tasks.patience import patiently
from tasks.pipeline import PageResult
from tasks.portal_profile import PortalProfile
from tasks.postgres import Database, sql_text
from tasks.records import Reason, RunReport, Status
from tasks.reporting import Run, publish, run_logger
from tasks.tally import duration
from tasks.workloads import DOWNLOAD, OPTIMIZE, UPLOAD

PAGES_PER_RUN = 600
"""Of each stage: about 1,800 task runs in all, which the Prefect server bears well."""

LEFTOVER_PAGE = 50

SHOWN_BAD_LINES = 20

ENOUGH_TO_JUDGE = 5
"""Fewer documents without success may well be the documents' fault, as in a run that tries old failures again."""

_SIGNS_OF_CHANGE = {Reason.PORTAL_ERROR, Reason.HTML_ERROR_PAGE, Reason.WRONG_TYPE}


def load(database: Database, index: Path, portal: PortalProfile, home: Path) -> None:
    """Load the index and tell of the lines that could not be loaded; all of them are kept in `bad-lines.csv`.

    Raises ConfigurationError when the file cannot be read or none of its lines is good.
    """
    log = run_logger()
    source = "direct" if portal.direct.url_template else None
    report = load_index(database, index, source=source, bad_file=home / "bad-lines.csv")
    log.info("%s: %s rows, %s new, %s changed", index.name, f"{report.rows_read:,}", report.inserted, report.updated)
    for note in report.notes:
        log.warning("%s", note)
    for line in report.bad[:SHOWN_BAD_LINES]:
        log.warning("%s, line %s, %s: %s", index.name, line.line, line.column, line.message)
    if report.bad_count:
        log.warning("%s lines of %s were not loaded; see %s", report.bad_count, index.name, report.bad_file)
    if report.rows_read and report.bad_count == report.rows_read:
        raise ConfigurationError(f"not one line of {index} could be loaded; see {report.bad_file} and correct them.")


def prepare(tools: Toolbox) -> None:
    """Make sure the store takes objects, then take back what killed processes of this machine held."""
    tools.store.check()
    for step in STEPS:
        tools.queue(step).release_dead()
    tools.spool.sweep(lambda items: _finished(tools.database, items))


def _finished(database: Database, items: list[int]) -> set[int]:
    """Of these, the rows that need no spooled file (any more); numbers without a row count too.

    A row in progress is a living run's: its file lies here a moment before the row says so.
    """
    kept = database.rows(
        "SELECT id FROM index_documents WHERE id = ANY(%s) AND download_status IN ('completed', 'in_progress')"
        " AND upload_status <> 'completed'",
        (items,),
    )
    return set(items) - {row[0] for row in kept}


class Agenda:
    """The pages of a run in the order they are done: what lies in the spool, new rows, rows to try again.

    With `only_failed` it takes at most `limit` of the rows that failed earlier, and no new ones.
    """

    def __init__(self, tools: Toolbox, limit: int | None, *, only_failed: bool = False) -> None:
        self._tools = tools
        self._numbers = itertools.count(1)
        self._downloads = Orders(
            tools.queue(DOWNLOAD),
            tools.job.scope,
            tools.tally,
            page_size,
            limit=0 if only_failed else limit,
            numbers=self._numbers,
            claimed=tools.claimed,
        )
        if only_failed:
            tools.tally.expected += self._take_failed(limit)

    def leftovers(self, step: Step) -> Iterator[PageResult]:
        """Pages of documents in this spool that wait for `step`."""
        queue, scope = self._tools.queue(step), self._in_spool()
        ids = patiently(lambda: queue.due_ids(scope), DATABASE_PATIENCE_S)
        self._tools.tally.expected += len(ids) if step is not DOWNLOAD else 0
        for start in range(0, len(ids), LEFTOVER_PAGE):
            yield PageResult(next(self._numbers), tuple(ids[start : start + LEFTOVER_PAGE]))

    def downloads(self) -> Iterator[PageOrder]:
        """Orders for rows to fetch."""
        return self._downloads.round()

    def next_due_in_s(self) -> float | None:
        """Seconds until something is due in any step; None when this run has nothing more to do.

        Called between rounds, when no page is at work.
        """
        delays = [self._downloads.next_due_in_s()]
        for step in (OPTIMIZE, UPLOAD):
            queue = self._tools.queue(step)
            patiently(queue.release_run, DATABASE_PATIENCE_S)
            delays.append(patiently(partial(queue.due_in_s, self._in_spool()), DATABASE_PATIENCE_S))
        return min((d for d in delays if d is not None), default=None)

    def _take_failed(self, limit: int | None) -> int:
        """Put what failed back to pending as rows of this run, at most `limit` in all steps together."""
        taken = 0
        for step in (DOWNLOAD, UPLOAD):
            left = None if limit is None else limit - taken
            taken += self._tools.queue(step).retry(self._tools.job.scope, limit=left, take=True)
        return taken

    def _in_spool(self) -> Scope:
        return Scope("spool_id = %(spool_id)s", {"spool_id": self._tools.spool.identity})


def page_size(rows: int) -> int:
    """Rows a page: 10 to 50 for small runs, larger so that a big run stays within PAGES_PER_RUN."""
    return max(10, min(50, math.ceil(rows / 20)), math.ceil(rows / PAGES_PER_RUN))


def estimate(tools: Toolbox, limit: int | None, rate: float | None, *, only_failed: bool = False) -> dict[str, Any]:
    """What a run would fetch: rows, requests, seconds at the dial, bytes as far as earlier documents tell."""
    wanted = Status.FAILED if only_failed else Status.PENDING
    rows, requests, mean_bytes = tools.database.rows(
        tools.queue(DOWNLOAD).step.statement("documents_estimate", scope=tools.job.scope.where),
        {**tools.job.scope.parameters, "limit": limit, "wanted": str(wanted)},
    )[0]
    seconds = requests / rate if rate else None
    return {
        "documents": rows,
        "requests": requests,
        "requests_per_second": rate,
        "seconds": round(seconds, 1) if seconds is not None else None,
        "duration": duration(seconds) if seconds is not None else "unknown: no dial",
        "bytes": int(rows * mean_bytes) if mean_bytes else None,
    }


def write_manifest(tools: Toolbox, report: RunReport) -> str | None:
    """Put the run's provenance into the store: one JSON line an object it stored; returns its address.

    Streamed from the table through a temporary file, so its size does not matter.
    """
    if not report.steps["upload"][Status.COMPLETED]:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", dir=tools.spool.folder, encoding="utf-8") as file:
        head = {"run_id": report.run_id, "workload": report.workload, "tools": tool_versions(tools.pdf)}
        file.write(json.dumps(head) + "\n")
        with tools.database.transaction(named="manifest") as cursor:
            cursor.execute(sql_text("documents_manifest"), {"run_id": report.run_id})
            for (entry,) in cursor:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        key = f"manifests/documents/{report.run_id}.jsonl"
        stored = tools.store.put_replacing(key, Path(file.name), content_type="application/x-ndjson")
    return stored.url


def failures(database: Database, run_id: str, at_most: int = 200) -> list[dict[str, Any]]:
    """The run's failed items, for the report's table."""
    names = ("id", "book", "page", "instrument_number", "step", "reason", "error", "attempts")
    rows = database.rows(sql_text("documents_failures"), {"run_id": run_id, "limit": at_most})
    return [dict(zip(names, row, strict=True)) for row in rows]


def closing_report(run: Run, tools: Toolbox) -> RunReport:
    """Count, write the manifest, publish; then insist that the portal still is what it was."""
    report: RunReport = patiently(lambda: run.report(sql_text("documents_counts")), DATABASE_PATIENCE_S)
    manifest = patiently(lambda: write_manifest(tools, report), DATABASE_PATIENCE_S)
    extra = f"\nManifest of this run: `{manifest}`\n" if manifest else ""
    failed = patiently(lambda: failures(tools.database, run.run_id), DATABASE_PATIENCE_S)
    publish(run, report, failed=failed, extra=extra)
    fetched = tools.tally.steps[DOWNLOAD.name]
    insist_on_success(report, fetched[Status.COMPLETED] + fetched[Status.SKIPPED])
    return report


def insist_on_success(report: RunReport, fetched: int) -> None:
    """A run that fetched nothing because the portal changed fails aloud. Raises OutsideUnreachable.

    fetched  documents that this very run had an answer for; those an earlier one left in the spool do not count
    """
    tried = report.counts[Status.FAILED] + report.counts[Status.PENDING]
    if fetched or tried < ENOUGH_TO_JUDGE:
        return
    if set(report.failures) and set(report.failures) <= _SIGNS_OF_CHANGE:
        reasons = ", ".join(f"{reason} {n}" for reason, n in report.failures.items())
        raise OutsideUnreachable(
            f"not one of {tried} documents could be fetched ({reasons}): the portal has changed or answers errors; "
            "look at a page by hand, correct the portal profile, then run `landrecords retry documents`."
        )
