"""What a register's tables say in a few lines and one picture: homes, listings, sales, prices."""

from __future__ import annotations

from typing import Any

from tasks.postgres import Database, sql_text
from tasks.register_picture import ZipPrice, register_picture

_HEADINGS = (
    "municipality",
    "zip",
    "town",
    "homes",
    "on market",
    "open cases",
    "sales in 12 months",
    "median price per m2",
    "newest change",
)


def summary_table(database: Database, source: str) -> list[dict[str, Any]]:
    """A row for each municipality and zip code that has homes, for a table artifact.

    Sales and prices are of the twelve months before the last sale that the register knows; no price: nothing was sold,
    or no area is known.
    """
    rows = database.rows(sql_text("properties_summary"), {"source": source})
    return [dict(zip(_HEADINGS, row, strict=True)) for row in rows]


def picture(database: Database, source: str) -> bytes:
    """PNG: the median price per m2 by zip code, and sales by year."""
    prices = [ZipPrice(*row) for row in database.rows(sql_text("properties_prices"), {"source": source})]
    sales = database.rows(sql_text("properties_sales"), {"source": source})
    last = max((day for *_, day in sales), default=None)
    return register_picture(source, prices, {year: number for year, number, _ in sales}, last)
