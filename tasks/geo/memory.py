"""A run's memory budget: batches wait for room, blocking nodes spill, and what takes far more is ended."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from tasks.errors import ConfigurationError

FAR_OVER = 2.0
"""Times the budget: held by count, or taken by the process (see `Budget.saw`)."""

SLACK_BYTES = 192 << 20
"""What the process may take besides: copies of a batch within a node, memory that the allocators keep."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Memory this process takes now; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


class Budget:
    """Bytes that may be held at a time by all of a run in this process. Safe for threads.

    size_bytes  of features: the process itself takes some more
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.held = 0
        self.peak = 0
        self._base = resident_bytes()
        self._changed = threading.Condition()

    def room(self, size_bytes: int) -> bool:
        """Whether so much more may be held."""
        return self.held + size_bytes <= self.size_bytes

    def hold(self, size_bytes: int) -> None:
        """Count it as held (negative: given back). Raises ConfigurationError when far over."""
        with self._changed:
            self.held += size_bytes
            self.peak = max(self.peak, self.held)
            if size_bytes < 0:
                self._changed.notify_all()
        if size_bytes > 0 and self.held > self.size_bytes * FAR_OVER:
            raise self._too_much(self.held)

    def await_room(self, size_bytes: int, timeout_s: float) -> bool:
        """Whether there is room, at the latest after that time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.room(size_bytes), timeout_s)

    def saw(self, resident: int) -> None:
        """The process takes so much. Raises ConfigurationError where that is far more than its budget."""
        if resident - self._base > self.size_bytes * FAR_OVER + SLACK_BYTES:
            raise self._too_much(resident - self._base)

    def _too_much(self, found_bytes: int) -> ConfigurationError:
        return ConfigurationError(
            f"the run holds {found_bytes >> 20:,} MB where its budget is {self.size_bytes >> 20:,} MB; "
            "give it more (memory_mb), or make its features smaller before they are gathered."
        )


class Account:
    """What one holder has of the budget; closed, everything is given back."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._held = 0
        self._closed = False
        self._lock = threading.Lock()

    def room(self, size_bytes: int) -> bool:
        """See `Budget.room`."""
        return self.budget.room(size_bytes)

    def hold(self, size_bytes: int) -> None:
        """See `Budget.hold`."""
        with self._lock:
            if self._closed:
                return
            self._held += size_bytes
        self.budget.hold(size_bytes)

    def close(self) -> None:
        """A call that was abandoned may still come back: it counts no more."""
        with self._lock:
            self._closed = True
            held, self._held = self._held, 0
        self.budget.hold(-held)
