"""Work for the connections of a pool, and the place where one caller waits for what becomes of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from tasks.errors import ItemError, StopRequested
from tasks.sftp_items import Failure, Result
from tasks.sftp_jobs import Meter, Steps

TICK_S = 0.1
SUSPECT_LOSSES = 2


class Batch:
    """What one caller has under way. Connections put results in; the caller's thread takes them out.

    cancelled  the caller went away: what is still in flight is given up at its next reply
    """

    def __init__(self) -> None:
        self.cancelled = False
        self._arrived: SimpleQueue[Result | Exception] = SimpleQueue()

    def put(self, result: Result | Exception) -> None:
        """A result, or what ends the whole batch."""
        self._arrived.put(result)

    def take(self, stop: threading.Event | None) -> Result:
        """The next result. Raises StopRequested within TICK_S where none has arrived, or what ended the batch."""
        while True:
            stopping = stop is not None and stop.is_set()
            try:
                result = self._arrived.get(block=not stopping, timeout=TICK_S)
            except Empty:
                if stopping:
                    raise StopRequested("The run is stopping; what was in flight is given up.") from None
                continue
            if isinstance(result, Exception):
                raise result
            return result


@dataclass(eq=False, slots=True)
class Task:
    """One file or folder.

    begin    the conversation about it; again from the start after a connection broke, and then carefully
    losses   connections that broke while it was in flight
    """

    id: Any
    begin: Callable[[Meter, bool], Steps[Any]]
    batch: Batch
    meter: Meter = field(default_factory=Meter)
    losses: int = 0

    @property
    def suspect(self) -> bool:
        """It may be what connections break over (a file that hangs or kills the server): to be tried alone."""
        return self.losses >= SUSPECT_LOSSES

    def start(self) -> Steps[Any]:
        """Begin, or begin anew."""
        self.meter = Meter()
        return self.begin(self.meter, self.losses > 0)

    def fail(self, error: ItemError) -> None:
        """Hand it back to its caller; without the frames of the job: a caller may keep thousands of failures."""
        self.batch.put(Failure(self.id, error.with_traceback(None), self.meter.bytes_read))
