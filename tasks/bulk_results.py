"""What a bulk door hands back, and how a finished transfer becomes it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

import pycurl

from tasks.bulk_answers import Trouble, declared_bytes, encoding_of, error_of_trouble, not_whole, read_headers
from tasks.bulk_packing import unpack
from tasks.bulk_transfer import Ask, K, Transfer
from tasks.errors import ItemError, LandrecordsError, RateLimited, TerminalError
from tasks.http_answers import error_of_status, shown, without_secrets
from tasks.http_health import OVERLOADED, Patience
from tasks.records import Reason

E = TypeVar("E", bound=LandrecordsError)

MAX_HOPS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Got(NamedTuple, Generic[K]):
    """An answer that is whole.

    status          200, 203, or 304 (body empty) when the Ask was conditional
    body            unpacked
    declared_bytes  Content-Length; None when the server named none or compressed the body on the way
    wire_bytes      of the body as it travelled
    seconds         until the last byte was here
    """

    id: K
    status: int
    body: bytes
    content_type: str | None
    etag: str | None
    last_modified: str | None
    declared_bytes: int | None
    wire_bytes: int
    seconds: float


class Failure(NamedTuple, Generic[K]):
    """An item that did not come. `error` says what happens next; `status` is None when no answer came."""

    id: K
    error: ItemError
    status: int | None
    seconds: float

    @property
    def reason(self) -> str:
        """The typed word for the item's row."""
        return self.error.reason

    @property
    def retry_after_s(self) -> float | None:
        """What a 429 or 503 asked for, else None."""
        return self.error.retry_after_s if isinstance(self.error, RateLimited) else None

    @property
    def overloaded(self) -> bool:
        """The host has more to do than it can: 429, 503, 504 or a timeout."""
        return self.status in OVERLOADED or self.error.reason == Reason.TIMEOUT


class Reader:
    """Reads finished transfers. `max_bytes` bounds a body, as it travelled and unpacked; no message has `secrets`."""

    def __init__(self, *, max_bytes: int, allowed_hosts: Collection[str], secrets: Collection[str] = ()) -> None:
        self._max_bytes = max_bytes
        self._secrets = secrets
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._patience = Patience()

    def read(self, transfer: Transfer, trouble: Trouble | None) -> Got[Any] | Failure[Any] | None:
        """What came of it. None: a redirect, and the transfer is aimed at its next hop.

        Raises ConfigurationError when nothing from this host can succeed (its certificate is not accepted).
        """
        status: int = transfer.curl.getinfo(pycurl.RESPONSE_CODE)
        headers = read_headers(transfer.lines)
        try:
            if status in _REDIRECTS and "Location" in headers:
                self._follow(transfer, status, headers["Location"])
                return None
            if status != 200 or trouble is not None:
                self._refuse(transfer, status, headers, trouble)
            return self._got(transfer, status, headers)
        except ItemError as exc:
            seconds: float = transfer.curl.getinfo(pycurl.TOTAL_TIME)
            # a caller may keep thousands of failures: without the frames of this function
            return Failure(transfer.ask.id, self.veiled(exc).with_traceback(None), status or None, seconds)
        except LandrecordsError as exc:
            raise self.veiled(exc) from None

    def veiled(self, exc: E) -> E:
        """The error, its message without the secrets."""
        exc.args = (without_secrets(str(exc), self._secrets),)
        return exc

    def _got(self, transfer: Transfer, status: int, headers: dict[str, str]) -> Got[Any]:
        body = b"".join(transfer.pieces)
        wire_bytes, encoding = len(body), encoding_of(headers)
        if encoding:
            body = unpack(body, encoding, self._max_bytes, transfer.url)
        return Got(
            transfer.ask.id,
            status,
            body,
            headers.get("Content-Type"),
            headers.get("ETag"),
            headers.get("Last-Modified"),
            declared_bytes(headers),
            wire_bytes,
            transfer.curl.getinfo(pycurl.TOTAL_TIME),
        )

    def _refuse(self, transfer: Transfer, status: int, headers: dict[str, str], trouble: Trouble | None) -> None:
        """Raise what is wrong with the answer, if anything. A status says more than how its body ended."""
        error: LandrecordsError | None
        if status >= 300 and not (status == 304 and _is_conditional(transfer.ask)):
            error = self._error_of_status(transfer.url, status, headers)
        elif trouble is not None:
            received: int = transfer.curl.getinfo(pycurl.SIZE_DOWNLOAD_T)
            error = error_of_trouble(trouble, transfer.url, received, self._max_bytes)
        else:
            error = None if status == 304 else not_whole(status, transfer.url)
        if error is not None:
            raise error

    def _error_of_status(self, url: str, status: int, headers: dict[str, str]) -> LandrecordsError | None:
        error = error_of_status(status, headers, url, datetime.now(UTC), self._patience.next_s())
        if isinstance(error, RateLimited):
            self._patience.grow()
        return error

    def _follow(self, transfer: Transfer, status: int, location: str) -> None:
        transfer.hops += 1
        if transfer.hops > MAX_HOPS:
            raise TerminalError(Reason.HTTP_ERROR, f"{shown(transfer.url)} redirects in circles; check the address.")
        transfer.follow(status, location, self._allowed_hosts)


def _is_conditional(ask: Ask[Any]) -> bool:
    return bool(ask.etag or ask.last_modified)
