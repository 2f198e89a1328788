"""The dial of a host: a Prefect global concurrency limit that an operator turns in the UI mid-run.

`slot_decay_per_second` of the limit named like the host is its requests per second. The dial is only read
(every few seconds); the turns themselves come from the clock in Postgres, since a call of Prefect's own
`rate_limit` costs 10-240 ms and delivers 56-91 % of the rate.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.exceptions import ObjectNotFound, PrefectException

from tasks.pacing import Clock

log = logging.getLogger(__name__)

READ_EVERY_S = 4.0
PAGES_PER_TAG = 16
"""Pages of one tag that may run at once over all workers, until an operator says otherwise."""


@contextmanager
def dialled(clock: Clock, *, requested: float | None, default: float | None) -> Iterator[None]:
    """Keep the clock's rate equal to the host's dial for the block.

    requested  turns the dial to this rate; None leaves it as it stands
    default    rate of a dial that does not exist yet; None: unlimited, and no dial is made
    """
    rate = _set(clock.host, requested, default)
    clock.set_rate(rate)
    ended = threading.Event()
    watch = partial(copy_context().run, _watch, clock, default, rate, ended)  # Prefect's settings live in the context
    watcher = threading.Thread(target=watch, name="dial", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(timeout=2)


def _set(host: str, requested: float | None, default: float | None) -> float | None:
    try:
        return _set_in_prefect(host, requested, default)
    except (httpx.HTTPError, PrefectException, RuntimeError) as exc:
        log.warning("no Prefect API for the dial of %s (%s); using the parameter", host, exc)
        return requested if requested is not None else default


def _set_in_prefect(host: str, requested: float | None, default: float | None) -> float | None:
    standing = read_dial(host)
    if standing is None and requested is None and default is None:
        return None
    if standing is not None and requested is None:
        return standing
    rate = requested if requested is not None else default
    assert rate is not None  # noqa: S101 - one of the two is given here
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(host, max(1, math.ceil(rate)), slot_decay_per_second=rate)
        client.update_global_concurrency_limit(host, GlobalConcurrencyLimitUpdate(active=True))
    return rate


def read_dial(host: str) -> float | None:
    """Requests per second the host's limit says now; None when there is none or it is switched off."""
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(host)
        except ObjectNotFound:
            return None
    return float(limit.slot_decay_per_second) if limit.active and limit.slot_decay_per_second > 0 else None


def read_rate(host: str, requested: float | None, default: float | None) -> float | None:
    """The rate a run would go at, without turning the dial."""
    if requested is not None:
        return requested
    try:
        standing = read_dial(host)
    except (httpx.HTTPError, PrefectException, RuntimeError):
        standing = None
    return default if standing is None else standing


@contextmanager
def at_rate(clock: Clock, rate: float | None) -> Iterator[None]:
    """A sample that somebody wants to know the time at the dial of keeps to that dial, where nobody set it yet."""
    if rate is None or clock.rate() is not None:
        yield
        return
    clock.set_rate(rate)
    try:
        yield
    finally:
        clock.set_rate(None)


def _watch(clock: Clock, default: float | None, rate: float | None, ended: threading.Event) -> None:
    while not ended.wait(READ_EVERY_S):
        try:
            now = read_dial(clock.host)
            now = default if now is None else now
            if now != rate:
                log.warning("the dial of %s was turned: %s -> %s requests/s", clock.host, rate, now)
                clock.set_rate(now)
                rate = now
        except Exception as exc:  # noqa: BLE001 - a server that is away must not end the crawl; the rate stands
            log.warning("dial of %s not read: %s", clock.host, exc)


def limit_pages(*tags: str, pages: int = PAGES_PER_TAG) -> None:
    """Make the Prefect concurrency limit of each tag when it is missing; an existing one is left as it stands."""
    try:
        with get_client(sync_client=True) as client:
            for tag in tags:
                try:
                    client.read_concurrency_limit_by_tag(tag)
                except ObjectNotFound:
                    client.create_concurrency_limit(tag=tag, concurrency_limit=pages)
    except (httpx.HTTPError, PrefectException, RuntimeError) as exc:
        log.warning("no Prefect API for the limits of %s: %s", ", ".join(tags), exc)
