"""The sample tile server over real sockets: what it has, how it is kept up to date, and how it misbehaves."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image, ImageChops
from selectolax.lexbor import LexborHTMLParser as HTMLParser

from tasks.errors import ItemError
from tasks.sample.faults import NAMED, FaultKind
from tasks.sample.tile_contents import (
    LAYERS,
    Sort,
    blank_content,
    extension_of,
    tile_content,
    tile_edition,
    tile_number,
    tile_sort,
)
from tasks.sample.tile_pictures import aerial_photo, parcel_map
from tasks.sample.tile_village import ROUND, TILE_PX
from tasks.sample.tiles import SampleTiles
from tasks.tile_images import verify

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tasks.sample.tiles"]
Z, X, Y = 21, 1_728_675, 1_051_362
AREA = [(Z, X + number % 40, Y + number // 40) for number in range(1600)]

Name = tuple[str, int, int, int]


@pytest.fixture
def tiles() -> Iterator[SampleTiles]:
    with SampleTiles() as tiles:
        yield tiles


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def of_sort(layer: str, sort: Sort, number: int = 0) -> Name:
    found = [(layer, *tile) for tile in AREA if tile_sort(layer, *tile) is sort]
    return found[number]


def url_of(tiles: SampleTiles, name: Name) -> str:
    layer, z, x, y = name
    return tiles.template(layer).format(z=z, x=x, y=y)


def pixels(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


# --- content ---


@pytest.mark.parametrize("layer", LAYERS)
def test_every_picture_is_sound_and_like_no_other(layer: str) -> None:
    contents = [tile_content(layer, *tile) for tile in AREA if tile_sort(layer, *tile) is Sort.PICTURE]
    assert len(set(contents)) == len(contents) > 1200
    for content in contents[::40]:
        assert content is not None
        facts = verify(content, None, decode=True)
        assert (facts.kind, facts.blank) == (extension_of(layer), False)
        assert 7_000 < facts.size_bytes < 15_000
    seen = {hashlib.sha256(pixels(content).tobytes()).digest() for content in contents[:200] if content}
    assert len(seen) == 200


@pytest.mark.parametrize("layer", LAYERS)
def test_some_tiles_are_missing_and_some_blank(layer: str) -> None:
    sorts = Counter(tile_sort(layer, *tile) for tile in AREA)
    assert 30 < sorts[Sort.MISSING] < 160
    assert 60 < sorts[Sort.BLANK] < 240
    assert tile_content(*of_sort(layer, Sort.MISSING)) is None
    blanks = {tile_content(*of_sort(layer, Sort.BLANK, number)) for number in range(30)}
    assert blanks == {blank_content(extension_of(layer))}
    assert verify(blanks.pop() or b"", None).blank


@pytest.mark.parametrize("sheet", [parcel_map, aerial_photo])
@pytest.mark.parametrize("turned", [False, True])
def test_the_village_begins_again_without_a_seam(sheet: Callable[[], Image.Image], turned: bool) -> None:
    """Across the edge, neighbours differ no more than anywhere else."""
    grey = sheet().convert("L")
    if turned:
        grey = grey.transpose(Image.Transpose.ROTATE_90)
    steps = mean_of_columns(ImageChops.difference(grey, ImageChops.offset(grey, 1, 0)))
    elsewhere = mean_of_columns(ImageChops.difference(grey, ImageChops.offset(grey, 377, 0)))
    assert steps[0] < 2 * median(steps) < median(elsewhere)


def mean_of_columns(grey: Image.Image) -> bytes:
    return grey.resize((grey.width, 1), Image.Resampling.BOX).tobytes()


@pytest.mark.parametrize("layer", LAYERS)
def test_neighbours_show_neighbouring_ground_in_their_own_shades(layer: str) -> None:
    sheet = {"parcels": parcel_map, "ortho": aerial_photo}[layer]().convert("RGB")
    shown = 0
    for z, x, y in AREA[:8]:
        left, top = x % ROUND * TILE_PX, y % ROUND * TILE_PX
        ground = sheet.crop((left, top, left + TILE_PX, top + TILE_PX))
        if tile_sort(layer, z, x, y) is Sort.PICTURE:
            differing = ImageChops.difference(ground, pixels(tile_content(layer, z, x, y) or b"")).convert("L")
            assert sum(differing.histogram()[24:]) < TILE_PX * TILE_PX / 20
            shown += 1
    assert shown >= 4


def test_content_is_the_same_in_another_process() -> None:
    names = [(layer, *tile) for layer in LAYERS for tile in AREA[:30]]
    code = (
        "import hashlib, json, sys; from tasks.sample.tile_contents import tile_content;"
        "print(hashlib.sha256(b''.join(tile_content(*n, 3) or b'-' for n in json.load(sys.stdin))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, input=json.dumps(names), capture_output=True, text=True, check=True
    )
    here = hashlib.sha256(b"".join(tile_content(*name, 3) or b"-" for name in names)).hexdigest()
    assert done.stdout.strip() == here


def test_each_version_changes_one_picture_in_ten_for_good() -> None:
    names = [("parcels", *tile) for tile in AREA]
    before, after, later = ([tile_content(*name, version) for name in names] for version in (0, 1, 2))
    changed = [name for name, one, two in zip(names, before, after, strict=True) if one != two]
    assert 80 < len(changed) < 220
    assert {tile_sort(*name) for name in changed} == {Sort.PICTURE}
    assert {tile_edition(*name, 1) for name in changed} == {1}
    assert not any(one == two for one, two, name in zip(before, later, names, strict=True) if name in changed)


# --- answers ---


@pytest.mark.parametrize("layer", [*LAYERS, "ortho_2019", "zoning"])
def test_tiles_come_byte_for_byte(tiles: SampleTiles, session: requests.Session, layer: str) -> None:
    statuses = set()
    for z, x, y in AREA[::16]:
        answer = session.get(url_of(tiles, (layer, z, x, y)), timeout=10)
        statuses.add(answer.status_code)
        if answer.status_code == 200:
            assert answer.content == tile_content(layer, z, x, y)
            assert answer.headers["Content-Type"] == {"png": "image/png", "jpg": "image/jpeg"}[extension_of(layer)]
        else:
            assert tile_content(layer, z, x, y) is None
    assert statuses == {200, 204, 404}
    assert tiles.connections == 1
    assert len(tiles.requests) == 100


def test_no_content_has_no_length_and_keeps_the_connection(tiles: SampleTiles) -> None:
    connection = http.client.HTTPConnection(urlsplit(tiles.url).netloc, timeout=10)
    missing = [tile for tile in AREA if tile_sort("parcels", *tile) is Sort.MISSING]
    for z, x, y in missing:
        connection.request("GET", f"/parcels/{z}/{x}/{y}.png")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 204:
            assert "Content-Length" not in answer.headers
            assert body == b""
        else:
            assert b"no such tile" in body
    connection.close()
    assert {record.status for record in tiles.requests} == {204, 404}
    assert tiles.requests[0].document == tile_number("parcels", *missing[0])
    assert json.loads(requests.get(f"{tiles.url}/__status", timeout=10).text)["connections_total"] == 2


def test_other_spellings_of_an_address(tiles: SampleTiles, session: requests.Session) -> None:
    layer, z, x, y = of_sort("parcels", Sort.PICTURE)
    for path in (f"/{layer}/{z}/{x}/{y}", f"/wms/?d={x}/{y}/{z}/{layer}"):
        assert session.get(tiles.url + path, timeout=10).content == tile_content(layer, z, x, y)


@pytest.mark.parametrize(
    "path",
    [
        f"/parcels/{Z}/{X}/{Y}.jpg",
        f"/ortho/{Z}/{X}/{Y}.png",
        "/parcels/3/8/0.png",
        "/parcels/3/0/8.png",
        "/parcels/31/0/0.png",
        "/parcels/99/0/0",
        "/parcels/3/-1/0.png",
        "/parcels/3/²/0.png",
        "/wms/",
        "/wms/?d=1/2",
        "/nothing",
    ],
)
def test_what_is_not_there_is_not_answered_with_a_picture(
    tiles: SampleTiles, session: requests.Session, path: str
) -> None:
    answer = session.get(tiles.url + path, timeout=10)
    assert answer.status_code in (204, 404)
    assert "image" not in answer.headers["Content-Type"]


def test_people_get_a_map(tiles: SampleTiles, session: requests.Session) -> None:
    tree = HTMLParser(session.get(tiles.url, timeout=10).text)
    sources = [picture.attributes["src"] or "" for picture in tree.css("img")]
    assert len(sources) == 48
    kinds = Counter(session.get(tiles.url + source, timeout=10).headers["Content-Type"] for source in sources)
    assert kinds["image/png"] > 15
    assert kinds["image/jpeg"] > 15
    assert session.get(f"{tiles.url}/robots.txt", timeout=10).ok


# --- refresh ---


@pytest.mark.parametrize("layer", LAYERS)
def test_only_what_changed_is_sent_again(tiles: SampleTiles, session: requests.Session, layer: str) -> None:
    names = [(layer, *tile) for tile in AREA[:120] if tile_sort(layer, *tile) is not Sort.MISSING]
    first = {name: session.get(url_of(tiles, name), timeout=10) for name in names}
    for version, by in ((0, "ETag"), (2, "ETag"), (2, "Last-Modified")):
        tiles.version = version
        header = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}[by]
        answers = {name: session.get(url_of(tiles, name), headers={header: first[name].headers[by]}) for name in names}
        changed = {name for name in names if tile_content(*name, version) != first[name].content}
        assert {name for name, answer in answers.items() if answer.status_code == 200} == changed
        assert all(answers[name].content == tile_content(*name, version) for name in changed)
        assert all(answers[name].status_code == 304 for name in names if name not in changed)
        assert bool(changed) == bool(version)
    assert tiles.connections == 1


@pytest.mark.parametrize("wish", ["{}", "W/{}", '"other", {}', "*"])
def test_forms_of_if_none_match(tiles: SampleTiles, session: requests.Session, wish: str) -> None:
    url = url_of(tiles, of_sort("ortho", Sort.PICTURE))
    etag = session.get(url, timeout=10).headers["ETag"]
    answer = session.get(url, headers={"If-None-Match": wish.format(etag)}, timeout=10)
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert "Content-Length" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": '"other"', "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
        {"If-Modified-Since": "Fri, 01 Jan 2010 00:00:00 GMT"},
        {"If-Modified-Since": "yesterday"},
    ],
)
def test_conditions_that_do_not_hold(tiles: SampleTiles, session: requests.Session, headers: dict[str, str]) -> None:
    answer = session.get(url_of(tiles, of_sort("ortho", Sort.PICTURE)), headers=headers, timeout=10)
    assert answer.status_code == 200


def test_blank_tiles_have_tags_of_their_own(tiles: SampleTiles, session: requests.Session) -> None:
    answers = [session.get(url_of(tiles, of_sort("parcels", Sort.BLANK, number)), timeout=10) for number in (0, 1)]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["ETag"] != answers[1].headers["ETag"]


# --- faults ---


def outcome(session: requests.Session, tiles: SampleTiles, name: Name) -> str:
    """What a downloader without a memory makes of one request: `whole`, or what is wrong."""
    try:
        answer = session.get(url_of(tiles, name), timeout=0.5)
    except requests.Timeout:
        return "timeout"
    except requests.RequestException:
        return "cut"
    if answer.status_code != 200:
        return str(answer.status_code)
    try:
        verify(answer.content, answer.headers.get("Content-Type"), decode=True)
    except ItemError as exc:
        return exc.reason
    return "whole" if answer.content == tile_content(*name) else "other"


FAULTS = {
    "too_many": "429",
    "unavailable": "503",
    "server_error": "500",
    "reset": "cut",
    "reset_midway": "cut",
    "stall": "timeout",
    "stall_midway": "cut",  # so requests calls a time-out within a body
    "truncated": "cut",
    "wrong_length": "truncated",
    "chunked_cut": "cut",
    "unbounded_cut": "truncated",
    "empty": "empty",
    "html": "html_error_page",
    "json": "html_error_page",
    "damaged": "damaged",
    "slow": "whole",
}


@pytest.mark.parametrize(("kind", "layer"), list(zip(FAULTS, LAYERS * 8, strict=True)))
def test_a_fault_hits_its_tile_and_heals(tiles: SampleTiles, session: requests.Session, kind: str, layer: str) -> None:
    name, other = of_sort(layer, Sort.PICTURE), of_sort(layer, Sort.PICTURE, 1)
    rule = {"kind": kind, "documents": [tile_number(*name)], "times": 2, "seconds": 1 if "stall" in kind else 0.05}
    tiles.faults = {"rules": [rule]}
    found = [outcome(session, tiles, name) for _ in range(3)]
    assert found[:2] == [FAULTS[kind]] * 2
    assert found[2] == outcome(session, tiles, other) == "whole"
    assert [record.fault for record in tiles.requests] == [kind, kind, None, None]


def test_all_kinds_but_those_of_documents_are_tried_here() -> None:
    assert set(FAULTS) == {str(kind) for kind in FaultKind} - {"encrypted", "wrong_book"}
    assert {str(rule.kind) for rule in NAMED["nasty-tiles"].rules} <= set(FAULTS)
    assert {str(rule.kind) for rule in NAMED["demo"].rules} <= set(FAULTS)


def test_a_permanent_fault_stays(tiles: SampleTiles, session: requests.Session) -> None:
    tiles.faults = {"rules": [{"kind": "html", "share": 1, "times": None}]}
    name = of_sort("parcels", Sort.PICTURE)
    assert [outcome(session, tiles, name) for _ in range(5)] == ["html_error_page"] * 5


def test_error_pages_sometimes_call_themselves_pictures(tiles: SampleTiles, session: requests.Session) -> None:
    tiles.faults = {"rules": [{"kind": "html", "share": 1}]}
    answers = [session.get(url_of(tiles, ("parcels", *tile)), timeout=10) for tile in AREA[:30]]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["Content-Type"].partition(";")[0] for answer in answers} == {"text/html", "image/png"}


def test_patience_is_asked_for_in_seconds_and_as_a_date(tiles: SampleTiles, session: requests.Session) -> None:
    url = url_of(tiles, of_sort("parcels", Sort.PICTURE))
    tiles.faults = {"rules": [{"kind": "too_many", "share": 1, "retry_after_s": 3}]}
    assert session.get(url, timeout=10).headers["Retry-After"] == "3"
    tiles.faults = {"rules": [{"kind": "too_many", "share": 1, "retry_after_s": 30, "retry_after_as": "date"}]}
    asked = parsedate_to_datetime(session.get(url, timeout=10).headers["Retry-After"]).timestamp()
    assert 30 <= asked - tiles.requests[-1].at < 32
    assert session.get(url, timeout=10).status_code == 200


def test_everything_fails_for_a_while(tiles: SampleTiles, session: requests.Session) -> None:
    name = of_sort("parcels", Sort.PICTURE)
    tiles.faults = {"rules": [{"kind": "unavailable", "lasts_s": 0.4}]}
    assert [outcome(session, tiles, name) for _ in range(3)] == ["503"] * 3
    wait_until_whole(session, tiles, name)
    tiles.go_down(0.3)
    assert outcome(session, tiles, name) == "cut"
    wait_until_whole(session, tiles, name)


def wait_until_whole(session: requests.Session, tiles: SampleTiles, name: Name) -> None:
    deadline = time.monotonic() + 10
    while outcome(session, tiles, name) != "whole":
        assert time.monotonic() < deadline, "it did not come back"
        time.sleep(0.02)


def test_all_but_the_permanently_faulty_are_had_in_the_end(tiles: SampleTiles, session: requests.Session) -> None:
    """The nasty set without its waits, denser: every other tile is hit."""
    rules = [rule for rule in NAMED["nasty-tiles"].rules if rule.share and "stall" not in rule.kind]
    dense = [rule.model_copy(update={"share": rule.share * 2}) for rule in rules]
    tiles.faults = {"rules": [rule.model_dump(mode="json") for rule in dense]}
    names = [("ortho", *tile) for tile in AREA[:200] if tile_sort("ortho", *tile) is Sort.PICTURE]
    last = {name: [outcome(session, tiles, name) for _ in range(4)][-1] for name in names}
    faulty = {record.document: record.fault for record in tiles.requests}  # of the last request for each
    assert sum(record.fault is not None for record in tiles.requests) > 40
    for name, result in last.items():
        assert result == FAULTS.get(faulty[tile_number(*name)] or "", "whole"), name
    assert Counter(last.values())["whole"] > 0.8 * len(names)


# --- as a process ---


def test_process_announces_serves_logs_and_stops(tmp_path: Path, session: requests.Session) -> None:
    log = tmp_path / "requests.jsonl"
    arguments = ["--log", str(log), "--version", "1", "--latency-ms", "1", "--faults", "demo", "--die-with-parent"]
    process = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        assert (ready["pid"], list(ready["layers"])) == (process.pid, list(LAYERS))
        assert session.get(f"{ready['url']}/__faults", timeout=10).json()["faults"]["name"] == "demo"
        session.post(f"{ready['url']}/__faults", data="none", timeout=10)
        name = next(("parcels", *tile) for tile in AREA if tile_edition("parcels", *tile, 1))
        template = ready["url"] + ready["layers"]["parcels"]
        answer = session.get(template.format(z=name[1], x=name[2], y=name[3]), timeout=10)
        assert answer.content == tile_content(*name, 1) != tile_content(*name)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    (line,) = log.read_text().splitlines()
    record = json.loads(line)
    assert (record["status"], record["document"]) == (200, tile_number(*name))
    assert record["sent"] == len(answer.content)


def test_process_refuses_what_cannot_work_in_one_sentence() -> None:
    done = subprocess.run([*COMMAND, "--faults", "mild"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nasty-tiles" in done.stderr
