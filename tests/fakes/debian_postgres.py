"""PostgreSQL with PostGIS from Debian's packages: a cluster of the test's own, on a socket in its folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg2

START_TIMEOUT_S = 60
OPTIONS = {"listen_addresses": "", "fsync": "off", "full_page_writes": "off", "timezone": "UTC", "jit": "off"}


def postgis_programs() -> Path | None:
    """The folder of the newest installed server that has PostGIS, or None."""
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: float(p.parts[-3]))
    with_postgis = (
        server.parent
        for server in reversed(servers)
        if (Path("/usr/share/postgresql") / server.parts[-3] / "extension" / "postgis.control").exists()
    )
    return next(with_postgis, None)


class DebianPostgres:
    """A cluster without TCP that ends with `close`. Started as root it runs as the user postgres: root it refuses."""

    def __init__(self, programs: Path, options: dict[str, str] | None = None, folder: str = "/tmp") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lr-pg-", dir=folder))  # a socket's path is 107 bytes at most
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        data = str(self.folder / "data")
        initdb = [str(programs / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run([*initdb, "--no-sync"], check=True, capture_output=True, user=self._user, cwd=self.folder)
        settings = [f"-c{name}={value}" for name, value in {**OPTIONS, **(options or {})}.items()]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(programs / "postgres"), "-D", data, "-k", str(self.folder), *settings],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.folder,
            )
        self._wait()

    def url(self, database: str = "postgres") -> str:
        """Address of a database of that name."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.folder), safe='/')}"

    def run(self, statement: str, database: str = "postgres") -> None:
        """One statement, in no transaction."""
        connection = psycopg2.connect(self.url(database))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def close(self) -> None:
        """End it and remove its folder."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.run("SELECT 1")
            except psycopg2.OperationalError:
                time.sleep(0.05)
            else:
                return
        log = (self.folder / "log").read_text()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        raise RuntimeError(f"the cluster did not start: {log[-2000:]}")
