"""What a portal's page says of a document, and which of several records is the one an index row means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from selectolax.lexbor import LexborNode

from tasks.errors import SkippedItem, TerminalError, TransientError
from tasks.records import Reason

Row = Mapping[str, Any]
"""A row of `index_documents`, columns by name."""

Cells = dict[str, LexborNode]
"""One record: heading in small letters -> the cell below or beside it."""


@dataclass(frozen=True, slots=True)
class Located:
    """Where a row's document is, and what the portal says it is. None: the portal does not say.

    requests   look-ups made to find it; the download itself is not counted
    """

    url: str
    book: int | None = None
    page: int | None = None
    document_type: str | None = None
    grantor: str | None = None
    grantee: str | None = None
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A record as shown: texts by their name in `Labels`, and the address behind its image, or ''."""

    texts: Mapping[str, str]
    href: str

    @property
    def place(self) -> tuple[int | None, int | None]:
        """Book and page."""
        return number_of(self.texts.get("book")), number_of(self.texts.get("page"))

    def is_of(self, row: Row) -> bool:
        """Whether it names the row's instrument."""
        return key(self.texts.get("instrument", "")) == key(str(row.get("instrument_number") or ""))

    def located(self, page_url: str, row: Row, sealed_text: str) -> Located:
        """Raises SkippedItem(sealed) when `sealed_text` stands in place of the link."""
        if not self.href and sealed_text.casefold() in self.texts["image"].casefold():
            raise SkippedItem(Reason.SEALED, f"The portal keeps {name_of(row)} sealed.")
        url = joined(page_url, self.href) if self.href else None
        if url is None:
            raise changed(row, f"{self.texts['image']!r} where the link to the document should be")
        book, page = self.place
        said = {name: self.texts.get(name) or None for name in ("document_type", "grantor", "grantee")}
        return Located(url, book, page, **said, requests=1)


def chosen(records: Sequence[Record], row: Row) -> Record:
    """The record of the row's book and page, else of its instrument, else the first.

    A record listed several times (once per party) is taken from a line that has the link.
    """
    place = (number_of(row.get("book")), number_of(row.get("page")))
    best = min(records, key=lambda record: (record.place != place, not record.is_of(row)))
    twins = [r for r in records if r.place == best.place and r.is_of(row) == best.is_of(row)]
    return next((twin for twin in twins if twin.href), best)


def table_cells(table: LexborNode) -> Iterator[Cells]:
    """A record per line below the headings; lines across the table (notes, page links) are none."""
    lines = table.css("tr")
    headings = [key(words(cell)) for cell in lines[0].css("th, td")] if lines else []
    for line in lines[1:]:
        cells = line.css("td, th")
        if len(cells) == len(headings):
            yield dict(zip(headings, cells, strict=True))


def list_cells(terms: LexborNode) -> Iterator[Cells]:
    """The one record of a definition list; none when the list is empty."""
    cells: Cells = {}
    heading = ""
    for node in terms.css("dt, dd"):
        if node.tag == "dt":
            heading = key(words(node))
        else:
            cells.setdefault(heading, node)
    if cells:
        yield cells


def joined(base: str, address: str) -> str | None:
    """Absolute http(s) address, or None when it is something else."""
    try:
        url = urljoin(base, address)
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.hostname else None


def text_of(value: object) -> str:
    """A cell of the index as text; None is empty."""
    return "" if value is None else str(value).strip()


def number_of(value: object) -> int | None:
    """A book or page number: '0471' is 471, '471-A' is not one."""
    text = text_of(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def href_in(cell: LexborNode) -> str:
    """Where the first link in the cell leads; empty when nowhere."""
    link = cell.css_first("a[href]")
    href = (link.attributes["href"] or "").strip() if link is not None else ""
    return "" if href.startswith("#") else href


def words(node: LexborNode) -> str:
    """The visible text, white space made single."""
    return " ".join(str(node.text(separator=" ")).split())


def key(text: str) -> str:
    """For comparing what people wrote: no colon, no capitals, white space made single."""
    return " ".join(text.split()).rstrip(":").casefold()


def name_of(row: Row) -> str:
    """The row as messages name it: by what an operator can search the index for."""
    names = (("row", "id"), ("book", "book"), ("page", "page"), ("instrument", "instrument_number"))
    return " ".join(f"{said} {row[column]}" for said, column in names if row.get(column)) or "a row"


def bad_row(row: Row, what: str) -> TerminalError:
    """The index row itself has to be corrected."""
    return TerminalError(Reason.BAD_ROW, f"Index {name_of(row)} cannot be looked up: {what}.")


def changed(row: Row, what: str) -> TransientError:
    """The portal shows something that its profile does not know: an error page, or a changed portal."""
    said = f"The portal's page for {name_of(row)} shows {what}"
    return TransientError(Reason.PORTAL_ERROR, f"{said}; if every row says so, correct the profile.")
