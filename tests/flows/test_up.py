"""`landrecords up`: one server for the whole module, its deployment run by hand and on a schedule, then ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pyogrio
import pytest
import requests
from pmtiles.reader import MmapSource, Reader

from flows.serving import serve_all
from tasks.errors import ConfigurationError
from tasks.postgres import Database
from tasks.sample.plots import WRONG_EVERY

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
DOCUMENTS = 12


class Up:
    """`landrecords up` in a folder like a fresh clone, without a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.portal_port, self.tiles_port, self.sites_port = (free_port() for _ in range(4))
        self.register_port = free_port()
        toml = (ROOT / "prefect.toml").read_text()
        assert ":4200/" in toml
        (folder / "prefect.toml").write_text(toml.replace(":4200/", f":{self.port}/"))
        self.environment = {**os.environ, "LANDRECORDS_UP_OF_TEST": str(folder), "TMPDIR": str(folder)}
        del self.environment["LANDRECORDS_HOME"]  # ./.landrecords, as in a clone
        self.log = folder / "up.log"

    def start(self) -> None:
        command = [BIN / "landrecords", "up", "--portal-port", str(self.portal_port), "--documents", str(DOCUMENTS)]
        command += ["--tiles-port", str(self.tiles_port), "--sites-port", str(self.sites_port)]
        command += ["--register-port", str(self.register_port)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        until(lambda: "end it" in self.said() or self.process.poll() is not None, "`up` to be ready", 150)
        assert self.process.poll() is None, self.said()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        until(lambda: not self.processes(), "every process to end", 30)
        return code

    def said(self) -> str:
        return self.log.read_text()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in another shell of the same folder."""
        return subprocess.run(
            [BIN / command[0], *command[1:]],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def status(self) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = json.loads(self.run("landrecords", "status", "documents", "--json").stdout)
        return counts

    def api(self, method: str, path: str, **content: Any) -> Any:
        answer = requests.request(method, f"http://127.0.0.1:{self.port}/api/{path}", timeout=30, **content)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", "deployments/name/documents/sample")
        return found

    def schedules(self) -> set[tuple[str, bool]]:
        """Each schedule and whether it is on."""
        return {(json.dumps(s["schedule"], sort_keys=True), s["active"]) for s in self.deployment()["schedules"]}

    def flow_runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("POST", "flow_runs/filter", json={"sort": "EXPECTED_START_TIME_DESC"})
        return found

    def processes(self) -> list[psutil.Process]:
        """Whatever it started, and what that started."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("LANDRECORDS_UP_OF_TEST") == str(self.folder)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, prefect_home: Callable[[Path], None]) -> Iterator[Up]:
    served = Up(tmp_path_factory.mktemp("clone"))
    prefect_home(served.folder / ".landrecords")
    served.start()
    yield served
    if served.process.poll() is None:
        served.stop()
    shutil.rmtree(served.folder)


def test_it_says_where_everything_is(up: Up) -> None:
    said = up.said()
    assert re.search(rf"^Prefect UI +http://127\.0\.0\.1:{up.port}$", said, re.MULTILINE)
    assert re.search(rf"^sample portal +http://127\.0\.0\.1:{up.portal_port}$", said, re.MULTILINE)
    assert re.search(rf"^store +file://{up.folder}/\.landrecords/store$", said, re.MULTILINE)
    assert "export PREFECT_API_URL" not in said  # prefect.toml says it


def test_the_ui_asks_the_server_it_came_from(up: Up) -> None:
    """On any other port than 4200 Prefect's default sends it to a server that is not there."""
    page = requests.get(f"http://127.0.0.1:{up.port}/", timeout=30)
    assert "<title>Prefect" in page.text
    assert requests.get(f"http://127.0.0.1:{up.port}/ui-settings", timeout=30).json()["api_url"] == "/api"


def test_the_form_explains_every_parameter(up: Up) -> None:
    parameters = up.deployment()["parameter_openapi_schema"]["properties"]
    assert {name for name, field in parameters.items() if not field.get("description")} == set()
    assert parameters["portal_url"]["title"] == "Portal"
    assert parameters["requests_per_second"]["title"] == "Requests per second"
    assert (parameters["workers"]["minimum"], parameters["workers"]["maximum"]) == (1, 64)


def test_a_run_started_in_another_shell(up: Up) -> None:
    done = up.run("prefect", "deployment", "run", "documents/sample", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr + up.said()
    assert "Flow run finished successfully in 'Completed'" in done.stdout
    counts = up.status()
    assert counts["upload"]["completed"] > 0
    assert counts["download"]["pending"] == counts["download"]["in_progress"] == 0
    assert len(list(up.folder.glob(".landrecords/store/documents/**/*.pdf"))) == counts["upload"]["completed"]


def test_a_run_of_tiles_makes_their_archive(up: Up) -> None:
    done = up.run("prefect", "deployment", "run", "tiles/sample", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr + up.said()
    counts = json.loads(up.run("landrecords", "status", "tiles", "--json").stdout)["status"]
    assert counts["completed"] > 1000
    assert counts["pending"] == counts["in_progress"] == 0
    with (up.folder / ".landrecords/store/archives/sample-parcels.pmtiles").open("rb") as file:
        header = Reader(MmapSource(file)).header()
    assert header["addressed_tiles_count"] == counts["completed"]


def test_a_run_of_photos_makes_a_map_for_each_site(up: Up) -> None:
    done = up.run("prefect", "deployment", "run", "photos/sample", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr + up.said()
    counts = json.loads(up.run("landrecords", "status", "photos", "--json").stdout)["status"]
    assert counts == {"pending": 0, "in_progress": 0, "completed": 285, "failed": 3, "skipped": 0}
    assert len(list(up.folder.glob(".landrecords/store/photos/*/*/map.html"))) == 3


def test_a_run_of_properties_loads_them_and_makes_a_snapshot(up: Up) -> None:
    done = up.run("prefect", "deployment", "run", "properties/sample", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr + up.said()
    counts = json.loads(up.run("landrecords", "status", "properties", "--json").stdout)["status"]
    assert counts["completed"] > 300
    assert counts["pending"] == counts["in_progress"] == 0
    assert len(list(up.folder.glob(".landrecords/store/properties/boligsiden/*/properties.parquet"))) == 1


def test_a_run_of_a_workflow_fills_a_table_and_a_file(up: Up) -> None:
    done = up.run("prefect", "deployment", "run", "geoetl/sample", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr + up.said()
    made = up.folder / ".landrecords/sample/plots-buffered.gpkg"
    wrong = 2000 // WRONG_EVERY
    assert [pyogrio.read_info(made, layer=name)["features"] for name in ("plots", "invalid")] == [2000 - wrong, wrong]
    counts = json.loads(up.run("landrecords", "status", "geoetl", "--json").stdout)
    assert sum(of["completed"] for of in counts.values()) > 0, counts


def test_what_the_run_left_in_the_ui(up: Up) -> None:
    found = up.api("POST", "artifacts/latest/filter", json={})
    kinds = {artifact["key"]: artifact["type"] for artifact in found}
    assert kinds["documents-progress"] == "progress"
    assert kinds["documents-results"] == "table"
    assert kinds["documents-report"] == "markdown"
    (progress,) = [a for a in found if a["key"] == "documents-progress"]
    assert float(progress["data"]) == 100.0


def test_a_run_on_a_schedule(up: Up) -> None:
    soon = {"interval": 3600, "anchor_date": (datetime.now(UTC) + timedelta(seconds=15)).isoformat()}
    deployment = up.deployment()["id"]
    up.api("POST", f"deployments/{deployment}/schedules", json=[{"schedule": soon, "active": True}])

    def finished() -> bool:
        return any(run["auto_scheduled"] and run["state_type"] == "COMPLETED" for run in up.flow_runs())

    until(finished, "the scheduled run to finish", 120)


def test_block_types_are_on_the_blocks_page(up: Up) -> None:
    slugs = {kind["slug"] for kind in up.api("POST", "block_types/filter", json={})}
    assert slugs >= {f"landrecords-{kind}" for kind in ("database", "store", "portal", "sftp", "register")}


def test_a_second_one_in_the_same_home_is_refused(up: Up) -> None:
    done = up.run("landrecords", "up", "--port", str(free_port()))
    assert done.returncode == 2
    assert re.fullmatch(
        r"landrecords: `landrecords up` runs already for .*; use that one, or end it first\.\n", done.stderr
    )


def test_its_end_ends_the_run_under_way_and_its_next_start_goes_on(up: Up) -> None:
    """The last of these tests: it stops and starts what they share."""
    schedules = up.schedules()
    assert {active for _, active in schedules} == {True, False}  # the test's own and the nightly one
    up.run("landrecords", "retry", "documents")
    slow = up.api("POST", f"deployments/{up.deployment()['id']}/create_flow_run", json={"parameters": wait_for_ever()})
    until(lambda: up.api("GET", f"flow_runs/{slow['id']}")["state_type"] == "RUNNING", "the run to start")
    until(lambda: any("prefect.engine" in p.cmdline() for p in up.processes()), "its process")
    assert up.stop(signal.SIGINT) == 0
    assert up.status()["download"]["in_progress"] == 0
    up.start()
    assert up.api("GET", f"flow_runs/{slow['id']}")["state_type"] in {"CANCELLED", "CRASHED"}
    assert up.schedules() == schedules
    again = up.run("prefect", "deployment", "run", "documents/sample", "--watch")
    assert "Flow run finished successfully in 'Completed'" in again.stdout, up.said()
    assert up.stop(signal.SIGTERM) == 0


def wait_for_ever() -> dict[str, Any]:
    """Parameters of a run that does not come to its end by itself: a failed look-up is due again in an hour."""
    return {"portal_url": "http://127.0.0.1:1", "backoff_s": 3600}


# --- mistakes, told before anything is started ---


@pytest.fixture
def own_home(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LANDRECORDS_HOME", str(tmp_path))
    monkeypatch.setenv("LANDRECORDS_SERVED_BY", "")
    monkeypatch.setenv("LANDRECORDS_DATABASE_URL", database_url)
    return tmp_path


def test_a_port_that_is_taken(own_home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} is taken .* choose another with --port"):
            serve_all(port, free_port(), free_port(), free_port(), free_port(), DOCUMENTS)


def test_a_portal_port_that_is_taken(own_home: Path, prefect_server: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port} cannot be listened on"):
            serve_all(None, port, free_port(), free_port(), free_port(), DOCUMENTS)


def test_where_documents_are_ones_own_their_sample_is_not_served(
    own_home: Path, prefect_server: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.rows("INSERT INTO index_documents (source, book, page, source_file) VALUES ('direct', 9, 1, 'my.csv')")
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    with (own_home / "log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "landrecords", "up", *(f"--{name}-port={free_port()}" for name in ("tiles", "sites", "register"))],
            stdout=log,
            stderr=log,
        )
    until(lambda: "end it" in (own_home / "log").read_text() or process.poll() is not None, "`up` to be ready")
    said = (own_home / "log").read_text()
    assert re.search(r"^documents +sample not served: .* documents of your own \(from my\.csv\)$", said, re.MULTILINE)
    assert "sample portal" not in said
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
