"""CSV by pyarrow: every column as text, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from tasks.errors import TerminalError
from tasks.geo.csv_types import column_types
from tasks.records import Reason

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class CsvFile:
    """A file and how it is written."""

    path: Path
    shown: str
    delimiter: str = ","
    quote_char: str = '"'
    has_header: bool = True
    encoding: str = "utf-8"

    @property
    def names(self) -> list[str]:
        """Of the columns; f0, f1, ... where the file has none. Raises TerminalError."""
        with self._mapped(), self._opened(None) as reader:
            return list(reader.schema.names)

    def texts(self) -> Iterator[pa.RecordBatch]:
        """All columns as text. Raises TerminalError for a line that has more or fewer fields than the first."""
        names = self.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise TerminalError(Reason.BAD_ROW, f"{self.shown} has two columns {twice!r}; rename one in the file.")
        convert = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )  # fmt: skip
        with self._mapped(), self._opened(convert) as reader:
            yield from reader

    def types(self, but: list[str], rows: int | None) -> dict[str, pa.DataType]:
        """Column -> type of all its values, or of those in the first so many rows; without the columns `but`."""
        stat = self.path.stat()
        return dict(_types(self, tuple(but), rows, (stat.st_size, stat.st_mtime_ns)))

    def _opened(self, convert: pyarrow.csv.ConvertOptions | None) -> Any:
        read = pyarrow.csv.ReadOptions(
            block_size=_BLOCK_BYTES,
            encoding=self.encoding,
            autogenerate_column_names=not self.has_header,
            use_threads=False,
        )
        parse = pyarrow.csv.ParseOptions(delimiter=self.delimiter, quote_char=self.quote_char, newlines_in_values=True)
        return pyarrow.csv.open_csv(self.path, read, parse, convert)

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, LookupError, UnicodeError) as exc:
            said = " ".join(str(exc).split())[:200]
            message = (
                f"{self.shown} cannot be read as CSV ({said}); correct the line, or delimiter, quote_char, encoding."
            )
            raise TerminalError(Reason.BAD_ROW, message) from exc


@lru_cache(maxsize=64)
def _types(file: CsvFile, but: tuple[str, ...], rows: int | None, _as_of: tuple[int, int]) -> dict[str, pa.DataType]:
    """Kept while the file has that size and time: describing and reading both ask."""
    return column_types(_first(file.texts(), rows), [name for name in file.names if name not in but])


def _first(batches: Iterator[pa.RecordBatch], rows: int | None) -> Iterator[pa.RecordBatch]:
    if rows is None:
        yield from batches
        return
    while rows > 0 and (batch := next(batches, None)) is not None:
        yield batch.slice(0, rows)
        rows -= batch.num_rows
