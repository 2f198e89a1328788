"""Map tiles by the hundred thousand: fetched at the pace the server bears, verified, stored, and made into one file.

Killed at any moment, the next run goes on where this one stopped: the rows of `tiles` say what is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Annotated, Any, cast

from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import blocks
from flows.rounds import rounds
from flows.workload import workload
from tasks.agenda import Orders
from tasks.dial import dialled, limit_pages, read_rate
from tasks.errors import LandrecordsError
from tasks.geotiff_pixels import Compression
from tasks.pipeline import PageResult, run_pages, threads_needed
from tasks.postgres import open_database
from tasks.records import RunReport, Status
from tasks.reporting import publish, reported
from tasks.settings import load_settings
from tasks.tile_images import known_blanks
from tasks.tile_plan import Area, area_of, check_layer, open_layer, plan
from tasks.tile_urls import Scheme
from tasks.tiles import fetch_page
from tasks.tiles_archive import Archive, ArchiveOrder, archive_orders, build_archive, upload_archive
from tasks.tiles_tools import Job, Source, Toolbox, opened_toolbox
from tasks.tiles_work import closing_report, estimate, page_size
from tasks.workloads import TILES

DATABASE_CONNECTIONS = 8

Numbers = list[int]


@workload(name="tiles", task_runner=ThreadPoolTaskRunner(max_workers=threads_needed(1)))
def tiles(
    url_template: Annotated[
        str,
        Field(title="Address", description="With {z} {x} {y}, {-y}, {q}, {s}, {bbox-epsg-3857} or a {name} of values"),
    ],
    layer: Annotated[str, Field(description="Its folder in the store: layer/z/x/y.ext")],
    zoom: Annotated[int | Numbers, Field(description="A zoom such as 21, or [first, last]")],
    bbox: Annotated[list[float] | None, Field(description="[west, south, east, north] in degrees")] = None,
    x_range: Annotated[Numbers | None, Field(description="[first, last] at the highest zoom")] = None,
    y_range: Annotated[Numbers | None, Field(description="[first, last] at the highest zoom")] = None,
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Turns the server's dial; None leaves it as it stands, or unlimited")
    ] = None,
    connections: Annotated[int, Field(ge=1, le=1000, description="Tiles in flight at most")] = 100,
    archive: Annotated[Archive, Field(description="Make one PMTiles file of the layer, or a GeoTIFF a zoom")] = "none",
    limit: Annotated[int | None, Field(ge=1, description="At most so many tiles")] = None,
    dry_run: Annotated[bool, Field(description="Only say what would be fetched, from a few tiles")] = False,
    polygon: Annotated[
        dict[str, Any] | str | None, Field(description="GeoJSON polygons, or the path of a file with them")
    ] = None,
    scheme: Annotated[Scheme, Field(description="tms: {y} and y_range count from the south")] = "xyz",
    subdomains: Annotated[list[str] | None, Field(description="For {s}")] = None,
    values: Annotated[
        dict[str, str] | None, Field(description="Further names of the address; env:NAME reads a secret")
    ] = None,
    headers: Annotated[dict[str, str] | None, Field(description="Sent along; env:NAME reads a secret")] = None,
    allowed_hosts: Annotated[list[str] | None, Field(description="Hosts that redirects may lead to")] = None,
    refresh: Annotated[bool, Field(description="Ask again for what is done, if it changed")] = False,
    missing_statuses: Annotated[tuple[int, ...], Field(description="Answers that mean there is no such tile")] = (
        204,
        404,
        410,
    ),
    blank_hashes: Annotated[
        list[str] | None, Field(description="SHA-256 of tiles that count as blank whatever they show")
    ] = None,
    decode: Annotated[bool, Field(description="Look at every pixel of every tile (1 ms each)")] = False,
    attribution: Annotated[str, Field(description="Who made the map; kept in the archive")] = "",
    geotiff_compression: Annotated[
        Compression, Field(description="jpeg keeps JPEG tiles as they are; deflate and zstd lose nothing")
    ] = "deflate",
    backoff_s: Annotated[
        float, Field(gt=0, le=3600, description="Seconds before a failed tile is due again; doubles each time")
    ] = 2.0,
    patience_s: Annotated[
        float, Field(gt=0, le=86400, description="A server that gives only errors for so long ends the run, in seconds")
    ] = 60.0,
) -> RunReport:
    """Fetch the tiles of an area; returns counts by status, failures by reason, bytes and rate."""
    blocks.fill_environment()
    settings = load_settings()
    source = Source(
        url_template,
        scheme,
        tuple(subdomains or ()),
        values or {},
        headers or {},
        tuple(allowed_hosts or ()),
        frozenset(missing_statuses),
    )
    source.check()
    host, blanks = source.host, known_blanks(blank_hashes or ())
    area = area_of(zoom, bbox=bbox, polygon=polygon, x_range=x_range, y_range=y_range, tms=scheme == "tms")
    check_layer(layer)
    orders = archive_orders(archive, area, attribution, geotiff_compression)
    database = open_database(settings, size=DATABASE_CONNECTIONS)
    given = {"layer": layer, "host": host, "tiles": area.tiles, "limit": limit, "dry_run": dry_run, "archive": archive}
    with closing(database), reported("tiles", database, (TILES,), given) as run:
        opened = open_layer(database, layer, make=not dry_run)
        job = Job(run.run_id, opened, opened.scope(area), source, connections, blanks, decode, backoff_s, patience_s)
        with opened_toolbox(job, database, run.tally) as tools:
            if dry_run:
                rate = read_rate(host, requests_per_second, None)
                foretold = estimate(tools, area, limit, rate, refresh=refresh)
                return publish(run, run.empty_report(dry_run=True, estimate=foretold))
            tools.store.check()
            with dialled(tools.clock, requested=requests_per_second, default=None):
                for page in crawl(tools, area, limit, refresh=refresh):
                    run.page_done(page.number, page.counts)
            try:
                made = archives(tools, orders)
            except LandrecordsError:
                closing_report(run, tools, area, [])
                raise
            return closing_report(run, tools, area, made)


def crawl(tools: Toolbox, area: Area, limit: int | None, *, refresh: bool) -> Iterator[PageResult]:
    """Every page of the run: tiles that are not there, then those that are due again."""
    job = tools.job
    tag = f"tiles-{tools.clock.host}"
    limit_pages(tag)
    tools.queue.release_dead()
    plan(tools.database, job.layer, area, stop=tools.stop)
    if refresh:
        tools.queue.retry(job.scope, statuses=(Status.COMPLETED, Status.SKIPPED), limit=limit)
    fetch = fetch_page.with_options(tags={tag})
    orders = Orders(tools.queue, job.scope, tools.tally, page_size, limit, claimed=tools.claimed)
    yield from rounds(tools, fetch, orders)


def archives(tools: Toolbox, orders: list[ArchiveOrder]) -> list[str]:
    """Make and store what was asked for; returns the keys."""
    if not orders or tools.stop.is_set():
        return []
    limit_pages("archive", "store")
    stages = build_archive.with_options(tags={"archive"}), upload_archive.with_options(tags={"store"})
    stored = cast(Iterator[tuple[str, ...]], run_pages(stages, tools.job, orders, stop=tools.stop))
    return [key for keys in stored for key in keys]
