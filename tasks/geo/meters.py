"""What a node did: features, bytes, time, memory; and whether it takes longer than it may."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from tasks.geo.memory import Budget, resident_bytes


@dataclass(frozen=True)
class Measured:
    """Of one node, over some parts.

    bytes_out       of features as WKB and Arrow columns, or as a sink wrote them
    seconds         it was at work, whatever the number of threads
    cpu_ms          of all threads; what libraries do in threads of their own is not seen
    peak_memory_mb  the most the process took while it was at work
    began, ended    seconds since 1970; 0: never at work
    """

    features_in: int = 0
    features_out: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    cpu_ms: float = 0.0
    peak_memory_mb: float = 0.0
    began: float = 0.0
    ended: float = 0.0

    def plus(self, other: Measured) -> Measured:
        """Both together."""
        began = min(filter(None, (self.began, other.began)), default=0.0)
        return Measured(
            self.features_in + other.features_in,
            self.features_out + other.features_out,
            self.bytes_out + other.bytes_out,
            self.seconds + other.seconds,
            self.cpu_ms + other.cpu_ms,
            max(self.peak_memory_mb, other.peak_memory_mb),
            began,
            max(self.ended, other.ended),
        )

    def as_json(self) -> dict[str, Any]:
        """For a file or a row."""
        return asdict(self)


class Meter:
    """Counts one node's work on one part. Safe for threads."""

    def __init__(self, budget: Budget, timeout_s: float | None = None) -> None:
        self._budget = budget
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._calls = 0
        self._since = 0.0
        self._features_in = self._features_out = self._bytes_out = 0
        self._seconds = self._cpu_s = self._peak = self._began = self._ended = 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        """The node is at work in this thread."""
        cpu = time.thread_time()
        with self._lock:
            now = time.monotonic()
            self._since = self._since if self._calls else now
            self._began = self._began or time.time()
            self._calls += 1
        try:
            yield
        finally:
            resident = resident_bytes()
            with self._lock:
                self._calls -= 1
                self._cpu_s += time.thread_time() - cpu
                self._ended = time.time()
                self._peak = max(self._peak, resident)
                if not self._calls:
                    self._seconds += time.monotonic() - self._since
        self._budget.saw(resident)

    def count(self, features_in: int = 0, features_out: int = 0, bytes_out: int = 0) -> None:
        """Features that came and went."""
        with self._lock:
            self._features_in += features_in
            self._features_out += features_out
            self._bytes_out += bytes_out

    @property
    def overdue(self) -> bool:
        """Whether the node has been at work longer than it may."""
        if self._timeout_s is None:
            return False
        with self._lock:
            running = time.monotonic() - self._since if self._calls else 0.0
            return self._seconds + running > self._timeout_s

    @property
    def measured(self) -> Measured:
        """What it did."""
        with self._lock:
            return Measured(
                self._features_in,
                self._features_out,
                self._bytes_out,
                round(self._seconds, 4),
                round(self._cpu_s * 1000, 1),
                round(self._peak / 1e6, 1),
                self._began,
                self._ended,
            )
