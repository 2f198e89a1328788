"""What one process needs to work on tiles: made once per run and process, whatever runs the tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tasks.bulk import BulkDoor
from tasks.bulk_engine import BulkEngine
from tasks.checkpoints import Queue, Scope
from tasks.errors import ConfigurationError
from tasks.http_sessions import sendable
from tasks.level import Level
from tasks.pacing import Clock
from tasks.postgres import Database
from tasks.settings import Settings
from tasks.store import open_store
from tasks.store_objects import Store
from tasks.tally import Tally
from tasks.tile_plan import Layer
from tasks.tile_urls import Scheme, TileUrls
from tasks.toolboxes import PageTools, Toolboxes
from tasks.verdict import Verdict
from tasks.work_folders import opened_work
from tasks.workloads import TILES

PAGES_AT_ONCE = 3
"""Pages that work at the same time in one process: one is fetched, one is ready to follow it, one writes its rows."""

FIRST_LEVEL = 16
"""Transfers in flight to begin with; the level climbs from there."""

UPLOADERS = 32

SHORTEST_SECRET = 4
"""Shorter ones would blank out parts of any message."""

_FROM_ENVIRONMENT = "env:"
_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Where tiles come from: see `TileUrls` and `BulkDoor`.

    values, headers   a value `env:NAME` is read from the environment of the process that sends it, so a key is in no
                      parameter, row or log
    missing_statuses  answers that mean there is no such tile
    """

    url_template: str
    scheme: Scheme = "xyz"
    subdomains: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    allowed_hosts: tuple[str, ...] = ()
    missing_statuses: frozenset[int] = frozenset({204, 404, 410})
    max_bytes: int = 16 * 1024**2
    connect_timeout_s: float = 10.0
    low_speed_window_s: float = 30.0
    verify_tls: bool = True

    @property
    def urls(self) -> TileUrls:
        """The template with its values. Raises ConfigurationError for one that cannot work."""
        values = _revealed(self.values)
        return TileUrls(self.url_template, scheme=self.scheme, subdomains=self.subdomains, values=values)

    @property
    def secrets(self) -> list[str]:
        """What is read from the environment, and never told."""
        given = {**self.values, **{f"header {name}": value for name, value in self.headers.items()}}
        found = _revealed({name: value for name, value in given.items() if value.startswith(_FROM_ENVIRONMENT)})
        return [value for value in found.values() if len(value) >= SHORTEST_SECRET]

    def check(self) -> None:
        """Raises ConfigurationError where something could not be asked for."""
        assert self.urls.hosts()  # noqa: S101 - a template that cannot work raises
        sendable(_revealed(self.headers))
        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host):
                raise ConfigurationError(f"{host!r} is no host that redirects may lead to; give host or host:port.")

    @property
    def host(self) -> str:
        """Names clock and dial: the host, all subdomains together."""
        if "{s}." in self.url_template:
            return TileUrls(self.url_template.replace("{s}.", ""), values=_revealed(self.values)).hosts()[0]
        return self.urls.hosts()[0]


def _revealed(values: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in values.items():
        variable = value.removeprefix(_FROM_ENVIRONMENT)
        if value.startswith(_FROM_ENVIRONMENT) and variable not in os.environ:
            raise ConfigurationError(f"{name} is to come from {variable}, which is not set; export it first.")
        found[name] = os.environ[variable] if value.startswith(_FROM_ENVIRONMENT) else value
    return found


@dataclass(frozen=True)
class Job:
    """What every page of a run must know.

    scope        rows of the area
    connections  transfers in flight at most
    blanks       SHA-256 of tiles that count as blank whatever they show
    decode       look at every pixel
    """

    run_id: str
    layer: Layer
    scope: Scope
    source: Source
    connections: int = 100
    blanks: frozenset[str] = frozenset()
    decode: bool = False
    backoff_s: float = 2.0
    patience_s: float = 60.0


class Toolbox(PageTools):
    """Database, clock, level, engine and store of one run in one process. Safe for threads.

    work  folder for what is made of the tiles; gone with the run
    """

    def __init__(self, job: Job, settings: Settings, database: Database, tally: Tally) -> None:
        super().__init__(database, tally, PAGES_AT_ONCE)
        self.job = job
        self.urls = job.source.urls
        self.clock = Clock(database, job.source.host, stop=self.stop)
        self.queue = Queue(database, replace(TILES, backoff_s=job.backoff_s), run_id=job.run_id)
        self.store: Store = self.closing.enter_context(open_store(settings.store, uploaders=UPLOADERS))
        self.stored_blanks: set[str] = set()
        self.work = self.closing.enter_context(opened_work(settings.spool / "tiles"))
        self.level = Level(maximum=job.connections, level=min(job.connections, FIRST_LEVEL))
        self.engine = BulkEngine(self._door())
        self.closing.callback(self.engine.close)
        self.verdict = Verdict(self.clock, job.patience_s, self.stop, "tiles")

    def _door(self) -> BulkDoor:
        source = self.job.source
        return BulkDoor(
            connections=self.job.connections,
            turns=self.clock,
            level=self.level,
            headers=_revealed(source.headers),
            connect_timeout_s=source.connect_timeout_s,
            low_speed_window_s=source.low_speed_window_s,
            max_bytes=source.max_bytes,
            allowed_hosts=(*source.allowed_hosts, *self.urls.hosts()),
            secrets=source.secrets,
            verify=source.verify_tls,
            stop=self.stop,
        )


_toolboxes = Toolboxes(Toolbox, (TILES,))
toolbox = _toolboxes.of
opened_toolbox = _toolboxes.opened
