"""The thread that owns one connection: builds it, keeps it busy, rebuilds it, gives it up when it idles."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from tasks.errors import OutsideUnreachable, TransientError
from tasks.records import Reason
from tasks.sftp_batch import Batch, Task
from tasks.sftp_jobs import check_alive
from tasks.sftp_login import Dropped, Server
from tasks.sftp_session import Bell, Lost, Session, Stalled, connect
from tasks.sftp_talk import Talk
from tasks.sftp_wire import Garbled

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0
MOST_LOSSES = 3
"""Twice in a crowd, once alone: then a file is given back to its caller."""

MOST_FRUITLESS = 5
"""Connections in a row that ended before a single answer."""


@dataclass(frozen=True)
class Timeouts:
    """How long to wait.

    connect_s    for each half of a login: up to the host key, and from there to the SFTP channel
    stall_s      without a byte from a server that owes an answer
    operation_s  until the answer to one request
    patience_s   for a connection to come (back): a server that restarts, or drops logins (MaxStartups)
    fresh_s      that a connection may idle and be used without a check
    check_s      for the sign of life of one that idled longer
    idle_s       that an unused connection is kept for
    """

    connect_s: float = 15
    stall_s: float = 30
    operation_s: float = 120
    patience_s: float = 45
    fresh_s: float = 15
    check_s: float = 5
    idle_s: float = 120


class Queue(Protocol):
    """Where an owner gets work from: the pool."""

    proven: bool
    closing: threading.Event

    def take(self, room: int, alone: bool) -> list[Task]: ...

    def put_back(self, tasks: list[Task]) -> None: ...

    def has_work(self) -> bool: ...

    def left(self, owner: Owner, error: Exception | None) -> None: ...


class Owner:
    """Keeps up to `depth` files and folders in flight on one connection; ends when there was nothing to do for long."""

    def __init__(self, server: Server, queue: Queue, depth: int, timeouts: Timeouts) -> None:
        self.bell = Bell()
        self._server = server
        self._queue = queue
        self._depth = depth
        self._timeouts = timeouts
        self._fruitless = 0

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"sftp {self._server}", daemon=True).start()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            while (session := self._connect()) is not None and self._serve(session):
                pass
        except Exception as exc:  # noqa: BLE001 - callers wait for this thread: a mistake in it must reach them
            error = exc
        self._queue.left(self, error)

    def _connect(self) -> Session | None:
        """A new connection, with patience; None when the pool is closing. Raises as `connect`."""
        pause_s, deadline_s = FIRST_PAUSE_S, time.monotonic() + self._timeouts.patience_s
        self._queue.closing.wait(self._fruitless * FIRST_PAUSE_S)
        while not self._queue.closing.is_set():
            try:
                session = connect(self._server, self._timeouts.connect_s)
            except OutsideUnreachable as exc:
                wait_s = pause_s * random.uniform(0.5, 1.5)  # noqa: S311
                passing = isinstance(exc, Dropped) or self._queue.proven
                if not passing or time.monotonic() + wait_s > deadline_s:
                    raise
                self._queue.closing.wait(wait_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                self._queue.proven = True
                return session
        return None

    def _serve(self, session: Session) -> bool:
        """Use a connection until it idles or breaks; returns whether another one is needed."""
        session.ring(self.bell)
        talk = Talk(session, self._timeouts.stall_s, self._timeouts.operation_s)
        try:
            self._keep_busy(talk)
            return False
        except (Lost, Garbled) as exc:
            self._recover(talk, exc)
            return self._queue.has_work()
        finally:
            session.close()

    def _keep_busy(self, talk: Talk) -> None:
        used_s = time.monotonic()
        while not self._queue.closing.is_set():
            talk.hear()
            idle_s = 0.0 if talk else time.monotonic() - used_s
            if idle_s > self._timeouts.fresh_s and self._queue.has_work():
                self._check(talk)
            for task in self._queue.take(0 if talk.is_shy else self._depth - len(talk), alone=not talk):
                talk.start(task)
            talk.speak()
            if talk:
                used_s = time.monotonic()
                self.bell.wait_and_silence(talk.require_alive())
            elif idle_s > self._timeouts.idle_s:
                return
            else:
                self.bell.wait_and_silence(self._timeouts.idle_s - idle_s + 0.01)

    def _check(self, talk: Talk) -> None:
        """One round trip before anything is entrusted to a connection that idled. Raises Lost."""
        deadline_s = time.monotonic() + self._timeouts.check_s
        nobody = Batch()
        nobody.cancelled = True
        talk.start(Task(None, lambda _meter, _careful: check_alive(), nobody))
        talk.speak()
        while talk:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise Stalled("no sign of life after idling")
            self.bell.wait_and_silence(left_s)
            talk.hear()

    def _recover(self, talk: Talk, broke: Exception) -> None:
        """Put back what was in flight, but for what was in flight too often."""
        reason = Reason.TIMEOUT if isinstance(broke, Stalled) else Reason.CONNECTION
        again = []
        for task in talk.in_flight():
            task.losses += 1
            if task.losses < MOST_LOSSES:
                again.append(task)
            else:
                message = f"The connection to {self._server} broke over it ({broke}); it is tried again later."
                task.fail(TransientError(reason, message))
        self._queue.put_back(again)
        self._fruitless = 0 if talk.answered else self._fruitless + 1
        if self._fruitless >= MOST_FRUITLESS:
            raise OutsideUnreachable(f"{self._server} takes logins and answers nothing ({broke}); try again later.")
