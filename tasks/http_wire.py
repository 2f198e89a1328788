"""Requests under way that another thread can end.

A blocked `recv` cannot be asked to stop, and a socket timeout starts anew with every byte, so a server
that sends a byte a minute holds a worker for ever. One small thread per door therefore looks at every
request under way and shuts down the socket of those that must end; the blocked call then returns at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

LOOK_EVERY_S = 0.2
"""How often the watch looks at deadlines. A stop is seen at once."""

IDLE_S = 5.0
"""The watch's thread ends after this long without a request, so a forgotten door leaves nothing behind."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one HTTP request may take, phase by phase.

    connect_timeout_s     seconds to connect to one address, TLS included
    read_timeout_s        seconds until the answer's headers are complete; then between two pieces of the body
    total_timeout_s       seconds for the whole request, body included
    low_speed_bytes_per_s, low_speed_window_s   a body slower than this over such a window is given up
    """

    connect_timeout_s: float
    read_timeout_s: float
    total_timeout_s: float
    low_speed_bytes_per_s: float
    low_speed_window_s: float


class Cut(Enum):
    """Why the watch ended a request."""

    STOPPED = auto()
    NO_ANSWER = auto()
    TOO_SLOW = auto()
    TOO_LONG = auto()


class Wire:
    """One request under way: how far it is, the socket it uses, and why it was cut, if it was."""

    def __init__(self, limits: Limits, now_s: float) -> None:
        self.cut: Cut | None = None
        self.received_bytes = 0
        self._limits = limits
        self._started_s = now_s
        self._window: tuple[float, int] | None = None
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def hold(self, sock: socket.socket, *, again: bool = False) -> None:
        """Keep a duplicate of the socket's descriptor, which stays valid through TLS wrapping and closing."""
        with self._lock:
            if self._socket is not None and not again:
                return
            self._drop()
            copy = os.dup(sock.fileno())
            self._socket = socket.socket(sock.family, sock.type, sock.proto, fileno=copy)
            if self.cut is not None:
                _shut(self._socket)

    def answered(self) -> None:
        """The headers are here: from now on the body's speed counts."""
        self._window = (time.monotonic(), self.received_bytes)

    def end(self, why: Cut) -> None:
        """Shut the socket down; whoever is blocked on it returns at once. The first reason stands."""
        with self._lock:
            self.cut = self.cut or why
            if self._socket is not None:
                _shut(self._socket)

    def release(self) -> None:
        """The request is over."""
        with self._lock:
            self._drop()

    def overdue(self, now_s: float) -> Cut | None:
        """Which limit is broken at `now_s` (monotonic seconds), if any."""
        limits, age_s = self._limits, now_s - self._started_s
        if age_s > limits.total_timeout_s:
            return Cut.TOO_LONG
        if self._window is None:
            return Cut.NO_ANSWER if age_s > limits.connect_timeout_s + limits.read_timeout_s else None
        since_s, then_bytes = self._window
        if now_s - since_s < limits.low_speed_window_s:
            return None
        self._window = (now_s, self.received_bytes)
        slow = self.received_bytes - then_bytes < limits.low_speed_bytes_per_s * (now_s - since_s)
        return Cut.TOO_SLOW if slow else None

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already closed by the other side
        sock.shutdown(socket.SHUT_RDWR)


class Watch:
    """Looks at every request of a door and ends those that are overdue, or all of them on `stop`."""

    def __init__(self, limits: Limits, stop: threading.Event) -> None:
        self._limits = limits
        self._stop = stop
        self._wires: set[Wire] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextlib.contextmanager
    def wire(self) -> Iterator[Wire]:
        """The request this thread is about to make. Sockets opened or reused inside belong to it."""
        wire = Wire(self._limits, time.monotonic())
        self._add(wire)
        _here.wire = wire
        try:
            yield wire
        finally:
            _here.wire = None
            with self._changed:
                self._wires.discard(wire)
            wire.release()

    @property
    def closed(self) -> bool:
        """No further request is let through."""
        return self._closed

    def close(self) -> None:
        """End every request under way; the thread ends by itself."""
        with self._changed:
            self._closed = True
            wires = list(self._wires)
            self._changed.notify()
        for wire in wires:
            wire.end(Cut.STOPPED)

    def _add(self, wire: Wire) -> None:
        with self._changed:
            self._wires.add(wire)
            if self._closed:
                wire.end(Cut.STOPPED)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="http-watch", daemon=True)
                self._thread.start()
            else:
                self._changed.notify()

    def _run(self) -> None:
        while wires := self._under_way():
            stopped = self._stop.wait(LOOK_EVERY_S)
            now_s = time.monotonic()
            for wire in wires:
                why = Cut.STOPPED if stopped else wire.overdue(now_s)
                if why is not None:
                    wire.end(why)
            if stopped:
                time.sleep(LOOK_EVERY_S / 4)  # the wait above no longer waits

    def _under_way(self) -> list[Wire]:
        """Requests to look at; empty when this thread is to end."""
        with self._changed:
            if not self._wires and not self._closed:
                self._changed.wait(IDLE_S)
            if not self._wires:
                self._thread = None
            return list(self._wires)


class _Here(threading.local):
    wire: Wire | None = None


_here = _Here()


def hold(sock: socket.socket | None, *, again: bool = False) -> None:
    """Tell the request this thread is making, if any, which socket it uses."""
    if sock is not None and _here.wire is not None:
        _here.wire.hold(sock, again=again)
