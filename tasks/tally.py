"""Running counts of a run, for the terminal and the UI while it goes on. No input or output of its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence

from tasks.records import FINAL, Status


class Tally:
    """step -> status -> items, and bytes. Safe for threads.

    expected   items the run means to take, once known
    level      requests in flight that the host bears, where concurrency adapts
    """

    def __init__(self, steps: Sequence[str]) -> None:
        self.steps = {step: Counter[str]() for step in steps}
        self.expected = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.level: int | None = None
        self.began = time.monotonic()
        self._lock = threading.Lock()

    def add(self, step: str, status: str, *, items: int = 1, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """Count settled items of a step."""
        with self._lock:
            self.steps[step][str(status)] += items
            self.bytes_in += bytes_in
            self.bytes_out += bytes_out

    @property
    def finished(self) -> int:
        """Items that need no more work: final in the last step, failed in any, or skipped in the first."""
        names = list(self.steps)
        with self._lock:
            through = sum(self.steps[names[-1]][s] for s in FINAL)
            failed = sum(self.steps[name][Status.FAILED] for name in names[:-1])
            skipped = self.steps[names[0]][Status.SKIPPED] if len(names) > 1 else 0
        return through + failed + skipped

    @property
    def failed(self) -> int:
        """Items that failed in some step."""
        with self._lock:
            return sum(counts[Status.FAILED] for counts in self.steps.values())

    @property
    def rate(self) -> float:
        """Finished items per second since the run began."""
        return self.finished / max(1e-9, time.monotonic() - self.began)

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the rate so far; None before anything finished."""
        left = max(0, self.expected - self.finished)
        return left / self.rate if self.finished else None

    @property
    def percent(self) -> float:
        """Share of the expected items that is finished, 0 to 100."""
        return min(100.0, 100.0 * self.finished / self.expected) if self.expected else 0.0

    def line(self) -> str:
        """One line for logs and the UI."""
        return f"{self.headline()}, {self.details()}"

    def headline(self) -> str:
        """How far the run is, how fast, and how long it will take."""
        text = f"{self.finished:,} of {self.expected:,} done, {self.rate:.1f}/s"
        return text + (f", about {duration(self.eta_s)} to go" if self.eta_s and self.expected else "")

    def details(self) -> str:
        """What a narrow terminal can do without."""
        text = f"{self.failed:,} failed, {size(self.bytes_in)} in, {size(self.bytes_out)} out"
        return text + (f", {self.level} at once" if self.level is not None else "")


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`, `6 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(number_of_bytes: float) -> str:
    """`812 B`, `4.1 MB`: decimal units, as disks and networks are sold."""
    if number_of_bytes < 999.5:
        return f"{number_of_bytes:.0f} B"
    for unit in ("kB", "MB", "GB"):
        number_of_bytes /= 1000
        if number_of_bytes < 999.95:  # more would be said as 1000.0
            return f"{number_of_bytes:.1f} {unit}"
    number_of_bytes /= 1000
    return f"{number_of_bytes:.1f} TB"
