"""Whether a host still gives anything that is right: everybody waits a little, then longer, then the run ends."""

from __future__ import annotations

import threading
import time

from tasks.breaker import Breaker
from tasks.errors import OutsideUnreachable
from tasks.pacing import Clock
from tasks.records import RunReport, Status

ENOUGH_TO_JUDGE = 5
"""Fewer items without success may well be the items' fault, as in a run that tries old failures again."""


class Verdict:
    """What the answers of a host say of it, over all threads of a process. Safe for threads.

    workload  whose items are asked for: `tiles`
    hopeless  what to say when the host gave nothing but errors for too long; `stop` is set then
    """

    def __init__(self, clock: Clock, patience_s: float, stop: threading.Event, workload: str) -> None:
        self.hopeless: str | None = None
        self._clock, self._stop, self._workload = clock, stop, workload
        self._said = (
            f"{clock.host} gave nothing but errors for {patience_s:.0f} s; look at one address by hand; when it "
            f"answers, `landrecords retry {workload}` and run again: nothing is lost."
        )
        self._breaker = Breaker(patience_s)
        self._lock = threading.Lock()

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

    def insist(self, report: RunReport, mend: str) -> None:
        """A run that got none of its items says so. Raises OutsideUnreachable.

        mend  what may be wrong on our side: `the address`
        """
        if self.hopeless:
            raise OutsideUnreachable(self.hopeless)
        failed = report.counts[Status.FAILED]
        done = report.counts[Status.COMPLETED] + report.counts[Status.SKIPPED]
        if failed >= ENOUGH_TO_JUDGE and not done:
            reasons = ", ".join(f"{reason} {n}" for reason, n in report.failures.items())
            raise OutsideUnreachable(
                f"not one of {failed} {self._workload} of {self._clock.host} could be had ({reasons}); look at one by "
                f"hand, correct {mend}, then `landrecords retry {self._workload}` and run again."
            )
