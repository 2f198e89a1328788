"""`landrecords demo`: the main job on a sample portal, from nothing to a closing table."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from flows.samples import INDEX_NAME, sample_portal
from tasks import workloads
from tasks.errors import ConfigurationError
from tasks.ghostscript import find_ghostscript
from tasks.postgres import Database, open_database
from tasks.records import RunReport
from tasks.settings import Settings, load_settings
from tasks.tally import duration, size

PORTAL_PORT = 4280
INTERRUPTED = 130


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
        console.print(f"Nothing was fetched again: earlier runs settled every document ({done}).", soft_wrap=True)


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
    if report.bytes_in > report.bytes_out:  # less came than was stored where an earlier run was interrupted
        yield "saved", f"{size(report.bytes_in - report.bytes_out)}, {1 - report.bytes_out / report.bytes_in:.0%}"
    yield "requests to the portal", f"{requests:,}"
    yield "time", duration(report.seconds)
    yield "rate", f"{report.items_per_second:.1f} documents/s"


def _show_where(console: Console, settings: Settings, report: RunReport, api: str, *, keep: bool) -> None:
    """Where to look. The local server has ended by then, unless it is kept; `landrecords up` starts it again."""
    from flows.local import DEFAULT_PORT, is_of_home

    page = f"runs/flow-run/{report.run_id}"
    here = f"{api.removesuffix('/api')}/{page}"
    command = "landrecords" if shutil.which("landrecords") else sys.argv[0]  # `make demo` has no activated .venv
    again = f"{command} up, then http://127.0.0.1:{DEFAULT_PORT}/{page}"
    places = {
        "documents": settings.store,
        "UI": again if is_of_home(api, settings.home) and not keep else here,
        "failed ones": f"{command} failed documents",
        "run again": f"{command} demo",
    }
    for name, place in places.items():
        console.print(f"{name:<12} {place}", soft_wrap=True, highlight=False, markup=False)
    if keep:
        console.print("The UI stays up until Ctrl-C.")
