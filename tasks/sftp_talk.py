"""Many conversations about files and folders, interleaved on one SFTP channel."""

from __future__ import annotations

import time
from typing import Any

from tasks.errors import ItemError, StopRequested
from tasks.sftp_batch import Task
from tasks.sftp_jobs import Steps
from tasks.sftp_session import Session, Stalled
from tasks.sftp_wire import Garbled, Kind, Packets, Reply, Request


class _Running:
    """A task under way. replies: to what it asked last, in that order; missing: of them, those that did not come."""

    __slots__ = ("missing", "replies", "steps", "task")

    def __init__(self, task: Task, steps: Steps[Any]) -> None:
        self.task = task
        self.steps = steps
        self.replies: list[Reply] = []
        self.missing = 0


class Talk:
    """What is in flight on one session. Not for two threads.

    stall_s      the session is lost when nothing at all comes for so long though something should
    operation_s  ... or when a single request is not answered within this
    answered     replies so far
    """

    def __init__(self, session: Session, stall_s: float, operation_s: float) -> None:
        self.answered = 0
        self._session = session
        self._stall_s = stall_s
        self._operation_s = operation_s
        self._heard_s = 0.0
        self._packets = Packets()
        self._running: dict[_Running, None] = {}
        self._waiting: dict[int, tuple[_Running | None, int, float]] = {}  # oldest first
        self._out: list[bytes] = []
        self._number = 0

    @property
    def is_shy(self) -> bool:
        """A suspect is in flight, and wants to be alone."""
        return len(self._running) == 1 and next(iter(self._running)).task.suspect

    def __len__(self) -> int:
        return len(self._running)

    def start(self, task: Task) -> None:
        """Its first requests leave with the next `speak`."""
        running = _Running(task, task.start())
        try:
            self._ask(running, next(running.steps))
            self._running[running] = None
        except ItemError as exc:  # not even a request is worth it
            task.fail(exc)

    def hear(self) -> None:
        """Take in what has arrived; conversations go on, results go to their callers. Raises Lost, Garbled."""
        while data := self._session.receive():
            self._heard_s = time.monotonic()
            for reply in self._packets.feed(data):
                self._take(reply)

    def speak(self) -> None:
        """Send what there is to say, in one piece: it costs as much as one request. Raises Lost."""
        if self._out:
            out, self._out = b"".join(self._out), []
            self._session.send(out)

    def require_alive(self) -> float:
        """How many seconds the server has left to answer. Raises Stalled when its time is up."""
        oldest_s = next((sent_s for running, _, sent_s in self._waiting.values() if running), None)
        if oldest_s is None:
            return self._stall_s
        now_s = time.monotonic()
        left_s = min(max(oldest_s, self._heard_s) + self._stall_s, oldest_s + self._operation_s) - now_s
        if left_s <= 0:
            raise Stalled(f"no answer for {now_s - oldest_s:.0f} s")
        return left_s

    def in_flight(self) -> list[Task]:
        """Everything that is not done, in the order it was begun."""
        return [running.task for running in self._running]

    def _take(self, reply: Reply) -> None:
        self.answered += 1
        try:
            running, place, _ = self._waiting.pop(reply.number)
        except KeyError:
            raise Garbled("an answer that nobody asked for") from None
        if running is None:
            return
        running.replies[place] = reply
        running.missing -= 1
        if not running.missing:
            self._go_on(running, running.replies)

    def _go_on(self, running: _Running, replies: list[Reply]) -> None:
        """Let a conversation say what it says next, or end."""
        steps, task = running.steps, running.task
        try:
            requests = steps.throw(StopRequested()) if task.batch.cancelled else steps.send(replies)
            while not self._ask(running, requests):
                requests = steps.send([])
            return
        except StopIteration as done:
            task.batch.put(done.value)
        except ItemError as exc:
            task.fail(exc)
        except StopRequested:
            pass  # thrown above: nobody waits for a result
        del self._running[running]

    def _ask(self, running: _Running, requests: list[Request]) -> int:
        """Number the requests; returns how many of them will be waited for."""
        now_s, place = time.monotonic(), 0
        for kind, body in requests:
            self._number = (self._number + 1) & 0xFFFFFFFF
            self._out.append(Request(kind, body).numbered(self._number))
            if kind == Kind.CLOSE:
                self._waiting[self._number] = (None, 0, now_s)
            else:
                self._waiting[self._number] = (running, place, now_s)
                place += 1
        running.replies = [_NOT_YET] * place
        running.missing = place
        return place


_NOT_YET = Reply(0, 0, b"")
