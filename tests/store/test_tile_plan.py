"""Rows of tiles made in the database: the right ones, once, whoever plans them at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from shapely import box
from shapely.geometry import shape

from tasks import tile_plan
from tasks.checkpoints import Queue
from tasks.errors import ConfigurationError, StopRequested
from tasks.postgres import Database, sql_text
from tasks.records import Status
from tasks.tile_grid import degree_bounds, flipped, tile_at
from tasks.tile_plan import MAX_ZOOM, Area, Layer, area_of, check_layer, open_layer, plan
from tasks.workloads import TILES

X, Y = 1_728_675, 1_051_362
PRAGUE = [14.40, 50.07, 14.45, 50.10]
L_SHAPED = [[14.30, 50.0], [14.50, 50.0], [14.50, 50.04], [14.40, 50.04], [14.40, 50.12], [14.30, 50.12], [14.30, 50.0]]
WITH_A_HOLE = {
    "type": "Polygon",
    "coordinates": [L_SHAPED, [[14.32, 50.01], [14.38, 50.01], [14.38, 50.10], [14.32, 50.10], [14.32, 50.01]]],
}

Name = tuple[int, int, int]


def names(database: Database, layer: str = "parcels") -> set[Name]:
    """The tiles that have a row: each has one."""
    found = database.rows("SELECT z, x, y FROM tiles WHERE layer = %s", (layer,))
    assert len(set(found)) == len(found)
    return set(found)


def planned(database: Database, area: Area, layer: str = "parcels") -> int:
    return plan(database, open_layer(database, layer), area)


def between(z: int, corner: tuple[int, int], other: tuple[int, int]) -> set[Name]:
    columns, rows = (range(low, high + 1) for low, high in zip(corner, other, strict=True))
    return {(z, x, y) for x, y in product(columns, rows)}


# --- which tiles ---


def test_ranges_are_planned_with_both_ends(database: Database) -> None:
    area = area_of(21, x_range=[X, X + 30], y_range=[Y, Y + 20])
    assert planned(database, area) == area.tiles == 31 * 21
    assert names(database) == between(21, (X, Y), (X + 30, Y + 20))
    assert database.rows("SELECT DISTINCT status::text, attempts, run_id, blank FROM tiles") == [
        ("pending", 0, None, False)
    ]


def test_a_pyramid_has_every_parent_of_its_highest_zoom(database: Database) -> None:
    area = area_of([17, 21], x_range=[X, X + 30], y_range=[Y, Y + 20])
    planned(database, area)
    highest = between(21, (X, Y), (X + 30, Y + 20))
    assert names(database) == {(z, x >> 21 - z, y >> 21 - z) for _, x, y in highest for z in range(17, 22)}


def test_a_box_of_degrees_is_planned_from_corner_to_corner(database: Database) -> None:
    west, south, east, north = PRAGUE
    planned(database, area_of([12, 16], bbox=PRAGUE))
    wanted = [between(z, tile_at(west, north, z), tile_at(east, south, z)) for z in range(12, 17)]
    assert names(database) == set().union(*wanted)


def test_a_box_across_the_antimeridian(database: Database) -> None:
    planned(database, area_of(6, bbox=[170.0, -20.0, -170.0, 10.0]))
    assert {x for _, x, _ in names(database)} == {62, 63, 0, 1}


@pytest.mark.parametrize("given", ["mapping", "text", "file"])
def test_a_polygon_takes_the_tiles_it_shares_ground_with(database: Database, tmp_path: Path, given: str) -> None:
    file = tmp_path / "area.geojson"
    feature = {"type": "Feature", "properties": {}, "geometry": WITH_A_HOLE}
    file.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    polygon: Any = {"mapping": WITH_A_HOLE, "text": json.dumps(feature), "file": str(file)}[given]
    area = area_of([11, 15], polygon=polygon)
    assert planned(database, area) == area.tiles
    ground = shape(WITH_A_HOLE)
    boxed = area_of([11, 15], bbox=ground.bounds)
    near = {(run.z, x, run.y) for run in boxed.runs() for x in range(run.x_first, run.x_last + 1)}
    overlaps = {name: ground.intersection(box(*degree_bounds(*name))).area for name in near}
    assert names(database) == {name for name, square_degrees in overlaps.items() if square_degrees > 1e-12}
    assert len(near) > 1.5 * area.tiles, "the box around it has many more"


def test_a_tms_range_counts_from_the_south(database: Database) -> None:
    south = [flipped(21, Y + 9), flipped(21, Y)]
    planned(database, area_of([20, 21], x_range=[X, X + 3], y_range=south, tms=True))
    planned(database, area_of([20, 21], x_range=[X, X + 3], y_range=[Y, Y + 9]), "xyz")
    assert names(database) == names(database, "xyz")


# --- once ---


def test_planning_again_adds_nothing_and_touches_no_row(database: Database) -> None:
    area = area_of([19, 21], x_range=[X, X + 60], y_range=[Y, Y + 60])
    assert planned(database, area) > 3000
    before = database.rows("SELECT id, xmin::text, ctid::text FROM tiles ORDER BY id")
    assert planned(database, area) == 0
    assert database.rows("SELECT id, xmin::text, ctid::text FROM tiles ORDER BY id") == before


def test_what_is_planned_is_counted_by_the_primary_key(database: Database) -> None:
    """EXPLAIN: the check walks the key for each row of the map, however many tiles there are."""
    area = area_of(21, x_range=[X, X + 150], y_range=[Y, Y + 150])
    planned(database, area)
    runs = list(area.runs())
    columns = {name: [getattr(run, name) for run in runs] for name in ("z", "y", "x_first", "x_last")}
    explained = database.rows("EXPLAIN " + sql_text("tiles_planned"), {"number": 1, **columns})
    lines = "\n".join(line for (line,) in explained)
    assert "using tiles_pkey" in lines
    assert "Seq Scan on tiles" not in lines


def test_a_larger_area_adds_only_what_is_new(database: Database) -> None:
    assert planned(database, area_of(21, x_range=[X + 5, X + 9], y_range=[Y + 5, Y + 9])) == 25
    database.rows("UPDATE tiles SET status = 'in_progress', claimed_by = 'x', lease_until = now()")
    database.rows("UPDATE tiles SET status = 'completed', sha256 = 'kept'")
    assert planned(database, area_of(21, x_range=[X, X + 19], y_range=[Y, Y + 9])) == 200 - 25
    assert database.rows("SELECT count(*) FROM tiles WHERE sha256 = 'kept'") == [(25,)]


def test_planning_that_was_interrupted_goes_on(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_plan, "BATCH_TILES", 100)
    area, layer, stop = area_of(21, x_range=[X, X + 249], y_range=[Y, Y + 9]), open_layer(database, "parcels"), Stop(3)
    with pytest.raises(StopRequested):
        plan(database, layer, area, stop=stop)
    assert len(made := names(database)) == 100 + 100 + 150, "rows of the map are cut where they are longer than a batch"
    assert plan(database, layer, area) == area.tiles - len(made)
    assert len(names(database)) == area.tiles


class Stop(threading.Event):
    """Is set when it was asked so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._left = times

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


PLANNER = """
import sys
from tasks import tile_plan
from tasks.postgres import Database
tile_plan.BATCH_TILES = 500
database = Database(sys.argv[1])
area = tile_plan.area_of([18, 21], x_range=[1728675, 1728675 + 99], y_range=[1051362, 1051362 + 99])
print("ready", flush=True)
sys.stdin.readline()
print(tile_plan.plan(database, tile_plan.open_layer(database, sys.argv[2]), area))
"""


@pytest.mark.parametrize("layers", [("parcels", "parcels", "parcels"), ("parcels", "ortho", "parcels")])
def test_processes_that_plan_at_once_make_each_row_once(
    database: Database, database_url: str, layers: tuple[str, ...]
) -> None:
    command = [sys.executable, "-c", PLANNER, database_url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    planners = [subprocess.Popen([*command, layer], **pipes) for layer in layers]
    for planner in planners:
        assert planner.stdout.readline() == "ready\n"
    made = Counter[str]()
    for planner in planners:
        planner.stdin.write("go\n")
        planner.stdin.flush()
    for planner, layer in zip(planners, layers, strict=True):
        made[layer] += int(planner.communicate(timeout=30)[0])
    tiles = area_of([18, 21], x_range=[X, X + 99], y_range=[Y, Y + 99]).tiles
    assert made == dict.fromkeys(layers, tiles)
    assert {layer: len(names(database, layer)) for layer in layers} == made


# --- layers ---


def test_a_layer_keeps_its_number(database: Database) -> None:
    first, second = open_layer(database, "parcels"), open_layer(database, "ortho")
    for _ in range(20):
        assert open_layer(database, "parcels") == first
    assert (first.number, second.number) == (1, 2)
    assert open_layer(database, "cadastre").number == 3, "asking for one that is there uses up no number"


def test_ids_of_layers_and_zooms_do_not_meet(database: Database) -> None:
    last = 2**MAX_ZOOM - 1
    edges = [(0, 0, 0), *((z, corner, corner) for z in range(1, MAX_ZOOM + 1) for corner in (0, 2**z - 1))]
    rows = database.rows(
        "SELECT tile_id(layer, z, x, y) FROM unnest(%s::int[]) WITH ORDINALITY AS layers (layer, place),"
        " unnest(%s::int[], %s::bigint[], %s::bigint[]) WITH ORDINALITY AS tiles (z, x, y, nth) ORDER BY place, nth",
        ([1, 2, 16383], *map(list, zip(*edges, strict=True))),
    )
    ids = [number for (number,) in rows]
    assert ids == sorted(set(ids)), "in the order of layers, zooms, rows, columns"
    assert ids[-1] < 2**63
    assert database.rows("SELECT tile_id(7, %s, %s, %s) < tile_id(8, 0, 0, 0)", (MAX_ZOOM, last, last)) == [(True,)]


def claimed(database: Database, layer: Layer, area: Area) -> Iterator[Name]:
    with Queue(database, TILES, run_id="test").claim(10_000, layer.scope(area)) as page:
        yield from ((row["z"], row["x"], row["y"]) for row in page.rows)


def test_a_run_takes_the_tiles_of_its_area_and_layer_alone(database: Database) -> None:
    whole = area_of([19, 21], x_range=[X, X + 20], y_range=[Y, Y + 20])
    parcels, ortho = open_layer(database, "parcels"), open_layer(database, "ortho")
    for layer in (parcels, ortho):
        plan(database, layer, whole)
    part = area_of([20, 21], x_range=[X + 3, X + 7], y_range=[Y + 3, Y + 4])
    wanted = {(run.z, x, run.y) for run in part.runs() for x in range(run.x_first, run.x_last + 1)}
    assert set(claimed(database, ortho, part)) == wanted
    assert database.rows("SELECT DISTINCT layer FROM tiles WHERE run_id IS NOT NULL") == [("ortho",)]
    assert set(claimed(database, parcels, whole)) == names(database, "parcels")


def test_the_scope_of_a_box_across_the_antimeridian(database: Database) -> None:
    layer, area = open_layer(database, "parcels"), area_of(6, bbox=[170.0, -20.0, -170.0, 10.0])
    planned(database, area_of(6, bbox=[-180.0, -60.0, 180.0, 60.0]))
    assert {x for _, x, _ in claimed(database, layer, area)} == {62, 63, 0, 1}


def test_tiles_are_claimed_row_by_row(database: Database) -> None:
    """Neighbours come together: what a page stores lies in few folders, and the server reads few of its files."""
    layer, area = open_layer(database, "parcels"), area_of(21, x_range=[X, X + 9], y_range=[Y, Y + 9])
    plan(database, layer, area)
    with Queue(database, TILES, run_id="test").claim(15, layer.scope(area)) as page:
        assert [row["y"] for row in page.rows] == [Y] * 10 + [Y + 1] * 5
        assert {row["status"] for row in page.rows} == {str(Status.IN_PROGRESS)}


# --- refusals ---


@pytest.mark.parametrize("name", ["parcels", "Cadastre_2024-05", "a", "9", "x" * 63])
def test_names_that_can_be_folders(name: str) -> None:
    assert check_layer(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "..", ".tmp", "-a", "_a", "a/b", "a\\b", "a b", "a\n", "é", "x" * 64, "a.png", "archives", "Documents"],
)
def test_names_that_cannot(name: str, database: Database) -> None:
    with pytest.raises(ConfigurationError, match="layer") as caught:
        open_layer(database, name)
    assert len(str(caught.value).splitlines()) == 1
    assert database.rows("SELECT count(*) FROM tile_layers") == [(0,)]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "say where"),
        ({"bbox": PRAGUE, "polygon": WITH_A_HOLE}, "only one of them"),
        ({"bbox": PRAGUE, "x_range": [1, 2], "y_range": [1, 2]}, "only one of them"),
        ({"x_range": [1, 2]}, "x_range goes with y_range"),
        ({"y_range": [1, 2]}, "x_range goes with y_range"),
        ({"x_range": [0, 1 << 12], "y_range": [0, 1]}, "x_range"),
        ({"bbox": [1, 2, 3]}, "not four numbers"),
        ({"polygon": "nowhere.geojson"}, "nowhere.geojson cannot be read"),
        ({"polygon": "{]"}, "no GeoJSON"),
        ({"polygon": "[1, 2]"}, "cannot be read"),
        ({"polygon": {"type": "Point", "coordinates": [1, 2]}}, "give polygons"),
        ({"zoom": 25, "bbox": PRAGUE}, "zoom 25 is not usable; give a number from 0 to 24"),
        ({"zoom": [12, 11], "bbox": PRAGUE}, "zoom"),
        ({"zoom": 24, "bbox": [-180, -85, 180, 85]}, "give an area of 1 to 500,000,000"),
    ],
    ids=str,
)
def test_areas_that_cannot_be(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        area_of(given.pop("zoom", 12), **given)
    assert len(str(caught.value).splitlines()) == 1
