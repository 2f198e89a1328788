"""What went wrong, named by what happens next.

Every door maps the exceptions of its outside thing to one of these, so no caller ever
catches a `requests`, `psycopg2` or `google` exception. Messages are one sentence with the remedy.
"""

from __future__ import annotations

from threading import Event
from typing import Any


class LandrecordsError(Exception):
    """Root of all errors raised on purpose."""


class ConfigurationError(LandrecordsError):
    """The user gave something that cannot work. Nothing was done; exit code 2."""


class OutsideUnreachable(LandrecordsError):
    """An outside system (database, bucket, Prefect API) does not answer. The page is retried; exit code 3."""


class IllegalMove(LandrecordsError):
    """The database refused a status change that the state machine does not have."""


class ItemError(LandrecordsError):
    """Something about one item. `reason` is the typed word that ends up in the item's row."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors come from worker processes too; by default only `args` would be given to the class."""
        return type(self), (self.reason, str(self))


class TransientError(ItemError):
    """This attempt failed; a later one may succeed. The row goes back to pending with a delay."""


class RateLimited(ItemError):
    """The server asked for patience (429, or 503 with Retry-After). Costs no attempt; every worker waits."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__("rate_limited", message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        """See ItemError."""
        return type(self), (str(self), self.retry_after_s)


class TerminalError(ItemError):
    """Trying again gives the same answer. The row is failed, and only `landrecords retry` brings it back."""


class SkippedItem(ItemError):
    """Nothing to fetch, and that is the right answer (a sealed record, a missing tile)."""


class StopRequested(LandrecordsError):
    """The run is shutting down: unstarted items are released at once, nothing is counted."""


def refuse_when_stopped(stop: Event | None) -> None:
    """Raise StopRequested once the run is shutting down: long work asks now and then."""
    if stop is not None and stop.is_set():
        raise StopRequested("the run is ending; what was not done is left for the next one.")
