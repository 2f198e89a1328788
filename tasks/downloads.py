"""The door to HTTP hosts: small pages and files, each checked for being whole, each request after a turn.

What belongs here is whether the conversation went well: status, length, time, size, stop. Whether the file
is a PDF, and a good one, is the validation ladder's question (`tasks.pdf`): a `200` proves nothing.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import requests

from tasks.errors import (
    ItemError,
    RateLimited,
    StopRequested,
    TerminalError,
    TransientError,
)
from tasks.http_answers import (
    FOREIGN,
    error_of_exception,
    error_of_status,
    parse_retry_after,
    root_cause,
    shown,
)
from tasks.http_health import Exchange, Health, Patience
from tasks.http_replies import Reply, Request, next_hop, request_of
from tasks.http_sessions import USER_AGENT, Sessions, sendable, trusted
from tasks.http_wire import Limits, Watch, Wire
from tasks.partials import PartialFile, sweep_partials
from tasks.records import Reason

__all__ = ["Answer", "Download", "Exchange", "HttpDoor", "parse_retry_after", "sweep_partials"]

MAX_HOPS = 5
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """A small page. `url` is where it came from after redirects, without user and password."""

    status: int
    url: str
    content: bytes
    headers: Mapping[str, str]
    seconds: float

    @property
    def text(self) -> str:
        """Decoded as the header says, else as UTF-8, else as Windows-1252, as old portals write."""
        for charset in (_charset(self.headers.get("Content-Type", "")), "utf-8"):
            with contextlib.suppress(LookupError, UnicodeDecodeError):
                return self.content.decode(charset or "utf-8")
        return self.content.decode("windows-1252", errors="replace")


@dataclass(frozen=True, slots=True)
class Download:
    """A file that is complete on disk.

    size_bytes, sha256  of the file as written
    declared_bytes      Content-Length; None when the server named none or compressed the body on the way
    url                 where it came from after redirects, without user and password
    fetched_at          timezone-aware (UTC), when the last byte was here
    """

    path: Path
    size_bytes: int
    sha256: str
    declared_bytes: int | None
    content_type: str | None
    url: str
    etag: str | None
    last_modified: str | None
    fetched_at: datetime
    seconds: float


class HttpDoor:
    """Talks to HTTP hosts. Thread-safe; one session (cookies, kept-alive connections) per thread.

    before_request   called before every request that leaves, retries and redirects included; takes the turn
    after_request    called once after each of them
    low_speed_*      a body slower than this many bytes/s over this many seconds is given up
    stop             once set, StopRequested within half a second from anywhere but a DNS look-up
    allowed_hosts    hosts that a redirect may lead to, besides the host that was asked
    headers          sent to every host this door is asked for, never to another host by redirect
    verify           True, the path of a certificate authority's file, or False
    retry_delays_s   delays before a request is repeated whose connection failed; nothing else is repeated

    Only look-ups and downloads belong here: a POST is repeated like a GET. Raises the errors of
    `tasks.http_answers`; a certificate that is not accepted is a ConfigurationError.
    """

    def __init__(
        self,
        *,
        before_request: Callable[[], None],
        after_request: Callable[[Exchange], None] | None = None,
        user_agent: str = USER_AGENT,
        connect_timeout_s: float = 10,
        read_timeout_s: float = 60,
        total_timeout_s: float = 1800,
        low_speed_bytes_per_s: float = 256,
        low_speed_window_s: float = 30,
        max_bytes: int = 1024**3,
        stop: threading.Event | None = None,
        headers: Mapping[str, str] | None = None,
        allowed_hosts: Collection[str] = (),
        verify: bool | str = True,
        retry_delays_s: tuple[float, ...] = (0.5, 2.0),
    ) -> None:
        self._before_request = before_request
        self._after_request = after_request or (lambda _: None)
        self._max_bytes = max_bytes
        self._stop = stop or threading.Event()
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._retry_delays_s = retry_delays_s
        self._timeout_s = (connect_timeout_s, read_timeout_s)
        self._patience = Patience()
        self._logins: dict[str, tuple[str, str]] = {}
        limits = Limits(connect_timeout_s, read_timeout_s, total_timeout_s, low_speed_bytes_per_s, low_speed_window_s)
        self._watch = Watch(limits, self._stop)
        self._sessions = Sessions({"User-Agent": user_agent, **sendable(headers)}, trusted(verify))

    def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        max_bytes: int = 4 * 1024**2,
    ) -> Answer:
        """A small page, in memory. `params` go into the query, `data` into a form."""
        started_s = time.monotonic()

        def take(reply: Reply) -> Answer:
            content = b"".join(reply.pieces(max_bytes))
            seconds = time.monotonic() - started_s
            return Answer(reply.status, reply.url, content, reply.headers, seconds)

        return self._converse(request_of(url, method, params, data, {"Accept-Encoding": "gzip"}), take)

    def download(self, url: str, destination: Path, *, headers: Mapping[str, str] | None = None) -> Download:
        """A file, streamed beside `destination`, synced and renamed into place only when it is complete."""
        started_s = time.monotonic()

        def take(reply: Reply) -> Download:
            reply.must_be_whole()
            with PartialFile(destination) as file:
                for piece in reply.pieces(self._max_bytes):
                    file.write(piece)
                sha256 = file.finish()
            return _landed(reply, destination, file.size_bytes, sha256, time.monotonic() - started_s)

        ask = request_of(url, "GET", None, None, {"Accept-Encoding": "identity", **sendable(headers)})
        return self._converse(ask, take)

    def close(self) -> None:
        """Close all connections. Requests under way in other threads end with StopRequested."""
        self._watch.close()
        self._sessions.close()

    def __enter__(self) -> HttpDoor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _converse(self, ask: Request, take: Callable[[Reply], T]) -> T:
        """Follow redirects, each hop a request of its own with its own turn."""
        if ask.credentials:  # as browsers do: the links on a page do not repeat the login of its address
            self._logins[ask.origin] = ask.credentials
        for _ in range(MAX_HOPS + 1):
            outcome = self._patiently(ask, take)
            if not isinstance(outcome, Request):
                return outcome
            ask = outcome
        raise TerminalError(Reason.HTTP_ERROR, f"{shown(ask.url)} redirects in circles; check the address.")

    def _patiently(self, ask: Request, take: Callable[[Reply], T]) -> T | Request:
        """Repeat a request whose connection failed; everything else is for the item's row to repeat."""
        for delay_s in self._retry_delays_s:
            try:
                return self._once(ask, take)
            except TransientError as exc:
                if exc.reason != Reason.CONNECTION:
                    raise
            self._stop.wait(delay_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        return self._once(ask, take)

    def _once(self, ask: Request, take: Callable[[Reply], T]) -> T | Request:
        """One turn, one request, one report of how it went."""
        if self._stop.is_set() or self._watch.closed:
            raise StopRequested("The run is stopping; nothing more is asked for.")
        self._before_request()
        health = Health()
        try:
            with self._watch.wire() as wire:
                return self._talk(ask, take, wire, health)
        except ItemError as exc:
            health.failed(exc)
            raise
        finally:
            self._after_request(health.exchange())

    def _talk(self, ask: Request, take: Callable[[Reply], T], wire: Wire, health: Health) -> T | Request:
        try:
            with contextlib.closing(self._send(ask)) as response:
                health.answered(response.status_code)
                wire.answered()
                reply = Reply(response, ask, wire)
                return self._understood(reply, take)
        except FOREIGN as exc:
            raise error_of_exception(exc, wire.cut, ask.url) from root_cause(exc)

    def _send(self, ask: Request) -> requests.Response:
        return self._sessions.mine().request(
            ask.method,
            ask.url,
            params=ask.params,
            data=ask.data,
            headers=ask.headers,
            auth=ask.credentials or self._logins.get(ask.origin),
            timeout=self._timeout_s,
            allow_redirects=False,
            stream=True,
            verify=self._sessions.verify,
            proxies=self._sessions.proxies(ask.origin),
        )

    def _understood(self, reply: Reply, take: Callable[[Reply], T]) -> T | Request:
        if reply.is_redirect:
            reply.drain()
            return next_hop(reply, self._allowed_hosts)
        now, patience_s = datetime.now(UTC), self._patience.next_s()
        error = error_of_status(reply.status, reply.headers, reply.url, now, patience_s)
        if isinstance(error, RateLimited):
            self._patience.grow()
        if error is not None:
            reply.drain()
            raise error
        self._patience.reset()
        return take(reply)


def _landed(reply: Reply, path: Path, size_bytes: int, sha256: str, seconds: float) -> Download:
    return Download(
        path=path,
        size_bytes=size_bytes,
        sha256=sha256,
        declared_bytes=None if reply.encoding else reply.declared_bytes,
        content_type=reply.headers.get("Content-Type"),
        url=reply.url,
        etag=reply.headers.get("ETag"),
        last_modified=reply.headers.get("Last-Modified"),
        fetched_at=datetime.now(UTC),
        seconds=seconds,
    )


def _charset(content_type: str) -> str | None:
    for part in content_type.split(";")[1:]:
        name, _, value = part.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip("\"'") or None
    return None
