"""One engine for the pages of a process: nobody waits for another page's slow transfer, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tasks import bulk_engine
from tasks.bulk import Ask, BulkDoor
from tasks.bulk_engine import BulkEngine, Result
from tasks.errors import ConfigurationError, StopRequested
from tests.fakes.http_server import RawServer, answer, stall

BODY = b"a tile" * 1000


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as server:
        server.on("/", answer(200, BODY))
        yield server


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def engine(stop: threading.Event) -> Iterator[BulkEngine]:
    engine = BulkEngine(BulkDoor(connections=20, stop=stop, low_speed_window_s=10))
    yield engine
    stop.set()
    engine.close()


def asks(server: RawServer, first: int, number: int, path: str = "/") -> list[Ask[int]]:
    return [Ask(n, server.url(f"{path}?{n}")) for n in range(first, first + number)]


def ids(lists: Iterator[list[Result]]) -> list[int]:
    """Of all results, in the order they came."""
    return [result.id for results in lists for result in results]


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """The thread, and what `work` returns or raises once it ends."""
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(work())
        except Exception as exc:
            came.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, came


def test_every_page_gets_its_own_results_and_no_others(engine: BulkEngine, server: RawServer) -> None:
    with ThreadPoolExecutor(6) as pool:
        pages = list(pool.map(lambda n: ids(engine.fetch(asks(server, 1000 * n, 100 + n))), range(6)))
    for number, came in enumerate(pages):
        assert sorted(came) == list(range(1000 * number, 1000 * number + 100 + number))
    assert ids(engine.fetch(iter(()))) == []
    assert ids(engine.fetch(asks(server, 7, 1))) == [7], "after a rest"
    assert server.connections <= 20, "one set of connections for all"


def test_a_transfer_that_stalls_holds_up_neither_its_page_nor_the_next(engine: BulkEngine, server: RawServer) -> None:
    """All but the stalled one are handed over; pages that come while nothing else is under way are served."""
    server.on("/stalled", stall())
    page = engine.fetch([*asks(server, 0, 30), *asks(server, 900, 1, "/stalled"), *asks(server, 30, 30)])
    came: list[int] = []
    thread, _ = in_thread(lambda: came.extend(n for results in page for n in (r.id for r in results)))
    for number in (1, 2, 3):
        deadline = time.monotonic() + 5
        while len(came) < 60 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sorted(came) == list(range(60)), "handed over although one is missing"
        time.sleep(0.15)  # nothing but the stalled one is under way
        next_page, found = in_thread(lambda first=1000 * number: ids(engine.fetch(asks(server, first, 40))))
        next_page.join(5)
        assert sorted(found[0]) == list(range(1000 * number, 1000 * number + 40))
    assert thread.is_alive()


def test_results_are_handed_over_while_other_pages_keep_the_engine_busy(engine: BulkEngine, server: RawServer) -> None:
    server.on("/stalled", stall())
    came: list[int] = []
    page = engine.fetch([*asks(server, 0, 5), *asks(server, 900, 1, "/stalled")])
    in_thread(lambda: came.extend(n for results in page for n in (r.id for r in results)))
    busy, _ = in_thread(lambda: ids(engine.fetch(asks(server, 10_000, 3000))))
    deadline = time.monotonic() + 5
    while len(came) < 5 and busy.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert sorted(came) == [0, 1, 2, 3, 4]
    assert busy.is_alive(), "the other page was still at work"


def test_a_page_that_goes_away_takes_nothing_from_the_others(engine: BulkEngine, server: RawServer) -> None:
    """Its tiles may be asked for again, by itself, while the first answers are still on their way."""
    server.on("/slow", stall(), answer(200, BODY))
    for number in range(3):
        page = engine.fetch([*asks(server, 0, 200), *asks(server, 900, 1, "/slow")])
        next(page)
        page.close()
        assert sorted(ids(engine.fetch(asks(server, 0, 200)))) == list(range(200)), number


def test_a_page_that_is_far_behind_is_waited_for(
    engine: BulkEngine, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded: the server is not asked for what nobody has room for."""
    page = engine.fetch(asks(server, 0, 5000))
    first = next(page)
    time.sleep(1.0)
    room = bulk_engine.HANDED * (bulk_engine.LISTS_WAITING + 3)
    assert len(server.seen) < room + 2 * 20 + 200 < 5000
    assert sorted([*(r.id for r in first), *ids(page)]) == list(range(5000))


def test_what_ends_the_door_ends_every_page(engine: BulkEngine, server: RawServer, stop: threading.Event) -> None:
    server.on("/stalled", stall())
    pages = [in_thread(lambda n=n: ids(engine.fetch(asks(server, n, 1, "/stalled")))) for n in range(4)]
    server.wait_for(4)
    stop.set()
    for thread, came in pages:
        thread.join(3)
        assert isinstance(came[0], StopRequested)


def test_asks_that_cannot_be_made_end_the_page_with_their_error(engine: BulkEngine, server: RawServer) -> None:
    def broken() -> Iterator[Ask[int]]:
        yield from asks(server, 0, 3)
        raise ConfigurationError("no such column.")

    with pytest.raises(ConfigurationError, match="no such column"):
        ids(engine.fetch(broken()))
    assert ids(engine.fetch(asks(server, 7, 1))) == [7], "and the engine goes on"


def test_a_page_that_comes_after_the_end_is_told(server: RawServer) -> None:
    stop = threading.Event()
    engine = BulkEngine(BulkDoor(connections=4, stop=stop))
    assert ids(engine.fetch(asks(server, 1, 1))) == [1]
    stop.set()
    engine.close()
    thread, came = in_thread(lambda: ids(engine.fetch(asks(server, 2, 1))))
    thread.join(3)
    assert isinstance(came[0], StopRequested)


def test_an_engine_that_is_closed_at_any_moment_leaves_no_page_waiting(server: RawServer) -> None:
    for _ in range(15):
        stop = threading.Event()
        engine = BulkEngine(BulkDoor(connections=4, stop=stop))
        lots = [asks(server, 50 * n, 50) for n in range(4)]
        pages = [in_thread(lambda engine=engine, lot=lot: ids(engine.fetch(lot))) for lot in lots]
        time.sleep(0.01)
        stop.set()
        engine.close()
        for thread, came in pages:
            thread.join(3)
            assert came, "it waits for ever"
