"""Runs the program of a local service as long as somebody uses it: `python -m tasks.service_supervisor FOLDER REQUEST`.

See tasks.services, which starts it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tasks.service_state import boot, process_started, write_state

LINGER_S = 1.0
"""How long a service outlives its last user, so that runs in a row share it."""

STOP_TIMEOUT_S = 20.0
"""How long a program may take to end in good order."""


def supervise(folder: Path, request: dict[str, Any]) -> int:
    """Run the program until it ends, or until nobody holds the service any more."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the program would inherit
    program = _run_program(folder, request)
    write_state(folder, _first_state(program.pid, request))
    os.close(request["starting"])
    users = _wait_for_last_user(folder, program, stopping)
    _end(program, signal.Signals(request["stop_signal"]))
    (folder / "state.json").unlink(missing_ok=True)
    os.close(users)
    return 0


def _run_program(folder: Path, request: dict[str, Any]) -> subprocess.Popen[bytes]:
    user = request["user"]
    identity: dict[str, Any] = {"user": user, "group": _group_of(user), "extra_groups": []} if user else {}
    environment = {**os.environ, **request["environment"]}
    return subprocess.Popen(request["command"], cwd=folder, env=environment, stdin=subprocess.DEVNULL, **identity)


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _first_state(pid: int, request: dict[str, Any]) -> dict[str, Any]:
    return {
        "program": pid,
        "program_started": process_started(pid),
        "supervisor": os.getpid(),
        "supervisor_started": process_started(os.getpid()),
        "stop_signal": request["stop_signal"],
        "boot": boot(),
        "facts": request["facts"],
        "ready": False,
    }


def _wait_for_last_user(folder: Path, program: subprocess.Popen[bytes], stopping: threading.Event) -> int:
    """Returns once nobody held the service for LINGER_S, with the users' file locked so that nobody comes
    meanwhile; or, unlocked, once the program ended by itself or a SIGTERM came."""
    descriptor = os.open(folder / "holders", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    unused_since: float | None = None
    while program.poll() is None and not stopping.wait(0.2):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            unused_since = None
            continue
        unused_since = unused_since or time.monotonic()
        if time.monotonic() - unused_since >= LINGER_S:
            return descriptor
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    return descriptor


def _end(program: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    if program.poll() is not None:
        return
    program.send_signal(stop_signal)
    try:
        program.wait(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]), json.loads(sys.argv[2])))
