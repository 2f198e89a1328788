"""What one process needs to work on a register: made once per run and process, whatever runs the tasks."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from pydantic import SecretStr

from tasks.bulk import Ask, BulkDoor
from tasks.bulk_engine import BulkEngine, Result
from tasks.checkpoints import Queue, Scope
from tasks.level import Level
from tasks.pacing import Clock, host_of
from tasks.postgres import Database, sql_text
from tasks.register_loading import Loaded, Loader
from tasks.register_profile import RegisterProfile
from tasks.settings import Settings
from tasks.store import open_store
from tasks.store_objects import Store
from tasks.tally import Tally
from tasks.toolboxes import PageTools, Toolboxes
from tasks.verdict import Verdict
from tasks.work_folders import opened_work
from tasks.workloads import PROPERTIES, QUERIES

PAGES_AT_ONCE = 3
"""Pages of properties that work at the same time in one process: while one loads, the others fetch."""

FIRST_LEVEL = 4
"""Requests in flight to begin with; the level climbs from there."""


@dataclass(frozen=True)
class Job:
    """What every task of a run must know. Its key is not shown when it is printed.

    municipalities, address_types  in the register's own words
    workers         requests in flight at most
    on_market_only  no others
    conditional     ask for what is there on condition that it changed
    key             of the register; None: its environment variable says it, where its profile wants one
    """

    run_id: str
    profile: RegisterProfile
    municipalities: tuple[str, ...]
    address_types: tuple[str, ...] = ("villa",)
    workers: int = 12
    on_market_only: bool = False
    conditional: bool = True
    limit: int | None = None
    key: SecretStr | None = None
    backoff_s: float = 2.0
    patience_s: float = 60.0

    @property
    def host(self) -> str:
        """Names clock, dial and tag."""
        return host_of(self.profile.api_url)

    def scope(self) -> Scope:
        """The run's properties: found by searches like its own, and not vanished since."""
        where = (
            "source = %(source)s AND searched_municipality = ANY(%(municipalities)s)"
            " AND searched_type = ANY(%(address_types)s) AND vanished_at IS NULL"
        )
        return Scope(
            f"{where} AND is_on_market" if self.on_market_only else where,
            {
                "source": self.profile.source,
                "municipalities": list(self.municipalities),
                "address_types": list(self.address_types),
            },
        )

    def queries(self) -> Scope:
        """The queries of the run's searches."""
        where = f"search_id IN ({sql_text('properties_under_way')})"
        return Scope(where, self.scope().parameters)

    def stale(self, age: timedelta) -> Scope:
        """Those of them that were fetched longer ago."""
        scope = self.scope()
        return Scope(f"{scope.where} AND fetched_at < now() - %(age)s", {**scope.parameters, "age": age})


class Toolbox(PageTools):
    """Database, clock, level, engine, loader and store of one run in one process. Safe for threads.

    requests  answers and failures so far: `search`, `detail`
    loaded    what became of all answers so far
    work      folder for what is made of the tables; gone with the run
    """

    def __init__(self, job: Job, settings: Settings, database: Database, tally: Tally) -> None:
        super().__init__(database, tally, PAGES_AT_ONCE)
        self.job = job
        self.requests = Counter[str]()
        self.loaded = Loaded()
        self.clock = Clock(database, job.host, stop=self.stop)
        self.queue = Queue(database, replace(PROPERTIES, backoff_s=job.backoff_s), run_id=job.run_id)
        self.queries = Queue(database, replace(QUERIES, backoff_s=job.backoff_s), run_id=job.run_id)
        self.verdict = Verdict(self.clock, job.patience_s, self.stop, "properties")
        self.loader = Loader(job.profile)
        self.level = Level(maximum=job.workers, level=min(job.workers, FIRST_LEVEL))
        self._engine = BulkEngine(self._door())  # refuses a missing key before anything is opened
        self.closing.callback(self._engine.close)
        self.store: Store = self.closing.enter_context(open_store(settings.store))
        self.work = self.closing.enter_context(opened_work(settings.spool / "properties"))
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def _door(self) -> BulkDoor:
        key = self.job.key.get_secret_value() if self.job.key else None
        headers = self.job.profile.request_headers(key)
        told = self.job.profile.headers.values()
        return BulkDoor(
            connections=self.job.workers,
            turns=self.clock,
            level=self.level,
            headers=headers,
            secrets=[value for value in headers.values() if value not in told],
            stop=self.stop,
        )

    def fetch(self, kind: str, asks: Iterator[Ask[int]]) -> Iterator[list[Result]]:
        """Every ask's result, some at a time; counted as requests of that kind. Raises as `BulkEngine.fetch`."""
        for results in self._engine.fetch(asks):
            with self._lock:
                self.requests[kind] += len(results)
            self.tally.level = self.level.permitted
            yield results

    def number(self) -> int:
        """A name for one ask, of which there is no other."""
        return next(self._numbers)

    def has_loaded(self, loaded: Loaded) -> None:
        """Count what became of some answers."""
        with self._lock:
            self.loaded.add(loaded)

    def is_enough_found(self) -> bool:
        """Whether so many properties wait that a run with a limit need not look for more."""
        limit = self.job.limit
        return limit is not None and self.queue.count_due(self.job.scope(), at_most=limit) >= limit


_toolboxes = Toolboxes(Toolbox, (PROPERTIES,))
toolbox = _toolboxes.of
opened_toolbox = _toolboxes.opened
