"""The tools of a run in a process: made once, whatever runs its tasks, and closed with the run."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Generic, Protocol, TypeVar

from tasks.checkpoints import Step
from tasks.postgres import Database, open_database
from tasks.settings import Settings, load_settings
from tasks.tally import Tally


class Tools(Protocol):
    """What a run works with: database, connections, doors."""

    stop: threading.Event

    def close(self) -> None:
        """Stop all loops and give everything back."""


class PageTools:
    """The part of it that every workload has whose pages claim and work side by side. Safe for threads.

    slots    pages that work at the same time in one process
    claimed  rows each page has claimed, by its number, over all its attempts
    closing  what is given back at the end
    """

    def __init__(self, database: Database, tally: Tally, pages_at_once: int) -> None:
        self.database = database
        self.tally = tally
        self.stop = threading.Event()
        self.slots = threading.Semaphore(pages_at_once)
        self.claimed = Counter[int]()
        self.closing = ExitStack()

    def close(self) -> None:
        """Stop all loops and give everything back."""
        self.stop.set()
        self.closing.close()


T = TypeVar("T", bound=Tools)


class Toolboxes(Generic[T]):
    """The toolboxes of one workload, by run.

    make   (job, settings, database, tally) -> tools; the job has a `run_id`
    steps  of the workload
    """

    def __init__(self, make: Callable[[Any, Settings, Database, Tally], T], steps: Sequence[Step]) -> None:
        self._make = make
        self._steps = [step.name for step in steps]
        self._of_run: dict[str, T] = {}
        self._lock = threading.Lock()

    def of(self, job: Any) -> T:
        """The tools of this run in this process, made at the first call."""
        with self._lock:
            if job.run_id not in self._of_run:
                settings = load_settings()
                tally = Tally(self._steps)
                self._of_run[job.run_id] = self._make(job, settings, open_database(settings), tally)
            return self._of_run[job.run_id]

    @contextmanager
    def opened(self, job: Any, database: Database, tally: Tally) -> Iterator[T]:
        """The tools of the flow's own process; at the end every loop sees `stop`, then all is closed.

        They stay where pages look for them until the next run: a page that starts late finds them stopped, and
        makes no others.
        """
        with self._lock:
            for ended in [run_id for run_id, tools in self._of_run.items() if tools.stop.is_set()]:
                del self._of_run[ended]
            tools = self._of_run[job.run_id] = self._make(job, load_settings(), database, tally)
        try:
            yield tools
        finally:
            tools.close()
