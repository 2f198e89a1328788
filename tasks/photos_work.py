"""Which sites and photos a run has to do: plain listings and queries, no tasks."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from psycopg2 import Binary, sql

from tasks.agenda import DATABASE_PATIENCE_S
from tasks.errors import ConfigurationError, OutsideUnreachable, TerminalError
from tasks.patience import patiently
from tasks.photos import FolderOrder
from tasks.photos_tools import Toolbox
from tasks.postgres import sql_text
from tasks.reporting import run_logger
from tasks.sftp import EntryKind, Failure
from tasks.site_names import SiteName, parse_site
from tasks.site_photo import printable

PAGE_PHOTOS = 500
"""Photos a page: a folder has mostly fewer."""


@dataclass
class Found:
    """The site folders below the root.

    sites    those that are wanted, by path
    refused  folders of pilots that could not be listed -> why
    gone     photos of sites that are no longer there: marked as vanished
    """

    sites: list[SiteName] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    gone: int = 0


def find_sites(tools: Toolbox) -> Found:
    """The site folders below the root that are wanted, with a row for each.

    Raises ConfigurationError when the root cannot be listed, or a wanted site is not there; OutsideUnreachable.
    """
    root, wanted = tools.job.root.rstrip("/"), tools.job.sites
    found = Found()
    for listing in tools.sftp.walk(root or "/", max_depth=1):
        pilot = str(listing.id if isinstance(listing, Failure) else listing.path)[len(root) :].strip("/")
        if isinstance(listing, Failure):
            found.refused[pilot] = _refused(pilot, listing)
            continue
        names = (entry.name for entry in listing.entries if entry.kind == EntryKind.FOLDER)
        found.sites += [site for name in names if pilot and (site := parse_site(pilot, name))]
    missing = sorted(wanted - {site.site_id for site in found.sites})
    if missing:
        seen = ", as far as it could be listed" if found.refused else ""
        raise ConfigurationError(
            f"there is no folder of site {', '.join(missing)} below {root or '/'}{seen}; correct `sites`."
        )
    found.sites = sorted((s for s in found.sites if not wanted or s.site_id in wanted), key=lambda site: site.path)
    _note(tools, found.sites)
    found.gone = _mark_gone(tools, found, f"{root}/")
    return found


def _refused(pilot: str, failure: Failure[str]) -> str:
    """Why a pilot's folder was not listed; the root's own is the run's failure."""
    if pilot:
        run_logger().warning("%s", failure.error)
        return str(failure.error)
    if isinstance(failure.error, TerminalError):
        raise ConfigurationError(f"{failure.error} Give the folder of the pilots as `root`.")
    raise OutsideUnreachable(str(failure.error))


def _mark_gone(tools: Toolbox, found: Found, below: str) -> int:
    """Photos of site folders that are there no more vanished with them."""
    arguments = {
        "host": tools.job.access.name,
        "found": [site.label for site in found.sites],
        "refused": [printable(pilot) for pilot in found.refused],
        "wanted": sorted(tools.job.sites),
        "below": Binary(os.fsencode(below)),
    }
    with tools.database.transaction() as cursor:
        cursor.execute(sql_text("photos_gone"), arguments)
        return cursor.rowcount


def _note(tools: Toolbox, sites: Sequence[SiteName]) -> None:
    for site in sites:
        tools.database.rows(
            "INSERT INTO sites (host, site, pilot, site_id, flown_on, client) SELECT %s, %s, %s, %s, %s, %s"
            " WHERE NOT EXISTS (SELECT 1 FROM sites WHERE host = %s AND site = %s) ON CONFLICT DO NOTHING",
            (
                *(tools.job.access.name, site.label, printable(site.pilot), site.site_id),
                *(site.day, printable(site.client), tools.job.access.name, site.label),
            ),
        )


class FolderAgenda:
    """The pages of a run: photos by site and folder, then those that are due again."""

    def __init__(self, tools: Toolbox, sites: Sequence[str], limit: int | None) -> None:
        self._tools = tools
        self._sites = list(sites)
        self._limit = limit
        self._numbers = itertools.count(1)
        self._fresh: list[int] = []

    def round(self) -> Iterator[FolderOrder]:
        """Orders for photos that are due now, folder by folder, as far as the limit allows for new ones."""
        run_id, scope = self._tools.job.run_id, self._tools.job.scope()
        for again, of in ((False, scope.not_taken_by(run_id)), (True, scope.taken_by(run_id))):
            left = None if again or self._limit is None else max(0, self._limit - self._taken())
            query = sql.SQL(sql_text("photos_due")).format(scope=sql.SQL(f"{of.where} AND site = ANY(%(sites)s)"))
            arguments = {**of.parameters, "sites": self._sites}
            due = patiently(partial(self._tools.database.rows, query, arguments), DATABASE_PATIENCE_S)
            if not again:
                self._tools.tally.expected += min(sum(n for _, _, n in due), left if left is not None else 1 << 60)
            yield from self._orders(due, left, again=again)

    def _orders(self, due: Sequence[tuple[str, str, int]], left: int | None, *, again: bool) -> Iterator[FolderOrder]:
        for site, folder, photos in due:
            for start in range(0, photos, PAGE_PHOTOS):
                size = min(PAGE_PHOTOS, photos - start, photos if left is None else left)
                if size <= 0:
                    return
                left = None if left is None else left - size
                number = next(self._numbers)
                self._fresh += [] if again else [number]
                yield FolderOrder(number, size, again, site, folder)

    def next_due_in_s(self) -> float | None:
        """Seconds until a photo is due; None when there is none. Called between rounds, when no page is at work."""
        queue, run_id = self._tools.queue, self._tools.job.run_id
        patiently(queue.release_run, DATABASE_PATIENCE_S)
        delays = []
        for site in self._sites:
            scope = self._tools.job.scope(site)
            delays.append(patiently(partial(queue.due_in_s, scope.taken_by(run_id)), DATABASE_PATIENCE_S))
            if self._limit is None or self._taken() < self._limit:
                delays.append(patiently(partial(queue.due_in_s, scope.not_taken_by(run_id)), DATABASE_PATIENCE_S))
        return min((d for d in delays if d is not None), default=None)

    def _taken(self) -> int:
        return sum(self._tools.claimed[number] for number in self._fresh)
