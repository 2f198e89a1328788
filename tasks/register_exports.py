"""Snapshots of a register in the store: every table as of one moment, in a folder of the day.

    properties/<source>/<date>/properties.parquet    GeoParquet; with the other tables beside it
    properties/<source>/<date>/properties.csv.gz
    properties/<source>/<date>/snapshot.json         what there is: rows, bytes, sha256; stored last

A folder without `snapshot.json` is not whole: whoever stored it was killed, and the next run makes it anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Literal

from psycopg2 import sql

from tasks.errors import OutsideUnreachable, TerminalError, refuse_when_stopped
from tasks.partials import disk
from tasks.postgres import Cursor, Database, sql_text
from tasks.register_snapshots import Rows, as_csv, columns_of, csv_file, parquet_file, rows_in
from tasks.register_tables import TABLES, Table
from tasks.store_objects import Store

Format = Literal["geoparquet", "csv"]

MANIFEST = "snapshot.json"
LOCK_ASKED_EVERY_S = 1.0

_MAKERS = {"geoparquet": (".parquet", parquet_file), "csv": (".csv.gz", csv_file)}
_MEDIA_TYPES = {".parquet": "application/vnd.apache.parquet", ".gz": "application/gzip", ".json": "application/json"}

_NAMED_BY = {
    "municipalities": "municipality_code",
    "provinces": "province_code",
    "roads": "road_id",
    "zip_codes": "zip_code",
    "cities": "city_slug",
    "places": "place_id",
}
"""Table that many properties refer to -> the column of `properties` that names its key."""


@dataclass(frozen=True)
class ExportOrder:
    """One snapshot to be made, of everything a register's tables hold.

    folder   of the store
    formats  in which each table is written
    """

    source: str
    folder: str
    formats: tuple[Format, ...]


def export_orders(database: Database, store: Store, source: str, formats: Collection[Format]) -> list[ExportOrder]:
    """What there is to make: today's snapshot. None when nothing is loaded, or one of just these rows is stored.

    Raises ConfigurationError, OutsideUnreachable.
    """
    state, number, moment = database.rows(sql_text("properties_state"), {"source": source})[0]
    order = ExportOrder(source, f"properties/{source}/{moment:%Y-%m-%d}", tuple(sorted(formats)))
    if not formats or not number:
        return []
    stored = _manifest(store, order)
    return [] if (stored.get("state"), stored.get("formats")) == (state, list(order.formats)) else [order]


# --- making it ---


def make_snapshot(database: Database, order: ExportOrder, work: Path, stop: Event) -> list[Path]:
    """Write the files below `work`, at the places they have in the store; returns them, the manifest last.

    All tables are read in one transaction, so they fit together whatever is being loaded. Raises StopRequested,
    OutsideUnreachable (database, disk), ConfigurationError.
    """
    folder = work / order.folder
    with disk(folder), database.transaction() as cursor:
        folder.mkdir(parents=True, exist_ok=True)
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute(sql_text("properties_state"), {"source": order.source})
        state, _, moment = cursor.fetchall()[0]
        made = [file for table in TABLES.values() for file in _write_table(cursor, table, order, folder, stop)]
        about = {"source": order.source, "taken_at": moment.isoformat(), "state": state, "formats": order.formats}
        manifest = folder / MANIFEST
        manifest.write_text(json.dumps({**about, "files": [_described(path, rows) for path, rows in made]}, indent=1))
    return [*(path for path, _ in made), manifest]


def _write_table(
    cursor: Cursor, table: Table, order: ExportOrder, folder: Path, stop: Event
) -> Iterator[tuple[Path, int]]:
    """One file a format, with its number of rows."""
    paths = [folder / f"{table.name}{_MAKERS[kind][0]}" for kind in order.formats]
    with ExitStack() as files:
        makers = zip(order.formats, paths, strict=True)
        sinks = [files.enter_context(_MAKERS[kind][1](path, table)) for kind, path in makers]
        rows = Rows(sinks, partial(refuse_when_stopped, stop))
        cursor.copy_expert(_copy(table, order.source), rows)
        rows.flush()
    for path in paths:
        if path.suffix == ".parquet" and rows_in(path) != cursor.rowcount:
            raise OutsideUnreachable(
                f"{path.name} holds {rows_in(path):,} rows of {cursor.rowcount:,}; check the disk."
            )
        yield path, cursor.rowcount


def _copy(table: Table, source: str) -> sql.Composed:
    column, named_by = ("property_id", "id") if table.of_property else (table.key[0], _NAMED_BY.get(table.name, "id"))
    columns = [sql.SQL(as_csv(kind)).format(sql.Identifier("t", name)) for name, kind in columns_of(table).items()]
    return sql.SQL(sql_text("properties_snapshot")).format(
        columns=sql.SQL(", ").join(columns),
        table=sql.Identifier(table.name),
        column=sql.Identifier("t", column),
        named_by=sql.Identifier("p", named_by),
        source=sql.Literal(source),
        key=sql.SQL(", ").join(sql.Identifier("t", name) for name in table.key),
    )


def _described(path: Path, rows: int) -> dict[str, Any]:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "rows": rows, "bytes": path.stat().st_size, "sha256": sha256}


# --- storing it ---


def store_snapshot(database: Database, store: Store, files: Sequence[Path], work: Path, stop: Event) -> list[str]:
    """Put the files of one snapshot, the manifest last, into the store; returns their keys.

    What else is in the folder goes: the day's earlier snapshot. Runs that store at the same time wait for one another.
    Raises StopRequested, OutsideUnreachable, ConfigurationError, TransientError.
    """
    keys = [path.relative_to(work).as_posix() for path in files]
    folder = keys[-1].removesuffix(MANIFEST)
    with _alone(database, folder, stop):
        store.remove(keys[-1])
        for stored in list(store.list(folder)):
            if stored.key not in keys:
                store.remove(stored.key)
        for path, key in zip(files, keys, strict=True):
            store.put_replacing(key, path, content_type=_MEDIA_TYPES[path.suffix], stop=stop)
    return keys


@contextmanager
def _alone(database: Database, folder: str, stop: Event) -> Iterator[None]:
    """Nobody else stores below this folder meanwhile. A worker that is killed lets go of it with its connection."""
    with database.transaction() as cursor:
        while not _got(cursor, folder):
            stop.wait(LOCK_ASKED_EVERY_S)
            refuse_when_stopped(stop)
        yield


def _got(cursor: Cursor, name: str) -> bool:
    cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
    return cursor.fetchone() == (True,)


def _manifest(store: Store, order: ExportOrder) -> dict[str, Any]:
    """What is said of the folder's snapshot; nothing when there is none, or none that can be read."""
    try:
        with store.open(f"{order.folder}/{MANIFEST}") as file:
            return dict(json.load(file))
    except (TerminalError, ValueError, TypeError):
        return {}
