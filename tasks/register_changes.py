"""What became of properties from fetch to fetch: found, vanished, returned, new, changed, priced anew."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from tasks.errors import ConfigurationError
from tasks.postgres import Database, sql_text

KINDS = ("new", "changed", "price", "vanished", "returned")


class Sighted(NamedTuple):
    """Of the ids that pages named: how many their query had not named before, how many no one knew."""

    distinct: int
    new: int


def sight(
    database: Database,
    search_id: str,
    ids: Collection[str],
    *,
    source: str,
    municipality: str,
    address_type: str,
    query_id: int = 0,
) -> Sighted:
    """Note what pages of a search named, and make rows, all pending, for what is not known yet.

    search_id  names the whole search, over all its pages and queries; one that goes on after a crash keeps it
    query_id   which of its queries
    Naming an id again changes nothing, so shifting pages and divided searches may overlap. Raises ConfigurationError
    where another register has an id: the table holds each once.
    """
    arguments = {
        "search_id": search_id,
        "query_id": query_id,
        "ids": list(ids),
        "source": source,
        "municipality": municipality,
        "address_type": address_type,
    }
    distinct, new, other = database.rows(sql_text("properties_sight"), arguments)[0]
    if other is not None:
        raise ConfigurationError(
            f"the register {other} has loaded properties with ids of {source}; give the profile an id_prefix, or the"
            " same source."
        )
    return Sighted(distinct, new)


def sighted(database: Database, search_id: str, query_id: int | None = None) -> int:
    """How many different properties a search, or one of its queries, has named so far."""
    statement = (
        "SELECT count(DISTINCT property_id) FROM property_sightings"
        " WHERE search_id = %(search_id)s AND (query_id = %(query_id)s OR %(query_id)s IS NULL)"
    )
    return int(database.rows(statement, {"search_id": search_id, "query_id": query_id})[0][0])


def forget_search(database: Database, search_id: str) -> None:
    """Drop the notes of a search that is over."""
    database.rows("DELETE FROM property_sightings WHERE search_id = %s", (search_id,))


class Missed(NamedTuple):
    """Properties that a search did not find any more, and those that it found again."""

    vanished: int
    returned: int


def mark_vanished(
    database: Database,
    search_id: str,
    run_id: str,
    *,
    source: str,
    municipality: str,
    address_type: str,
    whole: bool,
) -> Missed:
    """Mark what the search did not name of its municipality and type, and no longer what it named.

    whole  whether it reached its total: one that fell short would call vanished what it did not reach

    Raises OutsideUnreachable, also where it and a loading page waited for each other; try it again.
    """
    arguments = {
        "search_id": search_id,
        "run_id": run_id,
        "source": source,
        "municipality": municipality,
        "address_type": address_type,
        "whole": whole,
    }
    return Missed(*database.rows(sql_text("properties_vanish"), arguments)[0])


@dataclass(frozen=True)
class ChangeReport:
    """What a run found to have changed, counted from the table of changes.

    kinds   new, changed, price, vanished, returned -> properties (of price: listings)
    fields  of the changed: `latest_valuation`, `cases.current_price`, `registrations added` -> properties
    """

    kinds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    fields: dict[str, int] = field(default_factory=dict)


def change_report(database: Database, run_id: str) -> ChangeReport:
    """The run's changes, counted; fields that changed most often first."""
    report = ChangeReport()
    rows = database.rows(sql_text("properties_change_counts"), {"run_id": run_id})
    for what, name, number in sorted(rows, key=lambda row: (-row[2], row[1])):
        (report.kinds if what == "kind" else report.fields)[name] = number
    return report
