"""Decides which request a set of faults hits. Pure counting and arithmetic; the clock is a parameter."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from zlib import crc32

from tasks.sample.chance import seeded
from tasks.sample.faults import Fault, Faults


class FaultPolicy:
    """A set of faults at work: it counts, so it is made anew whenever the set changes."""

    def __init__(self, faults: Faults, seed: int = 7, clock: Callable[[], float] = time.monotonic) -> None:
        self.faults = faults
        self._seed, self._clock = seed, clock
        self._started = clock()
        self._hits: Counter[tuple[int, int]] = Counter()
        self._requests = 0
        self._burst_until = [0.0] * len(faults.rules)
        self._accepted: deque[float] = deque()
        self._chance = seeded(f"latency {seed}")

    def over_rate(self) -> bool:
        """Whether this request is one too many for the second that ends now; if not, it counts."""
        limit = self.faults.max_requests_per_second
        if limit is None:
            return False
        now = self._clock()
        while self._accepted and self._accepted[0] <= now - 1.0:
            self._accepted.popleft()
        if len(self._accepted) + 1 > limit:
            return True
        self._accepted.append(now)
        return False

    def latency_s(self) -> float:
        """How long the next answer waits."""
        return (self.faults.latency_ms + self.faults.jitter_ms * self._chance.random()) / 1000

    def decide(self, on: str, document: int | None) -> Fault | None:
        """The fault that hits this request (`on`: lookup, file or page), which counts as one."""
        self._requests += 1
        lower = 0.0
        for index, rule in enumerate(self.faults.rules):
            upper = lower + rule.share
            if rule.on in ("any", on) and (
                self._by_time(index, rule) or self._by_document(index, rule, document, lower)
            ):
                return rule
            lower = upper
        return None

    def _by_time(self, index: int, rule: Fault) -> bool:
        now = self._clock()
        if rule.every is not None:
            due = self._requests % rule.every == 0
            if due and rule.lasts_s:
                self._burst_until[index] = now + rule.lasts_s
            return due or now < self._burst_until[index]
        start = self._started + rule.starts_s
        return rule.lasts_s is not None and start <= now < start + rule.lasts_s

    def _by_document(self, index: int, rule: Fault, document: int | None, lower: float) -> bool:
        if document is None or not (document in rule.documents or lower <= self._place(document) < lower + rule.share):
            return False
        self._hits[index, document] += 1
        return rule.times is None or self._hits[index, document] <= rule.times

    def _place(self, document: int) -> float:
        return crc32(f"fault {self._seed} {document}".encode()) / 2**32
