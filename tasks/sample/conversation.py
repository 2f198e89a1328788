"""One connection to the sample portal: requests in, answers out, until a fault or the client ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tasks.sample.answers import Answer, Request, Target, parse_request
from tasks.sample.delivery import deliver, hold, misdeliver, refusal, reset
from tasks.sample.fault_policy import FaultPolicy
from tasks.sample.faults import Fault, FaultKind
from tasks.sample.witness import RequestRecord, Witness

MAX_FORM_BYTES = 1024 * 1024
IDLE_S = 75.0
"""A connection without a request is closed after this, as Apache and nginx do."""

CONTROL = "/__"
"""Paths that steer the portal itself: no fault hits them and the log does not name them."""

_RATE_EXCEEDED = Fault(kind=FaultKind.TOO_MANY, lasts_s=1, retry_after_s=1)
_CUT = {
    FaultKind.TRUNCATED,
    FaultKind.WRONG_LENGTH,
    FaultKind.CHUNKED_CUT,
    FaultKind.UNBOUNDED_CUT,
    FaultKind.RESET_MIDWAY,
    FaultKind.STALL_MIDWAY,
}
_GIVEN_UP = (
    asyncio.IncompleteReadError,
    asyncio.LimitOverrunError,
    ConnectionError,
    TimeoutError,
    ValueError,
)
"""The client left, was idle or sent no HTTP: nothing to say to it."""


class AnyOffice(Protocol):
    """Who answers: finds at once what a request is after, then answers it.

    takes_long   answers with a file are worked out in a thread, beside the event loop
    """

    takes_long: bool

    def find(self, request: Request) -> Target: ...
    def answer(self, request: Request, target: Target, fault: FaultKind | None) -> Answer: ...


@dataclass
class Desk:
    """What all conversations share.

    latency_s   added to every answer, whatever the faults
    control     answers the control paths: path and body to an answer
    """

    office: AnyOffice
    witness: Witness
    policy: FaultPolicy
    pool: ThreadPoolExecutor
    latency_s: float
    control: Callable[[str, bytes], Answer]


class _Head(NamedTuple):
    method: str
    target: str
    length: int
    keep: bool
    headers: Mapping[str, str]


@dataclass
class Conversation:
    """A connection being served."""

    desk: Desk
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def run(self) -> None:
        """Answer requests until the connection is of no more use."""
        try:
            while await self._exchange():
                pass
        except _GIVEN_UP:
            pass

    async def _exchange(self) -> bool:
        """One request and its answer. Returns whether another may follow."""
        async with asyncio.timeout(IDLE_S):
            head = _parse_head(await self.reader.readuntil(b"\r\n\r\n"))
            form = await self.reader.readexactly(head.length) if head.length else b""
        if head.target.startswith(CONTROL):
            answer = self.desk.control(head.target, form)
            return await deliver(self.writer, answer, RequestRecord(0, 0, "", ""), keep=head.keep)
        record = self.desk.witness.begin(head.method, head.target)
        try:
            return await self._respond(head, parse_request(head.method, head.target, form, head.headers), record)
        finally:
            self.desk.witness.finish(record)

    async def _respond(self, head: _Head, request: Request, record: RequestRecord) -> bool:
        target = self.desk.office.find(request)
        record.document = target.document
        fault = self._decide(target)
        record.fault = str(fault.kind) if fault else None
        await self._wait(fault)
        if fault and fault.kind in (FaultKind.RESET, FaultKind.STALL):
            return await self._say_nothing(fault)
        answer = (refusal(fault) if fault else None) or await self._answer(request, target, fault)
        if fault and fault.kind in _CUT:
            return await self._break_off(answer, fault, record)
        return await deliver(self.writer, answer, record, keep=head.keep, with_body=head.method != "HEAD")

    def _decide(self, target: Target) -> Fault | None:
        if self.desk.policy.over_rate():
            return _RATE_EXCEEDED
        return self.desk.policy.decide(target.on, target.document)

    async def _wait(self, fault: Fault | None) -> None:
        delay_s = self.desk.latency_s + self.desk.policy.latency_s()
        if fault and fault.kind is FaultKind.SLOW:
            delay_s += fault.seconds
        if delay_s:
            await asyncio.sleep(delay_s)

    async def _say_nothing(self, fault: Fault) -> bool:
        if fault.kind is FaultKind.RESET:
            reset(self.writer)
        else:
            await hold(self.reader, fault.seconds)
        return False

    async def _answer(self, request: Request, target: Target, fault: Fault | None) -> Answer:
        kind = fault.kind if fault else None
        if target.on != "file" or not self.desk.office.takes_long:
            return self.desk.office.answer(request, target, kind)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.desk.pool, self.desk.office.answer, request, target, kind)

    async def _break_off(self, answer: Answer, fault: Fault, record: RequestRecord) -> bool:
        await misdeliver(self.writer, answer, fault, record)
        if fault.kind is FaultKind.STALL_MIDWAY:
            await hold(self.reader, fault.seconds)
        if fault.kind is FaultKind.RESET_MIDWAY:
            await asyncio.sleep(0.05)  # a reset overtakes data that still waits to be sent
            reset(self.writer)
        return False


def _parse_head(raw: bytes) -> _Head:
    """Request line and headers. Raises ValueError for what is no HTTP/1.x request."""
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if not version.startswith("HTTP/1.") or not 0 <= length <= MAX_FORM_BYTES:
        raise ValueError("no HTTP/1.x request, or one with a body beyond reason")
    wish = headers.get("connection", "").lower()
    keep = wish == "keep-alive" if version == "HTTP/1.0" else wish != "close"
    return _Head(method, target, length, keep, headers)
