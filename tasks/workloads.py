"""The steps of every workload, and which columns name an item to a person. What `landrecords status` knows."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2 import sql

from tasks.checkpoints import Step
from tasks.errors import ConfigurationError
from tasks.postgres import Database
from tasks.records import Status

_ORDER = "download_priority, id"
DOWNLOAD = Step("index_documents", "download", order=_ORDER, later=("optimize", "upload"))
OPTIMIZE = Step(
    "index_documents", "optimize", requires="download_status = 'completed'", order=_ORDER, later=("upload",)
)
UPLOAD = Step("index_documents", "upload", requires="optimize_status IN ('completed', 'skipped')", order=_ORDER)


TILES = Step("tiles")
"""One step: its columns have no prefix."""

PHOTOS = Step("site_images", order="site, folder, id")

PROPERTIES = Step("properties", order="searched_municipality, id", id_type="text")

QUERIES = Step("property_queries")
"""Of a register's searches: work like any other, but no items of a workload."""

GEOETL_RUNS = Step("geoetl_workflow_runs", id_type="text")
GEOETL_NODES = Step("geoetl_node_runs")
"""Tables of what runs did: nobody claims their rows."""


@dataclass(frozen=True)
class Workload:
    """A table of items and its steps in order.

    names     columns a person knows an item by
    statuses  an item can have, in their order; `failing` are those of failed ones
    """

    name: str
    steps: tuple[Step, ...]
    names: tuple[str, ...]
    statuses: tuple[str, ...] = tuple(map(str, Status))
    failing: tuple[str, ...] = (str(Status.FAILED),)

    @property
    def counted(self) -> dict[str, Step]:
        """The steps by what `status` calls them; a workload of a single step calls it `status`."""
        return {step.name or "status": step for step in self.steps}

    @property
    def listed(self) -> dict[str, Step]:
        """Those whose failed items `failed` lists."""
        return self.counted

    def step(self, name: str) -> Step:
        """The step of that name. Raises ConfigurationError listing the names."""
        for step in self.steps:
            if step.name == name:
                return step
        known = ", ".join(step.name for step in self.steps if step.name)
        remedy = f"use one of {known}" if known else "leave --step out, there is only one"
        raise ConfigurationError(f"{self.name} has no step {name!r}; {remedy}.")


@dataclass(frozen=True)
class Workflows(Workload):
    """Runs and their nodes: nothing to claim and nothing to put back. A run that failed is resumed by another."""

    @property
    def counted(self) -> dict[str, Step]:
        """Runs, and what they consist of."""
        return {"runs": GEOETL_RUNS, "nodes": GEOETL_NODES}

    @property
    def listed(self) -> dict[str, Step]:
        """The nodes: they say of a failed run why it is."""
        return {"node": GEOETL_NODES}


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            "documents",
            (DOWNLOAD, OPTIMIZE, UPLOAD),
            ("source", "book", "page", "instrument_number", "document_type", "source_url"),
        ),
        Workload("tiles", (TILES,), ("layer", "z", "x", "y")),
        Workload("photos", (PHOTOS,), ("host", "site", "folder", "path")),
        Workload("properties", (PROPERTIES,), ("source", "searched_municipality", "address")),
        Workflows(
            "geoetl",
            (),
            ("run_id", "workflow_id", "node_id"),
            statuses=("pending", "running", "completed", "failed", "cancelled", "timeout", "skipped"),
            failing=("failed", "timeout"),
        ),
    )
}


def workload(name: str) -> Workload:
    """The workload of that name. Raises ConfigurationError listing the names."""
    if name not in WORKLOADS:
        raise ConfigurationError(f"there is no workload {name!r}; use one of {', '.join(WORKLOADS)}.")
    return WORKLOADS[name]


def status_counts(database: Database, of: Workload) -> dict[str, dict[str, int]]:
    """step -> status -> items, every status present; a workload of a single step calls it `status`."""
    counts = {}
    for name, step in of.counted.items():
        column, table = sql.Identifier(step.column("status")), sql.Identifier(step.table)
        query = sql.SQL("SELECT {}::text, count(*) FROM {} GROUP BY 1").format(column, table)
        found = dict(database.rows(query))
        counts[name] = {status: int(found.get(status, 0)) for status in of.statuses}
    return counts


def failed_items(database: Database, of: Workload, *, reason: str | None = None) -> list[dict[str, object]]:
    """Every failed item: id, names, step, reason, error, attempts, when."""
    items: list[dict[str, object]] = []
    fields = ("id", *of.names, "step", "reason", "error", "attempts", "failed_at")
    for name, step in of.listed.items():
        query = sql.SQL(
            "SELECT id, {names}, {step}, {reason}, {error}, {attempts}, {done_at} FROM {table}"
            " WHERE {status} IN {failing} AND ({reason} = %(reason)s OR %(reason)s IS NULL) ORDER BY id"
        ).format(
            names=sql.SQL(", ").join(map(sql.Identifier, of.names)),
            step=sql.Literal(name),
            table=sql.Identifier(step.table),
            failing=sql.Literal(of.failing),
            done_at=sql.Identifier(step.done_at),
            **{f: sql.Identifier(step.column(f)) for f in ("status", "reason", "error", "attempts")},
        )
        rows = database.rows(query, {"reason": reason})
        items += [dict(zip(fields, row, strict=True)) for row in rows]
    return items
