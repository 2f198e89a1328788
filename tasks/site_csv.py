"""The photos of sites as a table for spreadsheets and programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from tasks.site_photo import Fact, SitePhoto, described, in_order

MEDIA_TYPE = "text/csv; charset=utf-8"

_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")


def csv_table(photos: Iterable[SitePhoto]) -> bytes:
    """All photos, with and without a position, in order. UTF-8 without a mark, RFC 4180, column names first.

    Text that a spreadsheet would run as a formula has an apostrophe before it. Source: OWASP, CSV Injection.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(described(SitePhoto("", "", "")))
    writer.writerows([_cell(fact) for fact in described(photo).values()] for photo in in_order(photos))
    return text.getvalue().encode()


def _cell(fact: Fact) -> Fact:
    if isinstance(fact, bool):
        return "true" if fact else "false"
    return f"'{fact}" if isinstance(fact, str) and fact.startswith(_FORMULA_STARTS) else fact
