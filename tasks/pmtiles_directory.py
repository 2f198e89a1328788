"""The directory of a PMTiles archive: kept on disk while it grows, then cut into leaves under a root.

Format: PMTiles specification version 3, chapter 4 (github.com/protomaps/PMTiles, spec/v3/spec.md).
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pmtiles.tile import Entry, serialize_directory

from tasks.partials import disk

ROOT_ROOM = 16_384 - 127
"""Header and root directory lie in the first 16 KiB, so that a reader has both with one request."""

_RECORD = struct.Struct("<QQII")  # tile id, offset, length in bytes, run length
_LEAF_ENTRIES = 4096  # as the reference writer; larger when the root would not hold that many leaves
_ROOT_ENTRIES = 1500
_BUFFER_BYTES = 1 << 20
_REMEMBERED = 65_536


class DirectorySpool:
    """Entries in the order of their tile ids, 24 bytes each in an unnamed file: 10 M of them take no memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with disk(folder):
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close()
        self._buffer = bytearray()
        self._last: tuple[int, int, int, int] | None = None
        self.entries = 0

    def add(self, tile_id: int, offset: int, length: int) -> None:
        """One more tile. Neighbours with the same content become one entry with a run length."""
        last = self._last
        if last and last[1] == offset and tile_id == last[0] + last[3]:
            self._last = (last[0], offset, length, last[3] + 1)
            return
        self._keep_last()
        self._last = (tile_id, offset, length, 1)
        self.entries += 1

    def root_and_leaves(self) -> tuple[bytes, IO[bytes], int]:
        """Serialised root directory, and an open file with the leaves and their size; no leaves when it all fits."""
        self._keep_last()
        self._flush()
        with disk(self._folder):
            if self.entries <= ROOT_ROOM and len(root := serialize_directory(self._all())) <= ROOT_ROOM:
                return root, tempfile.TemporaryFile(dir=self._folder), 0
            return self._leaves_that_fit()

    def close(self) -> None:
        """Give the space back."""
        self._file.close()

    def _leaves_that_fit(self) -> tuple[bytes, IO[bytes], int]:
        leaf_entries = max(_LEAF_ENTRIES, -(-self.entries // _ROOT_ENTRIES))
        leaves = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - the caller's
        while True:
            root = self._write_leaves(leaves, leaf_entries)
            if len(root) <= ROOT_ROOM:
                return root, leaves, leaves.tell()
            leaf_entries *= 2

    def _write_leaves(self, leaves: IO[bytes], leaf_entries: int) -> bytes:
        leaves.seek(0)
        leaves.truncate()
        pointers: list[Any] = []
        for leaf in self._chunks(leaf_entries):
            packed = serialize_directory(leaf)
            pointers.append(Entry(leaf[0].tile_id, leaves.tell(), len(packed), 0))
            leaves.write(packed)
        packed_root: bytes = serialize_directory(pointers)
        return packed_root

    def _all(self) -> list[Any]:
        return [entry for chunk in self._chunks(_LEAF_ENTRIES) for entry in chunk]

    def _chunks(self, entries: int) -> Iterator[list[Any]]:
        self._file.seek(0)
        while piece := self._file.read(entries * _RECORD.size):
            yield [Entry(*record) for record in _RECORD.iter_unpack(piece)]

    def _keep_last(self) -> None:
        if self._last:
            self._buffer += _RECORD.pack(*self._last)
            self._last = None
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        with disk(self._folder):
            self._file.write(self._buffer)
            self._file.flush()
        self._buffer.clear()


class SeenContents:
    """Where contents lie, for the last 65,536 to 131,072 different ones; what comes again is never forgotten.

    A blank tile comes again all the time. A content that returns only after so many others is stored twice:
    that costs its bytes, while remembering 10 M contents would cost more than a gigabyte of memory.
    """

    def __init__(self) -> None:
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}

    def get(self, digest: bytes) -> int | None:
        """Offset of the content with this digest, or None when it is new or forgotten."""
        offset = self._young.get(digest)
        if offset is None and (offset := self._old.get(digest)) is not None:
            self.put(digest, offset)
        return offset

    def put(self, digest: bytes, offset: int) -> None:
        """Remember it."""
        if len(self._young) >= _REMEMBERED:
            self._old, self._young = self._young, {}
        self._young[digest] = offset
