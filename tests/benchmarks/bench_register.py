"""Rows a second that a register's answers become, with their checkpoints, on an embedded Postgres of its own.

Answers are made page by page, beside the clock. Timed are claiming a page, reading its answers (JSON to rows), and
loading them (COPY, upserts, changes, checkpoints, commit); `loading` is all of it but reading. Then the same again
with nothing changed, and with what one version of the sample register changes. Beside the seconds stand those of the
processor, which a busy machine does not change: a row costs so much of it here, and so much in Postgres.

    python tests/benchmarks/bench_register.py --properties 228594 --threads 2 --rounds 1
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks import services
from tasks.checkpoints import Queue
from tasks.postgres import Database, migrate
from tasks.postgres_embedded import embedded_url
from tasks.records import Status
from tasks.register_changes import change_report, sight
from tasks.register_loading import COLUMNS, Fetched, Loaded, Loader
from tasks.register_profile import load_register
from tasks.register_rows import Record, RegisterReader
from tasks.sample.register_land import Land
from tasks.sample.register_office import RegisterOffice
from tasks.tally import size
from tasks.workloads import PROPERTIES

PROFILE = load_register("boligsiden")


class TimedReader(RegisterReader):
    """Notes how long reading takes, over all threads."""

    seconds = 0.0
    cpu_s = 0.0

    def read(self, asked: str, body: bytes) -> Record:
        """As it is read in earnest."""
        began, began_cpu = time.perf_counter(), time.thread_time()
        try:
            return super().read(asked, body)
        finally:
            self.seconds += time.perf_counter() - began  # threads that meet here lose a microsecond
            self.cpu_s += time.thread_time() - began_cpu


def main() -> None:
    """Load, load again, load what changed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--properties", type=int, default=14_368)
    arguments.add_argument("--page", type=int, default=500)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=3, help="1: only load")
    given = arguments.parse_args()
    home = Path(tempfile.mkdtemp(prefix="landrecords-bench-"))
    try:
        measure(embedded_url(home), given.properties, given.page, given.threads, given.rounds)
    finally:
        services.let_go(home / "postgres")
        services.wait_until_gone(home / "postgres")
        shutil.rmtree(home, ignore_errors=True)


HEAD = (
    "",
    "rows",
    "rows/s",
    "properties/s",
    "seconds",
    "reading",
    "loading",
    "Python cpu",
    "Postgres cpu",
    "loaded/cpu s",
)


def measure(url: str, properties: int, page: int, threads: int, rounds: int) -> None:
    """One line a round."""
    database = Database(url, size=threads + 2)
    migrate(database)
    land = Land(properties)
    ids = land.ids(0)
    began = time.perf_counter()
    for start in range(0, len(ids), 5000):
        some = ids[start : start + 5000]
        sight(database, "bench", some, source=PROFILE.source, municipality="all", address_type="villa")
    print(f"{len(ids):,} properties found in {time.perf_counter() - began:.1f} s; {threads} threads, pages of {page:,}")
    print("".join(f"{name:>14}" for name in HEAD))
    for name, version in (("new", 0), ("unchanged", 0), ("changed", 1))[:rounds]:
        loaded, spent = load(database, land, name, version, page, threads)
        rows, done = sum(loaded.written.values()), loaded.new + loaded.changed + loaded.unchanged
        loading = spent.seconds - spent.reading / threads
        figures = (rows, rows / spent.seconds, done / spent.seconds)
        print(f"{name:>14}" + "".join(f"{figure:>14,.0f}" for figure in figures), end="")
        seconds = (spent.seconds, spent.reading, loading, spent.python_cpu, spent.postgres_cpu)
        print("".join(f"{figure:>14.1f}" for figure in seconds), end="")
        print(f"{rows / (spent.python_cpu - spent.reading_cpu + spent.postgres_cpu):>14,.0f}")
        if name == "new":
            print(", ".join(f"{table} {number:,}" for table, number in loaded.written.items() if number))
        Queue(database, PROPERTIES, run_id="again").retry(statuses=[Status.COMPLETED])
    print(change_report(database, "changed"))
    stored = int(database.rows("SELECT pg_database_size(current_database())")[0][0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"database {size(stored)}, peak memory of this process {size(peak)}")
    database.close()


@dataclass
class Spent:
    """Seconds: of the slowest thread, reading (of all threads), and of the processor."""

    seconds: float
    reading: float
    reading_cpu: float
    python_cpu: float
    postgres_cpu: float


def load(database: Database, land: Land, run_id: str, version: int, page: int, threads: int) -> tuple[Loaded, Spent]:
    """What was loaded, and what it took without making answers."""
    loader, queue, total = Loader(PROFILE), Queue(database, PROPERTIES, run_id=run_id), Loaded()
    loader._reader = reader = TimedReader(PROFILE)
    spent, cpu = [0.0] * threads, [0.0] * threads
    before = postgres_cpu_s(database)

    def work(number: int) -> None:
        while True:
            began, began_cpu = time.perf_counter(), time.thread_time()
            with queue.claim(page, columns=COLUMNS) as claimed:
                spent[number] += time.perf_counter() - began
                cpu[number] += time.thread_time() - began_cpu
                if not claimed.rows:
                    return
                fetched = list(answers(land, [row["id"] for row in claimed.rows], version))
                began, began_cpu = time.perf_counter(), time.thread_time()
                total.add(loader.load(claimed, fetched))
            spent[number] += time.perf_counter() - began
            cpu[number] += time.thread_time() - began_cpu

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    postgres = postgres_cpu_s(database) - before
    return total, Spent(max(spent), reader.seconds, reader.cpu_s, sum(cpu), postgres)


def postgres_cpu_s(database: Database) -> float:
    """Processor seconds of the backends of this database so far."""
    pids = database.rows("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for (pid,) in pids)


def answers(land: Land, ids: list[str], version: int) -> Iterator[Fetched]:
    """What the sample register answers; for what has vanished, that nothing changed."""
    office = RegisterOffice(land)
    for item in ids:
        number = land.find(item) or 0
        yield Fetched(item, office.body(number, version) if land.exists(number, version) else None)


if __name__ == "__main__":
    main()
