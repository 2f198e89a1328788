"""`landrecords demo` in a fresh home: interrupted, run to its end, run again."""

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
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from flows.demo import PORTAL_PORT, refuse_own_documents
from flows.samples import INDEX_NAME
from tasks.errors import ConfigurationError
from tasks.postgres import Database

LANDRECORDS = Path(sys.executable).with_name("landrecords")
ROOT = Path(__file__).parents[2]
DOCUMENTS = 40
COMMAND = [LANDRECORDS, "demo", "--documents", str(DOCUMENTS), "--requests-per-second", "200"]


@dataclass(frozen=True)
class Home:
    """A folder like a fresh clone: the repository's prefect.toml and nothing else."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LANDRECORDS_HOME": str(self.folder / ".landrecords")}

    def start(self, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            COMMAND,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def demo(self, **environment: str) -> str:
        process = self.start(**environment)
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert "Traceback" not in err
        return out

    def status(self) -> dict[str, dict[str, int]]:
        done = subprocess.run(
            [LANDRECORDS, "status", "documents", "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        counts: dict[str, dict[str, int]] = json.loads(done.stdout)
        return counts

    def processes(self) -> list[str]:
        """Whatever runs for this home."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("LANDRECORDS_HOME") == self.environment["LANDRECORDS_HOME"]
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:120])
            except psutil.Error:
                continue
        return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("clone")
    shutil.copy(ROOT / "prefect.toml", folder)
    return Home(folder)


@pytest.fixture(scope="module", autouse=True)
def taken_port() -> Iterator[None]:
    """Somebody else is on the portal's usual port all the while."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind(("127.0.0.1", PORTAL_PORT))
            other.listen()
        except OSError:
            pass  # somebody is, already
        yield


def until(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def line(out: str, name: str) -> str:
    """The value beside a name in the closing table."""
    found = re.search(rf"^│ +{re.escape(name)} +│ +(.*?) +│$", out, re.MULTILINE)
    assert found, out
    return found[1]


def test_ctrl_c_leaves_nothing_behind(home: Home) -> None:
    """Everything is started anew here: Postgres, a Prefect server (whatever runs on 4200), the portal."""
    process = home.start(PREFECT_API_URL="")
    log = home.folder / ".landrecords/sample/requests.jsonl"
    until(lambda: log.exists() and len(log.read_text().splitlines()) > 10, "requests to the portal", 150)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.endswith("Interrupted. The next `landrecords demo` goes on where this one stopped.\n")
    assert "Traceback" not in err
    until(lambda: not home.processes(), "every process to end", 30)
    assert sum(n for status, n in home.status()["download"].items() if status != "in_progress") == DOCUMENTS


def test_the_closing_table_agrees_with_the_rows(home: Home, prefect_server: str) -> None:
    before = home.status()
    out = home.demo(PREFECT_API_URL=prefect_server)
    counts = home.status()
    assert counts["download"]["pending"] == 0
    assert counts["upload"]["completed"] > before["upload"]["completed"]
    assert int(line(out, "completed")) == counts["upload"]["completed"] - before["upload"]["completed"]
    assert int(line(out, "requests to the portal")) > 0
    assert re.fullmatch(r"[\d.]+ [kM]B, \d+%", line(out, "saved"))
    assert re.fullmatch(r"[\d.]+ documents/s", line(out, "rate"))
    store = re.search(r"^documents +file://(.*)$", out, re.MULTILINE)
    assert store
    assert len(list(Path(store[1]).rglob("documents/**/*.pdf"))) >= counts["upload"]["completed"]
    assert re.search(rf"^UI +{prefect_server.removesuffix('/api')}/runs/flow-run/[0-9a-f-]{{36}}$", out, re.MULTILINE)


def test_a_second_demo_fetches_nothing_again(home: Home, prefect_server: str) -> None:
    before = home.status()
    out = home.demo(PREFECT_API_URL=prefect_server)
    assert (line(out, "completed"), line(out, "requests to the portal")) == ("0", "0")
    assert "Nothing was fetched again: earlier runs settled every document" in out
    assert home.status() == before
    until(lambda: not home.processes(), "every process to end", 30)


def test_the_sample_keeps_away_from_documents_of_ones_own(database: Database) -> None:
    insert = "INSERT INTO index_documents (source, book, page, source_file) VALUES ('duprocess', 300, %s, %s)"
    refuse_own_documents(database)
    database.rows(insert, (1, INDEX_NAME))
    refuse_own_documents(database)
    database.rows(insert, (2, "county-2024.csv"))
    with pytest.raises(ConfigurationError, match=r"from county-2024\.csv.* LANDRECORDS_HOME="):
        refuse_own_documents(database)
