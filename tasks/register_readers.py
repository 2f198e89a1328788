"""The reader for each kind of column, and for the other ways in which registers write values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tasks.records import Reason
from tasks.register_dates import date_reader, moment_reader, read_date, read_moment
from tasks.register_tables import Kind
from tasks.register_values import (
    NULL,
    Reader,
    Unusable,
    read_boolean,
    read_code,
    read_integer,
    read_json,
    read_money,
    read_number,
    read_numbers,
    read_text,
)

_READERS: Mapping[Kind, Reader] = {
    Kind.CODE: read_code,
    Kind.TEXT: read_text,
    Kind.INTEGER: read_integer,
    Kind.NUMBER: read_number,
    Kind.MONEY: read_money,
    Kind.BOOLEAN: read_boolean,
    Kind.DATE: read_date,
    Kind.MOMENT: read_moment,
    Kind.NUMBERS: read_numbers,
    Kind.JSON: read_json,
}


def reader_of(kind: Kind, *, written: str | None = None, words: Mapping[str, str] | None = None) -> Reader:
    """The reader for a kind of column.

    written  dates as strptime reads them ("%d/%m/%Y"); or "text": numbers and yes or no come as text
    words    a register's words to ours; other words stay as they are
    """
    if words:
        return _translating(words)
    if written == "text":
        return _from_text(kind)
    if written is not None:
        return date_reader(written) if kind is Kind.DATE else moment_reader(written)
    return _READERS[kind]


def _translating(words: Mapping[str, str]) -> Reader:
    ours = {theirs: read_text(word) for theirs, word in words.items()}

    def read(value: Any) -> str:
        text = read_text(value)
        return ours.get(value, text)

    return read


_WRITTEN = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[+-]?\d{1,30}(?:\.\d{1,30})?", re.ASCII).fullmatch
_YES_OR_NO = {"true": True, "yes": True, "y": True, "1": True, "false": False, "no": False, "n": False, "0": False}


def _from_text(kind: Kind) -> Reader:
    """For registers that write `"1,250,000.00"` and `"Y"`. An empty text counts as absent."""
    strict = _READERS[kind]

    def read(value: Any) -> str:
        text = read_text(value).strip()
        if not text:
            return NULL
        if kind is Kind.BOOLEAN:
            if text.lower() not in _YES_OR_NO:
                raise Unusable(Reason.WRONG_TYPE, f"is {text[:40]!r}, not yes or no")
            return strict(_YES_OR_NO[text.lower()])
        if not _WRITTEN(text):
            raise Unusable(Reason.BAD_NUMBER, f"is {text[:40]!r}, not a number")
        number = text.replace(",", "")
        return strict(float(number) if "." in number else int(number))

    return read
