"""The statements that bring a batch of properties into the tables: staged by COPY, then one statement a table."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from psycopg2 import sql

from tasks.postgres import Cursor, sql_text
from tasks.register_rows import Record
from tasks.register_tables import CHILDREN, PROPERTIES, SHARED, TABLES, Table

_STAGED_ONLY = ("extra", "content_hash")


def prepare(cursor: Cursor) -> datetime:
    """Make this session's staging tables where they are missing; returns the transaction's time.

    They stay with the connection: making fourteen tables for every batch would fill the catalogue with dead rows.
    """
    cursor.execute(sql_text("properties_staged"))
    there, moment = cursor.fetchone() or (False, None)
    if not there:
        for table in (*CHILDREN, *SHARED, PROPERTIES):  # the one that is asked for comes last
            cursor.execute(_stage(table))
    return moment  # type: ignore[no-any-return]


def clear(cursor: Cursor) -> None:
    """Empty the staging tables, for another batch of the same transaction."""
    deletions = [sql.SQL("DELETE FROM {}").format(_staged(table)) for table in TABLES.values()]
    cursor.execute(sql.SQL("; ").join(deletions))  # TRUNCATE makes fourteen new files


def stage(cursor: Cursor, records: Collection[tuple[Record, bool]]) -> list[Table]:
    """Copy the records' own rows; returns the tables that have any. With each: whether it was loaded before."""
    texts = [f"{r.lines[PROPERTIES.name][0]}\t{r.content_hash}\t{'t' if known else 'f'}" for r, known in records]
    _copy(cursor, PROPERTIES, texts)
    filled = []
    for table in CHILDREN:
        lines = [line for record, _ in records for line in record.lines.get(table.name, ())]
        if lines:
            _copy(cursor, table, lines)
            filled.append(table)
    return filled


def compare(cursor: Cursor, run_id: str) -> None:
    """Note what is new about staged properties that were loaded before. Before they are merged."""
    cursor.execute(_changed(), {"run_id": run_id})
    cursor.execute(sql_text("properties_priced"), {"run_id": run_id})


def merge(cursor: Cursor, filled: Iterable[Table], *, any_known: bool) -> dict[str, int]:
    """Bring the staged rows into the tables; returns the rows written or removed in each."""
    written: dict[str, int] = {}
    if any_known:
        for table in reversed(CHILDREN):
            cursor.execute(_statement("properties_remove", table, same="kept"))
            written[table.name] = cursor.rowcount
    cursor.execute(_update())
    written[PROPERTIES.name] = cursor.rowcount
    for table in filled:
        cursor.execute(_statement("properties_upsert", table))
        written[table.name] = written.get(table.name, 0) + cursor.rowcount
    return written


def share(cursor: Cursor, lines: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Bring rows of the shared tables up to date; returns the rows written in each."""
    written = {}
    for table in SHARED:
        if lines.get(table.name):
            _copy(cursor, table, lines[table.name])
            cursor.execute(_statement("properties_share", table))
            written[table.name] = cursor.rowcount
    return written


def _copy(cursor: Cursor, table: Table, lines: Iterable[str]) -> None:
    cursor.copy_expert(_copy_text(table), io.BytesIO("\n".join((*lines, "")).encode()))


# --- statements, made once ---


@cache
def _copy_text(table: Table) -> sql.Composed:
    columns = (*table.names, *(_STAGED_ONLY if table is PROPERTIES else ()))
    known = sql.SQL(", known" if table is PROPERTIES else "")
    return sql.SQL("COPY {} ({}{}) FROM STDIN").format(_staged(table), _names(columns), known)


@cache
def _stage(table: Table) -> sql.Composed:
    columns = (*table.names, *(_STAGED_ONLY if table is PROPERTIES else ()))
    known = sql.SQL(", false AS known" if table is PROPERTIES else "")
    return sql.SQL(sql_text("properties_stage")).format(
        staged=_staged(table), columns=_names(columns) + known, table=sql.Identifier(table.name)
    )


@cache
def _update() -> sql.Composed:
    names = PROPERTIES.plain
    return sql.SQL(sql_text("properties_update")).format(columns=_names(names), staged=_names(names, "s"))


@cache
def _statement(name: str, table: Table, *, same: str = "t") -> sql.Composed:
    """`tasks/sql/<name>.sql` for one table: t is the table, s what is staged for it.

    same  what of the table is compared with s by its key
    """
    return sql.SQL(sql_text(name)).format(
        table=sql.Identifier(table.name),
        staged=_staged(table),
        columns=_names(table.names),
        key=_names(table.key),
        plain=_names(table.plain),
        current=_names(table.plain, "t"),
        given=_names(table.plain, "s"),
        excluded=_names(table.plain, "excluded"),
        same=_same(table, same, "s"),
    )


@cache
def _changed() -> sql.Composed:
    rows = [
        sql.SQL(sql_text("properties_differing_rows")).format(
            name=sql.Literal(table.name),
            table=sql.Identifier(table.name),
            staged=_staged(table),
            same=_same(table, "kept", "said"),
            kept=_names(table.plain, "kept"),
            said=_names(table.plain, "said"),
        )
        for table in CHILDREN
    ]
    names = (*PROPERTIES.plain, "extra")
    own = sql.SQL(sql_text("properties_differing")).format(said=_names(names, "s"), kept=_names(names, "p"))
    parts: Sequence[sql.Composable] = [own, *rows]
    return sql.SQL(sql_text("properties_changed")).format(differences=sql.SQL("\nUNION ALL\n").join(parts))


def _staged(table: Table) -> sql.Identifier:
    return sql.Identifier(f"staged_{table.name}")


def _names(names: Iterable[str], of: str = "") -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(of, name) if of else sql.Identifier(name) for name in names)


def _same(table: Table, one: str, other: str) -> sql.Composed:
    equal: list[Any] = [
        sql.SQL("{} = {}").format(sql.Identifier(one, name), sql.Identifier(other, name)) for name in table.key
    ]
    return sql.SQL(" AND ").join(equal)
