"""`landrecords demo`: the main job on a sample portal, from nothing to a closing table."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tasks import workloads
from tasks.errors import ConfigurationError
from tasks.ghostscript import find_ghostscript
from tasks.partials import disk
from tasks.postgres import Database, open_database
from tasks.records import RunReport
from tasks.settings import Settings, load_settings
from tasks.tally import duration, size

PORTAL_PORT = 4280
INDEX_NAME = "sample-index.csv"
"""Rows loaded from a file of this name are the sample's."""

STOP_TIMEOUT_S = 5
INTERRUPTED = 130


# --- the sample portal ---


@dataclass(frozen=True)
class Portal:
    """A running sample portal.

    url    its address
    index  CSV of the documents it has
    log    one JSON line a request
    """

    url: str
    index: Path
    log: Path

    @property
    def requests(self) -> int:
        """Requests it has answered since it was started."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@contextlib.contextmanager
def sample_portal(home: Path, documents: int, *, ports: tuple[int, ...], faults: str = "demo") -> Iterator[Portal]:
    """The sample portal as a process of its own, for the length of the block, on the first free of the ports.

    Raises ConfigurationError when none of them is free.
    """
    folder = home / "sample"
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    portal = Portal("", folder / INDEX_NAME, folder / "requests.jsonl")
    portal.log.unlink(missing_ok=True)
    options = ["--documents", str(documents), "--faults", faults, "--latency-ms", "10", "--die-with-parent"]
    options += ["--log", str(portal.log), "--index-out", str(portal.index)]
    process, url = _started(options, ports, folder / "portal.log")
    try:
        yield replace(portal, url=url)
    finally:
        _end(process)


def _started(options: list[str], ports: tuple[int, ...], log: Path) -> tuple[subprocess.Popen[str], str]:
    for port in ports:
        process = _run([*options, "--port", str(port)], log)
        line = process.stdout.readline() if process.stdout else ""
        if line:
            return process, json.loads(line)["url"]
        _end(process)
    said = log.read_text().strip() or f"see {log}"
    raise ConfigurationError(f"the sample portal did not start: {said}")


def _run(options: list[str], log: Path) -> subprocess.Popen[str]:
    """In a session of its own, so that Ctrl-C ends the run first and then, by the run's end, the portal."""
    with log.open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.sample.portal", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def own_documents(database: Database) -> str | None:
    """The file that documents other than the sample's were loaded from; None when there are none.

    The sample must keep away from those: its portal would answer `not found` for every one of them, and its
    index would overwrite those of equal book and page.
    """
    found = database.rows(
        "SELECT coalesce(source_file, 'a file without a name') FROM index_documents"
        " WHERE source_file IS DISTINCT FROM %s LIMIT 1",
        (INDEX_NAME,),
    )
    return str(found[0][0]) if found else None


def refuse_own_documents(database: Database) -> None:
    """Raises ConfigurationError where the demo would touch documents of the user's own."""
    file = own_documents(database)
    if file is not None:
        raise ConfigurationError(
            f"this database holds documents of your own (from {file}), which the sample must not touch; "
            "give the sample a home of its own, such as LANDRECORDS_HOME=.landrecords-sample, and its database."
        )


# --- the demo ---


def run_demo(documents: int, requests_per_second: float, *, keep: bool) -> int:
    """Everything, once; returns the exit code. Items that fail are part of the sample, so they do not count."""
    quiet_prefect()
    settings, console = load_settings(), Console()
    find_ghostscript()
    console.print("Starting embedded Postgres, the Prefect server and the sample portal ...")
    try:
        refuse_own_documents(open_database(settings))
        _run_and_show(settings, console, documents, requests_per_second, keep=keep)
    except KeyboardInterrupt:
        console.print("Interrupted. The next `landrecords demo` goes on where this one stopped.")
        return INTERRUPTED
    return 0


def _run_and_show(
    settings: Settings, console: Console, documents: int, requests_per_second: float, *, keep: bool
) -> None:
    from flows.documents import documents as flow
    from flows.local import prefect_api

    with prefect_api(settings) as api, sample_portal(settings.home, documents, ports=(PORTAL_PORT, 0)) as portal:
        report = flow(
            portal_url=portal.url,
            index=portal.index,
            workers=8,
            requests_per_second=requests_per_second,
            backoff_s=0.5,
        )
        _show(console, settings, report, portal.requests)
        _show_where(console, settings, report, api, keep=keep)
        if keep:
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()


def quiet_prefect() -> None:
    """Prefect's lines would tear the progress bar apart, and on Ctrl-C there are two for every page: they go to
    its UI only. Without a terminal there is no bar: then the run's own lines show, one every ten seconds."""
    if sys.stderr.isatty():
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    else:
        os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL", "CRITICAL")


# --- what it says at the end ---


def _show(console: Console, settings: Settings, report: RunReport, requests: int) -> None:
    """Counts, reasons, bytes saved, rate."""
    table = Table(title=f"Run {report.run_id}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in _lines(report, requests):
        table.add_row(name, value)
    console.print(table)
    if not sum(report.counts.values()):
        counts = workloads.status_counts(open_database(settings), workloads.workload("documents"))
        done = ", ".join(f"{n:,} {status}" for status, n in counts["download"].items() if n)
        console.print(f"Nothing was fetched again: earlier runs settled every document ({done}).")


def _lines(report: RunReport, requests: int) -> Iterator[tuple[str, str]]:
    for status, items in report.counts.items():
        if items or status == "completed":
            yield status, f"{items:,}"
        if status == "failed":
            yield from ((f"  {reason}", f"{n:,}") for reason, n in sorted(report.failures.items()))
    yield from ((f"remark: {reason}", f"{n:,}") for reason, n in sorted(report.notes.items()))
    if report.bytes_in:
        yield "downloaded", size(report.bytes_in)
        yield "stored", size(report.bytes_out)
        yield "saved", f"{size(report.bytes_in - report.bytes_out)}, {1 - report.bytes_out / report.bytes_in:.0%}"
    yield "requests to the portal", f"{requests:,}"
    yield "time", duration(report.seconds)
    yield "rate", f"{report.items_per_second:.1f} documents/s"


def _show_where(console: Console, settings: Settings, report: RunReport, api: str, *, keep: bool) -> None:
    """Where to look. The local server has ended by then, unless it is kept; `landrecords up` starts it again."""
    from flows.local import DEFAULT_PORT, is_of_home

    page = f"runs/flow-run/{report.run_id}"
    here = f"{api.removesuffix('/api')}/{page}"
    again = f"landrecords up, then http://127.0.0.1:{DEFAULT_PORT}/{page}"
    places = {
        "documents": settings.store,
        "UI": again if is_of_home(api, settings.home) and not keep else here,
        "failed ones": "landrecords failed documents",
        "run again": "landrecords demo",
    }
    for name, place in places.items():
        console.print(f"{name:<12} {place}", soft_wrap=True, highlight=False, markup=False)
    if keep:
        console.print("The UI stays up until Ctrl-C.")
