"""Searches and their queries as rows: begun, divided, kept track of, and at last compared with what there must be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg2.extras import Json

from tasks.pages import Page, Row, Settling
from tasks.postgres import Cursor, Database, sql_text
from tasks.records import Outcome, Reason, Status
from tasks.register_changes import forget_search, mark_vanished, sighted
from tasks.register_profile import RegisterProfile
from tasks.register_requests import Filters
from tasks.register_search import divide, filters_from, label

RESUMED_WITHIN_S = 24 * 3600.0
"""A search that was interrupted longer ago begins anew: what it found then is no picture of today."""

COLUMNS = (
    "item.id, item.search_id, item.filters, item.total, item.pages_done, item.cursor, item.passes, item.barren,"
    " item.seen, (SELECT around.total FROM property_queries AS around WHERE around.id = item.parent_id) AS total_around"
)
"""What a claim of queries must ask for. `total_around`: of the query it is a part of."""


def begin_searches(
    database: Database, source: str, municipalities: Sequence[str], address_types: Sequence[str]
) -> None:
    """See that there is a search of each of these municipalities and types: one under way, or a new one."""
    arguments = {
        "source": source,
        "municipalities": list(municipalities),
        "address_types": list(address_types),
        "resumed_within_s": RESUMED_WITHIN_S,
    }
    database.rows(sql_text("properties_begin_searches"), arguments)


def note_progress(page: Page, row: Row) -> None:
    """Write how far a claimed query is; nothing when another worker has it by now."""
    statement = (
        "UPDATE property_queries SET total = %(total)s, pages_done = %(pages_done)s, cursor = %(cursor)s,"
        " passes = %(passes)s, barren = %(barren)s, seen = %(seen)s WHERE id = %(id)s AND claimed_by = %(owner)s"
    )
    page.queue.database.rows(statement, {**row, "filters": None, "seen": Json(row["seen"]), "owner": page.owner})


def divide_query(settling: Settling, row: Row, parts: Iterable[Filters], found: int) -> None:
    """Make rows of the parts of a query, which is done with that. Parts that are there already stay as they are."""
    outcome = Outcome(row["id"], Status.COMPLETED, Reason.DIVIDED, values={"found": found, "total": row["total"]})
    if row["id"] in settling.settle([outcome]):
        _add_parts(settling.cursor, row["search_id"], row["id"], parts)


def divide_further(database: Database, profile: RegisterProfile, search_id: str) -> int:
    """Divide queries whose parts have less than they once more, by another filter: a zip code may be on none of the
    pages that the register delivers.

    Returns how many parts that made; none while queries are left, or nothing is missing. Raises OutsideUnreachable.
    """
    with database.transaction() as cursor:
        cursor.execute(sql_text("properties_search_over"), {"search_id": search_id})
        if cursor.fetchone() is None:
            return 0
        queries = _queries(cursor, search_id)
        if not shortfalls(queries, sighted(database, search_id)):
            return 0
        lacking = [query for query in queries if query["divided_by"] and (query["of_parts"] or 0) < query["total"]]
        return sum(_add_parts(cursor, search_id, query["id"], _other_parts(profile, query)) for query in lacking)


def _other_parts(profile: RegisterProfile, query: Row) -> list[Filters]:
    return divide(profile, filters_from(query["filters"]), query["total"], query["seen"], query["divided_by"])


def _add_parts(cursor: Cursor, search_id: str, parent_id: int, parts: Iterable[Filters]) -> int:
    statement = (
        "INSERT INTO property_queries (search_id, parent_id, filters)"
        " SELECT %s, %s, part FROM unnest(%s::jsonb[]) AS part ON CONFLICT DO NOTHING"
    )
    cursor.execute(statement, (search_id, parent_id, [Json(dict(part)) for part in parts]))
    return cursor.rowcount


# --- the end of a search ---


@dataclass(frozen=True)
class SearchEnd:
    """A search that is over.

    total       hits, as the register said; None where it did not
    found       different properties it named
    queries     the search was divided into
    shortfalls  what could not be found, a sentence each; empty: the search was whole
    """

    municipality: str
    address_type: str
    total: int | None
    found: int
    queries: int
    shortfalls: tuple[str, ...]


def end_search(database: Database, search_id: str, run_id: str) -> SearchEnd | None:
    """Compare a search with what the register says it has, mark what vanished or returned, forget its notes.

    None where queries of it are left, or another run has ended it. Raises OutsideUnreachable.
    """
    with database.transaction() as cursor:
        cursor.execute(sql_text("properties_search_over"), {"search_id": search_id})
        search = cursor.fetchone()
        if search is None:
            return None
        source, municipality, address_type = search
        queries, found = _queries(cursor, search_id), sighted(database, search_id)
        said = tuple(shortfalls(queries, found))
        of = {"municipality": municipality, "address_type": address_type, "source": source}
        mark_vanished(database, search_id, run_id, whole=not said, **of)
        cursor.execute("UPDATE property_searches SET ended_at = now() WHERE search_id = %s", (search_id,))
    forget_search(database, search_id)  # killed before this, the next search of its kind does it
    return SearchEnd(municipality, address_type, queries[0]["total"], found, len(queries), said)


def _queries(cursor: Cursor, search_id: str) -> list[Row]:
    cursor.execute(sql_text("properties_search_queries"), {"search_id": search_id})
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def shortfalls(queries: Sequence[Row], found: int) -> list[str]:
    """What a search lacks, by query: rows with `filters`, `status`, `reason`, `error`, `total`, `found` and
    `of_parts`, the total of the query's parts by one filter. The first is the search itself. `found`: by all of them
    together."""
    total = queries[0]["total"]
    failed = [query for query in queries if query["status"] == Status.FAILED]
    if not failed and found and found >= (total or 0):
        return []
    said = [f"{_label(query)}: not searched to its end ({query['error']})" for query in failed]
    for query in queries:
        there = query["of_parts"] if query["reason"] == Reason.DIVIDED else query["found"]
        if query["status"] == Status.COMPLETED and there is not None and there < (query["total"] or 0):
            what = "its parts have" if query["reason"] == Reason.DIVIDED else "found"
            said.append(f"{_label(query)}: {what} {there:,} of {query['total']:,}")
    if not found and not failed:
        said.append(f"{_label(queries[0])}: nothing found; is it written as the register writes it?")
    return said or [f"{_label(queries[0])}: found {found:,} of {total:,}"]


def _label(query: Row) -> str:
    return label(filters_from(query["filters"]))
