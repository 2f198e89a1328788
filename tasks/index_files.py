"""The files an index comes in: delimited text and Excel workbooks, read in batches of rows.

Each row comes with the number of the line (or sheet row) it starts on, so that a bad one can be found in an
editor. What cannot be read is reported and passed over; the rows around it are kept. Memory stays flat:
nothing is held but a batch, and the lines of one quoted field.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
import warnings
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tasks.errors import ConfigurationError

DELIMITERS = ",;\t|"
HEAD_CHARS = 1 << 20
ROWS_PER_BATCH = 500
UNCLOSED = "the line opens a quote that is not closed where a field ends"

Report = Callable[[int, str, str], None]
"""Called with the line number, the column's name ('' for the whole line) and what is wrong."""

Batch = tuple[Sequence[int], Sequence[Sequence[str]]]
"""Line numbers, and for each the cells, as many as the header has; empty cells are ''."""


@contextlib.contextmanager
def open_index(
    path: Path, count_known: Callable[[list[str]], int], report: Report
) -> Iterator[tuple[list[str], Iterator[Batch]]]:
    """The header and the rows below it.

    count_known   how many cells of a would-be header are column names; decides between delimiters
    Raises ConfigurationError when the file is not a table at all.
    """
    with contextlib.ExitStack() as stack:
        try:
            there = Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises for an unknown ~user
            file = stack.enter_context(there.open("rb"))
            magic = file.read(8)
            file.seek(0)
        except OSError as exc:
            raise ConfigurationError(f"{path} cannot be read ({exc.strerror}); correct the path.") from exc
        if magic.startswith(b"\xd0\xcf\x11\xe0"):
            raise ConfigurationError(
                f"{path.name} is an old .xls workbook or has a password; save it as .xlsx or .csv without one."
            )
        try:  # rows are read while the caller works, so what the file holds wrong shows up at the yield
            if magic.startswith(b"PK\x03\x04"):
                yield _workbook(path, file, stack, report)
            else:
                yield _delimited(path, file, stack, count_known, report)
        except (zipfile.BadZipFile, zlib.error, ElementTree.ParseError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"{path.name} is damaged ({exc}); save it again, as .xlsx or .csv.") from exc


# --- delimited text ---


def _delimited(
    path: Path,
    file: io.BufferedReader,
    stack: contextlib.ExitStack,
    count_known: Callable[[list[str]], int],
    report: Report,
) -> tuple[list[str], Iterator[Batch]]:
    encoding = "utf-16" if file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    # newline="": line ends inside quoted fields are data. A CR alone ends a line too (old Mac exports).
    text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
    lines = _Lines(stack.enter_context(text))
    try:
        delimiter = _delimiter(path, lines, count_known)
        header = next(csv.reader(lines, delimiter=delimiter))
    except csv.Error as exc:
        raise ConfigurationError(f"the first line of {path.name} cannot be read ({exc}); correct it.") from exc
    return header, _delimited_batches(lines, delimiter, len(header), report)


def _delimiter(path: Path, lines: _Lines, count_known: Callable[[list[str]], int]) -> str:
    head = lines.peek()
    if len(head) >= HEAD_CHARS or "\0" in head:
        raise ConfigurationError(f"{path.name} is not a table; an index is a .csv or .xlsx file.")
    if not head:
        raise ConfigurationError(f"{path.name} is empty; its first line must name the columns.")
    return max(DELIMITERS, key=lambda d: count_known(next(csv.reader([head], delimiter=d))))


def _delimited_batches(lines: _Lines, delimiter: str, width: int, report: Report) -> Iterator[Batch]:
    while block := lines.take(ROWS_PER_BATCH):
        first = lines.number - len(block) + 1
        rows = _one_row_a_line(block, delimiter, width)
        if rows is not None:
            yield range(first, first + len(block)), rows
        else:
            lines.give_back(block)
            yield _row_by_row(lines, delimiter, width, report)


def _one_row_a_line(block: list[str], delimiter: str, width: int) -> list[list[str]] | None:
    """The rows of a block in which each line is a good row, which nearly all are; None of any other."""
    text = "".join(block)
    if "\0" in text or not _is_unicode(text):
        return None
    try:
        # A blank line of ours is a row of its own unless the last line left a quote open.
        rows = list(csv.reader([*block, "\n"], delimiter=delimiter))
    except csv.Error:
        return None
    if len(rows) != len(block) + 1:
        return None
    rows.pop()
    return rows if all(len(row) == width for row in rows) else None


def _row_by_row(lines: _Lines, delimiter: str, width: int, report: Report) -> Batch:
    """The good rows of the lines given back, and the rest of a row that they begin; the others are reported."""
    numbers, rows = [], []
    reader = csv.reader(lines, delimiter=delimiter)
    while lines.given_back:
        lines.begin()
        first = lines.number + 1
        try:
            cells = next(reader)
        except csv.Error as exc:
            lines.read_again()
            report(first, "", f"the line cannot be read ({exc})")
            continue
        if len(cells) == width and not lines.unreadable:
            numbers.append(first)
            rows.append(cells)
        elif cells:
            # A quote that is never closed swallows the lines after it. Only its own line is given up.
            report(first, "", lines.unreadable or _wrong_width(len(cells), width, lines.number - first))
            lines.read_again()
    return numbers, rows


def _wrong_width(found: int, wanted: int, more_lines: int) -> str:
    if more_lines > 0:
        return UNCLOSED
    return f"the line has {found} fields, the header has {wanted}"


class _Lines:
    """Physical lines, counted, in blocks or one by one. Lines may be given back to be read again."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.number = 0
        self.unreadable = ""
        self.given_back: deque[str] = deque()
        self._text = text
        self._row: list[str] = []

    def take(self, most: int) -> list[str]:
        """The next lines, [] at the end of the file."""
        block = list(itertools.islice(self._text, most))
        if not _is_unicode("".join(block)):
            block = [_repaired(line) for line in block]
        self.number += len(block)
        return block

    def give_back(self, block: list[str]) -> None:
        """These lines come again, one by one."""
        self.number -= len(block)
        self.given_back.extendleft(reversed(block))

    def peek(self) -> str:
        """The first line, which comes again; '' for an empty file."""
        line = self._text.readline(HEAD_CHARS)
        if line:
            self.given_back.append(line)
        return line

    def begin(self) -> None:
        """The next line starts a row."""
        self._row.clear()
        self.unreadable = ""

    def read_again(self) -> None:
        """Give back all lines of this row but the first."""
        self.give_back(self._row[1:])

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.given_back.popleft() if self.given_back else _repaired(self._text.readline())
        if not line:
            # The csv reader wants a line when a row begins, which _row_by_row asks for only when there are lines,
            # or when a quote is still open.
            self.unreadable = UNCLOSED
            raise StopIteration
        self.number += 1
        self._row.append(line)
        if "\0" in line:
            self.unreadable = "the line holds a NUL byte, which no text column can"
        elif not _is_unicode(line):
            self.unreadable = "the line holds bytes that are neither UTF-8 nor Windows-1252"
        return line


def _repaired(line: str) -> str:
    """Bytes that are not UTF-8 arrive as lone surrogates; such a line is Windows-1252, as Excel writes it.
    Of its 256 bytes five mean nothing: they stay lone surrogates."""
    if _is_unicode(line):
        return line
    return line.encode("utf-8", "surrogateescape").decode("cp1252", "surrogateescape")


def _is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


# --- Excel ---


def _workbook(
    path: Path, file: io.BufferedReader, stack: contextlib.ExitStack, report: Report
) -> tuple[list[str], Iterator[Batch]]:
    import openpyxl

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # styles and drop-downs openpyxl does not know; only values are read
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        except (KeyError, ValueError, OSError, AttributeError) as exc:  # AttributeError: charts alone (openpyxl 3.1)
            raise ConfigurationError(
                f"{path.name} is not an .xlsx workbook ({exc}); save it as .xlsx or .csv."
            ) from exc
    stack.callback(book.close)
    sheet = book.worksheets[0]
    sheet.reset_dimensions()  # some programs write a wrong extent; the rows themselves say how long they are
    rows = enumerate(sheet.iter_rows(values_only=True), start=1)
    _, titles = next(rows, (0, ()))
    header = [_cell_text(value) for value in titles]
    while header and not header[-1].strip():
        header.pop()
    if not header:
        raise ConfigurationError(f"the first sheet of {path.name} is empty; its first row must name the columns.")
    return header, _sheet_batches(rows, len(header), report)


def _sheet_batches(rows: Iterator[tuple[int, tuple[Any, ...]]], width: int, report: Report) -> Iterator[Batch]:
    while some := list(itertools.islice(rows, ROWS_PER_BATCH)):
        numbers, good = [], []
        for number, values in some:
            cells = [_cell_text(value) for value in values]
            if any(cells[width:]):
                report(number, "", f"the row has cells to the right of the header's {width} columns")
            else:
                numbers.append(number)
                good.append(cells[:width] + [""] * (width - len(cells)))
        yield numbers, good


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # Excel knows no whole numbers: instrument 945431 may be stored as 945431.0
    if isinstance(value, datetime):
        at_midnight = (value.hour, value.minute, value.second) == (0, 0, 0)
        return value.date().isoformat() if at_midnight else value.isoformat(sep=" ")
    if isinstance(value, date):
        return value.isoformat()
    return str(value)
