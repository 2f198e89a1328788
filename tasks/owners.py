"""Who works on a page of rows: a name that tells whether its process is still alive."""

from __future__ import annotations

import itertools
import os
import socket
from functools import cache
from pathlib import Path

from tasks.service_state import process_started


@cache
def machine() -> str:
    """This machine and process space; two that share a pid space share this name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        space = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        boot, space = "0", "0"
    return f"{socket.gethostname()}/{boot}/{space}"


_numbers = itertools.count(1)


def new_owner() -> str:
    """A name for one page of work that says which process does it: machine/pid/start/number."""
    pid = os.getpid()
    return f"{machine()}/{pid}/{process_started(pid)}/{next(_numbers)}"


def is_dead(owner: str) -> bool:
    """True when the owner was a process of this machine that has ended. Others are judged by their lease."""
    name, *process = owner.rsplit("/", 3)
    return name == machine() and process_started(int(process[0])) != process[1]
