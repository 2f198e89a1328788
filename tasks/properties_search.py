"""How one query of a search is walked: its pages fetched side by side, noted as they come, read again where they fell
short, divided where the register does not deliver all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from tasks.agenda import DATABASE_PATIENCE_S
from tasks.bulk import Ask, Failure
from tasks.bulk_engine import Result
from tasks.errors import ItemError, RateLimited, TransientError
from tasks.pages import Page, Row
from tasks.patience import patiently
from tasks.pipeline import outcome_of
from tasks.properties_tools import Toolbox
from tasks.records import Outcome, Reason, Status
from tasks.register_changes import sight, sighted
from tasks.register_requests import Filters, Hits, read_hits, search_url
from tasks.register_search import divide, filters_from, is_over_cap, label, pages_of
from tasks.register_searches import divide_query, note_progress

PAGE_TRIES = 4
"""Times a page of a search is asked for before its query waits for another attempt."""

PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""Before pages that failed are asked for again; doubles each time. Where a 429 says when, the clock sees to that."""

BARREN_PASSES = 2
MOST_PASSES = 8
"""A query that fell short is read again: where the order shifts, pages miss what lies between. Until so many passes in
a row named nothing new."""

PageName = int | str | None
"""A page's number, or its cursor; None: the first, where pages follow a cursor."""


class EnoughFound(Exception):
    """A run with a limit has found what it will take; the query stays where it is."""


class Walk:
    """One claimed query, from where it stands to its end."""

    def __init__(self, tools: Toolbox, page: Page, row: Row) -> None:
        self._tools, self._page, self._row = tools, page, row
        self._profile, self._search = tools.job.profile, tools.job.profile.search
        self._filters = filters_from(row["filters"])
        self._seen = {name: set(row["seen"].get(name, ())) for name in self._search.partition}
        self._new = 0

    def run(self) -> None:
        """Walk it and settle it. Raises StopRequested, OutsideUnreachable, EnoughFound: then it is not settled."""
        try:
            self._read_all()
            while self._is_short() and not self._is_over_cap():
                self._begin_pass()
                self._read_all()
        except ItemError as exc:
            self._page.settle(outcome_of(self._row["id"], exc))
            return
        parts: list[Filters] = []
        if self._is_over_cap() and not self._is_unheeded():
            parts = divide(self._profile, self._filters, self._row["total"], self._seen)
        if parts:
            patiently(lambda: self._divide(parts), DATABASE_PATIENCE_S)
        else:
            self._settle()

    # --- passes ---

    def _read_all(self) -> None:
        """One pass over all pages, from where it stands."""
        if self._search.paging.kind == "cursor":
            self._follow()
            return
        if 1 not in self._row["pages_done"]:
            self._take([1])  # it says how many there are
        while not self._is_unheeded() and (todo := self._pages() - set(self._row["pages_done"])):
            self._take(sorted(todo))

    def _pages(self) -> set[int]:
        return set(range(1, pages_of(self._search, self._row["total"]) + 1))

    def _follow(self) -> None:
        """Until there is no cursor, or one that was followed before: some registers never stop giving the last.

        A cursor that an earlier attempt kept may be void by now: then the pass begins again.
        """
        followed: set[PageName] = set()
        while True:
            cursor = self._row["cursor"]
            followed.add(cursor)
            try:
                self._take([cursor])
            except ItemError as exc:
                if cursor is None or len(followed) > 1 or isinstance(exc, TransientError):
                    raise
                self._row["cursor"] = None
            else:
                if self._row["cursor"] in {None, *followed}:
                    return

    def _is_short(self) -> bool:
        """Whether another pass may find more."""
        row = self._row
        row["passes"] += 1
        row["barren"] = 0 if self._new else row["barren"] + 1
        found = self._found()
        return found < (row["total"] or 0) and row["barren"] < BARREN_PASSES and row["passes"] < MOST_PASSES

    def _begin_pass(self) -> None:
        self._row["pages_done"], self._row["cursor"], self._new = [], None, 0

    def _found(self) -> int:
        return int(
            patiently(
                lambda: sighted(self._tools.database, self._row["search_id"], self._row["id"]), DATABASE_PATIENCE_S
            )
        )

    def _is_over_cap(self) -> bool:
        return is_over_cap(self._search, self._row["total"])

    def _is_unheeded(self) -> bool:
        """Whether it has no fewer hits than the query it is a part of: the register does not heed the filter, and
        would deliver the same hits for ever smaller parts."""
        around = self._row["total_around"]
        return self._is_over_cap() and around is not None and self._row["total"] >= around

    # --- pages ---

    def _take(self, pages: Collection[PageName]) -> None:
        """Fetch and note pages, some more than once where they fail. Raises ItemError for one that fails for good."""
        tries, todo, pause_s = Counter[PageName](), list(pages), 0.0
        while todo:
            self._tools.stop.wait(pause_s)
            failed = dict(self._ask(todo))
            for name, error in failed.items():
                tries[name] += not isinstance(error, RateLimited)
                if not isinstance(error, TransientError | RateLimited) or tries[name] >= PAGE_TRIES:
                    raise self._told(name, error)
            first_s = min(PAUSE_S, self._tools.job.backoff_s)
            todo, pause_s = list(failed), min(LONGEST_PAUSE_S, max(first_s, 2 * pause_s))

    def _ask(self, pages: Collection[PageName]) -> Iterator[tuple[PageName, ItemError]]:
        """Ask for pages side by side, note what comes; yields those that failed."""
        numbered = {self._tools.number(): name for name in pages}
        asks = (Ask(n, search_url(self._profile, self._filters, name)) for n, name in numbered.items())
        for results in self._tools.fetch("search", asks):
            came: dict[PageName, Hits] = {}
            for result in results:
                name = numbered[result.id]
                try:
                    came[name] = self._hits(name, result)
                except ItemError as exc:
                    yield name, exc
            if came:
                self._note(came)

    def _hits(self, name: PageName, result: Result) -> Hits:
        """What a page names. One past the end, where the order shifted or hits went away, is an empty one."""
        if isinstance(result, Failure):
            is_past_end = result.status in self._search.past_end and isinstance(name, int) and name > 1
            if is_past_end:
                return Hits((), self._row["total"], None, {})
            if not isinstance(result.error, RateLimited):
                self._tools.verdict.heard(good=False)
            raise result.error
        try:
            hits = read_hits(self._profile, result.body)
        except ItemError as exc:  # an answer that is none may be the server's trouble of a moment
            self._tools.verdict.heard(good=False)
            raise TransientError(exc.reason, f"the answer to a search cannot be read: {exc}") from exc
        self._tools.verdict.heard(good=True)
        return hits

    def _note(self, came: dict[PageName, Hits]) -> None:
        """Make rows of what pages named, then write how far the query is."""
        patiently(lambda: self._sight(came), DATABASE_PATIENCE_S)
        row = self._row
        for name, hits in came.items():
            row["total"] = hits.total
            row["cursor"] = hits.next
            if isinstance(name, int):
                row["pages_done"] = [*row["pages_done"], name]
            for of, values in hits.values.items():
                self._seen.get(of, set()).update(values)
        if self._is_over_cap():
            row["seen"] = {of: list(values) for of, values in self._seen.items() if values}
        patiently(lambda: note_progress(self._page, row), DATABASE_PATIENCE_S)
        if self._tools.is_enough_found():
            raise EnoughFound

    def _sight(self, came: dict[PageName, Hits]) -> None:
        ids = [item for hits in came.values() for item in hits.ids]
        of = {name: str(self._filters[name]) for name in ("municipality", "address_type")}
        row = self._row
        self._new += sight(
            self._tools.database, row["search_id"], ids, source=self._profile.source, query_id=row["id"], **of
        ).distinct

    def _told(self, name: PageName, error: ItemError) -> ItemError:
        """The same, saying whose page it was."""
        of = f"page {name} of {label(self._filters)}" if isinstance(name, int) else label(self._filters)
        error.args = (f"{of}: {error}",)
        return error

    # --- ends ---

    def _divide(self, parts: list[Filters]) -> None:
        found = self._found()
        with self._page.transaction() as settling:
            divide_query(settling, self._row, parts, found)

    def _settle(self) -> None:
        found, total = self._found(), self._row["total"]
        reason = Reason.FELL_SHORT if found < (total or 0) else None
        self._page.settle(Outcome(self._row["id"], Status.COMPLETED, reason, values={"found": found, "total": total}))
