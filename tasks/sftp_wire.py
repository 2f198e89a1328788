"""The SFTP protocol as far as listing and reading go: packets out, packets in. No input or output of its own.

Version 3, which every server speaks: https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02.
File names are bytes on the wire and text here; bytes that are no UTF-8 survive both ways (surrogateescape).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

VERSION = 3
READ_BYTES = 32 * 1024
"""The most that one READ may carry on every server (section 3 of the draft)."""

_MAX_PACKET = 256 * 1024 + 1024  # OpenSSH's SFTP_MAX_MSG_LENGTH, and some
_HEAD = struct.Struct(">IBI")
_U32 = struct.Struct(">I")
_READ_ONLY = struct.pack(">II", 0x1, 0)  # SSH_FXF_READ, no attributes


class Kind(IntEnum):
    """Types of packets (section 3)."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    OPENDIR = 11
    READDIR = 12
    REALPATH = 16
    STAT = 17
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105


class Code(IntEnum):
    """Codes of a STATUS (section 7). OpenSSH says NO_SUCH_FILE of a link that leads in circles, too."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    OP_UNSUPPORTED = 8


class Garbled(Exception):
    """What came is not SFTP; nothing that follows can be understood."""


class Request(NamedTuple):
    """A packet to be, before it has its number."""

    kind: Kind
    body: bytes

    def numbered(self, number: int) -> bytes:
        """The packet. number: under which the answer will come."""
        return _HEAD.pack(len(self.body) + 5, self.kind, number) + self.body


class Reply(NamedTuple):
    """A packet that came. number: of the request that it answers (of a VERSION packet: the version)."""

    kind: int
    number: int
    body: bytes


class Attributes(NamedTuple):
    """What a server tells of a file: bytes, mode as of stat(2), seconds since 1970. None: not told."""

    size: int | None
    mode: int | None
    mtime: int | None

    @property
    def is_file(self) -> bool:
        return self.mode is not None and stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return self.mode is not None and stat.S_ISDIR(self.mode)


def greeting() -> bytes:
    """The first packet of a conversation."""
    return struct.pack(">IBI", 5, Kind.INIT, VERSION)


def open_file(path: str) -> Request:
    return Request(Kind.OPEN, _string(encoded(path)) + _READ_ONLY)


def open_folder(path: str) -> Request:
    return Request(Kind.OPENDIR, _string(encoded(path)))


def attributes_of(path: str) -> Request:
    """Links are followed."""
    return Request(Kind.STAT, _string(encoded(path)))


def real_path(path: str) -> Request:
    return Request(Kind.REALPATH, _string(encoded(path)))


def read_file(handle: bytes, offset: int, length: int) -> Request:
    return Request(Kind.READ, _string(handle) + struct.pack(">QI", offset, length))


def read_folder(handle: bytes) -> Request:
    return Request(Kind.READDIR, _string(handle))


def close(handle: bytes) -> Request:
    return Request(Kind.CLOSE, _string(handle))


def encoded(path: str) -> bytes:
    """The bytes of a path on the server."""
    return path.encode("utf-8", "surrogateescape")


class Packets:
    """Cuts what arrives into packets. Raises Garbled where it is not SFTP."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The packets that `data` completes."""
        self._held += data
        held, at = self._held, 0
        while len(held) - at >= 9:
            length, kind, number = _HEAD.unpack_from(held, at)
            if not 5 <= length <= _MAX_PACKET:
                raise Garbled(f"a packet of {length} bytes")
            if len(held) - at < 4 + length:
                break
            yield Reply(kind, number, bytes(held[at + 9 : at + 4 + length]))
            at += 4 + length
        del held[:at]


def status_of(reply: Reply) -> int | None:
    """The code of a STATUS; None for any other packet."""
    return _u32(reply.body, 0) if reply.kind == Kind.STATUS else None


def text_of(reply: Reply) -> str:
    """What a STATUS says in words, printable; early servers say nothing."""
    raw = _take(reply.body, 4)[0] if len(reply.body) >= 8 else b""
    return "".join(c for c in raw.decode("utf-8", "replace")[:200] if c.isprintable())


def string_of(reply: Reply) -> bytes:
    """The handle of a HANDLE or the bytes of a DATA packet."""
    return _take(reply.body, 0)[0]


def attributes_in(reply: Reply) -> Attributes:
    """Of an ATTRS packet."""
    return _attributes(reply.body, 0)[0]


def names_in(reply: Reply) -> Iterator[tuple[str, Attributes]]:
    """Names and attributes of a NAME packet; links are not followed. Raises Garbled."""
    at = 4
    for _ in range(_u32(reply.body, 0)):
        name, at = _take(reply.body, at)
        _long_name, at = _take(reply.body, at)
        attributes, at = _attributes(reply.body, at)
        yield name.decode("utf-8", "surrogateescape"), attributes


def _attributes(body: bytes, at: int) -> tuple[Attributes, int]:
    """Section 5: a word of flags says which fields follow."""
    flags, at = _u32(body, at), at + 4
    size = mode = mtime = None
    if flags & 0x1:
        size, at = _u32(body, at) << 32 | _u32(body, at + 4), at + 8
    if flags & 0x2:  # user and group
        at += 8
    if flags & 0x4:
        mode, at = _u32(body, at), at + 4
    if flags & 0x8:
        mtime, at = _u32(body, at + 4), at + 8  # the time of access is before it
    if flags & 0x80000000:
        extended, at = _u32(body, at), at + 4
        for _ in range(2 * extended):
            _, at = _take(body, at)
    return Attributes(size, mode, mtime), at


def _string(raw: bytes) -> bytes:
    return _U32.pack(len(raw)) + raw


def _take(body: bytes, at: int) -> tuple[bytes, int]:
    end = at + 4 + _u32(body, at)
    if end > len(body):
        raise Garbled("a string that is longer than its packet")
    return body[at + 4 : end], end


def _u32(body: bytes, at: int) -> int:
    try:
        number: int = _U32.unpack_from(body, at)[0]
    except struct.error:
        raise Garbled("a packet that ends too early") from None
    return number
