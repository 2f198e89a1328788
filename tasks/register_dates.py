"""Dates of a register's answers, checked against the calendar and written as COPY reads them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Any, TypeVar

from tasks.records import Reason
from tasks.register_values import Reader, Unusable, said_type

FIRST_YEAR, LAST_YEAR = 1600, 2200
"""A date outside is a placeholder (0001-01-01 is Go's for "none") or a slip."""

Day = TypeVar("Day", bound=date)

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII).fullmatch
_MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?)?", re.ASCII
).fullmatch


def read_date(value: Any) -> str:
    """`2015-08-27`; or a moment that is midnight as it is written, whose zone says nothing about the day."""
    if type(value) is str and not _DATE(value):
        moment = _moment_of(value)
        if moment.time() != time():
            raise Unusable(Reason.BAD_DATE, f"is {value[:40]!r}, which has a time of day")
        return moment.date().isoformat()
    return _calendar_date(_said(value)).isoformat()


def read_moment(value: Any) -> str:
    """ISO 8601; a moment without a zone is in UTC, a date alone is its midnight."""
    return _in_utc(_moment_of(_said(value)))


def _in_utc(moment: datetime) -> str:
    return (moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _said(value: Any) -> str:
    if type(value) is not str:
        raise Unusable(Reason.WRONG_TYPE, f"is {said_type(value)}, not a date as text")
    return value


def _calendar_date(text: str) -> date:
    try:
        return _in_range(date.fromisoformat(text))
    except ValueError:
        raise Unusable(Reason.BAD_DATE, f"is {text[:40]!r}, which is no day of the calendar") from None


def _moment_of(text: str) -> datetime:
    if not _MOMENT(text):
        raise Unusable(Reason.BAD_DATE, f"is {text[:40]!r}, not a date like 2015-08-27 or 2015-08-27T09:30:00Z")
    try:
        return _in_range(datetime.fromisoformat(text))
    except ValueError:
        raise Unusable(Reason.BAD_DATE, f"is {text[:40]!r}, which is no moment of the calendar") from None


def date_reader(written: str) -> Reader:
    """For dates in another form, as strptime reads it."""
    return lambda value: _parsed(value, written).date().isoformat()


def moment_reader(written: str) -> Reader:
    """For dates with a time of day in another form; without a zone they are in UTC."""
    return lambda value: _in_utc(_parsed(value, written))


def _parsed(value: Any, written: str) -> datetime:
    text = _said(value)
    try:
        return _in_range(datetime.strptime(text, written))  # noqa: DTZ007 - the caller sees to the zone
    except ValueError:
        raise Unusable(Reason.BAD_DATE, f"is {text[:40]!r}, not a date written {written}") from None


def _in_range(day: Day) -> Day:
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise Unusable(Reason.BAD_DATE, f"is in the year {day.year}, outside {FIRST_YEAR} to {LAST_YEAR}")
    return day
