"""Local services that live exactly as long as somebody uses them (embedded Postgres, Prefect server).

Every user holds a shared `flock` on the service's `holders` file. A supervisor process starts the program
and waits for the exclusive lock: when it gets it, nobody is left and it ends the program. The kernel drops
the lock of a process that was killed, so a SIGKILL of every user leaves nothing running.
The supervisor has its own session, so signals to a user's process group do not reach the service.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.service_state import lives, read_state, write_state
from tasks.service_supervisor import STOP_TIMEOUT_S


@dataclass(frozen=True)
class Service:
    """What to run and how to know that it works.

    folder        state, log and locks; one service per folder
    command       argument list, run in `folder`
    probe         true when the service answers; called until it is or `start_timeout_s` passed
    stop_signal   what ends the program in good order
    facts         kept in the state file, given back to every user (an address, a port)
    user          system user to run as, when the caller is root and the program refuses root
    """

    name: str
    folder: Path
    command: Sequence[str]
    probe: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    environment: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    start_timeout_s: float = 60.0


_lock = threading.Lock()
_held: dict[Path, int] = {}
_supervisors: list[subprocess.Popen[bytes]] = []
"""Those this process started; kept so that ended ones are reaped and no warning is given for the others."""


def hold(folder: Path, make: Callable[[], Service]) -> tuple[dict[str, str], bool]:
    """Use the service of this folder until this process ends, starting it when nobody has.

    Returns its facts and whether this call started it. `make` is called only to start one.
    Raises OutsideUnreachable when it does not come up, naming the log, and ConfigurationError when the
    folder cannot be used.
    """
    with _lock:
        if folder not in _held:
            _held[folder] = _entered(folder)
        with _locked_file(folder / "starting") as starting:
            facts = running(folder)
            if facts is not None:
                return facts, False
            _end_leftovers(folder)
            return _start(make(), starting), True


def _entered(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _locked(folder / "holders", fcntl.LOCK_SH)
    except OSError as exc:
        raise ConfigurationError(
            f"{folder} cannot be used ({exc.strerror}); set LANDRECORDS_HOME to a folder you may write in."
        ) from exc


def let_go(folder: Path) -> None:
    """Stop using the service before this process ends (the supervisor stops it when nobody is left)."""
    with _lock:
        descriptor = _held.pop(folder, None)
        if descriptor is not None:
            os.close(descriptor)


def running(folder: Path) -> dict[str, str] | None:
    """Facts of the service if it was ready once and its supervisor and program are alive, else None."""
    state = read_state(folder)
    alive = lives(state, "program") and lives(state, "supervisor")
    return dict(state["facts"]) if alive and state["ready"] else None


def wait_until_gone(folder: Path, timeout_s: float = 15.0) -> bool:
    """True once nothing of the service runs any more."""

    def gone() -> bool:
        state = read_state(folder)
        return not lives(state, "program") and not lives(state, "supervisor")

    return _wait_until(gone, timeout_s)


def _wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _end_leftovers(folder: Path) -> None:
    """End a service that was never ready because its starter was killed, and a program without supervisor."""
    state = read_state(folder)
    _end_process(state, "supervisor", signal.SIGTERM)
    _end_process(state, "program", signal.Signals(state.get("stop_signal", signal.SIGTERM)))


def _end_process(state: Mapping[str, Any], role: str, stop_signal: signal.Signals) -> None:
    for number in (stop_signal, signal.SIGKILL):
        if lives(state, role):
            with contextlib.suppress(ProcessLookupError):
                os.kill(state[role], number)
            _wait_until(lambda: not lives(state, role), STOP_TIMEOUT_S + 2)


def _start(service: Service, starting: int) -> dict[str, str]:
    """Run the supervisor. It shares the `starting` lock until its state file is written, so that a service
    whose starter is killed meanwhile is still found by the next one."""
    request = {
        "command": list(service.command),
        "environment": dict(service.environment),
        "facts": dict(service.facts),
        "stop_signal": int(service.stop_signal),
        "user": service.user,
        "starting": starting,
    }
    (service.folder / "state.json").unlink(missing_ok=True)
    log = (service.folder / "log").open("ab")
    with log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "tasks.service_supervisor", str(service.folder), json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[starting],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
    _supervisors[:] = [s for s in _supervisors if s.poll() is None] + [supervisor]
    _wait_for(service, supervisor)
    return dict(service.facts)


def _wait_for(service: Service, supervisor: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + service.start_timeout_s
    while time.monotonic() < deadline:
        state = read_state(service.folder)
        if lives(state, "program") and service.probe():
            write_state(service.folder, {**state, "ready": True})
            return
        if supervisor.poll() is not None:
            break
        time.sleep(0.05)
    supervisor.terminate()
    supervisor.wait(timeout=STOP_TIMEOUT_S + 2)
    raise OutsideUnreachable(
        f"the local {service.name} did not start; its log {service.folder / 'log'} says: "
        f"{_last_line(service.folder / 'log')}"
    )


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else "(nothing)"


def _locked(path: Path, kind: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, kind)
    return descriptor


@contextlib.contextmanager
def _locked_file(path: Path) -> Iterator[int]:
    descriptor = _locked(path, fcntl.LOCK_EX)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
