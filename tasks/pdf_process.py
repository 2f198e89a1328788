"""One PDF worker process as its parent sees it: started, asked, timed, killed, blamed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError, LandrecordsError, StopRequested, TerminalError, TransientError
from tasks.records import Reason

TICK_S = 0.1
"""How often a waiting call looks whether it should stop."""

_START_TIMEOUT_S = 60.0
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_KILLED_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Stops:
    """The events that tell a waiting call to give up."""

    def __init__(self, *events: threading.Event | None) -> None:
        self._events = [event for event in events if event is not None]

    def check(self) -> None:
        """Raises StopRequested when any of them is set."""
        if any(event.is_set() for event in self._events):
            raise StopRequested("The run is stopping; the document was left as it is.")


class Died(Exception):
    """The worker ended (`returncode`), or took longer than `timeout_s` (None)."""

    def __init__(self, returncode: int | None, timeout_s: float) -> None:
        super().__init__(returncode)
        self.returncode = returncode
        self.timeout_s = timeout_s


class Worker:
    """One process. Used by one call at a time; only `kill` may come from another thread."""

    def __init__(self, memory_bytes: int) -> None:
        life_fd, self._life = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.pdf_worker", str(life_fd), str(memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # C libraries chatter there
                pass_fds=(life_fd,),
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for the run, which then ends its workers
            )
        except BaseException:
            os.close(self._life)
            raise
        finally:
            os.close(life_fd)
        assert self._process.stdin  # noqa: S101 - PIPE
        assert self._process.stdout  # noqa: S101 - PIPE
        self._requests, self._replies = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """Process id, which is also its group's."""
        return self._process.pid

    def alive(self) -> bool:
        """The process runs."""
        return self._process.poll() is None

    def greet(self, stops: Stops) -> None:
        """Wait until it has loaded its libraries. Raises ConfigurationError when it cannot."""
        try:
            greeting = self._reply(_START_TIMEOUT_S, stops)
        except Died as died:
            stops.check()
            if died.returncode is None or -died.returncode in _KILLED_FROM_OUTSIDE:
                raise TransientError(Reason.INTERNAL, "The PDF worker was killed as it started.") from None
            greeting = {"failed": f"exit {died.returncode}"}
        if "failed" in greeting:
            raise ConfigurationError(
                f"The PDF worker does not start ({greeting['failed']}); `make setup` installs what it needs."
            )

    def ask(self, request: dict[str, Any], timeout_s: float, stops: Stops) -> dict[str, Any]:
        """Send a request and wait for its reply. Raises Died or StopRequested."""
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        except BrokenPipeError:
            raise Died(self._process.wait(), timeout_s) from None
        return self._reply(timeout_s, stops)

    def kill(self) -> None:
        """End the process; a call that waits for it sees its pipe close."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it and give everything back."""
        self.kill()
        self._process.wait()
        os.close(self._life)
        for pipe in (self._requests, self._replies):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _reply(self, timeout_s: float, stops: Stops) -> dict[str, Any]:
        deadline, pieces = time.monotonic() + timeout_s, bytearray()
        watch = select.poll()
        watch.register(self._replies, select.POLLIN)
        while not pieces.endswith(b"\n"):
            stops.check()
            rest_s = deadline - time.monotonic()
            if rest_s <= 0:
                raise Died(None, timeout_s)
            if watch.poll(min(TICK_S, rest_s) * 1000):
                pieces += self._piece(timeout_s)
        reply: dict[str, Any] = json.loads(pieces)
        return reply

    def _piece(self, timeout_s: float) -> bytes:
        piece = os.read(self._replies.fileno(), 1 << 16)
        if not piece:
            raise Died(self._process.wait(), timeout_s)
        return piece


def blame(died: Died) -> LandrecordsError:
    """Whose fault a dead worker is: a signal from outside is nobody's, anything else the document's."""
    if died.returncode in (None, -signal.SIGALRM):
        message = f"The document could not be read within {died.timeout_s:g} s; look at it by hand."
        return TerminalError(Reason.TIMEOUT, message)
    if died.returncode is not None and -died.returncode in _KILLED_FROM_OUTSIDE:
        message = "The PDF worker was killed from outside (out of memory?); the document is tried again."
        return TransientError(Reason.INTERNAL, message)
    message = f"The document makes the PDF reader crash (exit {died.returncode}); look at it by hand."
    return TerminalError(Reason.DAMAGED, message)


def _environment() -> dict[str, str]:
    """What a worker needs to import what we import; no secrets, since it reads what strangers wrote."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
