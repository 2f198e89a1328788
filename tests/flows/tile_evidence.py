"""What the rows of a layer and the objects in its folder must agree on after a run; every disagreement is a line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tasks.postgres import Database
from tasks.sample.tile_contents import Sort, tile_content, tile_sort
from tests.flows.evidence import Row, objects_in

Name = tuple[int, int, int]
"""z, x, y, counted from the north."""

Served = Callable[[int, int, int], bytes | None]
"""What a server has of a tile."""


def sample(layer: str, version: int = 0) -> Served:
    """What the sample tile server has of one of its layers."""
    return lambda z, x, y: tile_content(layer, z, x, y, version)


def sort_of(layer: str, *sorts: Sort) -> Callable[[Name], bool]:
    """Whether a tile of the sample server is of one of these sorts."""
    return lambda name: tile_sort(layer, *name) in sorts


def tile_rows(database: Database, layer: str) -> dict[Name, Row]:
    """The rows of a layer by the names of their tiles."""
    with database.transaction() as cursor:
        cursor.execute("SELECT * FROM tiles WHERE layer = %s ORDER BY id", (layer,))
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return {(row["z"], row["x"], row["y"]): row for row in rows}


def contents_of(store: Path, layer: str) -> dict[str, bytes]:
    """Every object of a layer: its key below the layer's folder, and its bytes."""
    return {str(path.relative_to(store / layer)): path.read_bytes() for path in objects_in(store / layer)}


def blank_name(content: bytes, kind: str) -> str:
    """Where the blank tiles of a content lie below the layer's folder."""
    return f"blank/{hashlib.sha256(content).hexdigest()}.{kind}"


def tile_disagreements(
    rows: Mapping[Name, Row], contents: Mapping[str, bytes], served: Served, *, may_fail: bool = False
) -> list[str]:
    """Everything that is not as it must be once all runs are over. Empty: all is well.

    may_fail  a tile may have a typed reason instead of its bytes
    """
    return [*_of_rows(rows, contents, served, may_fail), *_of_objects(rows, contents)]


def _of_rows(rows: Mapping[Name, Row], contents: Mapping[str, bytes], served: Served, may_fail: bool) -> Iterator[str]:
    for name, row in rows.items():
        if row["claimed_by"] or row["lease_until"] or row["status"] in ("pending", "in_progress"):
            yield f"{name} is not settled: {row['status']} {row['reason']} {row['error']}"
        elif row["status"] == "failed":
            if not may_fail or not row["reason"] or not row["error"]:
                yield f"{name} failed: {row['reason']} {row['error']}"
        else:
            yield from _of_answer(name, row, contents, served(*name))


def _of_answer(name: Name, row: Row, contents: Mapping[str, bytes], wanted: bytes | None) -> Iterator[str]:
    there = (row["status"], row["reason"], row["sha256"], row["blank"])
    if wanted is None:
        if there != ("skipped", "missing", None, False):
            yield f"{name} is not on the server, and its row says {there}"
        return
    facts = ("completed", hashlib.sha256(wanted).hexdigest(), len(wanted))
    if facts != (row["status"], row["sha256"], row["size_bytes"]):
        yield f"{name} is on the server with {facts}, and its row says {there}"
    elif contents.get(object_name(name, row)) != wanted:
        yield f"{name}: {object_name(name, row)} is not what the server has"


def object_name(name: Name, row: Row) -> str:
    """Where a completed tile lies below the layer's folder, as its row has it."""
    z, x, y = name
    return f"blank/{row['sha256']}.{row['kind']}" if row["blank"] else f"{z}/{x}/{y}.{row['kind']}"


def _of_objects(rows: Mapping[Name, Row], contents: Iterable[str]) -> Iterator[str]:
    known = {object_name(name, row) for name, row in rows.items() if row["sha256"]}
    for stray in sorted(set(contents) - known):
        yield f"{stray} belongs to no row"


def leftovers(store: Path, spool: Path) -> list[Path]:
    """Temporary files and folders that no living process needs."""
    folders = (store / ".tmp", spool / "tiles")
    return [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
