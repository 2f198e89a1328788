"""The tiles flow end to end: one run over two zooms with every sort of tile, looked at from all sides."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pmtiles.reader import MmapSource, Reader, all_tiles
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import TaskRun

from flows import cli
from tasks.pacing import host_of
from tasks.records import RunReport
from tasks.sample.tile_contents import Sort, tile_number, tile_sort
from tasks.sample.tiles import SampleTiles
from tasks.tile_coverage import Cell, coverage_picture
from tasks.tile_grid import Block
from tests.flows.conftest import World, opened_world
from tests.flows.evidence import Row, objects_in
from tests.flows.tile_evidence import (
    Name,
    blank_name,
    contents_of,
    leftovers,
    sample,
    tile_disagreements,
    tile_rows,
)

X, Y = 1_728_675, 1_051_362
LAYER, SERVED = "cadastre", "parcels"
RANGES = {"x_range": [X, X + 23], "y_range": [Y, Y + 19]}
BLOCKS = [Block(20, X >> 1, X + 23 >> 1, Y >> 1, Y + 19 >> 1), Block(21, X, X + 23, Y, Y + 19)]
TILES: list[Name] = [
    (b.z, x, y) for b in BLOCKS for x in range(b.x_first, b.x_last + 1) for y in range(b.y_first, b.y_last + 1)
]
COVERAGE = {Sort.PICTURE: "done", Sort.BLANK: "blank", Sort.MISSING: "missing"}


@dataclass(frozen=True)
class Crawl:
    """A finished run and everything it can be judged by."""

    world: World
    server: SampleTiles
    report: RunReport
    rows: dict[Name, Row]
    contents: dict[str, bytes]

    def of_sort(self, sort: Sort) -> list[Name]:
        return [name for name in TILES if tile_sort(SERVED, *name) is sort]


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, prefect_server: str) -> Iterator[Crawl]:
    """One run over 610 tiles, with an archive."""
    with opened_world(tmp_path_factory.mktemp("tiles"), postgres_url) as world, SampleTiles() as server:
        options = {"archive": "pmtiles", "attribution": "(c) <Survey>", "requests_per_second": 3000.0}
        report = world.tiles(server.template(SERVED), LAYER, [20, 21], **RANGES, **options)
        yield Crawl(world, server, report, tile_rows(world.database, LAYER), contents_of(world.store, LAYER))


def test_every_tile_the_server_has_is_stored_byte_for_byte(crawl: Crawl) -> None:
    assert set(crawl.rows) == set(TILES)
    assert tile_disagreements(crawl.rows, crawl.contents, sample(SERVED)) == []
    assert {row["kind"] for row in crawl.rows.values()} == {"png", None}
    z, x, y = name = crawl.of_sort(Sort.PICTURE)[0]
    assert (crawl.world.store / LAYER / str(z) / str(x) / f"{y}.png").read_bytes() == sample(SERVED)(*name)


def test_blank_tiles_are_stored_once(crawl: Crawl) -> None:
    blank = crawl.of_sort(Sort.BLANK)
    (content,) = {sample(SERVED)(*name) for name in blank}
    assert content is not None
    assert [name for name in crawl.contents if name.startswith("blank/")] == [blank_name(content, "png")]
    assert [name for name in TILES if crawl.rows[name]["blank"]] == blank
    assert {crawl.rows[name]["sha256"] for name in blank} == {hashlib.sha256(content).hexdigest()}
    assert len(crawl.contents) == len(crawl.of_sort(Sort.PICTURE)) + 1
    assert len(blank) > 30


def test_a_tile_that_is_not_there_is_skipped_and_asked_for_once(crawl: Crawl) -> None:
    """Also those the server answers 204; nothing of any tile is asked for twice, where nothing failed."""
    asked = Counter(request.document for request in crawl.server.requests)
    assert asked == dict.fromkeys((tile_number(SERVED, *name) for name in TILES), 1)
    assert {request.status for request in crawl.server.requests} == {200, 204, 404}
    missing = crawl.of_sort(Sort.MISSING)
    assert len(missing) > 20
    for name in missing:
        row = crawl.rows[name]
        assert (row["status"], row["reason"], row["attempts"], row["error"]) == ("skipped", "missing", 1, None)


def test_the_report_is_the_tables(crawl: Crawl) -> None:
    found = Counter(str(row["status"]) for row in crawl.rows.values())
    assert crawl.report.counts == {"pending": 0, "in_progress": 0, "failed": 0, **found}
    assert crawl.report.steps == {"status": crawl.report.counts}
    assert crawl.report.failures == {}
    assert crawl.report.notes == {
        "blank": len(crawl.of_sort(Sort.BLANK)),
        "missing": len(crawl.of_sort(Sort.MISSING)),
    }
    assert crawl.report.bytes_in == sum(row["size_bytes"] or 0 for row in crawl.rows.values())
    assert crawl.report.bytes_in == sum(request.sent for request in crawl.server.requests if request.status == 200)
    pictures = sum(len(sample(SERVED)(*name) or b"") for name in crawl.of_sort(Sort.PICTURE))
    assert crawl.report.bytes_out == pictures
    assert {row["run_id"] for row in crawl.rows.values()} == {crawl.report.run_id}
    assert crawl.report.exit_code == 0
    recorded = crawl.world.database.rows(
        "SELECT workload, ended_at IS NOT NULL, report -> 'counts' FROM landrecords_runs"
    )
    assert recorded == [("tiles", True, crawl.report.counts)]


def test_what_the_next_refresh_needs_is_kept(crawl: Crawl) -> None:
    for name, row in crawl.rows.items():
        there = tile_sort(SERVED, *name) is not Sort.MISSING
        assert (row["etag"] is not None, row["last_modified"] is not None) == (there, there), name


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """Exit code and output of the `landrecords` command."""
    monkeypatch.setattr(sys, "argv", ["landrecords", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), capsys.readouterr().out


def test_status_counts_the_tiles(
    crawl: Crawl, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = command(capsys, monkeypatch, "status", "tiles", "--json")
    assert (code, json.loads(said)) == (0, {"status": crawl.report.counts})
    assert command(capsys, monkeypatch, "failed", "tiles") == (0, "Nothing failed.\n")


# --- the archive ---


def test_the_reference_reader_finds_every_tile_in_the_archive(crawl: Crawl) -> None:
    with (crawl.world.store / "archives" / f"{LAYER}.pmtiles").open("rb") as file:
        reader = Reader(MmapSource(file))
        found = dict(all_tiles(reader.get_bytes))
        header, metadata = reader.header(), reader.metadata()
    assert found == {name: content for name in TILES if (content := sample(SERVED)(*name)) is not None}
    assert header["clustered"]
    assert (header["min_zoom"], header["max_zoom"]) == (20, 21)
    assert (metadata["name"], metadata["attribution"]) == (LAYER, "(c) <Survey>")


def test_a_page_shows_the_archive_beside_it(crawl: Crawl) -> None:
    page = (crawl.world.store / "archives" / f"{LAYER}.html").read_text()
    settings = re.search(r'id="settings">(.*)</script>', page)
    assert settings
    shown = json.loads(settings[1])
    assert shown == {"title": LAYER, "archive": f"{LAYER}.pmtiles", "attribution": "(c) <Survey>"}
    assert not re.findall(r"https?://", page), "it needs nothing from elsewhere"


def test_the_archives_folder_holds_what_the_run_made_and_nothing_else_lies_about(crawl: Crawl) -> None:
    made = {path.name for path in objects_in(crawl.world.store / "archives")}
    assert made == {f"{LAYER}.pmtiles", f"{LAYER}.html", f"{LAYER}-coverage.png"}
    assert leftovers(crawl.world.store, crawl.world.spool) == []


# --- what Prefect shows ---


@pytest.fixture(scope="module")
def artifacts(crawl: Crawl) -> dict[str, Any]:
    mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(crawl.report.run_id)]))
    with get_client(sync_client=True) as client:
        return {artifact.key or "": artifact for artifact in client.read_artifacts(artifact_filter=mine)}


def test_the_coverage_picture_is_in_the_store_and_in_the_report(crawl: Crawl, artifacts: dict[str, Any]) -> None:
    """Painted from the table; here from what the server has."""
    corner = {block.z: (block.x_first, block.y_first) for block in BLOCKS}
    cells = [Cell(z, x - corner[z][0], y - corner[z][1], COVERAGE[tile_sort(SERVED, z, x, y)], 1) for z, x, y in TILES]
    picture = (crawl.world.store / "archives" / f"{LAYER}-coverage.png").read_bytes()
    assert picture == coverage_picture(LAYER, BLOCKS, cells)
    page = str(artifacts["tiles-report"].data)
    shown = re.search(r"!\[[^]]*\]\(data:image/png;base64,([^)]*)\)", page)
    assert shown
    assert base64.b64decode(shown[1]) == picture


def test_progress_results_and_report_are_artifacts(crawl: Crawl, artifacts: dict[str, Any]) -> None:
    assert set(artifacts) == {"tiles-progress", "tiles-results", "tiles-report"}
    assert artifacts["tiles-progress"].data == 100.0
    assert f"{len(TILES)} of {len(TILES)} done" in artifacts["tiles-progress"].description
    results = str(artifacts["tiles-results"].data)
    assert f'"completed": {crawl.report.counts["completed"]}' in results
    page = str(artifacts["tiles-report"].data)
    assert (crawl.world.store / "archives" / f"{LAYER}.pmtiles").as_uri() in page
    assert f"| missing | {len(crawl.of_sort(Sort.MISSING))} |" in page


def test_pages_are_task_runs_named_and_limited_by_the_host(crawl: Crawl) -> None:
    host, mine = host_of(crawl.server.url), FlowRunFilter(id=FlowRunFilterId(any_=[UUID(crawl.report.run_id)]))
    with get_client(sync_client=True) as client:
        runs = wait_for(lambda: ended(client.read_task_runs(flow_run_filter=mine), at_least=9))
        limit = client.read_concurrency_limit_by_tag(f"tiles-{host}")
        dial = client.read_global_concurrency_limit_by_name(host)
    pages = [run for run in runs if run.name.startswith("tiles-")]
    assert sorted(run.name for run in pages) == [f"tiles-{n}" for n in range(1, 8)]
    assert all(f"tiles-{host}" in run.tags for run in pages)
    assert {run.name for run in runs} - {run.name for run in pages} == {"archive.pmtiles", "upload-archive"}
    assert {run.state_name for run in runs} == {"Completed"}
    assert limit.active_slots == [], "given back"
    assert dial.slot_decay_per_second == 3000


def ended(runs: list[TaskRun], at_least: int) -> list[TaskRun]:
    """The runs, once they are so many and all final: the server hears of them by events."""
    return runs if len(runs) >= at_least and all(run.state and run.state.is_final() for run in runs) else []


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


# --- once more ---


def test_a_second_run_has_nothing_to_do(crawl: Crawl) -> None:
    before = len(crawl.server.requests)
    report = crawl.world.tiles(crawl.server.template(SERVED), LAYER, [20, 21], **RANGES)
    assert sum(report.counts.values()) == 0
    assert len(crawl.server.requests) == before
    assert contents_of(crawl.world.store, LAYER) == crawl.contents


def test_a_wider_area_asks_only_for_what_is_new(crawl: Crawl) -> None:
    before = len(crawl.server.requests)
    wider = {"x_range": [X, X + 24], "y_range": [Y, Y + 19]}
    report = crawl.world.tiles(crawl.server.template(SERVED), LAYER, 21, **wider)
    assert sum(report.counts.values()) == len(crawl.server.requests) - before == 20


def test_another_layer_beside_it_is_its_own(crawl: Crawl) -> None:
    """The same places of another source: neither touches the other's rows or objects."""
    area = {"x_range": [X, X + 9], "y_range": [Y, Y + 9]}
    report = crawl.world.tiles(crawl.server.template("ortho"), "ortho", 21, **area)
    assert sum(report.counts.values()) == 100
    rows, contents = tile_rows(crawl.world.database, "ortho"), contents_of(crawl.world.store, "ortho")
    assert tile_disagreements(rows, contents, sample("ortho")) == []
    assert {row["kind"] for row in rows.values()} == {"jpg", None}
    mine = tile_rows(crawl.world.database, LAYER)
    assert {name: mine[name] for name in TILES} == crawl.rows


def test_the_progress_view_sums_up_layers_and_zooms(crawl: Crawl) -> None:
    query = "SELECT z, status::text, tiles, blank, size_bytes FROM tiles_progress WHERE layer = %s AND z = 20"
    found = {status: numbers for _, status, *numbers in crawl.world.database.rows(query, (LAYER,))}
    of_zoom = [row for name, row in crawl.rows.items() if name[0] == 20]
    done = [row for row in of_zoom if row["status"] == "completed"]
    blank = sum(row["blank"] for row in done)
    assert found["completed"] == [len(done), blank, sum(row["size_bytes"] for row in done)]
    assert found["skipped"] == [len(of_zoom) - len(done), 0, 0]


def test_paths_in_the_store_are_plain(crawl: Crawl) -> None:
    pattern = re.compile(r"(20|21)/\d+/\d+\.png|blank/[0-9a-f]{64}\.png")
    assert [name for name in crawl.contents if not pattern.fullmatch(name)] == []
    assert not list(Path(crawl.world.store / ".metadata").rglob(f"{LAYER}/*")), "tiles need no description of their own"
