"""What an HTTP answer, or the lack of one, means for the item that asked: pure, no sockets.

Sources: RFC 9110 (status codes, 10.2.3 Retry-After); `requests` and `urllib3` for the exceptions mapped here.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, parse_qsl, quote, quote_plus, urlencode, urlsplit

import requests
import urllib3

from tasks.errors import (
    ConfigurationError,
    ItemError,
    LandrecordsError,
    RateLimited,
    StopRequested,
    TerminalError,
    TransientError,
)
from tasks.http_wire import Cut
from tasks.records import Reason

MAX_RETRY_AFTER_S = 3600.0
"""A server may ask for a day; the run asks again after an hour at the latest."""

FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
"""Everything `requests` and what lies under it raises for the network's sake."""

_SECRET_NAME = re.compile(r"token|key|secret|passw|signature|^sig$|auth|credential|sess", re.IGNORECASE)
_SHOWN_CHARACTERS = 200


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from a number of seconds or an HTTP date: 0 when past, at most an hour; None: unclear.

    `now` is timezone-aware; pass the answer's own Date where there is one, so that clocks need not agree.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), MAX_RETRY_AFTER_S)
    at = parse_http_date(text)
    if at is None:
        return None
    return min(max((at - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def parse_http_date(value: str | None) -> datetime | None:
    """A timezone-aware time from any of the three date forms of RFC 9110 5.6.7, else None."""
    try:
        at = parsedate_to_datetime(value or "")
    except (ValueError, TypeError, IndexError, OverflowError):  # IndexError: bpo-30681's relatives
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def shown(url: str) -> str:
    """The URL as messages may show it: no user, no password, no secret query values, not endless."""
    try:
        parts = urlsplit(url)
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2], query=_shown_query(parts), fragment="")
    except ValueError:
        return "(an address that cannot be read)"
    text = parts.geturl()
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """The text with *** for each secret, as it stands and as addresses write it, also where `shown` cut it off."""
    forms = {form for secret in secrets for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
        for length in range(len(form) - 1, 3, -1):
            text = text.replace(form[:length] + "...", "***...")
    return text


def _shown_query(parts: SplitResult) -> str:
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if not any(_SECRET_NAME.search(name) for name, _ in pairs):
        return parts.query
    return urlencode([(n, "***" if _SECRET_NAME.search(n) else value) for n, value in pairs], safe="*")


def error_of_status(
    status: int, headers: Mapping[str, str], url: str, now: datetime, patience_s: float
) -> LandrecordsError | None:
    """What a status says of the item; None for 200 to 299. `patience_s` is for a 429 that names no time."""
    if 200 <= status < 300:
        return None
    wait_s = parse_retry_after(headers.get("Retry-After"), parse_http_date(headers.get("Date")) or now)
    if status == 429 or (status == 503 and wait_s is not None):
        wait_s = wait_s or patience_s  # "0" would let every worker knock again at once
        return RateLimited(f"{shown(url)} answered {status}; every worker waits {wait_s:.0f} s.", wait_s)
    if status in (404, 410):
        return TerminalError(Reason.NOT_FOUND, f"{shown(url)} answered {status}: nothing is kept there.")
    if status in (401, 403):
        return TerminalError(
            Reason.HTTP_ERROR,
            f"{shown(url)} answered {status}: access refused; check the portal's credentials and terms.",
        )
    if status >= 500 or status in (408, 425) or status < 200:
        return TransientError(Reason.HTTP_ERROR, f"{shown(url)} answered {status}; it is tried again later.")
    return TerminalError(Reason.HTTP_ERROR, f"{shown(url)} answered {status}; check the address and the row.")


def error_of_cut(cut: Cut, url: str) -> LandrecordsError:
    """What it means that the watch ended the request."""
    if cut is Cut.STOPPED:
        return StopRequested("The run is stopping; the request under way was given up.")
    said = {
        Cut.NO_ANSWER: "sent no complete answer in time",
        Cut.TOO_SLOW: "sends too slowly",
        Cut.TOO_LONG: "took longer than a request may take in all",
    }[cut]
    return TransientError(Reason.TIMEOUT, f"{shown(url)} {said}; it is tried again later.")


def error_of_exception(exc: BaseException, cut: Cut | None, url: str) -> LandrecordsError:
    """Our error for one of FOREIGN. A cut socket raises many things; the cut is then the reason."""
    if cut is not None:
        return error_of_cut(cut, url)
    causes = list(_causes(exc))
    refused = next((c for c in causes if isinstance(c, ssl.SSLError) and _is_refusal(c)), None)
    if refused is not None:
        return ConfigurationError(
            f"{shown(url)}: no secure connection ({_detail(refused)}); check the address, or name the "
            "certificate authority's file in REQUESTS_CA_BUNDLE."
        )
    if any(isinstance(c, requests.exceptions.InvalidProxyURL) for c in causes):
        return ConfigurationError("The proxy address in HTTP_PROXY or HTTPS_PROXY is unusable; correct it.")
    short = next((c for c in causes if isinstance(c, http.client.IncompleteRead)), None)
    if short is not None:
        return TransientError(Reason.TRUNCATED, f"{shown(url)} {_how_short(short)}{_LATER}.")
    for kinds, error, reason, said in _MEANINGS:
        if any(isinstance(c, kinds) for c in causes):
            return error(reason, f"{shown(url)} {said}.")
    said = f"No conversation with {shown(url)} ({_detail(causes[-1])})"
    return TransientError(Reason.CONNECTION, f"{said}{_LATER}.")


def root_cause(exc: BaseException) -> BaseException:
    """The innermost exception: it says what happened and, unlike those around it, names no URL."""
    return list(_causes(exc))[-1]


_BAD_ADDRESS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    urllib3.exceptions.LocationValueError,
    http.client.InvalidURL,
)
_TOO_LATE = (TimeoutError,)  # not the libraries' own: urllib3 calls a refused connection a ConnectTimeoutError
_LATER = "; it is tried again later"

_MEANINGS: tuple[tuple[tuple[type[BaseException], ...], type[ItemError], Reason, str], ...] = (
    (_BAD_ADDRESS, TerminalError, Reason.BAD_ROW, "is not an address that can be asked; correct it"),
    (_TOO_LATE, TransientError, Reason.TIMEOUT, "did not answer in time" + _LATER),
    ((urllib3.exceptions.DecodeError,), TransientError, Reason.TRUNCATED, "came badly compressed" + _LATER),
)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The exception and what it wraps (in `reason`, `args` or `__cause__`), outermost first."""
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = [getattr(current, "reason", None), *current.args, current.__cause__]
        current = next((i for i in inner if isinstance(i, BaseException)), None)


def _is_refusal(exc: ssl.SSLError) -> bool:
    """A certificate or protocol that will not be accepted next time either, unlike a cut connection."""
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)):
        return False
    said = f"{exc.reason or ''} {exc}"
    return "UNEXPECTED_EOF" not in said and "BAD_RECORD_MAC" not in said


def _how_short(exc: http.client.IncompleteRead) -> str:
    received: object = exc.partial
    if isinstance(received, int) and exc.expected:  # urllib3 counts where http.client keeps the bytes
        return f"ended after {received} of {received + exc.expected} bytes"
    return "ended too early"


def _detail(exc: BaseException) -> str:
    text = str(getattr(exc, "verify_message", "") or getattr(exc, "strerror", "") or type(exc).__name__)
    return text.strip().rstrip(".")[:120]
