"""What a tiles run would fetch, and what it did: plain queries and a few sample tiles, no tasks."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tasks.agenda import DATABASE_PATIENCE_S
from tasks.bulk import Ask, Got
from tasks.dial import at_rate
from tasks.patience import patiently
from tasks.postgres import sql_text
from tasks.records import RunReport
from tasks.reporting import Run, publish
from tasks.tally import duration, size
from tasks.tile_coverage import Cell, coverage_picture, tiles_a_cell
from tasks.tile_grid import Block, Tile
from tasks.tile_keys import archive_key
from tasks.tile_plan import Area, count_settled
from tasks.tiles_tools import Toolbox

SAMPLE = 64
"""Tiles that are fetched, and thrown away, to estimate a run. The first quarter pays for the connections."""

PAGES_PER_RUN = 600
SHOWN_FAILURES = 200
INLINE_BYTES = 300_000
"""A picture up to this size is part of the report's page; a larger one only lies in the store."""


def page_size(rows: int) -> int:
    """Tiles a page: 100 to 10,000, larger so that a big run stays within PAGES_PER_RUN.

    Larger than other workloads' pages: a tile takes a tenth of a millisecond, and a task run some thirty. With pages of
    2,000 Prefect took a seventh of the time.
    """
    return max(100, min(10_000, math.ceil(rows / 24)), math.ceil(rows / PAGES_PER_RUN))


# --- before ---


def estimate(tools: Toolbox, area: Area, limit: int | None, rate: float | None, *, refresh: bool) -> dict[str, Any]:
    """Tiles to fetch, their bytes from a sample, seconds at the dial and at the level the sample was answered at."""
    settled, mean_bytes = count_settled(tools.database, tools.job.layer, area, refresh=refresh)
    tiles = area.tiles - settled
    tiles = tiles if limit is None else min(tiles, limit)
    with at_rate(tools.clock, rate):
        sampled = _sample(tools, area) if tiles else {"sampled": 0}
    mean_bytes = sampled.get("mean_bytes") or mean_bytes
    at_dial_s = tiles / rate if rate else None
    at_level_s = tiles / sampled["tiles_per_second"] if "tiles_per_second" in sampled else None
    known = [seconds for seconds in (at_dial_s, at_level_s) if seconds is not None]
    return {
        "tiles": tiles,
        "bytes": int(tiles * sampled.get("share_there", 1.0) * mean_bytes) if mean_bytes else None,
        "requests_per_second": rate,
        "seconds_at_the_dial": _rounded(at_dial_s),
        "seconds_at_the_level": _rounded(at_level_s),
        "seconds": _rounded(max(known)) if known else None,
        "duration": duration(max(known)) if known else "unknown: no tile of the sample came",
        **sampled,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _sample(tools: Toolbox, area: Area) -> dict[str, Any]:
    """Some tiles spread over the area, fetched at the dial: how many there are, their size, how long one takes."""
    asks = (Ask(number, tools.urls.of(*tile)) for number, tile in enumerate(spread(area, SAMPLE)))
    results, ended = [], []
    for came_together in tools.engine.fetch(asks):
        results += came_together
        ended += [time.monotonic()] * len(came_together)
    came = [result for result in results if isinstance(result, Got)]
    missing = sum(result.status in tools.job.source.missing_statuses for result in results)
    said: dict[str, Any] = {"sampled": len(results), "sample_came": len(came), "sample_missing": missing}
    if came:
        warm = len(ended) // 4
        said["mean_bytes"] = round(sum(len(got.body) for got in came) / len(came))
        said["share_there"] = round(len(came) / (len(came) + missing), 3)
        said["tiles_per_second"] = round((len(ended) - warm) / max(1e-3, ended[-1] - ended[max(0, warm - 1)]), 1)
    return said


def spread(area: Area, n: int) -> Iterator[Tile]:
    """At most `n` tiles, evenly over the area."""
    step = max(1, area.tiles // n)
    place = step // 2  # of the next one, counted through all runs
    for run in area.runs():
        while place < run.tiles:
            yield Tile(run.z, run.x_first + place, run.y)
            place += step
        place -= run.tiles


# --- after ---


def closing_report(run: Run, tools: Toolbox, area: Area, archives: Sequence[str]) -> RunReport:
    """Count, paint the coverage, publish. Raises OutsideUnreachable when the run ended because the host gave errors."""
    parameters = {"layer_number": tools.job.layer.number}
    report: RunReport = patiently(lambda: run.report(sql_text("tiles_counts"), parameters), DATABASE_PATIENCE_S)
    failed = patiently(lambda: failures(tools, run.run_id), DATABASE_PATIENCE_S)
    extra = coverage(tools, area)
    extra += "".join(f"\nMade of this layer: `{url}` {size(there)}\n" for url, there in _sizes(tools, archives))
    publish(run, report, failed=failed, extra=extra)
    tools.verdict.insist(report, "the address")
    return report


def _sizes(tools: Toolbox, keys: Sequence[str]) -> Iterator[tuple[str, int]]:
    for key in keys:
        found = tools.store.stat(key)
        if found:
            yield found.url, found.size_bytes


def failures(tools: Toolbox, run_id: str) -> list[dict[str, Any]]:
    """The run's failed tiles, for the report's table."""
    arguments = {"run_id": run_id, "layer_number": tools.job.layer.number, "limit": SHOWN_FAILURES}
    names = ("tile", "reason", "error", "attempts")
    return [dict(zip(names, row, strict=True)) for row in tools.database.rows(sql_text("tiles_failures"), arguments)]


def coverage(tools: Toolbox, area: Area) -> str:
    """Paint what is done, blank, missing, failed; keep the picture in the store. Returns a piece of the report."""
    layer = tools.job.layer
    blocks = outlines(area)
    cells = (cell for block in blocks for cell in _cells(tools, block))
    picture = coverage_picture(f"{layer.name}", blocks, cells)
    path = tools.work / "coverage.png"
    path.write_bytes(picture)
    stored = tools.store.put_replacing(archive_key(layer.name, "-coverage.png"), path, content_type="image/png")
    text = f"\n## Coverage\n\n`{stored.url}`\n"
    if len(picture) <= INLINE_BYTES:
        text += f"\n![Coverage of {layer.name}](data:image/png;base64,{base64.b64encode(picture).decode()})\n"
    return text


def outlines(area: Area) -> list[Block]:
    """One box for each zoom around the area's blocks."""
    return [
        Block(
            z,
            min(b.x_first for b in of_zoom),
            max(b.x_last for b in of_zoom),
            min(b.y_first for b in of_zoom),
            max(b.y_last for b in of_zoom),
        )
        for z in area.zooms
        if (of_zoom := [block for block in area.blocks if block.z == z])
    ]


def _cells(tools: Toolbox, block: Block) -> Iterator[Cell]:
    """Streamed: where a cell is a tile there are as many of them."""
    arguments = {**block._asdict(), "number": tools.job.layer.number, "side": tiles_a_cell(block)}
    with tools.database.transaction(named="cells") as cursor:
        cursor.execute(sql_text("tiles_cells"), arguments)
        for row in cursor:
            yield Cell(*row)
