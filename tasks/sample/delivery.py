"""Puts an answer on the wire, rightly or wrongly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from email.utils import formatdate
from http import HTTPStatus
from math import ceil
from time import time

from tasks.sample.answers import Answer
from tasks.sample.faults import Fault, FaultKind
from tasks.sample.markup import error_page
from tasks.sample.witness import RequestRecord

CHUNK_BYTES = 16 * 1024
PHRASES = {int(status): status.phrase for status in HTTPStatus}

_BODILESS = (204, 304)
"""Have neither body nor length (RFC 9110, 8.6)."""

_REFUSALS = {
    FaultKind.TOO_MANY: (429, "Too many requests"),
    FaultKind.UNAVAILABLE: (503, "Service unavailable"),
    FaultKind.SERVER_ERROR: (500, "Internal server error"),
}


def refusal(fault: Fault) -> Answer | None:
    """The answer of a fault that is a status of its own; None for the others."""
    if fault.kind not in _REFUSALS:
        return None
    status, title = _REFUSALS[fault.kind]
    answer = Answer(status, error_page(title, "Please try again later.").encode())
    if fault.retry_after_s is not None:
        # A date has whole seconds; rounded up, so that who obeys it is never early.
        date = formatdate(ceil(time() + fault.retry_after_s), usegmt=True)
        in_seconds = f"{fault.retry_after_s:g}"
        answer.headers["Retry-After"] = date if fault.retry_after_as == "date" else in_seconds
    return answer


async def deliver(
    writer: asyncio.StreamWriter, answer: Answer, record: RequestRecord, *, keep: bool, with_body: bool = True
) -> bool:
    """Send the answer as HTTP wants it. Returns whether the connection stays open."""
    head = _head(answer, None if answer.status in _BODILESS else str(len(answer.body)), keep=keep)
    body = answer.body if with_body else b""
    record.status, record.sent = answer.status, len(body)
    writer.write(head + body)
    await writer.drain()
    return keep


async def misdeliver(writer: asyncio.StreamWriter, answer: Answer, fault: Fault, record: RequestRecord) -> None:
    """Send the answer the way the fault has it. The connection is of no use afterwards."""
    cut = answer.body[: max(1, int(len(answer.body) * fault.cut_at))]
    record.status, record.sent = answer.status, len(cut)
    match fault.kind:
        case FaultKind.WRONG_LENGTH:
            record.sent = len(answer.body)
            await _send(writer, _head(answer, str(len(cut)), keep=True), answer.body)
        case FaultKind.CHUNKED_CUT:
            chunks = (cut[at : at + CHUNK_BYTES] for at in range(0, len(cut), CHUNK_BYTES))
            body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
            await _send(writer, _head(answer, None, keep=True, chunked=True), body)
        case FaultKind.UNBOUNDED_CUT:
            await _send(writer, _head(answer, None, keep=False), cut)
        case _:  # TRUNCATED, RESET_MIDWAY, STALL_MIDWAY: all promise the whole document
            await _send(writer, _head(answer, str(len(answer.body)), keep=True), cut)


async def hold(reader: asyncio.StreamReader, seconds: float) -> None:
    """Say nothing for a while, or until the client gives up."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(seconds):
            await reader.read(1)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: the client sees "connection reset by peer", not an orderly end."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() != -1:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    writer.write(head + body)
    await writer.drain()


def _head(answer: Answer, length: str | None, *, keep: bool, chunked: bool = False) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {PHRASES.get(answer.status, 'Unknown')}",
        "Server: sample-portal",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {answer.media_type}",
        f"Connection: {'keep-alive' if keep else 'close'}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
