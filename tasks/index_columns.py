"""What the columns of an index file are called and what may stand in them.

Columns carry the names of the table `index_documents`, in any case and with any spaces, hyphens or dots
("Book Volume", "instrument-number", "NE OF NE"). Cells are text; each kind of column has one function here
that returns the text Postgres reads, or raises ValueError with what is wanted.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterable
from datetime import date

from tasks.related import LARGEST_INTEGER

LONGEST_NAME = 200
LAST_HISTORICAL_BOOK = 237

# Texts that name the document when it has neither book nor page, best first; migration 010 has the same list.
NAMING = ("source_url", "instrument_number", "gin", "parcel_id", "parcel_num", "ppin", "patent_num")


def column_key(title: str) -> str:
    """A title without everything that people spell differently: "Book Volume" -> "bookvolume"."""
    return re.sub(r"[\W_]+", "", title).lower()


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """The choices that look most like `name`, best first, at most three."""
    spelled = {column_key(choice): choice for choice in choices}
    return [spelled[key] for key in difflib.get_close_matches(column_key(name), spelled, n=3, cutoff=0.5)]


# --- cells ---


def positive_integer(text: str) -> str:
    """ "0471", "471" or "471.0" -> "471"."""
    number = whole_number(text)
    if number < 1:
        raise ValueError("wants a whole number above 0")
    return str(number)


def page_count(text: str) -> str:
    """As `positive_integer`; an index that says 0 pages does not know: ""."""
    number = whole_number(text)
    if number < 0:
        raise ValueError("wants a whole number, 0 or empty when not known")
    return str(number or "")


def any_integer(text: str) -> str:
    """A whole number that fits a Postgres integer."""
    return str(whole_number(text))


def priority(text: str) -> str:
    """Download priority 0 to 99, lowest first."""
    number = whole_number(text)
    if not 0 <= number <= 99:
        raise ValueError("wants a priority from 0 to 99")
    return str(number)


def whole_number(text: str) -> int:
    """The number; "471.0" is one too, spreadsheets write it. No thousands separators, nothing rounded."""
    match = re.fullmatch(r"([+-]?[0-9]{1,20})(?:\.0*)?", text)
    if not match or abs(int(match[1])) > LARGEST_INTEGER:
        raise ValueError("wants a whole number")
    return int(match[1])


_ISO_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)
_US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_TIME_OF_DAY = re.compile(r"[T ]\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AP]M)?Z?", re.ASCII | re.IGNORECASE)


def iso_date(text: str) -> str:
    """ISO (2003-04-30) or US (4/30/2003) date, with or without a time of day -> ISO. Years have four digits."""
    iso, us = _ISO_DATE.match(text), _US_DATE.match(text)
    found = iso or us
    if found and (found.end() == len(text) or _TIME_OF_DAY.fullmatch(text, found.end())):
        first, second, third = (int(part) for part in found.groups())
        try:
            return (date(first, second, third) if iso else date(third, first, second)).isoformat()
        except ValueError:
            pass
    raise ValueError("wants a date, YYYY-MM-DD or MM/DD/YYYY")


_FLAGS = dict.fromkeys(("t", "true", "y", "yes", "1", "x"), "true")
_FLAGS |= dict.fromkeys(("f", "false", "n", "no", "0"), "false")


def flag(text: str) -> str:
    """Yes, y, true, t, 1 and the x of a ticked box; no, n, false, f, 0."""
    try:
        return _FLAGS[text.lower()]
    except KeyError:
        raise ValueError("wants yes or no (also true, false, 1, 0, x)") from None


def source_name(text: str) -> str:
    """Name of the portal adapter, in lower case."""
    if not re.fullmatch(r"[\w.-]{1,64}", text):
        raise ValueError("wants the name of a source, such as duprocess, historical or direct")
    return text.lower()


def short_text(text: str) -> str:
    """A number that names the document: nothing longer than a name can be."""
    if len(text) > LONGEST_NAME:
        raise ValueError(f"wants at most {LONGEST_NAME} characters, this has {len(text)}")
    return text


# --- what follows from other columns ---


def parsed_type(raw: str) -> str:
    """The instrument type proper: the text before " -" ("DEED - [DEED 90W]" -> "DEED"). Never empty."""
    return raw.partition(" -")[0].rstrip() or raw


def source_of_book(book: str) -> str:
    """The county's portal has two parts: books up to 237 are looked up by book and page."""
    return "historical" if int(book) <= LAST_HISTORICAL_BOOK else "duprocess"


def direct_key(name: str) -> str:
    """What tells apart listed files without book and page (`index_documents.direct_key`): 32 hex digits."""
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


# --- the columns ---

Cell = Callable[[str], str]

QUARTERS = tuple(f"{small}_of_{large}" for large in ("ne", "nw", "sw", "se") for small in ("ne", "nw", "sw", "se"))

_TEXTS = """
    source_file gin book_volume instrument_type_raw instrument_type_parsed document_type
    party_type searched_name cross_party_name grantor_party grantee_party
    description location direction legals sub_div block lot sec town rng square remarks
    address street_name city zip parcel_num parcel_id ppin patent_num
    workflow_status verified_status doc_status related_items_raw source_url
""".split()

COLUMNS: dict[str, Cell | None] = {
    **dict.fromkeys(_TEXTS),
    **dict.fromkeys(QUARTERS, flag),
    "source": source_name,
    "instrument_number": short_text,
    "book": positive_integer,
    "page": positive_integer,
    "file_date": iso_date,
    "num_pages": page_count,
    "party_seq": any_integer,
    "download_priority": priority,
}
"""Every column a file may have; what its cells go through, None for plain text."""

OURS = (
    "id import_date related_items actual_book actual_page book_page_mismatch num_pages_found content_type fetched_at "
    "source_bytes source_sha256 fetched_url spool_id optimize_method gs_version stored_bytes stored_sha256 "
    "stored_source_sha256 gcs_path direct_key claimed_by lease_until not_before run_id "
    "download_status download_attempts download_reason download_error downloaded_at "
    "optimize_status optimize_attempts optimize_reason optimize_error optimized_at "
    "upload_status upload_attempts upload_reason upload_error uploaded_at"
).split()
"""Columns that only landrecords writes; a file exported from the table may hold them, and they are passed over."""


class Remembered(dict[str, str]):
    """A cell function that remembers its answers: the values of an index repeat, its parsing need not."""

    def __init__(self, cell: Cell, most: int = 50_000) -> None:
        super().__init__({"": ""})  # an empty cell says nothing, whatever the column
        self._cell = cell
        self._most = most

    def __missing__(self, text: str) -> str:
        answer = self._cell(text)
        if len(self) < self._most:
            self[text] = answer
        return answer
