"""How the rows of an index file become rows of the staging table: which cell goes where, what follows from it."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import ConfigurationError
from tasks.index_columns import (
    COLUMNS,
    NAMING,
    OURS,
    Cell,
    Remembered,
    column_key,
    direct_key,
    nearest,
    parsed_type,
    short_text,
    source_of_book,
)
from tasks.index_files import Batch, Report
from tasks.related import related_items_json

Column = list[str]

DEFAULT_PRIORITY = "3"

_KNOWN = {column_key(name): name for name in COLUMNS}
_OURS = {column_key(name) for name in OURS}
_TYPES = ("instrument_type_raw", "instrument_type_parsed", "document_type")


class BadCell(ValueError):
    """A row that cannot be loaded, because of what stands in `column`."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


def count_known(header: list[str]) -> int:
    """How many cells of a would-be header are column names."""
    return sum(column_key(title) in _KNOWN for title in header)


class Layout:
    """Made from a file's header; `texts` turns batches of rows into the texts of `columns`.

    Work goes column by column, not row by row: over a million rows that is half the time.

    columns      names of index_documents, in the order of the staging table
    unknown      titles that no column is called
    passed_over  titles of columns that only landrecords writes
    Raises ConfigurationError when the header cannot do: a needed column is missing, or one comes twice.
    """

    def __init__(self, file: str, header: Sequence[str], source: str | None) -> None:
        found = {at: _KNOWN[column_key(title)] for at, title in enumerate(header) if column_key(title) in _KNOWN}
        rest = [title for at, title in enumerate(header) if at not in found and title.strip()]
        self.unknown = [title for title in rest if column_key(title) not in _OURS]
        self.passed_over = [title for title in rest if column_key(title) in _OURS]
        _refuse_twice(file, list(found.values()))
        _require(file, list(found.values()), source, self.unknown)
        self.columns = (*found.values(), *_added(list(found.values())))
        self._found = found
        self._source = source
        self._cells = {name: _quick(cell) for name in found.values() if (cell := COLUMNS[name])}
        self._parsed_type = Remembered(parsed_type)

    def texts(self, batch: Batch, report: Report) -> tuple[list[int], list[Column]]:
        """Line numbers and the columns' texts of the good rows; '' is NULL. The others are reported."""
        pairs = [(number, row) for number, row in zip(*batch, strict=True) if any(row)]
        numbers, rows = [number for number, _ in pairs], [row for _, row in pairs]
        if not rows:
            return [], [[] for _ in self.columns]
        try:
            return numbers, self._columns(rows)
        except BadCell as exc:
            if len(rows) == 1:
                report(numbers[0], exc.column, str(exc))
                return [], [[] for _ in self.columns]
        middle = len(rows) // 2  # halves, until the bad row stands alone
        first_numbers, first = self.texts((numbers[:middle], rows[:middle]), report)
        numbers, second = self.texts((numbers[middle:], rows[middle:]), report)
        return first_numbers + numbers, [a + b for a, b in zip(first, second, strict=True)]

    def _columns(self, rows: Sequence[Sequence[str]]) -> list[Column]:
        cells = list(zip(*rows, strict=True))
        given = {name: self._read(name, [*map(str.strip, cells[at])]) for at, name in self._found.items()}
        for complete in (self._complete_names, self._complete_types, self._complete_rest):
            complete(given, len(rows))
        return [given[name] for name in self.columns]

    def _read(self, name: str, texts: Column) -> Column:
        cell = self._cells.get(name)
        if cell is None:
            return texts
        try:
            return [*map(cell, texts)]
        except ValueError as exc:  # the text shown is right once the row stands alone
            raise BadCell(name, f"{name} is {_shown(texts[0])}; it {exc}") from None

    def _complete_names(self, given: dict[str, Column], count: int) -> None:
        """source, book, page and direct_key: each row has what tells it from the others."""
        empty = [""] * count
        books, pages = given.setdefault("book", empty), given.setdefault("page", empty)
        urls = given.get("source_url", empty)
        sources = [*map(self._source_of, given.get("source", empty), books, urls)]
        given["source"] = sources
        given["direct_key"] = empty
        if not (all(books) and all(pages)):
            naming = [given[name] for name in NAMING if name in given]
            given["direct_key"] = [*map(_direct_key, sources, books, pages, *naming)]

    def _source_of(self, source: str, book: str, url: str) -> str:
        if source or self._source:
            return source or str(self._source)
        if url:
            return "direct"
        if book:
            return source_of_book(book)
        missing = "book" if "book" in self._found.values() else "source_url"
        raise BadCell(missing, f"{missing} is empty")

    def _complete_types(self, given: dict[str, Column], count: int) -> None:
        if "document_type" not in self.columns:
            return
        empty = [""] * count
        raws = given.get("instrument_type_raw", empty)
        parsed = [
            have or self._parsed_type[raw]
            for have, raw in zip(given.get("instrument_type_parsed", empty), raws, strict=True)
        ]
        given["instrument_type_parsed"] = parsed
        given["document_type"] = [
            have or of for have, of in zip(given.get("document_type", empty), parsed, strict=True)
        ]

    def _complete_rest(self, given: dict[str, Column], _count: int) -> None:
        if "related_items_raw" in given:
            given["related_items"] = [text and related_items_json(text) for text in given["related_items_raw"]]
        if "download_priority" in given:
            given["download_priority"] = [text or DEFAULT_PRIORITY for text in given["download_priority"]]


def _direct_key(source: str, book: str, page: str, *naming: str) -> str:
    if book and page:
        return ""
    if source != "direct":
        name = "page" if book else "book"
        raise BadCell(name, f"{name} is empty")
    name = next(filter(None, naming), "")
    if not name:
        raise BadCell("source_url", "nothing names the document: source_url, book and page, or a number")
    return direct_key(name)


def _quick(cell: Cell) -> Cell:
    """Values repeat, so their parsing need not; but the numbers of documents are all different."""
    return cell if cell is short_text else Remembered(cell).__getitem__


def _added(names: Sequence[str]) -> list[str]:
    added = [name for name in ("source", "book", "page", "direct_key") if name not in names]
    if any(name in names for name in _TYPES):
        added += [name for name in _TYPES[1:] if name not in names]
    if "related_items_raw" in names:
        added.append("related_items")
    return added


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _refuse_twice(file: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"{file} has the column {', '.join(twice)} twice; rename or remove one of them.")


def _require(file: str, names: Sequence[str], source: str | None, unknown: Sequence[str]) -> None:
    missing = [name for name in ("book", "page") if name not in names]
    if not missing or "source_url" in names:
        return
    if source == "direct":
        if not any(name in names for name in NAMING):
            raise ConfigurationError(
                f"{file} has no column that names a document{_guesses('source_url', unknown)}; "
                f"add one of {', '.join(NAMING)}, or book and page."
            )
        return
    guesses = "".join(_guesses(name, unknown) for name in missing)
    raise ConfigurationError(
        f"{file} has no column {' and no column '.join(missing)}{guesses}; "
        "rename the columns in its first line (a list of files needs source_url instead)."
    )


def _guesses(name: str, unknown: Sequence[str]) -> str:
    found = nearest(name, unknown)
    return f" (nearest to {name}: {', '.join(map(repr, found))})" if found else ""
