"""Transfers in the air: a libcurl multi handle, its easy handles, and waiting for something to happen.

`perform` and `select` rather than `socket_action` and epoll: on 100 busy connections it takes 38 us of processor
time per 12 KB transfer against 48, since one call serves dozens of them. With few of many connections busy epoll
is better (89 us against 195, at 250 connections and 3,800 answers/s); the nap makes up for some of that (172).
"""

from __future__ import annotations

import threading
import time

import pycurl

from tasks.bulk_answers import Trouble
from tasks.bulk_transfer import Transfer, Wiring

SCOUTS = 4
"""In flight over TLS until the first answer tells whether the host speaks HTTP/2: then the others share connections.

CURLOPT_PIPEWAIT alone would do it too, but lets the others' connect timeouts run while the first answer is slow."""

NAP_S = 0.001
"""How long to let more arrive when little has."""

SELECTABLE = 1024
"""select(2) knows no descriptors from here on (FD_SETSIZE), and pycurl has no curl_multi_poll."""

BLIND_WAIT_S = 0.002
"""How often to look where select cannot."""


class Flight:
    """At most `connections` transfers. Not for two threads at a time; the connections are kept between uses."""

    def __init__(self, wiring: Wiring, connections: int, stop: threading.Event) -> None:
        self.connections_opened = 0
        self._wiring = wiring
        self._connections = connections
        self._stop = stop
        self._scouting = wiring.http2
        self._shared = False
        self._up: dict[pycurl.Curl, Transfer] = {}
        self._idle: list[Transfer] = []
        self._just_landed = 0
        self._blind = False
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, max(100, connections))

    def __len__(self) -> int:
        return len(self._up)

    def room(self) -> int:
        """Free places."""
        return min(SCOUTS if self._scouting else self._connections, self._connections) - len(self._up)

    def idle(self) -> Transfer:
        """One that can be aimed; `start` or `rest` it."""
        return self._idle.pop() if self._idle else Transfer(self._wiring, self._connection_opened)

    def start(self, transfer: Transfer, now_s: float) -> None:
        """Its request leaves with the next `land`."""
        transfer.started_s = now_s
        self._scouting = self._scouting and transfer.url[:5].lower() == "https"
        if self._shared:
            transfer.share_connection()
        self._multi.add_handle(transfer.curl)
        self._up[transfer.curl] = transfer

    def land(self) -> list[tuple[Transfer, Trouble | None]]:
        """Move everything on as far as it goes; returns those that ended."""
        self._multi.perform()
        _, fine, failed = self._multi.info_read()
        landed: list[tuple[Transfer, Trouble | None]] = [(self._up.pop(curl), None) for curl in fine]
        landed += [(self._up.pop(curl), (code, said)) for curl, code, said in failed]
        for transfer, _ in landed:
            self._multi.remove_handle(transfer.curl)
        if landed:
            self._just_landed += len(landed)
            self._learn(landed[0][0])
        return landed

    def _learn(self, transfer: Transfer) -> None:
        """Once a host speaks HTTP/2, transfers wait for a connection they can share instead of opening their own.

        Otherwise each GOAWAY (nginx: every 1,000 requests) would be answered with dozens of new connections.
        """
        self._scouting = False
        self._shared = self._shared or (bool(transfer.lines) and transfer.lines[0].startswith(b"HTTP/2"))

    def rest(self, transfer: Transfer) -> None:
        """Keep it for the next item."""
        transfer.clear()
        self._idle.append(transfer)

    def wait(self, wait_s: float) -> None:
        """Until something can move on, at most `wait_s` or when the run is stopping."""
        if not self._up:
            self._stop.wait(wait_s)
            return
        few, self._just_landed = self._just_landed * 16 < len(self._up) > 64, 0
        timer_ms = self._multi.timeout()
        wait_s = min(wait_s, BLIND_WAIT_S if self._blind else wait_s, timer_ms / 1000 if timer_ms >= 0 else wait_s)
        began_s = time.monotonic()
        if self._multi.select(wait_s) > 0:
            if few:
                time.sleep(min(NAP_S, wait_s))
        elif time.monotonic() - began_s < wait_s / 2:  # nothing that select can see: it returns at once
            self._stop.wait(min(wait_s, BLIND_WAIT_S))

    def abandon(self) -> None:
        """Give up everything in the air; HTTP/1.1 connections in use are closed."""
        while self._up:
            curl, transfer = self._up.popitem()
            self._multi.remove_handle(curl)
            self.rest(transfer)

    def close(self) -> None:
        """Close all connections."""
        self.abandon()
        for transfer in self._idle:
            transfer.curl.close()
        self._idle.clear()
        self._multi.close()

    def _connection_opened(self, descriptor: int, _purpose: int) -> int:
        self.connections_opened += 1
        self._blind = self._blind or descriptor >= SELECTABLE
        return 0  # CURL_SOCKOPT_OK
