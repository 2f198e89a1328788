"""Where documents stand in the record books: number <-> book, page and instrument number, by arithmetic.

Of every 20 documents 4 are historical, 15 duprocess and 1 direct. Each source has a run of books to itself
and its documents are spread over it evenly, so 200 documents span the same books as a million.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta

BLOCK = 20
PAGES_PER_BOOK = 600
FIRST_INSTRUMENT, LAST_INSTRUMENT = 200_000, 990_000


@dataclass(frozen=True, slots=True)
class Shelf:
    """The books of one source, sized for a number of blocks of 20 documents.

    first_slot, slots   which of every 20 documents stand here
    """

    source: str
    first_book: int
    last_book: int
    first_slot: int
    slots: int
    first_day: date
    last_day: date
    per_book: int = PAGES_PER_BOOK
    step: int = 1
    ranks: int = 1
    instrument_step: int = 1

    def sized(self, blocks: int) -> Shelf:
        """The same shelf for `blocks` x 20 documents: longer books where 600 pages do not suffice."""
        books, ranks = self.last_book - self.first_book + 1, max(1, blocks * self.slots)
        per_book = max(PAGES_PER_BOOK, -(-ranks // books))
        step, instrument_step = (
            books * per_book // ranks,
            max(1, (LAST_INSTRUMENT - FIRST_INSTRUMENT) // ranks),
        )
        return replace(self, per_book=per_book, step=step, ranks=ranks, instrument_step=instrument_step)

    def rank(self, number: int) -> int:
        """Place of document `number` among those of this shelf."""
        return number // BLOCK * self.slots + number % BLOCK - self.first_slot

    def number(self, rank: int) -> int:
        """The document at `rank`."""
        return rank // self.slots * BLOCK + self.first_slot + rank % self.slots

    def place(self, rank: int, jitter: int) -> tuple[int, int]:
        """Book and page."""
        at = rank * self.step + jitter % self.step
        return self.first_book + at // self.per_book, 1 + at % self.per_book

    def find(self, book: int, page: int) -> int | None:
        """The only document that may stand at this book and page; None outside the shelf."""
        if not (self.first_book <= book <= self.last_book and 1 <= page <= self.per_book):
            return None
        return self.number(((book - self.first_book) * self.per_book + page - 1) // self.step)

    def day(self, rank: int) -> date:
        """Filing date: later books are younger."""
        return self.first_day + timedelta((self.last_day - self.first_day).days * rank // self.ranks)

    def instrument(self, rank: int, jitter: int) -> int:
        """Instrument number, ascending; six digits up to a million documents."""
        return FIRST_INSTRUMENT + rank * self.instrument_step + jitter % self.instrument_step

    def find_instrument(self, instrument: int) -> int | None:
        """The only document that may have this instrument number."""
        rank = (instrument - FIRST_INSTRUMENT) // self.instrument_step
        return self.number(rank) if rank >= 0 else None


HISTORICAL = Shelf("historical", 1, 237, 0, 4, date(1881, 1, 3), date(1968, 12, 30))
DUPROCESS = Shelf("duprocess", 238, 3870, 4, 15, date(1969, 1, 2), date(2023, 12, 29))
DIRECT = Shelf("direct", 3871, 3971, 19, 1, date(2024, 1, 2), date(2024, 12, 30))


def shelves(documents: int) -> dict[str, Shelf]:
    """The three shelves by source, sized for a number of documents."""
    blocks = -(-documents // BLOCK)
    return {shelf.source: shelf.sized(blocks) for shelf in (HISTORICAL, DUPROCESS, DIRECT)}
