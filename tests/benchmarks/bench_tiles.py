"""Tiles a second through the flow and its bulk door, beside `curl -Z`, aiohttp + aiofiles and requests in one run.

One nginx on loopback, with one worker and real files of 12 KB in the page cache, serves all; it answers more than
twice what the fastest client takes, and has a core for itself where there are two. The contenders take turns
(`--repeat`), each in a process of its own, so that processor time and memory are its own; medians are printed,
and ratios to `curl -Z`. All but the one in memory write every tile to a file of its own; the flow also verifies it,
waits for the disk and settles its row, with Postgres and the Prefect server on the same cores. Asserts nothing of
time; skips what is not installed (nginx-light from Debian; aiohttp and aiofiles from PyPI).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import io
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

TILE_BYTES = 12 * 1024
FILES = 1_000
CONNECTIONS = 100
PER_FOLDER = 1_000

CONF = """
daemon off; master_process off; worker_processes 1; pid {home}/pid; error_log {home}/errors.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
  open_file_cache max=4000 inactive=600s; open_file_cache_valid 600s;
  client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
  uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
  types {{ image/png png; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024; root {home}/tiles;
    location ~ "^/17/\\d+/\\d*?(\\d\\d?\\d?)\\.png$" {{ try_files /$1.png =404; }}
  }}
}}
"""


def main() -> None:
    """Parent: start the server, run the contenders in turn, print the table. Child: be one contender."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tiles", type=int, default=20_000, help="for the fast ones; slow ones take fewer")
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="where the tiles go, e.g. /dev/shm to leave the disk out")
    arguments.add_argument("--only", default="", help="contenders whose names hold this; and curl, to compare with")
    arguments.add_argument("--contender", help=argparse.SUPPRESS)
    arguments.add_argument("--url", help=argparse.SUPPRESS)
    arguments.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.contender:
        print(json.dumps(CONTENDERS[given.contender][0](given.url, given.tiles, given.out)))
    elif shutil.which("nginx") is None:
        print("skipped: nginx is not installed (apt-get install nginx-light)")
    else:
        with (
            tempfile.TemporaryDirectory(prefix="landrecords-bench-", dir=given.folder) as home,
            nginx(Path(home)) as url,
        ):
            compare(url, Path(home), given.tiles, given.repeat, given.only)


def compare(url: str, home: Path, tiles: int, repeat: int, only: str) -> None:
    """Every contender `repeat` times, interleaved."""
    rates: dict[str, list[dict[str, float]]] = {
        name: [] for name in CONTENDERS if is_installed(name) and (only in name or name.startswith("curl"))
    }
    for _ in range(repeat):
        for name, runs in rates.items():
            runs.append(run(name, url, home, max(500, tiles // CONTENDERS[name][1])))
    medians = {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in rates.items()}
    print(f"{'':34}{'tiles/s':>9}{'vs curl':>9}{'us cpu/tile':>13}{'peak MB':>9}   (medians of {repeat})")
    for name, figures in medians.items():
        ratio = figures["rate"] / medians["curl -Z, to disk"]["rate"]
        print(f"{name:34}{figures['rate']:9.0f}{ratio:8.2f}x{figures['cpu_us']:13.0f}{figures['peak_mb']:9.0f}")


def run(name: str, url: str, home: Path, tiles: int) -> dict[str, float]:
    """One contender in a process of its own; its rate, processor time and memory."""
    out = home / "out"
    for number in range(0, tiles, PER_FOLDER):
        (out / str(number // PER_FOLDER)).mkdir(parents=True)
    command = [sys.executable, __file__, "--contender", name, "--url", url, "--out", str(out), "--tiles", str(tiles)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, name
    if "memory" not in name:
        check(out, tiles)
    shutil.rmtree(out)
    seconds, cpu_s = json.loads(said)
    return {"rate": tiles / seconds, "cpu_us": cpu_s / tiles * 1e6, "peak_mb": used.ru_maxrss / 1024}


def check(out: Path, tiles: int) -> None:
    sizes = [path.stat().st_size for path in out.rglob("*.png") if path.stem.isdecimal()]
    assert sizes == [TILE_BYTES] * tiles, f"{len(sizes)} tiles of {tiles}"


@contextlib.contextmanager
def nginx(home: Path) -> Iterator[str]:
    """A server of FILES different tiles; its address."""
    (home / "tiles").mkdir()
    for number in range(FILES):
        (home / "tiles" / f"{number}.png").write_bytes(picture())
        if number < 100:  # the flow asks for rows, by their last three digits
            (home / "tiles" / f"{number:03d}.png").hardlink_to(home / "tiles" / f"{number}.png")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (home / "nginx.conf").write_text(CONF.format(home=home, port=port))
    process = subprocess.Popen(["nginx", "-e", f"{home}/errors.log", "-p", str(home), "-c", f"{home}/nginx.conf"])
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def picture() -> bytes:
    """A sound PNG of noise, of TILE_BYTES bytes: a comment fills it up."""
    from PIL import Image

    packed = io.BytesIO()
    Image.frombytes("RGB", (60, 66), os.urandom(60 * 66 * 3)).save(packed, "PNG", compress_level=0)
    body = packed.getvalue()
    text = b"tEXtfill\0".ljust(TILE_BYTES - len(body) - 8, b"x")
    return body[:-12] + struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text)) + body[-12:]


def wait_for(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit("nginx did not start")


def is_installed(name: str) -> bool:
    if name.startswith("aiohttp"):
        return all(importlib.util.find_spec(module) for module in ("aiohttp", "aiofiles"))
    return not name.startswith("curl") or shutil.which("curl") is not None


# --- the contenders: what `tiles` tiles cost, imports and start of Python left out ---

Cost = tuple[float, float]
"""Seconds by the clock, and of processor time."""


def ours_in_memory(url: str, tiles: int, _: Path) -> Cost:
    return timed(lambda: [consume(results) for results in rounds(url, tiles)])


def consume(results: Iterable[object]) -> None:
    from tasks.bulk import Got

    for result in results:
        assert isinstance(result, Got), result
        assert len(result.body) == TILE_BYTES


def ours_to_disk(url: str, tiles: int, out: Path) -> Cost:
    """Each tile beside its place, then renamed, in the thread of the door."""
    return timed(lambda: [write_all(results, out) for results in rounds(url, tiles)])


def ours_to_disk_threaded(url: str, tiles: int, out: Path) -> Cost:
    """The same in another thread, at most four rounds behind."""
    behind = threading.Semaphore(4)

    def work() -> None:
        with ThreadPoolExecutor(1) as writer:
            for results in rounds(url, tiles):
                behind.acquire()
                writer.submit(write_all, results, out).add_done_callback(lambda done: (behind.release(), done.result()))

    return timed(work)


def the_flow(url: str, tiles: int, out: Path) -> Cost:
    """The whole of it, from the call to the report; a server and a database are there, as on any second run."""
    home = out.parent / "home"
    os.environ.update(LANDRECORDS_HOME=str(home), LANDRECORDS_STORE_URL=out.as_uri(), PREFECT_API_URL="")
    os.environ.update(PREFECT_LOGGING_LEVEL="ERROR", DO_NOT_TRACK="1", PYTHONPATH=str(ROOT))
    from flows.local import prefect_api
    from flows.tiles import tiles as flow
    from tasks.postgres import open_database
    from tasks.settings import load_settings

    def work() -> None:
        ranges = {"x_range": [0, WIDE - 1], "y_range": [0, tiles // WIDE - 1]}
        report = flow(f"{url}/{{z}}/{{x}}/{{y}}.png", layer="bench", zoom=17, connections=CONNECTIONS, **ranges)
        assert report.counts["completed"] == tiles, report

    os.chdir(home.parent)
    with prefect_api(load_settings()):
        database = open_database(load_settings())
        database.rows("TRUNCATE tiles")
        time.sleep(WARM_S)
        return timed(work)


def rounds(url: str, tiles: int) -> Iterator[list[object]]:
    from tasks.bulk import Ask, BulkDoor

    with BulkDoor(user_agent="bench", connections=CONNECTIONS) as door:
        yield from door.rounds(Ask(i, f"{url}/{i % FILES}.png") for i in range(tiles))


def write_all(results: Iterable[object], out: Path) -> None:
    from tasks.bulk import Got

    for result in results:
        assert isinstance(result, Got), result
        place = f"{out}/{result.id // PER_FOLDER}/{result.id}.png"
        descriptor = os.open(place + ".part", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, result.body)
        os.close(descriptor)
        os.rename(place + ".part", place)  # noqa: PTH104 - a Path for each tile costs more than the call


def curl(url: str, tiles: int, out: Path) -> Cost:
    config = out.parent / "curl.conf"
    config.write_text(
        "".join(f'url = "{url}/{i % FILES}.png"\noutput = "{out}/{i // PER_FOLDER}/{i}.png"\n' for i in range(tiles))
    )
    command = ["curl", "-sS", "-Z", "--parallel-max", str(CONNECTIONS), "-K", str(config)]
    return timed(lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL))


def with_aiohttp(url: str, tiles: int, out: Path) -> Cost:
    import aiofiles
    import aiohttp

    async def fetch(session: aiohttp.ClientSession, places: asyncio.Semaphore, i: int) -> None:
        async with places, session.get(f"{url}/{i % FILES}.png") as response:
            response.raise_for_status()
            body = await response.read()
            async with aiofiles.open(f"{out}/{i // PER_FOLDER}/{i}.png", "wb") as file:
                await file.write(body)

    async def work() -> None:
        places = asyncio.Semaphore(CONNECTIONS)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session:
            await asyncio.gather(*(fetch(session, places, i) for i in range(tiles)))

    return timed(lambda: asyncio.run(work()))


def with_requests(url: str, tiles: int, out: Path) -> Cost:
    import requests

    here = threading.local()

    def fetch(i: int) -> None:
        session = here.__dict__.setdefault("session", requests.Session())
        response = session.get(f"{url}/{i % FILES}.png", timeout=30)
        response.raise_for_status()
        Path(f"{out}/{i // PER_FOLDER}/{i}.png").write_bytes(response.content)

    with ThreadPoolExecutor(20) as pool:
        return timed(lambda: list(pool.map(fetch, range(tiles))))


def timed(work: Callable[[], object]) -> Cost:
    """What `work` costs, the programs it runs included."""
    began_s, used_s = time.monotonic(), cpu_s()
    work()
    return time.monotonic() - began_s, cpu_s() - used_s


def cpu_s() -> float:
    return sum(os.times()[:4])


WARM_S = 25
"""A Prefect server that was just started has still to register its blocks and services."""

WIDE = 100
"""Tiles in a row of the flow's layer."""

CONTENDERS: dict[str, tuple[Callable[[str, int, Path], Cost], int]] = {
    "the flow: verified, recorded": (the_flow, 1),
    "ours, in memory": (ours_in_memory, 1),
    "ours, to disk": (ours_to_disk, 1),
    "ours, to disk in another thread": (ours_to_disk_threaded, 1),
    "curl -Z, to disk": (curl, 1),
    "aiohttp + aiofiles, to disk": (with_aiohttp, 5),
    "requests, 20 threads, to disk": (with_requests, 10),
}
"""Name -> what it does, and the part of the tiles it is given."""

if __name__ == "__main__":
    main()
