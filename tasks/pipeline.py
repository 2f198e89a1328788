"""How a workload's pages run: mapped tasks in a bounded window, items of a page side by side.

A task run is a page of items. For each window of pages every stage is mapped over the futures of the one
before it, so stages overlap page by page; at most two windows are in flight, so a run of a million items
never has more than a few dozen task runs open.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from tasks.errors import (
    ConfigurationError,
    LandrecordsError,
    OutsideUnreachable,
    RateLimited,
    SkippedItem,
    StopRequested,
    TerminalError,
    TransientError,
)
from tasks.pages import Page, Row
from tasks.records import ItemId, Outcome, Reason, Status

log = logging.getLogger(__name__)

WINDOW = 4
"""Pages mapped at once."""

WINDOWS_IN_FLIGHT = 2


Chain = tuple[PrefectFuture[Any], ...]
"""One page's futures, stage by stage."""


@dataclass(frozen=True)
class PageResult:
    """What a page task returns: small, and all the next stage needs.

    number  of the page, through all stages
    ids     items that go on to the next stage
    counts  status -> items of this page
    """

    number: int = 0
    ids: tuple[ItemId, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


async def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    """A page is run again when something outside was away, not when the user must act or the run is ending."""
    error = await state.aresult(raise_on_failure=False)
    return not isinstance(error, ConfigurationError | StopRequested)


PAGE: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "persist_result": False,
    "retries": 3,
    "retry_delay_seconds": [2, 5, 15],
    "retry_condition_fn": _worth_retrying,
}
"""What every page task has in common, for `@task(**PAGE)`."""


def threads_needed(stages: int) -> int:
    """Task-runner threads for a pipeline: a mapped page occupies one while it waits for the stage before."""
    return WINDOW * WINDOWS_IN_FLIGHT * stages


def run_pages(
    stages: Sequence[Task[Any, Any]], job: Any, pages: Iterable[Any], *, stop: threading.Event
) -> Iterator[PageResult]:
    """Map every page through all stages; yields the last stage's results as windows finish.

    Raises the first page failure after everything in flight has ended, so that no work is cut short.
    """
    todo, flying = iter(pages), deque[list[Chain]]()
    failure: BaseException | None = None
    while True:
        while len(flying) < WINDOWS_IN_FLIGHT and not failure and not stop.is_set():
            window = list(islice(todo, WINDOW))
            if not window:
                break
            flying.append(_map_window(stages, job, window))
        if not flying:
            break
        for chain in flying.popleft():
            result = _result(chain)
            if isinstance(result, BaseException):
                failure = failure or result
            else:
                yield result
    if failure is not None:
        raise failure


def _map_window(stages: Sequence[Task[Any, Any]], job: Any, window: list[Any]) -> list[Chain]:
    from prefect import unmapped

    values: Any = window
    futures = []
    for stage in stages:
        values = stage.map(unmapped(job), values)
        futures.append(list(values))
    return list(zip(*futures, strict=True))


def _result(chain: Chain) -> PageResult | BaseException:
    """The last stage's result of a page, or why the first stage that failed did.

    A task whose upstream failed never runs: Prefect leaves it pending, with nothing to tell.
    """
    for future in chain:
        future.wait()
        if not future.state.is_completed():
            return _failure(future.state)
    return chain[-1].result()  # type: ignore[no-any-return]


def _failure(state: State[Any]) -> BaseException:
    value = state.result(raise_on_failure=False) if state.is_final() else None
    return value if isinstance(value, BaseException) else OutsideUnreachable(str(state.message or state.name))


# --- the items of one page ---


def settle_all(page: Page, work: Callable[[Row], Outcome], *, threads: int, stop: threading.Event) -> None:
    """Run `work` on every row of a claimed page, `threads` at a time, settling each as it ends.

    Rows not started when the run stops stay unsettled and are released with the page. Raises
    OutsideUnreachable when something all items need is away; what was done before is settled.
    """
    todo, running = deque(page.rows), set[Future[Outcome | None]]()
    failure: OutsideUnreachable | None = None
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="item") as pool:
        while running or (todo and failure is None and not stop.is_set()):
            while todo and len(running) < threads and failure is None and not stop.is_set():
                running.add(pool.submit(_outcome, work, todo.popleft()))
            done, running = wait(running, timeout=page.FLUSH_AFTER_S, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    outcome = future.result()
                    if outcome is not None:
                        page.settle(outcome)
                except OutsideUnreachable as exc:
                    failure = failure or exc
            page.flush_if_late()
    if failure is not None:
        raise failure


def _outcome(work: Callable[[Row], Outcome], row: Row) -> Outcome | None:
    """The outcome of one item; None when the run is stopping, so that the row is released."""
    try:
        return work(row)
    except StopRequested:
        return None
    except OutsideUnreachable:
        raise
    except LandrecordsError as exc:
        return outcome_of(row["id"], exc)
    except Exception as exc:
        log.exception("unexpected error on row %s", row["id"])
        return Outcome(row["id"], Status.PENDING, Reason.INTERNAL, f"{type(exc).__name__}: {exc}")


def outcome_of(item: ItemId, exc: LandrecordsError) -> Outcome:
    """What an error means for the row: the error's class says what happens next."""
    match exc:
        case RateLimited():
            return Outcome(
                item, Status.PENDING, exc.reason, str(exc), retry_in_s=exc.retry_after_s, costs_attempt=False
            )
        case TransientError():
            return Outcome(item, Status.PENDING, exc.reason, str(exc))
        case SkippedItem():
            return Outcome(item, Status.SKIPPED, exc.reason, str(exc))
        case TerminalError():
            return Outcome(item, Status.FAILED, exc.reason, str(exc))
        case _:
            raise exc
