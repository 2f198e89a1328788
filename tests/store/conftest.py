"""Real parts for the store tests: files, the strict fake over HTTP, and the emulator from PyPI."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.store_gcs import GcsStore
from tasks.store_local import LocalStore
from tasks.store_wire import Patience
from tests.fakes.gcs import FakeGcs

BUCKET = "landrecords-test"
MakeFile = Callable[..., tuple[Path, str]]

QUICK = Patience(delays_s=(0.01, 0.02, 0.03))
"""As many retries as in earnest, without the waiting."""


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """`make_file(size_or_bytes)` -> (path, sha256) of a new file, random unless the bytes are given."""
    folder = tmp_path / "spool"
    folder.mkdir()

    def make(content: bytes | int = 1000) -> tuple[Path, str]:
        data = content if isinstance(content, bytes) else os.urandom(content)
        path = folder / f"{len(list(folder.iterdir()))}.pdf"
        path.write_bytes(data)
        return path, hashlib.sha256(data).hexdigest()

    return make


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    """A fresh strict fake, with the environment pointing at it."""
    with FakeGcs(BUCKET) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


@pytest.fixture
def bucket(fake: FakeGcs) -> Iterator[GcsStore]:
    """A store on the fake that waits milliseconds where it would wait seconds."""
    with GcsStore(BUCKET, "plant", patience=QUICK, timeout_s=(2.0, 0.5)) as store:
        yield store


@pytest.fixture(scope="session")
def emulator_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`gcp-storage-emulator` as a process of its own; it is single-threaded and ignores generations."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = str(tmp_path_factory.mktemp("emulator"))
    options = ["-H", "127.0.0.1", "--port", str(port), "--in-memory", "-q", "--default-bucket", BUCKET]
    process = subprocess.Popen([sys.executable, "-m", "gcp_storage_emulator", "-d", folder, "start", *options])
    try:
        _wait_for(f"http://127.0.0.1:{port}/", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the emulator at {url} did not start")


@pytest.fixture(params=["folder", "fake", "emulator"])
def any_store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStore | GcsStore]:
    """Every kind of store in turn, for what all must do."""
    if request.param == "folder":
        yield request.getfixturevalue("local")
    elif request.param == "fake":
        yield request.getfixturevalue("bucket")
    else:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("emulator_url"))
        with GcsStore(BUCKET, request.node.name.replace("[", "/").rstrip("]")) as store:
            yield store
