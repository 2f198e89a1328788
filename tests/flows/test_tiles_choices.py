"""What the parameters of the tiles flow do, what becomes of failures, and what is refused before anything is done."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from pmtiles.reader import MemorySource, Reader
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, ParameterTypeError

from flows import cli
from flows.tiles import tiles
from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.pacing import host_of
from tasks.sample.answers import Answer, Request, Target
from tasks.sample.faults import FaultKind
from tasks.sample.running import InThread
from tasks.sample.tile_contents import Sort, blank_content, tile_content, tile_number, tile_sort
from tasks.sample.tiles import SampleTiles, TileOffice
from tasks.tile_grid import flipped
from tasks.tile_images import verify
from tasks.tile_plan import area_of
from tests.fakes.gcs import FakeGcs
from tests.fakes.http_server import unused_port
from tests.flows.conftest import World, opened_world
from tests.flows.evidence import objects_in
from tests.flows.prefect_evidence import prefect_says
from tests.flows.tile_evidence import (
    Name,
    Served,
    contents_of,
    leftovers,
    sample,
    tile_disagreements,
    tile_rows,
)

Z, X, Y = 21, 1_728_675, 1_051_362
LAYER = "village"


def area(columns: int, rows: int) -> dict[str, Any]:
    """Ranges of so many tiles."""
    return {"x_range": [X, X + columns - 1], "y_range": [Y, Y + rows - 1]}


def names(columns: int, rows: int) -> list[Name]:
    """The tiles of that area."""
    return [(Z, X + x, Y + y) for y, x in product(range(rows), range(columns))]


def pictures(columns: int, rows: int, layer: str = "parcels") -> list[Name]:
    """Those that are neither blank nor missing."""
    return [name for name in names(columns, rows) if tile_sort(layer, *name) is Sort.PICTURE]


def hit(kind: str, *tiles: Name, times: int | None = 1, **more: Any) -> dict[str, Any]:
    """A rule: what happens to these tiles, so many times."""
    documents = [tile_number("parcels", *name) for name in tiles]
    return {"kind": kind, "documents": documents, "times": times, **more}


def asked(server: SampleTiles) -> Counter[int | None]:
    """Tile number -> how often it was asked for."""
    return Counter(request.document for request in server.requests)


def wrong(world: World, served: Served, layer: str = LAYER, *, may_fail: bool = False) -> list[str]:
    """What rows and objects of a layer disagree on, with each other and with the server."""
    rows, contents = tile_rows(world.database, layer), contents_of(world.store, layer)
    return tile_disagreements(rows, contents, served, may_fail=may_fail)


def standing(world: World) -> dict[str, int]:
    return dict(world.database.rows("SELECT status::text, count(*) FROM tiles GROUP BY 1"))


@pytest.fixture
def server() -> Iterator[SampleTiles]:
    with SampleTiles() as server:
        yield server


def served_by(office: TileOffice, faults: Any = "none") -> InThread:
    """A server that gives what the office says."""
    return InThread(office, seed=7, faults=faults, latency_ms=0, log=None, port=0)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The `landrecords` command: exit code and output."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["landrecords", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capfd.readouterr().out

    return run


# --- where tiles are ---


def test_rows_counted_from_the_south_and_several_hosts(world: World, server: SampleTiles) -> None:
    """TMS: the server's y is the other way round, the store's is not. {s}: a tile always has the same host."""
    port = server.url.rpartition(":")[2]
    south = {"x_range": [X, X + 9], "y_range": [flipped(Z, Y + 9), flipped(Z, Y)]}
    world.tiles(
        f"http://{{s}}:{port}/parcels/{{z}}/{{x}}/{{-y}}",
        LAYER,
        Z,
        scheme="tms",
        **south,
        subdomains=["127.0.0.1", "localhost"],
    )
    assert set(tile_rows(world.database, LAYER)) == set(names(10, 10))
    assert wrong(world, sample("parcels")) == []
    assert asked(server) == dict.fromkeys((tile_number("parcels", *name) for name in names(10, 10)), 1)


def test_a_polygon_and_a_pyramid(world: World, server: SampleTiles) -> None:
    ring = [[14.42, 50.08], [14.43, 50.08], [14.43, 50.09], [14.42, 50.08]]
    polygon = {"type": "Polygon", "coordinates": [ring]}
    report = world.tiles(server.template("parcels"), LAYER, [14, 18], polygon=polygon)
    rows = tile_rows(world.database, LAYER)
    assert {z for z, _, _ in rows} == set(range(14, 19))
    assert sum(report.counts.values()) == len(rows) > 40
    assert wrong(world, sample("parcels")) == []


def test_the_land_agencys_kind_of_address(world: World, server: SampleTiles) -> None:
    """`?d={x}/{y}/{z}/{variant}`, with the variant as a value."""
    template = server.url + "/wms/?d={x}/{y}/{z}/{variant}"
    world.tiles(template, LAYER, Z, **area(10, 5), values={"variant": "ortho"})
    assert wrong(world, sample("ortho")) == []
    assert len(server.requests) == 50


# --- limit, failures, retries ---


def test_limit_is_exact_also_with_retries(world: World, server: SampleTiles) -> None:
    """A tile that goes back to pending is tried again in the same run and does not count twice."""
    server.faults = {"rules": [{"kind": "server_error", "share": 0.4, "times": 2}]}
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(20, 15), limit=130)
    assert sum(report.counts.values()) == 130
    assert report.counts["completed"] + report.counts["skipped"] == 130
    assert len(asked(server)) == 130
    assert max(asked(server).values()) == 3
    assert standing(world)["pending"] == 170
    server.faults = "none"
    rest = world.tiles(server.template("parcels"), LAYER, Z, **area(20, 15), limit=1000)
    assert sum(rest.counts.values()) == 170
    assert wrong(world, sample("parcels")) == []


def test_a_tile_that_fails_is_tried_again_in_the_same_run_and_one_that_is_not_there_is_not(
    world: World, server: SampleTiles
) -> None:
    bad = pictures(10, 10)[:6]
    kinds = ["server_error", "truncated", "html", "json", "reset_midway", "empty"]
    server.faults = {"rules": [hit(kind, name, times=2) for kind, name in zip(kinds, bad, strict=True)]}
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(10, 10))
    assert report.failures == {}
    rows = tile_rows(world.database, LAYER)
    assert {name: row["attempts"] for name, row in rows.items()} == {n: 3 if n in bad else 1 for n in rows}
    assert asked(server) == {tile_number("parcels", *n): 3 if n in bad else 1 for n in rows}
    assert wrong(world, sample("parcels")) == []


def test_failures_have_typed_reasons_and_are_retried_by_them(world: World, server: SampleTiles, command: Any) -> None:
    kinds = {"server_error": "http_error", "html": "html_error_page", "truncated": "truncated", "reset": "connection"}
    bad = dict(zip(kinds, pictures(10, 10), strict=False))
    server.faults = {"rules": [hit(kind, name, times=None) for kind, name in bad.items()]}
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(10, 10), backoff_s=0.02)
    assert report.failures == dict.fromkeys(kinds.values(), 1)
    assert report.exit_code == 1
    rows = tile_rows(world.database, LAYER)
    assert {rows[bad[kind]]["reason"]: rows[bad[kind]]["attempts"] for kind in kinds} == dict.fromkeys(
        kinds.values(), 5
    )
    assert wrong(world, sample("parcels"), may_fail=True) == []

    code, said = command("failed", "tiles", "--csv")
    assert code == 1
    listed = [line.split(",")[1:7] for line in said.splitlines()[1:]]
    assert sorted(listed) == sorted([LAYER, *map(str, bad[kind]), "status", kinds[kind]] for kind in kinds)

    server.faults = "none"
    before = len(server.requests)
    assert command("retry", "tiles", "--reason", "truncated")[1].startswith("Items pending again: 1.")
    assert sum(world.tiles(server.template("parcels"), LAYER, Z, **area(10, 10)).counts.values()) == 1
    assert [r.document for r in server.requests[before:]] == [tile_number("parcels", *bad["truncated"])]
    assert command("retry", "tiles")[1].startswith("Items pending again: 3.")
    assert world.tiles(server.template("parcels"), LAYER, Z, **area(10, 10)).counts["completed"] == 3
    assert wrong(world, sample("parcels")) == []
    assert command("failed", "tiles") == (0, "Nothing failed.\n")
    assert json.loads(command("status", "tiles", "--json")[1])["status"]["failed"] == 0


def test_tiles_that_decoding_alone_shows_to_be_damaged(world: World, server: SampleTiles) -> None:
    bad = pictures(6, 6)[:3]
    server.faults = {"rules": [hit("damaged", *bad, times=None)]}
    assert world.tiles(server.template("parcels"), LAYER, Z, **area(6, 6), decode=True).failures == {"damaged": 3}
    assert asked(server)[tile_number("parcels", *bad[0])] == 1, "the server would send the same again"
    assert wrong(world, sample("parcels"), may_fail=True) == []


def test_one_tile_that_stalls_holds_up_no_other(world: World, server: SampleTiles) -> None:
    """Six pages; nothing but the stalled tile is left when its answer comes."""
    stalled = pictures(30, 20)[0]
    server.faults = {"rules": [hit("slow", stalled, seconds=6.0)]}
    world.tiles(server.template("parcels"), LAYER, Z, **area(30, 20))
    began = server.requests[0].monotonic
    late = [request.path for request in server.requests if request.monotonic > began + 5.0]
    assert late == []
    assert wrong(world, sample("parcels")) == []


def test_known_blank_tiles_and_statuses_that_mean_missing(world: World, server: SampleTiles) -> None:
    """A picture that the server shows where it has nothing, and 500 where it means 404."""
    first, second, *_ = pictures(6, 6)
    picture = tile_content("parcels", *first) or b""
    server.faults = {"rules": [hit("server_error", second, times=None)]}
    options = {"blank_hashes": [hashlib.sha256(picture).hexdigest().upper()], "missing_statuses": [404, 204, 500]}
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(6, 6), **options)
    rows = tile_rows(world.database, LAYER)
    assert rows[first]["blank"]
    assert (rows[second]["status"], rows[second]["reason"]) == ("skipped", "missing")
    assert report.failures == {}
    assert asked(server)[tile_number("parcels", *second)] == 1


def test_a_picture_that_nobody_can_read_fails_alone(
    world: World, server: SampleTiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours, such as a decoder that trips over one file, does not take its page along."""
    victim = tile_content("parcels", *pictures(6, 6)[0])

    def trip(body: bytes, *rest: Any, **more: Any) -> Any:
        if body == victim:
            raise RecursionError("boxes in boxes in boxes")
        return verify(body, *rest, **more)

    monkeypatch.setattr("tasks.tiles.verify", trip)
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(6, 6), backoff_s=0.02)
    assert report.failures == {"internal": 1}
    assert tile_rows(world.database, LAYER)[pictures(6, 6)[0]]["error"] == "RecursionError: boxes in boxes in boxes"
    assert wrong(world, sample("parcels"), may_fail=True) == []


# --- a server that gives nothing but errors ---


def test_a_run_that_meets_only_errors_stops_early_and_loses_nothing(world: World, server: SampleTiles) -> None:
    server.faults = {"rules": [{"kind": "html", "lasts_s": 3600, "times": None}]}
    with pytest.raises(OutsideUnreachable, match="nothing but errors") as caught:
        world.tiles(server.template("parcels"), LAYER, Z, **area(40, 30), backoff_s=5.0, patience_s=3.0)
    assert "\n" not in str(caught.value)
    assert host_of(server.url) in str(caught.value)
    assert len(server.requests) < 2400, "it pauses rather than going through all tiles"
    assert standing(world) == {"pending": 1200}
    server.faults = "none"
    world.database.rows("UPDATE tiles SET not_before = NULL")
    assert world.tiles(server.template("parcels"), LAYER, Z, **area(40, 30)).failures == {}
    assert wrong(world, sample("parcels")) == []


def test_a_server_that_is_not_there_is_told(world: World) -> None:
    template = f"http://127.0.0.1:{unused_port()}/{{z}}/{{x}}/{{y}}.png"
    with pytest.raises(OutsideUnreachable, match=r"127\.0\.0\.1") as caught:
        world.tiles(template, LAYER, Z, **area(3, 3), backoff_s=0.02)
    assert "\n" not in str(caught.value)
    assert objects_in(world.store / LAYER) == []


def test_a_few_bad_tiles_are_no_sign_of_a_broken_server(world: World, server: SampleTiles, command: Any) -> None:
    """A run that only tries old failures again may have no success at all."""
    server.faults = {"rules": [hit("html", *pictures(5, 5)[:4], times=None)]}
    assert world.tiles(server.template("parcels"), LAYER, Z, **area(5, 5), backoff_s=0.02).failures
    command("retry", "tiles")
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(5, 5), backoff_s=0.02)
    assert report.failures == {"html_error_page": 4}


# --- refresh ---


def test_a_refresh_costs_no_bytes_for_what_did_not_change(world: World, server: SampleTiles) -> None:
    world.tiles(server.template("parcels"), LAYER, Z, **area(15, 10))
    files = {path: path.stat() for path in objects_in(world.store / LAYER)}
    before = len(server.requests)
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(15, 10), refresh=True)
    answers = server.requests[before:]
    there = [name for name in names(15, 10) if tile_sort("parcels", *name) is not Sort.MISSING]
    assert Counter(r.status in (204, 404) for r in answers) == {True: 150 - len(there), False: len(there)}
    assert {(r.status, r.sent) for r in answers if r.status not in (204, 404)} == {(304, 0)}
    assert report.notes == {"unchanged": len(there), "missing": 150 - len(there)}
    assert (report.bytes_in, report.bytes_out) == (0, 0)
    assert {p: (s.st_mtime_ns, s.st_ino) for p, s in files.items()} == {
        p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in objects_in(world.store / LAYER)
    }
    assert wrong(world, sample("parcels")) == []


def test_a_refresh_replaces_what_changed_and_nothing_else(world: World, server: SampleTiles) -> None:
    world.tiles(server.template("parcels"), LAYER, Z, **area(15, 10))
    written = {path: path.stat().st_ino for path in objects_in(world.store / LAYER)}
    server.version = 1
    changed = [n for n in names(15, 10) if tile_content("parcels", *n, 1) != tile_content("parcels", *n)]
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(15, 10), refresh=True)
    assert wrong(world, sample("parcels", 1)) == []
    assert 5 < len(changed) == report.counts["completed"] - report.notes["unchanged"]
    moved = [path for path, inode in written.items() if path.stat().st_ino != inode]
    assert sorted(moved) == sorted(world.store / LAYER / f"{Z}/{x}/{y}.png" for _, x, y in changed)
    assert report.bytes_in == sum(len(tile_content("parcels", *name, 1) or b"") for name in changed)


@dataclass
class Shelf(TileOffice):
    """A server whose tiles a test lays out, and which tells their age as `validator` says: etag, date or none."""

    tiles: dict[Name, bytes | None] = field(default_factory=dict)
    validator: str = "etag"

    def _tile(self, name: Any, wishes: Any, *, damaged: bool) -> Answer:
        content = self.tiles.get((name.z, name.x, name.y))
        if content is None:
            return Answer(404, b"nothing")
        tag = f'"{hash(content):x}"'
        known = {"etag": "if-none-match", "date": "if-modified-since"}.get(self.validator, "none")
        dated = f"Mon, 06 May 2024 10:{hash(content) % 60:02d}:{hash(content) // 60 % 60:02d} GMT"
        value = tag if self.validator == "etag" else dated
        if wishes.get(known) == value:
            return Answer(304, b"")
        headers = {"etag": {"ETag": tag}, "date": {"Last-Modified": dated}}.get(self.validator, {})
        return Answer(200, content, "image/x", headers)


@pytest.mark.parametrize("validator", ["etag", "date", "none"])
def test_whatever_a_tile_becomes_its_former_object_goes(world: World, validator: str) -> None:
    """Picture, blank, missing, PNG and JPEG: from each to each."""
    png, other, jpg = (
        tile_content(layer, *pictures(9, 9, layer)[n]) for layer, n in (("parcels", 0), ("parcels", 1), ("ortho", 0))
    )
    sorts = [png, other, jpg, blank_content("png"), blank_content("jpg"), None]
    pairs = list(product(sorts, sorts))
    first = {name: before for name, (before, _) in zip(names(6, 6), pairs, strict=True)}
    then = {name: after for name, (_, after) in zip(names(6, 6), pairs, strict=True)}
    shelf = Shelf(tiles=first, validator=validator)
    with served_by(shelf) as server:
        for content in (first, then, then):
            shelf.tiles = content
            written = {path: path.stat().st_ino for path in objects_in(world.store / LAYER)}
            report = world.tiles(server.url + "/parcels/{z}/{x}/{y}", LAYER, Z, **area(6, 6), refresh=True)
            assert report.failures == {}
            assert wrong(world, lambda *name, of=content: of[name]) == []
            if content is then and written.keys() == set(objects_in(world.store / LAYER)):
                assert {p: p.stat().st_ino for p in written} == written, "nothing changed, nothing is written"
        unchanged = 5 + 30  # from first to then, and from then to then; missing ones have no age
        assert Counter(r.status for r in server.requests)[304] == (0 if validator == "none" else unchanged)


def test_an_object_that_somebody_removed_is_fetched_again(world: World, server: SampleTiles) -> None:
    world.tiles(server.template("parcels"), LAYER, Z, **area(6, 6))
    lost = [path for path in objects_in(world.store / LAYER) if path.parent.name != "blank"][:3]
    for path in lost:
        path.unlink()
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(6, 6), refresh=True)
    assert report.counts["completed"] - report.notes["unchanged"] == 3
    assert wrong(world, sample("parcels")) == []


def test_a_refresh_in_which_a_tile_fails_keeps_the_old_one(world: World, server: SampleTiles) -> None:
    world.tiles(server.template("parcels"), LAYER, Z, **area(6, 6))
    server.version, bad = 1, pictures(6, 6)[0]
    server.faults = {"rules": [hit("html", bad, times=None)]}
    options = {"refresh": True, "backoff_s": 0.02, "archive": "pmtiles"}
    report = world.tiles(server.template("parcels"), LAYER, Z, **area(6, 6), **options)
    assert report.failures == {"html_error_page": 1}
    _, x, y = bad
    assert (world.store / LAYER / f"{Z}/{x}/{y}.png").read_bytes() == tile_content("parcels", *bad)
    archive = Reader(MemorySource((world.store / "archives" / f"{LAYER}.pmtiles").read_bytes()))
    for name in names(6, 6):
        assert archive.get(*name) == tile_content("parcels", *name, 0 if name == bad else 1)
    assert wrong(world, sample("parcels", 1), may_fail=True) == []


# --- dry run ---


def test_a_dry_run_writes_nothing_and_foretells_the_real_one(world: World, server: SampleTiles) -> None:
    foretold = world.tiles(server.template("parcels"), LAYER, Z, **area(30, 20), dry_run=True, requests_per_second=100)
    estimate = foretold.estimate
    assert foretold.dry_run
    assert sum(foretold.counts.values()) == 0
    assert standing(world) == {}
    assert world.database.rows("SELECT count(*) FROM tile_layers") == [(0,)]
    assert objects_in(world.store) == []
    with get_client(sync_client=True) as client, pytest.raises(ObjectNotFound):
        client.read_global_concurrency_limit_by_name(host_of(server.url))
    assert estimate["tiles"] == 600
    assert estimate["seconds_at_the_dial"] == 6.0
    assert estimate["seconds"] >= 6.0
    assert len(server.requests) == estimate["sampled"] < 100
    assert len(asked(server)) == estimate["sampled"], "spread over the area"

    report = world.tiles(server.template("parcels"), LAYER, Z, **area(30, 20))
    assert sum(report.counts.values()) == estimate["tiles"]
    assert estimate["bytes"] == pytest.approx(report.bytes_in, rel=0.15)


def test_a_dry_run_keeps_to_the_dial(world: World, server: SampleTiles) -> None:
    world.tiles(server.template("parcels"), LAYER, Z, **area(30, 20), dry_run=True, requests_per_second=40)
    moments = sorted(request.monotonic for request in server.requests)
    assert len(moments) > 50
    assert max(sum(m <= other < m + 1.0 for other in moments) for m in moments) <= 41


def test_a_dry_run_counts_what_is_left(world: World, server: SampleTiles) -> None:
    """Of the area itself: what an earlier run had of the box around a polygon is something else."""
    world.tiles(server.template("parcels"), LAYER, Z, **area(10, 10))
    half = {"x_range": [X, X + 9], "y_range": [Y + 5, Y + 14]}
    assert world.tiles(server.template("parcels"), LAYER, Z, **half, dry_run=True).estimate["tiles"] == 50
    done = world.tiles(server.template("parcels"), LAYER, Z, **area(10, 10), dry_run=True)
    assert (done.estimate["tiles"], done.estimate["seconds"]) == (0, None)
    again = world.tiles(server.template("parcels"), LAYER, Z, **area(10, 10), dry_run=True, refresh=True)
    assert again.estimate["tiles"] == 100
    some = world.tiles(server.template("parcels"), LAYER, Z, **area(20, 10), dry_run=True, limit=30)
    assert some.estimate["tiles"] == 30


def test_a_dry_run_of_a_polygon_beside_what_is_done(world: World, server: SampleTiles) -> None:
    corner = [[0.0, 0.0], [0.02, 0.0], [0.0, 0.02], [0.0, 0.0]]
    polygon = {"type": "Polygon", "coordinates": [corner]}
    done = world.tiles(server.template("parcels"), LAYER, 16, bbox=[0.012, 0.012, 0.02, 0.02])
    assert sum(done.counts.values()) > 1
    foretold = world.tiles(server.template("parcels"), LAYER, 16, polygon=polygon, dry_run=True)
    taken = world.tiles(server.template("parcels"), LAYER, 16, polygon=polygon)
    assert foretold.estimate["tiles"] == sum(taken.counts.values()) == area_of(16, polygon=polygon).tiles


# --- archives ---


def test_the_geotiffs_pixels_are_the_tiles(world: World, server: SampleTiles) -> None:
    """Read by GDAL: one for each zoom, where the tiles lie, masked where there is none."""
    np, rasterio = pytest.importorskip("numpy"), pytest.importorskip("rasterio")
    options = {"archive": "geotiff", "attribution": "(c) Survey"}
    world.tiles(server.template("parcels"), LAYER, [20, 21], **area(12, 8), **options)
    rows = tile_rows(world.database, LAYER)
    for z in (20, 21):
        mine = [name for name in rows if name[0] == z]
        west, north = min(x for _, x, _ in mine), min(y for _, _, y in mine)
        with rasterio.open(world.store / "archives" / f"{LAYER}-z{z}.tif") as mosaic:
            found, mask = mosaic.read(), mosaic.dataset_mask()
            assert mosaic.crs.to_epsg() == 3857
            assert mosaic.overviews(1)
        for name in mine:
            left, top = 256 * (name[1] - west), 256 * (name[2] - north)
            window = (slice(top, top + 256), slice(left, left + 256))
            content = tile_content("parcels", *name)
            assert (mask[window] == (0 if content is None else 255)).all(), name
            if content is not None:
                pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)
                assert np.array_equal(found[(slice(None), *window)], pixels), name


def test_a_bucket_gets_tiles_and_archive_alike(
    world: World, server: SampleTiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeGcs() as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        monkeypatch.setenv("LANDRECORDS_STORE_URL", f"gs://{bucket.bucket.name}/county")
        world.tiles(server.template("parcels"), LAYER, Z, **area(12, 10), archive="pmtiles")
        server.version = 1
        world.tiles(server.template("parcels"), LAYER, Z, **area(12, 10), archive="pmtiles", refresh=True)
        stored = {name.removeprefix("county/"): found for name, found in bucket.objects.items()}
    contents = {n.removeprefix(f"{LAYER}/"): o.data for n, o in stored.items() if n.startswith(f"{LAYER}/")}
    assert tile_disagreements(tile_rows(world.database, LAYER), contents, sample("parcels", 1)) == []
    assert {n for n in stored if n.startswith("archives/")} == {
        f"archives/{LAYER}{end}" for end in (".pmtiles", ".html", "-coverage.png")
    }
    assert {o.content_type for n, o in stored.items() if n.startswith(f"{LAYER}/")} == {"image/png"}
    reader = Reader(MemorySource(stored[f"archives/{LAYER}.pmtiles"].data))
    for name in names(12, 10):
        assert reader.get(*name) == tile_content("parcels", *name, 1)
    assert leftovers(world.store, world.spool) == []


def test_an_archive_of_nothing_is_told_after_the_report(world: World) -> None:
    """Not one of the tiles exists: the run itself is counted and shown all the same."""
    with served_by(Shelf()) as empty, pytest.raises(ConfigurationError, match="no tile") as caught:
        world.tiles(empty.url + "/parcels/{z}/{x}/{y}", LAYER, Z, **area(4, 4), archive="pmtiles")
    assert "\n" not in str(caught.value)
    assert world.database.rows("SELECT report #> '{counts,skipped}' FROM landrecords_runs") == [(16,)]


# --- secrets ---

URL_SECRET, HEADER_SECRET = "url s/cret&7f3a", "header-s3cret-91bd"


class Guarded(TileOffice):
    """Gives tiles only to those who know both secrets."""

    def answer(self, request: Request, target: Target, fault: FaultKind | None) -> Answer:
        known = request.fields.get("k") == URL_SECRET and request.headers.get("x-api-key") == HEADER_SECRET
        if not known:
            return Answer(403, f"{request.fields} {request.headers}".encode())
        return super().answer(request, target, fault)


def test_secrets_reach_the_server_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, command: Any
) -> None:
    """Not rows, parameters, logs, artifacts, events, messages, files: also where tiles fail and the address is told."""
    monkeypatch.setenv("TILE_KEY", URL_SECRET)
    monkeypatch.setenv("TILE_HEADER", HEADER_SECRET)
    bad = pictures(10, 10)
    kinds = ("server_error", "html", "truncated", "reset", "too_many")
    rules = [hit(kind, name, times=None if kind != "too_many" else 1) for kind, name in zip(kinds, bad, strict=False)]
    with served_by(Guarded(), {"rules": rules}) as server:
        template = server.url + "/wms/?d={x}/{y}/{z}/parcels&k={k}"
        given = {"values": {"k": "env:TILE_KEY"}, "headers": {"X-Api-Key": "env:TILE_HEADER"}}
        report = world.tiles(template, LAYER, Z, **area(10, 10), **given, backoff_s=0.02, archive="pmtiles")
    assert report.failures == {"http_error": 1, "html_error_page": 1, "truncated": 1, "connection": 1}
    assert report.counts["completed"] > 80, "the server knew us"
    listed = command("failed", "tiles", "--csv")[1]
    assert "127.0.0.1" in listed, "messages name the address"
    texts = {**prefect_says(report.run_id), "listed": listed, "logged": caplog.text}
    for table in ("tiles", "landrecords_runs", "host_clocks", "tile_layers"):
        texts[table] = str(world.database.rows(f"SELECT to_jsonb(t) FROM {table} AS t"))
    secrets = [
        form for secret in (URL_SECRET, HEADER_SECRET) for form in (secret, quote(secret, safe=""), quote(secret))
    ]
    assert {where: len(text) > 10 for where, text in texts.items()} == dict.fromkeys(texts, True)
    assert [(where, s) for where, text in texts.items() for s in secrets if s in text] == []
    files = [path for path in world.home.rglob("*") if path.is_file()]
    assert [path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)] == []


# --- refusals ---


@pytest.fixture(scope="module")
def mistaken(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, prefect_server: str
) -> Iterator[tuple[World, SampleTiles]]:
    """A world in which nothing is ever done."""
    with opened_world(tmp_path_factory.mktemp("mistakes"), postgres_url) as world, SampleTiles() as server:
        yield world, server


POLYGON = {"type": "Polygon", "coordinates": [[[14.0, 50.0], [14.1, 50.0], [14.1, 50.1], [14.0, 50.0]]]}
NOWHERE = {"x_range": None, "y_range": None}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"url_template": "ftp://tiles.example/{z}/{x}/{y}"}, "ftp"),
    ({"url_template": "the tiles"}, "the tiles"),
    ({"url_template": "http://tiles.example/{z}/{x}.png"}, "does not name a tile"),
    ({"url_template": "http://tiles.example/{z}/{x}/{y}/{variant}"}, "{variant}"),
    ({"url_template": "http://tiles.example/{z/{x}/{y}"}, "brace"),
    ({"url_template": "http://{z}.tiles.example/{x}/{y}"}, "host"),
    ({"url_template": "http://{s}.tiles.example/{z}/{x}/{y}"}, "subdomains"),
    ({"url_template": "http://{s}.tiles.example/{z}/{x}/{y}", "subdomains": ["a/b"]}, "a/b"),
    ({"url_template": "http://{s}.tiles.example/{z}/{x}/{y}/{variant}", "subdomains": ["a"]}, "{variant}"),
    ({"url_template": "http://{s}.tiles.example/{s}/{x}/{y}", "subdomains": ["a"]}, "does not name a tile"),
    ({"values": {"x": "1"}}, "name of a part of the tile"),
    ({"values": {"key": "env:NO_SUCH_VARIABLE"}}, "NO_SUCH_VARIABLE"),
    ({"headers": {"X-Key": "env:NO_SUCH_VARIABLE"}}, "NO_SUCH_VARIABLE"),
    ({"headers": {"X-Key": "two\nlines"}}, "X-Key"),
    ({"headers": {"X:Key": "value"}}, "X:Key"),
    ({"allowed_hosts": ["https://cdn.example/"]}, "cdn.example"),
    ({"layer": ""}, "layer"),
    ({"layer": "a/b"}, "layer"),
    ({"layer": "archives"}, "layer"),
    ({"layer": "x" * 64}, "layer"),
    ({"zoom": 25}, "zoom 25"),
    ({"zoom": -1}, "zoom"),
    ({"zoom": [21, 20]}, "zoom"),
    ({"zoom": []}, "zoom"),
    ({"zoom": [19, 20, 21]}, "zoom"),
    (NOWHERE, "say where"),
    ({"bbox": [14.0, 50.0, 14.1, 50.1]}, "only one of them"),
    ({**NOWHERE, "bbox": [14.0, 50.0]}, "four numbers"),
    ({**NOWHERE, "bbox": [14.0, 50.1, 14.1, 50.0]}, "south"),
    ({**NOWHERE, "bbox": [14.0, 50.0, 190.0, 50.1]}, "degrees"),
    ({"y_range": None}, "x_range goes with y_range"),
    ({"x_range": [5, 4]}, "x_range"),
    ({"y_range": [0, 1 << 21]}, "y_range"),
    ({**NOWHERE, "polygon": "nowhere.geojson"}, "nowhere.geojson"),
    ({**NOWHERE, "polygon": {"type": "Point", "coordinates": [14, 50]}}, "polygons"),
    ({**NOWHERE, "polygon": POLYGON, "bbox": [14.0, 50.0, 14.1, 50.1]}, "only one of them"),
    ({**NOWHERE, "zoom": 20, "bbox": [-180, -80, 180, 80]}, "500,000,000"),
    ({"blank_hashes": ["abc"]}, "SHA-256"),
    ({"archive": "geotiff", "x_range": [0, 40_000], "y_range": [0, 1000]}, "too large"),
]


def told(parameters: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}"[:50] for name, value in parameters.items() if value is not None) or "no area"


def done_in(world: World) -> list[Any]:
    """Whatever a run leaves."""
    tables = ("landrecords_runs", "tile_layers", "tiles", "host_clocks")
    rows = [row for table in tables for row in world.database.rows(f"SELECT to_jsonb(t)::text FROM {table} AS t")]
    return [*rows, *(path.name for path in world.home.iterdir() if path.name != "prefect")]


@pytest.mark.parametrize(("parameters", "message"), MISTAKES, ids=lambda v: told(v) if isinstance(v, dict) else "")
def test_a_users_mistake_is_told_before_anything_is_done(
    mistaken: tuple[World, SampleTiles], parameters: dict[str, Any], message: str
) -> None:
    world, server = mistaken
    given = {"url_template": server.template("parcels"), "layer": LAYER, "zoom": Z, **area(3, 3), **parameters}
    before = len(server.requests), done_in(world)
    with pytest.raises(ConfigurationError) as caught:
        tiles.fn(**given)  # without Prefect's account of it, which takes a while
    assert message in str(caught.value)
    assert "\n" not in str(caught.value), "one sentence"
    assert (len(server.requests), done_in(world)) == before


@pytest.mark.parametrize(
    "parameters",
    [
        {"connections": 0},
        {"requests_per_second": 0},
        {"limit": 0},
        {"archive": "zip"},
        {"scheme": "wms"},
        {"geotiff_compression": "lzw"},
        {"zoom": "near"},
        {"patience_s": -1},
    ],
    ids=told,
)
def test_values_of_another_kind_are_refused_by_the_form(
    mistaken: tuple[World, SampleTiles], parameters: dict[str, Any]
) -> None:
    world, server = mistaken
    given = {"url_template": server.template("parcels"), "layer": LAYER, "zoom": Z, **area(3, 3), **parameters}
    before = len(server.requests), done_in(world)
    with pytest.raises(ParameterTypeError, match=next(iter(parameters))):
        tiles(**given)
    assert (len(server.requests), done_in(world)) == before
