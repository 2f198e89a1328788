"""The dial in Prefect and the clock in Postgres, with a real Prefect server."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks import dial
from tasks.dial import dialled, limit_pages, read_dial, read_rate
from tasks.pacing import Clock
from tasks.postgres import Database

pytestmark = pytest.mark.usefixtures("prefect_server")

_numbers = itertools.count(8000)


@pytest.fixture
def clock(database: Database) -> Clock:
    """Of a host that nobody has asked before, with a port in its name."""
    return Clock(database, f"records-{time.time_ns()}.example:{next(_numbers)}")


def limit_of(host: str) -> GlobalConcurrencyLimitResponse | None:
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(host)
        except ObjectNotFound:
            return None


def turn(host: str, **changes: object) -> None:
    """What an operator does in the UI."""
    with get_client(sync_client=True) as client:
        client.update_global_concurrency_limit(host, GlobalConcurrencyLimitUpdate(**changes))  # type: ignore[arg-type]


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_dial_that_is_missing_is_made_with_the_default(clock: Clock) -> None:
    with dialled(clock, requested=None, default=2.5):
        assert clock.rate() == 2.5
    limit = limit_of(clock.host)
    assert limit is not None
    assert (limit.active, limit.slot_decay_per_second, limit.limit) == (True, 2.5, 3)
    assert read_dial(clock.host) == 2.5


def test_without_rate_and_default_no_dial_is_made(clock: Clock) -> None:
    with dialled(clock, requested=None, default=None):
        assert clock.rate() is None
    assert limit_of(clock.host) is None


def test_a_run_with_a_rate_turns_the_dial_and_one_without_leaves_it(clock: Clock) -> None:
    with dialled(clock, requested=12.0, default=2.0):
        assert clock.rate() == 12.0
    assert read_dial(clock.host) == 12.0
    with dialled(clock, requested=None, default=2.0):
        assert clock.rate() == 12.0, "as the run before left it, not the default"
    with dialled(clock, requested=0.25, default=2.0):
        assert clock.rate() == 0.25
    assert read_dial(clock.host) == 0.25


def test_turning_the_dial_in_prefect_reaches_the_clock_within_10_s(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with dialled(clock, requested=None, default=2.0):
        turn(clock.host, slot_decay_per_second=40.0)
        assert within(10.0, lambda: clock.rate() == 40.0)
    assert f"the dial of {clock.host} was turned: 2.0 -> 40.0" in caplog.text


def test_a_dial_that_is_switched_off_or_removed_means_the_default(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "READ_EVERY_S", 0.1)
    with dialled(clock, requested=9.0, default=2.0):
        turn(clock.host, active=False)
        assert within(10.0, lambda: clock.rate() == 2.0)
        turn(clock.host, active=True)
        assert within(10.0, lambda: clock.rate() == 9.0)
        with get_client(sync_client=True) as client:
            client.delete_global_concurrency_limit_by_name(clock.host)
        assert within(10.0, lambda: clock.rate() == 2.0)


def test_nobody_watches_the_dial_after_the_run(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "READ_EVERY_S", 0.1)
    with dialled(clock, requested=9.0, default=2.0):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "dial"]
    turn(clock.host, slot_decay_per_second=3.0)
    time.sleep(0.5)
    assert clock.rate() == 9.0


@pytest.mark.parametrize(("requested", "rate"), [(7.0, 7.0), (None, 2.0)])
def test_without_a_prefect_api_the_parameter_holds(
    clock: Clock,
    requested: float | None,
    rate: float,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dial, "READ_EVERY_S", 0.1)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        with dialled(clock, requested=requested, default=2.0):
            assert clock.rate() == rate
            assert read_rate(clock.host, requested, 2.0) == rate
            time.sleep(0.5)
            assert clock.rate() == rate, "an API that stays away changes nothing"
        limit_pages("portal-nowhere")
    assert "no Prefect API for the dial" in caplog.text


def test_an_api_that_goes_away_during_the_run_leaves_the_rate(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "READ_EVERY_S", 0.1)
    caplog.set_level(logging.WARNING)
    with dialled(clock, requested=9.0, default=2.0):
        monkeypatch.setattr(dial, "read_dial", lambda host: _away())
        assert within(5.0, lambda: "not read" in caplog.text)
        assert clock.rate() == 9.0


def _away() -> float:
    raise ConnectionError("gone")


def test_a_dry_run_reads_the_rate_and_turns_nothing(clock: Clock) -> None:
    assert read_rate(clock.host, None, 2.0) == 2.0
    assert read_rate(clock.host, 5.0, 2.0) == 5.0
    assert read_rate(clock.host, None, None) is None
    assert limit_of(clock.host) is None
    with dialled(clock, requested=6.0, default=2.0):
        assert read_rate(clock.host, None, 2.0) == 6.0


def test_page_limits_are_made_once_and_then_the_operators(clock: Clock) -> None:
    tags = [f"portal-{clock.host}", f"store-{clock.host}"]
    limit_pages(*tags, pages=4)
    with get_client(sync_client=True) as client:
        assert [client.read_concurrency_limit_by_tag(tag).concurrency_limit for tag in tags] == [4, 4]
        client.create_concurrency_limit(tag=tags[0], concurrency_limit=1)
    limit_pages(*tags, pages=9)
    with get_client(sync_client=True) as client:
        assert [client.read_concurrency_limit_by_tag(tag).concurrency_limit for tag in tags] == [1, 4]
