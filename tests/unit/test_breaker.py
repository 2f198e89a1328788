"""A host that gives nothing but errors: when everybody pauses, for how long, and when the run is given up."""

from __future__ import annotations

import pytest

from tasks.breaker import ENOUGH, FIRST_PAUSE_S, LONGEST_PAUSE_S, Breaker


def fail(breaker: Breaker, errors: int, at: float, *, again: bool = False) -> list[float]:
    """The pauses that so many errors at one moment bring."""
    return [pause_s for _ in range(errors) if (pause_s := breaker.bad(at, again=again))]


def test_a_few_errors_are_the_items_own_fault() -> None:
    breaker = Breaker(patience_s=10)
    assert fail(breaker, ENOUGH - 1, at=0.0) == []
    assert not breaker.is_hopeless(1000.0)


def test_many_errors_at_once_are_one_pause() -> None:
    breaker = Breaker()
    assert fail(breaker, 500, at=0.0) == [FIRST_PAUSE_S]
    assert fail(breaker, 100, at=FIRST_PAUSE_S - 0.01) == [], "they were under way when the pause began"


def test_pauses_grow_up_to_a_limit_and_begin_anew_after_a_good_answer() -> None:
    breaker, now, pauses = Breaker(), 0.0, []
    fail(breaker, ENOUGH - 1, now)
    for _ in range(6):
        (pause_s,) = fail(breaker, 20, now)
        pauses.append(pause_s)
        now += pause_s
    assert pauses == [1.0, 2.0, 4.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    breaker.good()
    assert fail(breaker, ENOUGH - 1, now) == []
    assert fail(breaker, 1, now) == [FIRST_PAUSE_S]


@pytest.mark.parametrize("patience_s", [0.5, 60.0, 3600.0])
def test_a_run_is_given_up_after_errors_alone_for_the_patience(patience_s: float) -> None:
    breaker = Breaker(patience_s)
    fail(breaker, ENOUGH, at=100.0)
    assert not breaker.is_hopeless(100.0 + patience_s - 0.01)
    assert breaker.is_hopeless(100.0 + patience_s)


def test_one_good_answer_is_hope() -> None:
    breaker = Breaker(patience_s=10)
    fail(breaker, 1000, at=0.0)
    breaker.good()
    assert not breaker.is_hopeless(1000.0)
    fail(breaker, ENOUGH, at=1000.0)
    assert not breaker.is_hopeless(1009.9), "counted from the first error since"
    assert breaker.is_hopeless(1010.0)


def test_items_that_fail_again_and_again_are_no_sign_where_others_came() -> None:
    """A thousand broken tiles at 10/s: the end of a run, which takes minutes, has nothing but errors."""
    breaker = Breaker(patience_s=60)
    breaker.good()
    pauses = [fail(breaker, 1, at=second / 10, again=True) for second in range(10_000)]
    assert pauses == [[]] * 10_000
    assert not breaker.is_hopeless(1000.0)
    assert fail(breaker, 500, at=1000.0) == [FIRST_PAUSE_S], "new items that fail count as ever"
    assert breaker.is_hopeless(1060.0)


def test_where_nothing_ever_came_repeated_failures_count() -> None:
    """A run that goes on with what an earlier one could not get, while the host is still away."""
    breaker = Breaker(patience_s=60)
    assert fail(breaker, 500, at=0.0, again=True) == [FIRST_PAUSE_S]
    assert breaker.is_hopeless(60.0)
