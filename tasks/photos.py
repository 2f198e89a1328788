"""The photos workload: the tasks that list sites, read the positions of photos by folders, and make products of sites.

Nothing of a photo is fetched but the few kilobytes that tell its position, and nothing at all while its size and
time are as they were.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from prefect import task

from tasks.agenda import PageOrder
from tasks.errors import ItemError, refuse_when_stopped
from tasks.exif import HEAD_BYTES, Flag, NeedMore, PhotoFacts
from tasks.exif import Reader as ExifReader
from tasks.pages import Row
from tasks.photos_tools import Job, Toolbox, toolbox
from tasks.pipeline import PAGE, PageResult, outcome_of
from tasks.postgres import sql_text
from tasks.records import Outcome, Reason, Status
from tasks.sftp import Ask, EntryKind, Failure, Listing, Read, Reader
from tasks.site_names import SiteName, is_photo
from tasks.site_photo import printable
from tasks.workloads import PHOTOS

COLUMNS = "item.id, item.raw_path, item.size"
REREAD = ("flag", "latitude", "longitude", "altitude_m", "altitude_ref", "relative_altitude_m", "direction_deg")

_NOT_READ = {Flag.UNREADABLE: Reason.UNREADABLE, Flag.TOO_LARGE: Reason.TOO_LARGE}


@dataclass(frozen=True)
class Listed(PageResult):
    """What a listing found in a site: photos in all, and how they differ from the rows; folders that were refused."""

    site: str = ""
    photos: int = 0
    new: int = 0
    changed: int = 0
    vanished: int = 0
    back: int = 0
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FolderOrder(PageOrder):
    """Photos of one folder."""

    site: str = ""
    folder: str = ""


@dataclass(frozen=True)
class FolderResult(PageResult):
    """What became of photos of one folder."""

    site: str = ""
    folder: str = ""


# --- list ---


@task(**PAGE, task_run_name="list-{site.label}")
def list_site(job: Job, site: SiteName) -> Listed:
    """Bring the rows of a site in line with the server."""
    tools = toolbox(job)
    refuse_when_stopped(tools.stop)
    photos, refused = [], {}
    listed = set()
    top = f"{job.root.rstrip('/')}/{site.path}"
    for found in tools.sftp.walk(top):
        if isinstance(found, Failure):
            refused[printable(str(found.id))] = str(found.error)
            continue
        folder = found.path[len(top) :].strip("/")
        listed.add(folder)
        photos += _photos_of(found, printable(folder))
    with tools.database.transaction() as cursor:
        arguments = {
            "host": job.access.name,
            "site": site.label,
            "photos": json.dumps(photos),
            "folders": json.dumps([printable(folder) for folder in _and_gone(tools, site, listed, refused)]),
        }
        cursor.execute(sql_text("photos_listed"), arguments)
        photos_there, new, changed, vanished, back = cursor.fetchone() or (0, 0, 0, 0, 0)
    there = {"photos": photos_there, "new": new, "changed": changed, "vanished": vanished, "back": back}
    return Listed(site=site.label, **there, refused=refused)


def _photos_of(listing: Listing, folder: str) -> list[dict[str, Any]]:
    return [
        {
            "folder": folder,
            "path": printable(entry.path),
            "raw_path": os.fsencode(entry.path).hex(),
            "size": entry.size,
            "mtime": entry.mtime,
        }
        for entry in listing.entries
        if entry.kind == EntryKind.FILE and is_photo(entry.name)
    ]


def _and_gone(tools: Toolbox, site: SiteName, listed: set[str], refused: dict[str, str]) -> set[str]:
    """Folders whose rows are judged: those that were listed, and those that are there no more."""
    known = tools.database.rows(
        "SELECT DISTINCT folder FROM site_images WHERE host = %s AND site = %s",
        (tools.job.access.name, site.label),
    )
    top = printable(f"{tools.job.root.rstrip('/')}/{site.path}")
    behind = [folder[len(top) :].strip("/") for folder in refused]
    hidden = {f for (f,) in known if any(f == b or not b or f.startswith(f"{b}/") for b in behind)}
    return listed | {folder for (folder,) in known} - hidden


# --- read ---


@task(**PAGE, task_run_name="read-{order.site}-{order.folder}-{order.number}")
def read_folder(job: Job, order: FolderOrder) -> FolderResult:
    """Read the positions of photos of a folder, many at once. One that is run again takes only what is left of it."""
    tools = toolbox(job)

    def count(outcome: Outcome, status: str) -> None:
        tools.tally.add(PHOTOS.name, status, bytes_in=outcome.values.get("bytes_read") or 0)

    with tools.slots:
        refuse_when_stopped(tools.stop)
        scope, limit = job.scope(order.site, order.folder), order.limit - tools.claimed[order.number]
        counts: dict[str, int] = {}
        if limit > 0:
            with tools.queue.claim(limit, order.scope(scope, job.run_id), columns=COLUMNS) as page:
                tools.claimed[order.number] += len(page.rows)
                page.listener = count
                for result in tools.sftp.read_many(map(_ask, page.rows)):
                    page.settle(_outcome(result))
            counts = page.settled
    refuse_when_stopped(tools.stop)
    return FolderResult(order.number, (), counts, order.site, order.folder)


def _ask(row: Row) -> Ask[int, PhotoFacts]:
    size = row["size"]
    return Ask(row["id"], os.fsdecode(bytes(row["raw_path"])), lambda: facts_of(size))


def facts_of(size: int) -> Reader[PhotoFacts]:
    """Reads a photo of `size` bytes by the ranges it needs."""
    reader, needed = ExifReader(size), NeedMore(0, min(size, HEAD_BYTES))
    while True:
        data = yield needed
        answer = reader.feed(needed.offset, data)
        if isinstance(answer, PhotoFacts):
            return answer
        needed = answer


def _outcome(result: Read[int, PhotoFacts] | Failure[int]) -> Outcome:
    """A photo without a position was read; one that cannot be read failed; one that is gone is skipped."""
    if isinstance(result, Failure):
        return _failed(result)
    facts = result.value
    told = asdict(facts) | {"bytes_read": result.bytes_read}
    taken_at = facts.taken_at.isoformat() if facts.taken_at else None
    values = {name: told[name] for name in (*REREAD, "clock", "camera", "bytes_read")} | {"taken_at": taken_at}
    if facts.flag in _NOT_READ:
        said = f"the photo's tags cannot be read ({facts.flag}); look at the file."
        return Outcome(result.id, Status.FAILED, _NOT_READ[facts.flag], said, values=values)
    remark = None if facts.flag == Flag.OK else str(facts.flag)
    return Outcome(result.id, Status.COMPLETED, remark, values=values)


def _failed(failure: Failure[int]) -> Outcome:
    error: ItemError = failure.error
    if error.reason == Reason.NOT_FOUND:
        said, gone = "it was deleted after it was listed.", {"vanished_at": "now"}  # Postgres' own now
        return Outcome(failure.id, Status.SKIPPED, Reason.VANISHED, said, values=gone)
    return outcome_of(failure.id, error)
