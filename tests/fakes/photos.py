"""Photos of every container and layout, put together byte by byte, so that anything in them can be wrong.

A picture is never in them: what reads metadata by ranges does not look at it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SLONG, SRATIONAL, FLOAT, DOUBLE, LONG8 = (
    1,
    2,
    3,
    4,
    5,
    7,
    9,
    10,
    11,
    12,
    16,
)
_CODES = {SHORT: "H", LONG: "I", SLONG: "i", RATIONAL: "II", SRATIONAL: "ii", FLOAT: "f", DOUBLE: "d", LONG8: "Q"}
EXIF, GPS, PACKET = 34665, 34853, 700
XMP_LABEL = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(frozen=True)
class Tag:
    """A value: bytes for BYTE, ASCII and UNDEFINED; else numbers, pairs of them for rationals.

    count, offset  told instead of the true ones
    """

    kind: int
    values: Any
    count: int | None = None
    offset: int | None = None

    def packed(self, order: str) -> bytes:
        if isinstance(self.values, bytes):
            return self.values
        rows = [value if isinstance(value, tuple) else (value,) for value in self.values]
        return b"".join(struct.pack(order + _CODES[self.kind], *row) for row in rows)


Tags = Mapping[int, Tag]


def ascii_(text: str) -> Tag:
    return Tag(ASCII, text.encode("latin-1") + b"\0")


def rationals(*pairs: tuple[int, int]) -> Tag:
    return Tag(RATIONAL, pairs)


def dms(angle: float, parts: int = 10**6) -> Tag:
    """Degrees, minutes and seconds of an angle, without its sign."""
    minutes, seconds = divmod(round(abs(Fraction(angle)) * 3600 * parts), 60 * parts)
    return rationals((minutes // 60, 1), (minutes % 60, 1), (seconds, parts))


def position(latitude: float, longitude: float) -> dict[int, Tag]:
    """The four GPS tags of a place."""
    return {
        1: ascii_("S" if latitude < 0 else "N"),
        2: dms(latitude),
        3: ascii_("W" if longitude < 0 else "E"),
        4: dms(longitude),
    }


CAMERA: Tags = {271: ascii_("Acme"), 272: ascii_("Sharp 1")}
TAKEN: Tags = {36867: ascii_("2024:05:06 07:08:09"), 36881: ascii_("+02:00")}


@dataclass(frozen=True)
class Layout:
    """How a TIFF is laid out. gap: bytes of filling between its directories."""

    order: str = "<"
    big: bool = False
    gap: int = 0

    def head(self, first: int) -> bytes:
        mark = b"II" if self.order == "<" else b"MM"
        if self.big:
            return mark + struct.pack(self.order + "HHHQ", 43, 8, 0, first)
        return mark + struct.pack(self.order + "HI", 42, first)

    def directory(self, tags: Tags, start: int, following: int = 0) -> bytes:
        entry, count, link, room = ("HHQ", "Q", "Q", 8) if self.big else ("HHI", "H", "I", 4)
        size = struct.calcsize("<" + entry) + room
        after = start + struct.calcsize("<" + count) + len(tags) * size + struct.calcsize("<" + link)
        entries, outside = b"", b""
        for number, tag in sorted(tags.items()):
            raw = tag.packed(self.order)
            width = struct.calcsize(self.order + _CODES.get(tag.kind, "B"))
            told = len(raw) // width if tag.count is None else tag.count
            entries += struct.pack(self.order + entry, number, tag.kind, told)
            if tag.offset is not None or len(raw) > room:
                place = after + len(outside) if tag.offset is None else tag.offset
                entries += struct.pack(self.order + link, place)
                outside += raw + bytes(len(raw) % 2)
            else:
                entries += raw.ljust(room, b"\0")
        whole = struct.pack(self.order + count, len(tags)) + entries + struct.pack(self.order + link, following)
        return whole + outside


CLASSIC = Layout()


def tiff(
    gps: Tags | None = None,
    *,
    first: Tags | None = None,
    exif: Tags | None = None,
    layout: Layout = CLASSIC,
    last: bool = False,
) -> bytes:
    """An Exif block, or a TIFF file without a picture. last: its first directory lies at the end, as libtiff's does."""
    start = 16 if layout.big else 8
    pointer = LONG8 if layout.big else LONG
    tags = dict(CAMERA if first is None else first)
    extra = {EXIF: TAKEN if exif is None else exif, GPS: gps}
    extra = {link: directory for link, directory in extra.items() if directory is not None}
    dummy = {**{link: Tag(pointer, [0]) for link in extra}, **tags}
    first_bytes = layout.directory(dummy, start)
    body = b"" if last else first_bytes
    for link, directory in extra.items():
        body += bytes(layout.gap)
        tags.setdefault(link, Tag(pointer, [start + len(body)]))
        body += layout.directory(directory or {}, start + len(body))
    if last:
        body += bytes(layout.gap)
        return layout.head(start + len(body)) + body + layout.directory(tags, start + len(body))
    return layout.head(start) + layout.directory(tags, start) + body[len(first_bytes) :]


# --- JPEG


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg(exif: bytes | None, xmp: bytes | None = None, *, before: bytes = b"", between: bytes = b"") -> bytes:
    """before, between: whole segments in front of Exif, and between it and the packet."""
    parts = [b"\xff\xd8", before]
    if exif is not None:
        parts.append(segment(0xE1, b"Exif\0\0" + exif))
    parts.append(between)
    if xmp is not None:
        parts.append(segment(0xE1, XMP_LABEL + xmp))
    return b"".join(parts) + segment(0xDA, bytes(10)) + bytes(5000) + b"\xff\xd9"


# --- PNG


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def profile(block: bytes) -> bytes:
    """ImageMagick's way to write an Exif block as text."""
    digits = (b"Exif\0\0" + block).hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return f"\nexif\n{len(digits) // 2:8d}\n{lines}\n".encode()


def png(
    exif: bytes | None, xmp: bytes | None = None, *, late: bool = False, idat: Sequence[int] = (8192, 8192, 77)
) -> bytes:
    """late: metadata behind the picture. idat: lengths of the picture's chunks."""
    chunks = [chunk(b"eXIf", exif)] if exif is not None else []
    if xmp is not None:
        chunks.append(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    return png_of(b"" if late else b"".join(chunks), b"".join(chunks) if late else b"", idat)


def png_of(before: bytes, after: bytes = b"", idat: Sequence[int] = (8192, 8192, 77)) -> bytes:
    picture = b"".join(chunk(b"IDAT", bytes(length)) for length in idat)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    return start + before + picture + after + chunk(b"IEND", b"")


# --- WebP


def riff(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def webp(exif: bytes | None, xmp: bytes | None = None, *, picture_bytes: int = 9001) -> bytes:
    chunks = riff(b"VP8X", bytes([0x0C, 0, 0, 0, 63, 0, 0, 63, 0, 0])) + riff(b"VP8 ", bytes(picture_bytes))
    chunks += riff(b"EXIF", exif) if exif is not None else b""
    chunks += riff(b"XMP ", xmp) if xmp is not None else b""
    return riff(b"RIFF", b"WEBP" + chunks)


# --- HEIC, AVIF


def box(kind: bytes, content: bytes, *, wide: bool = False) -> bytes:
    """wide: its size is a 64-bit number."""
    if wide:
        return struct.pack(">I4sQ", 1, kind, len(content) + 16) + content
    return struct.pack(">I4s", len(content) + 8, kind) + content


def full_box(kind: bytes, version: int, content: bytes) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]) + content)


@dataclass(frozen=True)
class Boxes:
    """How a HEIC is laid out.

    version   of iloc: 0, 1 or 2 (which has 32-bit item numbers)
    in_idat   items lie in the meta box itself
    late      the meta box follows the data
    wide      box sizes are 64-bit numbers
    tiles     how many picture items there are before the metadata
    based     the places of items are told from a base of their own
    unsized   items are told to reach to the end of what they lie in
    method, reference   told instead of the true ones: where items lie
    """

    brand: bytes = b"heic"
    version: int = 1
    in_idat: bool = False
    late: bool = False
    wide: bool = False
    tiles: int = 3
    based: bool = False
    unsized: bool = False
    method: int | None = None
    reference: int = 0
    label: bytes = b"\0\0\0\6Exif\0\0"
    picture_bytes: int = 20_000


PLAIN_BOXES = Boxes()


def heif(exif: bytes | None, xmp: bytes | None = None, boxes: Boxes = PLAIN_BOXES) -> bytes:
    items = [(b"hvc1", bytes(40))] * boxes.tiles
    items += [(b"Exif", boxes.label + exif)] if exif is not None else []
    items += [(b"mime", xmp)] if xmp is not None else []
    start = box(b"ftyp", boxes.brand + bytes(4) + boxes.brand + b"mif1")
    content = bytes(boxes.picture_bytes) + b"".join(data for _, data in items)
    length = len(_meta(items, boxes, content, 5))
    head = 16 if boxes.wide else 8
    data_at = 0 if boxes.in_idat else len(start) + head + (0 if boxes.late else length)
    meta = _meta(items, boxes, content, data_at + boxes.picture_bytes)
    data = box(b"mdat", b"" if boxes.in_idat else content, wide=boxes.wide)
    return start + (data + meta if boxes.late else meta + data)


def _meta(items: Sequence[tuple[bytes, bytes]], boxes: Boxes, content: bytes, at: int) -> bytes:
    number = ">I" if boxes.version == 2 else ">H"
    infos, places = b"", b""
    for index, (kind, data) in enumerate(items, 1):
        named = b"\0application/rdf+xml\0" if kind == b"mime" else b"\0"
        infos += full_box(b"infe", 3 if boxes.version == 2 else 2, struct.pack(number, index) + bytes(2) + kind + named)
        method = int(boxes.in_idat) if boxes.method is None else boxes.method
        places += struct.pack(number, index) + (struct.pack(">H", method) if boxes.version else b"")
        base = struct.pack(">Q", at - 5) if boxes.based else b""
        offset, length = 5 if boxes.based else at, 0 if boxes.unsized else len(data)
        places += struct.pack(">H", boxes.reference) + base + struct.pack(">HII", 1, offset, length)
        at += len(data)
    wide = int(boxes.version == 2)
    info = full_box(b"iinf", wide, struct.pack(">I" if wide else ">H", len(items)) + infos)
    sizes = b"\x44\x80" if boxes.based else b"\x44\0"
    location = full_box(b"iloc", boxes.version, sizes + struct.pack(number, len(items)) + places)
    inside = full_box(b"hdlr", 0, bytes(20)) + info + location
    if boxes.in_idat:
        inside += box(b"idat", content)
    return box(b"meta", bytes(4) + inside, wide=boxes.wide)


def packet(*properties: str, lead: str = "", spelling: str = '{0}="{1}"') -> bytes:
    """An XMP packet of `name=value` properties; lead: comes before them."""
    pairs = [tuple(written.split("=", 1)) for written in properties]
    said = "\n".join(spelling.format(name, value) for name, value in pairs)
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description rdf:about=""'
        f' xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" {lead}\n{said}/></rdf:RDF></x:xmpmeta>'
    ).encode()


Container = Callable[[bytes, bytes | None], bytes]


CONTAINERS: dict[str, Container] = {
    "jpeg": jpeg,
    "jpeg, JFIF and ICC first": lambda exif, xmp: jpeg(
        exif, xmp, before=segment(0xE0, b"JFIF\0" + bytes(9)) + segment(0xE2, bytes(9000))
    ),
    "jpeg, packet first": lambda exif, xmp: jpeg(
        exif, None, before=segment(0xE1, XMP_LABEL + xmp) if xmp is not None else b"\xff\xff"
    ),
    "png": png,
    "png, behind the picture": lambda exif, xmp: png(exif, xmp, late=True, idat=[8192] * 300 + [99]),
    "webp": webp,
    "heic": heif,
    "heic, in idat": lambda exif, xmp: heif(exif, xmp, Boxes(in_idat=True)),
    "heic, meta behind the data": lambda exif, xmp: heif(exif, xmp, Boxes(late=True)),
    "heic, wide": lambda exif, xmp: heif(exif, xmp, Boxes(wide=True, version=2, tiles=400)),
    "avif": lambda exif, xmp: heif(exif, xmp, Boxes(brand=b"avif", version=0)),
}
"""Each takes an Exif block and an XMP packet. TIFF is missing: it *is* the block."""
