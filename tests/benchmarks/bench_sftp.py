"""Photos a second over SFTP with a round trip of 20 and 80 ms, beside asyncssh and paramiko in the same run.

A real OpenSSH server holds sample photos with positions; a relay on loopback delays each direction and limits no
bandwidth. Every contender opens each photo, reads the head and what further ranges the same parser asks for, closes
it, and must have found every position:

  landrecords   this project's door, 64 files in flight on each of 2 connections
  asyncssh      the same 2 connections, 64 files in flight on each, open/read/close of its SFTP client
  paramiko      50 threads with a connection each, plain open/read/close, as scripts do it

The contenders take turns (`--repeat`), each in a process of its own; logging in is not counted. Medians are printed,
and ratios to asyncssh. Asserts nothing of time; skips what is not installed (openssh-server from Debian; asyncssh from
PyPI).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tasks.exif import HEAD_BYTES, Flag, NeedMore, PhotoFacts, Reader
from tasks.sample.photo_tags import Shot
from tasks.sample.photos import PhotoKind, make_photo
from tests.fakes.sshd import PROGRAM, Sshd

CONNECTIONS, DEPTH, SCRIPT_CONNECTIONS = 2, 64, 50
Photo = tuple[str, int]
"""Path and bytes."""


def main() -> None:
    """Parent: start the server, run the contenders in turn, print the table. Child: be one contender."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--photos", type=int, default=4_000, help="for the fast ones; the others take fewer")
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--round-trips", type=float, nargs="+", default=[0.02, 0.08], help="in seconds")
    arguments.add_argument("--contender", help=argparse.SUPPRESS)
    arguments.add_argument("--login", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.contender:
        print(json.dumps(CONTENDERS[given.contender][0](Login(**json.loads(given.login)), given.photos)))
    elif PROGRAM is None:
        print("skipped: sshd is not installed (apt-get install openssh-server)")
    else:
        with Sshd(MaxStartups="100", MaxSessions="10") as server:
            for number in range(given.photos):
                (server.site / f"DJI_{number:05d}.JPG").write_bytes(photo(number))
            for round_trip_s in given.round_trips:
                with slow_link(server.port, round_trip_s / 2) as port:
                    compare(server, port, round_trip_s, given.photos, given.repeat)


def photo(number: int) -> bytes:
    at = (55.0 + number / 1e5, 12.0 + number / 1e5)
    return make_photo(PhotoKind.JPEG, Shot(at, 80.0, 40.0, 90.0, datetime(2026, 5, 1, tzinfo=UTC)), number)


def compare(server: Sshd, port: int, round_trip_s: float, photos: int, repeat: int) -> None:
    """Every contender `repeat` times, interleaved."""
    rates: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS if is_installed(name)}
    for _ in range(repeat):
        for name, runs in rates.items():
            runs.append(run(name, server, port, max(200, photos // CONTENDERS[name][1])))
    medians = {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in rates.items()}
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(
        f"\n{f'{1000 * round_trip_s:.0f} ms, {load}':34}{'photos/s':>10}{'vs asyncssh':>13}{'us cpu/photo':>14}", end=""
    )
    print(f"{'bytes/photo':>13}   (medians of {repeat})")
    for name, figures in medians.items():
        ratio = figures["rate"] / medians["asyncssh"]["rate"] if "asyncssh" in medians else float("nan")
        print(f"{name:34}{figures['rate']:10.0f}{ratio:12.2f}x{figures['cpu_us']:14.0f}{figures['bytes']:13.0f}")


def run(name: str, server: Sshd, port: int, photos: int) -> dict[str, float]:
    """One contender in a process of its own."""
    login = {
        "port": port,
        "username": server.username,
        "key": str(server.key_path),
        "host_key": server.host_key_line,
        "folder": str(server.site),
    }
    command = [sys.executable, __file__, "--contender", name, "--login", json.dumps(login), "--photos", str(photos)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600).stdout
    seconds, cpu_s, bytes_read, found = json.loads(said)
    assert found == photos, f"{name} found {found} positions of {photos}"
    return {"rate": photos / seconds, "cpu_us": cpu_s / photos * 1e6, "bytes": bytes_read / photos}


@contextlib.contextmanager
def slow_link(target_port: int, delay_s: float) -> Iterator[int]:
    """The relay as a process of its own; its port."""
    command = [sys.executable, "-m", "tests.fakes.slow_link", str(target_port), str(delay_s)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


# the contenders: seconds, processor seconds, bytes read, positions found


class Login:
    def __init__(self, port: int, username: str, key: str, host_key: str, folder: str) -> None:
        self.port, self.username, self.key, self.host_key, self.folder = port, username, key, host_key, folder


class Watch:
    """Counts what was read, from when everybody has logged in."""

    def __init__(self) -> None:
        self.began_s, self.began_cpu_s = time.perf_counter(), time.process_time()
        self.bytes_read = self.found = 0

    def add(self, bytes_read: int, facts: PhotoFacts) -> None:
        self.bytes_read += bytes_read
        self.found += facts.flag == Flag.OK

    def result(self) -> list[float]:
        return [
            time.perf_counter() - self.began_s,
            time.process_time() - self.began_cpu_s,
            self.bytes_read,
            self.found,
        ]


def landrecords(login: Login, photos: int) -> list[float]:
    from tasks.sftp import Ask, Entry, Read, open_sftp
    from tasks.sftp import Reader as Ranges

    def reader(entry: Entry) -> Callable[[], Ranges[PhotoFacts]]:
        def read() -> Ranges[PhotoFacts]:
            parser = Reader(entry.size)
            answer = parser.feed(0, (yield NeedMore(0, min(HEAD_BYTES, entry.size))))
            while isinstance(answer, NeedMore):
                answer = parser.feed(answer.offset, (yield answer))
            return answer

        return read

    with open_sftp(
        "127.0.0.1",
        login.port,
        username=login.username,
        key_path=Path(login.key),
        host_key=login.host_key,
        connections=CONNECTIONS,
        depth=DEPTH,
    ) as door:
        entries = door.list_folder(login.folder)[:photos]
        for _ in door.read_many(Ask(e.name, e.path, reader(e)) for e in entries[: 4 * DEPTH]):
            pass  # until both connections are there
        watch = Watch()
        for result in door.read_many(Ask(e.name, e.path, reader(e)) for e in entries):
            assert isinstance(result, Read)
            watch.add(result.bytes_read, result.value)
        return watch.result()


def with_asyncssh(login: Login, photos: int) -> list[float]:
    import asyncssh

    async def one(client: asyncssh.SFTPClient, at_once: asyncio.Semaphore, photo: Photo, watch: Watch) -> None:
        path, size = photo
        async with at_once, client.open(path, "rb") as file:
            parser = Reader(size)
            answer = parser.feed(0, await file.read(HEAD_BYTES, 0))
            while isinstance(answer, NeedMore):
                answer = parser.feed(answer.offset, await file.read(answer.length, answer.offset))
        watch.add(parser.bytes_read, answer)

    async def everything() -> list[float]:
        clients = []
        for _ in range(CONNECTIONS):
            connection = await asyncssh.connect(
                "127.0.0.1", login.port, username=login.username, client_keys=[login.key], known_hosts=None
            )
            clients.append((await connection.start_sftp_client(), asyncio.Semaphore(DEPTH)))
        names = await clients[0][0].readdir(login.folder)
        listed = [(f"{login.folder}/{n.filename}", n.attrs.size) for n in names if n.attrs.size and n.attrs.type == 1]
        watch = Watch()
        some = enumerate(listed[:photos])
        await asyncio.gather(*(one(*clients[number % CONNECTIONS], photo, watch) for number, photo in some))
        return watch.result()

    return asyncio.run(everything())


def with_paramiko(login: Login, photos: int) -> list[float]:
    import paramiko

    def connect(_number: int) -> paramiko.SFTPClient:
        transport = paramiko.Transport(("127.0.0.1", login.port))
        transport.banner_timeout = transport.handshake_timeout = 60
        transport.connect(username=login.username, pkey=paramiko.Ed25519Key.from_private_key_file(login.key))
        return paramiko.SFTPClient.from_transport(transport)

    def one(photo: Photo) -> tuple[int, PhotoFacts]:
        path, size = photo
        client = free.get()
        parser = Reader(size)
        with client.open(path, "rb") as file:
            answer = parser.feed(0, file.read(HEAD_BYTES))
            while isinstance(answer, NeedMore):
                file.seek(answer.offset)
                answer = parser.feed(answer.offset, file.read(answer.length))
        free.put(client)
        return parser.bytes_read, answer

    free: SimpleQueue[paramiko.SFTPClient] = SimpleQueue()
    with ThreadPoolExecutor(8) as threads:
        clients = list(threads.map(connect, range(SCRIPT_CONNECTIONS)))
    for client in clients:
        free.put(client)
    listed = [(f"{login.folder}/{e.filename}", e.st_size or 0) for e in clients[0].listdir_attr(login.folder)]
    watch = Watch()
    with ThreadPoolExecutor(SCRIPT_CONNECTIONS) as threads:
        for bytes_read, facts in threads.map(one, listed[:photos]):
            watch.add(bytes_read, facts)
    result = watch.result()
    for client in clients:
        client.get_channel().get_transport().close()
    return result


CONTENDERS: dict[str, tuple[Callable[[Login, int], list[float]], int]] = {
    "landrecords": (landrecords, 1),
    "asyncssh": (with_asyncssh, 1),
    "paramiko, 50 connections": (with_paramiko, 3),
}
"""Name -> the function, and how many times fewer photos it takes."""


def is_installed(name: str) -> bool:
    return name != "asyncssh" or importlib.util.find_spec("asyncssh") is not None


if __name__ == "__main__":
    main()
