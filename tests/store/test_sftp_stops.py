"""The SFTP door and what breaks connections or holds them up: files, servers, and a run that stops."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tasks import sftp, sftp_owner
from tasks.errors import OutsideUnreachable, StopRequested, TransientError
from tasks.records import Reason
from tasks.sftp import Ask, Failure, Read, Reader, Timeouts
from tests.fakes.other_sshd import SECRET, Forgetful, Liar, OtherServer
from tests.fakes.slow_link import SlowLink
from tests.fakes.sshd import Sshd


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


# files that break connections


def test_a_pipe_blocks_a_server_and_is_found_out(server: Sshd) -> None:
    """OpenSSH's server waits in open(2) until somebody writes; a listing would have said that it is a pipe."""
    asks = photos(server, 100)
    os.mkfifo(server.site / "pipe.jpg")
    (server.site / "pipe.jpg").chmod(0o644)
    asks.insert(20, Ask(-1, f"{server.site}/pipe.jpg", head))
    with server.open() as door:
        results = list(door.read_many(asks))
    os.close(os.open(server.site / "pipe.jpg", os.O_WRONLY | os.O_NONBLOCK))  # lets the blocked process go
    [failure] = [result for result in results if isinstance(result, Failure)]
    assert (failure.id, failure.reason) == (-1, Reason.WRONG_TYPE)
    assert right([result for result in results if result is not failure], 100)


def test_a_file_that_kills_every_connection_fails_alone(server: Sshd) -> None:
    """The server dies whenever this one is read: the others are done, and it is given back."""
    asks = photos(server, 200)

    def deadly() -> Reader[bytes]:
        server.kill_sessions()
        return (yield NeedMore(0, 1))

    asks.insert(10, Ask(-1, f"{server.site}/0.jpg", deadly))
    with server.open(connections=1) as door:
        results = list(door.read_many(asks))
    failures = [result for result in results if isinstance(result, Failure)]
    assert [failure.id for failure in failures] == [-1]
    assert isinstance(failures[0].error, TransientError)
    assert failures[0].reason == Reason.CONNECTION
    assert right([result for result in results if isinstance(result, Read)], 200)


def test_a_file_that_hangs_fails_alone(server: Sshd) -> None:
    asks = photos(server, 100)

    def hangs() -> Reader[bytes]:
        for process in server.sessions():
            process.send_signal(signal.SIGSTOP)
        return (yield NeedMore(0, 1))

    asks.insert(10, Ask(-1, f"{server.site}/0.jpg", hangs))
    with server.open(connections=1) as door:
        results = list(door.read_many(asks))
    assert {result.id: result.reason for result in results if isinstance(result, Failure)} == {-1: Reason.TIMEOUT}
    assert right([result for result in results if isinstance(result, Read)], 100)


def test_an_answer_that_never_comes_while_others_do() -> None:
    """The link is busy, so nothing stalls: the one request is too old."""
    timeouts = Timeouts(operation_s=1.0, stall_s=30)

    def patient() -> Reader[None]:
        for _ in range(20):
            time.sleep(0.004)
            yield NeedMore(0, 10)

    with (
        OtherServer("password", subsystem=Forgetful) as server,
        sftp.open_sftp(
            "127.0.0.1", server.port, username="a", password=SECRET, host_key=server.line, timeouts=timeouts
        ) as door,
    ):
        asks = [Ask(number, f"/{number}", patient) for number in range(20)]
        results = list(door.read_many([*asks[:5], Ask(-1, "/forget", patient), *asks[5:]]))
    assert {result.id: result.reason for result in results if isinstance(result, Failure)} == {-1: Reason.TIMEOUT}
    assert len(results) == 21


def test_a_server_that_talks_nonsense_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp_owner, "FIRST_PAUSE_S", 0.05)
    with (
        OtherServer("password", subsystem=Liar) as liar,
        sftp.open_sftp(
            "127.0.0.1", liar.port, username="a", password=SECRET, host_key=liar.line, connections=1
        ) as door,
    ):
        with pytest.raises(OutsideUnreachable, match="answers nothing"):
            list(door.read_many(Ask(number, "/a", head) for number in range(100)))
        assert liar.connections == 5


# stopping


@pytest.mark.parametrize("when", ["reading", "stalled", "dropped", "silent"])
def test_a_stop_ends_everything_at_once(server: Sshd, when: str) -> None:
    stop = threading.Event()
    asks = photos(server, 100)
    with SlowLink(server.port, 0.05) as link:
        door = server.open(**through(link, server), stop=stop, timeouts=Timeouts())
        if when != "silent":
            door.list_folder(str(server.site))
        if when == "stalled":
            link.stall()
        elif when == "dropped":
            server.stop()
        elif when == "silent":
            link.delay_s = 60
        threading.Timer(0.3, stop.set).start()
        began = time.monotonic()
        with pytest.raises(StopRequested):
            list(door.read_many(itertools.cycle(asks)))
        assert time.monotonic() - began < 3


def test_closing_the_pools_ends_who_waits(server: Sshd) -> None:
    with SlowLink(server.port, 0.05) as link, server.open(**through(link, server)) as door:
        results = door.read_many(photos(server, 400))
        next(results)
        link.stall()
        time.sleep(0.1)
        sftp.close_pools()
        with pytest.raises(StopRequested):
            list(results)
        with pytest.raises(StopRequested):
            door.list_folder(str(server.site))


def test_a_mistake_in_an_owner_reaches_the_caller(server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    with server.open() as door:
        door.list_folder(str(server.site))
        monkeypatch.setattr("tasks.sftp_talk.Talk.speak", broken)
        with pytest.raises(ZeroDivisionError):
            door.list_folder(str(server.site))


def test_a_process_ends_quietly_with_connections_open(server: Sshd) -> None:
    """Nobody has to close anything: the threads that own connections do not hold the process up."""
    photos(server, 1)
    login = {"username": server.username, "key_path": str(server.key_path), "host_key": server.host_key_line}
    program = (
        "from tasks.sftp import Ask, open_sftp\n"
        "def head():\n"
        "    return (yield type('Needed', (), {'offset': 0, 'length': 10}))\n"
        f"door = open_sftp('127.0.0.1', {server.port}, **{login!r})\n"
        f"results = door.read_many(Ask(n, '{server.site}/0.jpg', head) for n in range(10_000))\n"
        "print(next(results).value)\n"
    )
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{b'photo 0'}\n", "")
    assert time.monotonic() - began < 15
