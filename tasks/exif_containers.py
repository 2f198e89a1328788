"""What kind of file a photo is: told by its first bytes, never by its name. Pure."""

from __future__ import annotations

from typing import Protocol

from tasks.exif_heif import Heif
from tasks.exif_png import PNG_MAGIC, Png
from tasks.exif_ranges import Broken, Ranges, Steps, Window
from tasks.exif_segments import JPEG_MAGIC, Jpeg, Webp
from tasks.exif_tiff import TIFF_MAGIC


class Container(Protocol):
    """A photo file, as far as its metadata go."""

    def exif(self) -> Steps[Window | None]:
        """The Exif block, from its TIFF header on; None when the file has none. Raises Broken, OverBudget."""

    def xmp(self) -> Steps[Window | None]:
        """The XMP packet; None when the file has none. Raises Broken, OverBudget."""


class TiffFile:
    """TIFF, BigTIFF, DNG: the whole file is one Exif block, and the packet is one of its tags."""

    def __init__(self, file: Ranges) -> None:
        self._file = file

    def exif(self) -> Steps[Window | None]:
        """The file."""
        yield from ()
        return Window(self._file, 0, self._file.size)

    def xmp(self) -> Steps[Window | None]:
        """None: no packet but the tag's."""
        yield from ()
        return None


def open_container(file: Ranges) -> Steps[Container]:
    """The file as what it is. Raises Broken when it is no photo."""
    head = yield from file.read(0, min(16, file.size))
    if head.startswith(JPEG_MAGIC):
        return Jpeg(file)
    if head.startswith(TIFF_MAGIC):
        return TiffFile(file)
    if head.startswith(PNG_MAGIC):
        return Png(file)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Webp(file)
    if head[4:8] == b"ftyp":
        return Heif(file)
    raise Broken("no photo that is known here")
