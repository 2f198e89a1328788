"""What a run over photos tells: each folder as it is done, then every site, with its map and its picture."""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from uuid import UUID

from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.events import emit_event

from tasks.agenda import DATABASE_PATIENCE_S
from tasks.exif import Flag
from tasks.patience import patiently
from tasks.photos import FolderResult, Listed
from tasks.photos_products import Stored
from tasks.photos_tools import Toolbox
from tasks.photos_work import Found
from tasks.postgres import sql_text
from tasks.records import RunReport, Status
from tasks.reporting import PREFECT_AWAY, Run, publish, run_logger
from tasks.site_folders import category_of
from tasks.site_products import MAP

TABLE_EVERY_S = 2.0
SHOWN_FAILURES = 200
SHOWN_SITES = 12
"""Sites with a picture and a link of their own on the report; the others have a line."""


class FolderTable:
    """Each folder as it gets done: an event when nothing is left of it, a line of a table that grows in the UI."""

    def __init__(self, tools: Toolbox) -> None:
        self._tools = tools
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        self._artifact: UUID | None = None
        self._next_s = 0.0

    def add(self, result: FolderResult) -> None:
        """Some photos of a folder are done."""
        row = patiently(lambda: self._row(result.site, result.folder), DATABASE_PATIENCE_S)
        self._rows[result.site, result.folder] = row
        if not row["waiting"]:
            self._emit(row)
        if time.monotonic() >= self._next_s:
            self.show()
            self._next_s = time.monotonic() + TABLE_EVERY_S

    def show(self) -> None:
        """Bring the table in the UI up to date."""
        if not self._rows:
            return
        try:
            self._publish(list(self._rows.values()))
        except PREFECT_AWAY as exc:
            run_logger().warning("the table of folders was not updated: %s", exc)

    def _row(self, site: str, folder: str) -> dict[str, Any]:
        """What is known of all photos of a folder, whichever run read them."""
        arguments = {"host": self._tools.job.access.name, "site": site, "folder": folder}
        statuses, flags = Counter[str](), Counter[str]()
        for status, flag, photos in self._tools.database.rows(sql_text("photos_of_folder"), arguments):
            statuses[status] += photos
            if flag is not None:
                flags[flag] += photos
        return {
            "site": site,
            "folder": folder,
            "photos": statuses.total(),
            "with position": flags.pop(Flag.OK, 0),
            "failed": statuses[Status.FAILED],
            "waiting": statuses[Status.PENDING] + statuses[Status.IN_PROGRESS],
            "remarks": _listed(flags),
            "category": str(category_of(folder)),
        }

    def _emit(self, row: Mapping[str, Any]) -> None:
        """For automations: they can pick folders by site and category."""
        access, run_id = self._tools.job.access, self._tools.job.run_id
        labels = {f"landrecords.{name}": row[name] for name in ("site", "folder", "category")}
        about = {"prefect.resource.id": f"landrecords.photos.{run_id}", "landrecords.host": access.name, **labels}
        emit_event(event="landrecords.photos.folder", resource=about, payload=dict(row))

    def _publish(self, table: list[dict[str, Any]]) -> None:
        """One artifact that is replaced as it grows: each version would stay in Prefect's database."""
        if self._artifact is None:
            made = create_table_artifact(key="photos-folders", table=table, description="Photos read, by folder")
            self._artifact = made if isinstance(made, UUID) else None
        else:
            with get_client(sync_client=True) as client:
                client.update_artifact(self._artifact, ArtifactUpdate(data=json.dumps(table)))


def closing_report(
    run: Run, tools: Toolbox, found: Found, listed: Sequence[Listed], made: Sequence[Stored]
) -> RunReport:
    """Count, publish; the page has a line for each site, and pictures and links of those that were made anew."""
    parameters = {"host": tools.job.access.name}
    report: RunReport = patiently(lambda: run.report(sql_text("photos_counts"), parameters), DATABASE_PATIENCE_S)
    refused = found.refused | {folder: said for site in listed for folder, said in site.refused.items()}
    if refused:
        report.notes["folder_not_listed"] = len(refused)
    arguments = {"run_id": run.run_id, "limit": SHOWN_FAILURES}
    names = ("path", "reason", "error", "attempts")
    rows = patiently(lambda: tools.database.rows(sql_text("photos_failures"), arguments), DATABASE_PATIENCE_S)
    _link_maps(made[:SHOWN_SITES])
    failed = [dict(zip(names, row, strict=True)) for row in rows]
    return publish(run, report, failed=failed, extra=_page(listed, refused, found.gone, made))


def _link_maps(made: Sequence[Stored]) -> None:
    """The run's artifacts lead to the maps."""
    for site in made:
        key = "photos-map-" + re.sub("[^a-z0-9]+", "-", site.site.lower()).strip("-")
        with suppress(*PREFECT_AWAY):
            said, address = _said(site), site.addresses[MAP]
            create_link_artifact(_link(address), f"Map of {site.site}", key=key, description=f"{said} `{address}`")


def _page(listed: Sequence[Listed], refused: Mapping[str, str], gone: int, made: Sequence[Stored]) -> str:
    lines = ["", "## Sites", "", "| site | photos | new | changed | vanished |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {_cell(one.site)} | {one.photos:,} | {one.new:,} | {one.changed:,} | {one.vanished:,} |" for one in listed
    ]
    if gone:
        lines += ["", f"{gone:,} photos vanished with their site's folder."]
    lines += [f"\nNot listed: `{_cell(folder)}`: {_cell(said)}" for folder, said in refused.items()]
    for site in made[:SHOWN_SITES]:
        lines += _of_site(site)
    lines += ["", *(f"- {_cell(site.site)}: `{site.addresses[MAP]}`" for site in made[SHOWN_SITES:])]
    return "\n".join(lines) + "\n"


def _of_site(site: Stored) -> list[str]:
    """Links, and the map's address besides: from a server's page a browser follows no link to a file."""
    links = " · ".join(f"[{name}]({_link(address)})" for name, address in site.addresses.items())
    lines = ["", f"### {_cell(site.site)}", "", _said(site), "", links, "", f"Map: `{site.addresses[MAP]}`"]
    if site.thumbnail is not None:
        packed = base64.b64encode(site.thumbnail.read_bytes()).decode()
        lines += ["", f"![{_cell(site.site)}](data:image/png;base64,{packed})"]
    return lines


def _said(site: Stored) -> str:
    return f"{site.photos:,} photos, {site.positioned:,} with a position, {site.outliers:,} outliers."


def _link(address: str) -> str:
    """What a browser opens: a bucket's objects through Google's own page, for those who may see them."""
    if address.startswith("gs://"):
        return "https://storage.cloud.google.com/" + quote(address.removeprefix("gs://"))
    return address


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {n}" for word, n in sorted(counts.items(), key=lambda item: -item[1]))


def _cell(text: str) -> str:
    """A name in a table of Markdown."""
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())
