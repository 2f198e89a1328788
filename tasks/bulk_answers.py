"""What the end of a libcurl transfer means for the item that asked: pure, no handles.

The same words as `tasks.http_answers` gives `requests`, so a row reads alike whichever door fetched it.
Codes: https://curl.se/libcurl/c/libcurl-errors.html; texts as libcurl 8.23 says them.
"""

from __future__ import annotations

from collections.abc import Iterable

import pycurl

from tasks.errors import ConfigurationError, LandrecordsError, TerminalError, TransientError
from tasks.http_answers import error_of_cut, shown
from tasks.http_wire import Cut
from tasks.records import Reason

Trouble = tuple[int, str]
"""libcurl's error code and what it says of it."""

_LATER = "; it is tried again later"

_NAMES = {
    name.lower(): name
    for name in (
        "Content-Type",
        "Content-Length",
        "Content-Encoding",
        "Transfer-Encoding",
        "ETag",
        "Last-Modified",
        "Retry-After",
        "Date",
        "Location",
    )
}

_REFUSED = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_CACERT_BADFILE,
        pycurl.E_SSL_CONNECT_ERROR,
        pycurl.E_SSL_ENGINE_INITFAILED,
        pycurl.E_SSL_CIPHER,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_CRL_BADFILE,
        pycurl.E_SSL_INVALIDCERTSTATUS,
    }
)
_CUT_HANDSHAKE = ("unexpected eof", "recv failure", "send failure", "ssl_error_syscall", "bad record mac", "reset by")


def read_headers(lines: Iterable[bytes]) -> dict[str, str]:
    """The headers a door looks at, under their usual names, of the last answer in `lines` as received.

    Earlier blocks (103 Early Hints, a proxy's own) are dropped: each begins with a status line.
    """
    found: dict[str, str] = {}
    for line in b"".join(lines).decode("latin-1").split("\n"):
        raw, colon, value = line.partition(":")
        name = _NAMES.get(raw.lower())
        if name:
            found[name] = value.strip()
        elif not colon and raw.startswith("HTTP/"):
            found.clear()
    return found


def declared_bytes(headers: dict[str, str]) -> int | None:
    """Bytes of the body as declared; None when compressed on the way, chunked, or not said."""
    text = headers.get("Content-Length", "")
    if "Transfer-Encoding" in headers or encoding_of(headers) or not (text.isascii() and text.isdecimal()):
        return None
    return int(text)


def encoding_of(headers: dict[str, str]) -> str:
    """How the body is compressed on the way; empty when it is not."""
    encoding = headers.get("Content-Encoding")
    return "" if encoding is None or encoding.lower() == "identity" else encoding.lower()


def not_whole(status: int, url: str) -> LandrecordsError | None:
    """Successes that are not the item: 204 says nothing is kept there; 206, 202 ... may be whole later."""
    if status in (200, 203):
        return None
    if status in (204, 205):
        return TerminalError(Reason.NOT_FOUND, f"{shown(url)} answered {status}: nothing is kept there.")
    reason = Reason.TRUNCATED if status == 206 else Reason.HTTP_ERROR
    return TransientError(reason, f"{shown(url)} answered {status} instead of the whole item{_LATER}.")


def too_large(url: str, max_bytes: int) -> TerminalError:
    said = f"{shown(url)} is larger than {max_bytes} bytes"
    return TerminalError(Reason.TOO_LARGE, f"{said}; raise the limit if that is right.")


def error_of_trouble(trouble: Trouble, url: str, received_bytes: int, max_bytes: int) -> LandrecordsError:
    """Our error for a transfer that libcurl gave up, by its code."""
    code, said = trouble
    if code in _REFUSED and not any(word in said.lower() for word in _CUT_HANDSHAKE):
        return ConfigurationError(
            f"{shown(url)}: no secure connection ({_detail(trouble)}); check the address, or name the "
            "certificate authority's file in REQUESTS_CA_BUNDLE."
        )
    if code == pycurl.E_COULDNT_RESOLVE_PROXY:
        return ConfigurationError("The proxy address in http_proxy or https_proxy is unusable; correct it.")
    return _item_error(trouble, url, received_bytes, max_bytes)


def _item_error(trouble: Trouble, url: str, received_bytes: int, max_bytes: int) -> LandrecordsError:
    code, said = trouble
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return _error_of_timeout(said, url)
    if code == pycurl.E_FILESIZE_EXCEEDED:
        return too_large(url, max_bytes)
    if code == pycurl.E_URL_MALFORMAT:
        return TerminalError(Reason.BAD_ROW, f"{shown(url)} is not an address that can be asked; correct it.")
    if code == pycurl.E_PARTIAL_FILE:
        return TransientError(Reason.TRUNCATED, f"{shown(url)} ended after {received_bytes} bytes, too early{_LATER}.")
    return TransientError(Reason.CONNECTION, f"No conversation with {shown(url)} ({_detail(trouble)}){_LATER}.")


def _error_of_timeout(said: str, url: str) -> LandrecordsError:
    if "too slow" in said:
        return error_of_cut(Cut.TOO_SLOW, url)
    if said.startswith("Operation timed out"):
        return error_of_cut(Cut.TOO_LONG, url)
    return TransientError(Reason.TIMEOUT, f"{shown(url)} did not answer in time{_LATER}.")


def _detail(trouble: Trouble) -> str:
    code, said = trouble
    return (said.strip().rstrip(".") or f"libcurl error {code}")[:120]
