"""Which tiles a layer is to have, and their rows: made in the database from the ends of each row of the map.

Ten million tiles take half a minute and no memory here; planning what is planned already takes a second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

from tasks.checkpoints import Scope
from tasks.errors import ConfigurationError, refuse_when_stopped
from tasks.postgres import Database, sql_text
from tasks.tile_grid import (
    Block,
    Run,
    at_zoom,
    block_of_ranges,
    blocks_of_bbox,
    check_zooms,
    count_tiles,
    runs_of_block,
)
from tasks.tile_polygons import Polygon, polygon_bounds, polygons_of, runs_of_polygons

MAX_ZOOM = 24
"""As far as the numbers of tiles reach (migration 020): a pixel is 9 mm there."""

MAX_TILES = 500_000_000
BATCH_TILES = 500_000

_LAYER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_TAKEN = frozenset({"archives", "documents", "geoetl", "manifests", "photos", "properties", "reports"})
"""Folders of the store that are something else's."""


@dataclass(frozen=True)
class Area:
    """The tiles that are asked for.

    blocks    boxes around them, a few for each zoom; without polygons they are the area
    polygons  rings in degrees (EPSG:4326)
    """

    zooms: range
    blocks: tuple[Block, ...]
    polygons: tuple[Polygon, ...] = ()

    def runs(self) -> Iterator[Run]:
        """Every row of tiles."""
        if self.polygons:
            yield from runs_of_polygons(self.polygons, self.zooms)
        for block in () if self.polygons else self.blocks:
            yield from runs_of_block(block)

    @property
    def tiles(self) -> int:
        """How many tiles it has."""
        return count_tiles(self.runs() if self.polygons else self.blocks)


def area_of(
    zoom: int | Sequence[int],
    *,
    bbox: Sequence[float] | None = None,
    polygon: Mapping[str, Any] | Path | str | None = None,
    x_range: Sequence[int] | None = None,
    y_range: Sequence[int] | None = None,
    tms: bool = False,
) -> Area:
    """The area of a box or polygon in degrees, or of x and y ranges at the highest zoom.

    Raises ConfigurationError when not exactly one of them is given, or it has no tile, or too many.
    """
    zooms = check_zooms(zoom, MAX_ZOOM)
    ranges = None if x_range is None and y_range is None else (x_range, y_range)
    if sum(given is not None for given in (bbox, polygon, ranges)) != 1:
        raise ConfigurationError("say where: bbox, polygon, or x_range with y_range, and only one of them.")
    if polygon is not None:
        polygons = tuple(polygons_of(_geojson(polygon)))
        box = polygon_bounds(polygons)
        area = Area(zooms, tuple(blocks_of_bbox(box, zooms)), polygons)
    elif bbox is not None:
        area = Area(zooms, tuple(blocks_of_bbox(bbox, zooms)))
    else:
        if x_range is None or y_range is None:
            raise ConfigurationError("x_range goes with y_range; give both, each as [first, last].")
        block = block_of_ranges(zooms[-1], x_range, y_range, tms=tms)
        area = Area(zooms, tuple(at_zoom(block, z) for z in zooms))
    if not 0 < area.tiles <= MAX_TILES:
        raise ConfigurationError(f"this is {area.tiles:,} tiles; give an area of 1 to {MAX_TILES:,}.")
    return area


def _geojson(polygon: Mapping[str, Any] | Path | str) -> Mapping[str, Any]:
    """GeoJSON itself, as text, or the path of a file that holds it."""
    if isinstance(polygon, Mapping):
        return polygon
    text = str(polygon)
    try:
        found = json.loads(text if text.lstrip().startswith("{") else Path(text).expanduser().read_text("utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"{text[:200]} cannot be read ({exc.strerror}); give a GeoJSON file.") from exc
    except (ValueError, RuntimeError) as exc:  # RuntimeError: nested too deep, or a ~user whom nobody knows
        raise ConfigurationError(f"{text[:200]} is no GeoJSON ({exc}); give a Polygon or features of them.") from exc
    if not isinstance(found, dict):
        raise ConfigurationError(f"{text[:200]} is no GeoJSON; give a Polygon or features of them.")
    return found


@dataclass(frozen=True)
class Layer:
    """A layer in the database: its tiles are one range of ids."""

    number: int
    name: str

    def scope(self, area: Area) -> Scope:
        """The rows of the area (of the boxes around it)."""
        boxes = " OR ".join(
            f"z = {b.z} AND x BETWEEN {b.x_first} AND {b.x_last} AND y BETWEEN {b.y_first} AND {b.y_last}"
            for b in area.blocks
        )
        zooms = {"layer_number": self.number, "z_first": area.zooms[0], "z_end": area.zooms[-1] + 1}
        return Scope(
            "id >= tile_id(%(layer_number)s, %(z_first)s, 0, 0) AND id < tile_id(%(layer_number)s, %(z_end)s, 0, 0)"
            f" AND ({boxes})",
            zooms,
        )


def check_layer(name: str) -> str:
    """The layer's name, if it can be a folder of the store. Raises ConfigurationError."""
    if not _LAYER.fullmatch(name):
        raise ConfigurationError(f"the layer {name[:80]!r} cannot be a folder; use letters, digits, - and _.")
    if name.lower() in _TAKEN:
        raise ConfigurationError(f"the store keeps other things under {name!r}; give the layer another name.")
    return name


def open_layer(database: Database, name: str, *, make: bool = True) -> Layer:
    """The layer of that name, made at its first use; with `make` False one that is not there has number 0, no rows."""
    number = _number_of(database, check_layer(name))
    if number is None and not make:
        return Layer(0, name)
    if number is None:  # not asked for with every run: numbers that a conflict refuses are used up all the same
        database.rows("INSERT INTO tile_layers (layer) VALUES (%s) ON CONFLICT (layer) DO NOTHING", (name,))
        number = _number_of(database, name)
    assert number is not None  # noqa: S101 - it is there now
    return Layer(number, name)


def _number_of(database: Database, name: str) -> int | None:
    found = database.rows("SELECT number FROM tile_layers WHERE layer = %s", (name,))
    return int(found[0][0]) if found else None


def plan(database: Database, layer: Layer, area: Area, *, stop: Event | None = None) -> int:
    """Make the rows of the area's tiles that are not there yet, all pending; returns how many.

    Interrupted, it has made some of them, and makes the rest when it is called again. Raises StopRequested.
    """
    made = 0
    for batch in _batches(area.runs()):
        refuse_when_stopped(stop)
        made += _plan_batch(database, layer, batch)
    if made:
        database.rows("ANALYZE tiles")
    return made


def count_settled(database: Database, layer: Layer, area: Area, *, refresh: bool = False) -> tuple[int, float | None]:
    """How many of the area's tiles a run would not take, and the mean size of those that came, in bytes.

    refresh  a run that asks again for all but those that failed
    """
    settled = came = size = 0
    for batch in _batches(area.runs()):
        counted = database.rows(sql_text("tiles_settled"), {**_arguments(layer, batch), "refresh": refresh})[0]
        settled, came, size = settled + counted[0], came + counted[1], size + counted[2]
    return settled, size / came if came else None


def _arguments(layer: Layer, batch: list[Run]) -> dict[str, Any]:
    return {
        "number": layer.number,
        "layer": layer.name,
        "z": [run.z for run in batch],
        "y": [run.y for run in batch],
        "x_first": [run.x_first for run in batch],
        "x_last": [run.x_last for run in batch],
    }


def _plan_batch(database: Database, layer: Layer, batch: list[Run]) -> int:
    """One transaction. `ON CONFLICT` costs as much again as the rows themselves, so only where some are there."""
    arguments = _arguments(layer, batch)
    with database.transaction() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('landrecords_tiles'), %(number)s)", arguments)
        cursor.execute(sql_text("tiles_planned"), arguments)
        (there,) = cursor.fetchone() or (0,)
        if there == count_tiles(batch):
            return 0
        cursor.execute(sql_text("tiles_plan") + (" ON CONFLICT (id) DO NOTHING" if there else ""), arguments)
        return cursor.rowcount


def _batches(runs: Iterable[Run]) -> Iterator[list[Run]]:
    """Runs of some BATCH_TILES tiles together; a longer run is cut."""
    batch: list[Run] = []
    tiles = 0
    for run in runs:
        for first in range(run.x_first, run.x_last + 1, BATCH_TILES):
            part = run._replace(x_first=first, x_last=min(run.x_last, first + BATCH_TILES - 1))
            batch.append(part)
            tiles += part.tiles
            if tiles >= BATCH_TILES:
                yield batch
                batch, tiles = [], 0
    if batch:
        yield batch
