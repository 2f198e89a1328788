"""The SFTP door where things break: real sshd that drops, dies and restarts, and a link that stalls and cuts."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tasks import sftp, sftp_owner, sftp_session
from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.sftp import Ask, Failure, Read, Reader, Timeouts
from tests.fakes.slow_link import SlowLink
from tests.fakes.sshd import QUICK, Sshd


class NeedMore(NamedTuple):
    offset: int
    length: int


def head() -> Reader[bytes]:
    return (yield NeedMore(0, 4096))


@pytest.fixture(autouse=True)
def no_connections_left() -> Iterator[None]:
    yield
    sftp.close_pools()


@pytest.fixture
def server() -> Iterator[Sshd]:
    with Sshd() as running:
        yield running


def photos(server: Sshd, count: int) -> list[Ask[int, bytes]]:
    """Asks for `count` photos, each with its number in it."""
    for number in range(count):
        (server.site / f"{number}.jpg").write_bytes(b"photo %d" % number)
    return [Ask(number, f"{server.site}/{number}.jpg", head) for number in range(count)]


def right(results: list[Read[int, bytes] | Failure[int]], count: int) -> bool:
    """Every photo exactly once, with its own bytes."""
    found = sorted((result.id, result.value) for result in results if isinstance(result, Read))
    return found == [(number, b"photo %d" % number) for number in range(count)] and len(results) == count


def through(link: SlowLink, server: Sshd) -> dict[str, object]:
    return {"port": link.port, "host_key": server.host_key_line}


# logging in where there is a crowd


def test_logins_that_are_dropped_are_tried_again_gently() -> None:
    """MaxStartups 3:50:5 drops at random from the third login that is under way, and everybody from the fifth."""
    with Sshd(MaxStartups="3:50:5") as server, SlowLink(server.port, 0.02) as link:
        asks = photos(server, 20)

        def process(depth: int) -> bool:
            with server.open(**through(link, server), depth=depth, timeouts=Timeouts()) as door:
                return right(list(door.read_many(asks)), 20)

        others = crowd(server, 5)
        with ThreadPoolExecutor(4) as threads:
            done = [threads.submit(process, depth) for depth in (61, 62, 63, 64)]
            time.sleep(0.4)
            assert not any(future.done() for future in done), "nobody gets in past five who do not log in"
            for connection in others:
                connection.close()
            assert all(future.result(60) for future in done)
        assert server.log.count("drop connection") > 4


def crowd(server: Sshd, count: int) -> list[socket.socket]:
    """So many connections that do not log in; the server drops some at first, too."""
    kept: list[socket.socket] = []
    while len(kept) < count:
        one = socket.create_connection(("127.0.0.1", server.port))
        if one.recv(4) == b"SSH-":
            kept.append(one)
        else:
            one.close()
            time.sleep(0.02)
    return kept


def test_no_more_than_four_logins_at_once_in_a_process(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    now, most, lock = 0, 0, threading.Lock()
    log_in = sftp_session.log_in

    def counted(*arguments: object) -> None:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        time.sleep(0.1)
        log_in(*arguments)  # type: ignore[arg-type]
        with lock:
            now -= 1

    monkeypatch.setattr(sftp_session, "log_in", counted)
    doors = [server.open(depth=depth) for depth in range(1, 11)]
    with ThreadPoolExecutor(10) as threads:
        assert all(found == [] for found in threads.map(lambda door: door.list_folder(str(server.site)), doors))
    assert most == 4


def test_one_session_per_connection_is_enough() -> None:
    with (
        Sshd(MaxSessions="1") as server,
        SlowLink(server.port, 0.005) as link,
        server.open(**through(link, server), connections=4, depth=4) as door,
    ):
        assert right(list(door.read_many(photos(server, 500))), 500)
        assert link.connections == 4


def test_a_second_connection_that_cannot_be_had_is_done_without(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    def counted(*arguments: object) -> sftp_session.Session:
        nonlocal tried
        tried += 1
        return sftp_session.connect(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sftp_owner, "connect", counted)
    once = Timeouts(patience_s=0)
    with SlowLink(server.port, 0.005) as link, server.open(**through(link, server), depth=4, timeouts=once) as door:
        door.list_folder(str(server.site))
        server.stop_listening()
        assert right(list(door.read_many(photos(server, 200))), 200)
    assert tried == 2, "once is enough for a while"


# connections that break


def test_sessions_that_are_killed_mid_read(server: Sshd) -> None:
    asks = photos(server, 600)
    results, kills = [], 0
    with server.open(depth=16) as door:
        for result in door.read_many(asks):
            results.append(result)
            if len(results) in (50, 250, 450):
                kills += server.kill_sessions()
    assert kills >= 3
    assert right(results, 600)


def test_a_server_that_goes_away_and_comes_back(server: Sshd) -> None:
    asks = photos(server, 400)
    results = []
    with server.open(depth=8) as door:
        for result in door.read_many(asks):
            results.append(result)
            if len(results) == 100:
                server.stop()
                threading.Timer(0.4, server.start).start()
    assert right(results, 400)


def test_a_server_that_does_not_come_back(server: Sshd) -> None:
    with server.open(timeouts=Timeouts(patience_s=1)) as door:
        results = door.read_many(photos(server, 400))
        next(results)
        server.stop()
        with pytest.raises(OutsideUnreachable, match="cannot be reached"):
            list(results)


def test_a_connection_that_is_cut(server: Sshd) -> None:
    with SlowLink(server.port, 0.005) as link, server.open(**through(link, server), depth=8) as door:
        results = []
        for result in door.read_many(photos(server, 300)):
            results.append(result)
            if len(results) in (50, 150):
                link.cut()
    assert right(results, 300)


def test_a_connection_that_stalls_is_found_and_rebuilt(server: Sshd) -> None:
    with SlowLink(server.port, 0.001) as link, server.open(**through(link, server), connections=1) as door:
        results = door.read_many(photos(server, 400))
        found = [next(results) for _ in range(100)]
        link.stall()
        threading.Timer(QUICK.stall_s + 1, link.flow).start()
        found += results
    assert right(found, 400)
    assert link.connections >= 2


def test_a_key_that_changes_between_two_connections(server: Sshd) -> None:
    with server.open(known_hosts=server.known_hosts) as door:
        results = door.read_many(photos(server, 600))
        next(results)
        server.trust("user")
        server.kill_sessions()
        with pytest.raises(ConfigurationError, match="DANGER"):
            list(results)


def test_a_connection_is_checked_after_idling(server: Sshd) -> None:
    """A firewall forgot it: the first to use it again waits for a check, not for the patience of an operation."""
    timeouts = Timeouts(fresh_s=0.2, check_s=0.5, stall_s=30)
    with SlowLink(server.port) as link, server.open(**through(link, server), timeouts=timeouts) as door:
        door.list_folder(str(server.site))
        time.sleep(0.4)
        assert door.list_folder(str(server.site)) == []
        assert link.connections == 1, "it lives: nothing to rebuild"
        time.sleep(0.4)
        link.stall()
        threading.Timer(1.0, link.flow).start()
        began = time.monotonic()
        assert door.list_folder(str(server.site)) == []
        assert time.monotonic() - began < 10
        assert link.connections == 2


def test_a_connection_that_ended_while_idle_is_rebuilt(server: Sshd) -> None:
    with server.open() as door:
        door.list_folder(str(server.site))
        server.kill_sessions()
        time.sleep(0.1)
        assert door.list_folder(str(server.site)) == []


def test_new_keys_are_agreed_on_while_files_are_in_flight() -> None:
    with Sshd(RekeyLimit="256K") as server, server.open(connections=1, timeouts=Timeouts()) as door:
        (server.site / "large.jpg").write_bytes(os.urandom(3_000_000))

        def whole() -> Reader[int]:
            return len((yield NeedMore(0, 900_000)))

        asks = [Ask(number, f"{server.site}/large.jpg", whole) for number in range(5)]
        assert [result.value for result in door.read_many(asks) if isinstance(result, Read)] == [900_000] * 5
        assert server.logins == 1
