"""A site of the field on a real sshd: 1,486 photos in 19 folders, read once, not again, and ten of them again.

What was read is judged by the kernel of the server's machine (`OpenedFiles`), besides the flow's own account.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact

from tasks.records import RunReport
from tasks.sample.photo_tags import Shot
from tasks.site_folders import category_of
from tasks.site_names import store_folder
from tests.fakes.homes import FIELD_FOLDERS, SITE, write_site
from tests.fakes.opened import OpenedFiles
from tests.fakes.sshd import Sshd
from tests.flows.conftest import World, opened_world
from tests.flows.photo_evidence import features, photo_disagreements, photo_rows, way_in

PHOTOS, TOUCHED = 1486, 10


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd() as opened:
        yield opened


@dataclass(frozen=True)
class Field:
    """Three runs over the site. opened: per run, path -> how often the server opened it."""

    world: World
    photos: dict[Path, Shot]
    touched: list[Path]
    reports: list[RunReport]
    opened: list[Counter[str]]
    client: SyncPrefectClient

    def artifacts(self, run: int) -> dict[str, Artifact]:
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(self.reports[run].run_id)]))
        return {artifact.key or "": artifact for artifact in self.client.read_artifacts(artifact_filter=mine)}

    def events(self, run: int, name: str) -> list[dict[str, Any]]:
        """Payloads with the labels of their resource."""
        wanted = {"event": {"name": [name]}}
        answer = self.client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50})
        of_run = f"landrecords.photos.{self.reports[run].run_id}"
        found = [e for e in answer.json()["events"] if e["resource"]["prefect.resource.id"] == of_run]
        return [event["payload"] | {"labels": event["resource"]} for event in found]


@pytest.fixture(scope="module")
def field(
    server: Sshd, tmp_path_factory: pytest.TempPathFactory, postgres_url: str, prefect_server: str
) -> Iterator[Field]:
    from flows.photos import photos

    there = write_site(server.site / "homes", FIELD_FOLDERS)
    touched = list(there)[:: PHOTOS // TOUCHED][:TOUCHED]
    with (
        opened_world(tmp_path_factory.mktemp("field"), postgres_url) as world,
        get_client(sync_client=True) as client,
        OpenedFiles(server.site) as watch,
    ):
        reports, opened = [], []
        for _ in ("first", "second", "after ten were touched"):
            reports.append(photos(**way_in(server)))
            opened.append(watch.counts())
            watch.clear()
            if len(reports) == 2:
                for path in touched:
                    os.utime(path)
        print([(r.seconds, r.counts["completed"], r.bytes_in) for r in reports], "load", os.getloadavg()[0])
        yield Field(world, there, touched, reports, opened, client)


def test_every_photo_is_read_once_and_is_where_it_was_taken(field: Field) -> None:
    assert len(field.photos) == PHOTOS == sum(FIELD_FOLDERS.values())
    assert len(FIELD_FOLDERS) == 19
    assert field.reports[0].counts == {"pending": 0, "in_progress": 0, "completed": PHOTOS, "failed": 0, "skipped": 0}
    assert field.opened[0] == dict.fromkeys(map(str, field.photos), 1)
    assert photo_disagreements(photo_rows(field.world.database), field.photos) == []
    assert field.reports[0].bytes_in <= 8192 * PHOTOS
    stored = (path for path in (field.world.store / store_folder(SITE)).iterdir() if path.is_file())
    assert field.reports[0].bytes_out == pytest.approx(sum(path.stat().st_size for path in stored), rel=0.05)


def test_a_second_run_reads_no_byte(field: Field) -> None:
    assert sum(field.reports[1].counts.values()) == field.reports[1].bytes_in == 0
    assert field.opened[1] == {}


def test_after_ten_were_touched_ten_are_read(field: Field) -> None:
    assert field.reports[2].counts["completed"] == TOUCHED
    assert field.opened[2] == dict.fromkeys(map(str, field.touched), 1)
    assert 0 < field.reports[2].bytes_in <= 8192 * TOUCHED


def test_each_folder_is_told_of_by_an_event_when_it_is_done(field: Field) -> None:
    name, events = "landrecords.photos.folder", list[dict[str, Any]]()
    deadline = time.monotonic() + 20
    while len(events := field.events(0, name)) < len(FIELD_FOLDERS) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {e["folder"]: (e["photos"], e["with position"], e["waiting"], e["failed"]) for e in events} == {
        folder: (photos, photos, 0, 0) for folder, photos in FIELD_FOLDERS.items()
    }
    assert len(events) == len(FIELD_FOLDERS)
    for event in events:
        labels = {f"landrecords.{name}": event[name] for name in ("site", "folder", "category")}
        assert labels.items() <= event["labels"].items()
        assert event["category"] == category_of(event["folder"])


def test_one_table_grows_with_the_folders(field: Field) -> None:
    data = field.artifacts(0)["photos-folders"].data
    table = json.loads(str(data))
    assert {row["folder"]: row["photos"] for row in table} == FIELD_FOLDERS
    assert len({tuple(row) for row in table}) == 1, "the UI takes its columns from the first row"
    of_third = json.loads(str(field.artifacts(2)["photos-folders"].data))
    assert {row["folder"] for row in of_third} == {path.parent.name for path in field.touched}
    assert "photos-folders" not in field.artifacts(1)


def test_the_report_leads_to_the_map_and_shows_it(field: Field) -> None:
    artifacts = field.artifacts(0)
    page = str(artifacts["photos-report"].data)
    folder = (field.world.store / store_folder(SITE)).as_uri()
    for name in ("photos.geojson", "photos.csv", "photos.gpkg", "map.html", "map.png"):
        assert f"[{name}]({folder}/{name})" in page
    picture = re.search(r"data:image/png;base64,([\w+/=]+)", page)
    assert picture
    assert base64.b64decode(picture[1]) == (field.world.store / store_folder(SITE) / "map.png").read_bytes()
    assert f"| {SITE} | {PHOTOS:,} | {PHOTOS:,} | 0 | 0 |" in page
    assert f"`{folder}/map.html`" in page
    [link] = [artifact for key, artifact in artifacts.items() if key.startswith("photos-map-")]
    assert f"{folder}/map.html" in str(link.data)


def test_products_are_made_anew_when_something_changed(field: Field) -> None:
    assert len(features(field.world.store, SITE)) == PHOTOS
    assert [any(key.startswith("photos-map-") for key in field.artifacts(run)) for run in range(3)] == [
        True,
        False,
        True,
    ]


# --- the real photos of the corpus ---


@pytest.fixture
def corpus(server: Sshd, shared_data: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """They lie on the server as a site; name -> what exiftool says."""
    folder = server.site / "real" / "Ada/20101010-2010-10-10-Corpus/Center"
    folder.mkdir(parents=True)
    said = {Path(one["SourceFile"]).name: one for one in json.loads((shared_data / "photos/exiftool.json").read_text())}
    for path in (shared_data / "photos").iterdir():
        if path.suffix != ".json":
            shutil.copyfile(path, folder / path.name)
    yield {path.name: said[path.name] for path in folder.iterdir()}
    shutil.rmtree(server.site / "real")


def test_real_photos_are_as_exiftool_says(
    server: Sshd, corpus: dict[str, dict[str, Any]], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.photos import photos

    report = photos(**way_in(server, root=str(server.site / "real")))
    assert report.counts["completed"] == len(corpus) == 12
    rows = {path.name: row for path, row in photo_rows(world.database).items()}
    with capsys.disabled():
        print("\n" + "\n".join(f"{name:22}{row['bytes_read']:7} bytes read" for name, row in sorted(rows.items())))
    for name, told in corpus.items():
        assert as_told(rows[name]) == as_exiftool(told), name
    jpegs = [row["bytes_read"] for name, row in rows.items() if name.endswith(".jpg")]
    assert sum(jpegs) / len(jpegs) <= 8192


def as_told(row: dict[str, Any]) -> tuple[Any, ...]:
    place = (row["latitude"], row["longitude"])
    return (
        row["flag"],
        *(None if degrees is None else pytest.approx(degrees, abs=1e-7, rel=0) for degrees in place),
        None if row["altitude_m"] is None else pytest.approx(row["altitude_m"], rel=1e-9),
        row["altitude_ref"],
        None if row["direction_deg"] is None else pytest.approx(row["direction_deg"], rel=1e-9),
        datetime.fromisoformat(row["taken_at"]),
        row["clock"],
    )


def as_exiftool(said: dict[str, Any]) -> tuple[Any, ...]:
    names = ("GPSLatitude", "GPSLongitude", "GPSAltitude", "GPSAltitudeRef", "GPSImgDirection")
    return ("ok" if "GPSLatitude" in said else "no_gps", *(said.get(name) for name in names), *time_of(said))


def time_of(said: dict[str, Any]) -> tuple[datetime, str]:
    """The satellites' time, else the camera's with its offset, else the camera's."""
    if "GPSDateTime" in said:
        day, clock = said["GPSDateTime"].removesuffix("Z").split(" ")
        clock, _, part = clock.partition(".")
        return datetime.fromisoformat(f"{day.replace(':', '-')}T{clock}.{part:0<6.6}+00:00"), "gps"
    offset = said.get("OffsetTimeOriginal", "")
    day, clock = said["DateTimeOriginal"].split(" ")
    return datetime.fromisoformat(f"{day.replace(':', '-')}T{clock}{offset}"), "offset" if offset else "local"
