"""A host that answers nothing but errors: everybody waits a little, then longer, then the run ends. Pure."""

from __future__ import annotations

from dataclasses import dataclass

ENOUGH = 50
"""Errors in a row that make a verdict; a few may well be the items' own fault."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 8.0


@dataclass
class Breaker:
    """Counts errors in a row, over all items of a host. One good answer forgets them.

    patience_s    errors alone for so long end the run
    has_answered  whether it ever gave something that is right
    """

    patience_s: float = 60.0
    errors: int = 0
    has_answered: bool = False
    _since: float = 0.0
    _paused_until: float = 0.0
    _pause_s: float = FIRST_PAUSE_S

    def good(self) -> None:
        """The host gave something that is right: a tile, or a plain "there is none"."""
        self.errors, self._pause_s, self.has_answered = 0, FIRST_PAUSE_S, True

    def bad(self, now: float, *, again: bool = False) -> float:
        """An error came at this moment (seconds, monotonic). Returns for how long nobody should ask the host; mostly 0.

        again  the item failed before: its own fault, where the host answered for others. A run that has nothing left
               but such items would otherwise end for them, or wait for each

        Errors of requests that were under way when a pause began say nothing new.
        """
        if again and self.has_answered:
            return 0.0
        self._since = self._since if self.errors else now
        self.errors += 1
        if self.errors < ENOUGH or now < self._paused_until:
            return 0.0
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, self._pause_s * 2)
        self._paused_until = now + pause_s
        return pause_s

    def is_hopeless(self, now: float) -> bool:
        """Whether there were only errors for longer than anybody should wait."""
        return self.errors >= ENOUGH and now - self._since >= self.patience_s
