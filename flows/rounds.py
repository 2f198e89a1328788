"""The rounds of a run that asks one host: pages as long as any are due, until the host is beyond hope."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Protocol

from prefect import Task

from tasks.agenda import Orders
from tasks.errors import StopRequested
from tasks.pipeline import PageResult, run_pages
from tasks.verdict import Verdict


class Asking(Protocol):
    """Tools of such a run."""

    job: Any
    stop: threading.Event
    verdict: Verdict


def rounds(tools: Asking, work: Task[Any, Any], orders: Orders) -> Iterator[PageResult]:
    """Pages as long as any are due. A host that gives nothing but errors ends them; the report says so."""
    stop = tools.stop
    while not stop.is_set() and (delay_s := orders.next_due_in_s()) is not None and not stop.wait(delay_s):
        try:
            yield from run_pages((work,), tools.job, orders.round(), stop=stop)
        except StopRequested:
            if tools.verdict.hopeless is None:
                raise
