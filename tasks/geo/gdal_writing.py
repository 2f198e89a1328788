"""GDAL through pyogrio, writing: in a process of its own that takes Arrow record batches from a pipe.

pyogrio 0.13 keeps the interpreter's lock while GDAL takes a batch (0.2 s) and while it closes the file (10 s for the
index of a FlatGeobuf with 1 M features): heartbeats and every other node would stand still, and nothing could stop it.
A process can be killed, and the pipe is the bounded queue. It takes 0.3 s to begin, so what is small is written here.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa

from tasks.errors import LandrecordsError, OutsideUnreachable, TerminalError, refuse_when_stopped
from tasks.geo.gdal_process import refusal
from tasks.records import Reason

_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_NO_ROOM = ("disk is full", "no space left", "disk i/o error", "disk quota")
_TICK_S = 0.1


class GdalProcess:
    """Writes one layer.

    order  for tasks.geo.gdal_process: path, driver, layer and so on
    """

    def __init__(self, order: dict[str, Any], stop: threading.Event) -> None:
        self._stop = stop
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tasks.geo.gdal_process", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # GDAL chatters there
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the run, which then ends this
        )
        self._stream: Any = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Raises TerminalError for what the format cannot hold, OutsideUnreachable where the disk is full."""
        try:
            if self._stream is None:
                self._stream = pa.ipc.new_stream(pa.PythonFile(self._process.stdin, "w"), batch.schema)
            self._stream.write_batch(batch)
        except (OSError, pa.ArrowException) as exc:  # it has ended, and says why
            self._stream = None
            raise self._verdict() from exc

    def close(self) -> None:
        """Waits for the file. Raises as write() does, and StopRequested."""
        assert self._process.stdin  # noqa: S101 - PIPE
        with contextlib.suppress(OSError, pa.ArrowException):
            if self._stream is not None:
                self._stream.close()
            self._process.stdin.close()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_TICK_S)
                break
            refuse_when_stopped(self._stop)
        if self._process.returncode:
            raise self._verdict()
        self.abandon()

    def abandon(self) -> None:
        """Kills it where it still runs."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe  # noqa: S101 - PIPE
                pipe.close()
        self._process.wait()

    def _verdict(self) -> LandrecordsError:
        """Why it ended early."""
        assert self._process.stdout  # noqa: S101 - PIPE
        said = self._process.stdout.read().decode(errors="replace") if not self._process.stdout.closed else ""
        self.abandon()
        return _error_of(said, self._process.returncode)


def write_here(batches: list[pa.RecordBatch], order: dict[str, Any]) -> None:
    """Writes a small file in this process. Raises as GdalProcess does."""
    why = refusal(pa.RecordBatchReader.from_batches(batches[0].schema, batches), order)
    if why is not None:
        raise _error_of(why, 1)


def _error_of(said: str, code: int) -> LandrecordsError:
    why = " ".join(said.split())[:300].rstrip(".")
    if not why:
        return OutsideUnreachable(f"The process that writes the file was ended ({code}); give the run more memory.")
    if any(word in why.lower() for word in _NO_ROOM):
        return OutsideUnreachable(f"The file cannot be written ({why}); free space on the disk.")
    return TerminalError(
        Reason.UNWRITABLE,
        f"The file's format cannot hold a feature ({why}); change it before, or choose another format.",
    )


def _environment() -> dict[str, str]:
    """What it needs to import what we import; no secrets."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
