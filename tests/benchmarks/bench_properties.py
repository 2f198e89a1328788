"""A municipality over the cap, through the whole flow: time, requests, rows a table; then again, and with 1 % changed.

The sample register runs as a process of its own and answers after 10 ms. Beside the flow, in the same run and on a
part of the homes, a plain script as one would write it first: requests sessions in threads, each home written by one
INSERT a row when it comes. Both use the same embedded Postgres and the same profile to read the answers.

    python tests/benchmarks/bench_properties.py --villas 14368 --latency-ms 10
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

HOME = Path(tempfile.mkdtemp(prefix="landrecords-bench-"))
os.environ.update(LANDRECORDS_HOME=str(HOME), PREFECT_API_URL="", PREFECT_LOGGING_LEVEL="ERROR", DO_NOT_TRACK="1")
os.environ.update(PYTHONPATH=str(ROOT), LANDRECORDS_STORE_URL=(HOME / "store").as_uri())
os.chdir(HOME)

import psycopg2
import requests

from flows.local import prefect_api
from flows.properties import properties
from tasks import services
from tasks.postgres import Database, open_database
from tasks.records import RunReport
from tasks.register_profile import load_register
from tasks.register_requests import detail_url, read_hits, search_url
from tasks.register_rows import RegisterReader
from tasks.register_tables import TABLES
from tasks.sample.register_land import Land
from tasks.settings import load_settings

TOWN = "København"
WARM_S = 20
"""A Prefect server that was just started has still to register its blocks and services."""


def main() -> None:
    """Load, load again, load what changed; then the plain script."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--villas", type=int, default=14_368)
    arguments.add_argument("--latency-ms", type=float, default=10.0)
    arguments.add_argument("--workers", type=int, default=12)
    arguments.add_argument("--plain", type=int, default=600, help="homes the plain script fetches")
    given = arguments.parse_args()
    try:
        with prefect_api(load_settings()), Server(given.villas, given.latency_ms) as server:
            database = open_database(load_settings())
            time.sleep(WARM_S)
            measure(server, database, given)
            database.close()
    finally:
        for service in ("prefect", "postgres"):
            services.let_go(HOME / service)
            services.wait_until_gone(HOME / service)
        shutil.rmtree(HOME, ignore_errors=True)


def measure(server: Server, database: Database, given: argparse.Namespace) -> None:
    """One line a run."""
    land = Land({TOWN: given.villas})
    print(f"{given.villas:,} homes, {given.latency_ms:.0f} ms, {given.workers} requests in flight")
    print(f"{'':28}{'seconds':>9}{'searches':>10}{'details':>9}{'homes/s':>9}")
    first = told("new", run(server, given.workers))
    present = {item for (item,) in database.rows("SELECT id FROM properties WHERE status = 'completed'")}
    assert present == set(land.ids(0)), "every home of the server, each once"
    print("rows: " + ", ".join(f"{name} {n:,}" for name, n in rows(database).items()))
    again = told("again, nothing new", run(server, given.workers))
    assert again.facts["requests"]["detail"] == 0
    server.stop()
    with Server(given.villas, given.latency_ms, port=server.port, version=1) as changed_server:
        changed = told("1 % changed", run(changed_server, given.workers, refresh="stale", stale_after_days=0))
        new, gone = set(land.ids(1)) - set(land.ids(0)), set(land.ids(0)) - set(land.ids(1))
        truth = {"new": len(new), "changed": len(land.changed(0, 1)), "vanished": len(gone)}
        assert {kind: changed.facts["changes"][kind] for kind in truth} == truth, changed.facts["changes"]
        print(f"  {truth}, as the register's own list says; fields {changed.facts['fields']}")
        plain(changed_server, database, given, first)


def run(server: Server, workers: int, **parameters: Any) -> RunReport:
    return properties(server.url, [TOWN], workers=workers, requests_per_second=100_000, **parameters)


def told(name: str, report: RunReport) -> RunReport:
    asked = report.facts["requests"]
    print(f"{name:28}{report.seconds:9.1f}{asked['search']:10,}{asked['detail']:9,}{report.items_per_second:9.0f}")
    assert report.exit_code == 0, report
    return report


def rows(database: Database) -> dict[str, int]:
    return {name: int(database.rows(f"SELECT count(*) FROM {name}")[0][0]) for name in TABLES}


class Server:
    """The sample register as a process."""

    def __init__(self, villas: int, latency_ms: float, *, port: int = 0, version: int = 0) -> None:
        options = ["--villas", json.dumps({TOWN: villas}), "--latency-ms", str(latency_ms), "--version", str(version)]
        command = [sys.executable, "-m", "tasks.sample.register", *options, "--port", str(port), "--die-with-parent"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Server:
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        self.port = int(self.url.rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


# --- the plain script ---


def plain(server: Server, database: Database, given: argparse.Namespace, first: RunReport) -> None:
    """Search page after page, fetch in threads, write row by row; no checkpoint, no batch."""
    database.rows("TRUNCATE properties, " + ", ".join(name for name in TABLES if name != "properties"))
    profile = load_register("boligsiden", server.url)
    reader, here = RegisterReader(profile), threading.local()

    def load(item: str) -> None:
        session = here.__dict__.setdefault("session", requests.Session())
        answer = session.get(detail_url(profile, item), timeout=30)
        answer.raise_for_status()
        record = reader.read(item, answer.content)
        connection = here.__dict__.setdefault("connection", psycopg2.connect(database.url))
        with connection, connection.cursor() as cursor:
            for table, lines in [*record.lines.items(), *((t, of.values()) for t, of in record.shared.items())]:
                for line in lines:
                    write(cursor, table, line)

    began = time.monotonic()
    ids = list(found(profile, given.plain))
    with ThreadPoolExecutor(given.workers) as pool:
        list(pool.map(load, ids))
    rate = len(ids) / (time.monotonic() - began)
    print(f"{f'plain script, {len(ids)} homes':28}{len(ids) / rate:9.1f}{'':19}{rate:9.0f}")
    print(f"the flow took {first.items_per_second / rate:.1f} x as many homes a second")


def found(profile: Any, wanted: int) -> Iterator[str]:
    session, number = requests.Session(), 1
    while wanted > 0:
        url = search_url(profile, {"municipality": TOWN, "address_type": "villa"}, number)
        ids = read_hits(profile, session.get(url, timeout=30).content).ids[:wanted]
        yield from ids
        wanted, number = wanted - len(ids), number + 1


def write(cursor: Any, table: str, line: str) -> None:
    names = [*TABLES[table].names, *(("extra",) if table == "properties" else ())]
    values: Sequence[str | None] = [None if value == "\\N" else value for value in line.split("\t")]
    also = ", source" if table == "properties" else ""
    marks = ", ".join(["%s"] * len(names)) + (", 'plain'" if also else "")
    cursor.execute(f"INSERT INTO {table} ({', '.join(names)}{also}) VALUES ({marks}) ON CONFLICT DO NOTHING", values)


if __name__ == "__main__":
    main()
