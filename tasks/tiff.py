"""TIFF, as older record systems deliver it: counted, checked for cut-off strips, made a PDF without loss."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import img2pdf
from PIL import Image, ImageSequence

from tasks.errors import TerminalError, TransientError
from tasks.partials import PartialFile
from tasks.records import Reason

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_OFFSETS, _LENGTHS = (273, 324), (279, 325)  # strips, tiles (TIFF 6.0, sections 8 and 15)
_UNSET_DPI = 97  # 1, 72 and 96 are written, or assumed by Pillow and img2pdf, where nobody knows
_DEFAULT_DPI = 300
_MAX_PAGES = 20_000
_UNREADABLE = (
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
    img2pdf.AlphaChannelError,
    img2pdf.ImageOpenError,
    img2pdf.NegativeDimensionError,
    img2pdf.PdfTooLargeError,
    img2pdf.UnsupportedColorspaceError,
)


def count_pages(path: Path) -> int:
    """Pages of a TIFF whose image data is all there.

    Raises TransientError(truncated) when a directory or image data lies beyond the end of the file,
    TerminalError(damaged) when it is no sound TIFF otherwise.
    """
    size = path.stat().st_size
    with _tiff_errors(path), path.open("rb") as file:
        whole = _directories_end(file) <= size
    if whole:
        with _tiff_errors(path), Image.open(path, formats=["TIFF"]) as image:
            ends = [_data_end(page) for page in ImageSequence.Iterator(image)]
        if max(ends) <= size:
            return len(ends)
    raise TransientError(Reason.TRUNCATED, f"{path.name} ends before its images do; fetch it again.")


def tiff_to_pdf(source: Path, destination: Path) -> None:
    """One PDF page for each TIFF page, pixels untouched; G4 data is copied as it is.

    `destination` is written atomically. Pages without a believable resolution are
    taken as 300 dpi.
    Raises TerminalError(damaged) when an image cannot be read, OutsideUnreachable when the disk is full.
    """
    with _tiff_errors(source):
        made: bytes = img2pdf.convert(str(source), layout_fun=_layout, nodate=True, rotation=img2pdf.Rotation.ifvalid)
    with PartialFile(destination) as part:
        part.write(made)
        part.finish()


def _directories_end(file: BinaryIO) -> int:
    """Offset behind the last image directory; may lie beyond the end of the file (TIFF 6.0, section 2)."""
    head = file.read(16)
    order = "<" if head.startswith(b"II") else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    count, link = struct.Struct(order + "HQ"[big]), struct.Struct(order + "IQ"[big])
    if len(head) < (16 if big else 8):
        return 16
    offset = end = int(link.unpack_from(head, 8 if big else 4)[0])
    for _ in range(_MAX_PAGES):
        if offset == 0:
            return end
        file.seek(offset)
        counted = file.read(count.size)
        if len(counted) < count.size:
            return offset + count.size
        after = offset + count.size + int(count.unpack(counted)[0]) * (20 if big else 12)
        end = max(end, after + link.size)
        file.seek(after)
        linked = file.read(link.size)
        if len(linked) < link.size:
            return end
        offset = int(link.unpack(linked)[0])
    raise ValueError("its image directories form a loop")


def _data_end(page: Any) -> int:
    tags = page.tag_v2
    for offsets, lengths in zip(_OFFSETS, _LENGTHS, strict=True):
        if offsets in tags and lengths in tags:
            pairs = zip(tags[offsets], tags[lengths], strict=True)
            return max(int(start) + int(length) for start, length in pairs)
    raise ValueError("an image has no data")


def _layout(width_px: int, height_px: int, dpi: tuple[float, float]) -> tuple[float, float, float, float]:
    """Page and image size in points; a missing resolution would make pages of 27 x 34 inches."""
    x_dpi, y_dpi = dpi if min(dpi) >= _UNSET_DPI else (_DEFAULT_DPI, _DEFAULT_DPI)
    width_pt, height_pt = width_px / x_dpi * 72, height_px / y_dpi * 72
    return width_pt, height_pt, width_pt, height_pt


@contextmanager
def _tiff_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as exc:
        message = f"{path.name} cannot be read as TIFF ({exc}); ask the county for another copy."
        raise TerminalError(Reason.DAMAGED, message) from exc
    except OSError as exc:
        if exc.errno is not None:  # the disk's, not Pillow's
            raise
        message = f"{path.name} cannot be decoded ({exc}); ask the county for another copy."
        raise TerminalError(Reason.DAMAGED, message) from exc
