"""What the table, the store and the spool must agree on after a run; every disagreement is a line of text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pikepdf

from tasks.postgres import Database

Row = dict[str, Any]

UNREADABLE = {"damaged", "encrypted"}
"""Remarks of documents that are kept as they came although a strict reader refuses them."""

SPOOL_KEEPS = {"identity"}


def rows_of(database: Database) -> list[Row]:
    """Every row of `index_documents`, by id."""
    with database.transaction() as cursor:
        cursor.execute("SELECT * FROM index_documents ORDER BY id")
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def sha256_of(path: Path) -> str:
    """In hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def path_of(url: str) -> Path:
    """The file of a `file://` object."""
    return Path(unquote(urlsplit(url).path))


def objects_in(store: Path) -> list[Path]:
    """Every object of a folder store; its own dot folders hold none."""
    parts = (path for path in store.rglob("*") if path.is_file())
    return sorted(path for path in parts if not path.relative_to(store).parts[0].startswith("."))


def disagreements(database: Database, store: Path, spool: Path) -> list[str]:
    """Everything that is not as it must be once all runs are over. Empty: all is well."""
    rows = rows_of(database)
    return [*_of_rows(rows), *_of_objects(rows, store), *_of_leftovers(store, spool)]


def _of_rows(rows: list[Row]) -> Iterator[str]:
    for row in rows:
        steps = [str(row[f"{step}_status"]) for step in ("download", "optimize", "upload")]
        if row["claimed_by"] or row["lease_until"] or "in_progress" in steps:
            yield f"row {row['id']} is still claimed: {steps}"
        if steps[0] == "pending" or (steps[0] == "completed" and "pending" in steps):
            yield f"row {row['id']} is not final: {steps}"
        if steps[2] == "completed" and not (row["gcs_path"] and row["stored_sha256"] and row["uploaded_at"]):
            yield f"row {row['id']} is stored but does not say what"
        if steps[0] in ("failed", "skipped") and not row["download_reason"]:
            yield f"row {row['id']} {steps[0]} without a reason"


def _of_objects(rows: list[Row], store: Path) -> Iterator[str]:
    stored = {path_of(row["gcs_path"]): row for row in rows if str(row["upload_status"]) == "completed"}
    for path, row in stored.items():
        yield from _of_object(path, row, store)
    for path in objects_in(store):
        if path not in stored and path.relative_to(store).parts[0] != "manifests":
            yield f"{path} belongs to no row"


def _of_object(path: Path, row: Row, store: Path) -> Iterator[str]:
    if not path.is_file():
        yield f"row {row['id']}: {path} is not there"
        return
    if sha256_of(path) != row["stored_sha256"] or path.stat().st_size != row["stored_bytes"]:
        yield f"row {row['id']}: {path} is not what the row says"
    about = json.loads((store / ".metadata" / f"{path.relative_to(store)}.json").read_text())["metadata"]
    if about["source-sha256"] != row["source_sha256"] or about["sha256"] != row["stored_sha256"]:
        yield f"row {row['id']}: the description of {path} tells of another document"
    if row["download_reason"] not in UNREADABLE:
        with pikepdf.open(path, attempt_recovery=False) as pdf:
            if len(pdf.pages) != row["num_pages_found"]:
                yield f"row {row['id']}: {path} has {len(pdf.pages)} pages"


def _of_leftovers(store: Path, spool: Path) -> Iterator[str]:
    for path in (store / ".tmp").iterdir():
        yield f"temporary file {path}"
    for path in (spool / "documents").rglob("*"):
        if path.name not in SPOOL_KEEPS:
            yield f"left in the spool: {path}"
