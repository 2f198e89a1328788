"""What is made of a layer once its tiles are there: a PMTiles archive with a page that shows it, or GeoTIFFs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefect import task

from tasks.archive_geotiff import MEDIA_TYPE as GEOTIFF
from tasks.archive_geotiff import check_mosaic, write_geotiff
from tasks.archive_pmtiles import MEDIA_TYPE as PMTILES
from tasks.archive_pmtiles import About, write_pmtiles
from tasks.errors import refuse_when_stopped
from tasks.geotiff_pixels import Compression
from tasks.pipeline import PAGE
from tasks.pmtiles_order import in_tile_id_order
from tasks.postgres import sql_text
from tasks.tile_grid import Block
from tasks.tile_keys import archive_key, key_of
from tasks.tile_plan import Area
from tasks.tile_preview import MEDIA_TYPE as PAGE_TYPE
from tasks.tile_preview import preview_page
from tasks.tiles_tools import Job, Toolbox, toolbox
from tasks.tiles_work import outlines

Archive = Literal["none", "pmtiles", "geotiff"]

READ_AHEAD = 512
"""Tiles asked of the store at once."""


@dataclass(frozen=True)
class ArchiveOrder:
    """One file to be made.

    name         after the layer's: `.pmtiles`, `-z21.tif`
    blocks       boxes of tiles; a GeoTIFF has one
    attribution  who made the map, kept in the file
    """

    name: str
    blocks: tuple[Block, ...]
    attribution: str = ""
    compression: Compression = "deflate"


@dataclass(frozen=True)
class Made:
    """Files on this machine that belong into the store: path -> key, media type."""

    files: dict[Path, tuple[str, str]]


def archive_orders(kind: Archive, area: Area, attribution: str, compression: Compression) -> list[ArchiveOrder]:
    """One PMTiles archive for all zooms, or a GeoTIFF for each. Raises ConfigurationError for one that is too large."""
    boxes = tuple(outlines(area))
    if kind == "pmtiles":
        return [ArchiveOrder(".pmtiles", boxes, attribution)]
    if kind == "geotiff":
        for box in boxes:
            check_mosaic(box, compression)
        return [ArchiveOrder(f"-z{box.z}.tif", (box,), attribution, compression) for box in boxes]
    return []


@task(**PAGE, task_run_name="archive{order.name}")
def build_archive(job: Job, order: ArchiveOrder) -> Made:
    """Write the file from the tiles in the store. Raises ConfigurationError when there is no tile."""
    tools = toolbox(job)
    refuse_when_stopped(tools.stop)
    path = tools.work / f"{job.layer.name}{order.name}"
    if order.name.endswith(".tif"):
        write_geotiff(
            path,
            order.blocks[0],
            lambda block: contents(tools, rows_of(tools, block)),
            compression=order.compression,
            description=job.layer.name,
            attribution=order.attribution,
            stop=tools.stop,
        )
        return Made({path: (archive_key(job.layer.name, order.name), GEOTIFF)})
    tiles = in_tile_id_order(order.blocks, lambda block: rows_of(tools, block))
    about = About(job.layer.name, attribution=order.attribution)
    write_pmtiles(path, contents(tools, tiles), about, stop=tools.stop)
    page = path.with_suffix(".html")
    page.write_bytes(preview_page(job.layer.name, path.name, order.attribution))
    return Made(
        {
            path: (archive_key(job.layer.name, order.name), PMTILES),
            page: (archive_key(job.layer.name, ".html"), PAGE_TYPE),
        }
    )


@task(**PAGE, task_run_name="upload-archive")
def upload_archive(job: Job, made: Made) -> tuple[str, ...]:
    """Put the files into the store; returns their keys."""
    tools = toolbox(job)
    refuse_when_stopped(tools.stop)
    for path, (key, media_type) in made.files.items():
        tools.store.put_replacing(key, path, content_type=media_type, stop=tools.stop)
        path.unlink()
    return tuple(key for key, _ in made.files.values())


Stored = tuple[int, int, int, str]
"""z, x, y, key of a tile in the store."""


def rows_of(tools: Toolbox, block: Block) -> list[Stored]:
    """The stored tiles of a block, in no order."""
    layer, names = tools.job.layer, ("z", "x", "y", "kind", "blank", "sha256")
    arguments = {**block._asdict(), "number": layer.number}
    rows = tools.database.rows(sql_text("tiles_of_block"), arguments)
    return [(*row[:3], key_of(layer.name, dict(zip(names, row, strict=True)))) for row in rows]


def contents(tools: Toolbox, tiles: Iterator[Stored] | list[Stored]) -> Iterator[tuple[int, int, int, bytes]]:
    """The tiles with their bytes, in the order given; one that somebody removed is left out."""
    waiting: list[Stored] = []
    for tile in tiles:
        waiting.append(tile)
        if len(waiting) >= READ_AHEAD:
            yield from _read(tools, waiting)
            waiting = []
    yield from _read(tools, waiting)


def _read(tools: Toolbox, tiles: list[Stored]) -> Iterator[tuple[int, int, int, bytes]]:
    bodies = tools.store.read_small([key for *_, key in tiles])
    for (z, x, y, _), body in zip(tiles, bodies, strict=True):
        if body is not None:
            yield z, x, y, body
