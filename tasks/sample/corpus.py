"""What the sample portal has on record: any number of documents, each a function of the seed and its number.

Nothing is stored: a corpus of a million documents costs no memory, and every look-up is arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from tasks.sample.binding import Condition
from tasks.sample.chance import dice, shuffled
from tasks.sample.drawing import Stamp
from tasks.sample.scans import Kind, Scan, make_scan
from tasks.sample.shelves import BLOCK, Shelf, shelves
from tasks.sample.vocabulary import PARTIES, SEALED_TYPE, nature

ODDITY_BLOCK = 200
SCANS_KEPT = 512
"""Files kept in memory, about 150 KB each."""


class Oddity(StrEnum):
    """What is permanently unusual about a document."""

    SEALED = "sealed"
    """The look-up names the record but gives no image."""
    NOT_FOUND = "not_found"
    """The portal does not have it."""
    BOOK_PAGE = "book_page"
    """The look-up names another book or page than the index (4710 for 471)."""
    PAGE_COUNT = "page_count"
    """The file has one page fewer than the index says."""
    HTML_PAGE = "html_page"
    """The image link answers an HTML error page with status 200, always."""
    RERECORDED = "rerecorded"
    """The look-up lists another image, under another book and page, before the right one."""
    ENCRYPTED = "encrypted"
    """Opens without a password, with restrictions."""
    LOCKED = "locked"
    """Needs a password to open."""
    DAMAGED = "damaged"
    """Refused by a strict reader, recovered by a lenient one."""


ODDITIES: Mapping[Oddity, int] = {
    Oddity.BOOK_PAGE: 16,
    Oddity.SEALED: 4,
    Oddity.NOT_FOUND: 4,
    Oddity.DAMAGED: 3,
    Oddity.ENCRYPTED: 2,
    Oddity.RERECORDED: 2,
    Oddity.LOCKED: 1,
    Oddity.PAGE_COUNT: 1,
    Oddity.HTML_PAGE: 1,
}
"""How many of every 200 documents. From 100 documents on, every oddity occurs."""

_CONDITIONS = {
    Oddity.ENCRYPTED: Condition.ENCRYPTED,
    Oddity.LOCKED: Condition.LOCKED,
    Oddity.DAMAGED: Condition.DAMAGED,
}
_SHOWN_BY = {
    Oddity.SEALED: ("duprocess", "historical"),
    Oddity.BOOK_PAGE: ("duprocess", "historical"),
    Oddity.RERECORDED: ("duprocess",),
}
"""Oddities of a look-up, and the sources that can show them."""


class Document(NamedTuple):
    """One record: what the index says of it, what the portal says, and what the file is."""

    number: int
    source: str
    instrument: str
    """Empty for historical and direct documents: old books know no instrument numbers."""
    book: int
    page: int
    type_raw: str
    filed: date
    grantor: str
    grantee: str
    index_pages: int | None
    pages: int | None
    kind: Kind | None
    oddity: Oddity | None
    shown_book: int
    shown_page: int
    file_name: str
    path: Path | None = None


class Corpus(Protocol):
    """What the portal needs of a collection of documents. Finders return a document's number, or None."""

    def __len__(self) -> int: ...
    def document(self, number: int) -> Document: ...
    def find_instrument(self, instrument: str) -> int | None: ...
    def find_book_page(self, source: str, book: int, page: int) -> int | None: ...
    def find_file(self, name: str) -> int | None: ...
    def scan(self, document: Document) -> Scan: ...


class GeneratedCorpus:
    """`documents` records of all kinds.

    oddities   how many of each per 200 documents; {} for none
    distinct   how many different documents there are to draw, repeated; None: each has its own. A benchmark
               that must not spend its time on drawing says 20; the stamp then does not name the document
    """

    def __init__(
        self,
        documents: int = 200,
        seed: int = 7,
        oddities: Mapping[Oddity, int] = ODDITIES,
        distinct: int | None = None,
    ) -> None:
        self.seed, self._count, self._distinct = seed, documents, distinct
        self._oddities = {Oddity(name): share for name, share in oddities.items()}
        self._shelves = shelves(documents)
        self._shelf_of_slot = [s for s in self._shelves.values() for _ in range(s.slots)]
        self._odd_in_block = lru_cache(maxsize=64)(self._place_oddities)
        self._make_scan = lru_cache(maxsize=SCANS_KEPT)(make_scan)

    def __len__(self) -> int:
        return self._count

    def document(self, number: int) -> Document:
        """Record `number`, 0 <= number < len(self)."""
        shelf = self._shelf_of_slot[number % BLOCK]
        rank, roll = shelf.rank(number), dice(self.seed, number)
        book, page = shelf.place(rank, roll >> 10 & 1023)
        oddity = self._oddity(number, shelf)
        kind, type_raw, pages = self._nature(number, shelf, oddity)
        shown = _misread(book, page, roll) if oddity is Oddity.BOOK_PAGE else (book, page)
        return Document(
            number,
            shelf.source,
            str(shelf.instrument(rank, roll >> 20 & 1023)) if shelf.source == "duprocess" else "",
            book,
            page,
            type_raw,
            shelf.day(rank),
            PARTIES[roll & 31],
            PARTIES[roll >> 5 & 31],
            pages + 1 if oddity is Oddity.PAGE_COUNT else pages,
            pages,
            kind,
            oddity,
            *shown,
            f"{number:07d}.tif" if kind is Kind.TIFF else f"{number:07d}.pdf",
        )

    def find_instrument(self, instrument: str) -> int | None:
        """By instrument number; only duprocess documents have one."""
        if not (instrument.isascii() and instrument.isdigit()):
            return None
        number = self._known(self._shelves["duprocess"].find_instrument(int(instrument)))
        return number if number is not None and self.document(number).instrument == instrument else None

    def find_book_page(self, source: str, book: int, page: int) -> int | None:
        """By the book and page of the index, on the shelf of one source."""
        number = self._known(self._shelves[source].find(book, page))
        return number if number is not None and self.document(number)[3:5] == (book, page) else None

    def find_file(self, name: str) -> int | None:
        """By the name under /files/."""
        stem = name.partition(".")[0]
        number = self._known(int(stem)) if stem.isascii() and stem.isdigit() else None
        return number if number is not None and self.document(number).file_name == name else None

    def scan(self, document: Document) -> Scan:
        """The document's file: 5-20 ms, nothing when it was made before, and 3 s more once per process."""
        number = document.number % self._distinct if self._distinct else document.number
        stamp = Stamp(document.instrument, document.book, document.page, document.filed.isoformat())
        if self._distinct:
            stamp = Stamp("", 1, number + 1, "1997-03-14")
        condition = _CONDITIONS.get(document.oddity, Condition.SOUND) if document.oddity else Condition.SOUND
        return self._make_scan(
            number, seed=self.seed, kind=document.kind, pages=document.pages, stamp=stamp, condition=condition
        )

    def _known(self, number: int | None) -> int | None:
        return number if number is not None and 0 <= number < self._count else None

    def _nature(self, number: int, shelf: Shelf, oddity: Oddity | None) -> tuple[Kind, str, int]:
        model = number % self._distinct if self._distinct else number
        kind, type_raw, pages = nature(shelf.source, dice(self.seed + 1, model))
        if kind is Kind.TIFF and oddity in _CONDITIONS:
            kind = Kind.BILEVEL
        return kind, SEALED_TYPE if oddity is Oddity.SEALED else type_raw, pages

    def _oddity(self, number: int, shelf: Shelf) -> Oddity | None:
        oddity = self._odd_in_block(number // ODDITY_BLOCK).get(number % ODDITY_BLOCK)
        if oddity is None or shelf.source not in _SHOWN_BY.get(oddity, (shelf.source,)):
            return None
        return oddity

    def _place_oddities(self, block: int) -> dict[int, Oddity]:
        size = min(self._count, ODDITY_BLOCK)
        places = shuffled(f"oddities {self.seed} {block}", size)
        odd = [name for name, share in self._oddities.items() for _ in range(int(share * size / 200 + 0.5))]
        return dict(zip(places, odd, strict=False))


def _misread(book: int, page: int, roll: int) -> tuple[int, int]:
    """The ways look-ups differ in the field: a digit too many, the next page, the next book."""
    return ((book * 10, page), (book, page + 1), (book + 1, page))[roll % 3]
