"""One thread that keeps a bulk door busy with the asks of all pages of a process: one door, one set of connections.

A page hands in its asks and gets its own results; the next page's asks follow at once, so the host has work while
the first page's last transfers end and its rows are written.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator

from tasks.bulk import BulkDoor
from tasks.bulk_results import Failure, Got
from tasks.bulk_transfer import Ask
from tasks.errors import StopRequested

Result = Got[int] | Failure[int]

HANDED_S = 0.1
"""A page gets what came at least so often."""

HANDED = 64
LISTS_WAITING = 6
"""A page that is further behind (some 400 results) holds up the door: memory stays bounded."""

LOOK_S = 0.2


class BulkEngine:
    """Context-free: `fetch` from any number of threads, `close` once. The door is closed with it."""

    def __init__(self, door: BulkDoor) -> None:
        self._door = door
        self._waiting: deque[_Lot] = deque()
        self._asked: dict[int, _Lot] = {}
        self._holding: set[_Lot] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="bulk-engine", daemon=True)

    def fetch(self, asks: Iterable[Ask[int]]) -> Iterator[list[Result]]:
        """Every ask's result, some at a time; ids must differ from those of other pages under way.

        Raises what the door raises (StopRequested, ConfigurationError, OutsideUnreachable); what was not handed
        back is then not done.
        """
        lot = _Lot(iter(asks))
        with self._changed:
            if self._closed:
                raise StopRequested("the run is ending; nothing more is asked for.")
            self._waiting.append(lot)
            self._changed.notify()
            if self._thread.ident is None:
                self._thread.start()
        try:
            yield from lot.lists()
        finally:
            lot.abandoned = True

    def close(self) -> None:
        """End the thread and the connections. The door's `stop` should be set, or this waits for transfers."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        self._door.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return self._fail(StopRequested("the run is ending; what was in flight is given up."))
            try:
                for results in self._door.rounds(self._feed()):
                    self._deal(results)
            except BaseException as exc:  # noqa: BLE001 - raised in the pages' threads
                self._fail(exc)

    def _feed(self) -> Iterator[Ask[int] | None]:
        """The asks of page after page, until no page waits and nothing is under way: a transfer that stalls must not
        keep the asks of a page that comes meanwhile from being taken."""
        while self._waiting or self._asked:
            if not self._waiting:
                yield None
                continue
            lot = self._waiting[0]
            ask = None if lot.abandoned else next(lot.asks, None)
            if ask is None:
                self._waiting.popleft()
                lot.all_asked = True
                lot.end_if_done()
            else:
                self._asked[ask.id] = lot
                lot.under_way += 1
                yield ask

    def _deal(self, results: list[Result]) -> None:
        for result in results:
            lot = self._asked.pop(result.id, None)
            if lot is not None:  # else a page gave it up, and another that asked again has had the first answer
                lot.came.append(result)
                self._holding.add(lot)
        now = time.monotonic()
        self._holding = {lot for lot in self._holding if not lot.hand_over(now)}

    def _fail(self, exc: BaseException) -> None:
        lots = {*self._asked.values(), *self._waiting, *self._holding}
        self._asked.clear()
        self._holding.clear()
        self._waiting.clear()
        for lot in lots:
            lot.put(exc)


class _Lot:
    """The asks of one page."""

    def __init__(self, asks: Iterator[Ask[int]]) -> None:
        self.asks = asks
        self.came: list[Result] = []
        self.under_way = 0
        self.all_asked = False
        self.abandoned = False
        self._handed_at = time.monotonic()
        self._lists: queue.Queue[list[Result] | BaseException | None] = queue.Queue(LISTS_WAITING)

    def lists(self) -> Iterator[list[Result]]:
        """In the page's thread: what came, until all has come."""
        while (item := self._lists.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def hand_over(self, now: float) -> bool:
        """In the engine's thread: pass on what came when it is enough, or old, or the last. Whether nothing is left."""
        last = self.all_asked and len(self.came) == self.under_way
        if self.came and (last or len(self.came) >= HANDED or now - self._handed_at >= HANDED_S):
            self.under_way -= len(self.came)
            came, self.came, self._handed_at = self.came, [], now
            self.put(came)
        self.end_if_done()
        return not self.came

    def end_if_done(self) -> None:
        """Tell the page that nothing more will come."""
        if self.all_asked and not self.under_way and not self.came:
            self.all_asked = False  # once
            self.put(None)

    def put(self, item: list[Result] | BaseException | None) -> None:
        """Wait while the page is far behind, unless it has gone."""
        while not self.abandoned:
            try:
                self._lists.put(item, timeout=LOOK_S)
            except queue.Full:
                continue
            return
