"""The SFTP door: folders listed, and hundreds of files a second read by ranges, over a few SSH connections.

Round trips are what costs. So on each connection many files are under way at once (OPEN, READs, CLOSE interleaved),
requests that are due together travel in one packet, and connections are shared by every folder and run of the
process. Iterator in, iterator out: memory does not grow with the number of files.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from tasks.errors import ConfigurationError
from tasks.sftp_batch import Batch, Task
from tasks.sftp_items import (
    MODEST,
    Ask,
    Entry,
    EntryKind,
    Failure,
    Limits,
    Listing,
    Needed,
    Read,
    Reader,
    Result,
)
from tasks.sftp_jobs import list_folder, read_file
from tasks.sftp_login import Server
from tasks.sftp_owner import Timeouts
from tasks.sftp_pool import Pool

__all__ = [
    "Ask",
    "Entry",
    "EntryKind",
    "Failure",
    "Limits",
    "Listing",
    "Needed",
    "Read",
    "Reader",
    "Sftp",
    "Timeouts",
    "close_pools",
    "open_sftp",
]

K = TypeVar("K")
T = TypeVar("T")

_pools: dict[tuple[Server, int, int, Timeouts], Pool] = {}
_pools_lock = threading.Lock()


def open_sftp(
    host: str,
    port: int = 22,
    *,
    username: str | None = None,
    key_path: Path | str | None = None,
    password: str | None = None,
    passphrase: str | None = None,
    known_hosts: Path | str | None = None,
    host_key: str | None = None,
    connections: int = 2,
    depth: int = 64,
    compress: bool = False,
    timeouts: Timeouts | None = None,
    stop: threading.Event | None = None,
) -> Sftp:
    """A way to the files of a server; nothing is sent before it is used. The same arguments share connections.

    username     None: as oneself
    key_path     private key (OpenSSH or PEM), opened with `passphrase`, else with `password`
    password     on its own, or as the second proof where a server wants key and password.
                 With neither key nor password the keys of the SSH agent are offered
    known_hosts  None: ~/.ssh/known_hosts
    host_key     pins the host key: a public key line, or `SHA256:...`
    connections  1 to 4
    depth        files in flight on each
    compress     zlib on the wire, for narrow lines. Measured: the heads of real photos shrink to a half (to a quarter
                 where one camera took them all), listings to a tenth, for up to 30 % more processor time; where only
                 round trips cost time it is 7 % slower (20 ms)
    stop         once set, whoever waits gets StopRequested within 0.2 s
    Raises ConfigurationError for what cannot be an address.
    """
    if not 1 <= connections <= 4 or not 1 <= depth <= 512 or not 1 <= port <= 65535 or not host:
        raise ConfigurationError(
            "An SFTP server needs a host, a port up to 65535, 1-4 connections and a depth of 1-512."
        )
    files = (Path(key_path) if key_path else None), (Path(known_hosts) if known_hosts else None)
    server = Server(host, port, username, files[0], password, passphrase, files[1], host_key, compress)
    key = (server, connections, depth, timeouts or Timeouts())
    with _pools_lock:
        if key not in _pools:
            _pools[key] = Pool(*key)
        _pools[key].users += 1
        return Sftp(_pools[key], stop)


def close_pools() -> None:
    """End all connections of the process at once; otherwise they end after idling."""
    with _pools_lock:
        for pool in _pools.values():
            pool.close()
        _pools.clear()


class Sftp:
    """A caller's hold on the connections to a server: as many as like, in any thread.

    All methods raise ConfigurationError (login or host key refused, no SFTP), OutsideUnreachable (no connection came
    about within `Timeouts.patience_s`), and StopRequested. What has not been handed back then is not done.
    """

    def __init__(self, pool: Pool, stop: threading.Event | None) -> None:
        self._pool = pool
        self._stop = stop
        self._closed = False

    def __enter__(self) -> Sftp:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Connections stay for the next user, for a while; a refused login is forgotten with its last user."""
        with _pools_lock:
            self._pool.users -= not self._closed
            self._closed = True
            if not self._pool.users and self._pool.refusal:
                for key in [key for key, pool in _pools.items() if pool is self._pool]:
                    del _pools[key]

    def list_folder(self, folder: str) -> list[Entry]:
        """Everything in a folder. Raises TerminalError `not_found` or `permission_denied`, TransientError."""
        for result in self.walk(folder, max_depth=0):
            if isinstance(result, Failure):
                raise result.error
            return result.entries
        raise AssertionError("a walk begins with its root")

    def walk(self, root: str, max_depth: int = 16) -> Iterator[Listing | Failure[str]]:
        """A folder and those below it, many at once, each as soon as it is there: parents before their children.

        Links to folders are listed as entries but not entered: they may lead in circles.
        max_depth  0: only `root`
        """
        pending, batch = deque([(root, 0)]), Batch()
        depths: dict[str, int] = {}

        def more() -> Task | None:
            if not pending:
                return None
            folder, depth = pending.popleft()
            depths[folder] = depth
            return Task(folder, lambda _meter, _careful: list_folder(folder), batch)

        for result in self._results(batch, more):
            listing = cast("Listing | Failure[str]", result)
            if isinstance(listing, Listing) and (depth := depths.pop(listing.path)) < max_depth:
                folders = (e.path for e in listing.entries if e.kind == EntryKind.FOLDER and not e.is_link)
                pending.extend((path, depth + 1) for path in folders)
            yield listing

    def read_many(self, asks: Iterable[Ask[K, T]], limits: Limits = MODEST) -> Iterator[Read[K, T] | Failure[K]]:
        """What the readers of files returned, as they finish; one result for each ask.

        Asks are taken as places come free. Failures: `not_found`, `permission_denied`, `wrong_type` (folder, pipe),
        `too_large` (more than `limits`), `sftp_error`, `timeout`, `connection`, `internal` (the reader raised).
        """
        source, batch = iter(asks), Batch()

        def more() -> Task | None:
            ask = next(source, None)
            return None if ask is None else Task(ask.id, partial(read_file, ask, limits), batch)

        yield from cast("Iterator[Read[K, T] | Failure[K]]", self._results(batch, more))

    @property
    def _is_stopping(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def _results(self, batch: Batch, more: Callable[[], Task | None]) -> Iterator[Result]:
        """Keep a window of tasks under way and hand out their results. more: the next task, None for none just now."""
        under_way = 0
        try:
            while True:
                while under_way < self._pool.window and not self._is_stopping and (task := more()) is not None:
                    self._pool.submit(task)
                    under_way += 1
                if not under_way and not self._is_stopping:
                    return
                yield batch.take(self._stop)
                under_way -= 1
        finally:
            self._pool.cancel(batch)
