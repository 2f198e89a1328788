"""One HTTP request and its reply: where it goes, where a redirect leads, whether the whole body came."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import requests
import urllib3

from tasks.errors import TerminalError, TransientError
from tasks.http_answers import error_of_cut, shown
from tasks.http_wire import Wire
from tasks.records import Reason

PIECE_BYTES = 64 * 1024
DRAIN_BYTES = 64 * 1024
"""The body of an error or a redirect is read up to here, so that its connection can be used again."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, user and password taken out of the URL."""

    method: str
    url: str
    params: Mapping[str, Any] | None = None
    data: Mapping[str, Any] | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    credentials: tuple[str, str] | None = None

    @property
    def origin(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


class Reply:
    """An answer whose headers are here and whose body is still on the wire."""

    def __init__(self, response: requests.Response, ask: Request, wire: Wire) -> None:
        self.ask = ask
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = response.url
        self._raw = response.raw
        self._wire = wire

    @property
    def is_redirect(self) -> bool:
        return self.status in (301, 302, 303, 307, 308) and "Location" in self.headers

    @property
    def declared_bytes(self) -> int | None:
        """Bytes on the wire; a chunked body's Content-Length means nothing (RFC 9112 6.3)."""
        text = self.headers.get("Content-Length", "").strip()
        if "Transfer-Encoding" in self.headers or not (text.isascii() and text.isdecimal()):
            return None
        return int(text)

    @property
    def encoding(self) -> str:
        """How the body is compressed on the way; empty when it is not."""
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        return "" if encoding == "identity" else encoding

    def must_be_whole(self) -> None:
        """Refuse 206, 202, 204 ...: successes that are not the file."""
        if self.status not in (200, 203):
            reason = Reason.TRUNCATED if self.status == 206 else Reason.HTTP_ERROR
            said = f"{shown(self.url)} answered {self.status} instead of the whole file"
            raise TransientError(reason, f"{said}; it is tried again later.")

    def pieces(self, max_bytes: int) -> Iterator[bytes]:
        """The body, decompressed, as it arrives; ends well only when all of it came."""
        self._refuse_unreadable(max_bytes)
        size = 0
        while piece := self._raw.read1(PIECE_BYTES, decode_content=True):
            self._wire.received_bytes = self._raw.tell()
            size += len(piece)
            if size > max_bytes:
                raise self._too_large(max_bytes)
            yield piece
        if self._wire.cut is not None:  # without a declared length, a cut looks like the end of the body
            raise error_of_cut(self._wire.cut, self.url)

    def drain(self) -> None:
        """Read a short body that nobody needs; a longer one costs its connection instead."""
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            rest = DRAIN_BYTES
            while rest > 0 and (piece := self._raw.read1(rest, decode_content=False)):
                rest -= len(piece)
                self._wire.received_bytes += len(piece)

    def _refuse_unreadable(self, max_bytes: int) -> None:
        if (self.declared_bytes or 0) > max_bytes:
            raise self._too_large(max_bytes)
        if self.encoding not in ("", "gzip", "x-gzip", "deflate"):
            said = f"{shown(self.url)} came compressed as {self.encoding!r}, which was not asked for"
            raise TerminalError(Reason.HTTP_ERROR, f"{said}; check what stands before the portal.")

    def _too_large(self, max_bytes: int) -> TerminalError:
        said = f"{shown(self.url)} is larger than {max_bytes} bytes"
        return TerminalError(Reason.TOO_LARGE, f"{said}; raise the limit if that is right.")


def request_of(
    url: str,
    method: str,
    params: Mapping[str, Any] | None,
    data: Mapping[str, Any] | None,
    headers: Mapping[str, str | None],
) -> Request:
    """Raises TerminalError(bad_row) when `url` is no http or https address."""
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme.lower() in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise TerminalError(Reason.BAD_ROW, f"{shown(url)!r} is not an http or https address; correct it.")
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    credentials = (unquote(user), unquote(password)) if login else None
    return Request(method.upper(), parts._replace(netloc=host).geturl(), params, data, headers, credentials)


def next_hop(reply: Reply, allowed_hosts: Collection[str]) -> Request:
    """The request a redirect asks for. Raises TerminalError when it leads where this door does not go."""
    ask, hop = reply.ask, _target(reply)
    before, after = urlsplit(reply.url), urlsplit(hop.url)
    if before.scheme == "https" and after.scheme == "http":
        raise _wrong_way(reply.url, f"an unencrypted address on {after.hostname}")
    if after.hostname != before.hostname and after.hostname not in allowed_hosts:
        raise _wrong_way(reply.url, f"another host, {after.hostname}; allow that host if it is right")
    if _place(after) != _place(before) and not _is_upgrade(before, after):
        return replace(hop, headers={**ask.headers, "Authorization": None, "Cookie": None})
    return replace(hop, credentials=hop.credentials or ask.credentials)


def _target(reply: Reply) -> Request:
    """Where `Location` points, asked as RFC 9110 15.4 and browsers do: only 307 and 308 keep a form."""
    ask = reply.ask
    keeps_form = reply.status in (307, 308) or ask.method in ("GET", "HEAD")
    method, data = (ask.method, ask.data) if keeps_form else ("GET", None)
    # http.client reads headers as Latin-1; servers that do not quote send UTF-8
    location = reply.headers["Location"].encode("latin-1", "replace").decode("utf-8", "replace")
    try:
        return request_of(urljoin(reply.url, location), method, None, data, ask.headers)
    except (ValueError, TerminalError):
        raise _wrong_way(reply.url, "something that is no http address") from None


def _place(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _is_upgrade(before: SplitResult, after: SplitResult) -> bool:
    """From a host's usual plain port to its usual encrypted one."""
    return _place(before)[::2] == ("http", 80) and _place(after) == ("https", before.hostname, 443)


def _wrong_way(url: str, where: str) -> TerminalError:
    return TerminalError(Reason.HTTP_ERROR, f"{shown(url)} redirects to {where}.")
