"""Loading an index: a file of recorded instruments becomes rows of `index_documents`.

The file streams by COPY into a temporary staging table, then one update and one insert bring the table up to
date. One transaction: a load that is killed has loaded nothing, and the next one starts afresh. Loading the
same file again changes nothing; a changed line changes the row's index columns and never its checkpoints.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import psycopg2.errors
from psycopg2 import sql

from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.index_columns import COLUMNS, nearest, source_name
from tasks.index_files import Batch, open_index
from tasks.index_layout import Layout, count_known
from tasks.partials import disk
from tasks.postgres import Cursor, Database, sql_text

MOST_BAD_LINES_KEPT = 1000


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was not loaded. `column` is '' when the line as a whole is wrong."""

    line: int
    column: str
    message: str


@dataclass(frozen=True)
class LoadReport:
    """What a load did. rows_read = inserted + updated + unchanged + bad_count.

    bad        the first bad lines (at most 1,000), by line number
    bad_count  all of them
    bad_file   where all of them were written, when that was asked for and there are any
    notes      sentences for the user: columns that were passed over and the like
    """

    file: Path
    rows_read: int
    inserted: int
    updated: int
    unchanged: int
    bad: list[BadLine]
    bad_count: int
    seconds: float
    bad_file: Path | None = None
    notes: list[str] = field(default_factory=list)


def load_index(
    database: Database, path: Path | str, *, source: str | None = None, bad_file: Path | None = None
) -> LoadReport:
    """Load a .csv or .xlsx index. Good lines load, bad ones are reported with their number.

    source    for rows that do not name their own; without it, rows with a source_url are `direct` and the
              others belong to the county's portal their book is in (historical, duprocess)
    bad_file  a CSV to write all bad lines to, for when there are more than the report keeps
    Raises ConfigurationError when the file cannot be read or lacks needed columns, OutsideUnreachable.
    """
    started, path = time.monotonic(), Path(path)
    source = _checked(source)
    with _BadLines(bad_file) as bad, open_index(path, count_known, bad.add) as (header, batches):
        layout = Layout(path.name, header, source)
        with database.transaction() as cursor:
            staged = _stage(cursor, layout, batches, bad)
            bad_duplicates = _drop_duplicates(cursor, bad)
            updated, inserted = _merge(cursor, layout, path.name)
            if inserted or updated:
                cursor.execute("ANALYZE index_documents")  # the plans below and of the first claim depend on it
            cursor.execute(sql_text("index_resolve_related"))
    unchanged = staged - bad_duplicates - inserted - updated
    return LoadReport(
        file=path,
        rows_read=inserted + updated + unchanged + bad.count,
        inserted=inserted,
        updated=updated,
        unchanged=unchanged,
        bad=sorted(bad.kept, key=lambda line: line.line),
        bad_count=bad.count,
        seconds=time.monotonic() - started,
        bad_file=bad_file if bad.count else None,
        notes=_notes(layout),
    )


def _checked(source: str | None) -> str | None:
    try:
        return source_name(source.strip()) if source else None
    except ValueError as exc:
        raise ConfigurationError(f"source is {source!r}; it {exc}.") from None


def _notes(layout: Layout) -> list[str]:
    notes = []
    for title in layout.unknown:
        near = nearest(title, COLUMNS)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        notes.append(f"column {title!r} is not a column of index_documents and was passed over{hint}")
    if layout.passed_over:
        notes.append(f"columns that only landrecords writes were passed over: {', '.join(layout.passed_over)}")
    return notes


# --- staging ---


def _stage(cursor: Cursor, layout: Layout, batches: Iterator[Batch], bad: _BadLines) -> int:
    """Stream the good rows into the staging table; returns how many."""
    columns = _names(layout.columns)
    cursor.execute(sql.SQL(sql_text("index_stage")).format(columns=columns))
    copy = sql.SQL("COPY index_staging (line, {}) FROM STDIN (NULL '')").format(columns)
    stream = _CopyStream(_chunks(layout, batches, bad))
    cursor.copy_expert(copy, stream)
    stream.raise_failure()
    staged = cursor.rowcount
    cursor.execute("ANALYZE index_staging (line, source, book, page, direct_key)")
    return staged


def _chunks(layout: Layout, batches: Iterator[Batch], bad: _BadLines) -> Iterator[bytes]:
    for batch in batches:
        lines, columns = layout.texts(batch, bad.add)
        if lines:
            escaped = [_escaped(column) for column in columns]
            rows = map("\t".join, zip(map(str, lines), *escaped, strict=True))
            yield ("\n".join(rows) + "\n").encode()


def _escaped(column: Sequence[str]) -> Sequence[str]:
    """As COPY reads text: its four special characters behind a backslash."""
    together = "\n".join(column)
    plain = together.count("\n") == len(column) - 1 and not any(sign in together for sign in "\\\t\r")
    return column if plain else [text.translate(_COPY_ESCAPES) for text in column]


_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class _CopyStream:
    """What psycopg2's COPY reads from. It turns an exception of `read` into an error of the server's, so the
    exception is kept, the stream ends, and `raise_failure` raises it while the transaction can still be undone."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._failure: BaseException | None = None

    def read(self, _size: int = -1, /) -> bytes:
        """The next chunk, of whatever size; b'' at the end."""
        try:
            for chunk in self._chunks:
                if chunk:
                    return chunk
        except BaseException as exc:  # noqa: BLE001 - raised again by raise_failure
            self._failure = exc
        return b""

    def readline(self, _size: int = -1, /) -> bytes:
        """psycopg2 wants one and does not call it."""
        return self.read()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


# --- from staging to the table ---


def _drop_duplicates(cursor: Cursor, bad: _BadLines) -> int:
    """Of lines with the same key the first is kept, the others are reported."""
    cursor.execute(sql_text("index_duplicates"))
    cursor.execute("SELECT count(*) FROM index_duplicates")
    count = int((cursor.fetchone() or (0,))[0])
    if count:
        with cursor.connection.cursor(name="index_duplicates_found") as found:
            found.execute("SELECT line, first_line FROM index_duplicates ORDER BY line")
            for line, first_line in found:
                bad.add(line, "", f"the line has the same key as line {first_line}, which was loaded")
        cursor.execute("DELETE FROM index_staging USING index_duplicates AS d WHERE index_staging.line = d.line")
    return count


_KEYS = frozenset({"source", "book", "page", "direct_key", "source_file"})


def _merge(cursor: Cursor, layout: Layout, file: str) -> tuple[int, int]:
    """Rows updated and inserted."""
    given = "source_file" in layout.columns
    source_file = sql.SQL("coalesce(s.source_file, %(file)s)" if given else "%(file)s")
    cursor.execute(sql_text("index_match"))
    matched, updated = cursor.rowcount, 0
    targets = [name for name in layout.columns if name not in _KEYS]
    if matched and targets:
        values = sql.SQL(", ").join(_new_value(name) for name in targets)
        statement = sql.SQL(sql_text("index_update")).format(
            targets=_names(targets), current=_names(targets, "d"), values=values, source_file=source_file
        )
        cursor.execute(statement, {"file": file})
        updated = cursor.rowcount
    columns = [name for name in layout.columns if name != "source_file"]
    statement = sql.SQL(sql_text("index_insert")).format(
        columns=_names(columns),
        values=_names(columns, "s"),
        source_file=source_file,
        unmatched=sql.SQL(_UNMATCHED if matched else ""),
    )
    try:
        cursor.execute(statement, {"file": file})
    except psycopg2.errors.UniqueViolation as exc:  # loads queue for one another, inserts by hand do not
        raise OutsideUnreachable(f"another program wrote rows of {file} at the same time; load it again.") from exc
    return updated, cursor.rowcount


# In the order of the file, so that ids and claims follow it; a table that is scanned alone is in that order.
_UNMATCHED = "WHERE NOT EXISTS (SELECT FROM index_matched AS m WHERE m.line = s.line) ORDER BY s.line"


def _new_value(name: str) -> sql.Composable:
    if name != "related_items":
        return sql.Identifier("s", name)
    # What was resolved stays, as long as the text is the same.
    return sql.SQL(
        "CASE WHEN d.related_items_raw IS DISTINCT FROM s.related_items_raw OR d.related_items IS NULL"
        " THEN s.related_items ELSE d.related_items END"
    )


def _names(names: Sequence[str], table: str = "") -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(table, name) if table else sql.Identifier(name) for name in names)


# --- bad lines ---


class _BadLines:
    """Counts all, keeps the first 1,000, writes each to `path` when there is one."""

    def __init__(self, path: Path | None) -> None:
        self.count = 0
        self.kept: list[BadLine] = []
        self._path = path
        self._file: TextIO | None = None
        self._writer: Any = None

    def add(self, line: int, column: str, message: str) -> None:
        """One bad line; the whole line is meant when `column` is ''."""
        self.count += 1
        if len(self.kept) < MOST_BAD_LINES_KEPT:
            self.kept.append(BadLine(line, column, message))
        if self._path is not None:
            with disk(self._path.parent):
                self._write(self._path, line, column, message)

    def _write(self, path: Path, line: int, column: str, message: str) -> None:
        if self._file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", newline="", encoding="utf-8")
            self._writer = csv.writer(self._file)
            self._writer.writerow(["line", "column", "message"])
        self._writer.writerow([line, column, message])

    def __enter__(self) -> _BadLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
