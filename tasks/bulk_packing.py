"""Bodies that are compressed on the way: unpacked in memory, whole or not at all. Pure."""

from __future__ import annotations

import zlib

from tasks.bulk_answers import too_large
from tasks.errors import TerminalError, TransientError
from tasks.http_answers import shown
from tasks.records import Reason

ASKED_FOR = "gzip, deflate"
"""Not Brotli: nothing here could tell whether its end is there."""


def unpack(body: bytes, encoding: str, max_bytes: int, url: str) -> bytes:
    """`body` without its compression on the way, which must be whole: libcurl itself takes half a gzip for
    all of it when the length is right. Raises TransientError(truncated) or TerminalError(too_large, http_error).
    """
    if encoding not in ("gzip", "x-gzip", "deflate"):
        said = f"{shown(url)} came compressed as {encoding!r}, which was not asked for"
        raise TerminalError(Reason.HTTP_ERROR, f"{said}; check what stands before the server.")
    try:
        return _inflate(body, -15 if encoding == "deflate" and not _is_zlib(body) else 47, max_bytes)
    except OverflowError:
        raise too_large(url, max_bytes) from None
    except (zlib.error, EOFError):
        raise TransientError(
            Reason.TRUNCATED, f"{shown(url)} came badly compressed; it is tried again later."
        ) from None


def _is_zlib(body: bytes) -> bool:
    """What RFC 9110 8.4.1.2 calls deflate has this head; some servers send the bare stream instead."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0


def _inflate(body: bytes, window_bits: int, max_bytes: int) -> bytes:
    """A gzip file may have several members, one after the other (RFC 1952 2.2)."""
    parts, size = [], 0
    while body:
        unpacker = zlib.decompressobj(window_bits)
        try:
            parts.append(unpacker.decompress(body, max_bytes - size + 1))
        except zlib.error:
            if parts:  # junk behind a whole member is passed over, as browsers and urllib3 do
                break
            raise
        size += len(parts[-1])
        if size > max_bytes:
            raise OverflowError
        if not unpacker.eof:
            raise EOFError
        body = unpacker.unused_data
    return b"".join(parts)
