"""Sample servers for the demo and `landrecords up`: processes of their own, which end with their block."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError
from tasks.partials import disk

INDEX_NAME = "sample-index.csv"
"""Rows loaded from a file of this name are the sample's."""

STOP_TIMEOUT_S = 5


@dataclass(frozen=True)
class Server:
    """A running sample server.

    url  its address
    log  one JSON line a request
    """

    url: str
    log: Path

    @property
    def requests(self) -> int:
        """Requests it has answered since it was started."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@dataclass(frozen=True)
class Portal(Server):
    """A running sample portal; `index` is a CSV of the documents it has."""

    index: Path


@contextlib.contextmanager
def sample_portal(home: Path, documents: int, *, ports: Sequence[int], faults: str = "demo") -> Iterator[Portal]:
    """The sample portal, on the first free of the ports. Raises ConfigurationError when none of them is free."""
    index = _folder(home) / INDEX_NAME
    options = ["--documents", str(documents), "--faults", faults, "--latency-ms", "10", "--index-out", str(index)]
    with _served(home, "portal", options, ports) as server:
        yield Portal(server.url, server.log, index)


@contextlib.contextmanager
def sample_tiles(home: Path, *, ports: Sequence[int], faults: str = "demo") -> Iterator[Server]:
    """The sample tile server, on the first free of the ports. Raises ConfigurationError when none of them is free."""
    with _served(home, "tiles", ["--faults", faults, "--latency-ms", "10"], ports) as server:
        yield server


@contextlib.contextmanager
def sample_register(home: Path, *, ports: Sequence[int], faults: str = "demo") -> Iterator[Server]:
    """The sample register, 660 homes in ten towns, on the first free of the ports. Raises ConfigurationError when none
    of them is free."""
    options = ["--villas", "600", "--faults", faults, "--latency-ms", "10", "--unknown", "0.02", "--poisoned", "0.005"]
    with _served(home, "register", options, ports) as server:
        yield server


@dataclass(frozen=True)
class Sites:
    """A running sample SFTP server of site photos: what its first line says."""

    port: int
    host_key: str
    username: str
    password: str
    root: str


@contextlib.contextmanager
def sample_sites(home: Path, *, ports: Sequence[int], photos: int = 12) -> Iterator[Sites]:
    """The sample site server, on the first free of the ports. Raises ConfigurationError when none of them is free.

    photos  in each of its 24 folders
    """
    folder = _folder(home)
    options = ["--folder", str(folder / "sites"), "--photos", str(photos), "--die-with-parent"]
    process, said = _started("sites", options, ports, folder / "sites.log")
    try:
        yield Sites(**{name: said[name] for name in ("port", "host_key", "username", "password", "root")})
    finally:
        _end(process)


def _folder(home: Path) -> Path:
    folder = home / "sample"
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _served(home: Path, name: str, options: list[str], ports: Sequence[int]) -> Iterator[Server]:
    """`python -m tasks.sample.<name>` for the length of the block."""
    folder = _folder(home)
    log = folder / ("requests.jsonl" if name == "portal" else f"{name}-requests.jsonl")
    log.unlink(missing_ok=True)
    options = [*options, "--log", str(log), "--die-with-parent"]
    process, said = _started(name, options, ports, folder / f"{name}.log")
    try:
        yield Server(said["url"], log)
    finally:
        _end(process)


Started = tuple[subprocess.Popen[str], dict[str, Any]]
"""A process and what its first line says."""


def _started(name: str, options: list[str], ports: Sequence[int], errors: Path) -> Started:
    for port in ports:
        process = _run(name, [*options, "--port", str(port)], errors)
        line = process.stdout.readline() if process.stdout else ""
        if line:
            return process, json.loads(line)
        _end(process)
    said = errors.read_text().strip() or f"see {errors}"
    raise ConfigurationError(f"the sample server of {name} did not start: {said}")


def _run(name: str, options: list[str], errors: Path) -> subprocess.Popen[str]:
    """In a session of its own, so that Ctrl-C ends the run first and then, by the run's end, the server."""
    with errors.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", f"tasks.sample.{name}", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
