"""The photos flow against a real sshd: what it reads, what it leaves alone, what it makes of a site, what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from tasks.errors import ConfigurationError
from tasks.exif import Flag
from tasks.records import RunReport
from tasks.sample.site_photos import FOLDERS, SITES, lay_out, photos_of
from tests.fakes.sshd import Sshd
from tests.flows.conftest import World

A_FOLDER = 6
THERE = len(SITES) * len(FOLDERS) * A_FOLDER
DAMAGED = len(SITES)
READ = THERE - DAMAGED

Fly = Callable[..., RunReport]


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd() as opened:
        yield opened


@pytest.fixture
def homes(server: Sshd) -> Iterator[Path]:
    """The sample's sites on the server, laid out anew."""
    homes = server.site / "homes"
    lay_out(homes, A_FOLDER)
    _readable(homes)
    yield homes
    shutil.rmtree(homes)


@pytest.fixture
def fly(world: World, server: Sshd, homes: Path) -> Fly:
    """The flow on that server, as a plain function."""
    from flows.photos import photos

    def run(**parameters: Any) -> RunReport:
        given = {
            "host": "127.0.0.1",
            "port": server.port,
            "root": str(homes),
            "username": server.username,
            "key_path": server.key_path,
            "known_hosts": server.known_hosts,
            "backoff_s": 0.2,
        }
        return photos(**(given | parameters))

    return run


def _readable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def of(world: World, columns: str, condition: str = "true") -> list[tuple[Any, ...]]:
    return world.database.rows(f"SELECT {columns} FROM site_images WHERE {condition} ORDER BY path")


def test_every_photo_is_where_it_was_taken(fly: Fly, world: World) -> None:
    report = fly()
    assert report.counts == {"pending": 0, "in_progress": 0, "completed": READ, "failed": DAMAGED, "skipped": 0}
    assert report.failures == {"unreadable": DAMAGED}
    said = {path: facts for path, *facts in of(world, "path, flag, latitude, longitude, altitude_m, direction_deg")}
    for site in SITES:
        for photo in photos_of(site, A_FOLDER):
            flag, *told = next(facts for path, facts in said.items() if path.endswith(f"/{photo.path}"))
            if photo.damaged or photo.shot.position is None:
                assert flag in {Flag.UNREADABLE, Flag.NO_GPS, Flag.NO_FIX}
                assert told == [None, None, None, None]
            else:
                assert flag == Flag.OK
                wanted = (*photo.shot.position, photo.shot.altitude_m, photo.shot.direction_deg)
                assert told == pytest.approx(wanted, abs=1e-6)
    assert report.bytes_in <= 8192 * THERE


def test_photos_come_vanish_and_come_back(fly: Fly, world: World, homes: Path) -> None:
    fly()
    folder = homes / SITES[0].path / "Center"
    hidden = folder.rename(homes.parent / "Center")
    assert sum(fly().counts.values()) == 0
    assert world.database.rows("SELECT count(*) FROM site_images WHERE vanished_at IS NOT NULL") == [(A_FOLDER,)]
    features = json.loads((world.store / "photos").glob("Ada/10234567*/photos.geojson").__next__().read_text())[
        "features"
    ]
    assert not any("/Center/" in feature["properties"]["path"] for feature in features)
    hidden.rename(folder)
    back = fly()
    assert sum(back.counts.values()) == 0, "nothing changed, so nothing is read again"
    assert world.database.rows("SELECT count(*) FROM site_images WHERE vanished_at IS NOT NULL") == [(0,)]


def test_each_site_has_its_products_and_outliers(fly: Fly, world: World) -> None:
    fly()
    found = sorted(path.name for path in (world.store / "photos").glob("*/*/*"))
    assert found == sorted(["map.html", "map.png", "photos.csv", "photos.geojson", "photos.gpkg"] * len(SITES))
    outliers = {Path(path).parent.name for (path,) in of(world, "path", "outlier")}
    assert "Orbit 2" in outliers, "the photo of another site"
    as_of = world.database.rows("SELECT count(*) FROM sites WHERE products_at >= changed_at")
    assert as_of == [(len(SITES),)]


def test_only_the_sites_asked_for(fly: Fly, world: World) -> None:
    fly(sites=["20987654"])
    assert {site for (site,) in of(world, "site")} == {SITES[2].path}


def test_a_limit_is_exact_and_the_next_run_goes_on(fly: Fly) -> None:
    first = fly(limit=7)
    assert sum(first.counts.values()) == 7
    second = fly()
    assert sum(second.counts.values()) == THERE - 7


def test_refresh_reads_everything_again(fly: Fly) -> None:
    fly(sites=["20987654"])
    assert sum(fly(sites=["20987654"], refresh=True).counts.values()) == THERE // len(SITES)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"root": "/nowhere"}, "/nowhere"),
        ({"sites": ["99999999"]}, "no folder of site 99999999"),
        ({"host_key": "SHA256:" + "A" * 43}, "host key"),
        ({"known_hosts": "/dev/null"}, "ssh-keyscan"),
        ({"host": "block:nobody"}, "no block 'nobody'"),
    ],
)
def test_a_users_mistake_is_one_sentence(fly: Fly, world: World, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        fly(**parameters)
    assert words in str(told.value)
    assert world.database.rows("SELECT count(*) FROM site_images") == [(0,)]


def test_a_password_is_in_no_parameter_row_or_log(fly: Fly, world: World, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigurationError):
        fly(key_path=None, password="hunter2-of-the-test")
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(limit=5)
    assert all("hunter2" not in run.model_dump_json() for run in runs)
    assert "hunter2" not in str(world.database.rows("SELECT * FROM landrecords_runs")) + caplog.text
