"""The connections to one server, shared by every caller in the process."""

from __future__ import annotations

import threading
import time
from collections import deque

from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested
from tasks.sftp_batch import Batch, Task
from tasks.sftp_login import Server
from tasks.sftp_owner import Owner, Timeouts

REST_S = 30.0
"""Before another extra connection is tried where one could not be had."""


class Pool:
    """Up to `connections` owners that take their work from one queue. Safe for threads.

    Connections are made as work needs them: the second when the first has logged in, so a wrong password costs one
    attempt, and has more to do than it can have in flight. A refused login is remembered and never repeated.

    proven   somebody logged in once, so the server is worth waiting for
    refusal  why nobody will
    users    callers that have not closed it
    """

    def __init__(self, server: Server, connections: int, depth: int, timeouts: Timeouts) -> None:
        self.proven = False
        self.closing = threading.Event()
        self.refusal: ConfigurationError | None = None
        self.users = 0
        self._server = server
        self._connections = connections
        self._depth = depth
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._work: deque[Task] = deque()
        self._batches: set[Batch] = set()
        self._owners: list[Owner] = []
        self._rest_until_s = 0.0

    @property
    def window(self) -> int:
        """What one caller may have under way: enough to keep every connection busy while it looks at results."""
        return 2 * self._connections * self._depth

    def submit(self, task: Task) -> None:
        """Raises what the server refused us for."""
        with self._lock:
            if self.refusal is not None:
                raise ConfigurationError(str(self.refusal))
            if self.closing.is_set():
                raise self._closed()
            self._work.append(task)
            self._batches.add(task.batch)
            if not self._owners:
                self._hire()
            for owner in self._owners:
                owner.bell.set()

    def cancel(self, batch: Batch) -> None:
        """The caller went away."""
        batch.cancelled = True
        with self._lock:
            self._batches.discard(batch)
            self._work = deque(task for task in self._work if task.batch is not batch)

    def take(self, room: int, alone: bool) -> list[Task]:
        """Work for an owner that has room; another owner comes where there is more than that.

        alone  nothing else is in flight there: it may have a suspect, and then gets nothing else
        """
        with self._lock:
            taken: list[Task] = []
            while self._work and len(taken) < room and not self._work[0].suspect:
                taken.append(self._work.popleft())
            if alone and room and self._work and not taken:
                taken.append(self._work.popleft())
            rested = time.monotonic() > self._rest_until_s
            if self._work and rested and len(self._owners) < self._connections:
                self._hire()
            return taken

    def put_back(self, tasks: list[Task]) -> None:
        """What an owner could not finish comes first."""
        with self._lock:
            self._work.extendleft(task for task in reversed(tasks) if not task.batch.cancelled)
            for owner in self._owners:
                owner.bell.set()

    def has_work(self) -> bool:
        return bool(self._work)

    def left(self, owner: Owner, error: Exception | None) -> None:
        """An owner ends. Its error is everybody's, unless it could just not connect and others can."""
        with self._lock:
            self._owners.remove(owner)
            if isinstance(error, ConfigurationError):
                self.refusal = error
            if self._owners and (error is None or isinstance(error, OutsideUnreachable)):
                self._rest_until_s = time.monotonic() + REST_S if error else 0.0
            elif error is not None or self.closing.is_set():
                self._give_up(error or self._closed())
            elif self._work:  # it came just when an owner had waited long enough
                self._hire()

    def close(self) -> None:
        """End every connection; who waits for results gets StopRequested."""
        self.closing.set()
        with self._lock:
            if not self._owners:
                self._give_up(self._closed())
            for owner in self._owners:
                owner.bell.set()

    def _give_up(self, error: Exception) -> None:
        for batch in self._batches:
            batch.put(error)
        self._work.clear()

    def _closed(self) -> StopRequested:
        return StopRequested(f"The connections to {self._server} are closed.")

    def _hire(self) -> None:
        owner = Owner(self._server, self, self._depth, self._timeouts)
        owner.start()
        self._owners.append(owner)  # it cannot have left yet: the lock is ours
