"""How fast a host is asked, over all workers: a shared clock in Postgres.

The clock: a row per host from which a worker reserves its next few turns in one statement and spends them
evenly spaced. A turn whose time has passed unused is forfeited, never saved up for a burst. `Retry-After`
holds the row, so every worker on every machine waits.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from urllib.parse import urlsplit

from tasks.errors import ConfigurationError, StopRequested
from tasks.http_answers import shown
from tasks.postgres import Database, sql_text

LONGEST_PAUSE_S = 0.5
"""A worker that waits for a turn asks again after this long at the latest: the dial may have been turned."""

SPAN_S = 0.1
"""At most so many seconds of turns are reserved in one statement."""

HORIZON_S = 0.2
"""How far ahead of now the host may be reserved in all. With SPAN_S it is how long requests may still go out after
another worker was told to hold."""

FREE_S = 0.1
"""Without a dial a worker looks this often whether there is one now, or whether the host is held."""

LESSONS = 5
"""Readings of the database's clock before the first turn: one alone may have been slow on its way."""

PACE = 0.99
"""The clock runs one percent slow. A request that comes late crowds those behind it; with so much in hand, requests
may be late by one turn and 10 ms before any second holds more than one above the dial."""

LATE = 0.5
"""A turn is spent within this share of that time, or forfeited. The rest is for the way to the host."""

SLACK = 0.25
"""A turn that passed within this share of that time may still be reserved: the answer takes some time too."""


def host_of(url: str) -> str:
    """`host` or `host:port` of a URL, as used for clocks, dials and tags. Raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as exc:
        raise ConfigurationError(f"{shown(url)!r} is not an address ({exc}); give http(s)://host[:port]/.") from exc
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(f"{shown(url)!r} is not a web address; give http(s)://host[:port]/.")
    return f"{parts.hostname}{port}"


class Clock:
    """The turns of one host for this process. Safe for threads.

    waits_s    seconds all threads together have spent waiting for a turn
    forfeited  turns that passed unused
    """

    def __init__(self, database: Database, host: str, *, stop: threading.Event | None = None) -> None:
        self.host = host
        self.waits_s = 0.0
        self.forfeited = 0
        self._database = database
        self._stop = stop or threading.Event()
        self._turns: deque[float] = deque()
        self._waiting = 0
        self._late_s = 0.0
        self._held_until = 0.0
        self._free_until = 0.0
        self._ask_at = 0.0
        self._time = _DatabaseTime()
        self._lock = threading.Lock()  # of the fields; never held while waiting for anything
        self._asking = threading.Lock()  # of the one thread that gets turns for all
        self._reserve = sql_text("reserve_turns")
        self._read = sql_text("read_clock")

    def set_rate(self, turns_per_second: float | None) -> None:
        """Turn the dial for every worker of the host; None lifts the limit."""
        if turns_per_second is not None and not 0 < turns_per_second < math.inf:
            raise ConfigurationError("requests_per_second must be above 0; leave it out for the dial as it is.")
        arguments = {"host": self.host, "rate": turns_per_second, "in_hand_s": HORIZON_S + SPAN_S}
        self._database.rows(sql_text("turn_dial"), arguments)

    def rate(self) -> float | None:
        """Turns per second as the host's row says; None when unlimited or not set yet."""
        rows = self._database.rows(self._read, {"host": self.host})
        return None if not rows or rows[0][0] is None else float(rows[0][0])

    def hold(self, seconds: float) -> None:
        """Nobody asks the host for so long: the server said Retry-After."""
        self._learn_of_hold(seconds)
        self._database.rows(sql_text("hold_host"), {"host": self.host, "seconds": seconds})

    def take(self) -> None:
        """Wait for a turn and spend it. Raises StopRequested when the run is ending."""
        began = time.monotonic()
        self._sleep(0)
        if began < self._free_until:
            return
        while not self._spent(self._next_turn()):
            pass
        with self._lock:
            self.waits_s += time.monotonic() - began

    def take_up_to(self, n: int) -> int:
        """Spend at most `n` turns that are due at this moment, waiting for none: for a door that asks every round.

        `wait_s` then says when there may be more.
        """
        if not self._hand_is_empty() or not self._asking.acquire(blocking=False):
            return self._spend_due(n)
        try:
            if time.monotonic() >= self._ask_at:
                self._ask_at = time.monotonic() + self._ask(n)
        finally:
            self._asking.release()
        return self._spend_due(n)

    def wait_s(self) -> float:
        """Seconds until `take_up_to` may give more."""
        with self._lock:
            now = time.monotonic()
            return max(0.0, self._held_until - now, (self._turns[0] if self._turns else self._ask_at) - now)

    def _hand_is_empty(self) -> bool:
        """Whether it is time to ask the database; not while the host is held or free."""
        with self._lock:
            return not self._turns and time.monotonic() >= max(self._free_until, self._held_until)

    def _spend_due(self, n: int) -> int:
        with self._lock:
            now = time.monotonic()
            if now < self._held_until:
                return 0
            if now < self._free_until:
                return n
            spent = 0
            while spent < n and self._turns and self._turns[0] <= now:
                late = now > self._turns.popleft() + self._late_s
                self.forfeited += late
                spent += not late
            return spent

    def _next_turn(self) -> float:
        """The moment of a turn that is this thread's now."""
        with self._lock:
            self._waiting += 1
        try:
            with self._asking:
                while (turn := self._from_hand()) is None:
                    self._sleep(self._ask(self._waiting))
                return turn
        finally:
            with self._lock:
                self._waiting -= 1

    def _from_hand(self) -> float | None:
        with self._lock:
            now = time.monotonic()
            if now < self._free_until:
                return now
            return self._turns.popleft() if self._turns else None

    def _spent(self, turn: float) -> bool:
        """Wait until the turn has come; False when it is void, because the host is held or we are too late."""
        self._sleep(turn - time.monotonic())
        with self._lock:
            now = time.monotonic()
            if now < self._held_until:
                return False
            late = now > max(turn + self._late_s, self._free_until)
            self.forfeited += late
            return not late

    def _learn_of_hold(self, seconds: float) -> None:
        with self._lock:
            self._turns.clear()
            self._free_until = 0.0
            self._held_until = max(self._held_until, time.monotonic() + seconds)

    def _ask(self, wanted: int) -> float:
        """Reserve at most so many turns, if there are free ones; seconds until it is worth asking again."""
        if self._time.lessons == 0:
            for _ in range(LESSONS):
                for _rate, database_now in self._database.rows(self._read, {"host": self.host}):
                    self._time.learn(time.monotonic(), database_now)
        arguments = {
            "host": self.host,
            "wanted": wanted,
            "span_s": SPAN_S,
            "horizon_s": HORIZON_S,
            "pace": PACE,
            "slack": SLACK,
        }
        rows = self._database.rows(self._reserve, arguments)
        answered = time.monotonic()
        if not rows:
            self.set_rate(None)
            return 0.0
        rate, number, first, spacing_s, next_in_s, held_s, database_now = rows[0]
        self._time.learn(answered, database_now)
        if held_s > 0:
            self._learn_of_hold(held_s)
        elif rate is None:
            self._free_until = answered + FREE_S
        if number:
            self._fill_hand(self._time.here(first), number, spacing_s)
            return 0.0
        # Between one and two thirds of the horizon before the next free turn: in time for it, and not all at once.
        ahead_s = HORIZON_S * random.uniform(1 / 3, 1)  # noqa: S311 - spreads requests, keeps no secret
        return min(LONGEST_PAUSE_S, max(0.002, next_in_s - ahead_s) if rate else float(held_s))

    def _fill_hand(self, first: float, number: int, spacing_s: float) -> None:
        with self._lock:
            self._late_s = LATE * (spacing_s + 1 - PACE)
            self._turns.extend(first + i * spacing_s for i in range(number))

    def _sleep(self, seconds: float) -> None:
        if (seconds > 0 and self._stop.wait(seconds)) or self._stop.is_set():
            raise StopRequested("the run is ending")


class _DatabaseTime:
    """The database's clock as seen from here. An answer can only be late, so the smallest difference is the truest."""

    def __init__(self) -> None:
        self.lessons = 0
        self._ahead_s = math.inf
        self._learned_at = 0.0

    def learn(self, answered: float, database_now: float) -> None:
        """An answer that carried the database's time came at this moment of our monotonic clock."""
        drift_s = 1e-4 * (answered - self._learned_at)
        seen_s = answered - database_now
        stepped = seen_s - self._ahead_s > 1.0  # somebody set the database's clock
        self._ahead_s = seen_s if stepped else min(seen_s, self._ahead_s + drift_s)
        self._learned_at = answered
        self.lessons += 1

    def here(self, moment: float) -> float:
        """A moment of the database's clock on our monotonic one."""
        return moment + self._ahead_s
