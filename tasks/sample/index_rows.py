"""The index of the sample portal's documents, as rows and as the CSV or Excel file a title plant would send.

Rows are made one at a time: a million of them need seconds and no memory.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from tasks.sample.corpus import ODDITIES, Corpus, Document, GeneratedCorpus, Oddity

COLUMNS = (
    "source", "gin", "instrument_number", "book", "page", "instrument_type_raw", "file_date", "num_pages",
    "party_type", "party_seq", "searched_name", "cross_party_name", "grantor_party", "grantee_party",
    "description", "sec", "town", "rng", "remarks", "related_items_raw", "download_priority", "source_url",
)  # fmt: skip
"""Names of `index_documents` columns, in the order of the file."""

Row = tuple[str | int, ...]


def index_rows(corpus: Corpus) -> Iterator[Row]:
    """One row per document, in the order of COLUMNS; '' where the index knows nothing."""
    return (_row(corpus, corpus.document(number)) for number in range(len(corpus)))


def index_records(corpus: Corpus) -> Iterator[dict[str, str]]:
    """The same rows by column name, every value as the text the file would hold."""
    return (dict(zip(COLUMNS, map(str, row), strict=True)) for row in index_rows(corpus))


def write_index(
    path: Path, documents: int | Corpus = 200, seed: int = 7, oddities: Mapping[Oddity, int] = ODDITIES
) -> int:
    """Write the index to `path` (.csv, or .xlsx by its name); returns the number of rows.

    documents   how many of the generated corpus of `seed`, or a corpus
    """
    corpus = GeneratedCorpus(documents, seed, oddities) if isinstance(documents, int) else documents
    write = _write_xlsx if path.suffix == ".xlsx" else _write_csv
    write(path, chain([COLUMNS], index_rows(corpus)))
    return len(corpus)


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_xlsx(path: Path, rows: Iterable[Row]) -> None:
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("index")
    for row in rows:
        sheet.append([None if value == "" else value for value in row])
    book.save(path)


def _row(corpus: Corpus, document: Document) -> Row:
    number = document.number
    as_grantor = number % 3 != 1
    searched, crossing = document.grantor, document.grantee
    return (
        document.source,
        1_000_000 + number,
        document.instrument,
        document.book,
        document.page,
        document.type_raw,
        document.filed.isoformat(),
        "" if document.index_pages is None else document.index_pages,
        "GRANTOR" if as_grantor else "GRANTEE",
        1,
        searched if as_grantor else crossing,
        crossing if as_grantor else searched,
        document.grantor,
        document.grantee,
        f"LOT {number % 40 + 1} PINE RIDGE SUBD, PHASE {number % 4 + 1}" if number % 5 else "",
        number % 36 + 1,
        f"{number % 5 + 5}S",
        f"{number % 4 + 14}W",
        "see plat\nin drawer 4" if number % 97 == 0 else "",
        _related(corpus, document),
        1 if number % 50 == 7 else 2 if number % 10 == 3 else 3,
        f"files/{document.file_name}" if document.source == "direct" else "",
    )


def _related(corpus: Corpus, document: Document) -> str:
    """Some documents name earlier ones: most are on record, every other list also names one that is not."""
    number = document.number
    if number % 4 or number < 40 or document.path:
        return ""
    earlier = corpus.document(number // 2 - number // 2 % 20 + 8)
    known = f"{earlier.instrument} bk:{earlier.book}/{earlier.page}"
    return known if number % 8 else f"{known}; 945431 bk:4140/753"
