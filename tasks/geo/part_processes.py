"""Parts of stages in processes of their own: as many as there are processors, ended at once with the run."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from tasks.errors import ItemError, StopRequested, TransientError, refuse_when_stopped
from tasks.geo.chain import NodeFailed
from tasks.geo.engine import Engine
from tasks.geo.part_work import TICK_S, PartRecord
from tasks.geo.part_worker import PartTask, Progress, Setup, setup_of, task_of
from tasks.geo.stage_work import StageWork
from tasks.records import Reason

_MAIN = "from tasks.geo.part_worker import main; main()"
"""Not `-m`: what is pickled there must be of a module that is found here."""


class PartProcesses:
    """A pool of `tasks.geo.part_worker` processes; `run` is what an engine runs parts with. Safe for threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._setup = setup_of(engine)
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        self._processes: set[_Process] = set()
        self._lock = threading.Lock()
        for _ in range(engine.threads):
            self._idle.put(None)

    def run(self, work: StageWork, number: int, part: dict[str, Any]) -> PartRecord:
        """Raises NodeFailed, or StopRequested."""
        task = task_of(self._engine, work, number, part)
        process = self._borrowed()
        try:
            process = process or self._started()
            record = process.run(task, self._engine)
        except BaseException as exc:
            timed_out = isinstance(exc, NodeFailed) and getattr(exc.error, "reason", None) == Reason.TIMEOUT
            if timed_out or not isinstance(exc, NodeFailed) or (process is not None and process.ended):
                self._end(process)
                process = None
            raise
        finally:
            self._idle.put(process)
        return record

    def close(self) -> None:
        """End all of them."""
        for process in list(self._processes):
            self._end(process)

    def _borrowed(self) -> _Process | None:
        while not self._engine.stop.is_set():
            with contextlib.suppress(queue.Empty):
                return self._idle.get(timeout=TICK_S)
        raise StopRequested("the run is ending.")

    def _started(self) -> _Process:
        process = _Process(self._setup)
        with self._lock:
            self._processes.add(process)
        return process

    def _end(self, process: _Process | None) -> None:
        if process is not None:
            process.end()
            with self._lock:
                self._processes.discard(process)


class _Process:
    """One worker."""

    def __init__(self, setup: Setup) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
                start_new_session=True,  # Ctrl-C is for the run, which then ends its workers
            )
        self._connection.send(setup)

    def run(self, task: PartTask, engine: Engine) -> PartRecord:
        """Raises what the worker raised; NodeFailed where it died."""
        try:
            self._connection.send(task)
            while True:
                refuse_when_stopped(engine.stop)
                if not self._connection.poll(TICK_S):
                    continue
                match self._connection.recv():
                    case Progress(node, features, size_bytes):
                        engine.progress(node, features, size_bytes)
                    case PartRecord() as record:
                        return record
                    case BaseException() as exc:
                        raise exc
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise NodeFailed(engine.works[task.stage].stage.nodes[0], self._death()) from None

    @property
    def ended(self) -> bool:
        """Whether it is there no more."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Kill it and give everything back."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._connection.close()

    def _death(self) -> ItemError:
        code = self._process.wait()
        message = f"Its worker process ended ({code}); give the run more memory, or fewer threads."
        return TransientError(Reason.INTERNAL, message)
