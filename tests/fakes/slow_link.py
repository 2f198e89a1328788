"""A TCP relay that takes its time: delays each direction, without limit of bandwidth, and can stall or cut.

In a test it runs on a thread; as a program (`python -m tests.fakes.slow_link PORT DELAY_S`) it prints its own port
and relays until it is ended, so that it takes no turns of a benchmark's interpreter.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections import deque

from tasks.sample.server import close_listener


class SlowLink:
    """Context manager. Relays 127.0.0.1:`port` to 127.0.0.1:`target_port`, each way `delay_s` later.

    connections   accepted so far
    """

    def __init__(self, target_port: int, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.connections = 0
        self.flowing = True
        self.loop = asyncio.new_event_loop()
        self.ends: set[asyncio.Transport] = set()
        self.ways: list[Way] = []
        self._target_port = target_port
        self._ended = asyncio.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> SlowLink:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)

    def stall(self) -> None:
        """From now on nothing passes, and no connection ends."""
        self.flowing = False

    def flow(self) -> None:
        """What was held back goes on, and so does the rest."""
        self.flowing = True
        for way in list(self.ways):
            self.loop.call_soon_threadsafe(way.pump)

    def cut(self) -> None:
        """Reset every connection."""
        self.loop.call_soon_threadsafe(self._cut)

    def run(self) -> None:
        """Relay until told to end."""
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await self.loop.create_server(self._accept, sock=self._listener)
        await self._ended.wait()
        close_listener(server)
        await asyncio.sleep(0.01)  # for what was accepted to be among the ends
        self._cut()
        await asyncio.sleep(0.01)  # for the sockets to be closed

    def _cut(self) -> None:
        for end in self.ends:
            end.abort()

    def _accept(self) -> End:
        self.connections += 1
        there, back = Way(self), Way(self)
        self.ways += [there, back]
        self.loop.create_task(self._reach(there, back))
        return End(self, hears=there, speaks=back)

    async def _reach(self, there: Way, back: Way) -> None:
        try:
            await self.loop.create_connection(
                lambda: End(self, hears=back, speaks=there), "127.0.0.1", self._target_port
            )
        except OSError:
            back.put(None)


class Way:
    """One direction of a connection: what is under way, and when it is due."""

    def __init__(self, link: SlowLink) -> None:
        self.out: asyncio.Transport | None = None
        self._link = link
        self._line: deque[tuple[float, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, data: bytes | None) -> None:
        """None: the end."""
        self._line.append((self._link.loop.time() + self._link.delay_s, data))
        self.pump()

    def pump(self) -> None:
        """Deliver what is due, and come back for the rest."""
        while self._line and self.out is not None and self._link.flowing and self._timer is None:
            due_s, data = self._line[0]
            if due_s > self._link.loop.time():
                self._timer = self._link.loop.call_at(due_s, self._is_due)
                return
            self._line.popleft()
            if data is None:
                self.out.close()
            elif not self.out.is_closing():
                self.out.write(data)

    def _is_due(self) -> None:
        self._timer = None
        self.pump()


class End(asyncio.Protocol):
    """One of the two sockets of a connection: what it hears goes one way, what it speaks came the other."""

    def __init__(self, link: SlowLink, hears: Way, speaks: Way) -> None:
        self._link, self._hears, self._speaks = link, hears, speaks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link.ends.add(transport)
        self._speaks.out = transport
        self._speaks.pump()

    def data_received(self, data: bytes) -> None:
        self._hears.put(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hears.put(None)


if __name__ == "__main__":
    link = SlowLink(int(sys.argv[1]), float(sys.argv[2]))
    print(link.port, flush=True)
    link.run()
