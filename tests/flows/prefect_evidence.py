"""What Prefect keeps of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)


def wait_for(condition: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


def prefect_says(run_id: str) -> dict[str, str]:
    """Everything the API has of a run, as text."""
    number = UUID(run_id)
    with get_client(sync_client=True) as client:
        logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[number]))
        lines = wait_for(lambda: client.read_logs(log_filter=logs, limit=200))
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[number]))
        runs = FlowRunFilter(id=FlowRunFilterId(any_=[number]))
        wait_for(lambda: client.read_task_runs(flow_run_filter=runs))
        events = client.request("POST", "/events/filter", json={"filter": {}, "limit": 50}).text
        return {
            "logs": str([line.message for line in lines]),
            "artifacts": str([artifact.model_dump_json() for artifact in client.read_artifacts(artifact_filter=mine)]),
            "flow run": client.read_flow_run(number).model_dump_json(),
            "task runs": str([run.model_dump_json() for run in client.read_task_runs(flow_run_filter=runs)]),
            "events": events,
        }
