"""The bulk door: hundreds of small downloads in flight inside one thread, on libcurl's multi interface.

Iterator in, iterator out: memory does not grow with the number of requests. What belongs here is whether each
conversation went well, in the words of `tasks.http_answers`; whether the body is a tile is the caller's question.
Nothing is repeated here: a failed item is handed back at once and its row decides, so no retry holds a place.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Generic

import pycurl

from tasks.bulk_answers import Trouble
from tasks.bulk_pace import Level, Pace, Turns
from tasks.bulk_results import Failure, Got, Reader
from tasks.bulk_transfer import Ask, K, Transfer, Wiring
from tasks.errors import ConfigurationError, ItemError, RateLimited, StopRequested
from tasks.http_sessions import sendable, trusted

__all__ = ["Ask", "BulkDoor", "Failure", "Got", "Level", "Turns"]

TICK_S = 0.1
"""A round takes no longer: stops are seen, and the caller gets to settle what it has."""

NAP_S = 0.001
"""Waited for more to arrive when little has: looking at hundreds of transfers costs more than a few finished ones."""

SHORTEST_WAIT_S = 0.0005

SCOUTS = 4
"""In flight until the first answer tells whether the host speaks HTTP/2: then the others share its connections."""

SELECTABLE = 1024
"""select(2) knows no descriptors from here on (FD_SETSIZE); pycurl has no curl_multi_poll."""

BLIND_WAIT_S = 0.002


class BulkDoor:
    """Downloads many small things from HTTP hosts. Used by one thread at a time; keeps its connections between uses.

    connections   transfers in flight at the most; over HTTP/2 they share few connections
    turns         the host's dial; None: nothing but Retry-After holds the door
    level         learns how many transfers do the host good; None: always `connections`
    low_speed_*   a transfer slower than this many bytes/s over this window is given up; waiting for the
                  first byte counts
    max_bytes     of one body, as it travels and unpacked; larger ones are given up as soon as that is known
    headers       sent to every host this door is asked for, not to another one by redirect
    allowed_hosts hosts that a redirect may lead to, besides the host that was asked
    stop          once set, StopRequested within TICK_S; what is in flight is given up

    Proxies are taken from the environment as curl does. Raises ConfigurationError for what cannot work at all.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        connections: int = 100,
        turns: Turns | None = None,
        level: Level | None = None,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float = 10,
        low_speed_bytes_per_s: int = 256,
        low_speed_window_s: int = 30,
        total_timeout_s: float = 300,
        max_bytes: int = 16 * 1024**2,
        allowed_hosts: Collection[str] = (),
        verify: bool | str = True,
        http2: bool = True,
        stop: threading.Event | None = None,
    ) -> None:
        self._wiring = Wiring(
            user_agent,
            sendable(headers),
            connect_timeout_s,
            total_timeout_s,
            low_speed_bytes_per_s,
            low_speed_window_s,
            max_bytes,
            http2,
            trusted(verify),
        )
        self.connections_opened = 0
        self._pace = Pace(turns, level, connections)
        self._reader = Reader(max_bytes=max_bytes, allowed_hosts=allowed_hosts)
        self._stop = stop or threading.Event()
        self._in_use = threading.Lock()
        self._in_flight: dict[pycurl.Curl, Transfer] = {}
        self._hopping: deque[Transfer] = deque()
        self._idle: list[Transfer] = []
        self._fatal: ConfigurationError | None = None
        self._scouting = http2
        self._blind = False
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, max(100, connections))
