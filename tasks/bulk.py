"""The bulk door: hundreds of small downloads in flight inside one thread, on libcurl's multi interface.

Iterator in, iterator out: memory does not grow with the number of requests. What belongs here is whether each
conversation went well, in the words of `tasks.http_answers`; whether the body is a tile is the caller's question.
Nothing is repeated here: a failed item is handed back at once and its row decides, so no retry holds a place.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Generic

import pycurl

from tasks.bulk_answers import Trouble
from tasks.bulk_flight import Flight
from tasks.bulk_pace import Level, Pace, Turns
from tasks.bulk_results import Failure, Got, Reader
from tasks.bulk_transfer import Ask, K, Transfer, Wiring
from tasks.errors import ItemError, OutsideUnreachable, StopRequested
from tasks.http_sessions import USER_AGENT, sendable, trusted

__all__ = ["Ask", "BulkDoor", "Failure", "Got", "Level", "Turns"]

TICK_S = 0.1
"""A round takes no longer: stops are seen, and the caller gets to settle what it has."""

SHORTEST_WAIT_S = 0.0005


class BulkDoor:
    """Downloads many small things from HTTP hosts. Used by one thread at a time; keeps its connections between uses.

    connections   transfers in flight at the most; over HTTP/2 they share few connections
    turns         the host's dial; None: nothing but Retry-After holds the door
    level         learns how many transfers do the host good; None: always `connections`
    low_speed_*   a transfer slower than this many bytes/s over this many seconds is given up; waiting for the
                  first byte counts
    max_bytes     of one body, as it travels and unpacked; a larger one is given up as soon as that is known
    headers       sent to every host this door is asked for; of them, a redirect shows another host only Accept,
                  User-Agent and Referer
    allowed_hosts hosts that a redirect may lead to, besides the host that was asked
    secrets       texts that an address may hold and no message may
    verify        True, the path of a certificate authority's file or folder, or False
    stop          once set, StopRequested within TICK_S; what is in flight is given up

    Proxies are taken from the environment as curl does (http_proxy only in lower case).
    """

    def __init__(
        self,
        *,
        user_agent: str = USER_AGENT,
        connections: int = 100,
        turns: Turns | None = None,
        level: Level | None = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float = 10,
        low_speed_bytes_per_s: float = 256,
        low_speed_window_s: float = 30,
        total_timeout_s: float = 300,
        max_bytes: int = 16 * 1024**2,
        allowed_hosts: Collection[str] = (),
        secrets: Collection[str] = (),
        verify: bool | str = True,
        http2: bool = True,
        stop: threading.Event | None = None,
    ) -> None:
        wiring = Wiring(
            headers=sendable({"User-Agent": user_agent, **(headers or {})}),
            connect_timeout_s=connect_timeout_s,
            total_timeout_s=total_timeout_s,
            low_speed_bytes_per_s=low_speed_bytes_per_s,
            low_speed_window_s=low_speed_window_s,
            max_bytes=max_bytes,
            http2=http2,
            verify=trusted(verify),
        )
        self._stop = stop or threading.Event()
        self._flight = Flight(wiring, connections, self._stop)
        self._pace = Pace(turns, level)
        self._reader = Reader(max_bytes=max_bytes, allowed_hosts=allowed_hosts, secrets=secrets)
        self._hopping: deque[Transfer] = deque()
        self._in_use = threading.Lock()

    @property
    def in_flight(self) -> int:
        """Transfers under way at this moment; any thread may look."""
        return len(self._flight)

    @property
    def connections_opened(self) -> int:
        """So far, over all uses."""
        return self._flight.connections_opened

    def fetch_all(self, asks: Iterable[Ask[K] | None]) -> Iterator[Got[K] | Failure[K]]:
        """Every ask's result, as they come. Errors as `rounds`."""
        for results in self.rounds(asks):
            yield from results

    def rounds(self, asks: Iterable[Ask[K] | None]) -> Iterator[list[Got[K] | Failure[K]]]:
        """Results as they come, several at a time; an empty list at least every TICK_S when there are none.

        Asks are taken as places come free; None says that there is none at this moment, and the next round asks
        again. While the caller works on a list nothing moves on, so work that takes
        longer than some milliseconds belongs in another thread: turns would pass unused.
        Raises StopRequested, or ConfigurationError when nothing can succeed; what was not handed back is then
        not done. Leaving the iteration early gives up what is in flight.
        """
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError("a bulk door serves one thread at a time; open another one")
        try:
            yield from self._run(_Line(asks))
        except pycurl.error as exc:
            raise OutsideUnreachable(f"libcurl failed ({exc.args[-1]}); the page is tried again.") from exc
        finally:
            while self._hopping:
                self._flight.rest(self._hopping.pop())
            self._flight.abandon()
            self._in_use.release()

    def close(self) -> None:
        """Close all connections."""
        self._flight.close()

    def __enter__(self) -> BulkDoor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, line: _Line[K]) -> Iterator[list[Got[K] | Failure[K]]]:
        """Places are filled again before the caller sees what came, so the host has work meanwhile."""
        results: list[Got[K] | Failure[K]] = []
        handed_s = time.monotonic()
        while line or self._hopping or self._flight or results:
            if self._stop.is_set():
                yield results
                raise StopRequested("The run is stopping; what was in flight is given up.")
            unusable, due_s = self._start(line)
            landed = self._flight.land()
            if results or time.monotonic() - handed_s >= TICK_S:
                yield results
                handed_s = time.monotonic()
            results = unusable + self._read(landed)
            if not landed and not results and (line or self._hopping or self._flight):
                self._flight.wait(max(0.0, due_s - time.monotonic()))

    def _start(self, line: _Line[Any]) -> tuple[list[Any], float]:
        """Fill the free places that have turns. Returns rows that cannot be asked, and when to start more."""
        now_s = time.monotonic()
        room = min(self._flight.room(), self._pace.room(len(self._flight)))
        line.fill(room - len(self._hopping))
        wanted = min(room, len(self._hopping) + len(line.waiting))
        granted = self._pace.take(wanted, now_s)
        unusable = [bad for _ in range(granted) if (bad := self._start_one(line, now_s)) is not None]
        wait_s = TICK_S if granted >= wanted else min(TICK_S, self._pace.wait_s(now_s))
        return unusable, now_s + max(wait_s, SHORTEST_WAIT_S)

    def _start_one(self, line: _Line[Any], now_s: float) -> Failure[Any] | None:
        if self._hopping:
            transfer = self._hopping.popleft()
        else:
            transfer = self._flight.idle()
            try:
                transfer.aim(line.waiting.popleft())
            except ItemError as exc:
                self._flight.rest(transfer)
                return Failure(transfer.ask.id, self._reader.veiled(exc), None, 0.0)
        self._flight.start(transfer, now_s)
        return None

    def _read(self, landed: list[tuple[Transfer, Trouble | None]]) -> list[Any]:
        results = []
        for transfer, trouble in landed:
            result = self._reader.read(transfer, trouble)
            if self._pace.level is not None or not isinstance(result, Got):
                self._learn(transfer, result)
            if result is None:
                self._hopping.append(transfer)
            else:
                self._flight.rest(transfer)
                results.append(result)
        self._pace.tell()
        return results

    def _learn(self, transfer: Transfer, result: Got[Any] | Failure[Any] | None) -> None:
        """A refusal holds the door before anything else is started."""
        failure = result if isinstance(result, Failure) else None
        if failure is not None and failure.retry_after_s is not None:
            self._pace.refused(failure.retry_after_s)
        if self._pace.level is not None:
            ended_s = transfer.started_s + transfer.answered_after_s()
            overloaded = failure is not None and failure.overloaded
            self._pace.level.record(started=transfer.started_s, ended=ended_s, overloaded=overloaded)


class _Line(Generic[K]):
    """Asks that wait for a place: only as many as there are places are taken from the caller's iterator."""

    def __init__(self, asks: Iterable[Ask[K] | None]) -> None:
        self.waiting: deque[Ask[K]] = deque()
        self._source = iter(asks)
        self._ended = False

    def __bool__(self) -> bool:
        return bool(self.waiting) or not self._ended

    def fill(self, n: int) -> None:
        """Have `n` waiting if there are so many."""
        missing = n - len(self.waiting)
        if missing <= 0 or self._ended:
            return
        for ask in islice(self._source, missing):
            if ask is None:
                return
            self.waiting.append(ask)
        self._ended = len(self.waiting) < n
