"""What a caller asks of an SFTP server, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import StrEnum
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from tasks.errors import ItemError

K = TypeVar("K")
T = TypeVar("T")


class Needed(Protocol):
    """A range of a file that a reader wants next, in bytes."""

    @property
    def offset(self) -> int: ...

    @property
    def length(self) -> int: ...


Reader: TypeAlias = Generator[Needed, bytes, T]
"""Yields the ranges it needs, is sent their bytes (fewer where the file ends), and returns what it found."""


class Ask(NamedTuple, Generic[K, T]):
    """A file to be read by ranges.

    path    as a listing gave it
    reader  begins to read: called again when a broken connection makes the file begin anew. It runs on a
            connection's thread, so it computes and waits for nothing
    """

    id: K
    path: str
    reader: Callable[[], Reader[T]]


class Read(NamedTuple, Generic[K, T]):
    """A file whose reader is content. bytes_read, reads: what the server sent for it, and in how many READs."""

    id: K
    value: T
    bytes_read: int
    reads: int


class Failure(NamedTuple, Generic[K]):
    """A file or folder that could not be read; `error` says what happens next."""

    id: K
    error: ItemError
    bytes_read: int

    @property
    def reason(self) -> str:
        """The typed word for the item's row."""
        return self.error.reason


class EntryKind(StrEnum):
    """What an entry of a folder is; of a link, what it leads to."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"
    """Pipes, sockets, devices, and links that lead nowhere: never to be read."""


class Entry(NamedTuple):
    """One entry of a folder.

    path   to ask for it; any bytes, those that are no UTF-8 as lone surrogates (`os.fsencode` gives them back)
    size   bytes
    mtime  seconds since 1970, UTC
    """

    path: str
    name: str
    kind: EntryKind
    size: int
    mtime: int
    is_link: bool


class Listing(NamedTuple):
    """A folder and everything in it, in the server's order."""

    path: str
    entries: list[Entry]


class Limits(NamedTuple):
    """What one file may cost: more is TerminalError `too_large`."""

    max_bytes: int = 1024**2
    max_reads: int = 64


MODEST = Limits()
"""Room for the metadata of any photo."""


Result: TypeAlias = Read[Any, Any] | Listing | Failure[Any]


def quoted(path: str) -> str:
    """A path for a message: printable, on one line, whatever bytes it has."""
    return repr(path if len(path) <= 300 else path[:297] + "...")
