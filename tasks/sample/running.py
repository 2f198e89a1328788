"""Runs a sample server: in a thread of this process for a test, or as a process of its own for anything else."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tasks.errors import ConfigurationError
from tasks.sample.conversation import AnyOffice
from tasks.sample.faults import NAMED, Faults, Outage, load_faults
from tasks.sample.server import PortalServer
from tasks.sample.witness import RequestRecord, Witness

T = TypeVar("T")
PARENT_CHECK_S = 0.5

AnyFaults = Faults | Mapping[str, Any] | str
"""A set of faults, its JSON object, its JSON text, or the name of a set."""


class InThread:
    """A server in a thread of this process, as a context manager; `url` is its address meanwhile.

    faults     may also be assigned while it runs
    latency_ms added to every answer, whatever the faults
    log        also write the request log to this file, as JSON lines
    """

    def __init__(
        self, office: AnyOffice, *, seed: int, faults: AnyFaults, latency_ms: float, log: Path | None, port: int
    ) -> None:
        self.url = ""
        self._port = port
        self._witness = Witness(log)
        self._server = PortalServer(office, self._witness, load_faults(faults), seed=seed, latency_ms=latency_ms)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sample-server", daemon=True)
        self._thread.start()
        try:
            self.url = f"http://127.0.0.1:{self._run(self._server.start(port=self._port))}"
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._server.stop())
        self._end_loop()

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request so far, oldest first; those under way have status 0."""
        return list(self._witness.records)

    @property
    def connections(self) -> int:
        """Connections open now."""
        return self._witness.connections_open

    @property
    def faults(self) -> Faults:
        """The set at work; assigning one switches at once, and its counts start anew."""
        return self._server.faults

    @faults.setter
    def faults(self, faults: AnyFaults) -> None:
        chosen = load_faults(faults)
        self._run(_call(self._server.apply, chosen))

    def go_down(self, lasts_s: float, how: str = "refuse") -> None:
        """Everything is away from now on for a while: connections are refused, or accepted and reset."""
        outage = Outage.model_validate({"lasts_s": lasts_s, "how": how})
        self._run(_call(self._server.go_down, outage))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._witness.close()


async def _call(function: Any, *args: Any) -> None:
    function(*args)


# --- as a process ---


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options every sample server has."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=0, help="0 takes a free one")
    add("--seed", type=int, default=7, help="the same seed gives the same content and faults")
    add("--faults", default="none", help=f"{', '.join(NAMED)}, or a set in JSON")
    add("--latency-ms", type=float, default=0.0, help="added to every answer")
    add("--log", type=Path, default=None, help="write every request to this file, as JSON lines")
    add("--die-with-parent", action="store_true", help="stop when the process that started this one is gone")


Opened = tuple[AnyOffice, Callable[[], Mapping[str, object]]]
"""Who answers, and what the first line says beside `url` and `pid`: asked once the port is ours."""


def run_process(options: argparse.Namespace, open_office: Callable[[], Opened], parent: int) -> int:
    """Serve until SIGTERM, SIGINT or the end of the parent; returns the exit code.

    parent  the process that started us, looked up before anything that takes time: it may end while we start
    """
    try:
        asyncio.run(_serve(options, open_office, parent))
    except BrokenPipeError:
        return 1  # whoever started us left before we were ready
    except ConfigurationError as exc:
        print(exc, file=sys.stderr)  # noqa: T201 - this is a command
        return 2
    return 0


async def _serve(options: argparse.Namespace, open_office: Callable[[], Opened], parent: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    office, announcement = open_office()
    witness, faults = Witness(options.log), load_faults(options.faults)
    server = PortalServer(office, witness, faults, seed=options.seed, latency_ms=options.latency_ms)
    port = await server.start(options.host, options.port)
    try:
        ready = {"url": f"http://{options.host}:{port}", "pid": os.getpid(), **announcement()}
        print(json.dumps(ready), flush=True)  # noqa: T201 - whoever started us waits for this line
        if options.die_with_parent:
            await _until_orphaned(stop, parent)
        await stop.wait()
    finally:
        await server.stop()
        witness.close()


async def _until_orphaned(stop: asyncio.Event, parent: int) -> None:
    """Wait for `stop` or another parent. Asked twice a second, because PR_SET_PDEATHSIG fires too early: as
    soon as the *thread* that started us ends."""
    while not stop.is_set() and os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PARENT_CHECK_S)
    stop.set()
