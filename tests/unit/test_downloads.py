"""The HTTP door against a server that resets, stalls, trickles, truncates and lies."""

from __future__ import annotations

import fcntl
import hashlib
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from tasks.downloads import Answer, Exchange, HttpDoor, parse_retry_after, sweep_partials
from tasks.errors import (
    ConfigurationError,
    ItemError,
    OutsideUnreachable,
    RateLimited,
    StopRequested,
    TerminalError,
    TransientError,
)
from tasks.http_answers import error_of_status, shown
from tasks.http_replies import Reply, Request, next_hop
from tasks.http_wire import Limits, Wire
from tasks.partials import PartialFile
from tests.fakes.http_server import (
    Behaviour,
    Connection,
    RawServer,
    Seen,
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

BODY = bytes(range(256)) * 400  # 102,400 bytes
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LIMITS = Limits(1, 1, 1, 1, 1)
LIMITED = {"connect_timeout_s": 5.0, "read_timeout_s": 0.5, "retry_delays_s": (0.01, 0.01)}


class Door(HttpDoor):
    """An HttpDoor that counts its turns and keeps its reports of health."""

    def __init__(self, **options: Any) -> None:
        self.turns = 0
        self.exchanges: list[Exchange] = []
        super().__init__(before_request=self._take, after_request=self.exchanges.append, **{**LIMITED, **options})

    def _take(self) -> None:
        self.turns += 1


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as running:
        yield running


@pytest.fixture
def door(server: RawServer) -> Iterator[Door]:
    """Every test with this door also checks: one turn and one report for every request the server read."""
    with Door() as opened:
        yield opened
        assert opened.turns == len(server.seen)
        assert len(opened.exchanges) == opened.turns


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    folder = tmp_path / "spool"
    folder.mkdir()
    return folder


def failure(act: Callable[[], object]) -> ItemError:
    with pytest.raises(ItemError) as caught:
        act()
    return caught.value


# --- what goes well


def test_download_is_whole_hashed_and_described(server: RawServer, door: Door, spool: Path) -> None:
    modified = "Sun, 01 Mar 2026 12:00:00 GMT"
    headers = {"content_type": "application/pdf", "etag": '"x1"', "last_modified": modified}
    url = server.on("/a.pdf", answer(200, BODY, **headers))
    before = datetime.now(UTC)
    got = door.download(url, spool / "new" / "a.pdf", headers={"X-Row": "7"})
    assert got.path.read_bytes() == BODY
    assert (got.size_bytes, got.declared_bytes) == (len(BODY), len(BODY))
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
    assert (got.content_type, got.etag) == ("application/pdf", '"x1"')
    assert got.last_modified == modified
    assert got.url == url
    assert before <= got.fetched_at <= datetime.now(UTC)
    assert [p.name for p in got.path.parent.iterdir()] == ["a.pdf"]
    sent = server.seen[0].headers
    assert sent["accept-encoding"] == "identity"
    assert sent["x-row"] == "7"
    assert sent["user-agent"].startswith("landrecords/")


def test_download_replaces_the_file_of_an_earlier_attempt(server: RawServer, door: Door, spool: Path) -> None:
    (spool / "a").write_bytes(b"old")
    door.download(server.on("/a", answer(200, b"new")), spool / "a")
    assert (spool / "a").read_bytes() == b"new"


def test_fetch_sends_query_and_form(server: RawServer, door: Door) -> None:
    url = server.on("/s", answer(200, b"page"))
    got = door.fetch(url, params={"q": "a b&c"})
    door.fetch(url, method="POST", data={"grantor": "O'Neil & Söhne"})
    assert (got.status, got.content, got.url) == (200, b"page", url + "?q=a+b%26c")
    assert [s.target for s in server.seen] == ["/s?q=a+b%26c", "/s"]
    assert server.seen[1].body == b"grantor=O%27Neil+%26+S%C3%B6hne"


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        ("Müller".encode(), "text/html", "Müller"),
        ("Müller".encode("latin-1"), "text/html; charset=ISO-8859-1", "Müller"),
        ("Müller – Co".encode("cp1252"), "text/html", "Müller – Co"),
        ("Müller".encode(), "text/html; charset=no-such", "Müller"),
        (b"\xff\x81", "text/html; charset=utf-8", "ÿ\ufffd"),
    ],
)
def test_text_is_decoded_as_portals_write_it(content: bytes, content_type: str, text: str) -> None:
    assert Answer(200, "u", content, {"Content-Type": content_type}, 0.1).text == text


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(200, BODY),
        chunked(BODY[:1000], BODY[1000:]),
        gzipped(BODY),
        raw(head(200, {"connection": "close"}) + BODY),
        raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY),
        trickle(head(200, {"content-length": len(BODY)}) + BODY[:-5], BODY[-5:], 0.02),
    ],
    ids=["length", "chunked", "gzip", "until-close", "http-1.0", "late-end"],
)
def test_every_framing_arrives_whole(server: RawServer, door: Door, spool: Path, behaviour: Behaviour) -> None:
    got = door.download(server.on("/a", behaviour), spool / "a")
    assert got.path.read_bytes() == BODY
    assert got.sha256 == hashlib.sha256(BODY).hexdigest()
    assert got.declared_bytes in (None, len(BODY))  # never the compressed length
    assert door.fetch(server.url("/a")).content == BODY


def test_connections_are_kept_alive_also_after_errors_and_redirects(server: RawServer, door: Door, spool: Path) -> None:
    server.on("/ok", answer(200, BODY))
    server.on("/moved", redirect("/ok"))
    server.on("/missing", answer(404, b"x" * 3000))
    for _ in range(5):
        door.download(server.url("/ok"), spool / "a")
        door.download(server.url("/moved"), spool / "a")
        failure(lambda: door.download(server.url("/missing"), spool / "a"))
    assert (len(server.seen), server.connections) == (20, 1)


def test_a_long_error_page_costs_its_connection_not_its_reading(server: RawServer, door: Door) -> None:
    url = server.on("/e", raw(head(500, {"content-length": 10**12}) + b"x" * 200_000, keep=True))
    assert failure(lambda: door.fetch(url)).reason == "http_error"


def test_each_thread_has_its_own_session_and_cookies(server: RawServer, door: Door) -> None:
    def number(connection: Connection, request: Seen) -> bool:
        cookie = f"id={connection.number}; Path=/"
        return answer(200, request.headers.get("cookie", "").encode(), set_cookie=cookie)(connection, request)

    url = server.on("/", number)
    together = threading.Barrier(3)
    said: list[list[bytes]] = []

    def work() -> None:
        together.wait()
        said.append([door.fetch(url).content for _ in range(4)])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.connections == 3
    assert all(first == b"" and len(set(later)) == 1 for first, *later in said)
    assert {later[0] for _, *later in said} == {b"id=1", b"id=2", b"id=3"}


def test_the_session_of_a_thread_that_ended_is_closed(server: RawServer, door: Door) -> None:
    gone = threading.Event()

    def until_closed(connection: Connection, request: Seen) -> bool:
        answer(200, b"x")(connection, request)
        if connection.number == 1:
            assert connection.sock.recv(1) == b""
            gone.set()
        return connection.number > 1

    url = server.on("/", until_closed)
    thread = threading.Thread(target=door.fetch, args=(url,))
    thread.start()
    thread.join()
    door.fetch(url)
    assert gone.wait(2)


def test_a_connection_that_the_server_dropped_while_idle_is_replaced(server: RawServer, door: Door) -> None:
    def then_close(connection: Connection, request: Seen) -> bool:
        answer(200, b"x")(connection, request)  # says nothing of closing
        return False

    url = server.on("/", then_close)
    for _ in range(3):
        assert door.fetch(url).content == b"x"
        time.sleep(0.1)  # the server's FIN is here; a request that crosses it costs a turn more
    assert server.connections == 3


# --- what goes wrong on the wire


@pytest.mark.parametrize(
    ("behaviour", "reason", "requests"),
    [
        (reset(), "connection", 3),
        (reset(head(200, {"content-length": 100}) + b"abc"), "connection", 3),
        (raw(b""), "connection", 3),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "connection", 3),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), "connection", 3),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200 + b"\r\n"), "connection", 3),
        (raw(head(200, {"content-length": 100}) + b"abc"), "truncated", 1),
        (raw(head(200, {"content-length": 100})), "truncated", 1),
        (chunked(BODY, end=False), "truncated", 1),
        (raw(head(200, {"transfer-encoding": "chunked"}) + b"64\r\nabc"), "truncated", 1),
        (raw(head(200, {"transfer-encoding": "chunked"}) + b"nonsense\r\nabc"), "truncated", 1),
        (gzipped(BODY, cut=20), "truncated", 1),
        (answer(200, b"not gzip!", content_encoding="gzip"), "truncated", 1),
        (raw(head(206, {"content-length": 3}) + b"abc"), "truncated", 1),
        (stall(), "timeout", 1),
        (stall(b"HTTP/1.1 200 OK\r\nContent-"), "timeout", 1),
        (stall(head(200, {"content-length": 100}) + b"abc"), "timeout", 1),
        (stall(head(200, {}) + b"abc"), "timeout", 1),
        (answer(202, b"come back"), "http_error", 1),
        (answer(204), "http_error", 1),
        (answer(500, b"oops"), "http_error", 1),
        (answer(408), "http_error", 1),
    ],
)
def test_a_bad_answer_is_transient_and_leaves_no_file(
    server: RawServer, door: Door, spool: Path, behaviour: Behaviour, reason: str, requests: int
) -> None:
    error = failure(lambda: door.download(server.on("/a", behaviour), spool / "a"))
    assert isinstance(error, TransientError)
    assert error.reason == reason
    assert len(server.seen) == requests
    assert list(spool.iterdir()) == []
    assert door.exchanges[-1].overloaded == (reason == "timeout")
    server.on("/a", answer(200, b"fine"))
    assert door.fetch(server.url("/a")).content == b"fine"  # the next one starts from a clean connection


def test_a_truncated_body_says_how_short(server: RawServer, door: Door, spool: Path) -> None:
    url = server.on("/a", raw(head(200, {"content-length": 100}) + b"abc"))
    assert "3 of 100 bytes" in str(failure(lambda: door.download(url, spool / "a")))


def test_bytes_beyond_the_declared_length_never_reach_the_next_answer(server: RawServer, door: Door) -> None:
    url = server.on("/a", raw(head(200, {"content-length": 5}) + b"hello and more", keep=True), answer(200, b"x"))
    assert door.fetch(url).content == b"hello"
    assert door.fetch(url).content == b"x"


@pytest.mark.parametrize("blip", [reset(), raw(b""), reset(head(200, {"content-length": 9}) + b"abc")])
def test_a_blip_is_healed_by_the_door(server: RawServer, door: Door, spool: Path, blip: Behaviour) -> None:
    got = door.download(server.on("/a", blip, blip, answer(200, BODY)), spool / "a")
    assert got.path.read_bytes() == BODY
    assert [e.status for e in door.exchanges][-1] == 200
    assert len(server.seen) == 3
    assert [p.name for p in spool.iterdir()] == ["a"]


def test_a_refused_connection_takes_a_turn_for_every_try() -> None:
    with Door() as door:
        error = failure(lambda: door.fetch(f"http://127.0.0.1:{unused_port()}/"))
        assert (error.reason, door.turns, len(door.exchanges)) == ("connection", 3, 3)
        assert "refused" in str(error)
        assert not door.exchanges[0].overloaded


def test_an_unknown_host_is_a_connection_problem() -> None:
    with Door(retry_delays_s=()) as door:
        error = failure(lambda: door.fetch("http://nosuchhost.invalid/"))
        assert isinstance(error, TransientError)
        assert error.reason == "connection"


def test_a_host_that_does_not_answer_the_connection_is_a_timeout() -> None:
    with deaf_port() as port, Door(connect_timeout_s=0.2) as door:
        error = failure(lambda: door.fetch(f"http://127.0.0.1:{port}/"))
        assert (error.reason, door.turns) == ("timeout", 1)
        assert door.exchanges[0].overloaded


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/a",
        "file:///etc/passwd",
        "/only/path",
        "http://",
        "http://[::1",
        "http://h:99999/",
        "",
        "C:\\a.pdf",
        f"http://{'a' * 70}.example/",
        "http://.bad/",
        "http://a b/",
    ],
)
def test_what_is_no_address_is_a_bad_row(url: str) -> None:
    with Door(retry_delays_s=()) as door:
        error = failure(lambda: door.fetch(url))
        assert isinstance(error, TerminalError)
        assert error.reason == "bad_row"


# --- slowness


def test_a_trickling_body_is_given_up(server: RawServer, spool: Path) -> None:
    url = server.on("/a", trickle(head(200, {"content-length": 10_000}), BODY, 0.02))
    with Door(low_speed_bytes_per_s=500, low_speed_window_s=0.3, read_timeout_s=30) as door:
        error = failure(lambda: door.download(url, spool / "a"))
        assert (error.reason, len(server.seen)) == ("timeout", 1)
        assert "slowly" in str(error)
        assert door.exchanges[0].overloaded
    assert list(spool.iterdir()) == []


def test_a_slow_but_steady_body_is_not_given_up(server: RawServer, spool: Path) -> None:
    url = server.on("/a", trickle(head(200, {"content-length": 40}), BODY[:40], 0.02))
    with Door(low_speed_bytes_per_s=5, low_speed_window_s=0.2) as door:
        assert door.download(url, spool / "a").size_bytes == 40


def test_trickling_headers_count_as_no_answer(server: RawServer) -> None:
    url = server.on("/a", trickle(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 1000, 0.05))
    with Door(connect_timeout_s=0.1, read_timeout_s=0.3) as door:
        error = failure(lambda: door.fetch(url))
    assert (error.reason, len(server.seen)) == ("timeout", 1)


def test_no_request_outlives_the_total_time(server: RawServer, spool: Path) -> None:
    url = server.on("/a", trickle(head(200, {}), BODY, 0.01))  # without a length, a cut looks like the end
    with Door(total_timeout_s=0.3) as door:
        error = failure(lambda: door.download(url, spool / "a"))
    assert error.reason == "timeout"
    assert list(spool.iterdir()) == []


# --- stopping


@pytest.mark.parametrize(
    "behaviour",
    [
        stall(),
        stall(b"HTTP/1.1 200 OK\r\nContent-"),
        stall(head(200, {"content-length": 100}) + b"abc"),
        stall(head(200, {}) + b"abc"),
        stall(head(200, {"transfer-encoding": "chunked"}) + b"5\r\nabc"),
        stall(head(302, {"content-length": 100, "location": "/b"})),
        trickle(head(200, {"content-length": 9999}), BODY, 0.05),
    ],
    ids=["answer", "headers", "body", "open-body", "chunk", "redirect-body", "trickle"],
)
def test_stop_ends_a_request_wherever_it_hangs(server: RawServer, spool: Path, behaviour: Behaviour) -> None:
    stop = threading.Event()
    server.on("/a", behaviour)
    with Door(stop=stop, read_timeout_s=30) as door:
        _stops_at_once(door, server.url("/a"), stop, spool, until=lambda: server.wait_for(1))
        assert (door.turns, len(door.exchanges)) == (1, 1)
        assert not door.exchanges[0].overloaded
    assert list(spool.iterdir()) == []


def test_stop_ends_a_request_on_a_kept_connection(server: RawServer, spool: Path) -> None:
    stop = threading.Event()
    server.on("/stall", stall())
    url = server.on("/a", redirect("/stall"))  # the second request goes over the connection of the first
    with Door(stop=stop, read_timeout_s=30) as door:
        _stops_at_once(door, url, stop, spool, until=lambda: server.wait_for(2))
    assert server.connections == 1


def test_stop_keeps_what_the_server_said_before_its_error_page_hung(server: RawServer, spool: Path) -> None:
    stop = threading.Event()
    url = server.on("/a", stall(head(404, {"content-length": 100}) + b"abc"))
    with Door(stop=stop, read_timeout_s=30) as door:
        _stops_at_once(door, url, stop, spool, until=lambda: server.wait_for(1), kind=TerminalError)


def test_stop_ends_a_connection_attempt(spool: Path) -> None:
    stop = threading.Event()
    with deaf_port() as port, Door(stop=stop, connect_timeout_s=30) as door:
        _stops_at_once(door, f"http://127.0.0.1:{port}/", stop, spool)


def test_stop_ends_a_handshake(tmp_path: Path, spool: Path) -> None:
    stop = threading.Event()
    context, _ = self_signed(tmp_path)
    with RawServer(tls=context, greeting=b"") as server, Door(stop=stop, connect_timeout_s=30) as door:
        _stops_at_once(door, server.url(), stop, spool)


def test_stop_ends_a_body_over_tls(tmp_path: Path, spool: Path) -> None:
    stop = threading.Event()
    context, trusted = self_signed(tmp_path)
    with (
        RawServer(tls=context) as server,
        Door(stop=stop, read_timeout_s=30, verify=str(trusted)) as door,
    ):
        url = server.on("/a", stall(head(200, {"content-length": 100}) + b"abc"))
        _stops_at_once(door, url, stop, spool, until=lambda: server.wait_for(1))


def test_stop_ends_the_wait_before_a_retry(spool: Path) -> None:
    stop = threading.Event()
    with Door(stop=stop, retry_delays_s=(60.0,)) as door:
        _stops_at_once(door, f"http://127.0.0.1:{unused_port()}/", stop, spool)


def test_after_stop_nothing_leaves(server: RawServer) -> None:
    stop = threading.Event()
    stop.set()
    with Door(stop=stop) as door, pytest.raises(StopRequested):
        door.fetch(server.url())
    assert (door.turns, server.seen) == (0, [])


def test_close_ends_what_is_under_way_and_leaves_no_thread(server: RawServer, spool: Path) -> None:
    door = Door(read_timeout_s=30)
    url = server.on("/a", stall())
    ended: list[BaseException] = []

    def work() -> None:
        try:
            door.download(url, spool / "a")
        except StopRequested as exc:
            ended.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    server.wait_for(1)
    door.close()
    thread.join(2)
    assert len(ended) == 1
    with pytest.raises(StopRequested):
        door.fetch(url)
    limit_s = time.monotonic() + 2
    while any(t.name == "http-watch" for t in threading.enumerate()) and time.monotonic() < limit_s:
        time.sleep(0.01)
    assert not [t for t in threading.enumerate() if t.name == "http-watch"]


def _stops_at_once(
    door: Door,
    url: str,
    stop: threading.Event,
    spool: Path,
    until: Callable[[], None] = lambda: None,
    kind: type[BaseException] = StopRequested,
) -> None:
    """The promise is 0.5 s; every limit in these tests is 30 s or more, so twice that tells them apart."""
    ended: list[BaseException] = []

    def work() -> None:
        try:
            door.download(url, spool / "a")
        except BaseException as exc:
            ended.append(exc)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until()
    time.sleep(0.15)
    assert thread.is_alive(), ended
    stop.set()
    thread.join(1.0)
    assert not thread.is_alive()
    assert [type(exc) for exc in ended] == [kind]


# --- what the status says


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("86400", 3600.0),
        ("9" * 5000, 3600.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sunday, 01-Mar-26 12:01:00 GMT", 60.0),
        ("Sun Mar  1 12:00:10 2026", 10.0),
        ("Sun, 01 Mar 2026 13:00:05 +0100", 5.0),
        ("Sun, 01 Mar 2026 11:59:00 GMT", 0.0),
        ("Fri, 01 Jan 2038 00:00:00 GMT", 3600.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("inf", None),
        ("٣", None),
        ("Sun, 99 Mar 2026 12:00:30 GMT", None),
        ("Sun, 01 Mar 99999999999 12:00:30 GMT", None),
    ],
)
def test_parse_retry_after(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "headers", "kind", "reason"),
    [
        (200, {}, None, None),
        (206, {}, None, None),
        (429, {}, RateLimited, "rate_limited"),
        (503, {"Retry-After": "3"}, RateLimited, "rate_limited"),
        (503, {}, TransientError, "http_error"),
        (503, {"Retry-After": "later"}, TransientError, "http_error"),
        (500, {"Retry-After": "3"}, TransientError, "http_error"),
        (502, {}, TransientError, "http_error"),
        (504, {}, TransientError, "http_error"),
        (599, {}, TransientError, "http_error"),
        (103, {}, TransientError, "http_error"),
        (408, {}, TransientError, "http_error"),
        (425, {}, TransientError, "http_error"),
        (404, {}, TerminalError, "not_found"),
        (410, {}, TerminalError, "not_found"),
        (401, {}, TerminalError, "http_error"),
        (403, {}, TerminalError, "http_error"),
        (400, {}, TerminalError, "http_error"),
        (451, {}, TerminalError, "http_error"),
        (304, {}, TerminalError, "http_error"),
    ],
)
def test_status_table(status: int, headers: dict[str, str], kind: type | None, reason: str | None) -> None:
    error = error_of_status(status, headers, "http://h/a", NOW, 2.0)
    assert (type(error) if error else None, getattr(error, "reason", None)) == (kind, reason)
    if status in (401, 403):
        assert "credentials" in str(error)


def test_a_date_is_measured_by_the_servers_own_clock() -> None:
    headers = {"Date": "Sun, 01 Mar 2026 09:00:00 GMT", "Retry-After": "Sun, 01 Mar 2026 09:00:20 GMT"}
    error = error_of_status(429, headers, "http://h/a", NOW, 2.0)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 20.0


@pytest.mark.parametrize(
    ("status", "retry_after", "low_s", "high_s"),
    [
        (429, "7", 7, 7),
        (429, "9999999", 3600, 3600),
        (429, None, 0.5, 2),
        (429, "0", 0.5, 2),
        (429, "tomorrow", 0.5, 2),
        (503, "4", 4, 4),
        (
            429,
            lambda: (datetime.now(UTC) + timedelta(seconds=30)).strftime("%a, %d %b %Y %H:%M:%S GMT"),
            25,
            31,
        ),
    ],
)
def test_a_refusal_is_handed_on_and_never_repeated(
    server: RawServer, door: Door, spool: Path, status: int, retry_after: Any, low_s: float, high_s: float
) -> None:
    value = retry_after() if callable(retry_after) else retry_after
    url = server.on("/a", answer(status, b"slow down", **({"retry_after": value} if value else {})))
    error = failure(lambda: door.download(url, spool / "a"))
    assert isinstance(error, RateLimited)
    assert low_s <= error.retry_after_s <= high_s
    assert len(server.seen) == 1
    assert door.exchanges == [
        Exchange(status, door.exchanges[0].seconds, overloaded=True, retry_after_s=error.retry_after_s)
    ]


def test_exchange_tells_of_health(server: RawServer, door: Door) -> None:
    server.on("/", answer(503), answer(500), answer(404), answer(504), answer(200))
    for _ in range(4):
        failure(lambda: door.fetch(server.url()))
    door.fetch(server.url())
    assert [(e.status, e.overloaded) for e in door.exchanges] == [
        (503, True),
        (500, False),
        (404, False),
        (504, True),
        (200, False),
    ]


# --- where redirects lead


def test_redirects_take_a_turn_each_and_end_after_five(server: RawServer, door: Door) -> None:
    for hop in range(5):
        server.on(f"/{hop}", redirect(f"/{hop + 1}", status=(301, 302, 303, 307, 308)[hop]))
    server.on("/5", answer(200, b"here"))
    got = door.fetch(server.url("/0"))
    assert (got.content, got.url, len(server.seen)) == (b"here", server.url("/5"), 6)
    server.on("/5", redirect("/6"))
    assert "circles" in str(failure(lambda: door.fetch(server.url("/0"))))
    assert len(server.seen) == 12


def test_a_redirect_loop_ends(server: RawServer, door: Door) -> None:
    error = failure(lambda: door.fetch(server.on("/a", redirect("/a"))))
    assert isinstance(error, TerminalError)
    assert (error.reason, len(server.seen)) == ("http_error", 6)


def test_a_redirect_to_another_host_is_refused(server: RawServer, door: Door) -> None:
    error = failure(lambda: door.fetch(server.on("/a", redirect(server.url("/b", host="localhost")))))
    assert isinstance(error, TerminalError)
    assert "localhost" in str(error)
    assert len(server.seen) == 1


def test_an_allowed_host_gets_no_secrets(server: RawServer) -> None:
    server.on("/a", redirect(server.url("/b", host="localhost")))
    server.on("/b", answer(200, b"there"))
    secrets = {"Authorization": "Bearer s3cret", "Cookie": "id=s3cret", "X-Plain": "1"}
    with Door(allowed_hosts=["LocalHost"], headers=secrets) as door:
        assert door.fetch(server.url("/a").replace("//", "//me:pw@")).content == b"there"
    first, second = (request.headers for request in server.seen)
    assert {"authorization", "cookie"} <= first.keys()
    assert not {"authorization", "cookie"} & second.keys()
    assert second["x-plain"] == "1"


def test_a_login_is_kept_on_the_same_host(server: RawServer, door: Door) -> None:
    server.on("/a", redirect("/b"))
    server.on("/b", answer(200))
    got = door.fetch(server.url("/a").replace("//", "//me:p%40w@"))
    door.fetch(server.url("/b"))  # a link on that page
    assert got.url == server.url("/b")
    assert [s.headers["authorization"] for s in server.seen] == ["Basic bWU6cEB3"] * 3


def test_another_port_of_the_host_gets_no_secrets(server: RawServer) -> None:
    with RawServer() as other, Door(headers={"Authorization": "Bearer s3cret"}) as door:
        door.fetch(server.on("/a", redirect(other.on("/b", answer(200)))))
        assert "authorization" in server.seen[0].headers
        assert "authorization" not in other.seen[0].headers


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ("http://h/a", "https://h/a", True),
        ("http://h:80/a", "https://h:443/a", True),
        ("https://h/a", "https://h:443/b", True),
        ("http://h:8080/a", "http://h:8080/b", True),
        ("http://h:8080/a", "https://h/b", False),
        ("http://h/a", "https://h:8443/b", False),
        ("http://h/a", "http://other/b", False),
    ],
)
def test_secrets_go_along_only_to_the_same_place(before: str, after: str, kept: bool) -> None:
    response = requests.Response()
    response.status_code, response.url, response.headers["Location"] = 302, before, after
    ask = Request("GET", before, credentials=("me", "pw"))
    hop = next_hop(Reply(response, ask, Wire(LIMITS, 0.0)), {"other"})
    assert (hop.url, hop.credentials) == (after, ("me", "pw") if kept else None)
    assert ("Authorization" in hop.headers) is not kept


def test_a_form_is_sent_again_only_when_the_status_says_so(server: RawServer, door: Door) -> None:
    server.on("/kept", redirect("/to", 307))
    server.on("/dropped", redirect("/to", 302))
    server.on("/to", answer(200))
    door.fetch(server.url("/kept"), method="POST", data={"a": "1"})
    door.fetch(server.url("/dropped"), method="POST", data={"a": "1"})
    assert [(s.method, s.body) for s in server.seen if s.path == "/to"] == [("POST", b"a=1"), ("GET", b"")]


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/a", "http://[bad", "javascript:alert(1)"])
def test_a_redirect_to_no_address_is_refused(server: RawServer, door: Door, target: str) -> None:
    error = failure(lambda: door.fetch(server.on("/a", redirect(target))))
    assert isinstance(error, TerminalError)
    assert error.reason == "http_error"


def test_a_redirect_without_a_target_is_an_error(server: RawServer, door: Door) -> None:
    assert failure(lambda: door.fetch(server.on("/a", answer(302, b"where to?")))).reason == "http_error"


def test_a_redirects_endless_body_is_not_read(server: RawServer, door: Door) -> None:
    endless = raw(head(302, {"location": "/b", "content-length": 10**12}) + b"x" * 300_000, keep=True)
    server.on("/b", answer(200, b"there"))
    assert door.fetch(server.on("/a", endless)).content == b"there"


# --- size, compression


def test_a_file_over_the_limit_is_refused_declared_or_not(server: RawServer, spool: Path) -> None:
    declared, open_ended = answer(200, BODY), chunked(*[BODY] * 4)
    with Door(max_bytes=len(BODY)) as door:
        assert door.download(server.on("/fits", declared), spool / "a").size_bytes == len(BODY)
        for behaviour in (answer(200, BODY + b"x"), open_ended, gzipped(BODY + b"x")):
            error = failure(lambda b=behaviour: door.download(server.on("/a", b), spool / "b"))
            assert isinstance(error, TerminalError)
            assert error.reason == "too_large"
    assert [p.name for p in spool.iterdir()] == ["a"]


def test_a_small_page_that_is_not_small_is_refused(server: RawServer, door: Door) -> None:
    bomb = gzipped(b"\0" * 20_000_000)
    assert failure(lambda: door.fetch(server.on("/a", bomb))).reason == "too_large"
    assert door.fetch(server.on("/b", answer(200, BODY)), max_bytes=len(BODY)).content == BODY


def test_an_encoding_nobody_asked_for_is_refused(server: RawServer, door: Door, spool: Path) -> None:
    url = server.on("/a", answer(200, b"abc", content_encoding="br"))
    error = failure(lambda: door.download(url, spool / "a"))
    assert isinstance(error, TerminalError)
    assert "'br'" in str(error)


# --- the disk


def test_a_full_disk_names_the_folder(server: RawServer, spool: Path) -> None:
    """A file size limit stands for the full disk; it holds for the whole process, hence the child."""
    url = server.on("/a", answer(200, BODY * 10))
    code = """
import resource, sys
from pathlib import Path
from tasks.downloads import HttpDoor
from tasks.errors import OutsideUnreachable
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    HttpDoor(before_request=lambda: None).download(sys.argv[1], Path(sys.argv[2]))
except OutsideUnreachable as exc:
    print(exc)
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, url, str(spool / "a")],
        capture_output=True, text=True, timeout=60, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert f"{spool} is full" in run.stdout
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("place", ["file/a", "folder"])
def test_a_place_that_cannot_be_written_is_the_users(server: RawServer, door: Door, spool: Path, place: str) -> None:
    (spool / "file").touch()
    (spool / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=str(spool)):
        door.download(server.on("/a", answer(200, b"x")), spool / place)
    assert sorted(p.name for p in spool.iterdir()) == ["file", "folder"]


def test_sweep_removes_what_the_dead_left_and_nothing_else(spool: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from tasks.http_wire import Limits, Wire
from tasks.partials import PartialFile
file = PartialFile(Path(sys.argv[1]))
file.write(b"abc")
os.kill(os.getpid(), 9)
"""
    subprocess.run(
        [sys.executable, "-c", code, str(spool / "sub" / "dead.pdf")],
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert len(list(spool.rglob(".*.part"))) == 1
    (spool / "done.pdf").write_bytes(b"x")
    with PartialFile(spool / "living.pdf") as living:
        living.write(b"abc")
        assert sweep_partials(spool) == 1
        living.finish()
    assert sorted(p.name for p in spool.rglob("*") if p.is_file()) == ["done.pdf", "living.pdf"]
    assert sweep_partials(spool / "absent") == 0


def test_a_sweep_between_opening_and_locking_loses_nothing(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[int] = []

    def sweep_first(descriptor: int, how: int) -> None:
        if not swept:
            swept.append(0)
            swept[0] = sweep_partials(spool)
        lock(descriptor, how)

    lock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", sweep_first)
    with PartialFile(spool / "a") as file:
        file.write(b"abc")
        file.finish()
    assert swept == [1]
    assert (spool / "a").read_bytes() == b"abc"


def test_a_name_as_long_as_the_file_system_takes(server: RawServer, door: Door, spool: Path) -> None:
    name = "ä" * 125 + ".pdf"
    assert door.download(server.on("/a", answer(200, b"x")), spool / name).path.name == name


def test_an_io_error_of_the_disk_is_not_the_portals(server: RawServer, door: Door) -> None:
    with pytest.raises((OutsideUnreachable, ConfigurationError), match="/proc"):
        door.download(server.on("/a", answer(200, b"x")), Path("/proc/landrecords/a"))


# --- secrets, headers, encryption, proxies


@pytest.mark.parametrize(
    "behaviour",
    [answer(404), answer(403), answer(429), answer(500), reset(), stall(), redirect("/b?token=t0ps3cret")],
)
def test_no_secret_is_in_any_message_or_trace(server: RawServer, door: Door, behaviour: Behaviour) -> None:
    server.on("/b", raw(b"junk\r\n"))
    url = server.on("/a", behaviour).replace("//", "//me:t0ps3cret@") + "?image=12&api_key=t0ps3cret"
    error = failure(lambda: door.fetch(url))
    trace = "".join(traceback.format_exception(error))
    assert "127.0.0.1" in str(error)
    assert "t0ps3cret" not in trace
    assert "me:" not in str(error)


def test_no_secret_is_in_the_trace_of_a_refused_connection() -> None:
    url = f"http://me:t0ps3cret@127.0.0.1:{unused_port()}/a?key=t0ps3cret"
    with Door() as door:
        error = failure(lambda: door.fetch(url))  # a trace shows this line, so the secret is not on it
    assert "t0ps3cret" not in "".join(traceback.format_exception(error))
    assert isinstance(error.__cause__, ConnectionRefusedError)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://me:pw@h:8080/a?x=1#f", "http://h:8080/a?x=1"),
        ("http://h/a?image=7&X-Goog-Signature=abc&sig=d", "http://h/a?image=7&X-Goog-Signature=***&sig=***"),
        ("http://h/" + "a" * 500, "http://h/" + "a" * 191 + "..."),
        ("http://[bad", "(an address that cannot be read)"),
    ],
)
def test_shown(url: str, said: str) -> None:
    assert shown(url) == said


@pytest.mark.parametrize("value", ["Bearer s3cret\n", "s3cret – dash"])
def test_a_header_that_cannot_be_sent_is_named_but_not_shown(value: str) -> None:
    with pytest.raises(ConfigurationError, match="Authorization") as caught:
        Door(headers={"Authorization": value})
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_certificates(tmp_path: Path) -> None:
    context, trusted = self_signed(tmp_path)
    with RawServer(tls=context) as server:
        url = server.on("/a", answer(200, b"secret"))
        with Door(verify=str(trusted)) as door:
            assert [door.fetch(url).content for _ in range(3)] == [b"secret"] * 3
            assert server.connections == 1
        with Door(verify=False) as door:
            assert door.fetch(url).content == b"secret"
        with Door() as door, pytest.raises(ConfigurationError, match="self-signed certificate"):
            door.fetch(url)
        with Door(verify=str(trusted)) as door, pytest.raises(ConfigurationError, match="localhost"):
            door.fetch(server.url("/a", host="localhost"))
    with pytest.raises(ConfigurationError, match="nowhere"):
        Door(verify="/nowhere.pem")


def test_the_environments_certificate_authority_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, trusted = self_signed(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with RawServer(tls=context) as server, Door() as door:
        assert door.fetch(server.on("/a", answer(200, b"x"))).content == b"x"


def test_a_host_that_does_not_speak_tls_is_a_matter_of_configuration(tmp_path: Path) -> None:
    greeting = b"HTTP/1.1 400 Bad Request\r\n\r\nplain HTTP was expected"
    context, _ = self_signed(tmp_path)
    with RawServer(tls=context, greeting=greeting) as server, Door() as door:
        with pytest.raises(ConfigurationError, match="no secure connection"):
            door.fetch(server.url())
        assert (door.turns, len(door.exchanges)) == (1, 1)


def test_encryption_is_not_given_up_by_a_redirect(tmp_path: Path) -> None:
    context, trusted = self_signed(tmp_path)
    with RawServer(tls=context) as server, Door(verify=str(trusted)) as door:
        error = failure(lambda: door.fetch(server.on("/a", redirect("http://127.0.0.1/b"))))
        assert isinstance(error, TerminalError)
        assert "unencrypted" in str(error)


def test_a_proxy_from_the_environment_is_used(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url(""))
    server.on("http://portal.invalid/a", answer(200, b"by proxy"), stall())
    stop = threading.Event()
    with Door(stop=stop, read_timeout_s=30) as door:
        assert door.fetch("http://portal.invalid/a").content == b"by proxy"
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(StopRequested):
            door.fetch("http://portal.invalid/a")
        assert door.turns == len(server.seen) == 2
        assert server.connections == 1
    monkeypatch.setenv("no_proxy", "portal.invalid")
    with Door(retry_delays_s=()) as door:
        assert failure(lambda: door.fetch("http://portal.invalid/a")).reason == "connection"


def test_sockets_are_closed_with_the_door(server: RawServer, door: Door) -> None:
    def until_closed(connection: Connection, request: Seen) -> bool:
        answer(200, b"x")(connection, request)
        connection.sock.settimeout(2)
        closed.append(connection.sock.recv(1))
        return False

    closed: list[bytes] = []
    door.fetch(server.on("/", until_closed))
    assert closed == []
    door.close()
    limit_s = time.monotonic() + 2
    while not closed and time.monotonic() < limit_s:
        time.sleep(0.01)
    assert closed == [b""]


def test_ipv6(spool: Path) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener, Door() as door:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(4096)
                sock.sendall(head(200, {"content-length": 3}) + b"six")

        thread = threading.Thread(target=serve)
        thread.start()
        assert door.fetch(f"http://[::1]:{listener.getsockname()[1]}/").content == b"six"
        thread.join()
