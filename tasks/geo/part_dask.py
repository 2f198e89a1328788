"""Parts of stages on Dask workers: those of a cluster that shares the run's folder, or of one made here for the run."""

from __future__ import annotations

import os
from typing import Any

from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested
from tasks.geo.engine import Engine
from tasks.geo.part_work import TICK_S, PartRecord
from tasks.geo.part_worker import PartTask, Setup, opened_engine, run_part, setup_of, task_of
from tasks.geo.stage_work import StageWork

ADDRESS = "LANDRECORDS_DASK_ADDRESS"
"""Environment variable: the scheduler of a cluster; without it a local one is made."""

START_TIMEOUT_S = 60


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
        local = {"n_workers": engine.threads, "threads_per_worker": 1, "dashboard_address": None}
        try:
            self._client = Client(address, timeout=START_TIMEOUT_S) if address else Client(**local)
        except (OSError, TimeoutError) as exc:
            raise OutsideUnreachable(
                f"Dask at {address or 'this machine'} does not answer; correct {ADDRESS}."
            ) from exc

    def run(self, work: StageWork, number: int, part: dict[str, Any]) -> PartRecord:
        """Raises NodeFailed, or StopRequested: a part under way ends with the cluster, or with its own next batch."""
        task = task_of(self._engine, work, number, part)
        future = self._client.submit(run_remotely, self._setup, task, pure=False)
        while not future.done():
            if self._engine.stop.wait(TICK_S):
                future.cancel(force=True)
                raise StopRequested("the run is ending.")
        record: PartRecord = future.result()
        for node, measured in record.measured.items():
            self._engine.progress(node, measured.features_out, measured.bytes_out)
        return record

    def close(self) -> None:
        """End the workers that were made here."""
        self._client.close()
        if self._client.cluster is not None:
            self._client.cluster.close()


def run_remotely(setup: Setup, task: PartTask) -> PartRecord:
    """In a worker."""
    with opened_engine(setup, lambda _said: None) as engine:
        return run_part(engine, task)
