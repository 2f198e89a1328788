"""The tiles workload: the tasks that fetch pages of map tiles.

One tile is one story told once: turn, fetch, verify, store, record. The page's own thread does nothing but
transfers, hundreds at once; a clerk beside it verifies, stores and records what came.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from prefect import task

from tasks.agenda import PageOrder
from tasks.bulk import Ask, Failure, Got
from tasks.checkpoints import Page, Row
from tasks.errors import ItemError, RateLimited
from tasks.pipeline import PAGE, PageResult, outcome_of, refuse_when_stopped
from tasks.records import Outcome, Reason, Status
from tasks.store_objects import Small
from tasks.tile_images import TileFacts, verify
from tasks.tile_keys import is_blank_key, key_of, media_type
from tasks.tiles_tools import Job, Toolbox, toolbox
from tasks.workloads import TILES

COLUMNS = "item.id, item.z, item.x, item.y, item.sha256, item.kind, item.blank, item.etag, item.last_modified"

FACTS = ("kind", "blank", "size_bytes", "sha256", "etag", "last_modified")
"""Columns that a tile fills."""

Result = Got[int] | Failure[int]


@task(**PAGE, task_run_name="tiles-{order.number}")
def fetch_page(job: Job, order: PageOrder) -> PageResult:
    """Claim a page of tiles, fetch, verify and store them. One that is run again takes only what is left of it."""
    tools = toolbox(job)
    with tools.slots:
        refuse_when_stopped(tools.stop)
        limit = order.limit - tools.claimed[order.number]
        if limit <= 0:
            return PageResult(order.number)
        with tools.queue.claim(limit, order.scope(job.scope, job.run_id), columns=COLUMNS) as page:
            tools.claimed[order.number] += len(page.rows)
            page.listener = _counted(tools)
            with tools.door() as door, Clerk(tools, page) as clerk:
                for results in door.rounds(asks(tools, page.rows)):
                    clerk.take(results)
    refuse_when_stopped(tools.stop)
    return PageResult(order.number, (), page.settled)


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
    """Verifies, stores and records the results of a page, in a thread of its own, some hundred at a time.

    All of a batch is on the disk before a row of it says so. What goes wrong here (disk full, database away) is
    raised where the page hands over the next results, or at its end.
    """

    BATCH = 500
    BATCH_S = 0.3
    BATCHES_WAITING = 4

    def __init__(self, tools: Toolbox, page: Page) -> None:
        self._tools, self._page = tools, page
        self._rows = {row["id"]: row for row in page.rows}
        self._batch: list[Result] = []
        self._began = time.monotonic()
        self._handed: queue.Queue[list[Result] | None] = queue.Queue(self.BATCHES_WAITING)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)

    def __enter__(self) -> Clerk:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """What has come is recorded, also when the page ends early; then the rest is given back."""
        self._hand_over(self._batch)
        self._hand_over(None)
        self._thread.join()
        if self._failure is not None and kind is None:
            raise self._failure

    def take(self, results: list[Result]) -> None:
        """Results of a round; mostly only noted."""
        self._batch += results
        if len(self._batch) >= self.BATCH or time.monotonic() - self._began >= self.BATCH_S:
            self._hand_over(self._batch)
            self._batch, self._began = [], time.monotonic()
        if self._failure is not None:
            raise self._failure

    def _hand_over(self, batch: list[Result] | None) -> None:
        """Waits while the clerk is far behind: memory stays bounded, and the server gets a rest."""
        if batch or batch is None:
            self._handed.put(batch)

    def _run(self) -> None:
        while (batch := self._handed.get()) is not None:
            if self._failure is None:
                try:
                    self._record(batch)
                except BaseException as exc:  # noqa: BLE001 - raised in the page's thread
                    self._failure = exc

    def _record(self, batch: list[Result]) -> None:
        outcomes: list[Outcome] = []
        objects: dict[str, Small] = {}
        stale: list[str] = []
        for result in batch:
            outcome, small = self._judge(result)
            outcomes.append(outcome)
            if small is not None:
                objects[small.key] = small
            stale += self._stale(self._rows[result.id], outcome)
        self._store(objects, stale)
        for outcome in outcomes:
            self._page.settle(outcome)
        self._page.flush_if_late()

    def _store(self, objects: dict[str, Small], stale: list[str]) -> None:
        store, blanks = self._tools.store, self._tools.stored_blanks
        new = [small for key, small in objects.items() if key not in blanks]
        if new:
            store.put_small(new)
            store.flush()
            blanks.update(small.key for small in new if is_blank_key(small.key))
        for key in stale:
            store.remove(key)

    def _judge(self, result: Result) -> tuple[Outcome, Small | None]:
        """What became of a tile, and what is to be stored for it."""
        if isinstance(result, Failure):
            return self._failed(result), None
        if result.status == 304:
            self._tools.heard(good=True)
            return Outcome(result.id, Status.COMPLETED, Reason.UNCHANGED), None
        job = self._tools.job
        try:
            facts = verify(result.body, result.content_type, decode=job.decode, blanks=job.blanks)
        except ItemError as exc:
            self._tools.heard(good=False)
            return outcome_of(result.id, exc), None
        self._tools.heard(good=True)
        return self._came(self._rows[result.id], result, facts)

    def _failed(self, failure: Failure[int]) -> Outcome:
        if failure.status in self._tools.job.source.missing_statuses:
            self._tools.heard(good=True)
            return Outcome(failure.id, Status.SKIPPED, Reason.MISSING, values=dict.fromkeys(FACTS) | {"blank": False})
        if not isinstance(failure.error, RateLimited):  # a server that asks for patience is not broken
            self._tools.heard(good=False)
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
