"""Related items: the references to other instruments that an index keeps as text.

    945431 bk:4140/753; 945432 bk:4140/760

Instrument numbers and book/page come in any combination, several in a row, in several spellings
(`bk 4140 pg 753`, `Book: 4140 Page: 753`, `4140/753`). What is not a reference is kept as it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

LARGEST_INTEGER = 2**31 - 1

# "Book 4140, Page 753" is one reference.
_SEPARATOR = re.compile(r"[;|\r\n]+|,(?!\s*p(?:g|age)?\b)", re.IGNORECASE)
_REFERENCE = re.compile(
    r"""
    (?: (?<! [\w/-] ) (?P<instrument> [A-Z]{0,3} -? \d [A-Z0-9-]*? ) \s* )?
    (?: (?<! [A-Z] ) (?: bk | book ) (?! [A-Z] ) [\s.:#]*                    # bk:4140/753, either number missing
        (?: (?P<book> \d+ ) (?! \w ) [\s,]* )?
        (?: (?: [/-] | p (?: g | age )? (?! [A-Z] ) ) [\s.:#]* (?: p (?: g | age )? [\s.:#]* )?
            (?: (?P<page> \d+ ) (?! [\w/-] ) )? )?
      | (?<! [\w/-] ) (?P<bare_book> \d+ ) \s* / \s* (?P<bare_page> \d+ ) (?! [\w/-] )  # but not 12/31/1999
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_INSTRUMENTS = re.compile(r"\s* (?: [A-Z]{0,3} -? \d [A-Z0-9-]* (?: \s+ | $ ) )+", re.IGNORECASE | re.VERBOSE)


class RelatedItem(NamedTuple):
    """One reference. The database says whether it has the target, and under which id.

    raw   the text, where it could not be read as a reference
    """

    instrument_number: str | None = None
    book: int | None = None
    page: int | None = None
    exists_in_db: bool = False
    target_id: int | None = None
    raw: str | None = None

    def as_json(self) -> dict[str, object]:
        """The item as `index_documents.related_items` keeps it; `raw` only where there is one."""
        item: dict[str, object] = {
            "instrument_number": self.instrument_number,
            "book": self.book,
            "page": self.page,
            "exists_in_db": self.exists_in_db,
            "target_id": self.target_id,
        }
        return item if self.raw is None else {**item, "raw": self.raw}


def related_items(text: str) -> list[RelatedItem]:
    """The references in a row's `related_items_raw`, in order. Never raises; no text is dropped."""
    return [item for part in _SEPARATOR.split(text) for item in _items_of(part)]


def related_items_json(text: str) -> str:
    """`related_items(text)` as the jsonb text of a row."""
    return json.dumps([item.as_json() for item in related_items(text)], ensure_ascii=False)


def _items_of(part: str) -> Iterator[RelatedItem]:
    end = 0
    for match in _REFERENCE.finditer(part):
        yield from _between(part[end : match.start()])
        yield _item(match)
        end = match.end()
    yield from _between(part[end:])


def _between(text: str) -> Iterator[RelatedItem]:
    """What stands before, between and after references: bare instrument numbers, or something else."""
    if _INSTRUMENTS.fullmatch(text):
        yield from (RelatedItem(instrument_number=number) for number in text.split())
    elif text.strip():
        yield RelatedItem(raw=text.strip())


def _item(match: re.Match[str]) -> RelatedItem:
    instrument, book_digits, page_digits, bare_book, bare_page = match.groups()
    book, page = _number(book_digits or bare_book), _number(page_digits or bare_page)
    known_instrument = instrument if instrument and instrument.strip("0-") else None
    too_large = (book or 0) > LARGEST_INTEGER or (page or 0) > LARGEST_INTEGER
    if too_large or not (known_instrument or book or page):
        return RelatedItem(raw=match[0].strip())
    return RelatedItem(known_instrument, book, page)


def _number(digits: str | None) -> int | None:
    """Indexes write 0 where they do not know. Digits beyond any integer column are cut, and stay too large."""
    return int(digits.lstrip("0")[:12] or 0) or None if digits else None
