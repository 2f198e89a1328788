"""What one process needs to work on documents: made once per run and process, whatever runs the tasks."""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace

from tasks.checkpoints import Queue, Scope, Step
from tasks.downloads import Exchange, HttpDoor
from tasks.level import Gate, Level
from tasks.pacing import Clock, host_of
from tasks.pdf_facts import PdfFacts
from tasks.pdf_workers import PdfWorkers
from tasks.portal_profile import PortalProfile, load_profile
from tasks.postgres import Database
from tasks.settings import Settings
from tasks.spool import Spool
from tasks.store import open_store
from tasks.store_objects import Store
from tasks.tally import Tally
from tasks.toolboxes import Toolboxes
from tasks.workloads import DOWNLOAD, OPTIMIZE, UPLOAD

STEPS = (DOWNLOAD, OPTIMIZE, UPLOAD)

UPLOADERS = 8

PAGES_AT_ONCE = 2
"""Pages of one stage that work at the same time in one process: one ends while the next begins."""


@dataclass(frozen=True)
class Job:
    """What every page of a run must know. Small and free of secrets: it travels with each task.

    scope        rows of the stage
    workers      requests in flight at most
    optimise     False: documents are stored as they came
    """

    run_id: str
    portal_url: str
    scope: Scope
    workers: int = 5
    optimise: bool = True
    keep_page_mismatch: bool = False
    profile: str | None = None
    backoff_s: float = 2.0


def check_portal(portal_url: str, profile: str | None) -> PortalProfile:
    """The portal's profile. Raises ConfigurationError for an address or a profile that cannot work."""
    host_of(portal_url)
    return load_profile(profile, portal_url)


class Toolbox:
    """Database, clock, gate, doors, spool and store of one run in one process. Safe for threads.

    claimed  rows each page of downloads has claimed, by its number, over all its attempts
    facts    what the ladder found of documents that are still to be optimised
    """

    def __init__(self, job: Job, settings: Settings, database: Database, tally: Tally) -> None:
        self.job = job
        self.settings = settings
        self.database = database
        self.stop = threading.Event()
        self.tally = tally
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.slots = {step.name: threading.Semaphore(PAGES_AT_ONCE) for step in STEPS}
        self.claimed = Counter[int]()
        self.facts: dict[int, PdfFacts] = {}
        self.spool = Spool(settings.spool)
        self.profile: PortalProfile = load_profile(job.profile, job.portal_url)
        self.clock = Clock(database, host_of(job.portal_url), stop=self.stop)
        self.gate = Gate(Level(maximum=job.workers, level=min(job.workers, 4)), stop=self.stop)
        self.closing = ExitStack()
        self.store: Store = self.closing.enter_context(open_store(settings.store, uploaders=UPLOADERS * PAGES_AT_ONCE))
        self.door = self.closing.enter_context(
            HttpDoor(before_request=self.clock.take, after_request=self._heard, stop=self.stop)
        )
        self.pdf: PdfWorkers = self.closing.enter_context(PdfWorkers(self.cores))

    def queue(self, step: Step) -> Queue:
        """The queue of one step, for this run."""
        return Queue(self.database, replace(step, backoff_s=self.job.backoff_s), run_id=self.job.run_id)

    def _heard(self, exchange: Exchange) -> None:
        """Every answer teaches the gate; a server that asks for patience gets it from every worker."""
        self.gate.record(seconds=exchange.seconds, overloaded=exchange.overloaded)
        self.tally.level = self.gate.level.permitted
        if exchange.retry_after_s is not None:
            self.clock.hold(exchange.retry_after_s)

    def close(self) -> None:
        """Stop all loops and give everything back."""
        self.stop.set()
        self.closing.close()


_toolboxes = Toolboxes(Toolbox, STEPS)
toolbox = _toolboxes.of
opened_toolbox = _toolboxes.opened
