"""How many requests are under way at a time: concurrency that finds its level, for each host and process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.errors import StopRequested


@dataclass
class Level:
    """The AIMD policy, pure: halve on overload, one more per healthy round while latency does not climb.

    level          how many requests may be in flight (a float inside, so that small steps add up)
    best_round_s   the shortest mean latency of a round so far: what "healthy" is measured against
    """

    minimum: int = 1
    maximum: int = 8
    level: float = 2.0
    climb_factor: float = 2.0
    best_round_s: float = float("inf")
    _successes: int = 0
    _latency_s: float = 0.0
    _halved_at: float = float("-inf")

    @property
    def permitted(self) -> int:
        """Requests in flight allowed now."""
        return max(self.minimum, min(self.maximum, int(self.level)))

    def record(self, *, started: float, ended: float, overloaded: bool) -> None:
        """Learn from one finished request; times are seconds of one monotonic clock."""
        if overloaded:
            if started >= self._halved_at:  # what was in flight when we halved tells nothing new
                self.level = max(float(self.minimum), self.permitted / 2)
                self._halved_at = ended
            self._successes, self._latency_s = 0, 0.0
            return
        self._successes += 1
        self._latency_s += ended - started
        if self._successes >= self.permitted:
            self._end_round()

    def _end_round(self) -> None:
        mean_s = self._latency_s / self._successes
        self._successes, self._latency_s = 0, 0.0
        if mean_s > self.best_round_s * self.climb_factor:
            self.best_round_s *= 1.1  # a server that became slower for good is not held against it for ever
        else:
            self.level = min(float(self.maximum), self.permitted + 1.0)
        self.best_round_s = min(self.best_round_s, mean_s)


class Gate:
    """Lets as many threads through as the level permits. One per host and process."""

    def __init__(self, level: Level, *, stop: threading.Event | None = None) -> None:
        self.level = level
        self.in_flight = 0
        self._stop = stop or threading.Event()
        self._changed = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the permitted places. Raises StopRequested when the run is ending."""
        with self._changed:
            while self.in_flight >= self.level.permitted:
                self._changed.wait(0.2)
                if self._stop.is_set():
                    raise StopRequested("the run is ending")
            self.in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self.in_flight -= 1
                self._changed.notify()

    def record(self, *, seconds: float, overloaded: bool) -> None:
        """Tell the level how a request that just ended went."""
        now = time.monotonic()
        with self._changed:
            self.level.record(started=now - seconds, ended=now, overloaded=overloaded)
            self._changed.notify_all()
