"""From an index row to the address of its document: one small adapter per kind of portal.

Adapters read HTML with a parser (selectolax, lexbor) and take every name from the county's `PortalProfile`.
A page that shows neither a record nor the portal's own words for "nothing found" is not taken for an answer.
"""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import quote, urljoin

from selectolax.lexbor import LexborHTMLParser, LexborNode

from tasks.errors import SkippedItem, TerminalError
from tasks.portal_profile import LookUp, PortalProfile, load_profile
from tasks.portal_records import (
    Cells,
    Located,
    Record,
    Row,
    bad_row,
    changed,
    chosen,
    href_in,
    joined,
    key,
    list_cells,
    name_of,
    number_of,
    table_cells,
    text_of,
    words,
)
from tasks.records import Reason

__all__ = ["Adapter", "Located", "PortalProfile", "adapter_for", "load_profile", "mismatch"]


class FetchedPage(Protocol):
    """What an adapter needs of a page: its address after redirects and its HTML."""

    @property
    def url(self) -> str: ...
    @property
    def text(self) -> str: ...


class PageDoor(Protocol):
    """What an adapter needs of `tasks.downloads.HttpDoor`."""

    def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> FetchedPage: ...


class Adapter(ABC):
    """Knows how one kind of portal names its documents."""

    def __init__(self, profile: PortalProfile) -> None:
        self._portal_url = profile.portal_url

    @abstractmethod
    def locate(self, row: Row, door: PageDoor) -> Located:
        """Where the row's document is.

        Raises TerminalError (bad_row, not_found), SkippedItem (sealed), TransientError (portal_error: the
        page is neither a result nor "nothing found") and whatever the door raises.
        """


class DirectAdapter(Adapter):
    """Rows that name their file in `source_url`, or by the profile's template over their columns."""

    def __init__(self, profile: PortalProfile) -> None:
        super().__init__(profile)
        self._template = profile.direct.url_template

    def locate(self, row: Row, door: PageDoor) -> Located:  # noqa: ARG002 - nothing to look up
        """No request at all."""
        named = text_of(row.get("source_url")) or self._from_template(row)
        url = joined(self._portal_url, named)
        if url is None:
            raise bad_row(row, "its source_url is neither an http address nor a path; correct it")
        return Located(url)

    def _from_template(self, row: Row) -> str:
        if not self._template:
            raise bad_row(row, "source_url is empty; fill it or give the profile a direct.url_template")
        try:
            return "".join(_filled(self._template, row))
        except (KeyError, ValueError, TypeError) as exc:
            raise bad_row(row, f"{self._template!r} needs a column that does not fit: {exc}") from exc


class _LookUpAdapter(Adapter):
    """Asks the portal's form, then reads the records on the page it answers."""

    def __init__(self, profile: PortalProfile, look_up: LookUp) -> None:
        super().__init__(profile)
        self._look_up = look_up

    def locate(self, row: Row, door: PageDoor) -> Located:
        """One look-up; the answer's link leads to the document."""
        form = {**self._look_up.fields, **self._asked(row)}
        url = urljoin(self._portal_url, self._look_up.path)
        posts = self._look_up.method == "POST"
        page = door.fetch(url, method="POST", data=form) if posts else door.fetch(url, params=form)
        record = chosen(self._records(page.text, row), row)
        return record.located(page.url, row, self._look_up.sealed_text)

    @abstractmethod
    def _cells(self, found: LexborNode) -> Iterator[Cells]:
        """The records inside the results element."""

    def _asked(self, row: Row) -> dict[str, str]:
        asked = {}
        for form_field, column in self._look_up.asks.items():
            asked[form_field] = text_of(row.get(column))
            if asked[form_field] in ("", "0"):
                raise bad_row(row, f"{column} is missing, and the portal is asked by it; fill it")
        return asked

    def _records(self, html: str, row: Row) -> list[Record]:
        tree = LexborHTMLParser(html)
        found = tree.css_first(self._look_up.results)
        records = [self._record(cells, row) for cells in self._cells(found)] if found is not None else []
        if records:
            return records
        if tree.css_first(self._look_up.no_results) is not None:
            raise TerminalError(Reason.NOT_FOUND, f"The portal has no document for {name_of(row)}.")
        raise changed(row, "neither a result nor the words that nothing was found")

    def _record(self, cells: Cells, row: Row) -> Record:
        labels = {name: key(label) for name, label in self._look_up.labels.model_dump().items() if label}
        missing = [label for label in labels.values() if label not in cells]
        if missing:
            raise changed(row, f"no {missing[0]!r}")
        texts = {name: words(cells[label]) for name, label in labels.items()}
        return Record(texts, href_in(cells[labels["image"]]))


class DuprocessAdapter(_LookUpAdapter):
    """A search by instrument number that answers a table, a row per record. Two requests per document."""

    def __init__(self, profile: PortalProfile) -> None:
        super().__init__(profile, profile.duprocess)

    def _cells(self, found: LexborNode) -> Iterator[Cells]:
        return table_cells(found)


class HistoricalAdapter(_LookUpAdapter):
    """A look-up by book and page that answers one record as a definition list."""

    def __init__(self, profile: PortalProfile) -> None:
        super().__init__(profile, profile.historical)

    def _cells(self, found: LexborNode) -> Iterator[Cells]:
        return list_cells(found)


_ADAPTERS: dict[str, type[DirectAdapter | DuprocessAdapter | HistoricalAdapter]] = {
    "direct": DirectAdapter,
    "duprocess": DuprocessAdapter,
    "historical": HistoricalAdapter,
}


def adapter_for(row: Row, profile: PortalProfile) -> Adapter:
    """The adapter that the row's `source` names, else the one of its book's range.

    Raises SkippedItem(out_of_range) for a book that the profile leaves out (also when `source` names a
    look-up) and TerminalError(bad_row) for a row with neither.
    """
    source = text_of(row.get("source")).lower()
    if source == "direct":
        return DirectAdapter(profile)
    book = number_of(row.get("book"))
    if book is None:
        if source in _ADAPTERS:
            return _ADAPTERS[source](profile)
        raise bad_row(row, "it has no book, and its source names no adapter; fill one of them")
    for books in profile.ranges:
        if books.holds(book):
            return _ADAPTERS[source if source in _ADAPTERS else books.adapter](profile)
    raise SkippedItem(Reason.OUT_OF_RANGE, f"Book {book} of {name_of(row)} is left out by the portal's profile.")


def mismatch(row: Row, located: Located) -> bool:
    """Whether the portal names another book or page than the index; what either does not say is none."""
    pairs = ((number_of(row.get("book")), located.book), (number_of(row.get("page")), located.page))
    return any(ours is not None and theirs is not None and ours != theirs for ours, theirs in pairs)


def _filled(template: str, row: Row) -> Iterator[str]:
    """The template's parts, values quoted except for slashes."""
    for before, name, spec, _ in string.Formatter().parse(template):
        yield before
        if name is not None:
            value = row[name]
            if value is None or value == "":
                raise ValueError(f"{name} is empty")
            yield quote(format(value, spec or ""), safe="/")
