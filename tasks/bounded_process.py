"""Run a program that may hang, run away or outlive us: bounded in time, memory, file size; killed as a group.

Bounds come from programs of util-linux put before the command, since preexec_fn is unsafe with threads. Where
they are missing (macOS), only the time is bounded.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from tasks.errors import StopRequested

TICK_S = 0.2
"""How often a wait looks whether it should stop."""

_MEMORY_BYTES = 3 << 30
_FILE_BYTES = 4 << 30
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "GS_LIB", "GS_FONTPATH")


def execute(command: list[str], folder: Path, output: int, *, timeout_s: float, stop: threading.Event | None) -> int:
    """Run `command` in `folder`, which takes its temporary files; what it prints goes to descriptor `output`.

    Returns the exit code. Raises TimeoutError or StopRequested once the program is dead, OSError when it does
    not start.
    """
    process = subprocess.Popen(
        [*_limits(math.ceil(timeout_s)), *command],
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        return _wait(process, timeout_s, stop)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def check_stop(stop: threading.Event | None) -> None:
    """Raises StopRequested when the event is set."""
    if stop is not None and stop.is_set():
        raise StopRequested("The run is stopping; the document was left as it is.")


def _limits(cpu_s: int) -> list[str]:
    """Programs of util-linux that bound a command and tie it to us.

    The parent-death signal fires when the *thread* that started it ends, and that thread waits.
    """
    limits: list[str] = []
    if _works("prlimit", "--core=0"):
        limits += ["prlimit", f"--as={_MEMORY_BYTES}", f"--fsize={_FILE_BYTES}", f"--cpu={cpu_s}", "--core=0"]
    if _works("setpriv", "--pdeathsig", "KILL"):
        limits += ["setpriv", "--pdeathsig", "KILL"]
    return limits


@cache
def _works(*command: str) -> bool:
    """The program exists and knows the option (BusyBox has a setpriv that does not)."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0


def _wait(process: subprocess.Popen[bytes], timeout_s: float, stop: threading.Event | None) -> int:
    deadline = time.monotonic() + timeout_s
    with _ends(process) as ended:
        while True:
            check_stop(stop)
            rest_s = deadline - time.monotonic()
            if rest_s <= 0:
                raise TimeoutError(timeout_s)
            if ended(min(TICK_S, rest_s)):
                return process.wait()


@contextlib.contextmanager
def _ends(process: subprocess.Popen[bytes]) -> Iterator[Callable[[float], bool]]:
    """A function that waits so many seconds for the end (Popen.wait with a timeout naps up to 50 ms)."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or older than 5.3
        yield lambda wait_s: _naps_until_end(process, wait_s)
        return
    watch = select.poll()
    watch.register(descriptor, select.POLLIN)
    try:
        yield lambda wait_s: bool(watch.poll(wait_s * 1000))
    finally:
        os.close(descriptor)


def _naps_until_end(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(wait_s)
        return True
    return False


def _environment(folder: Path) -> dict[str, str]:
    """Temporary files stay in the folder; GS_OPTIONS and secrets stay out."""
    inherited = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**inherited, "LC_ALL": "C", "HOME": str(folder), "TMPDIR": str(folder), "TEMP": str(folder)}
