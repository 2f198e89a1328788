"""Where every photo of a site was taken: read over SFTP from a few kilobytes each, by folders, with a map a site.

Killed at any moment, the next run goes on where this one stopped; photos whose size and time are as they were are
not read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field, SecretStr

from flows import blocks
from flows.workload import workload
from tasks.checkpoints import Scope
from tasks.dial import limit_pages
from tasks.photos import FolderResult, Listed, list_site, read_folder
from tasks.photos_products import Stored, make_products, sites_to_make, upload_products
from tasks.photos_report import FolderTable, closing_report
from tasks.photos_tools import Access, Job, Toolbox, opened_toolbox
from tasks.photos_work import FolderAgenda, find_sites
from tasks.pipeline import run_pages, threads_needed
from tasks.postgres import open_database
from tasks.records import FINAL, RunReport
from tasks.reporting import reported
from tasks.settings import load_settings
from tasks.site_names import SiteName
from tasks.workloads import PHOTOS

DATABASE_CONNECTIONS = 10


@workload(name="photos", task_runner=ThreadPoolTaskRunner(max_workers=threads_needed(2)))
def photos(
    host: Annotated[str, Field(title="Server", description="Its SSH name or address, or block:NAME")],
    root: Annotated[str, Field(description="Folder of the pilots: below it {Pilot}/{SiteID-Date-Client}")] = "/homes",
    port: Annotated[int, Field(ge=1, le=65535, description="SSH port")] = 22,
    username: Annotated[str | None, Field(description="None: the name this process runs under")] = None,
    key_path: Annotated[Path | None, Field(description="Private key file; None: password, or the SSH agent")] = None,
    password: Annotated[
        SecretStr | None, Field(description="Of the user, or of the key; a block keeps it out of sight")
    ] = None,
    known_hosts: Annotated[Path | None, Field(description="None: ~/.ssh/known_hosts")] = None,
    host_key: Annotated[
        str | None, Field(description="Pins the server's key: a public key line, or SHA256:...")
    ] = None,
    sites: Annotated[list[str] | None, Field(description="Only sites of these numbers")] = None,
    connections: Annotated[int, Field(ge=1, le=4, description="SSH connections at most")] = 2,
    depth: Annotated[int, Field(ge=1, le=512, description="Photos in flight on each connection")] = 64,
    refresh: Annotated[bool, Field(description="Read photos again that were read, though nothing changed")] = False,
    limit: Annotated[int | None, Field(ge=1, description="At most so many photos")] = None,
    compress: Annotated[
        bool, Field(description="For narrow lines: half the bytes, a tenth for listings; slower where they are wide")
    ] = False,
    backoff_s: Annotated[
        float, Field(gt=0, le=3600, description="Seconds before a photo is due again; doubles each time")
    ] = 2.0,
) -> RunReport:
    """Read the positions of all photos of the sites; returns counts by status, failures by reason, bytes and rate."""
    blocks.fill_environment()
    access = blocks.sftp(
        Access(host, port, username, key_path, password, None, known_hosts, host_key, connections, depth, compress)
    )
    settings = load_settings()
    database = open_database(settings, size=DATABASE_CONNECTIONS)
    given = {"host": access.name, "root": root, "sites": sites, "limit": limit, "refresh": refresh}
    with closing(database), reported("photos", database, (PHOTOS,), given) as run:
        job = Job(run.run_id, root, access, frozenset(sites or ()), backoff_s)
        with opened_toolbox(job, database, run.tally) as tools:
            tools.store.check()
            tools.queue.release_dead()
            tag = f"sftp-{access.name}"
            limit_pages(tag, "store")
            found = find_sites(tools)
            listed = list(list_all(tools, tag, found.sites))
            names = [each.site for each in listed]
            if refresh:
                tools.queue.retry(_of_sites(job, names), statuses=FINAL, limit=limit)
            table = FolderTable(tools)
            for folder in crawl(tools, tag, names, limit):
                run.page_done(folder.number, folder.counts)
                table.add(folder)
            table.show()
            return closing_report(run, tools, found, listed, list(products(tools, names)))


def _of_sites(job: Job, names: list[str]) -> Scope:
    scope = job.scope()
    return Scope(f"{scope.where} AND site = ANY(%(sites)s)", {**scope.parameters, "sites": names})


def list_all(tools: Toolbox, tag: str, wanted: list[SiteName]) -> Iterator[Listed]:
    """Every site's rows in line with the server, sites side by side."""
    for result in run_pages((list_site.with_options(tags={tag}),), tools.job, wanted, stop=tools.stop):
        assert isinstance(result, Listed)  # noqa: S101 - what `list_site` returns
        yield result


def crawl(tools: Toolbox, tag: str, names: list[str], limit: int | None) -> Iterator[FolderResult]:
    """Every page of the run: folders of photos that are not read, then those that are due again."""
    read = read_folder.with_options(tags={tag})
    agenda = FolderAgenda(tools, names, limit)
    while not tools.stop.is_set() and (delay_s := agenda.next_due_in_s()) is not None and not tools.stop.wait(delay_s):
        for result in run_pages((read,), tools.job, agenda.round(), stop=tools.stop):
            assert isinstance(result, FolderResult)  # noqa: S101 - what `read_folder` returns
            yield result


def products(tools: Toolbox, names: list[str]) -> Iterator[Stored]:
    """Make and store the products of sites that changed since theirs were made."""
    stages = (make_products, upload_products.with_options(tags={"store"}))
    for result in run_pages(stages, tools.job, sites_to_make(tools, names), stop=tools.stop):
        assert isinstance(result, Stored)  # noqa: S101 - what `upload_products` returns
        tools.tally.bytes_out += result.size
        yield result
