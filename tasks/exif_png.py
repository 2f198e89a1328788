"""Where a PNG keeps its Exif block and its XMP packet, before or behind the picture. Pure.

Sources: PNG third edition (W3C 2025), sections 5 and 11.3; Adobe XMP specification part 3, section 1.1.5;
ImageMagick's `Raw profile type` texts, which exiftool and ImageMagick wrote before eXIf (2017).
"""

from __future__ import annotations

import zlib

from tasks.exif_ranges import Ranges, Steps, Window
from tasks.exif_segments import Walk, bare

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_FRAME_BYTES = 12  # length, kind and checksum of a chunk
_MAX_INFLATED_BYTES = 256 * 1024
_KEYWORD_BYTES = 80  # with its NUL
_PROFILES = (b"Raw profile type exif", b"Raw profile type APP1")
_XMP = b"XML:com.adobe.xmp"


class Png(Walk):
    """Chunks. The many of the picture are passed over by halving."""

    def __init__(self, file: Ranges) -> None:
        super().__init__(file, at=len(PNG_MAGIC))

    def step(self) -> Steps[bool]:
        """One chunk, or a run of picture chunks."""
        length, kind = yield from self._chunk(self.at)
        body = Window(self.file, self.at + 8, length)
        if kind == b"IEND":
            return False
        if kind == b"IDAT":
            self.at = yield from self._last_of_run(length)
        elif kind == b"eXIf":
            self.found_exif = self.found_exif or (yield from bare(body))
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            yield from self._text(kind, body)
        self.at += _FRAME_BYTES + length
        return True

    def _chunk(self, at: int, **ahead: int) -> Steps[tuple[int, bytes]]:
        head = yield from self.file.read(at, 8, **ahead)
        return int.from_bytes(head[:4]), head[4:]

    def _last_of_run(self, length: int) -> Steps[int]:
        """Offset of the last in a run of picture chunks of one length: writers make thousands of 8 or 32 KB."""
        stride = _FRAME_BYTES + length
        low, high = 0, (self.file.size - self.at - 8) // stride
        while low < high:
            middle = (low + high + 1) // 2
            if (yield from self._chunk(self.at + middle * stride, ahead=8)) == (length, b"IDAT"):
                low = middle
            else:
                high = middle - 1
        return self.at + low * stride

    def _text(self, kind: bytes, body: Window) -> Steps[None]:
        keyword, _, _ = (yield from body.read(0, min(body.length, _KEYWORD_BYTES))).partition(b"\0")
        is_packet, is_profile = (kind, keyword) == (b"iTXt", _XMP), keyword in _PROFILES
        if is_packet or is_profile:
            text, is_packed = yield from _text_of(kind, body.part(len(keyword) + 1))
            if is_packet:  # a compressed one (exiftool -z) is found to say nothing
                self.found_xmp = self.found_xmp or text
            elif is_profile:
                self.found_exif = self.found_exif or (yield from _profile(text, is_packed))


def _text_of(kind: bytes, content: Window) -> Steps[tuple[Window, bool]]:
    """The text behind a keyword, and whether it is compressed."""
    if kind == b"tEXt":
        return content, False
    if kind == b"zTXt":
        return content.part(1), True  # the method: there is but one
    head = yield from content.read(0, min(content.length, _KEYWORD_BYTES))
    language, _, rest = head[2:].partition(b"\0")
    translated, _, _ = rest.partition(b"\0")
    return content.part(2 + len(language) + 1 + len(translated) + 1), head[:1] == b"\1"


def _profile(text: Window, is_packed: bool) -> Steps[Window | None]:
    """The Exif block that is written as name, length and hexadecimal digits."""
    written = yield from text.read(0, text.length)
    try:
        plain = zlib.decompressobj().decompress(written, _MAX_INFLATED_BYTES) if is_packed else written
        data = bytes.fromhex(b"".join(plain.split(None, 2)[2:]).decode("ascii"))
    except (zlib.error, ValueError):
        return None
    return (yield from bare(Window(Ranges.of(data), 0, len(data)))) if data else None
