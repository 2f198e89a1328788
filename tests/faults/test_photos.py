"""The photos flow while what it leans on fails: the SSH server, the line to it, the files on it, the process itself.

The server is OpenSSH's; what it really opened is heard from the kernel. Afterwards every photo has its row, true to it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from tasks import sftp
from tasks.errors import ConfigurationError
from tasks.records import RunReport
from tasks.sample.photo_tags import Shot
from tests.fakes.homes import SITE, write_site
from tests.fakes.opened import OpenedFiles
from tests.fakes.slow_link import SlowLink
from tests.fakes.sshd import QUICK, Sshd, make_key
from tests.faults.conftest import Run, Scene, until
from tests.flows.conftest import World, opened_world
from tests.flows.photo_evidence import features, photo_disagreements, photo_rows, way_in

FOLDERS = {"Orbit": 40, "Scan": 40, "Center": 20}
KILLS = 5
SEED = 20261122
LONGEST_S = 1.0


@pytest.fixture
def server() -> Iterator[Sshd]:
    with Sshd() as opened:
        yield opened


@pytest.fixture
def photos(server: Sshd, request: pytest.FixtureRequest) -> dict[Path, Shot]:
    """A small site on the server, and where its photos were taken."""
    return write_site(server.site / "homes", getattr(request, "param", FOLDERS))


@pytest.fixture
def watch(server: Sshd, photos: dict[Path, Shot]) -> Iterator[OpenedFiles]:
    with OpenedFiles(server.site) as watching:
        yield watching


@pytest.fixture
def world(tmp_path: Path, postgres_url: str, prefect_server: str) -> Iterator[World]:
    """For runs in this process."""
    with opened_world(tmp_path, postgres_url) as made:
        yield made
    sftp.close_pools()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is given up after a second without a byte, not after thirty."""
    monkeypatch.setattr(sftp, "Timeouts", lambda: QUICK)


def fly(server: Sshd, **changes: Any) -> RunReport:
    from flows.photos import photos

    return photos(**way_in(server, **changes))


def check(world: World, photos: dict[Path, Shot]) -> None:
    assert photo_disagreements(photo_rows(world.database), photos) == []


def meanwhile(condition: Callable[[], Any], do: Callable[[], Any]) -> threading.Thread:
    """Do something once the condition holds, or after a minute."""
    deadline = time.monotonic() + 60

    def wait() -> None:
        while time.monotonic() < deadline and not condition():
            time.sleep(0.005)
        do()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


# --- logging in ---


def test_logins_are_dropped_while_others_crowd_the_door(world: World) -> None:
    """MaxStartups 3:50:5: nobody gets in past five who do not log in; once they are gone the run goes on."""
    with Sshd(MaxStartups="3:50:5") as server:
        photos = write_site(server.site / "homes", FOLDERS)
        others = crowd(server, 5)

        def leave() -> None:
            for connection in others:
                connection.close()

        before = server.log.count("drop connection")
        drops = meanwhile(lambda: server.log.count("drop connection") > before, leave)
        report = fly(server)
        drops.join()
        assert report.counts["completed"] == len(photos)
        check(world, photos)


def crowd(server: Sshd, count: int) -> list[socket.socket]:
    """So many connections that do not log in; the server drops some at first, too."""
    kept: list[socket.socket] = []
    while len(kept) < count:
        one = socket.create_connection(("127.0.0.1", server.port))
        if one.recv(4) == b"SSH-":
            kept.append(one)
        else:
            one.close()
            time.sleep(0.02)
    return kept


def test_a_server_with_one_session_a_connection(world: World) -> None:
    with Sshd(MaxSessions="1") as server, SlowLink(server.port, 0.005) as link:
        photos = write_site(server.site / "homes", FOLDERS)
        report = fly(server, port=link.port, connections=4, depth=4)
        assert report.counts["completed"] == len(photos)
        assert link.connections == server.logins == 4
        check(world, photos)


def test_a_wrong_host_key_is_alarming_and_no_login_is_sent(world: World, server: Sshd, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {other}")
    for change in ({"host_key": other}, {"host_key": None, "known_hosts": tmp_path / "known"}):
        with pytest.raises(ConfigurationError, match=r"DANGER.*No login was sent.*ask its administrator") as told:
            fly(server, **change)
        assert "\n" not in str(told.value)
    assert " publickey " not in server.log
    assert photo_rows(world.database) == {}


def test_a_wrong_password_is_tried_once(
    world: World, server: Sshd, photos: dict[Path, Shot], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError) as told:
        fly(server, key_path=None, password="hunter2-of-the-test")
    assert str(told.value) == (
        f"127.0.0.1:{server.port} does not let user {server.username} in with the password; correct the login. "
        "It is not tried again, so that no account gets locked."
    )
    assert "hunter2" not in caplog.text
    assert server.log.count("Failed password") == server.log.count("Connection from") == 1
    assert photo_rows(world.database) == {}


# --- connections that break while photos are read ---


@pytest.mark.parametrize("how", ["sessions", "server"])
def test_the_server_is_killed_in_the_middle_and_comes_back(
    world: World, server: Sshd, photos: dict[Path, Shot], watch: OpenedFiles, how: str
) -> None:
    """What was in flight is read again by the same run, nothing else; no photo is blamed."""

    def fail() -> None:
        if how == "sessions":
            server.kill_sessions()
        else:
            server.stop()
            time.sleep(0.5)
            server.start()

    with SlowLink(server.port, 0.01) as link:
        outage = meanwhile(lambda: len(watch.log) >= 40, fail)
        report = fly(server, port=link.port, connections=2, depth=4)
        outage.join()
    assert report.counts["completed"] == len(photos)
    check(world, photos)
    opened = watch.counts()
    assert 0 < len(photos) <= opened.total() <= len(photos) + 2 * 4
    assert {row["attempts"] for row in photo_rows(world.database).values()} == {1}


def test_a_connection_stalls_and_is_rebuilt(
    world: World, server: Sshd, photos: dict[Path, Shot], watch: OpenedFiles, impatient: None
) -> None:
    with SlowLink(server.port, 0.01) as link:

        def stall() -> None:
            link.stall()
            time.sleep(QUICK.stall_s + 0.5)
            link.flow()

        outage = meanwhile(lambda: len(watch.log) >= 40, stall)
        report = fly(server, port=link.port, connections=1, depth=8)
        outage.join()
        assert link.connections >= 2
    assert report.counts["completed"] == len(photos)
    check(world, photos)
    assert watch.counts().total() <= len(photos) + 8


# --- files and folders ---


def test_a_folder_of_10000_photos(world: World, server: Sshd) -> None:
    photos = write_site(server.site / "homes", {"Scan": 50})
    for number in range(50, 10_000):
        like = server.site / "homes" / SITE / "Scan" / f"DJI_{number % 50:04d}.JPG"
        other = like.with_name(f"DJI_{number:04d}.JPG")
        os.link(like, other)
        photos[other] = photos[like]
    report = fly(server)
    assert report.counts["completed"] == len(photos) == 10_000
    check(world, photos)
    assert len(features(world.store, SITE)) == 10_000


def test_folders_that_cannot_be_listed_are_told_of_and_keep_their_photos(
    world: World, server: Sshd, photos: dict[Path, Shot]
) -> None:
    if server.username == "root":
        pytest.skip("root may read every folder")
    homes, other_pilot = server.site / "homes", "Ben/20987654-20240611-Borough"
    photos |= write_site(homes, {"Orbit": 5}, other_pilot)
    closed_file = homes / SITE / "Center" / "DJI_0000.JPG"
    closed_file.chmod(0o000)
    report = fly(server)
    assert report.failures == {"permission_denied": 1}
    closed_file.chmod(0o644)
    (homes / SITE / "Scan").chmod(0o000)
    (homes / "Ben").chmod(0o000)
    for path in (homes / SITE / "Orbit").iterdir():
        os.utime(path)
    report = fly(server)
    assert report.counts["completed"] == FOLDERS["Orbit"], "the others are read all the same"
    assert report.notes["folder_not_listed"] == 2
    rows = photo_rows(world.database)
    assert rows.pop(closed_file)["reason"] == "permission_denied"
    (homes / SITE / "Scan").chmod(0o755)
    (homes / "Ben").chmod(0o755)
    del photos[closed_file]
    assert photo_disagreements(rows, photos) == []


def test_photos_that_are_deleted_after_they_were_listed_and_come_back(
    world: World, server: Sshd, photos: dict[Path, Shot], watch: OpenedFiles, tmp_path: Path
) -> None:
    """Gone is neither failed nor read, and not gone for good."""
    chosen = [path for path in photos if path.parent.name == "Scan"][-20:]

    def delete() -> None:
        for path in chosen:
            shutil.move(path, tmp_path / path.name)

    with SlowLink(server.port, 0.01) as link:
        deleted = meanwhile(lambda: watch.log, delete)
        report = fly(server, port=link.port, connections=1, depth=2)
        deleted.join()
        assert (report.failures, report.notes) == ({}, {"vanished": len(chosen)})
        assert report.counts["skipped"] == len(chosen)
        check(world, {path: at for path, at in photos.items() if path not in chosen})
        assert len(features(world.store, SITE)) == len(photos) - len(chosen)
        for path in chosen:
            shutil.copy2(tmp_path / path.name, path)
        assert fly(server, port=link.port).counts["completed"] == len(chosen)
    check(world, photos)
    assert len(features(world.store, SITE)) == len(photos)


def test_a_site_folder_that_is_gone_takes_its_photos_with_it(
    world: World, server: Sshd, photos: dict[Path, Shot]
) -> None:
    homes, second, third = server.site / "homes", "Ada/20987654-20240611-Borough", "Ben/30987654-20240611-Borough"
    of_second, of_third = (write_site(homes, {"Orbit": 4}, site) for site in (second, third))
    fly(server)
    check(world, photos | of_second | of_third)
    shutil.rmtree(homes / second)
    shutil.rmtree(homes / "Ben")
    fly(server, sites=["10234567"])
    check(world, photos | of_second | of_third)  # nobody asked about those
    assert sum(fly(server).counts.values()) == 0
    check(world, photos)
    write_site(homes, {"Orbit": 4}, second)
    assert sum(fly(server).counts.values()) == 0
    check(world, photos | of_second)


ODD = [
    b" spaces  around .jpg",
    b'it\'s "quoted" `and` $(worse).JPG',
    b"two\nlines\tand a tab.jpeg",
    b"not utf-8 \xff\xfe\xe9.jpg",
    "Grundstück 土地 🏡.jpg".encode(),
    b"-rf.jpg",
    b"*.jpg",
    b"back\\slash \\xe9.jpg",
    b"[link](javascript:alert(1)) | <script>.jpg",
    b"x" * 251 + b".jpg",
]


def test_any_name_of_pilot_site_folder_and_photo(world: World, server: Sshd) -> None:
    """All of them in each of four sites, whose pilots and folders are named like some: read, and in all products."""
    model = write_site(server.site / "homes", {"Orbit": 1})
    [(first, taken)] = model.items()
    for number, odd in enumerate(ODD[:4]):
        stem = os.fsdecode(odd.rpartition(b".")[0])
        folder = server.site / "homes" / stem / f"12345670{number} {stem}" / f"Orbit {stem}"
        folder.mkdir(parents=True)
        for name in ODD:
            path = folder / os.fsdecode(name)
            shutil.copy2(first, path)
            model[path] = taken
    report = fly(server)
    assert report.counts["completed"] == len(model)
    check(world, model)
    assert set(map(str, model)) == {os.fsdecode(bytes(row["raw_path"])) for row in photo_rows(world.database).values()}
    made = sorted(path.name for path in (world.store / "photos").rglob("*") if path.is_file())
    assert made == sorted(["map.html", "map.png", "photos.csv", "photos.geojson", "photos.gpkg"] * 5)


# --- the process ---


@dataclass
class Flights:
    """Runs as processes of their own over a line with a round trip of 20 ms: some 200 photos a second."""

    scene: Scene
    server: Sshd
    link: SlowLink
    given: dict[str, Any] = field(default_factory=dict)

    def start(self, *, wait: bool = False) -> Run:
        given = way_in(self.server, port=self.link.port, connections=1, depth=8)
        return self.scene.launch("photos", given, wait=wait)

    def settled(self) -> dict[Path, datetime]:
        """Photo -> when it was settled."""
        rows = photo_rows(self.scene.database)
        return {path: row["completed_at"] for path, row in rows.items() if row["status"] == "completed"}

    def runs_begun(self) -> int:
        return int(self.scene.database.rows("SELECT count(*) FROM landrecords_runs")[0][0])


@pytest.fixture
def flights(scene: Scene, server: Sshd) -> Iterator[Flights]:
    with SlowLink(server.port, 0.01) as link:
        yield Flights(scene, server, link)


@pytest.mark.parametrize("photos", [{f"Orbit {n}": 100 for n in range(1, 6)}], indirect=True)
def test_kills_then_resume(flights: Flights, server: Sshd, photos: dict[Path, Shot], watch: OpenedFiles) -> None:
    """SIGKILL at any moment, listing and making maps included; every fourth time to the whole process group."""
    scene, moments, known = flights.scene, random.Random(SEED), dict[Path, datetime]()
    print(f"seed {SEED}")
    following = flights.start(wait=True)
    for number in range(1, KILLS + 1):
        run, following = following, flights.start(wait=True)
        kill_at_work(flights, watch, run, moments.uniform(0.0, LONGEST_S), number)
        now = flights.settled()
        print(f"kill {number}: {len(now)} settled, {len(watch.log)} opened", flush=True)
        assert {path: now.get(path) for path in known} == known, "a settled photo was taken back"
        known = now
    following.go()
    assert following.wait() == 0, following.said()
    assert photo_disagreements(photo_rows(scene.database), photos) == []
    assert 0 < len(known) < len(photos), "the kills came while there was work"
    at_end = flights.settled()
    assert {path: at_end.get(path) for path in known} == known
    again = [path for path, at in watch.log if Path(path) in known and at > known[Path(path)].timestamp() + 0.1]
    assert again == [], "read again after it was settled"
    assert len(features(scene.store, SITE)) == len(photos)
    scene.nobody_left()
    assert states_in_prefect(scene) == {"Crashed": KILLS, "Completed": 1}
    with get_client(sync_client=True) as client:
        tag = f"sftp-127.0.0.1:{flights.link.port}"
        assert client.read_concurrency_limit_by_tag(tag).active_slots == [], "given back"


def kill_at_work(flights: Flights, watch: OpenedFiles, run: Run, delay_s: float, number: int) -> None:
    """Kill the run so long after its first photo, or after it began to list."""
    opened, runs, reading = len(watch.log), flights.runs_begun(), number % 3 > 0
    run.go()
    until(lambda: len(watch.log) > opened if reading else flights.runs_begun() > runs, "the run at work", 60)
    time.sleep(delay_s)
    run.kill(signal.SIGKILL, group=number % 4 == 0)


def states_in_prefect(scene: Scene) -> Counter[str | None]:
    ids = [run_id for (run_id,) in scene.database.rows("SELECT run_id FROM landrecords_runs")]
    with get_client(sync_client=True) as client:
        return Counter(client.read_flow_run(UUID(run_id)).state_name for run_id in ids)


@pytest.mark.alone
def test_a_sigterm_ends_the_run_within_three_seconds(
    flights: Flights, photos: dict[Path, Shot], watch: OpenedFiles
) -> None:
    run, scene = flights.start(), flights.scene
    until(lambda: len(watch.log) >= 40, "the run at work", 60)
    run.kill(signal.SIGTERM)
    began = time.monotonic()
    code = run.wait(timeout_s=30)
    took_s = time.monotonic() - began
    print(f"ended after {took_s:.2f} s with {code}")
    statuses = Counter(str(row["status"]) for row in photo_rows(scene.database).values())
    assert (code, statuses["in_progress"]) == (143, 0), run.said()
    assert took_s < 3.0
    assert "Traceback" not in run.said()
    assert statuses["pending"] > 0 < statuses["completed"]
    last = flights.start()
    assert last.wait() == 0, last.said()
    assert photo_disagreements(photo_rows(scene.database), photos) == []
    window = 2 * 1 * 8  # of each folder that was at work: twice what the connection has in flight
    assert watch.counts().total() <= len(photos) + len(FOLDERS) * window, "only what was in flight is read again"
    scene.nobody_left()


def test_a_site_that_was_read_but_not_drawn_is_drawn_by_the_next_run(
    world: World, server: Sshd, photos: dict[Path, Shot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was killed after the last photo, when older products of the site were there."""
    fly(server, limit=10)
    assert len(features(world.store, SITE)) == 10
    with monkeypatch.context() as patch:
        patch.setattr("flows.photos.products", lambda *_: iter(()))
        fly(server)
    assert len(features(world.store, SITE)) == 10
    assert sum(fly(server).counts.values()) == 0
    assert len(features(world.store, SITE)) == len(photos)
