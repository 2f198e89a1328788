"""The packets of SFTP and the conversations made of them: whatever a server says, nothing worse than our own errors."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Generator
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks import sftp_wire as wire
from tasks.errors import ItemError, TransientError
from tasks.sftp_items import Ask, EntryKind, Limits
from tasks.sftp_jobs import Meter, list_folder, read_file
from tasks.sftp_wire import Attributes, Code, Garbled, Kind, Packets, Reply


class NeedMore(NamedTuple):
    offset: int
    length: int


def text(raw: bytes) -> bytes:
    return struct.pack(">I", len(raw)) + raw


def packet(kind: int, number: int, body: bytes) -> bytes:
    return struct.pack(">IBI", len(body) + 5, kind, number) + body


def status(code: int, words: bytes = b"") -> Reply:
    return Reply(Kind.STATUS, 1, struct.pack(">I", code) + text(words) + text(b"en"))


def name(raw: bytes, mode: int) -> bytes:
    return text(raw) + text(b"-rw-r--r-- long name") + struct.pack(">IQIIIII", 0xD | 0x2, 5, 0, 0, mode, 1, 2)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300))), st.data())
def test_packets_are_found_however_they_are_cut(sent: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    stream, packets, found = b"".join(packet(*each) for each in sent), Packets(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += packets.feed(stream[:cut])
        stream = stream[cut:]
    assert found == sent


@pytest.mark.parametrize("raw", [b"Welcome to the survey server\r\n", struct.pack(">IBI", 4, 101, 0), b"\xff" * 20])
def test_what_is_no_packet(raw: bytes) -> None:
    with pytest.raises(Garbled):
        list(Packets().feed(raw))


def test_requests_are_as_the_draft_has_them() -> None:
    assert wire.greeting() == bytes.fromhex("00000005 01 00000003")
    opened = wire.open_file("/a\udcff").numbered(7)
    assert opened == bytes.fromhex("00000014 03 00000007 00000003 2f61ff 00000001 00000000")
    assert wire.read_file(b"h", 2**40, 4096).numbered(8) == bytes.fromhex(
        "00000016 05 00000008 00000001 68 0000010000000000 00001000"
    )
    assert wire.close(b"h").numbered(9) == bytes.fromhex("0000000a 04 00000009 00000001 68")


def test_attributes_that_are_all_there_and_none() -> None:
    extended = struct.pack(">I", 1) + text(b"a@b") + text(b"c")
    all_of_them = struct.pack(">IQIIIII", 0x8000000F, 2**33, 1, 1, 0o100644, 5, 1_700_000_000) + extended
    assert wire.attributes_in(Reply(Kind.ATTRS, 1, all_of_them)) == Attributes(2**33, 0o100644, 1_700_000_000)
    assert wire.attributes_in(Reply(Kind.ATTRS, 1, bytes(4))) == Attributes(None, None, None)


@given(st.binary(max_size=200))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for kind in (Kind.STATUS, Kind.HANDLE, Kind.DATA, Kind.NAME, Kind.ATTRS):
        for read in (
            wire.status_of,
            wire.text_of,
            wire.string_of,
            wire.attributes_in,
            lambda r: list(wire.names_in(r)),
        ):
            with contextlib.suppress(Garbled):
                read(Reply(kind, 1, body))


def head() -> Generator[NeedMore, bytes, bytes]:
    return (yield NeedMore(0, 100_000))


REPLIES = st.builds(
    Reply,
    st.sampled_from([Kind.STATUS, Kind.HANDLE, Kind.DATA, Kind.NAME, Kind.ATTRS, 0, 255]),
    st.just(1),
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=40).map(text),
        st.integers(0, 9).map(lambda code: struct.pack(">I", code) + text(b"words") + text(b"")),
        st.lists(st.tuples(st.binary(max_size=5), st.sampled_from([0o40755, 0o100644, 0o120777])), max_size=4).map(
            lambda names: struct.pack(">I", len(names)) + b"".join(name(raw, mode) for raw, mode in names)
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
@example(data=None, careful=False)
def test_a_conversation_ends_whatever_the_server_says(data: st.DataObject | None, careful: bool) -> None:
    for steps in (
        read_file(Ask(1, "/a", head), Limits(200_000, 20), Meter(), careful),
        list_folder("/a"),
    ):
        replies: list[Reply] | None = None
        with contextlib.suppress(ItemError, Garbled, StopIteration):
            for _ in range(200):
                requests = steps.send(replies)  # type: ignore[arg-type]
                awaited = sum(1 for request in requests if request.kind != Kind.CLOSE)
                replies = [status(4) if data is None else data.draw(REPLIES) for _ in range(awaited)]
            raise AssertionError("it goes on for ever")


def run(steps: Generator[Any, Any, Any], *answers: list[Reply]) -> Any:
    """The result of a conversation in which the server says this."""
    given_ = iter(answers)
    requests = next(steps)
    while True:
        try:
            requests = steps.send([] if requests[0].kind == Kind.CLOSE else next(given_))
        except StopIteration as done:
            return done.value


HANDLE = [Reply(Kind.HANDLE, 1, text(b"h"))]


def test_a_server_that_sends_less_than_was_asked() -> None:
    """Allowed by the draft; what it sent behind the gap is asked for again."""
    answers = [
        [Reply(Kind.DATA, 1, text(b"a" * 30_000)), *[Reply(Kind.DATA, 1, text(b"?" * 32_768))] * 3],
        [Reply(Kind.DATA, 1, text(b"b" * 32_768)), Reply(Kind.DATA, 1, text(b"c" * 10)), status(1)],
        [status(1), status(1)],
    ]
    read = run(read_file(Ask(1, "/a", head), Limits(), Meter(), False), HANDLE, *answers)
    assert read.value == b"a" * 30_000 + b"b" * 32_768 + b"c" * 10
    assert read.bytes_read == 30_000 + 32_768 + 10


def test_a_listing_without_modes_is_completed_by_asking() -> None:
    bare = text(b"x") + text(b"") + bytes(4)
    names = Reply(Kind.NAME, 1, struct.pack(">I", 1) + bare)
    attributes = Reply(Kind.ATTRS, 1, struct.pack(">IQIII", 0xD, 9, 0o40755, 1, 2))
    listing = run(list_folder("/a/"), HANDLE, [names, status(1)], [attributes])
    assert listing.entries == [("/a/x", "x", EntryKind.FOLDER, 9, 2, False)]


def test_a_large_folder_is_read_many_packets_at_a_time() -> None:
    steps, asked, serial = list_folder("/a"), [], 0
    next(steps)
    replies = HANDLE
    while sum(asked) < 100:
        requests = steps.send(replies)
        asked.append(len(requests))
        bodies = [name(b"%d" % (serial := serial + 1), 0o100644) for _ in requests]
        replies = [Reply(Kind.NAME, 1, struct.pack(">I", 1) + body) for body in bodies]
    assert asked[:3] == [2, 8, 8]
    steps.close()


def test_a_listing_that_never_ends_is_ended() -> None:
    names = Reply(Kind.NAME, 1, struct.pack(">I", 1) + name(b"x", 0o100644))
    assert len(run(list_folder("/a"), HANDLE, [names] * 2, [names] * 8).entries) == 1


def test_a_listing_that_fails_half_way_is_no_listing() -> None:
    names = Reply(Kind.NAME, 1, struct.pack(">I", 1) + name(b"x", 0o100644))
    with pytest.raises(TransientError, match="disk on fire"):
        run(list_folder("/a"), HANDLE, [names, status(Code.FAILURE, b"disk\non fire".replace(b"\n", b" "))])
