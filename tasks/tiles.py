"""The tiles workload: the tasks that fetch pages of map tiles.

One tile is one story told once: turn, fetch, verify, store, record. The transfers of all pages are made by one engine,
hundreds at once; a page verifies, stores and records what came for it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

from prefect import task

from tasks.agenda import PageOrder
from tasks.bulk import Ask, Failure, Got
from tasks.bulk_engine import Result
from tasks.errors import ItemError, OutsideUnreachable, RateLimited, refuse_when_stopped
from tasks.pages import Page, Row
from tasks.pipeline import PAGE, PageResult, outcome_of
from tasks.records import Outcome, Reason, Status
from tasks.store_objects import Small
from tasks.tile_images import TileFacts, verify
from tasks.tile_keys import is_blank_key, key_of, media_type
from tasks.tiles_tools import Job, Toolbox, toolbox
from tasks.workloads import TILES

log = logging.getLogger(__name__)

_NAMES = "id z x y attempts sha256 kind blank etag last_modified".split()
COLUMNS = ", ".join(f"item.{name}" for name in _NAMES)

FACTS = ("kind", "blank", "size_bytes", "sha256", "etag", "last_modified")
"""Columns that a tile fills."""


CLAIMED_AT_ONCE = 1000
"""Rows of a page in memory."""


@task(**PAGE, task_run_name="tiles-{order.number}")
def fetch_page(job: Job, order: PageOrder) -> PageResult:
    """Claim the tiles of a page, some at a time, fetch, verify and store them.

    A page that is run again goes on with tiles it did not take yet, or else with those its first attempt gave back:
    where the disk is still full it fails again, and at last the run ends.
    """
    tools = toolbox(job)
    counts = Counter[str]()
    with tools.slots:
        refuse_when_stopped(tools.stop)
        order = order.after(tools.claimed[order.number])
        left = order.limit
        while left > 0 and not tools.stop.is_set():
            wanted = min(left, CLAIMED_AT_ONCE)
            taken, settled = _fetch_some(tools, order, wanted)
            counts.update(settled)
            left = left - taken if taken == wanted else 0
    refuse_when_stopped(tools.stop)
    return PageResult(order.number, (), dict(counts))


def _fetch_some(tools: Toolbox, order: PageOrder, wanted: int) -> tuple[int, dict[str, int]]:
    """Tiles taken, at most so many, and status -> tiles settled."""
    job = tools.job
    with tools.queue.claim(wanted, order.scope(job.scope, job.run_id), columns=COLUMNS) as page:
        tools.claimed[order.number] += 0 if order.again else len(page.rows)
        page.listener = _counted(tools)
        clerk = Clerk(tools, page)
        for results in tools.engine.fetch(asks(tools, page.rows)):
            clerk.record(results)
    return len(page.rows), page.settled


def asks(tools: Toolbox, rows: list[Row]) -> Iterator[Ask[int]]:
    """What to ask for; on condition that it changed where an earlier run has it."""
    for row in rows:
        url = tools.urls.of(row["z"], row["x"], row["y"])
        if row["sha256"] and tools.store.holds(key_of(tools.job.layer.name, row)):
            yield Ask(row["id"], url, row["etag"], row["last_modified"])
        else:
            yield Ask(row["id"], url)


def _counted(tools: Toolbox) -> Any:
    def count(outcome: Outcome, status: str) -> None:
        came = outcome.values.get("size_bytes") or 0
        tools.tally.add(TILES.name, status, bytes_in=came, bytes_out=0 if outcome.reason else came)

    return count


class Clerk:
    """Verifies, stores and records what comes for a page. A tile is on the disk before its row says so."""

    def __init__(self, tools: Toolbox, page: Page) -> None:
        self._tools, self._page = tools, page
        self._rows = {row["id"]: row for row in page.rows}

    def record(self, results: list[Result]) -> None:
        """What became of some tiles, all of them on the disk when their rows are written."""
        outcomes: list[Outcome] = []
        objects: dict[str, Small] = {}
        stale: list[str] = []
        for result in results:
            outcome, small = self._judge(result)
            outcomes.append(outcome)
            if small is not None:
                objects[small.key] = small
            stale += self._stale(self._rows[result.id], outcome)
        self._store(objects, stale)
        for outcome in outcomes:
            self._page.settle(outcome)
        self._tools.tally.level = self._tools.level.permitted

    def _store(self, objects: dict[str, Small], stale: list[str]) -> None:
        store, blanks = self._tools.store, self._tools.stored_blanks
        new = [small for key, small in objects.items() if key not in blanks]
        try:
            if new:
                store.put_small(new)
                store.flush()
                blanks.update(small.key for small in new if is_blank_key(small.key))
            for key in stale:
                store.remove(key)
        except ItemError as exc:  # no tile's fault: the page is run again
            raise OutsideUnreachable(str(exc)) from exc

    def _judge(self, result: Result) -> tuple[Outcome, Small | None]:
        """What became of a tile, and what is to be stored for it."""
        if isinstance(result, Failure):
            return self._failed(result), None
        if result.status == 304:
            self._tools.verdict.heard(good=True)
            return Outcome(result.id, Status.COMPLETED, Reason.UNCHANGED), None
        job, row = self._tools.job, self._rows[result.id]
        try:
            facts = verify(result.body, result.content_type, decode=job.decode, blanks=job.blanks)
        except ItemError as exc:
            self._tools.verdict.heard(good=False, again=row["attempts"] > 0)
            return outcome_of(result.id, exc), None
        except Exception as exc:
            log.exception("unexpected error on tile %s", result.id)
            return Outcome(result.id, Status.PENDING, Reason.INTERNAL, f"{type(exc).__name__}: {exc}"), None
        self._tools.verdict.heard(good=True)
        return self._came(row, result, facts)

    def _failed(self, failure: Failure[int]) -> Outcome:
        if failure.status in self._tools.job.source.missing_statuses:
            self._tools.verdict.heard(good=True)
            return Outcome(failure.id, Status.SKIPPED, Reason.MISSING, values=dict.fromkeys(FACTS) | {"blank": False})
        if not isinstance(failure.error, RateLimited):  # a server that asks for patience is not broken
            self._tools.verdict.heard(good=False, again=self._rows[failure.id]["attempts"] > 0)
        return outcome_of(failure.id, failure.error)

    def _came(self, row: Row, got: Got[int], facts: TileFacts) -> tuple[Outcome, Small | None]:
        layer = self._tools.job.layer.name
        now = (facts.kind, facts.blank, facts.size_bytes, facts.sha256, got.etag, got.last_modified)
        values = dict(zip(FACTS, now, strict=True))
        key = key_of(layer, {**row, **values})
        if facts.sha256 == row["sha256"] and self._tools.store.holds(key):
            return Outcome(got.id, Status.COMPLETED, Reason.UNCHANGED, values=values), None
        remark = Reason.BLANK if facts.blank else None
        return Outcome(got.id, Status.COMPLETED, remark, values=values), Small(key, got.body, media_type(facts.kind))

    def _stale(self, row: Row, outcome: Outcome) -> list[str]:
        """The tile's former object, where it has another name now, or none."""
        if not row["sha256"] or row["blank"] or "sha256" not in outcome.values:
            return []
        layer = self._tools.job.layer.name
        former = key_of(layer, row)
        return [] if outcome.values["sha256"] and key_of(layer, {**row, **outcome.values}) == former else [former]
