"""What the flows have in common: called as plain functions they find their server, end in time, and hide secrets."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from prefect import Flow
from prefect.exceptions import ParameterTypeError
from pydantic import SecretStr

from flows.blocks import refuse_password
from flows.forms import explained
from flows.local import prefect_api
from tasks.errors import LandrecordsError
from tasks.settings import load_settings

TERMINATED = 143
"""Exit code after a SIGTERM, as shells have it."""

EXIT_WITHIN_S = 2.0

_own_process = threading.Event()
"""Set while a flow runs as a plain function in a process where nobody else handles SIGTERM."""

P = ParamSpec("P")
R = TypeVar("R")


def _use_few_arenas() -> None:
    """glibc gives every thread an arena of its own that never shrinks: two save a flow some 30 MB."""
    m_arena_max = -8  # malloc.h
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(m_arena_max, 2)


_use_few_arenas()


class Workload(Flow[P, R], Generic[P, R]):
    """A flow that, called as a plain function, finds or starts the Prefect server it needs."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the flow. Deployments do not pass here: their worker has its server already.

        A mistake or an error raised on purpose comes without the sixty lines of Prefect's inside: its sentence says
        everything, and is all that a script which does not catch it ends with.
        """
        sys.excepthook = _say_plainly
        for address in _addresses([args, kwargs]):
            refuse_password(address)
        with terminable(), prefect_api(load_settings()):
            try:
                return super().__call__(*args, **_veiled(self.fn, kwargs))
            except ON_PURPOSE as exc:
                raise exc.with_traceback(None) from None


ON_PURPOSE = (LandrecordsError, ParameterTypeError)

_former_hook = sys.excepthook


def _say_plainly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, ON_PURPOSE):
        print(f"landrecords: {error}", file=sys.stderr)  # noqa: T201 - the end of a script
    else:
        _former_hook(kind, error, trace)


_ADDRESS = re.compile(r"\w[\w+.-]*://[^\s\"']+")


def _addresses(given: Any) -> Iterator[str]:
    """What may be an address: every text in the arguments, those within maps and lists too, and what is in a text."""
    if isinstance(given, str):
        yield from (given, *_ADDRESS.findall(given))
    elif isinstance(given, dict | list | tuple):
        for inner in given.values() if isinstance(given, dict) else given:
            yield from _addresses(inner)


def _veiled(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with plain text for a secret made one: Prefect writes every argument into its database."""
    secret = {name for name, hint in function.__annotations__.items() if "SecretStr" in str(hint)}
    return {name: SecretStr(v) if name in secret and isinstance(v, str) else v for name, v in given.items()}


def workload(**options: Any) -> Callable[[Callable[P, R]], Workload[P, R]]:
    """`@flow` for the workloads; takes the same options."""
    return lambda function: Workload(_leaving_in_time(explained(function)), **options)


SERVED_BY = "LANDRECORDS_SERVED_BY"
"""Environment variable: pid of the `landrecords up` whose child a flow run is."""

LAST_WORDS_S = 5.0


def _end_with_server() -> None:
    """A run whose `landrecords up` was killed has lost portal and Prefect API, and would wait for them for ever
    (Prefect 3.8.8): it is told to stop, releases its rows, and ends."""
    server = os.getppid()
    if os.environ.get(SERVED_BY) == str(server):
        threading.Thread(target=_wait_for_the_end_of, args=(server,), name="parent", daemon=True).start()


def _wait_for_the_end_of(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_WORDS_S)
    os._exit(TERMINATED)  # it waits for the API to take its state


_end_with_server()


class _OnPurpose(logging.Filter):
    """Errors raised on purpose say in their sentence what happened and what to do: Prefect logs no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, LandrecordsError):
            record.msg, record.args, record.exc_info = "%s", (str(error),), None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_OnPurpose())


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C does, so that rows are released; only where nobody else handles it."""
    mine = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not mine:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    _own_process.set()
    try:
        yield
    finally:
        _own_process.clear()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(_number: int, _frame: Any) -> None:
    raise SystemExit(TERMINATED)


def _leaving_in_time(function: Callable[P, R]) -> Callable[P, R]:
    """The function; where SIGTERM is ours, a process that gets one in it is gone within EXIT_WITHIN_S.

    The rows are given back within a second. Prefect then reports every page to its server, each of which may
    wait 2 s for a busy SQLite or 15 s for its next attempt; what it leaves undone, `tasks.dead_runs` does.
    """

    @functools.wraps(function)
    def leaving_in_time(*args: P.args, **kwargs: P.kwargs) -> R:
        prefects = signal.getsignal(signal.SIGTERM)
        if not (_own_process.is_set() and callable(prefects)):
            return function(*args, **kwargs)

        def handler(number: int, frame: FrameType | None) -> None:
            timer = threading.Timer(EXIT_WITHIN_S, os._exit, (TERMINATED,))
            timer.daemon = True
            timer.start()
            prefects(number, frame)

        signal.signal(signal.SIGTERM, handler)
        try:
            return function(*args, **kwargs)
        finally:
            signal.signal(signal.SIGTERM, prefects)

    return leaving_in_time
