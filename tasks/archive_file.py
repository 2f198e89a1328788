"""An archive being written: its head comes last, because only then is it known where everything lies."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tasks.partials import PartialFile, disk


class ArchiveFile(PartialFile):
    """A partial file with room for a head at its start; `append` returns where a piece lies.

    As a PartialFile it appears in its place complete or not at all, and what a killed process left is swept.
    `finish()` reads the file once more for the sha256, as the head cannot be hashed before the rest.
    """

    def __init__(self, destination: Path, head_bytes: int) -> None:
        super().__init__(destination)
        self._head_bytes = head_bytes
        self.append(bytes(head_bytes))

    def __enter__(self) -> ArchiveFile:
        return self

    def append(self, piece: bytes) -> int:
        """Write at the end; returns the offset of the piece from the start of the file."""
        offset = self.size_bytes
        self.write(piece)
        return offset

    def write(self, piece: bytes) -> None:
        """Append without hashing: see `finish`."""
        assert self._descriptor is not None  # noqa: S101 - nobody writes after finish()
        with disk(self.destination.parent):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self.size_bytes += len(piece)

    def write_head(self, head: bytes) -> None:
        """Fill the room at the start. A head shorter than the room leaves zeros behind it."""
        assert self._descriptor is not None  # noqa: S101 - nobody writes after finish()
        assert len(head) <= self._head_bytes  # noqa: S101 - the writer asked for too little room
        with disk(self.destination.parent):
            done = 0
            while done < len(head):
                done += os.pwrite(self._descriptor, memoryview(head)[done:], done)

    def finish(self) -> str:
        """Make it durable in its place; returns the sha256 (hex) of its content."""
        with disk(self.destination.parent), self._path.open("rb") as written:
            self._hash = hashlib.file_digest(written, "sha256")
        return super().finish()
