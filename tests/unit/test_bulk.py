"""The bulk door: many transfers in one thread against servers that fail, stall, truncate, refuse and lie."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import resource
import signal
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from tasks.bulk import Ask, BulkDoor, Failure, Got
from tasks.downloads import HttpDoor
from tasks.errors import (
    ConfigurationError,
    LandrecordsError,
    OutsideUnreachable,
    RateLimited,
    StopRequested,
    TerminalError,
    TransientError,
)
from tasks.level import Level
from tests.fakes.bulk_server import Crowd, Http2Server
from tests.fakes.http_server import (
    Behaviour,
    RawServer,
    answer,
    chunked,
    deaf_port,
    gzipped,
    head,
    raw,
    redirect,
    reset,
    self_signed,
    stall,
    trickle,
    unused_port,
)

BODY = bytes(range(256)) * 48  # 12,288 bytes: a tile
PACKED = gzip.compress(BODY)


class Bulk(BulkDoor):
    """A BulkDoor that does not wait long."""

    def __init__(self, **options: Any) -> None:
        defaults: dict[str, Any] = {"user_agent": "test", "connections": 50, "connect_timeout_s": 5.0}
        super().__init__(**{**defaults, **options})

    def fetch(self, url: str, **conditions: Any) -> Got[int] | Failure[int]:
        (result,) = self.fetch_all([Ask(1, url, **conditions)])
        return result

    def error(self, url: str) -> LandrecordsError:
        """What is wrong with it, however it is told."""
        try:
            result = self.fetch(url)
        except LandrecordsError as exc:
            return exc
        assert isinstance(result, Failure), result
        return result.error


class Metronome:
    """Turns evenly spaced; those not taken within `late_s` are gone."""

    def __init__(self, rate: float, late_s: float = 0.005) -> None:
        self.holds: list[float] = []
        self.given: list[float] = []
        self._gap_s, self._late_s = 1 / rate, late_s
        self._next_s = time.monotonic()

    def take_up_to(self, n: int) -> int:
        now_s = time.monotonic()
        while self._next_s < now_s - self._late_s:
            self._next_s += self._gap_s
        taken = 0
        while taken < n and self._next_s <= now_s:
            self.given.append(self._next_s)
            self._next_s += self._gap_s
            taken += 1
        return taken

    def wait_s(self) -> float:
        return self._next_s - time.monotonic()

    def hold(self, seconds: float) -> None:
        self.holds.append(seconds)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as started:
        yield started


@pytest.fixture
def door() -> Iterator[Bulk]:
    with Bulk() as opened:
        yield opened


def tiles(server: RawServer, count: int, *behaviours: Behaviour) -> list[Ask[int]]:
    """`count` addresses, each behaving so; without behaviours each has a body of its own."""
    return [
        Ask(i, server.on(f"/{i}", *(behaviours or [answer(200, body_of(i), content_type="image/png")])))
        for i in range(count)
    ]


def body_of(number: int) -> bytes:
    return number.to_bytes(4, "big") + BODY


def words(error: LandrecordsError) -> tuple[type, str | None]:
    return type(error), getattr(error, "reason", None)


# --- whole answers ---


def test_every_tile_comes_whole_over_connections_that_are_kept(server: RawServer, door: Bulk) -> None:
    asks = tiles(server, 200)
    for _ in range(2):
        got = {result.id: result for result in door.fetch_all(iter(asks))}
        assert {i: g.body for i, g in got.items() if isinstance(g, Got)} == {i: body_of(i) for i in range(200)}
        assert door.connections_opened == server.connections <= 50
    assert len(server.seen) == 400
    assert door.in_flight == 0


def test_an_answer_is_described(server: RawServer, door: Bulk) -> None:
    url = server.on(
        "/a",
        answer(200, BODY, Content_Type="image/png; x", ETAG='"v1"', last_modified="Sun, 01 Mar 2026 12:00:00 GMT"),
    )
    assert door.fetch(url) == Got(
        id=1,
        status=200,
        body=BODY,
        content_type="image/png; x",
        etag='"v1"',
        last_modified="Sun, 01 Mar 2026 12:00:00 GMT",
        declared_bytes=len(BODY),
        wire_bytes=len(BODY),
        seconds=pytest.approx(0.0, abs=5.0),
    )


@pytest.mark.parametrize(
    ("behaviour", "declared", "wire"),
    [
        (chunked(BODY[:5], BODY[5:]), None, len(BODY)),
        (raw(head(200, {}) + BODY), None, len(BODY)),
        (gzipped(BODY), None, len(PACKED)),
        (answer(200, gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), content_encoding="x-gzip"), None, None),
        (answer(200, PACKED + b"padding", content_encoding="GZIP"), None, None),
        (answer(200, zlib.compress(BODY), content_encoding="deflate"), None, None),
        (answer(200, zlib.compress(BODY)[2:-4], content_encoding="deflate"), None, None),
        (answer(200, BODY, content_encoding="identity"), len(BODY), len(BODY)),
        (raw(head(103, {"ETag": "early"}) + head(200, {"content-length": len(BODY)}) + BODY), len(BODY), len(BODY)),
        (answer(203, BODY), len(BODY), len(BODY)),
    ],
)
def test_every_framing_arrives_whole(
    server: RawServer, door: Bulk, behaviour: Behaviour, declared: int | None, wire: int | None
) -> None:
    got = door.fetch(server.on("/a", behaviour))
    assert isinstance(got, Got)
    assert (got.body, got.etag, got.declared_bytes) == (BODY, None, declared)
    assert wire in (None, got.wire_bytes)


def test_an_empty_body_is_the_callers_question(server: RawServer, door: Bulk) -> None:
    for behaviour in (answer(200), answer(200, content_encoding="gzip")):
        got = door.fetch(server.on("/a", behaviour))
        assert isinstance(got, Got)
        assert got.body == b""


def test_unchanged_items_cost_no_body_and_conditions_end_with_their_item(server: RawServer) -> None:
    url, date = server.on("/a", raw(head(304, {"etag": '"v1"'}), keep=True)), "Sun, 01 Mar 2026 12:00:00 GMT"
    with Bulk(connections=1, headers={"X-Layer": "ortho"}) as door:
        results = list(door.fetch_all([Ask(1, url, '"v1"', date), Ask(2, url), Ask(3, url, '"v\n1"', "–")]))
    first, second, third = (request.headers for request in server.seen)
    assert (first["if-none-match"], first["if-modified-since"], first["x-layer"]) == ('"v1"', date, "ortho")
    assert "if-none-match" not in second
    assert not {"if-none-match", "if-modified-since"} & set(third), (
        "a header in a value that was kept would be a header of its own"
    )
    assert second["x-layer"] == third["x-layer"] == "ortho"
    assert isinstance(results[0], Got)
    assert (results[0].status, results[0].body, results[0].etag) == (304, b"", '"v1"')
    assert isinstance(results[1], Failure), "nobody asked whether it changed"


def test_addresses_are_quoted_and_logins_are_sent(server: RawServer, door: Bulk) -> None:
    server.on("/gr%C3%BCn%20a", answer(200, BODY))
    assert isinstance(door.fetch(server.url("/grün a")), Got)
    server.on("/b", answer(200, BODY))
    assert isinstance(door.fetch(server.url("/b").replace("//", "//anna:s3cret@")), Got)
    assert isinstance(door.fetch(server.url("/b")), Got)
    assert "basic" in server.seen[1].headers["authorization"].lower()
    assert "authorization" not in server.seen[2].headers


def test_the_user_agent_and_headers_are_sent(server: RawServer) -> None:
    with Bulk(user_agent="landrecords/0.1", headers={"Referer": "https://map.example/", "X-Empty": ""}) as door:
        door.fetch(server.on("/a", answer(200, BODY)))
    sent = server.seen[0].headers
    assert (sent["user-agent"], sent["referer"], sent["x-empty"]) == ("landrecords/0.1", "https://map.example/", "")


# --- the same words as the other door ---

SAME = {
    "404": answer(404, b"<html>"),
    "410": answer(410),
    "401": answer(401),
    "403": answer(403),
    "418": answer(418),
    "206": answer(206, BODY),
    "202": answer(202, BODY),
    "408": answer(408),
    "500": answer(500, b"x" * 100_000),
    "502": answer(502),
    "503": answer(503),
    "503 for 7 s": answer(503, retry_after=7),
    "504": answer(504),
    "429 for 7 s": answer(429, retry_after=7),
    "429 until": answer(
        429,
        retry_after=format_datetime(datetime(2026, 3, 1, 12, 0, 7, tzinfo=UTC), usegmt=True),
        date="Sun, 01 Mar 2026 12:00:00 GMT",
    ),
    "304 unasked": raw(head(304, {})),
    "302 nowhere": answer(302),
    "404 truncated": raw(head(404, {"content-length": 100}) + b"x"),
    "short": raw(head(200, {"content-length": 100}) + b"x" * 40),
    "short chunks": chunked(BODY, end=False),
    "short gzip": gzipped(BODY, cut=30),
    "bad gzip": answer(200, b"not gzip", content_encoding="gzip"),
    "brotli": answer(200, b"abc", content_encoding="br"),
    "reset": reset(),
    "reset within": reset(head(200, {"content-length": 100}) + b"x" * 40),
    "closed": raw(b""),
    "no http": raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "too large": answer(200, b"x" * 50_000),
    "too large, undeclared": chunked(b"x" * 50_000),
    "too large unpacked": answer(200, gzip.compress(b"x" * 50_000), content_encoding="gzip"),
    "another host": redirect("http://elsewhere.invalid/"),
    "no address": redirect("ftp://127.0.0.1/a"),
}


@pytest.mark.parametrize("name", SAME)
def test_the_words_are_those_of_the_other_door(server: RawServer, tmp_path: Path, name: str) -> None:
    url = server.on("/a?token=s3cret".partition("?")[0], SAME[name]) + "?token=s3cret"
    with (
        HttpDoor(before_request=lambda: None, retry_delays_s=(), max_bytes=20_000) as other,
        Bulk(max_bytes=20_000) as door,
    ):
        ours = door.error(url)
        with pytest.raises(LandrecordsError) as theirs:
            other.download(url, tmp_path / "file")
    assert words(ours) == words(theirs.value)
    assert getattr(ours, "retry_after_s", None) == getattr(theirs.value, "retry_after_s", None)
    assert "s3cret" not in str(ours)
    assert str(ours).endswith(".")


def test_a_connection_that_fails_has_the_same_words_too(tmp_path: Path) -> None:
    with RawServer(greeting=b"") as silent, deaf_port() as deaf:
        urls = {
            f"http://127.0.0.1:{unused_port()}/": TransientError,
            "http://nowhere.invalid/": TransientError,
            f"http://127.0.0.1:{deaf}/": TransientError,
            silent.url("/").replace("http", "https"): TransientError,
            "http://[bad/": TerminalError,
            "http:///path": TerminalError,
            "file:///etc/passwd": TerminalError,
            "http://127.0.0.1:99999/": TerminalError,
            "http://127.0.0.1/\0": TransientError,
            "": TerminalError,
        }
        limits: dict[str, Any] = {"connect_timeout_s": 0.3, "total_timeout_s": 2}
        with (
            HttpDoor(before_request=lambda: None, retry_delays_s=(), read_timeout_s=0.3, **limits) as other,
            Bulk(**limits) as door,
        ):
            for url, kind in urls.items():
                error = door.error(url)
                assert isinstance(error, kind), (url, error)
                with pytest.raises(LandrecordsError) as theirs:
                    other.download(url, tmp_path / "file")
                assert words(error) == words(theirs.value), url


@pytest.mark.parametrize("status", [204, 205])
def test_no_content_means_that_nothing_is_kept_there(server: RawServer, door: Bulk, status: int) -> None:
    result = door.fetch(server.on("/a", raw(head(status, {"content-length": 0}), keep=True)))
    assert isinstance(result, Failure)
    assert (type(result.error), result.reason, result.status) == (TerminalError, "not_found", status)


@pytest.mark.parametrize("ending", [PACKED[:-30], PACKED[:-8], PACKED[:1], PACKED[:-8] + b"\0" * 8])
def test_half_a_gzip_of_the_declared_length_is_truncated(server: RawServer, door: Bulk, ending: bytes) -> None:
    error = door.error(server.on("/a", answer(200, ending, content_encoding="gzip")))
    assert words(error) == (TransientError, "truncated"), "libcurl itself takes it for whole"


def test_a_body_that_unpacks_to_fifty_megabytes_is_not_unpacked(server: RawServer) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    url = server.on("/a", answer(200, bomb, content_encoding="gzip"))
    with Bulk(max_bytes=1_000_000) as door:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert words(door.error(url)) == (TerminalError, "too_large")
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_a_body_that_grows_over_the_limit_is_not_read_on(server: RawServer) -> None:
    url = server.on("/a", trickle(head(200, {}) + b"x" * 2000, b"y" * 1000, every_s=0.05))
    with Bulk(max_bytes=1000, total_timeout_s=5) as door:
        assert words(door.error(url)) == (TerminalError, "too_large")


def test_slow_bodies_are_given_up_and_steady_ones_are_not(server: RawServer) -> None:
    asks = [
        Ask("silent", server.on("/silent", stall())),
        Ask("stalled", server.on("/stalled", stall(head(200, {"content-length": 100}) + b"x"))),
        Ask("trickling", server.on("/trickling", trickle(head(200, {"content-length": 900}), b"x" * 900, 0.1))),
        Ask("steady", server.on("/steady", trickle(head(200, {"content-length": 80}), b"x" * 80, 0.02))),
    ]
    with Bulk(low_speed_bytes_per_s=20, low_speed_window_s=1) as door:
        results = {result.id: result for result in door.fetch_all(asks)}
    assert isinstance(results["steady"], Got)
    for name in ("silent", "stalled", "trickling"):
        failure = results[name]
        assert isinstance(failure, Failure)
        assert (failure.reason, failure.overloaded) == ("timeout", True), name


def test_no_transfer_outlives_the_total_time(server: RawServer) -> None:
    url = server.on("/a", trickle(head(200, {"content-length": 900}), b"x" * 900, 0.05))
    with Bulk(total_timeout_s=0.4) as door:
        assert "in all" in str(door.error(url))


# --- redirects ---


def test_redirects_take_a_turn_each_and_end_after_five(server: RawServer) -> None:
    for hop in range(7):
        server.on(f"/{hop}", redirect(f"/{hop + 1}"))
    server.on("/7", answer(200, BODY))
    turns = Metronome(1000)
    with Bulk(turns=turns) as door:
        got = door.fetch(server.url("/2"))
        assert isinstance(got, Got)
        assert (got.body, len(turns.given)) == (BODY, 6)
        assert "circles" in str(door.error(server.url("/1")))
        assert isinstance(door.fetch(server.url("/7")), Got), "the handle forgets its hops"


def test_an_allowed_host_gets_no_secrets(server: RawServer) -> None:
    server.on("/a", redirect(server.url("/b", host="localhost")))
    server.on("/b", answer(200, BODY))
    headers = {"Authorization": "Bearer s3cret", "X-Key": "s3cret", "Cookie": "s3cret", "Accept": "image/*"}
    with Bulk(headers=headers, allowed_hosts=["LOCALHOST"], connections=1) as door:
        assert isinstance(door.fetch(server.url("/a"), etag='"v1"'), Got)
        assert isinstance(door.fetch(server.url("/b")), Got)
    first, second, third = (request.headers for request in server.seen)
    assert first["x-key"] == third["x-key"] == "s3cret"
    assert "s3cret" not in str(second)
    assert (second["accept"], second["if-none-match"], second["user-agent"]) == ("image/*", '"v1"', "test")
    assert "if-none-match" not in third


def test_a_login_is_kept_on_the_same_host_and_only_there(server: RawServer) -> None:
    server.on("/a", redirect("/b"))
    server.on("/b", redirect(server.url("/c", host="localhost")))
    server.on("/c", answer(200, BODY))
    with Bulk(allowed_hosts=["localhost"], connections=1) as door:
        assert isinstance(door.fetch(server.url("/a").replace("//", "//anna:s3cret@")), Got)
        door.fetch(server.on("/d", redirect("/e")).replace("//", "//anna:s3cret@"))
        server.on("/e", answer(200, BODY))
        door.fetch(server.url("/e"))
    sent = [(request.path, "authorization" in request.headers) for request in server.seen]
    assert sent == [("/a", True), ("/b", True), ("/c", False), ("/d", True), ("/e", True), ("/e", False)]


def test_redirects_do_not_wait_for_other_transfers(server: RawServer) -> None:
    server.on("/slow", stall())
    for hop in range(5):
        server.on(f"/{hop}", redirect(f"/{hop + 1}"))
    server.on("/5", answer(200, BODY))
    with Bulk(connections=2) as door:
        rounds = door.rounds([Ask(0, server.url("/slow")), Ask(1, server.url("/0"))])
        came, empty = _count_empty(rounds, 1)
        rounds.close()
    assert [result.id for result in came] == [1]
    assert empty <= 2, "a round that brings nothing has waited"


def _count_empty(rounds: Iterator[list[Any]], wanted: int) -> tuple[list[Any], int]:
    """The first `wanted` results, and how many rounds brought none."""
    came: list[Any] = []
    empty = 0
    while len(came) < wanted:
        results = next(rounds)
        empty += not results
        came += results
    return came, empty


# --- patience ---


@pytest.mark.parametrize("as_date", [False, True])
def test_a_refusal_holds_everything_at_once(server: RawServer, as_date: bool) -> None:
    patience: object = 1
    if as_date:  # whole seconds: between one and two away
        patience = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    asks = [Ask(-1, server.on("/refused", answer(429, retry_after=patience))), *tiles(server, 20)]
    turns = Metronome(10_000)
    with Bulk(connections=1, turns=turns) as door:
        results = list(door.fetch_all(asks))
    refused, others = results[0], results[1:]
    assert isinstance(refused, Failure)
    assert isinstance(refused.error, RateLimited)
    assert all(isinstance(result, Got) for result in others)
    waited_s = server.seen[1].at_s - server.seen[0].at_s
    assert refused.retry_after_s is not None
    assert waited_s >= refused.retry_after_s - 0.02 >= 0.9
    assert len(turns.holds) == 1
    assert turns.holds[0] == pytest.approx(refused.retry_after_s, abs=0.1)


def test_all_in_flight_refused_hold_until_the_last_patience_is_over(server: RawServer) -> None:
    asks = tiles(server, 40, answer(503, retry_after=1), answer(200, BODY))
    turns = Metronome(100_000)
    with Bulk(connections=40, turns=turns) as door:
        refused = [result for result in door.fetch_all(asks) if isinstance(result, Failure)]
        assert len(refused) == 40
        assert all(isinstance(result, Got) for result in door.fetch_all(asks))
    last_refused = max(seen.at_s for seen in server.seen[:40])
    assert min(seen.at_s for seen in server.seen[40:]) >= last_refused + 0.95
    assert 1 <= len(turns.holds) <= 10, "told once and then now and then, not forty times"


def test_an_unnamed_patience_grows(server: RawServer, door: Bulk) -> None:
    failure = door.fetch(server.on("/a", answer(429)))
    assert isinstance(failure, Failure)
    assert 0.7 < (failure.retry_after_s or 0) < 1.3


def test_while_held_the_caller_gets_a_chance_and_stop_is_seen(server: RawServer) -> None:
    stop = threading.Event()
    asks = [Ask(0, server.on("/a", answer(429, retry_after=3600))), *tiles(server, 3)]
    with Bulk(connections=1, stop=stop) as door:
        rounds = door.rounds(asks)
        assert [result.id for result in next(r for r in rounds if r)] == [0]
        assert next(rounds) == next(rounds) == []
        stop.set()
        with pytest.raises(StopRequested):
            list(rounds)
    assert len(server.seen) == 1


# --- turns and level ---


def test_no_more_start_than_have_turns(server: RawServer) -> None:
    turns = Metronome(100)
    with Bulk(turns=turns) as door:
        assert all(isinstance(result, Got) for result in door.fetch_all(tiles(server, 60)))
    at_s = sorted(seen.at_s for seen in server.seen)
    assert len(turns.given) == 60
    assert at_s[-1] - at_s[0] >= 59 * 0.01 - 0.02
    for first in range(0, 40):
        assert at_s[first + 20] - at_s[first] >= 0.15, "turns are spent as they come, not saved up"


def test_the_level_bounds_what_is_in_flight_and_is_learned_from_it(server: RawServer) -> None:
    crowd, level = Crowd(), Level(minimum=1, maximum=6, level=2.0, climb_factor=100.0)
    with Bulk(level=level) as door:
        list(door.fetch_all(tiles(server, 60, crowd.counted(answer(200, BODY)))))
        assert 2 < crowd.most <= 6
        assert level.permitted == 6
        list(door.fetch_all(tiles(server, 6, answer(503))))
        assert level.permitted < 6
        assert door.in_flight == 0


def test_a_level_that_falls_takes_effect_while_running(server: RawServer) -> None:
    class Falling:
        permitted = 10
        seen = 0

        def record(self, *, started: float, ended: float, overloaded: bool) -> None:
            assert 0 <= ended - started < 5
            self.seen += 1
            self.permitted = 2 if self.seen >= 30 else 10

    crowd, level, fell = Crowd(), Falling(), False
    with Bulk(level=level) as door:
        for result in door.fetch_all(tiles(server, 100, crowd.counted(answer(200, BODY)))):
            assert isinstance(result, Got)
            if level.seen >= 60 and not fell:  # those in flight when it fell have landed
                fell, crowd.most = True, 0
    assert 0 < crowd.most <= 2


def test_connections_bound_what_is_in_flight(server: RawServer) -> None:
    crowd = Crowd()
    with Bulk(connections=7) as door:
        list(door.fetch_all(tiles(server, 50, crowd.counted(answer(200, BODY)))))
    assert crowd.most == 7
    assert server.connections == 7


# --- everything fails ---


def test_everything_fails_at_once_and_nothing_locks_up(server: RawServer) -> None:
    """For two seconds every request fails, in six ways, with all places taken; the caller asks again and again."""
    healthy_from_s = time.monotonic() + 2
    bad = [answer(500), reset(), raw(b""), raw(head(200, {"content-length": 99}) + b"x"), answer(502), reset(b"HTTP")]

    def outage(number: int) -> Behaviour:
        well = answer(200, body_of(number))

        def behave(*args: Any) -> bool:
            return (well if time.monotonic() > healthy_from_s else bad[number % len(bad)])(*args)

        return behave

    todo = [Ask(i, server.on(f"/{i}", outage(i))) for i in range(150)]
    done: dict[int, bytes] = {}
    reasons: Counter[str] = Counter()
    with Bulk(connections=50) as door:
        while todo:
            again = []
            for result in door.fetch_all(todo):
                if isinstance(result, Got):
                    done[result.id] = result.body
                else:
                    reasons[result.reason] += 1
                    again.append(Ask(result.id, server.url(f"/{result.id}")))
            todo = again
            time.sleep(0.1)
    assert done == {i: body_of(i) for i in range(150)}
    assert set(reasons) == {"http_error", "connection", "truncated"}
    assert sum(reasons.values()) >= 150


def test_a_stalled_transfer_holds_up_only_itself(server: RawServer) -> None:
    asks = [Ask(-1, server.on("/stalled", stall())), *tiles(server, 100)]
    with Bulk(connections=2, total_timeout_s=1.5) as door:
        results = list(door.fetch_all(asks))
    assert results[-1].id == -1
    assert len([result for result in results if isinstance(result, Got)]) == 100


# --- one thread, iterator in, iterator out ---


def test_asks_are_taken_only_as_places_come_free(server: RawServer) -> None:
    asks, taken = tiles(server, 100), 0

    def source() -> Iterator[Ask[int]]:
        nonlocal taken
        for ask in asks:
            taken += 1
            yield ask

    handed = 0
    with Bulk(connections=10) as door:
        for _ in door.fetch_all(source()):
            handed += 1
            assert taken <= handed + 2 * 10
    assert handed == taken == 100


def test_an_error_in_the_callers_iterator_is_the_callers(server: RawServer, door: Bulk) -> None:
    def source() -> Iterator[Ask[int]]:
        yield from tiles(server, 3)
        raise KeyError("database")

    with pytest.raises(KeyError, match="database"):
        list(door.fetch_all(source()))
    assert door.in_flight == 0
    assert len(list(door.fetch_all(tiles(server, 3)))) == 3


def test_nothing_asked_nothing_done(door: Bulk) -> None:
    assert list(door.fetch_all([])) == []


def test_leaving_early_gives_up_what_is_in_flight(server: RawServer, door: Bulk) -> None:
    asks = [*tiles(server, 5), *(Ask(i, server.on(f"/s{i}", stall())) for i in range(5, 30))]
    for result in door.fetch_all(asks):
        assert isinstance(result, Got)
        break
    assert door.in_flight == 0
    assert {result.id for result in door.fetch_all(tiles(server, 20))} == set(range(20))


def test_stop_hands_over_what_came_and_ends_the_rest(server: RawServer) -> None:
    stop = threading.Event()
    asks = [*tiles(server, 10), *(Ask(i, server.on(f"/s{i}", stall())) for i in range(10, 40))]
    came = []
    with Bulk(stop=stop) as door:
        threading.Timer(0.5, stop.set).start()
        with pytest.raises(StopRequested):
            came.extend(result.id for result in _noting(door.fetch_all(asks), came))
        assert door.in_flight == 0
    assert set(came) == set(range(10))


def _noting(results: Iterator[Any], came: list[int]) -> Iterator[Any]:
    for result in results:
        came.append(result.id)
        yield result


def test_a_caller_that_fails_leaves_nothing_open(server: RawServer) -> None:
    asks = [*tiles(server, 5), *(Ask(i, server.on(f"/s{i}", stall())) for i in range(5, 10))]
    with contextlib.suppress(KeyError), Bulk() as door:
        for _ in door.fetch_all(asks):
            raise KeyError("the caller's")
    assert door.in_flight == 0
    with pytest.raises(OutsideUnreachable, match="libcurl"):
        list(door.fetch_all(asks))


@pytest.mark.parametrize("options", [{"user_agent": "s3cret\n"}, {"headers": {"X-Key": "s3cret – dash"}}])
def test_a_header_that_cannot_be_sent_is_named_but_not_shown(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"User-Agent|X-Key") as raised:
        Bulk(**options)
    assert "s3cret" not in str(raised.value)


def test_one_thread_at_a_time_but_any(server: RawServer, door: Bulk) -> None:
    first = door.fetch_all(tiles(server, 5))
    next(first)
    with pytest.raises(RuntimeError, match="one thread at a time"):
        list(door.fetch_all(tiles(server, 5)))
    first.close()
    counts: list[int] = []
    thread = threading.Thread(target=lambda: counts.append(len(list(door.fetch_all(tiles(server, 5))))))
    thread.start()
    thread.join(10)
    assert counts == [5]


def test_a_signal_does_not_end_the_wait(server: RawServer, door: Bulk) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        url = server.on("/a", trickle(head(200, {"content-length": 20}), b"x" * 20, 0.02))
        assert isinstance(door.fetch(url), Got)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def many_descriptors() -> Iterator[Callable[[], None]]:
    """Call it, and new descriptors are beyond what select(2) knows."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1400:
        pytest.skip("the limit of open files is too low to get there")
    with contextlib.ExitStack() as stack:

        def open_many() -> None:
            for _ in range(1050):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))

        yield open_many


def test_descriptors_that_select_cannot_see(server: RawServer, many_descriptors: Callable[[], None]) -> None:
    many_descriptors()
    with Bulk(connections=20) as door:
        began = time.process_time()
        asks = [Ask(0, server.on("/late", Crowd().counted(answer(200, BODY), takes_s=1.0))), *tiles(server, 40)]
        assert sum(isinstance(result, Got) for result in door.fetch_all(asks)) == 41
        assert time.process_time() - began < 0.7, "it must not spin while it waits"


def test_descriptors_of_which_select_sees_some(server: RawServer, many_descriptors: Callable[[], None]) -> None:
    def asks() -> Iterator[Ask[int]]:
        yield Ask(-1, server.on("/slow", stall()))
        many_descriptors()
        yield from tiles(server, 40)

    with Bulk(connections=2) as door:
        rounds = door.rounds(asks())
        _, empty = _count_empty(rounds, 40)
        rounds.close()
    assert empty < 20, "every answer waited for the end of a round"


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_closing_closes_the_connections(server: RawServer) -> None:
    before = _descriptors()
    with Bulk() as door:
        list(door.fetch_all(tiles(server, 30)))
        during = _descriptors()
    time.sleep(0.2)  # the server's ends
    assert during > before
    assert _descriptors() <= before + 1


def test_a_connection_that_the_server_dropped_while_idle_is_replaced(server: RawServer, door: Bulk) -> None:
    url = server.on("/a", answer(200, BODY, connection="close"), raw(head(200, {"content-length": 1}) + b"x"))
    for _ in range(4):
        assert isinstance(door.fetch(url), Got)
        time.sleep(0.05)
    assert server.connections == 4


def test_bytes_beyond_the_declared_length_never_reach_the_next_answer(server: RawServer) -> None:
    server.on(
        "/a", raw(head(200, {"content-length": 2}) + b"ok" + head(200, {"content-length": 4}) + b"evil", keep=True)
    )
    server.on("/b", answer(200, BODY))
    with Bulk(connections=1) as door:
        results = list(door.fetch_all([Ask(1, server.url("/a")), Ask(2, server.url("/b"))]))
    assert [result.body for result in results if isinstance(result, Got)] == [b"ok", BODY]


# --- TLS and HTTP/2 ---


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusted = self_signed(tmp_path)
    with RawServer(tls=context) as server:
        url = server.on("/a", answer(200, BODY))
        with Bulk() as door, pytest.raises(ConfigurationError, match="REQUESTS_CA_BUNDLE"):
            list(door.fetch_all([Ask(i, url) for i in range(30)]))
        with Bulk(verify=str(trusted)) as door:
            assert isinstance(door.fetch(url), Got)
            assert isinstance(door.error(server.url("/a", host="localhost")), ConfigurationError)
        with Bulk(verify=False) as door:
            assert isinstance(door.fetch(url), Got)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
        with Bulk() as door:
            assert isinstance(door.fetch(url), Got)
    with pytest.raises(ConfigurationError, match="not there"):
        Bulk(verify=str(tmp_path / "missing.pem"))


@pytest.mark.parametrize(("greeting", "kind"), [(b"SSH-2.0-x\r\n", ConfigurationError), (None, TransientError)])
def test_a_host_that_does_not_speak_tls(greeting: bytes | None, kind: type) -> None:
    with RawServer(greeting=greeting) as server, Bulk() as door:
        assert isinstance(door.error(server.url("/").replace("http", "https")), kind)


def test_encryption_is_not_given_up_by_a_redirect(tmp_path: Path) -> None:
    context, trusted = self_signed(tmp_path)
    with RawServer(tls=context) as server, Bulk(verify=str(trusted)) as door:
        assert "unencrypted" in str(door.error(server.on("/a", redirect("http://127.0.0.1/b"))))


@pytest.fixture
def http2(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    context, trusted = self_signed(tmp_path)
    with contextlib.ExitStack() as stack:
        yield lambda **options: (stack.enter_context(Http2Server(context, **options)), str(trusted))


def test_http2_shares_a_connection(http2: Callable[..., Any]) -> None:
    server, trusted = http2()
    with Bulk(verify=trusted, connections=100) as door:
        got = {result.id: result for result in door.fetch_all(Ask(i, server.url(f"/{i}")) for i in range(500))}
    assert {i: g.body for i, g in got.items() if isinstance(g, Got)} == {i: b"/%d" % i for i in range(500)}
    assert server.connections == door.connections_opened <= 4
    assert got[0].content_type == "text/plain"


def test_a_connection_that_http2_says_goodbye_to_is_replaced_by_one(http2: Callable[..., Any]) -> None:
    server, trusted = http2(requests_per_connection=100)
    todo = {i: server.url(f"/{i}") for i in range(1000)}
    with Bulk(verify=trusted, connections=50) as door:
        while todo:
            for result in door.fetch_all([Ask(i, url) for i, url in todo.items()]):
                if isinstance(result, Got):
                    assert result.body == b"/%d" % result.id
                    del todo[result.id]
                else:
                    assert result.reason == "connection"
    assert server.connections < 30, "ten are enough; one for each place would be fifty"


def test_http2_can_be_left_out(tmp_path: Path) -> None:
    context, trusted = self_signed(tmp_path)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with RawServer(tls=context) as server, Bulk(verify=str(trusted), http2=False) as door:
        assert isinstance(door.fetch(server.on("/a", answer(200, BODY))), Got)


def test_until_the_protocol_is_known_few_connections_are_opened(tmp_path: Path) -> None:
    context, trusted = self_signed(tmp_path)
    crowd = Crowd()
    with RawServer(tls=context) as server, Bulk(verify=str(trusted), connections=30) as door:
        slow = crowd.counted(answer(200, BODY), takes_s=0.3)
        list(door.fetch_all(tiles(server, 4, slow) + [Ask(i, server.on(f"/x{i}", slow)) for i in range(4, 40)]))
        at_s = sorted(seen.at_s for seen in server.seen)
    assert at_s[4] - at_s[0] >= 0.25
    assert crowd.most > 4


def test_no_secret_is_in_any_message(server: RawServer) -> None:
    asks = [
        Ask(0, server.on("/a", answer(404)).replace("//", "//anna:s3cret@") + "?api_key=s3cret"),
        Ask(1, f"http://anna:s3cret@127.0.0.1:{unused_port()}/?sig=s3cret"),
        Ask(2, "http://anna:s3cret@[bad/"),
        Ask(3, server.on("/b", redirect("http://anna:s3cret@elsewhere.invalid/?token=s3cret"))),
    ]
    with Bulk(headers={"Authorization": "s3cret"}) as door:
        failures = [result for result in door.fetch_all(asks) if isinstance(result, Failure)]
    assert len(failures) == 4
    assert not [failure for failure in failures if "s3cret" in str(failure.error)]


@pytest.mark.parametrize("ending", ["", "/" + "a" * 165], ids=["whole", "cut off"])
def test_secrets_that_were_named_are_in_no_message_however_addresses_write_them(tmp_path: Path, ending: str) -> None:
    """In the path, in the query beside a parameter that is hidden anyway, in a redirect, and with TLS refused."""
    secret = "k3y with spaces/and+more"
    context, _ = self_signed(tmp_path)
    with RawServer() as server, RawServer(tls=context) as strange, Bulk(secrets=[secret]) as door:
        path = f"/{quote(secret, safe='')}"
        server.on(path, answer(500))
        server.on("/moved", redirect(f"http://elsewhere.example{ending}{path}/1"))
        addresses = [
            server.url(f"{path}{ending}"),
            server.url(f"{ending}{path}"),
            server.url(f"/x?k={quote(secret, safe='')}&token=abc{ending}"),
            server.url(f"/x?{quote_plus(secret)}{ending}"),
            server.url("/moved"),
            strange.url(f"{ending}{path}"),
            f"http://127.0.0.1:{unused_port()}{ending}{path}",
        ]
        for address in addresses:
            said = str(door.error(address))
            assert "127.0.0.1" in said or "elsewhere" in said
            assert not {word for word in re.split(r"[^a-z0-9]", said) if word in ("k3y", "spaces", "more")}, said


def test_asks_may_come_later(server: RawServer, door: Bulk) -> None:
    """None from the caller's iterator: nothing at this moment. What is in flight goes on, and it is asked again."""
    url, later = server.on("/", answer(200, BODY)), threading.Event()

    def asks() -> Iterator[Ask[int] | None]:
        yield Ask(1, url)
        while not later.is_set():
            yield None
        yield Ask(2, url)

    came = []
    for results in door.rounds(asks()):
        came += [result.id for result in results]
        if came == [1] and not results:
            later.set()
    assert came == [1, 2]
