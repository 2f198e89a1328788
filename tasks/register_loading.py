"""Loading: answers of a register become rows, in one transaction with the checkpoints of their properties.

Whoever claimed a page hands over what came, some hundred answers at a time. What says the same as before touches only
the property's checkpoint. What cannot be read, or is refused by the database, is found among the others, fails with
its reason and is kept in quarantine; the others are loaded.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import psycopg2

from tasks.errors import ItemError, TransientError
from tasks.pages import Page, Settling
from tasks.patience import patiently
from tasks.postgres import first_line, sql_text
from tasks.records import Outcome, Reason, Status
from tasks.register_profile import RegisterProfile
from tasks.register_rows import BadRecord, Record, RegisterReader
from tasks.register_staging import clear, compare, merge, prepare, share, stage

COLUMNS = "item.id, item.content_hash, item.etag, item.last_modified"
"""What a claim must ask for, so that a page can be loaded and asked for on condition that it changed."""

BATCH = 500
"""Answers a transaction: the rows of some hundred make COPY worth its while, and a lock is held for 100 ms."""

PAYLOAD_CHARS = 1_000_000
SHARED_KEPT = 200_000
_REFUSALS = ("22", "23", "54")
"""Classes of SQLSTATE: what the data is not, breaks or exceeds."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came for a property. `body` is None where the register said that nothing changed (304)."""

    id: str
    body: bytes | None
    etag: str | None = None
    last_modified: str | None = None


@dataclass
class Loaded:
    """What became of answers. Each is one of the first six.

    again    they go back to pending
    lost     another worker has taken the property: nothing of them was written
    written  table -> rows inserted, updated or removed
    unknown  paths of fields that the profile does not know -> new or changed properties that have them
    """

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    quarantined: int = 0
    again: int = 0
    lost: int = 0
    written: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, other: Loaded) -> None:
        """Count the other's too."""
        for name in ("new", "changed", "unchanged", "quarantined", "again", "lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.written.update(other.written)
        self.unknown.update(other.unknown)


@dataclass(frozen=True, slots=True)
class _Read:
    """An answer that was read: `record` is None for "nothing changed"."""

    fetched: Fetched
    record: Record | None
    known_hash: str | None

    @property
    def unchanged(self) -> bool:
        return self.record is None or self.record.content_hash == self.known_hash


_Bad = tuple[Fetched, ItemError]
_Line = tuple[str, str]
"""Of a shared table: its name, and a row of it."""


class Loader:
    """Loads the answers of one register. Safe for threads; make it once."""

    def __init__(self, profile: RegisterProfile) -> None:
        self._reader = RegisterReader(profile)
        self._shared_lines: set[_Line] = set()
        self._lock = threading.Lock()

    def load(self, page: Page, fetched: Sequence[Fetched]) -> Loaded:
        """Load what came for items of the page (claimed with COLUMNS) and settle them, BATCH at a time.

        Waits out a database restart. Raises ValueError for an item that is not open on the page, OutsideUnreachable.
        """
        hashes = {row["id"]: row["content_hash"] for row in page.rows}
        loaded = Loaded()
        for start in range(0, len(fetched), BATCH):
            good, bad = self._read(fetched[start : start + BATCH], hashes)
            loaded.add(patiently(partial(self._load, page, good, bad), page.DATABASE_PATIENCE_S))
        return loaded

    def _read(self, fetched: Iterable[Fetched], hashes: dict[Any, str | None]) -> tuple[list[_Read], list[_Bad]]:
        good: list[_Read] = []
        bad: list[_Bad] = []
        for one in fetched:
            try:
                record = None if one.body is None else self._reader.read(one.id, one.body)
            except ItemError as exc:
                bad.append((one, exc))
            else:
                good.append(_Read(one, record, hashes.get(one.id)))
        return good, bad

    def _load(self, page: Page, good: list[_Read], bad: list[_Bad]) -> Loaded:
        with page.transaction() as settling:
            batch = _Batch(settling, page.queue.run_id, prepare(settling.cursor), self._shared_lines)
            batch.fail(bad)
            batch.load(good)
        with self._lock:
            if len(self._shared_lines) < SHARED_KEPT:
                self._shared_lines |= batch.shared_lines
        return batch.loaded


class _Batch:
    """One transaction's answers."""

    def __init__(self, settling: Settling, run_id: str, moment: datetime, shared_lines: set[_Line]) -> None:
        self.loaded = Loaded()
        self.shared_lines: set[_Line] = set()
        self._settling, self._cursor, self._run_id = settling, settling.cursor, run_id
        self._moment = moment.isoformat()
        self._written_before = shared_lines

    def load(self, good: list[_Read]) -> None:
        """All of them together; where the database refuses, each half for itself."""
        if not good:
            return
        self._cursor.execute("SAVEPOINT batch")
        try:
            loaded, shared_lines = self._load_together(good)
        except psycopg2.Error as exc:
            if (exc.pgcode or "")[:2] not in _REFUSALS:
                raise
            self._cursor.execute("ROLLBACK TO SAVEPOINT batch; RELEASE SAVEPOINT batch")
            self._load_apart(good, exc)
        else:
            self._cursor.execute("RELEASE SAVEPOINT batch")
            self.loaded.add(loaded)
            self.shared_lines |= shared_lines

    def _load_apart(self, good: list[_Read], refused: psycopg2.Error) -> None:
        if len(good) == 1:
            said = f"the database refuses it: {first_line(refused)}"
            self.fail([(good[0].fetched, BadRecord(Reason.REFUSED, "", said))])
            return
        middle = len(good) // 2
        self.load(good[:middle])
        self.load(good[middle:])

    def _load_together(self, good: list[_Read]) -> tuple[Loaded, set[_Line]]:
        taken = self._settling.settle([self._outcome(read) for read in good])
        mine = [read for read in good if read.fetched.id in taken]
        if self.loaded.written:
            clear(self._cursor)
        news = [(read.record, read.known_hash is not None) for read in mine if read.record and not read.unchanged]
        loaded = _counted(news, unchanged=len(mine) - len(news), lost=len(good) - len(mine))
        if news:
            loaded.written.update(self._merge(news))
        shared = self._new_lines([read.record for read in mine if read.record])
        loaded.written.update(share(self._cursor, shared))
        if mine:
            ids = [read.fetched.id for read in mine]
            self._cursor.execute("DELETE FROM property_quarantine WHERE property_id = ANY(%s)", (ids,))
        return loaded, {(table, line) for table, lines in shared.items() for line in lines}

    def _outcome(self, read: _Read) -> Outcome:
        values: dict[str, str | None] = {"fetched_at": self._moment}
        if read.record is not None:
            values |= {"etag": read.fetched.etag, "last_modified": read.fetched.last_modified}
        return Outcome(read.fetched.id, Status.COMPLETED, Reason.UNCHANGED if read.unchanged else None, values=values)

    def _merge(self, news: list[tuple[Record, bool]]) -> dict[str, int]:
        any_known = any(known for _, known in news)
        filled = stage(self._cursor, news)
        if any_known:
            compare(self._cursor, self._run_id)
        written = merge(self._cursor, filled, any_known=any_known)
        if not all(known for _, known in news):
            self._cursor.execute(sql_text("properties_new"), {"run_id": self._run_id})
        return written

    def _new_lines(self, records: list[Record]) -> dict[str, list[str]]:
        """Shared rows that this process has not written yet; of two of the same key, the later."""
        lines: dict[str, dict[tuple[str, ...], str]] = {}
        for record in records:
            for table, of in record.shared.items():
                lines.setdefault(table, {}).update(of)
        return {
            table: [line for line in of.values() if (table, line) not in self._written_before]
            for table, of in lines.items()
        }

    def fail(self, bad: list[_Bad]) -> None:
        """Settle what cannot be loaded; what failed for good goes into quarantine."""
        if not bad:
            return
        taken = self._settling.settle([_failure(one, why) for one, why in bad])
        kept = [(one, why) for one, why in bad if taken.get(one.id) == Status.FAILED]
        if kept:
            self._cursor.execute(sql_text("properties_quarantine"), {"run_id": self._run_id, **_columns(kept)})
        self.loaded.quarantined += len(kept)
        self.loaded.lost += len(bad) - len(taken)
        self.loaded.again += len(taken) - len(kept)


def _counted(news: list[tuple[Record, bool]], *, unchanged: int, lost: int) -> Loaded:
    changed = sum(known for _, known in news)
    unknown = Counter(path for record, _ in news for path in record.unknown)
    return Loaded(len(news) - changed, changed, unchanged, lost=lost, unknown=unknown)


def _failure(one: Fetched, why: ItemError) -> Outcome:
    status = Status.PENDING if isinstance(why, TransientError) else Status.FAILED
    return Outcome(one.id, status, why.reason, str(why))


def _columns(kept: list[_Bad]) -> dict[str, list[Any]]:
    bodies = [one.body or b"" for one, _ in kept]
    return {
        "id": [one.id for one, _ in kept],
        "reason": [str(why.reason) for _, why in kept],
        "field": [_storable(why.field) if isinstance(why, BadRecord) and why.field else None for _, why in kept],
        "error": [_storable(str(why)) for _, why in kept],
        "payload": [_storable(body.decode(errors="backslashreplace"))[:PAYLOAD_CHARS] for body in bodies],
        "bytes": [len(body) for body in bodies],
    }


def _storable(text: str) -> str:
    """As it came, but for what Postgres text cannot hold; JSON spells that out anyway."""
    return text.replace("\0", "\\u0000").encode(errors="backslashreplace").decode()
