"""What is in hand of a file that is read by ranges, and what may still be asked for. Pure.

The parsers are generators: `data = yield from part.read(offset, length)` yields a `NeedMore` for each range
that is not in hand, and goes on when the caller has fetched it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

T = TypeVar("T")

MAX_ASK_BYTES = 32 * 1024
"""The most that one READ of SFTP may carry on every server (draft-ietf-secsh-filexfer-02, section 3)."""

AHEAD_BYTES = 2 * 1024
"""Least length of an ask: what is wanted next (values behind a directory, a packet behind its head) comes along."""


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The next range to fetch, in bytes of the file; never beyond its end, never longer than 32 KB."""

    offset: int
    length: int


Steps: TypeAlias = Generator[NeedMore, None, T]
"""A parser under way: yields the ranges it lacks, returns what it found."""


class Broken(Exception):
    """The file ends too early, or its structure contradicts itself."""


class OverBudget(Exception):
    """What is needed next would cost more bytes or more asks than one photo may."""


class Ranges:
    """The ranges of one file that are in hand, and the budget for more.

    size        bytes of the file; an empty answer corrects it
    bytes_read  what the caller has fed so far
    """

    def __init__(self, size: int, max_bytes: int, max_asks: int) -> None:
        self.size = max(0, size)
        self.bytes_read = 0
        self._max_bytes = max_bytes
        self._asks_left = max_asks
        self._pieces: list[tuple[int, bytes]] = []  # they never touch one another

    @classmethod
    def of(cls, data: bytes) -> Ranges:
        """Bytes that are all in hand, such as an inflated profile."""
        whole = cls(len(data), len(data), 0)
        whole.add(0, data)
        return whole

    def add(self, offset: int, data: bytes) -> None:
        """Take in bytes at `offset`: fewer than asked are kept, none at all mean that the file ends there."""
        if not data:
            self.size = max(0, min(self.size, offset))
            return
        start, joined = offset, data[: self._room]
        self.bytes_read += len(joined)
        end, apart = start + len(joined), []
        for at, held in self._pieces:
            if at + len(held) < start or at > end:
                apart.append((at, held))
            else:
                before, after = held[: max(0, start - at)], held[max(0, end - at) :]
                joined = before + joined + after
                start, end = start - len(before), end + len(after)
        self._pieces = [*apart, (start, joined)]

    def close(self) -> None:
        """From here on only what is in hand is read."""
        self._asks_left = 0

    def read(self, offset: int, length: int, ahead: int = AHEAD_BYTES) -> Steps[bytes]:
        """Exactly `length` bytes at `offset`.

        ahead  bytes to ask for, at least, when something is missing
        Raises Broken where the file ends before, OverBudget where asking would cost too much.
        """
        while length:
            if offset + length > self.size:
                raise Broken(f"{length} bytes at {offset} lie beyond the end of the file")
            for at, held in self._pieces:
                if at <= offset and offset + length <= at + len(held):
                    return held[offset - at : offset - at + length]
            yield self._ask(offset, offset + length, ahead)
        return b""

    @property
    def _room(self) -> int:
        return max(0, self._max_bytes - self.bytes_read)

    def _ask(self, offset: int, end: int, ahead: int) -> NeedMore:
        start = next((at + len(held) for at, held in self._pieces if at <= offset < at + len(held)), offset)
        if not self._asks_left or end - start > self._room:
            raise OverBudget
        self._asks_left -= 1
        return NeedMore(start, min(max(end - start, ahead), self._room, self.size - start, MAX_ASK_BYTES))


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a file, such as an Exif block, a packet or a box. Offsets are the part's own."""

    file: Ranges
    start: int
    length: int

    def read(self, offset: int, length: int, ahead: int = AHEAD_BYTES) -> Steps[bytes]:
        """As `Ranges.read`; Broken also where the part ends before."""
        if offset + length > self.length:
            raise Broken(f"{length} bytes at {offset} lie beyond the end of their part of the file")
        return self.file.read(self.start + offset, length, ahead)

    def part(self, offset: int, length: int | None = None) -> Window:
        """A smaller part, cut off where this one ends."""
        left = max(0, self.length - offset)
        return Window(self.file, self.start + offset, left if length is None else min(length, left))
