"""The documents flow against the slowest of its stages alone, and against the classic design, in one run.

Everything is on this machine: portal, Postgres, Prefect server and flow share its cores, so the ratio for
Ghostscript includes what the portal and the servers cost. Prints ratios, asserts nothing.

    python -m tests.benchmarks.bench_documents [dial] [gs] [classic] [million]
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
HOME = Path(tempfile.mkdtemp(prefix="landrecords-bench-"))
os.environ.update(
    LANDRECORDS_HOME=str(HOME),
    PREFECT_LOGGING_LEVEL="ERROR",
    PREFECT_API_URL="",
    PYTHONPATH=str(ROOT),
    DO_NOT_TRACK="1",
)
os.chdir(HOME)

import requests

from tasks.ghostscript import optimise
from tasks.pdf import PdfWorkers
from tasks.postgres import Database, connect, open_database
from tasks.postgres_embedded import embedded_url
from tasks.records import RunReport
from tasks.sample.corpus import GeneratedCorpus
from tasks.sample.index_rows import write_index
from tasks.sample.scans import Kind, make_scan
from tasks.settings import load_settings

WARM_S = 25
"""A Prefect server that was just started has still to register its blocks and services."""


@contextlib.contextmanager
def portal(*options: str, documents: int) -> Iterator[tuple[str, Path, Path]]:
    """Address, index and request log of a portal process whose scans are drawn already."""
    index, log = HOME / "index.csv", HOME / "requests.jsonl"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tasks.sample.portal", "--port", "0", "--documents", str(documents)]
    command += ["--index-out", str(index), "--log", str(log), "--prepare", "--die-with-parent", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())["url"], index, log
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def run(url: str, index: Path | None, rate: float, **more: object) -> RunReport:
    """The flow, on an empty table when an index is given."""
    from flows.documents import documents

    if index is not None:
        open_database(load_settings()).rows("TRUNCATE index_documents")
        shutil.rmtree(HOME / "store", ignore_errors=True)
    return documents(url, index=index, requests_per_second=rate, **more)


def bench_dial() -> None:
    """The portal's dial is the slowest: how much of it is used, ramps included? Ghostscript manages some 10 scans a
    second here, two requests each, so the dial stays below that."""
    for rate, number in ((8.0, 500), (14.0, 800)):
        with portal("--no-oddities", "--distinct", "20", "--latency-ms", "20", documents=number) as (url, index, log):
            report = run(url, index, rate, workers=16)
            asked = sum(1 for _ in log.open())
        alone_s = asked / rate
        show(f"dial {rate:.0f}/s, {number} documents", alone_s, report)


def bench_gs() -> None:
    """Ghostscript on all cores is the slowest: the same grey scans through gs alone, then through the flow."""
    folder, number = HOME / "grey", 720
    folder.mkdir()
    for n in range(number):
        (folder / f"{n:04d}.pdf").write_bytes(make_scan(n % 20, kind=Kind.GREY, pages=2).content)
    alone_s = gs_alone(sorted(folder.glob("*.pdf")))
    with portal("--folder", str(folder), documents=number) as (url, index, _log):
        report = run(url, index, 100_000.0, workers=8)
    show(f"gs, {number} grey scans of 2 pages", alone_s, report)


def gs_alone(files: list[Path]) -> float:
    """Seconds to optimise the files with nothing else to do; facts known beforehand, twice the cores in threads."""
    made = HOME / "made"
    made.mkdir()
    cores = len(os.sched_getaffinity(0))
    with PdfWorkers(cores) as workers, ThreadPoolExecutor(2 * cores) as pool:
        facts = {f: workers.inspect(f, declared_bytes=None, expected_pages=None) for f in files}
        began = time.monotonic()
        list(pool.map(lambda f: optimise(f, made / f.name, facts[f], workers=workers), files))
        return time.monotonic() - began


def bench_classic() -> None:
    """The classic design: five threads, one lock with a sleep of 0.5 s in it, gs and upload inside the worker."""
    number = 60
    with portal("--no-oddities", "--distinct", "20", "--latency-ms", "20", documents=number) as (url, index, _log):
        run(url, index, 1000.0, dry_run=True)
        began = time.monotonic()
        classic(url, open_database(load_settings()))
        classic_s = time.monotonic() - began
    with portal("--no-oddities", "--distinct", "20", "--latency-ms", "20", documents=number) as (url, index, _log):
        report = run(url, index, 40.0, workers=8)
    show(f"classic design, {number} documents (ours at 40 requests/s)", classic_s, report)


def classic(url: str, database: Database) -> None:
    """A faithful peer: it asks the same portal for the same rows and writes a status per row."""
    lock, folder = threading.Lock(), HOME / "classic"
    folder.mkdir(exist_ok=True)
    rows = database.rows("SELECT id, source, instrument_number, book, page, source_url FROM index_documents")

    def one(row: tuple[object, ...]) -> None:
        item, source, instrument, book, page, direct = row

        def paced(target: str) -> requests.Response:
            with lock:
                time.sleep(0.5)
            return requests.get(target, timeout=60)

        if source == "direct":
            target = f"{url}/{direct}"
        elif source == "historical":
            target = link(url, paced(f"{url}/historical.php?book={book}&page={page}").text)
        else:
            target = link(url, paced(f"{url}/search.php?instrument={instrument}&do_search=Search").text)
        path = folder / f"{item}.pdf"
        path.write_bytes(paced(target).content)
        command = ["gs", "-q", "-dNOPAUSE", "-dBATCH", "-sDEVICE=pdfwrite", f"-sOutputFile={path}.out", str(path)]
        subprocess.run(command, capture_output=True, check=False)
        database.rows("UPDATE landrecords_runs SET ended_at = now() WHERE run_id = 'classic'")

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(one, rows))


def link(url: str, html: str) -> str:
    """The first document link of a look-up page."""
    from selectolax.lexbor import LexborHTMLParser

    anchor = LexborHTMLParser(html).css_first("table#results a, dl#record a")
    return f"{url}/{anchor.attributes['href']}"


def bench_million() -> None:
    """A million rows of which 999,000 are done: seconds from the start of the flow to its first request; memory."""
    from tasks.index import load_index

    database, index = open_database(load_settings()), HOME / "million.csv"
    write_index(index, GeneratedCorpus(1_000_000, distinct=20, oddities={}))
    database.rows("TRUNCATE index_documents")
    began = time.monotonic()
    load_index(database, index)
    print(f"loading 1,000,000 rows: {time.monotonic() - began:.0f} s")
    database.rows(
        "INSERT INTO host_clocks (host) VALUES ('x');"
        "ALTER TABLE index_documents DISABLE TRIGGER USER;"
        "UPDATE index_documents SET download_status = 'completed', optimize_status = 'skipped',"
        " upload_status = 'completed' WHERE id % 1000 <> 0;"
        "ALTER TABLE index_documents ENABLE TRIGGER USER"
    )
    with contextlib.closing(connect(embedded_url(HOME))) as connection:
        connection.autocommit = True
        connection.cursor().execute("VACUUM ANALYZE index_documents")  # as autovacuum left it in the days before
    with portal("--no-oddities", "--distinct", "20", documents=1_000_000) as (url, _index, log):
        import flows.documents  # noqa: F401 - what Python needs to begin is not the resuming

        started = time.time()
        report = run(url, None, 400.0, limit=200, workers=8)
        first = min(float(json.loads(line)["at"]) for line in log.open())
    shown_s = first - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"first request {shown_s:.2f} s after the call (flow run engine included); {report.counts}")
    print(f"peak memory of the flow's process: {peak_mb:.0f} MB (bar: 400 MB)")


def show(what: str, alone_s: float, report: RunReport) -> None:
    """One line: the slowest stage alone, the whole flow, and the ratio."""
    print(
        f"{what}: alone {alone_s:.1f} s, flow {report.seconds:.1f} s, ratio {alone_s / report.seconds:.2f}"
        f" ({report.counts['completed']} completed)",
        flush=True,
    )


BENCHES = {"dial": bench_dial, "gs": bench_gs, "classic": bench_classic, "million": bench_million}

if __name__ == "__main__":
    from flows.local import prefect_api

    try:
        with prefect_api(load_settings()):
            time.sleep(WARM_S)
            for name in sys.argv[1:] or BENCHES:
                BENCHES[name]()
    finally:
        open_database(load_settings()).close()
        shutil.rmtree(HOME, ignore_errors=True)
