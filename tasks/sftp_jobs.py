"""The conversations about one file or one folder, as generators: requests out, replies in. No input or output.

A job yields the requests it can make at once and is sent their replies, in order. Nobody waits for a CLOSE: it has
no reply here, and the next file takes the place at once.
"""

from __future__ import annotations

import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from tasks import sftp_wire as wire
from tasks.errors import ItemError, LandrecordsError, TerminalError, TransientError
from tasks.records import Reason
from tasks.sftp_items import Ask, Entry, EntryKind, Limits, Listing, Needed, Read, quoted
from tasks.sftp_wire import Attributes, Code, Garbled, Kind, Reply, Request

T = TypeVar("T")

Steps: TypeAlias = Generator[list[Request], list[Reply], T]

READDIRS_AT_ONCE = 8
"""Each is answered with about 100 names, so a folder of 10,000 takes 13 round trips instead of 101."""

STATS_AT_ONCE = 64

PATH_MAX = 4096
"""Bytes; no Unix takes longer ones."""

MAX_ANSWERS = 10_000
"""More ranges than this, of no bytes at all, and a reader goes in circles."""


@dataclass(slots=True)
class Meter:
    """What a file cost so far."""

    bytes_read: int = 0
    reads: int = 0


def read_file(ask: Ask[Any, T], limits: Limits, meter: Meter, careful: bool) -> Steps[Read[Any, T]]:
    """Open, read what the reader needs, close.

    careful  look first whether it is a file: opening a pipe blocks OpenSSH's server for good, and everybody behind
             it. A listing has told already; this is for files that were in flight when a connection broke.
    Raises ItemError.
    """
    require_usable(ask.path)
    if careful:
        yield from _require_file(ask.path)
    try:
        value = yield from _open_and_read(ask, limits, meter)
    except TransientError:  # a bare FAILURE; it may mean that this is no file at all
        yield from _require_file(ask.path)
        raise
    return Read(ask.id, value, meter.bytes_read, meter.reads)


def list_folder(path: str) -> Steps[Listing]:
    """Every entry but `.` and `..`; of links, what they lead to. Raises ItemError."""
    require_usable(path)
    [reply] = yield [wire.open_folder(path)]
    if reply.kind != Kind.HANDLE:
        raise refusal(reply, path)
    handle = wire.string_of(reply)
    try:
        found = yield from _names(handle, path)
    except LandrecordsError:
        yield [wire.close(handle)]
        raise
    yield [wire.close(handle)]
    prefix = path.rstrip("/") + "/"
    unclear = [name for name, attributes in found.items() if _is_unclear(attributes)]
    targets = yield from _follow(prefix, unclear)
    return Listing(path, [_entry(prefix, name, found[name], targets.get(name)) for name in found])


def check_alive() -> Steps[None]:
    """One round trip."""
    yield [wire.real_path(".")]


def require_usable(path: str) -> None:
    """OpenSSH's server ends the whole session at a NUL or at megabytes of name. Raises TerminalError."""
    try:
        raw = wire.encoded(path)
    except UnicodeEncodeError:
        raw = b""
    if not raw or b"\0" in raw or len(raw) > PATH_MAX:
        raise TerminalError(Reason.NOT_FOUND, f"{quoted(path)} cannot be the path of a file; correct the row.")


def refusal(reply: Reply, path: str) -> ItemError:
    """What a reply that is not the one hoped for means for an item."""
    code = wire.status_of(reply)
    if code == Code.NO_SUCH_FILE:
        message = f"{quoted(path)} is not there, or is a link that leads nowhere; list its folder again."
        return TerminalError(Reason.NOT_FOUND, message)
    if code == Code.PERMISSION_DENIED:
        message = f"The server does not let this user read {quoted(path)}; grant the permission there."
        return TerminalError(Reason.PERMISSION_DENIED, message)
    said = wire.text_of(reply) or f"code {code}"
    if code in (Code.BAD_MESSAGE, Code.OP_UNSUPPORTED):
        message = f"The server cannot do what is asked of {quoted(path)} ({said}); correct the row."
        return TerminalError(Reason.SFTP_ERROR, message)
    return TransientError(Reason.SFTP_ERROR, f"The server could not read {quoted(path)} ({said}); it is tried again.")


def _open_and_read(ask: Ask[Any, T], limits: Limits, meter: Meter) -> Steps[T]:
    [reply] = yield [wire.open_file(ask.path)]
    if reply.kind != Kind.HANDLE:
        raise refusal(reply, ask.path)
    handle = wire.string_of(reply)
    try:
        value = yield from _serve(ask, handle, limits, meter)
    except LandrecordsError:
        yield [wire.close(handle)]
        raise
    yield [wire.close(handle)]
    return value


def _serve(ask: Ask[Any, T], handle: bytes, limits: Limits, meter: Meter) -> Steps[T]:
    """Feed the reader until it returns."""
    reader = _begun(ask)
    data: bytes | None = None
    for _ in range(MAX_ANSWERS):
        try:
            needed = next(reader) if data is None else reader.send(data)
        except StopIteration as done:
            value: T = done.value
            return value
        except Exception as exc:  # whatever a reader's mistake is, it is one file's failure
            raise _mistake(ask, type(exc).__name__) from exc
        if not 0 <= needed.offset < 2**63 or needed.length < 0:
            raise _mistake(ask, f"{needed.length} bytes at {needed.offset}")
        data = yield from _range(ask.path, handle, needed, limits, meter)
    raise _mistake(ask, "it goes in circles")


def _begun(ask: Ask[Any, T]) -> Generator[Needed, bytes, T]:
    try:
        return ask.reader()
    except Exception as exc:  # as in _serve
        raise _mistake(ask, type(exc).__name__) from exc


def _mistake(ask: Ask[Any, Any], what: str) -> TerminalError:
    return TerminalError(Reason.INTERNAL, f"The reader of {quoted(ask.path)} failed ({what}); report this file.")


def _range(path: str, handle: bytes, needed: Needed, limits: Limits, meter: Meter) -> Steps[bytes]:
    """The bytes of a range, in as few round trips as the server allows; fewer where the file ends."""
    offset, left, parts = needed.offset, needed.length, list[bytes]()
    while left > 0:
        cuts = range(0, left, wire.READ_BYTES)
        meter.reads += len(cuts)
        if meter.bytes_read + left > limits.max_bytes or meter.reads > limits.max_reads:
            most = f"{limits.max_bytes:,} bytes and {limits.max_reads} reads are not enough for {quoted(path)}"
            raise TerminalError(Reason.TOO_LARGE, f"{most}; raise the limits if it should be read all the same.")
        replies = yield [wire.read_file(handle, offset + at, min(wire.READ_BYTES, left - at)) for at in cuts]
        came = b"".join(_in_one_piece(replies, path, left, meter))
        if not came:
            break
        parts.append(came)
        offset, left = offset + len(came), left - len(came)
    return b"".join(parts)


def _in_one_piece(replies: list[Reply], path: str, wanted: int, meter: Meter) -> Iterator[bytes]:
    """Up to the first READ that was answered with less than it asked for; what is behind that is asked again."""
    for reply in replies:
        if reply.kind == Kind.DATA:
            data = wire.string_of(reply)
        elif wire.status_of(reply) == Code.EOF:
            data = b""
        else:
            raise refusal(reply, path)
        expected = min(wire.READ_BYTES, wanted)
        if len(data) > expected:
            raise Garbled("more bytes than were asked for")
        meter.bytes_read += len(data)
        yield data
        if len(data) < expected:
            return
        wanted -= expected


def _require_file(path: str) -> Steps[None]:
    [reply] = yield [wire.attributes_of(path)]
    if reply.kind != Kind.ATTRS:
        raise refusal(reply, path)
    if not wire.attributes_in(reply).is_file:
        what = "folder" if wire.attributes_in(reply).is_folder else "pipe, socket or device"
        raise TerminalError(Reason.WRONG_TYPE, f"{quoted(path)} is no file but a {what}; leave it out.")


def _names(handle: bytes, path: str) -> Steps[dict[str, Attributes]]:
    """Read a folder to its end. A round that brings nothing new is the end, too."""
    found: dict[str, Attributes] = {}
    at_once, known = 2, -1  # names and the end: all there is to most folders
    while len(found) > known:
        known = len(found)
        for reply in (yield [wire.read_folder(handle)] * at_once):
            if wire.status_of(reply) == Code.EOF:
                known = len(found)
                break
            if reply.kind != Kind.NAME:
                raise refusal(reply, path)
            found.update(wire.names_in(reply))
        at_once = READDIRS_AT_ONCE
    found.pop(".", None)
    found.pop("..", None)
    return found


def _is_unclear(attributes: Attributes) -> bool:
    return attributes.mode is None or stat.S_ISLNK(attributes.mode) or attributes.size is None


def _follow(prefix: str, names: list[str]) -> Steps[dict[str, Attributes]]:
    """What links lead to, of those that lead anywhere."""
    targets: dict[str, Attributes] = {}
    for start in range(0, len(names), STATS_AT_ONCE):
        some = names[start : start + STATS_AT_ONCE]
        replies = yield [wire.attributes_of(prefix + name) for name in some]
        targets |= {n: wire.attributes_in(r) for n, r in zip(some, replies, strict=True) if r.kind == Kind.ATTRS}
    return targets


def _entry(prefix: str, name: str, own: Attributes, target: Attributes | None) -> Entry:
    shown = target or own
    kind = EntryKind.FILE if shown.is_file else EntryKind.FOLDER if shown.is_folder else EntryKind.OTHER
    is_link = own.mode is not None and stat.S_ISLNK(own.mode)
    return Entry(prefix + name, name, kind, shown.size or 0, shown.mtime or 0, is_link)
