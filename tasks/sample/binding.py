"""Compressed page images bound into one file: a PDF (sound, damaged or encrypted) or a multi-page TIFF.

Nothing is re-encoded here, and nothing depends on the clock or on chance: creation date and identifiers are
pinned, so the same leaves give the same bytes.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import pikepdf

from tasks.sample.drawing import DPI, Line


class Condition(StrEnum):
    """What is wrong with a PDF, if anything."""

    SOUND = "sound"
    DAMAGED = "damaged"
    """The cross-reference table is off: a strict reader refuses it, a lenient one recovers every page."""
    ENCRYPTED = "encrypted"
    """Owner password only: opens without a password, with restrictions."""
    LOCKED = "locked"
    """Needs a password to open (it is "sample")."""


@dataclass(frozen=True)
class Leaf:
    """One compressed page image: raw CCITT G4 data (colours 0) or a JPEG file (1 grey, 3 colour).

    `lines` become an invisible text layer, `overlay` a second small image in the top right corner (of a
    landscape page: the bottom left).
    """

    data: bytes
    size_px: tuple[int, int]
    dpi: int
    colours: int = 0
    lines: tuple[Line, ...] = ()
    overlay: Leaf | None = None


def pdf_file(leaves: Sequence[Leaf], created: str, condition: Condition = Condition.SOUND) -> bytes:
    """A PDF of one page per leaf. `created` is a date, YYYY-MM-DD."""
    buffer = io.BytesIO()
    with pikepdf.new() as pdf:
        for leaf in leaves:
            _add_page(pdf, leaf)
        pdf.docinfo["/Producer"] = "Sample County Recorder"
        pdf.docinfo["/CreationDate"] = f"D:{created.replace('-', '')}090000Z"
        _save(pdf, buffer, condition)
    content = buffer.getvalue()
    return damaged(content) if condition is Condition.DAMAGED else content


def tiff_file(leaves: Sequence[Leaf]) -> bytes:
    """A little-endian TIFF 6.0 of one G4 strip per page; only bilevel leaves."""
    content = bytearray(struct.pack("<2sHI", b"II", 42, 8))
    for number, leaf in enumerate(leaves):
        entries = _tiff_entries(leaf, len(content))
        data_at = len(content) + 2 + 12 * len(entries) + 4 + 8
        next_at = data_at + len(leaf.data) + len(leaf.data) % 2
        content += struct.pack("<H", len(entries)) + b"".join(entries)
        content += struct.pack("<III", 0 if number == len(leaves) - 1 else next_at, leaf.dpi, 1)
        content += leaf.data + b"\0" * (len(leaf.data) % 2)
    return bytes(content)


def damaged(content: bytes) -> bytes:
    """Break what readers of a PDF start with: the place of the cross-reference table, or its offsets."""
    if len(content) % 2 and b"startxref\n" in content:
        head, _, tail = content.rpartition(b"startxref\n")
        return head + b"startxref\n" + b"7" * len(tail.split(b"\n")[0]) + b"\n%%EOF\n"
    header, _, rest = content.partition(b"\n")
    return header + b"\n% received by fax gateway\n" + rest


def locked(content: bytes) -> bytes:
    """The same PDF behind a password; unchanged when it cannot be opened."""
    buffer = io.BytesIO()
    try:
        with pikepdf.open(io.BytesIO(content)) as pdf:
            _save(pdf, buffer, Condition.LOCKED)
    except (pikepdf.PdfError, pikepdf.PasswordError):
        return content
    return buffer.getvalue()


def _tiff_entries(leaf: Leaf, directory_at: int) -> list[bytes]:
    """The 12-byte directory entries; resolution and strip follow the directory."""
    width, height = leaf.size_px
    tags: list[tuple[int, int, int]] = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 1),
        (259, 3, 4),
        (262, 3, 0),
    ]
    resolution_at = directory_at + 2 + 12 * 11 + 4
    tags += [(273, 4, resolution_at + 8), (278, 4, height), (279, 4, len(leaf.data))]
    tags += [(282, 5, resolution_at), (283, 5, resolution_at), (296, 3, 2)]
    return [struct.pack("<HHII", tag, form, 1, value) for tag, form, value in tags]


def _save(pdf: pikepdf.Pdf, buffer: io.BytesIO, condition: Condition) -> None:
    """Pinned identifiers; encrypted with RC4, because AES takes random bytes and so differs each time."""
    plain = pikepdf.ObjectStreamMode.disable
    if condition not in (Condition.ENCRYPTED, Condition.LOCKED):
        pdf.save(buffer, object_stream_mode=plain, deterministic_id=True)
        return
    user = "sample" if condition is Condition.LOCKED else ""
    allowed = pikepdf.Permissions(modify_other=False, modify_assembly=False, modify_annotation=False)
    keys = pikepdf.Encryption(owner="recorder", user=user, R=3, allow=allowed, aes=False, metadata=False)
    pdf.save(buffer, object_stream_mode=plain, static_id=True, encryption=keys)


def _add_page(pdf: pikepdf.Pdf, leaf: Leaf) -> None:
    width_pt, height_pt = _points(leaf)
    page = pdf.add_blank_page(page_size=(width_pt, height_pt))
    content = [f"q {width_pt:.2f} 0 0 {height_pt:.2f} 0 0 cm /Im0 Do Q"]
    images = {"/Im0": _image(pdf, leaf)}
    resources = pikepdf.Dictionary()
    if leaf.overlay:
        images["/Im1"] = _image(pdf, leaf.overlay)
        content.append(_placed(leaf.overlay, width_pt, height_pt))
    if leaf.lines:
        resources.Font = pikepdf.Dictionary(F0=_helvetica())
        content.append(_text_layer(leaf, height_pt))
    resources.XObject = pikepdf.Dictionary(images)
    page.obj.Resources = resources
    page.obj.Contents = pdf.make_stream("\n".join(content).encode("latin-1"))


def _points(leaf: Leaf) -> tuple[float, float]:
    return leaf.size_px[0] * 72 / leaf.dpi, leaf.size_px[1] * 72 / leaf.dpi


def _image(pdf: pikepdf.Pdf, leaf: Leaf) -> pikepdf.Object:
    stream = pikepdf.Stream(pdf, leaf.data)
    stream.Type, stream.Subtype = pikepdf.Name.XObject, pikepdf.Name.Image
    stream.Width, stream.Height = leaf.size_px
    stream.BitsPerComponent = 8 if leaf.colours else 1
    stream.ColorSpace = pikepdf.Name.DeviceRGB if leaf.colours == 3 else pikepdf.Name.DeviceGray
    stream.Filter = pikepdf.Name.DCTDecode if leaf.colours else pikepdf.Name.CCITTFaxDecode
    if not leaf.colours:
        stream.DecodeParms = pikepdf.Dictionary(K=-1, Columns=leaf.size_px[0], Rows=leaf.size_px[1])
    return pdf.make_indirect(stream)


def _placed(overlay: Leaf, width_pt: float, height_pt: float) -> str:
    wide, high = _points(overlay)
    portrait = width_pt < height_pt
    x_pt, y_pt = (width_pt - wide - 36, height_pt - high - 57.6) if portrait else (40.0, 40.0)
    return f"q {wide:.2f} 0 0 {high:.2f} {x_pt:.2f} {y_pt:.2f} cm /Im1 Do Q"


def _helvetica() -> pikepdf.Dictionary:
    return pikepdf.Dictionary(
        Type=pikepdf.Name.Font,
        Subtype=pikepdf.Name.Type1,
        BaseFont=pikepdf.Name.Helvetica,
        Encoding=pikepdf.Name.WinAnsiEncoding,
    )


def _text_layer(leaf: Leaf, height_pt: float) -> str:
    """Invisible text (render mode 3) over the drawn lines; positions are in 300 dpi pixels from the top."""
    shown = ["BT 3 Tr"]
    for line in leaf.lines:
        size_pt, x_pt = line.size_px * 72 / DPI, line.x_px * 72 / DPI
        y_pt = height_pt - (line.y_px + line.size_px) * 72 / DPI
        text = line.text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        shown.append(f"/F0 {size_pt:.2f} Tf 1 0 0 1 {x_pt:.2f} {y_pt:.2f} Tm ({text}) Tj")
    return "\n".join([*shown, "ET"])
