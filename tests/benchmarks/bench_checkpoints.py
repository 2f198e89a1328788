"""Rows a second claimed and completed through `Queue` and `Page`, beside raw psycopg2 in the same run.

A table of a million rows (`--rows`) is seeded by generate_series; every contender takes pages of 1,000 from rows of
its own until the time (`--seconds`) is up, so that each meets the same mixture of dead and live index entries.
Prints ratios and the peak memory of this process; asserts nothing.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks import services
from tasks.checkpoints import Queue, Scope, Step
from tasks.postgres import Database, migrate
from tasks.postgres_embedded import embedded_url
from tasks.records import Outcome, Status

PAGE = 1000
THREADS = (1, 2, 4)

TABLE = """
CREATE TABLE {name} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, priority smallint NOT NULL DEFAULT 3,
    book integer, page integer, title text, source_sha256 text, stored_bytes bigint) WITH (fillfactor = 85);
SELECT landrecords_add_step('{name}', '', 'priority, id', '');
INSERT INTO {name} (book, page, title)
SELECT 238 + n / 900, 1 + n %% 900, 'WARRANTY DEED number ' || n FROM generate_series(0, %s - 1) AS n;
ANALYZE {name};  -- without it the plain statement sorts all pending rows for every page, and is 5 times slower
"""

RAW_CLAIM = """
UPDATE raw_items SET status = 'in_progress', claimed_by = 'raw', lease_until = now() + interval '1 minute'
WHERE id IN (SELECT id FROM raw_items WHERE status = 'pending' ORDER BY priority, id LIMIT %s FOR UPDATE SKIP LOCKED)
RETURNING *
"""
RAW_COMPLETE = "UPDATE raw_items SET status = 'completed', completed_at = now(), claimed_by = NULL WHERE id = ANY(%s)"


def main() -> None:
    """Seed, measure every contender at every number of threads, print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--seconds", type=float, default=4.0)
    given = arguments.parse_args()
    home = Path(tempfile.mkdtemp(prefix="landrecords-bench-"))
    try:
        measure(embedded_url(home), given.rows, given.seconds)
    finally:
        services.let_go(home / "postgres")
        services.wait_until_gone(home / "postgres")
        shutil.rmtree(home, ignore_errors=True)


def measure(url: str, rows: int, seconds: float) -> None:
    """Print one line for each number of threads."""
    database = Database(url, size=8)
    migrate(database)
    for name in ("raw_items", "items"):
        began = time.monotonic()
        database.rows(TABLE.format(name=name), (rows,))
        print(f"seeded {rows:,} rows of {name} in {time.monotonic() - began:.1f} s")
    print(f"\n{'threads':>7} {'raw rows/s':>12} {'Queue rows/s':>13} {'Queue of raw':>13}")
    for threads in THREADS:
        raw = rate(threads, seconds, lambda stop: raw_worker(url, stop))
        ours = rate(threads, seconds, lambda stop: queue_worker(database, stop))
        print(f"{threads:>7} {raw:>12,.0f} {ours:>13,.0f} {ours / raw:>12.0%}")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak_mb:.0f} MB")
    database.close()


def rate(threads: int, seconds: float, work: Callable[[threading.Event], int]) -> float:
    """Rows a second of `threads` workers in `seconds`."""
    stop, done = threading.Event(), [0] * threads
    began = time.monotonic()

    def run(number: int) -> None:
        done[number] = work(stop)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    stop.wait(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    return sum(done) / (time.monotonic() - began)


def raw_worker(url: str, stop: threading.Event) -> int:
    """What a script would do: claim a page, complete it, commit both. No owner, no lease, no reasons."""
    connection, done = psycopg2.connect(url), 0
    while not stop.is_set():
        with connection, connection.cursor() as cursor:
            cursor.execute(RAW_CLAIM, (PAGE,))
            ids = [row[0] for row in cursor.fetchall()]
        with connection, connection.cursor() as cursor:
            cursor.execute(RAW_COMPLETE, (ids,))
        done += len(ids)
        if not ids:
            break
    connection.close()
    return done


def queue_worker(database: Database, stop: threading.Event) -> int:
    """The same through the checkpoints, with two columns of results an item as in earnest."""
    queue, done = Queue(database, Step("items", order="priority, id"), run_id="bench"), 0
    while not stop.is_set():
        with queue.claim(PAGE, Scope()) as page:
            for row in page.rows:
                values = {"source_sha256": "9f86d081884c7d65", "stored_bytes": row["page"]}
                page.settle(Outcome(row["id"], Status.COMPLETED, values=values))
        done += page.settled.get("completed", 0)
        if not page.rows:
            break
    return done


if __name__ == "__main__":
    main()
