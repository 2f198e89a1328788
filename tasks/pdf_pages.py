"""What the pages of an open PDF show: sizes, images drawn, text; and what the document carries besides."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pikepdf
from pikepdf import Array, Dictionary, Name, Stream

from tasks.pdf_facts import BILEVEL_FILTERS, PageFacts

# What pikepdf raises when a document has a number where a dictionary belongs, and the like.
ODD = (pikepdf.PdfError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError)

_OPERATORS = "Do Tj TJ ' \" BI ID EI"
_MAX_NESTING = 8
_MAX_FIELDS = 5_000
_ENCODINGS = {
    "/CCITTFaxDecode": "ccitt",
    "/CCF": "ccitt",
    "/JBIG2Decode": "jbig2",
    "/DCTDecode": "jpeg",
    "/DCT": "jpeg",
    "/JPXDecode": "jpx",
}
_GREYS = frozenset({"/DeviceGray", "/CalGray", "/G"})


@dataclass
class Drawn:
    """What a content stream draws."""

    filters: Counter[str] = field(default_factory=Counter)
    bilevel_pixels: int = 0
    text: bool = False
    missing: int = 0

    def add(self, other: Drawn) -> None:
        """Count another stream's drawing as part of this one's."""
        self.filters += other.filters
        self.bilevel_pixels += other.bilevel_pixels
        self.text = self.text or other.text
        self.missing += other.missing

    def add_image(self, image: Any) -> None:
        """Count an image XObject or the dictionary of an inline image."""
        encoding = _encoding(image)
        self.filters[encoding] += 1
        if encoding in BILEVEL_FILTERS or _is_one_bit(image):
            self.bilevel_pixels += int(image.get("/Width", 0)) * int(image.get("/Height", 0))


class PageReader:
    """Reads pages one after the other; a form XObject that many pages draw is read once."""

    def __init__(self) -> None:
        self.filters: Counter[str] = Counter()
        self.problems: list[str] = []
        self._forms: dict[tuple[int, int], Drawn] = {}

    def read(self, page: pikepdf.Page, number: int) -> PageFacts:
        """Facts of a page (`number` from 1). What cannot be read is told in `problems`."""
        try:
            drawn = self._draw(page, page.resources, 0)
            width_pt, height_pt = size_pt(page)
        except ODD as exc:
            self.problems.append(f"page {number} cannot be read: {exc}")
            return PageFacts(0.0, 0.0)
        if drawn.missing:
            self.problems.append(f"page {number} draws {drawn.missing} object(s) that are missing")
        self.filters += drawn.filters
        return PageFacts(width_pt, height_pt, drawn.filters.total(), drawn.bilevel_pixels, drawn.text)

    def _draw(self, content: Any, resources: Any, depth: int) -> Drawn:
        drawn = Drawn()
        for step in pikepdf.parse_content_stream(content, _OPERATORS):
            if isinstance(step, pikepdf.ContentStreamInlineImage):
                drawn.add_image(step.iimage.obj)
            elif str(step.operator) == "Do":
                self._draw_xobject(drawn, step.operands[0], resources, depth)
            elif str(step.operator) not in ("BI", "ID", "EI"):
                drawn.text = True
        return drawn

    def _draw_xobject(self, drawn: Drawn, name: Any, resources: Any, depth: int) -> None:
        xobject = resources.get("/XObject", Dictionary()).get(str(name))
        if not isinstance(xobject, Stream):
            drawn.missing += 1
        elif xobject.get("/Subtype") == Name.Image:
            drawn.add_image(xobject)
        elif depth < _MAX_NESTING:
            drawn.add(self._form(xobject, resources, depth))

    def _form(self, form: Any, outer: Any, depth: int) -> Drawn:
        key = form.objgen
        if key not in self._forms:
            self._forms[key] = Drawn()  # a form that draws itself ends here
            self._forms[key] = self._draw(form, form.get("/Resources", outer), depth + 1)
        return self._forms[key]


def size_pt(page: pikepdf.Page) -> tuple[float, float]:
    """Width and height in points as displayed (ISO 32000-1, 14.11.2: crop box within media box)."""
    media, crop = _box(page.mediabox), _box(page.cropbox)
    width = min(media[2], crop[2]) - max(media[0], crop[0])
    height = min(media[3], crop[3]) - max(media[1], crop[1])
    unit = float(page.obj.get("/UserUnit", 1))
    if page.rotation % 180:
        width, height = height, width
    return round(width * unit, 2), round(height * unit, 2)


def is_signed(pdf: pikepdf.Pdf) -> bool:
    """A signature field with a value, usage rights, or a form that only takes appended updates."""
    form = pdf.Root.get("/AcroForm", Dictionary())
    if "/Perms" in pdf.Root or int(form.get("/SigFlags", 0)) & 2:
        return True
    return any(f.get("/FT") == Name.Sig and "/V" in f for f in _fields(form))


def structure_of(pdf: pikepdf.Pdf) -> tuple[str, ...]:
    """Parts beside the page content that Ghostscript flattens, redraws or drops."""
    root = pdf.Root
    found = {
        "form": len(root.get("/AcroForm", Dictionary()).get("/Fields", Array())) > 0,
        "layers": "/OCProperties" in root,
        "attachments": "/EmbeddedFiles" in root.get("/Names", Dictionary()) or "/AF" in root,
        "annotations": any(_is_annotated(page) for page in pdf.pages),
    }
    return tuple(name for name, present in found.items() if present)


def _is_annotated(page: pikepdf.Page) -> bool:
    """Stamps, notes and the like; links are navigation, and form fields are told of as the form."""
    kinds = {str(annotation.get("/Subtype")) for annotation in page.obj.get("/Annots", Array())}
    return not kinds <= {"/Link", "/Widget", "/Popup"}


def _fields(form: Any) -> list[Any]:
    waiting: list[Any] = list(form.get("/Fields", Array()))
    seen: list[Any] = []
    while waiting and len(seen) < _MAX_FIELDS:
        entry = waiting.pop()
        if isinstance(entry, Dictionary):
            seen.append(entry)
            waiting.extend(entry.get("/Kids", Array()))
    return seen


def _box(box: Any) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(value) for value in box)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _encoding(image: Any) -> str:
    filters = image.get("/Filter", image.get("/F", Array()))
    last = filters[-1] if isinstance(filters, Array) and len(filters) else filters
    return _ENCODINGS.get(str(last), "lossless") if isinstance(last, Name) else "lossless"


def _is_one_bit(image: Any) -> bool:
    if image.get("/ImageMask", False):
        return True
    grey = str(image.get("/ColorSpace")) in _GREYS
    return grey and int(image.get("/BitsPerComponent", 8)) == 1
