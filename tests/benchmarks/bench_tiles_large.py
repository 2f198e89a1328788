"""Hundreds of thousands of tiles through the flow, end to end, and millions of rows planned, on this machine.

    python tests/benchmarks/bench_tiles_large.py --tiles 300000 --rows 3000000

Prints seconds and peak memory of each, task runs in Prefect, and the size of both databases. The same pages are then
fetched again as plain calls in as many threads: what that saves is Prefect's share. Each part has a process of its own;
the server is the nginx of bench_tiles. Asserts nothing of time.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tasks import services
from tests.benchmarks.bench_tiles import CONNECTIONS, WARM_S, WIDE, check, nginx, timed

Figures = dict[str, float]


def main() -> None:
    """Parent: the server, and a process for each part. Child: one part."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tiles", type=int, default=300_000)
    arguments.add_argument("--rows", type=int, default=3_000_000)
    arguments.add_argument("--folder", type=Path, help="where everything goes, e.g. /dev/shm to leave the disk out")
    arguments.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments.add_argument("--url", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.part:
        print(json.dumps(PARTS[given.part](given.url, given.rows if given.part == "plan" else given.tiles)))
    elif shutil.which("nginx") is None:
        print("skipped: nginx is not installed (apt-get install nginx-light)")
    else:
        with tempfile.TemporaryDirectory(prefix="landrecords-bench-", dir=given.folder) as home:
            compare(Path(home), given.tiles, given.rows)


def compare(home: Path, tiles: int, rows: int) -> None:
    """All parts, one after another."""
    with nginx(home) as url:
        told = {part: run(home, part, url, tiles, rows) for part in PARTS}
    flow, plain, planned = told["flow"], told["plain"], told["plan"]
    print(f"{tiles:,} tiles: {flow['seconds']:.1f} s, {tiles / flow['seconds']:,.0f}/s, peak {flow['peak_mb']:.0f} MB")
    sizes = f"Prefect's database {flow['prefect_mb']:.0f} MB, ours {flow['ours_mb']:.0f} MB"
    print(f"  {flow['task_runs']:.0f} task runs, {sizes}")
    print(f"  without Prefect {plain['seconds']:.1f} s: its share is {1 - plain['seconds'] / flow['seconds']:.1%}")
    print(f"{rows:,} rows planned: {planned['seconds']:.1f} s, peak {planned['peak_mb']:.0f} MB")


def run(home: Path, part: str, url: str, tiles: int, rows: int) -> Figures:
    """What a part told, in a process and a home of its own."""
    own = home / part
    own.mkdir()
    os.environ.update(LANDRECORDS_HOME=str(own / "home"), LANDRECORDS_STORE_URL=(own / "out").as_uri())
    os.environ.update(PREFECT_API_URL="", PREFECT_LOGGING_LEVEL="ERROR", DO_NOT_TRACK="1", PYTHONPATH=str(ROOT))
    command = [sys.executable, __file__, "--part", part, "--url", url, "--tiles", str(tiles), "--rows", str(rows)]
    said = subprocess.run(command, stdout=subprocess.PIPE, cwd=own, check=True, text=True).stdout
    if part != "plan":
        check(own / "out", tiles)
    for service in ("postgres", "prefect"):
        services.wait_until_gone(own / "home" / service)
    shutil.rmtree(own)
    return {name: float(figure) for name, figure in json.loads(said.splitlines()[-1]).items()}


# --- the parts ---


def flow(url: str, tiles: int) -> Figures:
    """As a user calls it, servers warm."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    from flows.local import prefect_api
    from flows.tiles import tiles as fetch
    from tasks.postgres import open_database
    from tasks.settings import load_settings

    settings = load_settings()
    with prefect_api(settings):
        database = open_database(settings)
        time.sleep(WARM_S)
        reports: list[Any] = []
        ranges = {"x_range": [0, WIDE - 1], "y_range": [0, tiles // WIDE - 1]}
        template = f"{url}/{{z}}/{{x}}/{{y}}.png"
        given = {"layer": "bench", "zoom": 17, "connections": CONNECTIONS, **ranges}
        seconds, _ = timed(lambda: reports.append(fetch(template, **given)))
        assert reports[0].counts["completed"] == tiles, reports[0]
        with get_client(sync_client=True) as client:
            of_run = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(reports[0].run_id)]))
            counted = client._client.post("/task_runs/count", json={"flow_runs": of_run.model_dump(mode="json")})
        size = database.rows("SELECT pg_database_size(current_database())")[0][0]
        kept = sum(file.stat().st_size for file in settings.home.rglob("prefect.db*"))
        return {
            **{"seconds": seconds, "peak_mb": peak_mb(), "task_runs": counted.json()},
            **{"prefect_mb": kept / 1e6, "ours_mb": size / 1e6},
        }


def plain(url: str, tiles: int) -> Figures:
    """The same, but a page is a call in a thread and no task run."""
    import flows.rounds
    from tasks.pipeline import PageResult, threads_needed

    def run_pages(stages: Any, job: Any, orders: Any, *, stop: threading.Event) -> Iterator[PageResult]:
        with ThreadPoolExecutor(threads_needed(1)) as pool:
            yield from pool.map(lambda order: stages[0].fn(job, order), list(orders))

    flows.rounds.run_pages = run_pages
    return flow(url, tiles)


def plan(_: str, rows: int) -> Figures:
    """Rows made for a block of tiles."""
    from tasks.postgres import open_database
    from tasks.settings import load_settings
    from tasks.tile_plan import area_of, open_layer
    from tasks.tile_plan import plan as make

    area = area_of(17, x_range=[0, 1_999], y_range=[0, rows // 2_000 - 1])
    database = open_database(load_settings())
    seconds, _cpu = timed(lambda: make(database, open_layer(database, "bench"), area))
    assert database.rows("SELECT count(*) FROM tiles") == [(rows,)]
    return {"seconds": seconds, "peak_mb": peak_mb()}


def peak_mb() -> float:
    """Of this process so far; getrusage would count its parent too, of which it was once a copy."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


PARTS: dict[str, Callable[[str, int], Figures]] = {"flow": flow, "plain": plain, "plan": plan}

if __name__ == "__main__":
    main()
