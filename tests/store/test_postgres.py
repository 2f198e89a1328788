"""The Postgres door: a bounded pool that heals, migrations, and the embedded server through crashes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import psycopg2
import pytest

from tasks import postgres, services
from tasks.errors import ConfigurationError, IllegalMove, OutsideUnreachable
from tasks.postgres import Database, migrate, open_database, pending_migrations
from tasks.postgres_embedded import embedded_url
from tasks.settings import Settings
from tests.fakes.own_postgres import OwnPostgres

MIGRATIONS = [name for name, _ in postgres._migrations()]


# --- the pool ---


def backends(database: Database, name: str) -> int:
    return int(database.rows("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (name,))[0][0])


def test_borrowers_wait_for_a_connection(database: Database, database_url: str) -> None:
    pool, most, lock = Database(database_url, size=3, application_name="pool"), [0], threading.Lock()

    def work() -> None:
        with pool.transaction() as cursor:
            cursor.execute("SELECT pg_sleep(0.05)")
            with lock:
                most[0] = max(most[0], backends(database, "pool"))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 3
    assert backends(database, "pool") == 3, "they rest, open, for the next borrower"
    pool.close()
    assert eventually_no_backends(database, "pool")


def eventually_no_backends(database: Database, name: str) -> bool:
    deadline = time.monotonic() + 10
    while backends(database, name):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    database.rows("CREATE TABLE kept (n int)")
    with database.transaction() as cursor:
        cursor.execute("INSERT INTO kept VALUES (1)")
        cursor.execute("INSERT INTO kept VALUES (2)")
    with contextlib.suppress(KeyError), database.transaction() as cursor:
        cursor.execute("INSERT INTO kept VALUES (3)")
        raise KeyError
    assert database.rows("SELECT n FROM kept ORDER BY n") == [(1,), (2,)]


def test_rows_are_committed_and_leave_the_connection_as_it_was(database_url: str) -> None:
    one, other = Database(database_url, size=1), Database(database_url, size=1)
    one.rows("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    assert other.rows("SELECT n FROM kept") == [(1,)]
    with pytest.raises(psycopg2.DataError):
        one.rows("INSERT INTO kept VALUES (2); INSERT INTO kept VALUES (1 / 0)")
    assert one.rows("SELECT n FROM kept") == [(1,)], "statements together are one transaction"
    with contextlib.suppress(KeyError), one.transaction() as cursor:
        cursor.execute("INSERT INTO kept VALUES (9)")
        raise KeyError
    assert other.rows("SELECT n FROM kept") == [(1,)]
    one.close()
    other.close()


def end_backends(database: Database, name: str) -> None:
    database.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", (name,))
    assert eventually_no_backends(database, name)


def test_a_connection_that_died_while_it_rested_is_replaced(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = Database(database_url, size=2, application_name="mortal")
    pool.rows("SELECT 1")
    end_backends(database, "mortal")
    monkeypatch.setattr(postgres, "PING_AFTER_REST_S", 0.0)
    assert pool.rows("SELECT 1") == [(1,)]
    pool.close()


def test_one_that_dies_in_use_is_an_unreachable_database_once(database: Database, database_url: str) -> None:
    pool = Database(database_url, size=1, application_name="mortal")

    def lose_it_midway() -> None:
        with pool.transaction() as cursor:
            cursor.execute("SELECT 1")
            end_backends(database, "mortal")
            cursor.execute("SELECT 1")

    with pytest.raises(OutsideUnreachable, match="does not answer"):
        lose_it_midway()
    assert pool.rows("SELECT 1") == [(1,)]
    pool.close()


def test_a_named_cursor_streams(database: Database) -> None:
    with database.transaction(named="many") as cursor:
        cursor.itersize = 100
        cursor.execute("SELECT n, pg_sleep(0.01) FROM generate_series(1, 100000) AS n")
        assert next(iter(cursor))[0] == 1, "the first rows come before the last are made"


def test_times_are_utc(database: Database) -> None:
    assert database.rows("SHOW timezone") == [("UTC",)]


# --- errors become ours ---


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(OutsideUnreachable) as caught:
        Database("postgresql://plant:hunter2@127.0.0.1:9/records").rows("SELECT 1")
    assert "LANDRECORDS_DATABASE_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_database_that_is_not_there_is_named(database_url: str) -> None:
    with pytest.raises(OutsideUnreachable, match='"nowhere" does not exist'):
        Database(re.sub(r"/test_\d+", "/nowhere", database_url)).rows("SELECT 1")


@pytest.mark.parametrize("url", ["nonsense", "postgresql://host/db?no_such_option=1", "mysql://host/db"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match="use postgresql://"):
        Database(url).rows("SELECT 1")


@pytest.mark.parametrize("statement", ["SELECT * FROM no_such_table", "SELECT no_such_column FROM host_clocks"])
def test_a_schema_that_is_too_old_names_the_command(database: Database, statement: str) -> None:
    with pytest.raises(ConfigurationError, match="landrecords db upgrade"):
        database.rows(statement)


def test_a_refused_move_is_said_with_its_row(database: Database) -> None:
    database.rows("CREATE TABLE things (id bigint PRIMARY KEY); SELECT landrecords_add_step('things', '', 'id', '')")
    database.rows("INSERT INTO things VALUES (7)")
    with pytest.raises(IllegalMove, match=r"things\.status for id 7: pending -> completed"):
        database.rows("UPDATE things SET status = 'completed'")


# --- migrations ---


@pytest.fixture
def empty(database: Database) -> Database:
    """A database without migrations."""
    with database.transaction() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return database


def test_migrations_are_applied_once_by_whoever_comes_first(empty: Database, database_url: str) -> None:
    assert pending_migrations(empty) == MIGRATIONS
    applied: list[str] = []

    def upgrade() -> None:
        own = Database(database_url, size=1)
        applied.extend(migrate(own))
        own.close()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == MIGRATIONS
    assert migrate(empty) == pending_migrations(empty) == []


def test_a_migration_that_fails_leaves_nothing_of_itself(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    half = [("001_good", "CREATE TABLE good ()"), ("002_bad", "CREATE TABLE bad (); SELECT 1 / 0")]
    monkeypatch.setattr(postgres, "_migrations", lambda: half)
    with pytest.raises(psycopg2.DataError):
        migrate(empty)
    assert empty.rows("SELECT to_regclass('good') IS NOT NULL, to_regclass('bad') IS NOT NULL") == [(True, False)]
    assert pending_migrations(empty) == ["002_bad"]


# --- the embedded server ---


def test_open_database_starts_and_migrates_it_in_a_home_with_an_odd_name(tmp_path: Path) -> None:
    home = tmp_path / "Plat & Deed 100%?"
    database = open_database(Settings(home=home))
    try:
        assert pending_migrations(database) == []
        assert database.rows("SHOW server_encoding") == [("UTF8",)]
        database.close()
    finally:
        services.let_go(home / "postgres")
        assert services.wait_until_gone(home / "postgres")


def test_a_named_database_starts_nothing(tmp_path: Path, database_url: str) -> None:
    database = open_database(Settings(home=tmp_path / "home", database_url=database_url))  # type: ignore[arg-type]
    assert database.rows("SELECT 1") == [(1,)]
    database.close()
    assert not (tmp_path / "home").exists()


def test_the_only_way_in_is_a_socket_of_this_user(own_postgres: OwnPostgres) -> None:
    server = psutil.Process(own_postgres.pid())
    assert not [c for c in server.net_connections(kind="inet") if c.status == "LISTEN"]
    (path,) = [c.laddr for c in server.net_connections(kind="unix") if str(c.laddr).endswith(".s.PGSQL.5432")]
    socket_file = Path(str(path)).stat()
    assert stat.S_IMODE(socket_file.st_mode) == 0o700
    assert socket_file.st_uid == server.uids().real
    assert server.uids().real != 0, "Postgres refuses root, also where we are root"


def test_a_long_home_has_its_socket_elsewhere(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 30)
    try:
        connection = postgres.connect(embedded_url(home))
        connection.close()
    finally:
        services.let_go(home / "postgres")
        assert services.wait_until_gone(home / "postgres")


def test_folders_above_the_home_are_not_laid_open(tmp_path: Path) -> None:
    """Root's Postgres runs as another user, who has to pass them; nobody has to read them."""
    above = tmp_path / "above"
    above.mkdir(mode=0o700)
    home = above / "home"
    try:
        postgres.connect(embedded_url(home)).close()
        assert stat.S_IMODE(above.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
    finally:
        services.let_go(home / "postgres")
        assert services.wait_until_gone(home / "postgres")


@pytest.mark.parametrize("killed", ["program", "supervisor"])
def test_what_was_committed_survives_a_crash(own_postgres: OwnPostgres, killed: str) -> None:
    database = Database(own_postgres.url)
    database.rows("CREATE TABLE kept AS SELECT 1 AS n")
    os.kill(own_postgres.pid(killed), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while services.running(own_postgres.folder) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    own_postgres.start()
    with contextlib.suppress(OutsideUnreachable):  # the connection that was in the pool is found dead once
        database.rows("SELECT 1")
    assert database.rows("SELECT n FROM kept") == [(1,)]
    database.close()


def test_a_first_start_that_was_killed_does_not_spoil_the_next(tmp_path: Path) -> None:
    """`initdb` writes PG_VERSION long before it is done: a kill meanwhile must not look like a finished cluster."""
    home = tmp_path / "home"
    start = "import sys; from pathlib import Path; from tasks.postgres_embedded import embedded_url\n"
    command = [sys.executable, "-c", start + "embedded_url(Path(sys.argv[1]))", str(home)]
    try:
        for after_s in (0.1, 0.3, 0.6):
            with subprocess.Popen(command, start_new_session=True) as process:
                wait_for_initdb(home)
                time.sleep(after_s)
                os.killpg(process.pid, signal.SIGKILL)
        connection = postgres.connect(embedded_url(home))
        connection.close()
        assert not list((home / "postgres").glob("data.new-*"))
    finally:
        services.let_go(home / "postgres")
        assert services.wait_until_gone(home / "postgres")


def wait_for_initdb(home: Path) -> None:
    deadline = time.monotonic() + 20
    while not list((home / "postgres").glob("data*/PG_VERSION")) and time.monotonic() < deadline:
        time.sleep(0.005)
