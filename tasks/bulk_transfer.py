"""One place of a bulk door: a libcurl easy handle, set up once and aimed at one address after another."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

import certifi
import pycurl
import requests

from tasks.bulk_packing import ASKED_FOR
from tasks.http_answers import FOREIGN, error_of_exception
from tasks.http_replies import Reply, Request, next_hop, request_of

K = TypeVar("K")

BUFFER_BYTES = 64 * 1024
"""Read at once; one buffer for the whole door."""

_PLAIN_URL = re.compile(r"https?://[^/?#\s@:]").match
_HARMLESS = re.compile(r"accept|user-agent$|referer$", re.IGNORECASE)
"""Headers that another host may see when a redirect leads there."""


class Ask(NamedTuple, Generic[K]):
    """One item to fetch. `id` is the caller's and comes back with the result.

    etag, last_modified  as kept from an earlier answer: asked so, an unchanged item costs a 304 and no body
    """

    id: K
    url: str
    etag: str | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class Wiring:
    """How every transfer of a door is made.

    low_speed_*  a transfer slower than this many bytes/s over this many seconds (whole, at least one) is given up;
                 waiting for the answer's first byte counts, so the window bounds that too
    verify       True, the path of a certificate authority's file or folder, or False
    """

    headers: Mapping[str, str]
    connect_timeout_s: float
    total_timeout_s: float
    low_speed_bytes_per_s: float
    low_speed_window_s: float
    max_bytes: int
    http2: bool
    verify: bool | str

    def options(self) -> list[tuple[int, Any]]:
        """libcurl options that hold for every transfer."""
        version = pycurl.CURL_HTTP_VERSION_2TLS if self.http2 else pycurl.CURL_HTTP_VERSION_1_1
        return [
            (pycurl.NOSIGNAL, 1),
            (pycurl.HTTP_VERSION, version),
            (pycurl.HTTPHEADER, header_lines(self.headers)),
            (pycurl.ACCEPT_ENCODING, ASKED_FOR),
            (pycurl.HTTP_CONTENT_DECODING, 0),
            (pycurl.CONNECTTIMEOUT_MS, round(self.connect_timeout_s * 1000)),
            (pycurl.TIMEOUT_MS, round(self.total_timeout_s * 1000)),
            (pycurl.LOW_SPEED_LIMIT, round(self.low_speed_bytes_per_s)),
            (pycurl.LOW_SPEED_TIME, max(1, round(self.low_speed_window_s))),
            (pycurl.MAXFILESIZE_LARGE, self.max_bytes),
            (pycurl.BUFFERSIZE, BUFFER_BYTES),
            *self._trust(),
        ]

    def _trust(self) -> list[tuple[int, Any]]:
        if self.verify is False:
            return [(pycurl.SSL_VERIFYPEER, 0), (pycurl.SSL_VERIFYHOST, 0)]
        named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        path = self.verify if isinstance(self.verify, str) else named or certifi.where()
        return [(pycurl.CAPATH if Path(path).is_dir() else pycurl.CAINFO, path)]


class Transfer:
    """A handle and what it is fetching. The body comes in `pieces`, packed as it travelled."""

    def __init__(self, wiring: Wiring, opened: Callable[[int, int], int]) -> None:
        self._wiring = wiring
        self._dressed = self._logged_in = self._shares = False
        self._request: Request | None = None
        self.ask: Ask[Any] = Ask(None, "")
        self.url = ""
        self.hops = 0
        self.started_s = 0.0
        self.lines: list[bytes] = []
        self.pieces: list[bytes] = []
        self.curl = pycurl.Curl()
        for option, value in wiring.options():
            self.curl.setopt(option, value)
        # methods of lists, so that no Python function runs per header line or piece
        self.curl.setopt(pycurl.HEADERFUNCTION, self.lines.append)
        self.curl.setopt(pycurl.WRITEFUNCTION, self.pieces.append)
        self.curl.setopt(pycurl.SOCKOPTFUNCTION, opened)

    def aim(self, ask: Ask[Any]) -> None:
        """Be ready to fetch `ask`. Raises TerminalError(bad_row) when its address cannot be asked."""
        self.ask, self._request, self.hops = ask, None, 0
        if ask.etag or ask.last_modified:
            self._dress(self._wiring.headers)
        elif self._dressed:
            self._dress(self._wiring.headers)
            self._dressed = False
        if self._logged_in:
            self._log_in(None)
        self._set_url(ask.url)

    def follow(self, status: int, location: str, allowed_hosts: Collection[str]) -> None:
        """Be ready for the hop a redirect asks for. Raises TerminalError when it leads where this door does not go."""
        before = self._request or request_of(self.url, "GET", None, None, {})
        moved = _Moved(before, before.url, status, {"Location": location})
        hop = next_hop(cast(Reply, moved), allowed_hosts)
        elsewhere = None in hop.headers.values()  # how `next_hop` says that secrets stay behind
        kept = {n: v for n, v in self._wiring.headers.items() if not elsewhere or _HARMLESS.match(n)}
        self._request = hop
        self.clear()
        self._dress(kept)
        self._log_in(hop.credentials)
        self._set_url(hop.url)

    def share_connection(self) -> None:
        """Wait for an HTTP/2 connection that is being made rather than making another."""
        if not self._shares:
            self.curl.setopt(pycurl.PIPEWAIT, 1)
            self._shares = True

    def answered_after_s(self) -> float:
        """Seconds from the start until the answer began, or until the transfer failed without one."""
        return float(self.curl.getinfo(pycurl.STARTTRANSFER_TIME) or self.curl.getinfo(pycurl.TOTAL_TIME))

    def clear(self) -> None:
        """Forget what came."""
        self.lines.clear()
        self.pieces.clear()

    def _set_url(self, url: str) -> None:
        self.url = url
        if not (_PLAIN_URL(url) and url.isascii() and url.isprintable() and " " not in url):
            url = self._tidied(url)
        self.curl.setopt(pycurl.URL, url)

    def _tidied(self, url: str) -> str:
        """The address quoted as `requests` quotes it."""
        request = request_of(url, "GET", None, None, {})
        if request.credentials:
            self._log_in(request.credentials)
        try:
            return str(requests.Request("GET", request.url).prepare().url)
        except FOREIGN as exc:
            raise error_of_exception(exc, None, url) from None

    def _dress(self, headers: Mapping[str, str]) -> None:
        """Send these headers, and what makes the request conditional."""
        named = {"If-None-Match": self.ask.etag, "If-Modified-Since": self.ask.last_modified}
        conditions = {name: value for name, value in named.items() if value and _is_one_line(value)}
        self.curl.setopt(pycurl.HTTPHEADER, header_lines({**headers, **conditions}))
        self._dressed = True

    def _log_in(self, credentials: tuple[str, str] | None) -> None:
        self._logged_in = credentials is not None
        if credentials is None:
            self.curl.unsetopt(pycurl.USERNAME)
            self.curl.unsetopt(pycurl.PASSWORD)
        else:
            self.curl.setopt(pycurl.USERNAME, credentials[0].encode())
            self.curl.setopt(pycurl.PASSWORD, credentials[1].encode())


@dataclass(frozen=True, slots=True)
class _Moved:
    """The part of a `Reply` that decides where a redirect leads."""

    ask: Request
    url: str
    status: int
    headers: Mapping[str, str]


def _is_one_line(value: str) -> bool:
    """A line break in what an earlier answer left in a row would begin a header of its own."""
    return value.isprintable() and max(value) <= "\xff"


def header_lines(headers: Mapping[str, str]) -> list[bytes]:
    """As libcurl takes them; it would drop an empty header unless it ends in a semicolon."""
    return [(f"{name}: {value}" if value else f"{name};").encode("latin-1") for name, value in headers.items()]
