"""Photo files that are a row of labelled segments: JPEG and WebP. Pure.

Sources: ITU-T T.81, annex B; CIPA DC-008-2023, section 4.7; Adobe XMP specification part 3; RFC 9649 (WebP).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from tasks.exif_ranges import Broken, Ranges, Steps, Window

JPEG_MAGIC = b"\xff\xd8"
_APP1, _SOS, _EOI, _FILL = 0xE1, 0xDA, 0xD9, 0xFF
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM and RSTn have no length
_EXIF = b"Exif\0"
_EXIF_BYTES = 6  # its second NUL is padding, and not zero everywhere
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


class Walk(ABC):
    """Segments looked at one by one, from `at`, and no further than needed."""

    def __init__(self, file: Ranges, at: int) -> None:
        self.file = file
        self.at = at
        self.found_exif: Window | None = None
        self.found_xmp: Window | None = None

    def exif(self) -> Steps[Window | None]:
        """The Exif block, from its TIFF header on; None when the file has none. Raises Broken, OverBudget."""
        while self.found_exif is None and (yield from self.step()):
            pass
        return self.found_exif

    def xmp(self) -> Steps[Window | None]:
        """The XMP packet; None when the file has none. Raises Broken, OverBudget."""
        while self.found_xmp is None and (yield from self.step()):
            pass
        return self.found_xmp

    @abstractmethod
    def step(self) -> Steps[bool]:
        """Look at one segment and go to the next; False when there is none."""


class Jpeg(Walk):
    """Segments up to the picture itself, in any order."""

    def __init__(self, file: Ranges) -> None:
        super().__init__(file, at=len(JPEG_MAGIC))

    def step(self) -> Steps[bool]:
        """One marker, with its segment if it has one."""
        head = yield from self.file.read(self.at, 4)
        lead, marker, length = head[0], head[1], int.from_bytes(head[2:])
        if lead != _FILL:
            raise Broken("no marker where a JPEG segment ends")
        if marker in (_SOS, _EOI):
            return False
        if marker == _FILL or marker in _BARE:
            self.at += 1 if marker == _FILL else 2
            return True
        if length < 2:
            raise Broken("a JPEG segment shorter than its own length field")
        if marker == _APP1:
            yield from self._app1(Window(self.file, self.at + 4, length - 2))
        self.at += 2 + length
        return True

    def _app1(self, segment: Window) -> Steps[None]:
        label = yield from segment.read(0, min(segment.length, len(_XMP)))
        if label.startswith(_EXIF):
            self.found_exif = self.found_exif or segment.part(_EXIF_BYTES)
        elif label == _XMP:
            self.found_xmp = self.found_xmp or segment.part(len(_XMP))


class Webp(Walk):
    """RIFF chunks; metadata come behind the picture."""

    def __init__(self, file: Ranges) -> None:
        super().__init__(file, at=12)

    def step(self) -> Steps[bool]:
        """One chunk."""
        if self.at + 8 > self.file.size:
            return False
        head = yield from self.file.read(self.at, 8)
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        chunk = Window(self.file, self.at + 8, length)
        if kind == b"EXIF":
            self.found_exif = self.found_exif or (yield from bare(chunk))
        elif kind == b"XMP ":
            self.found_xmp = self.found_xmp or chunk
        self.at += 8 + length + length % 2
        return True


def bare(block: Window) -> Steps[Window]:
    """An Exif block without the `Exif` label of JPEG, which some writers leave in other containers too."""
    label = yield from block.read(0, min(block.length, _EXIF_BYTES))
    return block.part(_EXIF_BYTES) if label.startswith(_EXIF) else block
