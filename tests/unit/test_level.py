"""The policy of adaptive concurrency, by table: what happened, and how many requests may be in flight then."""

from __future__ import annotations

import threading
import time

import pytest

from tasks.errors import StopRequested
from tasks.level import Gate, Level

OK, SLOW, OVER = "ok", "slow", "over"


def play(level: Level, events: list[str]) -> list[int]:
    """Feed requests one after the other; the level after each. `slow` takes three times as long as `ok`."""
    now, seen = 100.0, []
    for event in events:
        ended = now + (0.3 if event == SLOW else 0.1)
        level.record(started=now, ended=ended, overloaded=event == OVER)
        now = ended
        seen.append(level.permitted)
    return seen


@pytest.mark.parametrize(
    ("start", "events", "expected"),
    [
        pytest.param(1, [OK], [2], id="a round of one climbs at once"),
        pytest.param(2, [OK, OK, OK, OK, OK], [2, 3, 3, 3, 4], id="one more for each healthy round"),
        pytest.param(8, [OK] * 16, [8] * 16, id="never above the maximum"),
        pytest.param(8, [OVER], [4], id="overload halves"),
        pytest.param(8, [OVER, OVER, OVER, OVER], [4, 2, 1, 1], id="halves again for requests begun since, down to 1"),
        pytest.param(5, [OVER], [2], id="halving rounds down"),
        pytest.param(4, [OK, OK, OK, OVER, OK, OK], [4, 4, 4, 2, 2, 3], id="an overload ends the round"),
        pytest.param(2, [OK, OK, SLOW, SLOW, SLOW], [2, 3, 3, 3, 3], id="no more while latency climbs"),
        pytest.param(1, [SLOW] * 3, [2, 2, 3], id="a server that is always slow is not climbing"),
    ],
)
def test_level(start: int, events: list[str], expected: list[int]) -> None:
    assert play(Level(minimum=1, maximum=8, level=float(start)), events) == expected


def test_requests_in_flight_when_it_halved_do_not_halve_again() -> None:
    level = Level(maximum=16, level=16.0)
    for ended in (10.0, 10.1, 10.2, 10.3):
        level.record(started=9.0, ended=ended, overloaded=True)
    assert level.permitted == 8
    level.record(started=10.05, ended=10.4, overloaded=True)
    assert level.permitted == 4


def test_bounds_of_the_parameters_hold() -> None:
    assert play(Level(minimum=3, maximum=8, level=4.0), [OVER, OVER]) == [3, 3]
    assert Level(minimum=1, maximum=2, level=9.0).permitted == 2


def test_a_server_that_became_slower_for_good_is_not_shunned_for_ever() -> None:
    level = Level(maximum=8, level=4.0)
    play(level, [OK] * 4)
    assert max(play(level, [SLOW] * 60)[30:]) >= 4


def test_finds_the_level_a_server_bears() -> None:
    """A server that refuses the seventh request in flight: the level stays near six and never leaves the bounds."""
    level, now, seen = Level(maximum=32, level=2.0), 0.0, []
    for _ in range(200):
        in_flight = level.permitted
        for number in range(in_flight):
            level.record(started=now, ended=now + 0.1, overloaded=number >= 6)
        now += 0.11
        seen.append(level.permitted)
    assert max(seen) == 7
    assert min(seen[10:]) == 3
    assert sum(seen[10:]) / len(seen[10:]) > 4


def test_gate_lets_through_as_many_as_the_level_permits() -> None:
    gate, most, lock = Gate(Level(maximum=3, level=3.0)), [0, 0], threading.Lock()

    def work() -> None:
        with gate.place():
            with lock:
                most[0] += 1
                most[1] = max(most)
            time.sleep(0.02)
            with lock:
                most[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [0, 3]
    assert gate.in_flight == 0


def test_gate_opens_further_when_the_level_climbs() -> None:
    gate, entered = Gate(Level(maximum=4, level=1.0)), threading.Semaphore(0)
    leave = threading.Event()

    def work() -> None:
        with gate.place():
            entered.release()
            leave.wait(10)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.acquire(timeout=5)
    assert not entered.acquire(timeout=0.3)
    gate.record(seconds=0.1, overloaded=False)
    assert entered.acquire(timeout=5)
    leave.set()
    for thread in threads:
        thread.join()


def test_gate_gives_its_place_back_after_an_error() -> None:
    gate = Gate(Level(maximum=1, level=1.0))
    with pytest.raises(OSError), gate.place():
        raise OSError
    with gate.place():
        assert gate.in_flight == 1


def test_gate_raises_when_the_run_ends() -> None:
    stop = threading.Event()
    gate = Gate(Level(maximum=1, level=1.0), stop=stop)
    with gate.place():
        stop.set()
        with pytest.raises(StopRequested), gate.place():
            pytest.fail("there was no place")
