"""Recorded county documents: located on a portal, downloaded, validated, optimised, stored, checkpointed.

Killed at any moment, the next run goes on where this one stopped: the rows of `index_documents` say what is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import blocks
from flows.workload import workload
from tasks.checkpoints import Scope
from tasks.dial import dialled, limit_pages, read_rate
from tasks.documents import download_page, optimise_page, upload_page
from tasks.documents_tools import STEPS, Job, Toolbox, check_portal, opened_toolbox
from tasks.documents_work import Agenda, closing_report, estimate, load, prepare
from tasks.ghostscript import find_ghostscript
from tasks.pacing import host_of
from tasks.pipeline import PageResult, run_pages, threads_needed
from tasks.postgres import open_database
from tasks.records import RunReport
from tasks.reporting import publish, reported
from tasks.settings import load_settings
from tasks.stages import stage_filter
from tasks.workloads import OPTIMIZE, UPLOAD

DEFAULT_RATE = 2.0
"""Requests per second for a portal whose dial nobody has set."""

DATABASE_CONNECTIONS = 12


@workload(name="documents", task_runner=ThreadPoolTaskRunner(max_workers=threads_needed(len(STEPS))))
def documents(
    portal_url: Annotated[str, Field(title="Portal", description="Its http(s) address, or block:NAME")],
    index: Annotated[Path | None, Field(description="CSV or XLSX index of instruments to load first")] = None,
    stage: Annotated[
        str, Field(description="Which rows: all, mid-filtered, 4-retry ... (tasks/stages.toml or LANDRECORDS_STAGES)")
    ] = "all",
    limit: Annotated[int | None, Field(ge=1, description="At most so many rows")] = None,
    workers: Annotated[
        int, Field(ge=1, le=64, description="At most so many documents are fetched at once (1 to 64)")
    ] = 5,
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Turns the portal's dial; None leaves it as it stands")
    ] = None,
    optimise: Annotated[bool, Field(description="Let Ghostscript make scans smaller")] = True,
    dry_run: Annotated[bool, Field(description="Only say what would be fetched")] = False,
    books: Annotated[
        tuple[int, int] | None, Field(description="Only books from the first to the last, such as 238 and 3971")
    ] = None,
    types: Annotated[list[str] | None, Field(description="Only these instrument types")] = None,
    priorities: Annotated[list[int] | None, Field(description="Only these download priorities")] = None,
    profile: Annotated[str | None, Field(description="Portal profile of another county: a name or a path")] = None,
    keep_page_mismatch: Annotated[
        bool, Field(description="Keep documents whose page count differs from the index")
    ] = False,
    backoff_s: Annotated[
        float,
        Field(gt=0, le=3600, description="Seconds before a failed item is due again; doubles each time"),
    ] = 2.0,
) -> RunReport:
    """Fetch the documents of a stage; returns counts by status, failures by reason, bytes and rate."""
    blocks.fill_environment()
    portal_url, profile_of_block = blocks.portal(portal_url)
    settings, profile = load_settings(), profile or profile_of_block
    chosen = stage_filter(stage, books=books, types=types, priorities=priorities, file=settings.stages)
    portal = check_portal(portal_url, profile)
    if optimise and not dry_run:
        find_ghostscript()  # told now rather than after the first documents have come
    database = open_database(settings, size=DATABASE_CONNECTIONS)
    if index is not None:
        load(database, index, portal, settings.home)
    given = {"portal": host_of(portal_url), "stage": stage, "limit": limit, "workers": workers, "dry_run": dry_run}
    limit = min((n for n in (limit, chosen.limit) if n is not None), default=None)
    with closing(database), reported("documents", database, STEPS, given) as run:
        job = Job(
            run.run_id,
            portal_url,
            Scope(chosen.where, chosen.parameters),
            workers,
            optimise,
            keep_page_mismatch,
            profile,
            backoff_s,
        )
        with opened_toolbox(job, database, run.tally) as tools:
            if dry_run:
                rate = read_rate(tools.clock.host, requests_per_second, DEFAULT_RATE)
                foretold = estimate(tools, limit, rate, only_failed=chosen.retry_failed)
                return publish(run, run.empty_report(dry_run=True, estimate=foretold))
            with dialled(tools.clock, requested=requests_per_second, default=DEFAULT_RATE):
                for page in crawl(tools, limit, only_failed=chosen.retry_failed):
                    run.page_done(page.number, page.counts)
            return closing_report(run, tools)


def crawl(tools: Toolbox, limit: int | None, *, only_failed: bool) -> Iterator[PageResult]:
    """Every page of the run: what an earlier run left in the spool, new rows, rows that are due again."""
    job, stop = tools.job, tools.stop
    tags = {"portal": f"portal-{tools.clock.host}", "gs": "ghostscript", "store": "store"}
    limit_pages(*tags.values())
    download = download_page.with_options(tags={tags["portal"]})
    optimise, upload = (
        optimise_page.with_options(tags={tags["gs"]}),
        upload_page.with_options(tags={tags["store"]}),
    )
    prepare(tools)
    agenda = Agenda(tools, limit, only_failed=only_failed)
    while (delay_s := agenda.next_due_in_s()) is not None and not stop.wait(delay_s):
        yield from run_pages((upload,), job, agenda.leftovers(UPLOAD), stop=stop)
        yield from run_pages((optimise, upload), job, agenda.leftovers(OPTIMIZE), stop=stop)
        yield from run_pages((download, optimise, upload), job, agenda.downloads(), stop=stop)
