"""Directories of TIFF and BigTIFF, which is also what an Exif block is made of.

Only directories that are asked for are read, and links between them are never followed: a file that points in
circles costs nothing. Sources: TIFF 6.0, section 2; BigTIFF (libtiff); CIPA DC-008-2023, section 4.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct

from tasks.exif_ranges import Broken, Steps, Window
from tasks.exif_values import TYPE_BYTES, Value

_HEADS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
TIFF_MAGIC = tuple(_HEADS)

_MAX_ENTRIES = 1000
_MAX_VALUE_BYTES = 256  # no tag of interest is longer, whatever its count says


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tag's value lies: its type, and its place in the window. length: bytes."""

    kind: int
    at: int
    length: int


Directory = dict[int, Entry]


@dataclass(frozen=True, slots=True)
class Tiff:
    """A window that begins with a TIFF header. first: offset of its first directory."""

    window: Window
    order: str
    big: bool
    first: int

    def directory(self, offset: int) -> Steps[Directory]:
        """Tag -> entry of the directory at `offset`. Raises Broken when it does not lie in the window whole."""
        count_bytes, form = (8, Struct(self.order + "HHQ8s")) if self.big else (2, Struct(self.order + "HHI4s"))
        count = self._integer((yield from self.window.read(offset, count_bytes)))
        if count > _MAX_ENTRIES:
            raise Broken(f"a directory of {count} entries")
        start = offset + count_bytes
        block = yield from self.window.read(start, count * form.size)
        inline = form.size - (8 if self.big else 4)
        found: Directory = {}
        for number, (tag, kind, values, field) in enumerate(form.iter_unpack(block)):
            length = values * TYPE_BYTES.get(kind, 0)
            here = start + number * form.size + inline
            found[tag] = Entry(kind, here if length <= len(field) else self._integer(field), length)
        return found

    def values(self, entries: Directory, wanted: Iterable[int]) -> Steps[dict[int, Value]]:
        """Values of the wanted tags, at most 256 bytes of each; one that lies outside the window is left out."""
        values: dict[int, Value] = {}
        for tag, entry in [(tag, entries[tag]) for tag in wanted if tag in entries]:
            with suppress(Broken):
                raw = yield from self.window.read(entry.at, min(entry.length, _MAX_VALUE_BYTES))
                values[tag] = Value(entry.kind, raw, self.order)
        return values

    def packet(self, entry: Entry) -> Window:
        """A value as a part of the file, for what is not read whole."""
        return self.window.part(entry.at, entry.length)

    def _integer(self, raw: bytes) -> int:
        return int.from_bytes(raw, "little" if self.order == "<" else "big")


def open_tiff(window: Window) -> Steps[Tiff]:
    """The TIFF in a window. Raises Broken when it is none."""
    head = yield from window.read(0, 8)
    if head[:4] not in _HEADS:
        raise Broken("no TIFF header")
    order, big = _HEADS[head[:4]]
    link = (yield from window.read(8, 8)) if big else head[4:]
    return Tiff(window, order, big, int.from_bytes(link, "little" if order == "<" else "big"))
