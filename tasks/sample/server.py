"""A small HTTP/1.1 server that can misbehave on the wire: resets, stalls, cut bodies, outages.

Standard library only, because servers one would normally take refuse to send a wrong Content-Length.
"""

from __future__ import annotations

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor

from tasks.errors import ConfigurationError
from tasks.sample.answers import Answer
from tasks.sample.conversation import CONTROL, AnyOffice, Conversation, Desk
from tasks.sample.delivery import reset
from tasks.sample.fault_policy import FaultPolicy
from tasks.sample.faults import Faults, Outage, load_faults
from tasks.sample.witness import Witness

MAX_HEAD_BYTES = 64 * 1024
FLUSH_S = 0.25


class PortalServer:
    """Serves an office on one event loop; every method runs on that loop."""

    def __init__(
        self, office: AnyOffice, witness: Witness, faults: Faults, *, seed: int, latency_ms: float = 0.0
    ) -> None:
        # One drawing thread: base pages are drawn once, not by every request that waits for them.
        pool = ThreadPoolExecutor(1, thread_name_prefix="sample-portal-scans")
        self._desk = Desk(office, witness, FaultPolicy(faults, seed), pool, latency_ms / 1000, self._control)
        self._seed = seed
        self._conversations: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._holder: socket.socket | None = None
        self._address = ("127.0.0.1", 0)
        self._outages = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._relisten: asyncio.Task[None] | None = None
        self._flusher: asyncio.Task[None] | None = None

    @property
    def faults(self) -> Faults:
        """The set at work."""
        return self._desk.policy.faults

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port. Raises ConfigurationError when it is taken."""
        # This socket never listens: it keeps the port ours while an outage refuses connections.
        self._holder = _reserved_port(host, port)
        self._address = (host, self._holder.getsockname()[1])
        await self._listen()
        self.apply(self.faults)
        self._flusher = asyncio.create_task(self._keep_flushing())
        return self._address[1]

    async def stop(self) -> None:
        """Stop listening, drop every connection, end the drawing thread."""
        self._cancel_timers()
        if self._relisten:
            await self._relisten
        self._close_listener()
        await asyncio.sleep(0.01)  # for connections that were accepted to become conversations
        writers = list(self._conversations.values())
        tasks = [*self._conversations, *([self._flusher] if self._flusher else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()  # `close` waits for a client that reads no more
        if self._holder:
            self._holder.close()
        self._desk.pool.shutdown(wait=True, cancel_futures=True)

    def apply(self, faults: Faults) -> None:
        """Switch to another set of faults: its counts and times start now, and a running outage ends."""
        self._cancel_timers()
        if self._outages:
            self._outages = 1
            self._come_back()
        self._desk.policy = FaultPolicy(faults, self._seed)
        for outage in faults.outages:
            self._later(outage.starts_s, outage)

    def go_down(self, outage: Outage) -> None:
        """Begin an outage now."""
        self._outages += 1
        if outage.how == "refuse":
            self._close_listener()
        for writer in self._conversations.values():
            reset(writer)
        self._later(outage.lasts_s, None)

    async def _listen(self) -> None:
        if self._server is None:
            listener = _bound_socket(*self._address)
            self._server = await asyncio.start_server(self._converse, sock=listener, limit=MAX_HEAD_BYTES, backlog=1024)

    def _close_listener(self) -> None:
        if self._server:
            close_listener(self._server)
            self._server = None

    def _come_back(self) -> None:
        self._outages -= 1
        if self._outages == 0 and self._server is None:
            self._relisten = asyncio.get_running_loop().create_task(self._listen())

    def _later(self, delay_s: float, outage: Outage | None) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(delay_s, self.go_down, outage) if outage else loop.call_later(delay_s, self._come_back)
        self._timers.append(timer)

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if self._outages or task is None:
            reset(writer)
            return
        witness = self._desk.witness
        self._conversations[task] = writer
        witness.connections_total += 1
        witness.connections_open += 1
        try:
            await Conversation(self._desk, reader, writer).run()
        except asyncio.CancelledError:
            pass  # by stop() only; Python 3.11's streams would report a cancelled conversation as an error
        finally:
            del self._conversations[task]
            witness.connections_open -= 1
            writer.close()

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            self._desk.witness.flush()

    def _control(self, path: str, body: bytes) -> Answer:
        """`POST /__faults` with a set's name or JSON switches; both paths answer where the portal stands."""
        if path == CONTROL + "faults" and body:
            try:
                self.apply(load_faults(body.decode("utf-8", "replace")))
            except ConfigurationError as exc:
                return Answer(400, f"{exc}\n".encode(), "text/plain; charset=utf-8")
        elif path not in (CONTROL + "faults", CONTROL + "status"):
            return Answer(404, b"There is /__faults and /__status.\n", "text/plain; charset=utf-8")
        witness = self._desk.witness
        standing = {
            "requests": witness.seen,
            "connections_open": witness.connections_open,
            "connections_total": witness.connections_total,
            "faults": self.faults.model_dump(mode="json"),
        }
        return Answer(200, json.dumps(standing).encode(), "application/json")


def close_listener(server: asyncio.Server) -> None:
    """Accept nothing more from now on, and close when what was accepted is the server's: in Python 3.11 a connection
    that comes in between is lost with its socket open (CPython gh-109564)."""
    loop = server.get_loop()
    for listener in server.sockets:
        loop.remove_reader(listener)
    loop.call_soon(server.close)


def _reserved_port(host: str, port: int) -> socket.socket:
    if port:
        with socket.socket() as probe:  # sharing a port would let two portals answer in turns unnoticed
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _bind(probe, host, port)
    return _bound_socket(host, port)


def _bound_socket(host: str, port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _bind(bound, host, port)
    return bound


def _bind(bound: socket.socket, host: str, port: int) -> None:
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as exc:
        bound.close()
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigurationError(f"{host}:{port} cannot be listened on ({reason}); choose another port.") from exc
