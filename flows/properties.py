"""A property register through its API: searched municipality by municipality, fetched one by one, loaded into tables.

Killed at any moment, the next run goes on where this one stopped: searches keep their place, properties their status.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Annotated, Literal, cast

from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import blocks
from flows.rounds import rounds
from flows.workload import workload
from tasks.agenda import Orders
from tasks.dial import dialled, limit_pages, read_rate
from tasks.errors import ConfigurationError, LandrecordsError
from tasks.pacing import host_of
from tasks.pipeline import PageResult, run_pages, threads_needed
from tasks.postgres import open_database
from tasks.properties import fetch_page, search_page
from tasks.properties_exports import build_export, upload_export
from tasks.properties_tools import Job, Toolbox, opened_toolbox
from tasks.properties_work import (
    Refresh,
    begin,
    closing_report,
    end_searches,
    estimate,
    fetch_again,
    page_size,
    queries_a_page,
    search_further,
)
from tasks.records import RunReport
from tasks.register_exports import Format, export_orders
from tasks.register_profile import load_register
from tasks.reporting import publish, reported
from tasks.settings import load_settings
from tasks.tally import Tally
from tasks.workloads import PROPERTIES

DATABASE_CONNECTIONS = 12

Export = Literal["none", "geoparquet", "csv", "both"]
FORMATS: dict[Export, tuple[Format, ...]] = {
    "none": (),
    "geoparquet": ("geoparquet",),
    "csv": ("csv",),
    "both": ("geoparquet", "csv"),
}


@workload(name="properties", task_runner=ThreadPoolTaskRunner(max_workers=threads_needed(1)))
def properties(
    api_url: Annotated[
        str, Field(title="Register", description="Address of its API, or block:NAME; empty: the profile's own")
    ],
    municipalities: Annotated[list[str], Field(min_length=1, description="Names, as the register writes them")],
    address_types: Annotated[
        list[str], Field(min_length=1, description="Kinds of property, in the register's words")
    ] = ["villa"],  # noqa: B006 - Prefect shows the default in its form; nobody changes it
    workers: Annotated[int, Field(ge=1, le=200, description="Requests in flight at most")] = 12,
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Turns the register's dial; None leaves it, or begins with the profile's")
    ] = None,
    refresh: Annotated[
        Refresh,
        Field(description="Fetch again: nothing; what is older than stale_after_days and changed; everything, anew"),
    ] = "missing",
    limit: Annotated[int | None, Field(ge=1, description="At most so many properties")] = None,
    dry_run: Annotated[bool, Field(description="Only say what would be fetched, and how long it would take")] = False,
    profile: Annotated[
        str, Field(description="What the register's answers look like: boligsiden, sample-county, or a file")
    ] = "boligsiden",
    stale_after_days: Annotated[float, Field(ge=0, le=36_500, description="For refresh: stale")] = 30.0,
    on_market_only: Annotated[
        bool, Field(description="Only properties known to be on the market, without a search")
    ] = False,
    export: Annotated[Export, Field(description="A snapshot of all tables, in the store")] = "none",
    backoff_s: Annotated[
        float, Field(gt=0, le=3600, description="Seconds before what failed is due again; doubles each time")
    ] = 2.0,
    patience_s: Annotated[
        float, Field(gt=0, le=86400, description="A register that gives only errors for so long ends the run")
    ] = 60.0,
) -> RunReport:
    """Load the properties of some municipalities; returns counts, failures, what changed, and what was not found."""
    blocks.fill_environment()
    settings = load_settings()
    address, named, key = blocks.register(api_url)
    register = load_register(named or profile, address or None)
    places, kinds = _words("municipalities", municipalities), _words("address_types", address_types)
    age = timedelta(days=stale_after_days)
    database = open_database(settings, size=DATABASE_CONNECTIONS)
    told = {"municipalities": places, "address_types": kinds, "refresh": refresh, "limit": limit, "dry_run": dry_run}
    given = {"source": register.source, "host": host_of(register.api_url), **told}
    with closing(database), reported("properties", database, (PROPERTIES,), given) as run:
        job = Job(
            run.run_id,
            register,
            places,
            kinds,
            workers=workers,
            on_market_only=on_market_only,
            conditional=refresh != "all",
            limit=limit,
            key=key,
            backoff_s=backoff_s,
            patience_s=patience_s,
        )
        with opened_toolbox(job, database, run.tally) as tools:
            default = register.requests_per_second
            if dry_run:
                rate = read_rate(job.host, requests_per_second, default) or default
                return publish(run, run.empty_report(dry_run=True, estimate=estimate(tools, refresh, age, rate)))
            if FORMATS[export]:
                tools.store.check()
            with dialled(tools.clock, requested=requests_per_second, default=default):
                if not on_market_only:
                    begin(tools)
                    for page in search(tools):
                        run.page_done(page.number, page.counts)
                ended = end_searches(run, tools)
                fetch_again(tools, refresh, age)
                for page in crawl(tools):
                    run.page_done(page.number, page.counts)
            try:
                exported = exports(tools, FORMATS[export])
            except LandrecordsError:
                closing_report(run, tools, ended, [])
                raise
            return closing_report(run, tools, ended, exported)


def _words(name: str, given: list[str]) -> tuple[str, ...]:
    """As given, each once. Raises ConfigurationError for one that is none."""
    words = tuple(dict.fromkeys(word.strip() for word in given))
    for word in words:
        if not word or not word.isprintable():
            what = repr(word) if word else "an empty name"
            raise ConfigurationError(f"{name} has {what} in it; give each as the register writes it.")
    return words


def search(tools: Toolbox) -> Iterator[PageResult]:
    """Walk the queries of the run's searches, the parts they are divided into, and those that are due again."""
    tag = f"api-{tools.clock.host}"
    limit_pages(tag)
    tools.queries.release_dead()
    orders = Orders(tools.queries, tools.job.queries(), Tally([""]), queries_a_page)
    more = True
    while more and not tools.stop.is_set():
        for page in rounds(tools, search_page.with_options(tags={tag}), orders):
            yield page
            if tools.is_enough_found():
                return
        more = search_further(tools)


def crawl(tools: Toolbox) -> Iterator[PageResult]:
    """Every page of properties: those the run did not take yet, then those that are due again."""
    tag = f"api-{tools.clock.host}"
    limit_pages(tag)
    tools.queue.release_dead()
    job = tools.job
    orders = Orders(tools.queue, job.scope(), tools.tally, page_size, job.limit, claimed=tools.claimed)
    yield from rounds(tools, fetch_page.with_options(tags={tag}), orders)


def exports(tools: Toolbox, formats: tuple[Format, ...]) -> list[str]:
    """Make and store a snapshot, where the tables changed since the last one; returns the keys."""
    if not formats or tools.stop.is_set():
        return []
    orders = export_orders(tools.database, tools.store, tools.job.profile.source, formats)
    limit_pages("export", "store")
    stages = build_export.with_options(tags={"export"}), upload_export.with_options(tags={"store"})
    stored = cast(Iterator[tuple[str, ...]], run_pages(stages, tools.job, orders, stop=tools.stop))
    return [key for keys in stored for key in keys]
