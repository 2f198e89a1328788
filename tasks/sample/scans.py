"""Deterministic scanned documents: the same number and seed give the same bytes.

A document is put together from a few base pages that are drawn and compressed once (`tasks.sample.drawing`);
only its first page carries its own recording stamp, in its pixels or laid over a JPEG.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from random import Random

from PIL import Image, ImageChops

from tasks.sample import drawing, plats
from tasks.sample.binding import Condition, Leaf, pdf_file, tiff_file
from tasks.sample.chance import seeded
from tasks.sample.drawing import DPI, Stamp

VARIANTS = 3
"""Base pages of each sort; each costs 0.05-0.2 s once per process."""

MAX_PAGES = 12
PDF_TYPE = "application/pdf"
TIFF_TYPE = "image/tiff"


class Kind(StrEnum):
    """What a document looks like to the optimiser."""

    BILEVEL = "bilevel"
    """Black and white CCITT G4 pages of 200 or 300 dpi: nothing for Ghostscript to gain."""
    GREY = "grey"
    """Grainy grey JPEG pages of 300 dpi: Ghostscript saves two thirds."""
    PLAT = "plat"
    """One colour JPEG page, landscape."""
    OCRED = "ocred"
    """G4 pages under an invisible text layer."""
    MIXED = "mixed"
    """A G4 page, then grey pages, then a colour plat."""
    TIFF = "tiff"
    """Not a PDF: a multi-page G4 TIFF."""


@dataclass(frozen=True)
class Scan:
    """A whole file as the portal serves it."""

    content: bytes
    media_type: str
    pages: int


def make_scan(
    number: int,
    *,
    seed: int = 7,
    kind: Kind | None = None,
    pages: int | None = None,
    stamp: Stamp | None = None,
    condition: Condition = Condition.SOUND,
) -> Scan:
    """Document `number`, about 30 KB per bilevel page and 350 KB per JPEG page; a plat has one page.

    Kind, page count (1-12) and stamp follow from the number when not given. Raises ValueError for another
    page count and for a TIFF that is not sound.
    """
    rng = seeded(f"scan {seed} {number}")
    kind = kind or rng.choice(list(Kind))
    count = pages or rng.choice((1, 1, 2) if kind is Kind.GREY else (2, 2, 3, 4))
    stamp = stamp or Stamp(str(900000 + number), 238 + number % 3000, 1 + number % 900, "1997-03-14")
    if not 1 <= count <= MAX_PAGES or (kind is Kind.TIFF and condition is not Condition.SOUND):
        raise ValueError(f"There is no {condition} scan of kind {kind} with {count} pages.")
    leaves = _leaves(rng, seed, kind, 1 if kind is Kind.PLAT else count, stamp)
    if kind is Kind.TIFF:
        return Scan(tiff_file(leaves), TIFF_TYPE, len(leaves))
    return Scan(pdf_file(leaves, stamp.recorded, condition), PDF_TYPE, len(leaves))


def _leaves(rng: Random, seed: int, kind: Kind, count: int, stamp: Stamp) -> list[Leaf]:
    variants = [rng.randrange(VARIANTS) for _ in range(count)]
    if kind is Kind.PLAT:
        return [replace(_plat(seed, variants[0] % 2), overlay=_stamp(stamp))]
    if kind is Kind.GREY:
        first = replace(_grey(seed, variants[0] % 2, first=True), overlay=_stamp(stamp))
        return [first, *(_grey(seed, v % 2, first=False) for v in variants[1:])]
    straight = kind is Kind.OCRED
    leaf = _stamped(seed, variants[0], stamp, straight=straight)
    if kind is Kind.MIXED and count > 1:
        return [
            leaf,
            *(_grey(seed, v % 2, first=False) for v in variants[1:-1]),
            _plat(seed, variants[-1] % 2),
        ]
    return [leaf, *(_continuation(seed, v, straight=straight) for v in variants[1:])]


def _resolution(variant: int) -> int:
    return DPI if variant == 1 else 200


def _ink(seed: int, variant: int, *, first: bool, straight: bool) -> Image.Image:
    """A bilevel base page, inverted (ink is 255), as `_g4` takes it."""
    page = drawing.deed(seed, variant, first=first).image
    page = page if straight else drawing.skewed(page, seed + variant)
    return ImageChops.invert(drawing.bilevel(page, _resolution(variant)))


@lru_cache(maxsize=2 * VARIANTS)
def _first_ink(seed: int, variant: int, *, straight: bool) -> Image.Image:
    return _ink(seed, variant, first=True, straight=straight)


def _stamped(seed: int, variant: int, stamp: Stamp, *, straight: bool) -> Leaf:
    """A first page with the document's own stamp in its pixels."""
    page, dpi = _first_ink(seed, variant, straight=straight).copy(), _resolution(variant)
    mark = ImageChops.invert(drawing.stamp_image(stamp, dpi))
    page.paste(mark, (page.width - mark.width - dpi // 2, dpi * 4 // 5))
    lines = drawing.deed(seed, variant, first=True).lines if straight else ()
    return Leaf(_g4(page), page.size, dpi, lines=lines)


@lru_cache(maxsize=2 * VARIANTS)
def _continuation(seed: int, variant: int, *, straight: bool) -> Leaf:
    page = _ink(seed, variant, first=False, straight=straight)
    lines = drawing.deed(seed, variant, first=False).lines if straight else ()
    return Leaf(_g4(page), page.size, _resolution(variant), lines=lines)


@lru_cache(maxsize=2 * VARIANTS)
def _grey(seed: int, variant: int, *, first: bool) -> Leaf:
    image = drawing.skewed(drawing.deed(seed, variant, first=first).image, seed + variant)
    return Leaf(_jpeg(drawing.paper(image, seed + variant)), image.size, DPI, colours=1)


@lru_cache(maxsize=2)
def _plat(seed: int, variant: int) -> Leaf:
    image = plats.plat(seed, variant)
    return Leaf(_jpeg(image), image.size, DPI, colours=3)


def _stamp(stamp: Stamp) -> Leaf:
    mark = ImageChops.invert(drawing.stamp_image(stamp))
    return Leaf(_g4(mark), mark.size, DPI)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=66, dpi=(DPI, DPI))
    return buffer.getvalue()


def _g4(ink: Image.Image) -> bytes:
    """Raw CCITT G4 data of an inverted page. PDF and a TIFF that is white-is-zero want ink coded as black.

    Asking Pillow for white-is-zero directly (tag 262) takes 1.1 s a page instead of 0.02 s (Pillow 13.0).
    """
    buffer = io.BytesIO()
    ink.save(buffer, "TIFF", compression="group4", strip_size=1 << 24)
    with Image.open(buffer) as written:
        tags = written.tag_v2  # type: ignore[attr-defined]
    return buffer.getvalue()[tags[273][0] :][: tags[279][0]]
