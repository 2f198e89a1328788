"""A scene for faults: runs as processes of their own, a portal that keeps a log, and what must be left at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.postgres import Database
from tasks.records import RunReport
from tasks.sample.corpus import GeneratedCorpus
from tasks.sample.portal import SamplePortal
from tests.flows.evidence import disagreements

SCRIPT = Path(__file__).with_name("one_run.py")
SEED = 7


def until(condition: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """The first true answer of `condition`, asked again and again; fails the test after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.02)
    return answer


def kills(usual: int, most: int) -> int:
    """How many kills a test survives: some in every run of the tests, all with KILLS=most in the environment."""
    return most if os.environ.get("KILLS") == "most" else usual


@dataclass
class Run:
    """One process that runs the flow. `mark` is in its environment and in that of what it starts."""

    process: subprocess.Popen[bytes]
    mark: str
    log: Path
    output: Path

    def go(self) -> None:
        """Begin, after it was launched to wait."""
        assert self.process.stdin is not None
        with self.process.stdin as pipe:
            pipe.write(b"go\n")

    def wait(self, timeout_s: float = 90.0) -> int:
        """Its exit code."""
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill(signal.SIGABRT)
            raise AssertionError(f"the run did not end within {timeout_s:.0f} s:\n{self.said()}") from None

    def kill(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the process, or to its whole group, and reap it when that ends it for sure."""
        assert self.process.poll() is None, f"it had ended with {self.process.returncode}:\n{self.said()}"
        (os.killpg if group else os.kill)(self.process.pid, number)
        if number in (signal.SIGKILL, signal.SIGABRT):
            self.process.wait(timeout=10)

    def said(self) -> str:
        """The end of what it wrote to stderr."""
        return self.log.read_text(errors="replace")[-6000:]

    def report(self) -> RunReport:
        """What it printed at its end."""
        return RunReport.model_validate_json(self.output.read_text().splitlines()[-1])

    def children(self, home: Path) -> list[str]:
        """Processes it left: they carry its mark, or work in its home (Ghostscript's environment is bare)."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid == self.process.pid or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                marked = process.environ().get("LANDRECORDS_RUN_MARK") == self.mark
                command = " ".join(process.cmdline())
                if marked or str(home) in command or process.cwd().startswith(str(home)):
                    found.append(f"{process.pid} {command[:160]}")
            except psutil.Error:
                continue
        return found


@dataclass
class Scene:
    """Home, database and environment shared by the runs of one test."""

    home: Path
    database: Database
    environment: dict[str, str]
    runs: list[Run] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def spool(self) -> Path:
        return self.home / "spool"

    def start(self, portal_url: str, *, wait: bool = False, **parameters: Any) -> Run:
        """A documents run."""
        return self.launch("documents", {"portal_url": portal_url, "backoff_s": 0.3, **parameters}, wait=wait)

    def launch(self, flow: str, given: Mapping[str, Any], *, wait: bool = False) -> Run:
        """A run as a process of its own, in a process group of its own. With `wait` it begins when told to `go`."""
        mark, number = uuid.uuid4().hex, len(self.runs) + 1
        log, output = self.home / f"run-{number}.log", self.home / f"run-{number}.out"
        command = [sys.executable, str(SCRIPT), flow, json.dumps(given, default=str), *(["--wait"] if wait else [])]
        with log.open("wb") as errors, output.open("wb") as out:
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.environment, "LANDRECORDS_RUN_MARK": mark},
                cwd=self.home,
                stdin=subprocess.PIPE if wait else subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,
            )
        self.runs.append(Run(process, mark, log, output))
        return self.runs[-1]

    def index_of(self, portal: SamplePortal) -> Path:
        """The index of the portal's documents, as a file."""
        portal.write_index(self.home / "index.csv")
        return self.home / "index.csv"

    def finish(self, portal_url: str, *, timeout_s: float = 90.0, **parameters: Any) -> RunReport:
        """A run to its end; documents that fail by their nature are no failure of it."""
        run = self.start(portal_url, **parameters)
        code = run.wait(timeout_s)
        assert code in (0, 1), f"exit code {code}:\n{run.said()}"
        return run.report()

    def count(self, condition: str) -> int:
        """Rows of `index_documents` for which it holds."""
        return int(self.database.rows(f"SELECT count(*) FROM index_documents WHERE {condition}")[0][0])

    def nothing_left(self) -> None:
        """No process of any run, no connection to the database, no claimed row, no partial file; store = table."""
        self.nobody_left()
        assert disagreements(self.database, self.store, self.spool) == []

    def nobody_left(self) -> None:
        """No process of any run, and no connection to the database."""
        for run in self.runs:
            until(lambda run=run: not run.children(self.home), f"children gone: {run.children(self.home)}", 10)
        until(lambda: not self.connections(), "database connections gone", 10)

    def connections(self) -> int:
        """Connections to the test's database besides those of the test."""
        own = "application_name <> 'the-test' AND backend_type = 'client backend'"
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {own}"
        return int(self.database.rows(query)[0][0])

    def close(self) -> None:
        for run in self.runs:
            if run.process.stdin is not None:
                run.process.stdin.close()
            if run.process.poll() is None:
                run.kill(signal.SIGKILL)


@pytest.fixture
def scene(tmp_path: Path, database_url: str, prefect_server: str) -> Iterator[Scene]:
    """Runs that share the session's Postgres (a database of the test's own) and Prefect server."""
    environment = {
        "LANDRECORDS_HOME": str(tmp_path),
        "LANDRECORDS_DATABASE_URL": database_url,
        "PREFECT_API_URL": prefect_server,
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    database = Database(database_url, size=2, application_name="the-test")
    made = Scene(tmp_path, database, environment)
    yield made
    made.close()
    database.close()


@pytest.fixture
def make_portal() -> Iterator[Callable[..., SamplePortal]]:
    """`make_portal(documents, ...)`: a running portal of 20 different scans; its index lies in `portal.index`."""
    opened: list[SamplePortal] = []

    def make(documents: int, **options: Any) -> SamplePortal:
        corpus = GeneratedCorpus(documents, SEED, options.pop("oddities", {}), distinct=20)
        portal = SamplePortal(corpus, prepare=True, **options)
        portal.__enter__()
        opened.append(portal)
        return portal

    yield make
    for portal in opened:
        portal.__exit__(None, None, None)
