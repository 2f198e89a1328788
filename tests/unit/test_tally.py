"""Running counts and how they are said."""

from __future__ import annotations

import threading
import time

import pytest

from tasks.records import Status
from tasks.tally import Tally, duration, size


def tally_of(*counts: tuple[str, str, int], expected: int = 0) -> Tally:
    tally = Tally(["download", "optimize", "upload"])
    tally.expected = expected
    for step, status, number in counts:
        for _ in range(number):
            tally.add(step, status)
    return tally


def test_an_item_is_finished_once() -> None:
    """Through the last step, failed in any, or skipped in the first: an item on its way counts in none."""
    tally = tally_of(
        ("download", Status.COMPLETED, 7),
        ("download", Status.FAILED, 2),
        ("download", Status.SKIPPED, 1),
        ("download", Status.PENDING, 4),
        ("optimize", Status.COMPLETED, 3),
        ("optimize", Status.SKIPPED, 3),
        ("optimize", Status.FAILED, 1),
        ("upload", Status.COMPLETED, 4),
        ("upload", Status.FAILED, 1),
        expected=20,
    )
    assert tally.finished == 5 + 2 + 1 + 1
    assert tally.failed == 4
    assert tally.percent == 45.0


def test_a_single_step_counts_each_final_status_once() -> None:
    tally = Tally(["status"])
    for status in (Status.COMPLETED, Status.FAILED, Status.SKIPPED, Status.PENDING, Status.IN_PROGRESS):
        tally.add("status", status)
    assert tally.finished == 3


def test_an_empty_run_divides_by_nothing() -> None:
    tally = Tally(["download"])
    assert (tally.finished, tally.percent, tally.eta_s) == (0, 0.0, None)
    assert "0 of 0 done" in tally.line()


def test_more_done_than_expected_is_not_more_than_all() -> None:
    tally = tally_of(("upload", Status.COMPLETED, 5), expected=3)
    assert tally.percent == 100.0
    assert tally.eta_s == 0.0


def test_rate_and_time_to_go_follow_what_was_done() -> None:
    tally = tally_of(("upload", Status.COMPLETED, 50), expected=150)
    tally.began = time.monotonic() - 10.0
    assert tally.rate == pytest.approx(5.0, rel=0.05)
    assert tally.eta_s == pytest.approx(20.0, rel=0.05)


def test_threads_do_not_lose_counts() -> None:
    tally = Tally(["download"])

    def add() -> None:
        for _ in range(2000):
            tally.add("download", Status.COMPLETED, bytes_in=3, bytes_out=1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tally.finished, tally.bytes_in, tally.bytes_out) == (8000, 24000, 8000)


def test_the_line_says_what_an_operator_asks() -> None:
    tally = tally_of(("upload", Status.COMPLETED, 1200), ("upload", Status.FAILED, 34), expected=5000)
    tally.began, tally.level = time.monotonic() - 60, 4
    tally.add("download", Status.COMPLETED, bytes_in=5_000_000, bytes_out=999)
    line = tally.line()
    for part in ("1,234 of 5,000 done", "34 failed", "20.6/s", "5.0 MB in", "999 B out", "4 at once", "3 min"):
        assert part in line


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86399, "23 h 59 min"),
        (532800, "6 d 4 h"),
    ],
)
def test_duration(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (4_096_000, "4.1 MB"),
        (999_999, "1.0 MB"),
        (2.5e9, "2.5 GB"),
        (3e12, "3.0 TB"),
        (4.2e15, "4200.0 TB"),
    ],
)
def test_size(number: float, said: str) -> None:
    assert size(number) == said
