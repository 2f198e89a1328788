"""How many transfers of a bulk door may start now: the host's turns, its holds, and the level in flight.

The door asks once per round, never per item, so a clock that lives in a database costs a round trip for many
transfers. `tasks.pacing.Clock` and `tasks.level.Level` implement these protocols; a door does not import it.
"""

from __future__ import annotations

import sys
import time
from typing import Protocol

TOLD_EVERY_S = 0.05
"""A hundred transfers refused at once tell the shared clock this often; this door itself holds at the first."""


class Turns(Protocol):
    """The host's dial, shared by everybody who asks it. Called from the door's thread, once a round."""

    def take_up_to(self, n: int) -> int:
        """Spend at most `n` (>= 1) turns that are due at this moment. Does not wait for one to become due."""

    def wait_s(self) -> float:
        """Seconds until `take_up_to` may give one; asked after it gave fewer than wanted. 0: ask at once."""

    def hold(self, seconds: float) -> None:
        """The server said Retry-After: nobody starts anything for so long. Asked again, the longer one holds."""


class Level(Protocol):
    """How many transfers may be in flight, learned from how they go. `tasks.level.Level` is one."""

    @property
    def permitted(self) -> int:
        """At least 1; looked at every round, so a level that falls takes effect at once."""

    def record(self, *, started: float, ended: float, overloaded: bool) -> None:
        """One finished transfer, in seconds of the monotonic clock.

        ended       when the answer's headers were here, or when the transfer failed
        overloaded  429, 503, 504 or a timeout
        """


class Pace:
    """Turns, level and holds as one question: how many may start. Moments are monotonic seconds.

    Without turns only `Retry-After` holds the door; without a level all its places may be taken.
    """

    def __init__(self, turns: Turns | None, level: Level | None) -> None:
        self.level = level
        self._turns = turns
        self._held_until = 0.0
        self._told_until = 0.0
        self._tell_at = 0.0

    def room(self, in_flight: int) -> int:
        """Free places at the present level."""
        return sys.maxsize if self.level is None else self.level.permitted - in_flight

    def take(self, wanted: int, now: float) -> int:
        """How many of `wanted` transfers start now."""
        if wanted <= 0 or now < self._held_until:
            return 0
        return wanted if self._turns is None else min(wanted, self._turns.take_up_to(wanted))

    def wait_s(self, now: float) -> float:
        """Seconds until `take` may give more."""
        if now < self._held_until:
            return self._held_until - now
        return 0.0 if self._turns is None else max(0.0, self._turns.wait_s())

    def refused(self, wait_s: float) -> None:
        """An answer asked for patience: nothing starts from now on until it is over."""
        self._held_until = max(self._held_until, time.monotonic() + wait_s)

    def tell(self) -> None:
        """Share the hold with everybody who asks this host; every round, so a longer one follows soon."""
        if self._turns is None or self._held_until == self._told_until:
            return
        now = time.monotonic()
        if now < self._tell_at or now >= self._held_until:
            return
        self._turns.hold(self._held_until - now)
        self._told_until, self._tell_at = self._held_until, now + TOLD_EVERY_S
