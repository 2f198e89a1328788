"""Which sites and photos a run has to do, and what it did: plain queries and listings, no tasks."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from prefect.artifacts import create_table_artifact
from psycopg2 import sql

from tasks.agenda import DATABASE_PATIENCE_S
from tasks.checkpoints import patiently
from tasks.errors import ConfigurationError, TerminalError
from tasks.photos import FolderOrder, FolderResult, Listed
from tasks.photos_products import Made
from tasks.photos_tools import Toolbox
from tasks.postgres import sql_text
from tasks.records import RunReport
from tasks.reporting import PREFECT_AWAY, Run, publish, run_logger
from tasks.sftp import EntryKind, Failure
from tasks.site_names import SiteName, parse_site
from tasks.site_photo import printable
from tasks.site_products import THUMBNAIL

PAGE_PHOTOS = 500
"""Photos a page: a folder has mostly fewer."""

SHOWN_FAILURES = 200
SHOWN_PICTURES = 12


def find_sites(tools: Toolbox) -> list[SiteName]:
    """The site folders below the root that are wanted, with a row for each.

    Raises ConfigurationError when the root cannot be listed, or a wanted site is not there.
    """
    root, wanted = tools.job.root.rstrip("/") or "/", tools.job.sites
    found: list[SiteName] = []
    for listing in tools.sftp.walk(root, max_depth=1):
        if isinstance(listing, Failure):
            _refused(root, listing)
            continue
        pilot = listing.path[len(root) :].strip("/")
        names = (entry.name for entry in listing.entries if entry.kind == EntryKind.FOLDER)
        found += [site for name in names if pilot and (site := parse_site(pilot, name))]
    missing = sorted(wanted - {site.site_id for site in found})
    if missing:
        raise ConfigurationError(f"there is no folder of site {', '.join(missing)} below {root}; correct `sites`.")
    chosen = [site for site in found if not wanted or site.site_id in wanted]
    _note(tools, chosen)
    return sorted(chosen, key=lambda site: site.path)


def _refused(root: str, failure: Failure[str]) -> None:
    if failure.id == root and isinstance(failure.error, TerminalError):
        raise ConfigurationError(f"{failure.error} Give the folder of the pilots as `root`.")
    run_logger().warning("%s", failure.error)


def _note(tools: Toolbox, sites: Sequence[SiteName]) -> None:
    for site in sites:
        tools.database.rows(
            "INSERT INTO sites (host, site, pilot, site_id, flown_on, client) SELECT %s, %s, %s, %s, %s, %s"
            " WHERE NOT EXISTS (SELECT 1 FROM sites WHERE host = %s AND site = %s) ON CONFLICT DO NOTHING",
            (
                *(tools.job.access.name, printable(site.path), printable(site.pilot), site.site_id),
                *(site.day, printable(site.client), tools.job.access.name, printable(site.path)),
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


class FolderTable:
    """The growing table of what was read, folder by folder, as the UI shows it while the run goes on."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, result: FolderResult) -> None:
        """Some photos of a folder are done: the artifact has a line more, or a longer one."""
        row = self._rows.setdefault((result.site, result.folder), {"site": result.site, "folder": result.folder})
        for name, n in {**result.counts, **{f"flag {flag}": n for flag, n in result.flags.items()}}.items():
            row[name] = row.get(name, 0) + n
        try:
            create_table_artifact(
                key="photos-folders", table=list(self._rows.values()), description="Photos read, by folder"
            )
        except PREFECT_AWAY as exc:
            run_logger().warning("the table of folders was not updated: %s", exc)


Stored = tuple[Made, tuple[str, ...]]
"""A site's products and their addresses in the store."""


def closing_report(run: Run, tools: Toolbox, listed: Sequence[Listed], made: Sequence[Stored]) -> RunReport:
    """Count, publish; the page has a line for each site and pictures of those that were made anew."""
    parameters = {"host": tools.job.access.name}
    report: RunReport = patiently(lambda: run.report(sql_text("photos_counts"), parameters), DATABASE_PATIENCE_S)
    arguments = {"run_id": run.run_id, "limit": SHOWN_FAILURES}
    names = ("path", "reason", "error", "attempts")
    rows = patiently(lambda: tools.database.rows(sql_text("photos_failures"), arguments), DATABASE_PATIENCE_S)
    return publish(run, report, failed=[dict(zip(names, row, strict=True)) for row in rows], extra=_page(listed, made))


def _page(listed: Sequence[Listed], made: Sequence[Stored]) -> str:
    lines = ["", "## Sites", "", "| site | photos | new | changed | vanished |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [f"| {_cell(one.site)} | {one.photos} | {one.new} | {one.changed} | {one.vanished} |" for one in listed]
    lines += [f"\nNot listed: `{_cell(folder)}`: {said}" for one in listed for folder, said in one.refused.items()]
    for number, (site, addresses) in enumerate(made):
        lines += ["", f"## {_cell(site.site)}", ""]
        lines.append(f"{site.photos} photos, {site.positioned} with a position, {site.outliers} outliers.")
        lines += ["", *(f"- `{address}`" for address in addresses)]
        picture = next((path for path in site.files if path.name == THUMBNAIL), None)
        if picture is not None and number < SHOWN_PICTURES:
            packed = base64.b64encode(picture.read_bytes()).decode()
            lines += ["", f"![{_cell(site.site)}](data:image/png;base64,{packed})"]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A name in a table of Markdown."""
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())
