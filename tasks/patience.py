"""Waiting for a database that is away for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tasks.errors import OutsideUnreachable


def patiently(call: Callable[[], Any], patience_s: float) -> Any:
    """The result of `call`, tried again while the database is away, for at most `patience_s`."""
    deadline, pause_s = time.monotonic() + patience_s, 0.1
    while True:
        try:
            return call()
        except OutsideUnreachable:
            if time.monotonic() + pause_s > deadline:
                raise
            time.sleep(pause_s)
            pause_s = min(2.0, pause_s * 2)
