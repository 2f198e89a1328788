"""What a store holds and the rules all stores share: names, descriptions, who may replace what."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import google_crc32c

from tasks.errors import TerminalError, TransientError, refuse_when_stopped
from tasks.records import Reason

SOURCE_SHA256 = "source-sha256"
"""Metadata name of the sha256 of the bytes that were fetched, before any optimisation."""

_BLOCK_BYTES = 1 << 20
_KEY_BYTES_MAX = 1024  # the limit of Cloud Storage
_BAD_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line separators
_PART_BYTES_MAX = 250  # 255 of the usual file systems, less ".json"
_PLAIN_KEY = re.compile(r"\w[\w.-]{0,99}(/\w[\w.-]{0,99}){0,8}", re.ASCII)
"""Safe on sight. Most keys are such, and millions of them are checked."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a store.

    key         name below the store's address
    url         file:///... or gs://...
    size_bytes  size of the object as it is stored
    sha256      of the stored bytes, hex, as its writer recorded it; empty when another program wrote it
    created     True when this very call is known to have written it
    metadata    names and values stored with the object
    """

    key: str
    url: str
    size_bytes: int
    sha256: str
    created: bool
    metadata: dict[str, str]


class Small(NamedTuple):
    """An object that fits in memory. Its row describes it: no metadata is stored with it."""

    key: str
    content: bytes
    content_type: str


class Store(ABC):
    """A place for finished objects: a folder or a bucket. One instance serves any number of threads.

    Every method raises ConfigurationError (address, bucket, permission), OutsideUnreachable (nothing answers,
    disk full), TransientError(store_error) or TerminalError; never an exception of a library.
    """

    url: str

    @abstractmethod
    def put(
        self,
        key: str,
        path: Path,
        *,
        metadata: dict[str, str],
        sha256: str,
        content_type: str = "application/pdf",
        replaces: str | None = None,
        stop: Event | None = None,
    ) -> StoredObject:
        """Store the file at `path` under `key`, create-only; return when the object is verified and durable.

        metadata  `source-sha256` says which source the object was made from (default: `sha256` itself);
                  `sha256` and `stored_size` are added
        sha256    of the file, hex; a file that has another one raises TransientError(spool_lost)
        replaces  `source-sha256` of an older version of the same item, which may be overwritten

        An object made from the same source is the result (`created` False, its own size and sha256); one made
        from another source raises TerminalError(store_conflict). A set `stop` raises StopRequested.
        """

    @abstractmethod
    def put_replacing(
        self,
        key: str,
        path: Path,
        *,
        metadata: dict[str, str] | None = None,
        content_type: str = "application/json",
        stop: Event | None = None,
    ) -> StoredObject:
        """Store the file under `key` whatever is there: for reports and manifests. Verified as `put` does."""

    @abstractmethod
    def put_small(self, objects: Sequence[Small], *, stop: Event | None = None) -> None:
        """Store many small objects over whatever is there, each of them whole or not at all; `flush` makes them last.

        What was stored before an error stays.
        """

    @abstractmethod
    def flush(self) -> None:
        """Everything that `put_small` of this process stored is durable when this returns."""

    @abstractmethod
    def read_small(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """The bytes of each, in the order of the keys, None where there is no object; a bucket is read ahead."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """No object is there when this returns; nor was one before, perhaps."""

    @abstractmethod
    def holds(self, key: str) -> bool:
        """Whether an object is there, as far as that can be known without asking a server: a bucket says True."""

    @abstractmethod
    def stat(self, key: str) -> StoredObject | None:
        """The object under `key` without its bytes, or None."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """The object's bytes, from the start; the caller closes it. Raises TerminalError(not_found)."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects whose key starts with `prefix`, in the order of their keys."""

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigurationError or OutsideUnreachable when nothing could be stored here now. Cheap."""

    @abstractmethod
    def close(self) -> None:
        """Give up connections. The store is not used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file is: size in bytes, sha256 in hex, crc32c in base64 as Cloud Storage writes it."""

    size_bytes: int
    sha256: str
    crc32c: str


class Verdict(Enum):
    """What to do about an object that may be there already."""

    CREATE = auto()
    SAME = auto()
    REPLACE = auto()
    CONFLICT = auto()


def judge(existing: StoredObject | None, source_sha256: str, replaces: str | None) -> Verdict:
    """Compare by source, not by content: Ghostscript makes other bytes of the same source each time."""
    if existing is None:
        return Verdict.CREATE
    stored_source = existing.metadata.get(SOURCE_SHA256, "")
    if existing.sha256 and stored_source == source_sha256:
        return Verdict.SAME
    if replaces and stored_source == replaces:
        return Verdict.REPLACE
    return Verdict.CONFLICT


def conflict(existing: StoredObject) -> TerminalError:
    """The error of an object that was made from another source."""
    return TerminalError(
        Reason.STORE_CONFLICT,
        f"{existing.url} was made from another source; compare both, then remove or move the stored one.",
    )


def missing(url: str) -> TerminalError:
    """The error of an object that is not there."""
    return TerminalError(Reason.NOT_FOUND, f"{url} does not exist; check the key.")


def describe(metadata: dict[str, str], facts: FileFacts) -> dict[str, str]:
    """The metadata an object is stored with: the caller's, and what makes it verifiable later."""
    full = {SOURCE_SHA256: facts.sha256, **metadata}
    return {**full, "sha256": facts.sha256, "stored_size": str(facts.size_bytes)}


def check_key(key: str) -> str:
    """The key itself when it is a safe relative name on every store; otherwise TerminalError(bad_row)."""
    if _PLAIN_KEY.fullmatch(key):
        return key
    parts = key.split("/")
    bad = (
        len(key.encode("utf-8", "replace")) > _KEY_BYTES_MAX
        or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c == "\\" for c in key)
        or any(p.startswith(".") or not p or len(p.encode("utf-8", "replace")) > _PART_BYTES_MAX for p in parts)
    )
    if bad:
        raise TerminalError(Reason.BAD_ROW, f"{key[:200]!r} is no usable object name; correct the row it is made of.")
    return key


def read_blocks(path: Path, stop: Event | None) -> Iterator[bytes]:
    """The file in blocks of 1 MiB. Raises TransientError(spool_lost) when unreadable, StopRequested."""
    with spool_errors(path), path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            refuse_when_stopped(stop)
            yield block


def read_facts(path: Path, stop: Event | None = None) -> FileFacts:
    """Size and both checksums of a file in one pass."""
    size, crc, sha = 0, 0, hashlib.sha256()
    for block in read_blocks(path, stop):
        size += len(block)
        crc = google_crc32c.extend(crc, block)
        sha.update(block)
    return FileFacts(size, sha.hexdigest(), _as_cloud_storage_writes(crc))


def crc32c_of(content: bytes) -> str:
    """The checksum in base64, as Cloud Storage writes it."""
    return _as_cloud_storage_writes(google_crc32c.value(content))


def _as_cloud_storage_writes(crc: int) -> str:
    return base64.b64encode(crc.to_bytes(4, "big")).decode("ascii")


def require_same(path: Path, facts: FileFacts, sha256: str) -> None:
    """Refuse a file that is no longer the one its row speaks of."""
    if facts.sha256 != sha256.lower():
        raise TransientError(
            Reason.SPOOL_LOST,
            f"{path} changed after it was written (its sha256 differs); it is fetched again.",
        )


@contextmanager
def spool_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong with the file to be stored into TransientError(spool_lost)."""
    try:
        yield
    except OSError as exc:
        raise TransientError(
            Reason.SPOOL_LOST, f"{path} cannot be read ({exc.strerror}); it is fetched again."
        ) from exc
