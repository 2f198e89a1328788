"""What one process needs to work on photos: made once per run and process, whatever runs the tasks."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import SecretStr

from tasks.checkpoints import Queue, Scope
from tasks.postgres import Database
from tasks.settings import Settings
from tasks.sftp import Sftp, open_sftp
from tasks.store import open_store
from tasks.store_objects import Store
from tasks.tally import Tally
from tasks.toolboxes import PageTools, Toolboxes
from tasks.work_folders import opened_work
from tasks.workloads import PHOTOS

FOLDERS_AT_ONCE = 4
"""Folders that are read at the same time in one process: their files share the connections."""


@dataclass(frozen=True)
class Access:
    """How to get to the server: see `tasks.sftp.open_sftp`. Secrets are not shown when it is printed."""

    host: str
    port: int = 22
    username: str | None = None
    key_path: Path | None = None
    password: SecretStr | None = None
    passphrase: SecretStr | None = None
    known_hosts: Path | None = None
    host_key: str | None = None
    connections: int = 2
    depth: int = 64
    compress: bool = False

    @property
    def name(self) -> str:
        """`host`, or `host:port`: names rows, tags and limits."""
        return self.host if self.port == 22 else f"{self.host}:{self.port}"

    def open(self, stop: threading.Event) -> Sftp:
        """A way to the server's files; connections are shared with other runs of the process."""
        return open_sftp(
            self.host,
            self.port,
            username=self.username,
            key_path=self.key_path.expanduser() if self.key_path else None,
            password=self.password.get_secret_value() if self.password else None,
            passphrase=self.passphrase.get_secret_value() if self.passphrase else None,
            known_hosts=self.known_hosts.expanduser() if self.known_hosts else None,
            host_key=self.host_key,
            connections=self.connections,
            depth=self.depth,
            compress=self.compress,
            stop=stop,
        )


@dataclass(frozen=True)
class Job:
    """What every task of a run must know. `sites`: ids of those that are wanted; empty: all."""

    run_id: str
    root: str
    access: Access
    sites: frozenset[str] = frozenset()
    backoff_s: float = 2.0

    def scope(self, site: str | None = None, folder: str | None = None) -> Scope:
        """Photos of the server that are still there: all, of a site, or of one of its folders."""
        where, parameters = "host = %(host)s AND vanished_at IS NULL", {"host": self.access.name}
        if site is not None:
            where, parameters = f"{where} AND site = %(site)s", {**parameters, "site": site}
        if folder is not None:
            where, parameters = f"{where} AND folder = %(folder)s", {**parameters, "folder": folder}
        return Scope(where, parameters)


class Toolbox(PageTools):
    """Database, connections and store of one run in one process. Safe for threads.

    work  folder for what is made of the photos; gone with the run
    """

    def __init__(self, job: Job, settings: Settings, database: Database, tally: Tally) -> None:
        super().__init__(database, tally, FOLDERS_AT_ONCE)
        self.job = job
        self.queue = Queue(database, replace(PHOTOS, backoff_s=job.backoff_s), run_id=job.run_id)
        self.sftp: Sftp = self.closing.enter_context(job.access.open(self.stop))
        self.store: Store = self.closing.enter_context(open_store(settings.store))
        self.work = self.closing.enter_context(opened_work(settings.spool / "photos"))


_toolboxes = Toolboxes(Toolbox, (PHOTOS,))
toolbox = _toolboxes.of
opened_toolbox = _toolboxes.opened
