"""What is kept of workflows in Postgres: definitions, runs, node runs, lineage (migration 050)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from psycopg2.extras import Json

from tasks.geo.definition import Workflow
from tasks.geo.engine import Engine
from tasks.geo.outcome import NodeState, State
from tasks.postgres import Database, sql_text
from tasks.records import Status

Trigger = Literal["manual", "scheduled", "api", "event"]

_PASSWORD = re.compile(r"(://[^/@\s:]*):\S*@")  # to the last @: a password may have some

STATUS_OF = {
    State.PENDING: Status.PENDING,
    State.RUNNING: Status.IN_PROGRESS,
    State.COMPLETED: Status.COMPLETED,
    State.FAILED: Status.FAILED,
    State.CANCELLED: Status.PENDING,
    State.TIMEOUT: Status.FAILED,
    State.SKIPPED: Status.SKIPPED,
}
"""A node's state in the words that all reports share."""


def without_passwords(value: Any) -> Any:
    """JSON with *** for the passwords of addresses in it."""
    return json.loads(_PASSWORD.sub(r"\1:***@", json.dumps(value, default=str)))


@dataclass(frozen=True)
class RunRow:
    """A run's row before it begins."""

    run_id: str
    workflow: Workflow
    parameters: dict[str, Any]
    runner: str
    trigger: Trigger = "manual"
    tenant_id: str = "default"
    resumed_from: str | None = None


class RunRecords:
    """The rows of one run."""

    def __init__(self, database: Database, row: RunRow) -> None:
        self._database, self._row = database, row

    def begin(self) -> None:
        """Record definition and run; partitions for the months to come are made where they are missing."""
        row = self._row
        definition = without_passwords(row.workflow.model_dump(mode="json", by_alias=True))
        arguments = {
            "tenant_id": row.tenant_id,
            "workflow_id": row.workflow.id,
            "version": row.workflow.version,
            "name": row.workflow.metadata.name,
            "category": row.workflow.metadata.category,
            "tags": list(row.workflow.metadata.tags),
            "definition": Json(definition),
            "sha256": hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest(),
            "run_id": row.run_id,
            "runner": row.runner,
            "trigger": row.trigger,
            "parameters": Json(without_passwords(row.parameters)),
            "resumed_from": row.resumed_from,
        }
        self._database.rows("SELECT geoetl_prepare_months()")
        self._database.rows(sql_text("geoetl_begin"), arguments)

    def nodes(self, states: Sequence[NodeState]) -> None:
        """Write how these nodes stand."""
        rows = [_node_row(state) for state in states]
        arguments = {"run_id": self._row.run_id, "workflow_id": self._row.workflow.id, "rows": Json(rows)}
        self._database.rows(sql_text("geoetl_nodes"), arguments)

    def lineage(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write what was read and made."""
        found = without_passwords(list(rows))
        self._database.rows(sql_text("geoetl_lineage"), {"run_id": self._row.run_id, "rows": Json(found)})

    def end(self, state: State, error: str | None, peak_memory_mb: float) -> None:
        """How the run ended, its sums taken from its nodes."""
        arguments = {"run_id": self._row.run_id, "status": state, "error": error, "peak": peak_memory_mb}
        self._database.rows(sql_text("geoetl_end"), arguments)


def end_killed(database: Database) -> int:
    """Fail the runs whose process was killed, by what `landrecords_runs` says of them; returns how many."""
    return len(database.rows(sql_text("geoetl_killed")))


def lineage_of(engine: Engine, states: Sequence[NodeState]) -> list[dict[str, Any]]:
    """Inputs with their fingerprints, outputs with their places and, where they are files, their hashes."""
    found = []
    for state in states:
        if state.node in engine.fingerprints and state.state == State.COMPLETED:
            found.append(_input(engine, state))
        found += [_output(state, place) for place in state.written.places]
    return found


def _input(engine: Engine, state: NodeState) -> dict[str, Any]:
    given = engine.graph.nodes[state.node].model_dump(mode="json", exclude_defaults=True)
    return {
        "node_id": state.node,
        "direction": "input",
        "place": f"{state.type} {json.dumps(given, sort_keys=True)}"[:2000],
        "fingerprint": engine.fingerprints[state.node],
        "features": state.measured.features_out,
        "size_bytes": engine.graph.described[state.node].size_bytes,
    }


def _output(state: NodeState, place: str) -> dict[str, Any]:
    path = Path(place)
    is_file = path.is_absolute() and path.is_file()
    return {
        "node_id": state.node,
        "direction": "output",
        "place": place,
        "sha256": _sha256(path) if is_file else None,
        "features": state.written.features,
        "size_bytes": path.stat().st_size if is_file else state.written.size_bytes,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _node_row(state: NodeState) -> dict[str, Any]:
    measured = state.measured
    return {
        "node_id": state.node,
        "node_type": state.type,
        "stage": state.stage,
        "status": state.state,
        "retry_count": state.retries,
        "reason": state.reason,
        "error": state.error and without_passwords(state.error),
        "restored": state.restored,
        "features_in": measured.features_in,
        "features_out": measured.features_out,
        "bytes_out": measured.bytes_out,
        "seconds": measured.seconds,
        "cpu_ms": measured.cpu_ms,
        "peak_memory_mb": measured.peak_memory_mb or None,
        "began": measured.began or None,
        "ended": measured.ended or None,
    }
