"""What is known of a local service: a file in its folder, and whether the processes it names still live."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def read_state(folder: Path) -> dict[str, Any]:
    """As it was written last; empty where it was not."""
    try:
        return dict(json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError):
        return {}


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """There, whole, or not."""
    temporary = folder / "state.json.new"
    temporary.write_text(json.dumps(state))
    temporary.replace(folder / "state.json")


def lives(state: Mapping[str, Any], role: str) -> bool:
    """Whether the `program` or `supervisor` it tells of is still that process."""
    return state.get("boot") == boot() and process_started(state[role]) == state[f"{role}_started"]


@cache
def boot() -> str:
    """Names this start of the machine: after the next one, other processes have the numbers of ours."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def process_started(pid: int) -> str | None:
    """Start time of a live process in clock ticks since boot, None when there is none. With the pid it
    names a process for ever: numbers are reused, start times are not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return _start_time_without_proc(pid)
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _start_time_without_proc(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        return None
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None
