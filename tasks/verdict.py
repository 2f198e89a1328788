"""Whether a host still gives anything that is right: everybody waits a little, then longer, then the run ends."""

from __future__ import annotations

import threading
import time

from tasks.breaker import Breaker
from tasks.pacing import Clock


class Verdict:
    """What the answers of a host say of it, over all threads of a process. Safe for threads.

    hopeless  what to say when the host gave nothing but errors for too long; `stop` is set then
    """

    def __init__(self, clock: Clock, patience_s: float, stop: threading.Event, advice: str) -> None:
        self.hopeless: str | None = None
        self._clock, self._stop = clock, stop
        self._said = f"{clock.host} gave nothing but errors for {patience_s:.0f} s; {advice}"
        self._breaker = Breaker(patience_s)
        self._lock = threading.Lock()

    @property
    def has_answered(self) -> bool:
        """Whether the host gave anything that is right."""
        return self._breaker.has_answered

    def heard(self, *, good: bool, again: bool = False) -> None:
        """An answer was right, or not (`again`: as before). After many errors in a row nobody asks for a while; at
        last the run ends."""
        now = time.monotonic()
        with self._lock:
            if good:
                self._breaker.good()
                return
            pause_s = self._breaker.bad(now, again=again)
            hopeless = self._breaker.is_hopeless(now)
        if hopeless:
            self.hopeless = self._said
            self._stop.set()
        elif pause_s:
            self._clock.hold(pause_s)
