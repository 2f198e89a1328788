"""An HTTP server in a process of its own that only notes when requests came, and workers that take turns to ask it.

`python -m tests.fakes.turn_log` is the server: it prints its port; `GET /log` answers the moments (seconds of the
machine's monotonic clock) of all other requests; after `GET /refuse/VALUE` the next of them is answered 429 with
VALUE as its Retry-After. `... worker URL HOST PORT THREADS` takes turns of the host's clock
and asks; it says `ready`, begins when it reads a line and ends when its input is closed. With 0 threads it is a bulk
door that asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import ClassVar
from urllib.parse import quote, unquote

from tasks.bulk import Ask, BulkDoor
from tasks.errors import StopRequested
from tasks.pacing import Clock
from tasks.postgres import Database

# --- the server ---


class _Log(asyncio.Protocol):
    moments: ClassVar[list[float]] = []
    latency_s: ClassVar[float] = 0.0
    refusals: ClassVar[list[str]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if data.startswith(b"GET /log"):
            body = json.dumps(self.moments).encode()
            self._answer(body)
            return
        if data.startswith(b"GET /refuse/"):
            self.refusals.append(unquote(data.split(b" ")[1].decode().removeprefix("/refuse/")))
            self._answer(b"")
            return
        self.moments.append(now)
        if self.refusals:
            refusal = f"HTTP/1.1 429 X\r\nRetry-After: {self.refusals.pop()}\r\nContent-Length: 0\r\n\r\n"
            self.transport.write(refusal.encode())  # type: ignore[attr-defined]
            return
        asyncio.get_running_loop().call_later(self.latency_s, self._answer, b"")

    def _answer(self, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.transport.write(head + body)  # type: ignore[attr-defined]


async def _serve(latency_s: float) -> None:
    _Log.latency_s = latency_s
    gc.disable()
    server = await asyncio.get_running_loop().create_server(_Log, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def turn_log(latency_s: float = 0.0) -> Iterator[int]:
    """The port of a running server."""
    command = [sys.executable, "-m", "tests.fakes.turn_log", "server", str(latency_s)]
    with _process(command) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def moments(port: int) -> list[float]:
    """When the requests so far came, in order."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/log")
        return list(json.loads(connection.getresponse().read()))
    finally:
        connection.close()


def refuse_next(port: int, retry_after: str) -> None:
    """Answer the next request with 429 and this Retry-After."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/refuse/{quote(retry_after)}")
        connection.getresponse().read()
    finally:
        connection.close()


# --- the workers ---


@contextlib.contextmanager
def turn_workers(
    number: int, url: str, host: str, port: int, *, threads: int = 1
) -> Iterator[tuple[float, list[subprocess.Popen[str]]]]:
    """So many processes that ask the server as fast as the host's clock lets them; since when, and which.

    threads  that ask in each process; 0: a bulk door with 50 connections
    """
    command = [sys.executable, "-m", "tests.fakes.turn_log", "worker", url, host, str(port), str(threads)]
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_process(command)) for _ in range(number)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdin is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            print("go", file=worker.stdin, flush=True)
        yield time.monotonic(), workers


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _work(url: str, host: str, port: int, threads: int) -> None:
    database, stop = Database(url, size=2), threading.Event()
    clock = Clock(database, host, stop=stop)
    clock.rate()
    askers = [threading.Thread(target=_ask, args=(clock, port), daemon=True) for _ in range(threads)]
    askers += [] if threads else [threading.Thread(target=_ask_in_bulk, args=(clock, port, stop), daemon=True)]
    print("ready", flush=True)
    sys.stdin.readline()
    for asker in askers:
        asker.start()
    sys.stdin.read()
    stop.set()


def _ask(clock: Clock, port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.connect()
    with contextlib.suppress(StopRequested):
        while True:
            clock.take()
            connection.request("GET", "/")
            connection.getresponse().read()


def _ask_in_bulk(clock: Clock, port: int, stop: threading.Event) -> None:
    asks = (Ask(number, f"http://127.0.0.1:{port}/{number}") for number in itertools.count())
    with BulkDoor(connections=50, turns=clock, stop=stop) as door, contextlib.suppress(StopRequested):
        for _ in door.rounds(asks):
            pass


if __name__ == "__main__":
    with contextlib.suppress(PermissionError):
        os.nice(-10)  # what is measured is the clock, not what else the machine does
    if sys.argv[1] == "server":
        asyncio.run(_serve(float(sys.argv[2])))
    else:
        _work(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
