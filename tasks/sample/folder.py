"""Any folder of PDFs and TIFFs as a corpus, so that the sample portal can serve real files."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote

import pikepdf

from tasks.errors import ConfigurationError
from tasks.sample.corpus import Document
from tasks.sample.scans import PDF_TYPE, TIFF_TYPE, Scan

SUFFIXES = {".pdf": PDF_TYPE, ".tif": TIFF_TYPE, ".tiff": TIFF_TYPE}
BOOK = 900
FIRST_INSTRUMENT = 700_001


class FolderCorpus:
    """The files below `folder`, by name: book 900, page 1 onward, instrument 700001 onward.

    source   `direct` (fetched by name) or `duprocess` (looked up by instrument number first)
    Raises ConfigurationError when the folder holds no PDF or TIFF.
    """

    def __init__(self, folder: Path, source: str = "direct") -> None:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not paths:
            raise ConfigurationError(f"{folder} holds no .pdf, .tif or .tiff file; name another folder.")
        self._documents = [_document(n, path, folder, source) for n, path in enumerate(paths)]
        self._by_name = {document.file_name: document.number for document in self._documents}

    def __len__(self) -> int:
        return len(self._documents)

    def document(self, number: int) -> Document:
        """Record `number`, 0 <= number < len(self)."""
        return self._documents[number]

    def find_instrument(self, instrument: str) -> int | None:
        """By instrument number."""
        number = int(instrument) - FIRST_INSTRUMENT if instrument.isascii() and instrument.isdigit() else -1
        return number if 0 <= number < len(self) else None

    def find_book_page(self, source: str, book: int, page: int) -> int | None:
        """By book and page."""
        return page - 1 if book == BOOK and 1 <= page <= len(self) and source == "duprocess" else None

    def find_file(self, name: str) -> int | None:
        """By path below the folder, as in a URL."""
        return self._by_name.get(name)

    def scan(self, document: Document) -> Scan:
        """The file as it is now."""
        assert document.path is not None  # noqa: S101 - every document of a folder has one
        return Scan(document.path.read_bytes(), SUFFIXES[document.path.suffix.lower()], document.pages or 0)


def _document(number: int, path: Path, folder: Path, source: str) -> Document:
    pages = _count_pages(path)
    return Document(
        number,
        source,
        str(FIRST_INSTRUMENT + number),
        BOOK,
        number + 1,
        "MISCELLANEOUS",
        _written(path),
        path.stem.upper()[:60],
        "PUBLIC",
        pages,
        pages,
        None,
        None,
        BOOK,
        number + 1,
        quote(path.relative_to(folder).as_posix()),
        path,
    )


def _written(path: Path) -> date:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date()


def _count_pages(path: Path) -> int | None:
    """What a strict reader counts; None where an index could not know either."""
    try:
        with pikepdf.open(path, attempt_recovery=False) as pdf:
            return len(pdf.pages) or None
    except (pikepdf.PdfError, pikepdf.PasswordError):
        return None
