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


@dataclass(frozen=True)
class Workload:
    """A table of items and its steps in order; `names` are the columns a person knows an item by."""

    name: str
    steps: tuple[Step, ...]
    names: tuple[str, ...]

    @property
    def table(self) -> str:
        """Where the items are."""
        return self.steps[0].table

    def step(self, name: str) -> Step:
        """The step of that name. Raises ConfigurationError listing the names."""
        for step in self.steps:
            if step.name == name:
                return step
        known = ", ".join(step.name for step in self.steps)
        raise ConfigurationError(f"{self.name} has no step {name!r}; use one of {known}.")


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
    for step in of.steps:
        column, table = sql.Identifier(step.column("status")), sql.Identifier(of.table)
        query = sql.SQL("SELECT {}::text, count(*) FROM {} GROUP BY 1").format(column, table)
        found = dict(database.rows(query))
        counts[step.name or "status"] = {str(s): int(found.get(str(s), 0)) for s in Status}
    return counts


def failed_items(database: Database, of: Workload, *, reason: str | None = None) -> list[dict[str, object]]:
    """Every failed item: id, names, step, reason, error, attempts, when."""
    items: list[dict[str, object]] = []
    fields = ("id", *of.names, "step", "reason", "error", "attempts", "failed_at")
    for step in of.steps:
        query = sql.SQL(
            "SELECT id, {names}, {step}, {reason}, {error}, {attempts}, {done_at} FROM {table}"
            " WHERE {status} = 'failed' AND ({reason} = %(reason)s OR %(reason)s IS NULL) ORDER BY id"
        ).format(
            names=sql.SQL(", ").join(map(sql.Identifier, of.names)),
            step=sql.Literal(step.name or "status"),
            table=sql.Identifier(of.table),
            done_at=sql.Identifier(step.done_at),
            **{f: sql.Identifier(step.column(f)) for f in ("status", "reason", "error", "attempts")},
        )
        rows = database.rows(query, {"reason": reason})
        items += [dict(zip(fields, row, strict=True)) for row in rows]
    return items
