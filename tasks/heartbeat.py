"""One thread per process renews the leases of every page it works on."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

log = logging.getLogger(__name__)

RENEW_EVERY_S = 15.0
RENEW_AGAIN_S = 1.0


class Leased(Protocol):
    """Something whose lease is to be kept."""

    @property
    def lease_s(self) -> float:
        """How long a renewed lease lasts."""

    def renew(self) -> None:
        """Extend it."""


class Heart:
    """Beats while there is a page."""

    def __init__(self) -> None:
        self._due: dict[Leased, float] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def beat_for(self, page: Leased) -> None:
        """Renew its lease from now on."""
        with self._changed:
            self._due[page] = time.monotonic() + _renew_every_s(page)
            self._changed.notify()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="landrecords-heartbeat", daemon=True)
                self._thread.start()

    def stop_for(self, page: Leased) -> None:
        """Let it lapse."""
        with self._changed:
            self._due.pop(page, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._due:
                    self._thread = None
                    return
                page, due = min(self._due.items(), key=lambda entry: entry[1])
                if due > time.monotonic():
                    self._changed.wait(due - time.monotonic())
                    continue
            next_due = time.monotonic() + (_renew_every_s(page) if _renewed(page) else RENEW_AGAIN_S)
            with self._changed:
                if page in self._due:
                    self._due[page] = next_due


def _renew_every_s(page: Leased) -> float:
    return min(RENEW_EVERY_S, page.lease_s / 4)


def _renewed(page: Leased) -> bool:
    try:
        page.renew()
    except Exception as exc:  # noqa: BLE001 - one page's trouble must not let the leases of the others lapse
        log.warning("lease not renewed: %s", exc)
        return False
    return True


heart = Heart()
