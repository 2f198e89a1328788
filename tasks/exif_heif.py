"""Where HEIC and AVIF keep their Exif block and XMP packet: items of the `meta` box. Pure.

Sources: ISO/IEC 14496-12 (boxes, 8.11.3 iloc, 8.11.6 iinf); ISO/IEC 23008-12, annex A (Exif and XMP items).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from struct import Struct

from tasks.exif_ranges import Broken, Ranges, Steps, Window
from tasks.exif_segments import bare

_META, _INFO, _LOCATION, _DATA = b"meta", b"iinf", b"iloc", b"idat"
_IN_FILE, _IN_DATA = 0, 1
_XMP_TYPE = b"application/rdf+xml\0"
_ENTRY = Struct(">I4xB3xH2x4s")  # infe, version 2: size, version, number, type
_FORMS = {0: "0s", 4: "I", 8: "Q"}  # a field of no bytes comes out empty


class Heif:
    """A file of boxes. Its items are looked up once."""

    def __init__(self, file: Ranges) -> None:
        self._file = file
        self._items: tuple[Window | None, Window | None] | None = None

    def exif(self) -> Steps[Window | None]:
        """The Exif block, from its TIFF header on; None when the file has none. Raises Broken, OverBudget."""
        item, _ = yield from self._found()
        if item is None:
            return None
        skipped = int.from_bytes((yield from item.read(0, 4)))
        return (yield from bare(item.part(4 + skipped)))

    def xmp(self) -> Steps[Window | None]:
        """The XMP packet; None when the file has none. Raises Broken, OverBudget."""
        _, item = yield from self._found()
        return item

    def _found(self) -> Steps[tuple[Window | None, Window | None]]:
        if self._items is None:
            self._items = yield from self._look_up()
        return self._items

    def _look_up(self) -> Steps[tuple[Window | None, Window | None]]:
        meta = (yield from _boxes(Window(self._file, 0, self._file.size), 0, _META))[_META]
        inside = yield from _boxes(meta, 4, _INFO, _LOCATION)
        exif, xmp = _item_numbers((yield from _whole(inside[_INFO])))
        extents = _extents((yield from _whole(inside[_LOCATION])), (exif, xmp))
        return (yield from self._item(meta, extents.get(exif))), (yield from self._item(meta, extents.get(xmp)))

    def _item(self, meta: Window, extent: _Extent | None) -> Steps[Window | None]:
        """The part of the file that an item lies in; None when it lies anywhere else."""
        if extent is None or extent.elsewhere or extent.method not in (_IN_FILE, _IN_DATA):
            return None
        home = Window(self._file, 0, self._file.size)
        if extent.method == _IN_DATA:
            home = (yield from _boxes(meta, 4, _DATA))[_DATA]
        return home.part(extent.offset, extent.length or None)


@dataclass(frozen=True, slots=True)
class _Extent:
    """The first extent of an item; metadata have no second. length: 0 means all there is."""

    method: int
    elsewhere: bool
    offset: int
    length: int


def _boxes(part: Window, at: int, *wanted: bytes) -> Steps[dict[bytes, Window]]:
    """Contents of the first box of each wanted kind. Raises Broken when one is missing."""
    found: dict[bytes, Window] = {}
    while len(found) < len(wanted):
        head = yield from part.read(at, 8)
        size, kind, content_at = int.from_bytes(head[:4]), head[4:], at + 8
        if size == 1:
            size, content_at = int.from_bytes((yield from part.read(at + 8, 8))), at + 16
        end = at + size if size else part.length
        if end < content_at:
            raise Broken("a box shorter than its own head")
        if kind in wanted:
            found.setdefault(kind, part.part(content_at, end - content_at))
        at = end
    return found


def _whole(box: Window) -> Steps[bytes]:
    if box.length < 8:
        raise Broken("a box too short for its fields")
    return (yield from box.read(0, box.length))


def _item_numbers(info: bytes) -> tuple[int | None, int | None]:
    """Numbers of the Exif and the XMP item, from the content of an `iinf` box."""
    exif: int | None = None
    xmp: int | None = None
    at = 8 if info[0] else 6  # version, flags and the number of entries
    while at + _ENTRY.size <= len(info):
        size, version, item, kind = _ENTRY.unpack_from(info, at)
        if version == 3:
            item, kind = int.from_bytes(info[at + 12 : at + 16]), info[at + 18 : at + 22]
        if size < _ENTRY.size - 4:  # entries before version 2 have no type, and are shorter
            raise Broken("an item entry shorter than its own head")
        if kind == b"Exif" and exif is None:
            exif = item
        elif kind == b"mime" and xmp is None and _XMP_TYPE in info[at : at + size]:
            xmp = item
        at += size
    return exif, xmp


def _extents(location: bytes, wanted: Collection[int | None]) -> dict[int | None, _Extent]:
    """Item number -> where its data are, from the content of an `iloc` box."""
    version, sizes = location[0], int.from_bytes(location[4:6])
    forms = [_FORMS.get(sizes >> shift & 15) for shift in (12, 8, 4, 0)]
    offset_form, length_form, base_form, index_form = forms
    if None in forms or version > 2:
        raise Broken("an item location in no known form")
    head = Struct(f">{'I' if version == 2 else 'H'}{'H' if version else '0s'}H{base_form}H")
    extent = Struct(f">{index_form if version else '0s'}{offset_form}{length_form}")
    found: dict[int | None, _Extent] = {}
    at = 10 if version == 2 else 8
    while at + head.size <= len(location):
        item, method, elsewhere, base, count = head.unpack_from(location, at)
        at += head.size
        if item in wanted and count and at + extent.size <= len(location):
            _, offset, length = extent.unpack_from(location, at)
            found[item] = _Extent((method or 0) & 15, bool(elsewhere), (base or 0) + (offset or 0), length or 0)
        at += count * extent.size
    return found
