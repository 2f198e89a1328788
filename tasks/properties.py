"""The properties workload: the tasks that search a register and fetch its properties.

A search finds ids and makes rows; a page of rows is fetched, and what comes is loaded in one transaction with its
checkpoints. The requests of all pages are made by one engine, side by side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from prefect import task

from tasks.agenda import PageOrder
from tasks.bulk import Ask, Failure
from tasks.bulk_engine import Result
from tasks.errors import RateLimited, StopRequested, refuse_when_stopped
from tasks.pages import Page
from tasks.pipeline import PAGE, PageResult, outcome_of
from tasks.properties_search import EnoughFound, Walk
from tasks.properties_tools import Job, Toolbox, toolbox
from tasks.records import Outcome
from tasks.register_loading import COLUMNS, Fetched
from tasks.register_requests import detail_url
from tasks.register_searches import COLUMNS as QUERY_COLUMNS
from tasks.workloads import PROPERTIES

LOADED_AT_ONCE = 200
LOADED_EVERY_S = 0.5
"""Answers wait to be loaded together, so many or so long: a transaction costs some 20 ms whatever is in it, and a kill
loses what waits."""


@task(**PAGE, task_run_name="search-{order.number}")
def search_page(job: Job, order: PageOrder) -> PageResult:
    """Claim a page of queries and walk each: rows are made of what they name."""
    tools = toolbox(job)
    refuse_when_stopped(tools.stop)
    with tools.queries.claim(order.limit, order.scope(job.queries(), job.run_id), columns=QUERY_COLUMNS) as page:
        try:
            for row in page.rows:
                Walk(tools, page, row).run()
        except EnoughFound:
            pass
    refuse_when_stopped(tools.stop)
    return PageResult(order.number, (), page.settled)


@task(**PAGE, task_run_name="properties-{order.number}")
def fetch_page(job: Job, order: PageOrder) -> PageResult:
    """Claim a page of properties, fetch and load them.

    A page that is run again takes what its first attempt gave back.
    """
    tools = toolbox(job)
    with tools.slots:
        refuse_when_stopped(tools.stop)
        order = order.after(tools.claimed[order.number])
        columns = f"{COLUMNS}, item.attempts"
        with tools.queue.claim(order.limit, order.scope(job.scope(), job.run_id), columns=columns) as page:
            tools.claimed[order.number] += 0 if order.again else len(page.rows)
            _Clerk(tools, page).work()
    refuse_when_stopped(tools.stop)
    return PageResult(order.number, (), page.settled)


class _Clerk:
    """Fetches a claimed page, loads and records what comes for it."""

    def __init__(self, tools: Toolbox, page: Page) -> None:
        self._tools, self._page = tools, page
        self._rows = {row["id"]: row for row in page.rows}
        self._came: dict[str, Fetched] = {}
        self._loaded_at = time.monotonic()
        page.listener = self._count

    def work(self) -> None:
        """All of it. What came before a stop is loaded."""
        asked: dict[int, str] = {}
        try:
            for results in self._tools.fetch("detail", self._asks(asked)):
                for result in results:
                    self._take(asked.pop(result.id), result)
                if len(self._came) >= LOADED_AT_ONCE or time.monotonic() - self._loaded_at >= LOADED_EVERY_S:
                    self._load()
        except StopRequested:
            self._load()
            raise
        self._load()

    def _asks(self, asked: dict[int, str]) -> Iterator[Ask[int]]:
        """What to ask for; on condition that it changed where it was loaded before."""
        job = self._tools.job
        for item, row in self._rows.items():
            number = self._tools.number()
            asked[number] = item
            conditional = job.conditional and row["content_hash"] is not None
            known = (row["etag"], row["last_modified"]) if conditional else (None, None)
            yield Ask(number, detail_url(job.profile, item), *known)

    def _take(self, item: str, result: Result) -> None:
        if isinstance(result, Failure):
            if not isinstance(result.error, RateLimited):  # a server that asks for patience is not broken
                self._tools.verdict.heard(good=False, again=self._rows[item]["attempts"] > 0)
            self._page.settle(outcome_of(item, result.error))
        else:
            body = None if result.status == 304 else result.body
            self._came[item] = Fetched(item, body, result.etag, result.last_modified)

    def _load(self) -> None:
        """Rows of what came, and their checkpoints, in one transaction."""
        self._loaded_at = time.monotonic()
        if not self._came:
            return
        loaded = self._tools.loader.load(self._page, list(self._came.values()))
        self._came.clear()
        self._tools.has_loaded(loaded)
        if loaded.new or loaded.changed or loaded.unchanged:
            self._tools.verdict.heard(good=True)
        for _ in range(loaded.again + loaded.quarantined):
            self._tools.verdict.heard(good=False)

    def _count(self, outcome: Outcome, status: str) -> None:
        fetched = self._came.get(str(outcome.id))
        came = len(fetched.body or b"") if fetched else 0
        self._tools.tally.add(PROPERTIES.name, status, bytes_in=came)
