"""Parts of stages on Dask workers: those of a cluster that shares the run's folder, or of one made here for the run."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested, TransientError
from tasks.geo.chain import NodeFailed
from tasks.geo.engine import Engine
from tasks.geo.nodes import Sink, Source
from tasks.geo.part_work import TICK_S, PartRecord
from tasks.geo.part_worker import PartTask, Setup, opened_engine, run_part, setup_of, task_of
from tasks.geo.stage_work import StageWork
from tasks.geo.workers import in_thread
from tasks.records import Reason

ADDRESS = "LANDRECORDS_DASK_ADDRESS"
"""Environment variable: the scheduler of a cluster; without it a local one is made."""

START_TIMEOUT_S = 60
WATCH_S = 0.5
"""How often a worker looks whether the run is still there."""

ENDED = "ended"
"""File in the run's folder for files of nodes at work: there is nothing more to do."""


class DaskParts:
    """What an engine runs parts with. Safe for threads."""

    def __init__(self, engine: Engine) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise ConfigurationError("runner='dask' needs Dask: pip install 'landrecords[dask]'.") from None
        self._engine = engine
        self._setup = setup_of(engine)
        address = os.environ.get(ADDRESS)
        # TLS: who reaches a scheduler's port has its workers run what he likes, as this user
        safe = {"security": True, "dashboard_address": "127.0.0.1:0", "local_directory": str(engine.scratch)}
        local = {"n_workers": engine.threads, "threads_per_worker": 1, **safe}
        try:
            self._client = Client(address, timeout=START_TIMEOUT_S) if address else Client(**local)
        except (OSError, RuntimeError, TimeoutError, ValueError) as exc:  # ValueError: no address
            raise OutsideUnreachable(
                f"Dask at {address or 'this machine'} does not answer; correct {ADDRESS}."
            ) from exc

    def run(self, work: StageWork, number: int, part: dict[str, Any]) -> PartRecord:
        """Raises NodeFailed, or StopRequested: a part under way then ends with the cluster, or soon after the run."""
        task = task_of(self._engine, work, number, part)
        try:
            record = self._result(self._client.submit(run_remotely, self._setup, task, pure=False))
        except (NodeFailed, StopRequested):
            raise
        except Exception as exc:  # whatever it is that Dask says of a worker that died, or a scheduler
            message = f"Its Dask worker is gone ({type(exc).__name__}); give the run more memory, or see Dask's log."
            raise NodeFailed(work.stage.nodes[0], TransientError(Reason.INTERNAL, message)) from exc
        for name, measured in record.measured.items():
            if isinstance(self._engine.graph.nodes[name], Source | Sink):
                self._engine.progress(name, measured.features_out, measured.bytes_out)
        return record

    def _result(self, future: Any) -> PartRecord:
        while not future.done():
            if self._engine.stop.wait(TICK_S):
                future.cancel(force=True)
                raise StopRequested("the run is ending.")
        record: PartRecord = future.result()
        return record

    def close(self) -> None:
        """End the parts under way, and the workers that were made here: busy ones are waited for, some seconds."""
        with contextlib.suppress(OSError):
            (self._engine.scratch / ENDED).touch()
        cluster = self._client.cluster
        self._client.close()
        if cluster is not None:
            cluster.close()


def run_remotely(setup: Setup, task: PartTask) -> PartRecord:
    """In a worker."""
    with opened_engine(setup, lambda _said: None) as engine:
        in_thread("geo-watch", lambda: _stop_with(setup.place.scratch, engine))
        return run_part(engine, task)


def _stop_with(scratch: Path, engine: Engine) -> None:
    """Dask ends no thread: a part whose run is over, or gone with its folder, would go on to its end."""
    while not engine.stop.wait(WATCH_S):
        if not scratch.exists() or (scratch / ENDED).exists():
            engine.stop.set()
