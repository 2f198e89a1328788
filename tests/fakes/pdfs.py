"""Builders of documents as counties scan them, and of the ways they arrive broken. All return bytes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from itertools import product
from typing import Any

import img2pdf
import pikepdf
from pikepdf import Array, Dictionary, Name
from PIL import Image, ImageDraw, ImageFont

LETTER_IN = (8.5, 11.0)
Edit = Callable[[pikepdf.Pdf], None]


@cache
def scanned(number: int = 1, *, dpi: int = 200, size_in: tuple[float, float] = LETTER_IN) -> Image.Image:
    """A grey page of typed lines on paper that is not quite white."""
    width, height = round(size_in[0] * dpi), round(size_in[1] * dpi)
    grain, image = Image.effect_noise((256, 256), 4), Image.new("L", (width, height))
    grain = grain.point(lambda value: min(255, value + 105))
    for x, y in product(range(0, width, 256), range(0, height, 256)):
        image.paste(grain, (x, y))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(dpi / 6)
    for line in range(36):
        text = f"{number}.{line} know all men by these presents that the grantor {line * 7919 % 1000}"
        draw.text((width // 12, height // 20 + line * height // 40), text, fill=30, font=font)
    return image


@cache
def g4_tiff(pages: int = 1, *, dpi: int = 200, **save: Any) -> bytes:
    """A multi-page TIFF, Group 4 unless `compression` says otherwise."""
    plain = Image.Dither.NONE
    images = [scanned(number, dpi=dpi).convert("1", dither=plain) for number in range(1, pages + 1)]
    options = {"compression": "group4", "dpi": (dpi, dpi), **save}
    output = BytesIO()
    images[0].save(output, "TIFF", save_all=True, append_images=images[1:], **options)
    return output.getvalue()


def plain_tiff(*, dpi: int = 100) -> bytes:
    """Uncompressed and without a resolution; its directory stands before its data."""
    output = BytesIO()
    scanned(dpi=dpi).save(output, "TIFF")
    return output.getvalue()


@cache
def g4_scan(pages: int = 1, *, dpi: int = 200) -> bytes:
    """The usual recorded document: black and white, CCITT Group 4."""
    return _pdf(g4_tiff(pages, dpi=dpi))


@cache
def grey_scan(pages: int = 1, *, dpi: int = 300, quality: int = 85) -> bytes:
    """A modern recording: grey JPEG at 300 dpi, three times as large as it need be."""
    return _pdf(*[_jpeg(scanned(number, dpi=dpi), dpi, quality) for number in range(1, pages + 1)])


@cache
def colour_plat(*, dpi: int = 250) -> bytes:
    """A plat on a large sheet, lines in colour."""
    image = scanned(dpi=dpi, size_in=(18, 12)).convert("RGB")
    draw = ImageDraw.Draw(image)
    for lot in range(40):
        x, y = 200 + lot % 8 * dpi * 2, 200 + lot // 8 * dpi * 2
        draw.rectangle((x, y, x + dpi, y + dpi), outline=(180, lot * 6, 40), width=3)
    return _pdf(_jpeg(image, dpi, 90))


@cache
def mixed_scan() -> bytes:
    """A Group 4 page and a grey page in one document."""
    return _pdf(g4_tiff(), _jpeg(scanned(2, dpi=300), 300, 85))


def edited(pdf: bytes, edit: Edit, **save: Any) -> bytes:
    """The document after `edit`; classic cross-reference table unless `save` says otherwise."""
    options = {"object_stream_mode": pikepdf.ObjectStreamMode.disable, "static_id": True, **save}
    if "encryption" in options:
        del options["static_id"]
    output = BytesIO()
    with pikepdf.open(BytesIO(pdf)) as opened:
        edit(opened)
        opened.save(output, **options)
    return output.getvalue()


def drawing(content: bytes, edit: Edit | None = None, **page: Any) -> bytes:
    """One letter page with this content stream and these page entries."""

    def fill(pdf: pikepdf.Pdf) -> None:
        pdf.add_blank_page(page_size=(612, 792))
        pdf.pages[0].Contents = pdf.make_stream(content)
        for name, value in page.items():
            pdf.pages[0].obj["/" + name] = value
        if edit:
            edit(pdf)

    return edited(_empty(), fill)


def with_text_layer(pdf: bytes) -> bytes:
    """What OCR leaves behind: invisible text over the scan."""

    def add(opened: pikepdf.Pdf) -> None:
        for page in opened.pages:
            font = Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica)
            page.obj.Resources.Font = Dictionary(F0=font)
            page.contents_add(b"BT 3 Tr /F0 12 Tf 72 700 Td (know all men) Tj ET")

    return edited(pdf, add)


def signed(pdf: bytes) -> bytes:
    """Carries a signature field with a value (not one that verifies)."""

    def add(opened: pikepdf.Pdf) -> None:
        value = Dictionary(Type=Name.Sig, Filter=Name("/Adobe.PPKLite"), Contents=b"0" * 64)
        field = Dictionary(FT=Name.Sig, T="seal", V=opened.make_indirect(value))
        parent = Dictionary(T="county", Kids=Array([opened.make_indirect(field)]))
        opened.Root.AcroForm = Dictionary(Fields=Array([opened.make_indirect(parent)]), SigFlags=3)

    return edited(pdf, add)


def encrypted(pdf: bytes, *, user: str = "", owner: str = "clerk") -> bytes:
    """With `user` it needs a password to open; without, its owner only restricts what may be done."""
    return edited(pdf, lambda _: None, encryption=pikepdf.Encryption(owner=owner, user=user))


def with_form(pdf: bytes) -> bytes:
    """A text field, filled in."""

    def add(opened: pikepdf.Pdf) -> None:
        field = Dictionary(FT=Name.Tx, T="name", V="Smith", Rect=Array([10, 10, 90, 30]))
        field.Type, field.Subtype = Name.Annot, Name.Widget
        made = opened.make_indirect(field)
        opened.Root.AcroForm = Dictionary(Fields=Array([made]))
        opened.pages[0].obj.Annots = Array([made])

    return edited(pdf, add)


def with_stamp(pdf: bytes) -> bytes:
    """RECORDED, as an annotation."""

    def add(opened: pikepdf.Pdf) -> None:
        stamp = Dictionary(Type=Name.Annot, Subtype=Name.Stamp, Rect=Array([10, 10, 90, 30]), Contents="RECORDED")
        opened.pages[0].obj.Annots = Array([opened.make_indirect(stamp)])

    return edited(pdf, add)


def with_layers(pdf: bytes) -> bytes:
    """Optional content groups, as survey software writes them."""

    def add(opened: pikepdf.Pdf) -> None:
        group = opened.make_indirect(Dictionary(Type=Name.OCG, Name="easements"))
        opened.Root.OCProperties = Dictionary(OCGs=Array([group]), D=Dictionary(OFF=Array([group])))

    return edited(pdf, add)


def linearized(pdf: bytes) -> bytes:
    """Web optimised: its first %%EOF stands near its beginning."""
    return edited(pdf, lambda _: None, linearize=True)


def cut(pdf: bytes, share: float) -> bytes:
    """The first part of a file whose connection dropped."""
    return pdf[: int(len(pdf) * share)]


def with_bad_xref(pdf: bytes) -> bytes:
    """Every byte arrived, but startxref points nowhere; readers rebuild the table."""
    return re.sub(rb"startxref\s+\d+", b"startxref\n7", pdf)


def without_object(pdf: bytes, marker: bytes) -> bytes:
    """The first object containing `marker` is no object any more."""
    start = pdf.rindex(b" obj", 0, pdf.index(marker))
    return pdf[:start] + b" xbj" + pdf[start + 4 :]


def with_hole(pdf: bytes, marker: bytes, *, after: int = 2000, length: int = 2000) -> bytes:
    """Zeros where data was, some way behind `marker`."""
    start = pdf.index(marker) + after
    return pdf[:start] + bytes(length) + pdf[start + length :]


def updated(pdf: bytes) -> bytes:
    """With an incremental update at its end (ISO 32000-1, 7.5.6)."""
    previous = int(re.findall(rb"startxref\s+(\d+)", pdf)[-1])
    size = int(re.findall(rb"/Size (\d+)", pdf)[-1])
    root = re.findall(rb"/Root (\d+ \d+ R)", pdf)[-1]
    addition = b"%d 0 obj\n<< /Title (%s) >>\nendobj\n" % (size, b"amended " * 40)
    table = b"xref\n%d 1\n%010d 00000 n \n" % (size, len(pdf))
    trailer = b"trailer\n<< /Size %d /Root %s /Info %d 0 R /Prev %d >>\n" % (size + 1, root, size, previous)
    end = b"startxref\n%d\n%%%%EOF\n" % (len(pdf) + len(addition))
    return pdf + addition + table + trailer + end


@cache
def slow(megabytes: int = 64) -> bytes:
    """Small to send, long to read: so many megabytes of drawing, all the same line."""
    line = b"0 0 m 10 20 l S\n"
    deflate = zlib.compressobj(1)
    piece = line * (1 << 16)
    content = b"".join(deflate.compress(piece) for _ in range(megabytes)) + deflate.flush()

    def fill(pdf: pikepdf.Pdf) -> None:
        pdf.add_blank_page(page_size=(612, 792))
        stream = pdf.make_stream(b"")
        stream.write(content, filter=Name.FlateDecode)
        pdf.pages[0].Contents = stream

    return edited(_empty(), fill, compress_streams=False)


def _empty() -> bytes:
    output = BytesIO()
    pikepdf.new().save(output)
    return output.getvalue()


def _jpeg(image: Image.Image, dpi: int, quality: int) -> bytes:
    output = BytesIO()
    image.save(output, "JPEG", quality=quality, dpi=(dpi, dpi))
    return output.getvalue()


def _pdf(*images: bytes) -> bytes:
    made: bytes = img2pdf.convert(list(images), nodate=True)
    return made
