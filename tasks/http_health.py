"""How HTTP requests went, for adaptive concurrency; and the wait after a refusal that names none."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from tasks.errors import ItemError, RateLimited
from tasks.records import Reason

OVERLOADED = frozenset({429, 503, 504})


@dataclass(frozen=True, slots=True)
class Exchange:
    """How one HTTP request went, for whoever adapts concurrency to the host's health.

    status         None when no answer came
    seconds        until the answer's headers were here (the size of a file says nothing of health), or until
                   the request failed
    overloaded     429, 503, 504 or a timeout
    retry_after_s  what a RateLimited answer asked for, else None
    """

    status: int | None
    seconds: float
    overloaded: bool
    retry_after_s: float | None


class Health:
    """Becomes the Exchange of one request."""

    def __init__(self) -> None:
        self._started_s = time.monotonic()
        self._seconds: float | None = None
        self._status: int | None = None
        self._retry_after_s: float | None = None
        self._timed_out = False

    def answered(self, status: int) -> None:
        self._seconds = time.monotonic() - self._started_s
        self._status = status

    def failed(self, error: ItemError) -> None:
        self._timed_out = error.reason == Reason.TIMEOUT
        self._retry_after_s = error.retry_after_s if isinstance(error, RateLimited) else None

    def exchange(self) -> Exchange:
        seconds = time.monotonic() - self._started_s if self._seconds is None else self._seconds
        overloaded = self._timed_out or self._status in OVERLOADED
        return Exchange(self._status, seconds, overloaded, self._retry_after_s)


class Patience:
    """How long to wait after a 429 that names no time: 1 s, doubled by each further one up to a minute."""

    def __init__(self) -> None:
        self._refusals = 0
        self._grown_s = 0.0

    def next_s(self) -> float:
        return min(60.0, 2.0**self._refusals) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret

    def grow(self) -> None:
        """Workers refused at the same moment count as one."""
        now_s = time.monotonic()
        if now_s - self._grown_s > 1.0:
            self._refusals, self._grown_s = min(self._refusals + 1, 6), now_s

    def reset(self) -> None:
        self._refusals = 0
