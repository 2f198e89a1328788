"""The Postgres door: a bounded pool, migrations, which database. Database time is the only time.

psycopg2's own pool raises when it is exhausted and never looks whether a connection still lives; here a
semaphore makes borrowers wait, and a connection that rested is pinged before it is lent.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras

from tasks.errors import ConfigurationError, IllegalMove, OutsideUnreachable
from tasks.postgres_embedded import embedded_url
from tasks.settings import Settings

PING_AFTER_REST_S = 1.0

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
