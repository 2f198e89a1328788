"""What every test may use: one embedded Postgres a session, a fresh database a test, one Prefect server.

The session works in a temporary folder, away from the repository's prefect.toml, and nothing it starts
outlives it: every process the tests start carries the session's mark in its environment and is looked for
at the end.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
SESSION_MARK = uuid.uuid4().hex
HOME = Path(tempfile.mkdtemp(prefix="landrecords-tests-"))

# Before anything is imported that reads settings; inherited by every process the tests start.
for name in [n for n in os.environ if n.startswith(("LANDRECORDS_", "PREFECT_"))]:
    del os.environ[name]
os.environ.update(
    LANDRECORDS_HOME=str(HOME / "home"),
    LANDRECORDS_TEST_SESSION=SESSION_MARK,
    PREFECT_HOME=str(HOME / "prefect"),
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
    PYTHONPATH=os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
)
sys.path.insert(0, str(ROOT))

from tasks import services
from tasks.postgres import Database, connect, migrate
from tasks.postgres_embedded import embedded_url
from tests.fakes.own_postgres import OwnPostgres

TEMPLATE = "migrated"
_numbers = itertools.count(1)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("numprocesses", None):
        return  # pytest-xdist: the workers go there, each to its own; they begin in this folder to find the tests
    # last, since pytest-cov starts in the workers now and reads its settings in this folder
    os.chdir(HOME)  # prefect.toml of the repository names port 4200: a real server may be there


def pytest_unconfigure(config: pytest.Config) -> None:
    os.chdir("/")
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """The last to go: whatever the session started has ended by then."""
    yield
    for folder in list(services._held):
        services.let_go(folder)
        services.wait_until_gone(folder)
    for supervisor in services._supervisors:
        supervisor.wait(timeout=20)
    left = _wait_for_all_to_end(seconds=25)
    assert not left, f"still running at the end of the tests: {left}"


def _wait_for_all_to_end(seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while (left := _processes_of_the_session()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _processes_of_the_session() -> list[str]:
    """Descendants, and processes that lost their parents but carry the session's mark."""
    own, found = psutil.Process(), []
    children = {p.pid for p in own.children(recursive=True)}
    for process in psutil.process_iter():
        try:
            marked = process.environ().get("LANDRECORDS_TEST_SESSION") == SESSION_MARK
            ended = process.status() == psutil.STATUS_ZOMBIE
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if process == own or ended or not (marked or process.pid in children):
            continue
        if "multiprocessing.resource_tracker" in command or "multiprocessing.forkserver" in command:
            continue  # Python's own; they end with this process
        found.append(f"{process.pid} {command[:120]}")
    return found


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """The session's embedded server, with a migrated database to copy from."""
    url = embedded_url(HOME / "home")
    for option in ("fsync", "full_page_writes", "synchronous_commit"):  # who crashes it has one of his own
        _run(url, f"ALTER SYSTEM SET {option} = off")
    _run(url, "SELECT pg_reload_conf()")
    _run(url, f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
    template = Database(url_of(url, TEMPLATE), size=1)
    migrate(template)
    template.close()
    return url


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """Address of a migrated database of the test's own."""
    name = f"test_{next(_numbers)}"
    _run(postgres_url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield url_of(postgres_url, name)
    _run(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of the test's own."""
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[OwnPostgres]:
    """A server of the test's own, to crash and restart. Takes a few seconds: use `database` where that will do."""
    server = OwnPostgres(tmp_path / "home")
    yield server
    server.close()


def url_of(server_url: str, name: str) -> str:
    """The same server's address with another database."""
    head, _, tail = server_url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}?{tail}"


def _run(url: str, statement: str) -> None:
    connection = connect(url_of(url, "postgres"))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


PrefectHome = Callable[[Path], None]


@pytest.fixture(scope="session")
def prefect_home(pytestconfig: pytest.Config) -> PrefectHome:
    """Puts Prefect's database, migrated already, into a home: 13 s of processor for each that the tests begin with.

    One is made for all workers and later sessions, by the version of Prefect.
    """
    from importlib.metadata import version

    from flows.local import server_environment

    made = pytestconfig.cache.mkdir("prefect") / f"{version('prefect')}.db"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with tempfile.TemporaryDirectory(dir=made.parent) as folder:
                command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
                environment = {**os.environ, **server_environment(Path(folder))}
                subprocess.run(command, env=environment, check=True, capture_output=True)
                (Path(folder) / "prefect.db").rename(made)

    def put(home: Path) -> None:
        (home / "prefect").mkdir(parents=True)
        shutil.copy(made, home / "prefect" / "prefect.db")

    return put


@pytest.fixture(scope="session")
def prefect_server(prefect_home: PrefectHome) -> Iterator[str]:
    """API address of one Prefect server for the session, in force for everything that uses Prefect."""
    from prefect.logging.handlers import APILogHandler
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.local import local_server, quick_clients

    prefect_home(HOME / "prefect-server")
    url = local_server(HOME / "prefect-server", ports=(0,))
    # Prefect's heartbeat thread sleeps for whole seconds, and each run waits for it at its end
    unbeaten = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
    with temporary_settings({PREFECT_API_URL: url, **quick_clients(url, HOME / "prefect-server"), **unbeaten}):
        yield url
        APILogHandler().flush()  # or Prefect tries for a minute to hand its last lines to a server that is gone
    services.let_go(HOME / "prefect-server" / "prefect")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real input beside the repository; tests that need it skip where it is not."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    return folder
