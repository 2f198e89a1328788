"""Which pages of one step a run still has to do: rows it did not take yet, then rows that are due again."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from tasks.checkpoints import Queue, Scope
from tasks.patience import patiently
from tasks.tally import Tally

DATABASE_PATIENCE_S = 45.0
"""How long a run waits for a database that is restarted."""


@dataclass(frozen=True)
class PageOrder:
    """Which rows a page may claim when it starts.

    limit   at most so many
    again   True: rows that this run took before and that went back to pending; False: rows it did not take yet
    """

    number: int
    limit: int
    again: bool = False

    def after(self, claimed: int) -> PageOrder:
        """What is left of it for another attempt: rows it did not claim, else those that the first one gave back."""
        left = self.limit - claimed
        return replace(self, limit=left) if left > 0 else replace(self, again=True)

    def scope(self, of: Scope, run_id: str) -> Scope:
        """The rows of the run's scope that the page may take."""
        return of.taken_by(run_id) if self.again else of.not_taken_by(run_id)


@dataclass
class Orders:
    """The page orders of one step, for as long as the run lasts.

    A run takes at most `limit` rows it did not take before; rows that go back to pending are its own and are tried
    again in the same run once they are due.

    claimed    rows each page has claimed, by its number, over all its attempts; the pages count here
    page_size  rows in all -> rows a page
    numbers    of the pages, shared with other steps of the run
    """

    queue: Queue
    scope: Scope
    tally: Tally
    page_size: Callable[[int], int]
    limit: int | None = None
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    claimed: Counter[int] = field(default_factory=Counter)
    _ordered: list[int] = field(default_factory=list)
    _expected: int = 0

    def round(self) -> Iterator[PageOrder]:
        """Orders for new rows within the limit, then for those that are due again."""
        taken, left = self._taken(), self._left()
        fresh = patiently(lambda: self.queue.count_due(self._fresh, at_most=left), DATABASE_PATIENCE_S)
        self._expect(taken + fresh)
        for order in self._orders(fresh, again=False):
            self._ordered.append(order.number)
            yield order
        again = patiently(lambda: self.queue.count_due(self._again), DATABASE_PATIENCE_S)
        yield from self._orders(again, again=True)

    def next_due_in_s(self) -> float | None:
        """Seconds until something is due; None when this run has nothing more to do.

        Called between rounds, when no page is at work.
        """
        patiently(self.queue.release_run, DATABASE_PATIENCE_S)
        scopes = [self._again] if self._left() == 0 else [self._again, self._fresh]
        delays = [patiently(partial(self.queue.due_in_s, scope), DATABASE_PATIENCE_S) for scope in scopes]
        return min((d for d in delays if d is not None), default=None)

    @property
    def _fresh(self) -> Scope:
        return self.scope.not_taken_by(self.queue.run_id)

    @property
    def _again(self) -> Scope:
        return self.scope.taken_by(self.queue.run_id)

    def _taken(self) -> int:
        """New rows this run has taken; fewer than were ordered where some were not due yet or others took them."""
        return sum(self.claimed[number] for number in self._ordered)

    def _left(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self._taken())

    def _expect(self, rows: int) -> None:
        """Tell the progress of new rows, each once."""
        self.tally.expected += max(0, rows - self._expected)
        self._expected = max(rows, self._expected)

    def _orders(self, rows: int, *, again: bool) -> Iterator[PageOrder]:
        per_page = self.page_size(rows)
        for start in range(0, rows, per_page):
            yield PageOrder(next(self.numbers), min(per_page, rows - start), again=again)
