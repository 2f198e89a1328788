"""What a properties run has to do, and what it did: plain queries and a few searches, no tasks."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from prefect.artifacts import create_table_artifact
from psycopg2 import sql

from tasks.agenda import DATABASE_PATIENCE_S
from tasks.bulk import Ask, Failure
from tasks.dial import at_rate
from tasks.errors import ConfigurationError, ItemError, OutsideUnreachable
from tasks.patience import patiently
from tasks.postgres import sql_text
from tasks.properties_tools import Toolbox
from tasks.records import RunReport, Status
from tasks.register_changes import change_report
from tasks.register_requests import read_hits, search_url
from tasks.register_search import is_over_cap, label, pages_of
from tasks.register_searches import SearchEnd, begin_searches, divide_further, end_search
from tasks.register_summary import picture, summary_table
from tasks.reporting import PREFECT_AWAY, Run, publish
from tasks.tally import duration

Refresh = Literal["missing", "stale", "all"]

QUERY_PAGES = 24
"""Pages of queries in a run at most, so that many small municipalities share a task run."""

PAGES_PER_RUN = 600
SHOWN_FAILURES = 200
SHOWN_LINES = 40
INLINE_BYTES = 300_000
"""A picture up to this size is part of the report's page; a larger one only lies in the store."""


def queries_a_page(queries: int) -> int:
    """Queries a page: one, where there are few."""
    return max(1, math.ceil(queries / QUERY_PAGES))


def page_size(rows: int) -> int:
    """Properties a page: 50 to 500, larger only where a run would have more than PAGES_PER_RUN pages."""
    return max(50, min(500, math.ceil(rows / 20)), math.ceil(rows / PAGES_PER_RUN))


# --- before ---


def begin(tools: Toolbox) -> None:
    """See that there is a search of all that the run looks for."""
    job = tools.job
    begin_searches(tools.database, job.profile.source, job.municipalities, job.address_types)


def under_way(tools: Toolbox) -> list[str]:
    """Names of the run's searches that nobody has ended. Looked up each time: runs side by side walk theirs together,
    and who settles the last query of one ends it, whoever began it."""
    if tools.job.on_market_only:
        return []
    searches = partial(tools.database.rows, sql_text("properties_under_way"), tools.job.scope().parameters)
    return [search_id for (search_id,) in patiently(searches, DATABASE_PATIENCE_S)]


def search_further(tools: Toolbox) -> bool:
    """Whether searches whose queries are all over have new ones: parts of what their first parts had not all of."""
    calls = [partial(divide_further, tools.database, tools.job.profile, search_id) for search_id in under_way(tools)]
    return bool(sum(patiently(call, DATABASE_PATIENCE_S) for call in calls))


def fetch_again(tools: Toolbox, refresh: Refresh, age: timedelta) -> int:
    """Make properties pending that were loaded before, as the run was told; returns how many."""
    if refresh == "missing":
        return 0
    scope = tools.job.scope() if refresh == "all" else tools.job.stale(age)
    return tools.queue.retry(scope, statuses=(Status.COMPLETED, Status.SKIPPED), limit=tools.job.limit)


def estimate(tools: Toolbox, refresh: Refresh, age: timedelta, rate: float) -> dict[str, Any]:
    """Properties, requests and seconds at the dial, from the first page of each search; nothing is written."""
    with at_rate(tools.clock, rate):
        totals = {} if tools.job.on_market_only else _totals(tools)
    known, settled, stale = _known(tools, age)
    there = known if tools.job.on_market_only else sum(totals.values())
    details = {"missing": max(0, there - settled), "stale": max(0, there - settled) + stale, "all": there}[refresh]
    details = details if tools.job.limit is None else min(details, tools.job.limit)
    searches = sum(_search_pages(tools, total) for total in totals.values())
    seconds = (searches + details) / rate
    return {
        "properties": there,
        "loaded_before": settled,
        "detail_requests": details,
        "search_requests": searches,
        "requests_per_second": rate,
        "seconds": round(seconds, 1),
        "duration": duration(seconds),
        **totals,
    }


def _known(tools: Toolbox, age: timedelta) -> tuple[int, int, int]:
    scope = tools.job.scope()
    query = sql.SQL(sql_text("properties_known")).format(scope=sql.SQL(scope.where))
    known, settled, stale = tools.database.rows(query, {**scope.parameters, "age": age})[0]
    return int(known), int(settled), int(stale)


def _totals(tools: Toolbox) -> dict[str, int]:
    """`villa in København` -> hits, as the first page of each search says. Raises OutsideUnreachable, also where an
    answer is no page of hits."""
    job = tools.job
    wanted = {
        tools.number(): {"municipality": municipality, "address_type": address_type}
        for municipality in job.municipalities
        for address_type in job.address_types
    }
    asks = (Ask(number, search_url(job.profile, filters)) for number, filters in wanted.items())
    totals = {}
    for results in tools.fetch("search", asks):
        for result in results:
            try:
                if isinstance(result, Failure):
                    raise result.error
                hits = read_hits(job.profile, result.body)
            except ItemError as exc:
                raise OutsideUnreachable(f"the register does not answer a search: {exc}") from exc
            totals[label(wanted[result.id])] = len(hits.ids) if hits.total is None else hits.total
    return totals


def _search_pages(tools: Toolbox, total: int) -> int:
    """One over the cap is read as far as it goes, then in parts."""
    search = tools.job.profile.search
    whole = max(1, math.ceil(total / search.paging.size))
    return whole + pages_of(search, total) if is_over_cap(search, total) else whole


# --- after ---


def end_searches(run: Run, tools: Toolbox) -> list[SearchEnd]:
    """Compare the searches that are over with what the register says it has; each shortfall is told at once."""
    ended = []
    for search_id in under_way(tools):
        end = patiently(partial(end_search, tools.database, search_id, run.run_id), DATABASE_PATIENCE_S)
        if end is not None:
            ended.append(end)
            for said in end.shortfalls:
                run.log.warning("the search fell short: %s", said)
    return ended


def closing_report(run: Run, tools: Toolbox, ended: Sequence[SearchEnd], exported: Sequence[str]) -> RunReport:
    """Count, publish. Raises OutsideUnreachable when the register gave nothing but errors, ConfigurationError when
    it has nothing of what was asked for."""
    source = {"source": tools.job.profile.source}
    report: RunReport = patiently(lambda: run.report(sql_text("properties_counts"), source), DATABASE_PATIENCE_S)
    report.shortfalls = [said for end in ended for said in end.shortfalls]
    report.facts = facts(run, tools, ended, exported)
    arguments = {"run_id": run.run_id, "limit": SHOWN_FAILURES, **source}
    rows = patiently(lambda: tools.database.rows(sql_text("properties_failures"), arguments), DATABASE_PATIENCE_S)
    names = ("id", "reason", "field", "error", "attempts")
    failed = [dict(zip(names, row, strict=True)) for row in rows]
    publish(run, report, failed=failed, extra=page(report) + summary(tools))
    tools.verdict.insist(report, "the profile")
    _insist_on_hits(tools, report, ended)
    return report


def facts(run: Run, tools: Toolbox, ended: Sequence[SearchEnd], exported: Sequence[str]) -> dict[str, Any]:
    """What only a register's run has to tell.

    searches        whole, short, unfinished (by a limit, or at work in another run); properties they named
    requests        search, detail
    changes, fields what the run found to have changed: kinds, and columns of what changed
    written         table -> rows inserted, updated or removed
    unknown_fields  paths that the profile does not know -> new or changed properties that have them
    exported        keys in the store
    """
    changes = patiently(lambda: change_report(tools.database, run.run_id), DATABASE_PATIENCE_S)
    short = sum(bool(end.shortfalls) for end in ended)
    return {
        "searches": {
            "whole": len(ended) - short,
            "short": short,
            "unfinished": len(under_way(tools)),
            "properties": sum(end.found for end in ended),
        },
        "requests": {kind: tools.requests[kind] for kind in ("search", "detail")},
        "changes": changes.kinds,
        "fields": changes.fields,
        "written": {name: rows for name, rows in tools.loaded.written.items() if rows},
        "unknown_fields": dict(tools.loaded.unknown.most_common()),
        "exported": list(exported),
    }


def page(report: RunReport) -> str:
    """The facts as a part of the report's page."""
    said = report.facts
    lines = ["", "## Searches", "", ", ".join(f"{n:,} {name}" for name, n in said["searches"].items()) + "."]
    lines += [f"- {line}" for line in report.shortfalls[:SHOWN_LINES]]
    lines += _table("Changes", "kind", "properties", said["changes"])
    lines += _table("Changed fields", "field", "properties", said["fields"])
    lines += _table("Fields the profile does not know", "path", "properties", said["unknown_fields"])
    lines += _table("Rows written", "table", "rows", said["written"])
    lines += ["", *(f"- `{key}`" for key in said["exported"])]
    return "\n".join(lines) + "\n"


def _table(title: str, name: str, what: str, numbers: Mapping[str, int]) -> Iterator[str]:
    if any(numbers.values()):
        yield from ("", f"## {title}", "", f"| {name} | {what} |", "| --- | ---: |")
        yield from (f"| {of.replace('|', ' ')} | {n:,} |" for of, n in list(numbers.items())[:SHOWN_LINES] if n)


def summary(tools: Toolbox) -> str:
    """A table of what is loaded, by zip code, as an artifact; the picture of prices and sales, for the page."""
    source = tools.job.profile.source
    table = patiently(lambda: summary_table(tools.database, source), DATABASE_PATIENCE_S)
    if not table:
        return ""
    with suppress(*PREFECT_AWAY):
        create_table_artifact(key="properties-summary", table=table, description=f"Register {source} by zip code")
    drawn = patiently(lambda: picture(tools.database, source), DATABASE_PATIENCE_S)
    if len(drawn) > INLINE_BYTES:
        return ""
    return f"\n## Prices and sales\n\n![{source}](data:image/png;base64,{base64.b64encode(drawn).decode()})\n"


def _insist_on_hits(tools: Toolbox, report: RunReport, ended: Sequence[SearchEnd]) -> None:
    if ended and not any(end.found for end in ended):
        said = "; ".join(report.shortfalls[:3])
        if any(end.total is None for end in ended):
            raise OutsideUnreachable(f"the register {tools.clock.host} answered no search: {said}")
        raise ConfigurationError(f"the register has nothing of what was asked for: {said}")
