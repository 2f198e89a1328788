"""The state machine of all workloads: what the database refuses, who owns a row, and what survives."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tasks import checkpoints
from tasks.checkpoints import Queue, Scope, Step
from tasks.errors import IllegalMove, OutsideUnreachable
from tasks.owners import is_dead, machine, new_owner
from tasks.pages import Page
from tasks.postgres import Database, migrate
from tasks.records import FINAL, MAX_ATTEMPTS, Outcome, Reason, Status
from tasks.workloads import WORKLOADS
from tests.fakes.own_postgres import OwnPostgres

ITEMS = Step("items", order="priority, id")
FETCH = Step("papers", "fetch", order="id", later=("optimize", "upload"))
OPTIMIZE = Step("papers", "optimize", requires="fetch_status = 'completed'", order="id", later=("upload",))
UPLOAD = Step("papers", "upload", requires="optimize_status IN ('completed', 'skipped')", order="id")

TABLES = """
CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, priority smallint NOT NULL DEFAULT 3,
    name text, taken date, seen timestamptz, amount numeric(10, 2), ratio double precision, size bigint,
    good boolean, digest bytea, facts jsonb, page integer CHECK (page > 0));
SELECT landrecords_add_step('items', '', 'priority, id', '');
CREATE TABLE papers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
SELECT landrecords_add_step('papers', 'fetch', 'id', '');
SELECT landrecords_add_step('papers', 'optimize', 'id', 'fetch_status = ''completed''');
SELECT landrecords_add_step('papers', 'upload', 'id', 'optimize_status IN (''completed'', ''skipped'')');
"""


@pytest.fixture
def database(database: Database) -> Database:
    database.rows(TABLES)
    return database


@pytest.fixture
def queue(database: Database) -> Queue:
    """The queue of `items`, which is empty."""
    return Queue(database, ITEMS, run_id="run")


def add(database: Database, number: int, *, table: str = "items") -> None:
    database.rows(f"INSERT INTO {table} (run_id) SELECT NULL FROM generate_series(1, %s)", (number,))


def counts(database: Database) -> dict[str, int]:
    return dict(database.rows("SELECT status::text, count(*)::int FROM items GROUP BY 1"))


def row_of(database: Database, item: int, table: str = "items") -> dict[str, Any]:
    return dict(database.rows(f"SELECT to_jsonb(t) FROM {table} AS t WHERE id = %s", (item,))[0][0])


def lapse(database: Database, table: str = "items") -> None:
    database.rows(f"UPDATE {table} SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL")


def make_due(database: Database) -> None:
    database.rows("UPDATE items SET not_before = NULL")


def ids(page: Page) -> list[int]:
    return [row["id"] for row in page.rows]


# --- moves ---

LEGAL = {("pending", "in_progress"), *(("in_progress", str(to)) for to in Status)}
LEGAL |= {(str(status), str(status)) for status in Status}
EXPLICIT = LEGAL | {(str(status), "pending") for status in FINAL}


@pytest.mark.parametrize("explicit", [False, True], ids=["usual", "explicit"])
@pytest.mark.parametrize("step", [ITEMS, FETCH, OPTIMIZE, UPLOAD], ids=["single", "fetch", "optimize", "upload"])
def test_every_move_is_legal_or_refused_by_the_database(database: Database, step: Step, explicit: bool) -> None:
    column, seen = step.column("status"), set()
    for before, after in itertools.product(map(str, Status), repeat=2):
        with contextlib.suppress(IllegalMove), database.transaction() as cursor:
            cursor.execute(
                f"INSERT INTO {step.table} ({column}, claimed_by, lease_until) VALUES (%s, 'w', now()) RETURNING id",
                (before,),
            )
            (item,) = cursor.fetchone() or ()
            if explicit:
                cursor.execute("SET LOCAL landrecords.explicit = 'on'")
            cursor.execute(f"UPDATE {step.table} SET {column} = %s WHERE id = %s", (after, item))
            seen.add((before, after))
    assert seen == (EXPLICIT if explicit else LEGAL)


def test_explicit_ends_with_its_transaction(database: Database) -> None:
    one = Database(database.url, size=1)
    one.rows("INSERT INTO items (status) VALUES ('failed')")
    with one.transaction() as cursor:
        cursor.execute("SET LOCAL landrecords.explicit = 'on'")
    with pytest.raises(IllegalMove, match=r"items\.status for id 1: failed -> pending"):
        one.rows("UPDATE items SET status = 'pending'")
    one.close()


def test_a_row_in_progress_has_an_owner_and_a_lease(database: Database) -> None:
    """Else it would never lapse, and nobody would take it again."""
    add(database, 1)
    with pytest.raises(psycopg2.errors.CheckViolation):
        database.rows("UPDATE items SET status = 'in_progress', claimed_by = 'w'")
    with pytest.raises(psycopg2.errors.CheckViolation):
        database.rows("UPDATE items SET status = 'in_progress', lease_until = now()")


# --- claiming ---


def test_claims_come_in_order_and_say_who_and_for_how_long(database: Database, queue: Queue) -> None:
    database.rows("INSERT INTO items (priority) VALUES (3), (1), (3), (1), (2)")
    page = queue.claim(4)
    assert ids(page) == [2, 4, 5, 1]
    row = row_of(database, 2)
    assert (row["status"], row["claimed_by"], row["run_id"]) == ("in_progress", page.owner, "run")
    lease = database.rows("SELECT extract(epoch FROM lease_until - now())::int FROM items WHERE id = 2")
    assert 58 <= lease[0][0] <= 60
    assert ids(queue.claim(4)) == [3]
    assert ids(queue.claim(4)) == []


def test_a_claim_order_may_descend(database: Database) -> None:
    add(database, 5)
    assert ids(Queue(database, Step("items", order="priority, id DESC"), run_id="r").claim(3)) == [5, 4, 3]


def test_a_scope_narrows_and_its_parameters_are_values(database: Database, queue: Queue) -> None:
    add(database, 9)
    name = "O'Hara; %s {x} DROP"
    database.rows("UPDATE items SET name = %s WHERE id IN (2, 4, 6)", (name,))
    scope = Scope("name = %(wanted)s", {"wanted": name})
    assert queue.count_due(scope) == 3
    assert ids(queue.claim(5, scope.and_ids([4, 5, 6]))) == [4, 6]
    assert ids(queue.claim(5, scope)) == [2]


def test_a_claim_may_ask_for_some_columns(database: Database, queue: Queue) -> None:
    add(database, 1)
    assert queue.claim(1, columns="item.id, item.priority").rows == [{"id": 1, "priority": 3}]


def test_steps_are_claimed_once_the_one_before_is_done(database: Database) -> None:
    add(database, 4, table="papers")
    fetch, optimize, upload = (Queue(database, step, run_id="r") for step in (FETCH, OPTIMIZE, UPLOAD))
    assert ids(optimize.claim(9)) == ids(upload.claim(9)) == []
    with fetch.claim(9) as page:
        for item, status in zip(ids(page), ["completed", "completed", "failed", "skipped"], strict=True):
            page.settle(Outcome(item, Status(status)))
    assert ids(upload.claim(9)) == []
    with optimize.claim(9) as page:
        assert ids(page) == [1, 2]
        page.settle(Outcome(1, Status.SKIPPED, Reason.NOT_SMALLER))
        page.settle(Outcome(2, Status.FAILED))
    assert ids(upload.claim(9)) == [1]
    row = row_of(database, 1, "papers")
    assert row["fetched_at"] is not None
    assert (row["optimize_status"], row["optimize_reason"]) == ("skipped", "not_smaller")
    assert row["optimized_at"] is not None
    assert row["uploaded_at"] is None


def test_rows_that_wait_do_not_block_those_that_are_due(database: Database, queue: Queue) -> None:
    add(database, 4)
    database.rows("UPDATE items SET not_before = now() + interval '1 hour' WHERE id IN (1, 2)")
    assert queue.count_due() == 4
    assert queue.count_due(at_most=3) == 3
    assert queue.due_ids() == [3, 4]
    assert queue.due_in_s() == 0
    assert ids(queue.claim(9)) == [3, 4]
    assert queue.due_in_s() == pytest.approx(3600, abs=5)
    database.rows("UPDATE items SET not_before = now() - interval '1 second' WHERE id = 1")
    assert ids(queue.claim(9)) == [1]


def test_nothing_pending_is_never_due(database: Database, queue: Queue) -> None:
    assert queue.due_in_s() is None
    add(database, 1)
    page = queue.claim(1)
    assert queue.due_in_s() is None
    page.settle(Outcome(1, Status.COMPLETED))
    page.flush()
    assert queue.due_in_s() is None
    assert queue.count_due() == 0
    assert queue.due_ids() == []


CLAIM_ALL = """
import sys
from tasks.checkpoints import Queue, Step
from tasks.postgres import Database
queue = Queue(Database(sys.argv[1], size=1), Step("items", order="priority, id"), run_id="many")
sys.stdin.readline()
while rows := queue.claim(23, columns="item.id").rows:
    print(*(row["id"] for row in rows), flush=True)
"""


def test_no_row_is_claimed_twice_and_none_is_left(database: Database) -> None:
    add(database, 3000)
    claimed: list[int] = []

    def claim_all() -> None:
        queue = Queue(database, ITEMS, run_id="many")
        while rows := queue.claim(17).rows:
            claimed.extend(row["id"] for row in rows)

    command = [sys.executable, "-c", CLAIM_ALL, database.url]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(3)
        ]
        threads = [threading.Thread(target=claim_all) for _ in range(8)]
        for worker in (*processes, *threads):
            worker.start() if isinstance(worker, threading.Thread) else print("go", file=worker.stdin, flush=True)
        for thread in threads:
            thread.join()
        for process in processes:
            output, _ = process.communicate(timeout=60)
            claimed.extend(int(word) for word in output.split())
    assert sorted(claimed) == list(range(1, 3001))
    assert counts(database) == {"in_progress": 3000}


# --- leases ---


def test_a_lapsed_lease_is_taken_and_the_late_result_dropped(database: Database, queue: Queue) -> None:
    add(database, 3)
    slow = queue.claim(3)
    assert ids(queue.claim(3)) == []
    assert queue.due_in_s() is None
    lapse(database)
    assert (queue.due_in_s(), queue.count_due(), queue.due_ids()) == (0, 3, [1, 2, 3])
    quick = queue.claim(2)
    assert ids(quick) == [1, 2]
    heard: list[int] = []
    slow.listener = lambda outcome, _status: heard.append(outcome.id)
    for item in (1, 2, 3):
        slow.settle(Outcome(item, Status.COMPLETED, values={"name": "slow"}))
    slow.flush()
    assert slow.lost == {1, 2}
    assert heard == [3], "a lease that lapsed but was taken by nobody is still ours"
    assert slow.final == {3: "completed"}
    quick.settle(Outcome(1, Status.COMPLETED, values={"name": "quick"}))
    quick.flush()
    assert row_of(database, 1)["name"] == "quick"
    slow.release()
    assert counts(database) == {"completed": 2, "in_progress": 1}


def test_a_late_release_leaves_the_row_to_its_new_owner(database: Database, queue: Queue) -> None:
    add(database, 1)
    slow = queue.claim(1)
    lapse(database)
    quick = queue.claim(1)
    slow.renew()
    slow.release()
    assert row_of(database, 1)["claimed_by"] == quick.owner


def test_lapsed_leases_come_before_new_rows(database: Database, queue: Queue) -> None:
    database.rows("INSERT INTO items (priority) VALUES (1), (2), (1), (1)")
    queue.claim(9, Scope("id = 2"))
    lapse(database)
    assert set(ids(queue.claim(2))) == {2, 1}


def test_a_page_at_work_keeps_its_lease(database: Database) -> None:
    add(database, 2)
    queue = Queue(database, ITEMS, run_id="r", lease_s=0.8)
    with queue.claim(2) as page:
        page.settle(Outcome(1, Status.COMPLETED))
        page.flush()
        for _ in range(10):
            time.sleep(0.2)
            assert ids(Queue(database, ITEMS, run_id="thief").claim(2)) == []
    assert counts(database) == {"completed": 1, "pending": 1}


def test_a_short_lease_is_renewed_though_the_heart_waits_for_a_long_one(database: Database) -> None:
    add(database, 2)
    with Queue(database, ITEMS, run_id="r").claim(1), Queue(database, ITEMS, run_id="r", lease_s=0.6).claim(1):
        time.sleep(1.5)
        assert Queue(database, ITEMS, run_id="thief").count_due() == 0


def test_outcomes_that_wait_to_be_written_keep_their_lease(database: Database) -> None:
    add(database, 1)
    page = Queue(database, ITEMS, run_id="r").claim(1)
    page.settle(Outcome(1, Status.COMPLETED))
    lapse(database)
    page.renew()
    assert Queue(database, ITEMS, run_id="thief").count_due() == 0
    page.flush()
    assert page.final == {1: "completed"}


def test_renewing_and_settling_the_same_rows_never_wait_for_each_other(database: Database, queue: Queue) -> None:
    add(database, 2000)
    page, ended, trouble = queue.claim(2000), threading.Event(), []

    def renew() -> None:
        while not ended.is_set():
            try:
                page.renew()
            except OutsideUnreachable as exc:
                trouble.append(exc)

    renewing = threading.Thread(target=renew)
    renewing.start()
    for item in reversed(ids(page)):
        page.settle(Outcome(item, Status.COMPLETED))
        if item % 250 == 0:
            page.flush()
    page.flush()
    ended.set()
    renewing.join()
    assert trouble == []
    assert counts(database) == {"completed": 2000}
    assert database.rows("SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()") == [(0,)]


# --- the end of a page ---


def test_what_is_not_settled_is_released_and_costs_nothing(database: Database, queue: Queue) -> None:
    add(database, 3)
    with contextlib.suppress(KeyError), queue.claim(3) as page:
        page.settle(Outcome(2, Status.COMPLETED))
        raise KeyError
    assert counts(database) == {"completed": 1, "pending": 2}
    row = row_of(database, 1)
    assert (row["attempts"], row["claimed_by"], row["lease_until"], row["not_before"]) == (0, None, None, None)
    assert ids(queue.claim(3)) == [1, 3]


def test_a_page_without_rows_is_fine(queue: Queue) -> None:
    with queue.claim(5) as page:
        assert page.rows == []
    assert page.settled == {}


def test_an_item_is_settled_once_and_only_on_its_page(database: Database, queue: Queue) -> None:
    add(database, 2)
    page = queue.claim(1)
    page.settle(Outcome(1, Status.COMPLETED))
    with pytest.raises(ValueError, match="item 1 is not open"):
        page.settle(Outcome(1, Status.FAILED))
    with pytest.raises(ValueError, match="item 2 is not open"):
        page.settle(Outcome(2, Status.COMPLETED))
    page.flush()
    assert page.settled == {"completed": 1}
    assert page.lost == set()


def test_outcomes_are_written_in_batches_and_at_last_after_a_while(
    database: Database, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, 10)
    page = queue.claim(10)
    monkeypatch.setattr(Page, "BATCH", 4)
    monkeypatch.setattr(Page, "FLUSH_AFTER_S", 60.0)
    for item in range(1, 7):
        page.settle(Outcome(item, Status.COMPLETED))
    assert counts(database) == {"completed": 4, "in_progress": 6}
    page.flush_if_late()
    assert counts(database)["completed"] == 4
    monkeypatch.setattr(Page, "FLUSH_AFTER_S", 0.0)
    page.flush_if_late()
    assert counts(database) == {"completed": 6, "in_progress": 4}


def test_threads_may_settle_one_page(database: Database, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    add(database, 800)
    monkeypatch.setattr(Page, "BATCH", 50)
    with queue.claim(800) as page:
        parts = [ids(page)[n::8] for n in range(8)]

        def settle(part: list[int]) -> None:
            for item in part:
                page.settle(Outcome(item, Status.COMPLETED if item % 2 else Status.SKIPPED))

        threads = [threading.Thread(target=settle, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert page.settled == {"completed": 400, "skipped": 400} == counts(database)


# --- attempts and delays ---


def test_a_failing_item_is_tried_five_times_with_growing_delays(database: Database, queue: Queue) -> None:
    add(database, 60)
    for attempt in range(1, MAX_ATTEMPTS):
        with queue.claim(60) as page:
            for item in ids(page):
                page.settle(Outcome(item, Status.PENDING, Reason.TIMEOUT, f"attempt {attempt}"))
        base = ITEMS.backoff_s * 2 ** (attempt - 1)
        assert len(page.again) == 60
        assert 0.5 * base - 0.5 < min(page.again.values())
        assert max(page.again.values()) <= 1.5 * base
        assert max(page.again.values()) - min(page.again.values()) > 0.4 * base, "not all at once"
        row = row_of(database, 1)
        assert (row["status"], row["attempts"], row["error"]) == ("pending", attempt, f"attempt {attempt}")
        assert row["completed_at"] is None
        assert ids(queue.claim(60)) == []
        make_due(database)
    with queue.claim(60) as page:
        for item in ids(page):
            page.settle(Outcome(item, Status.PENDING, Reason.TIMEOUT, "the last"))
    assert page.settled == {"failed": 60}
    assert page.again == {}
    row = row_of(database, 1)
    assert (row["status"], row["attempts"], row["reason"], row["error"]) == ("failed", 5, "timeout", "the last")
    assert row["completed_at"] is not None
    assert row["not_before"] is None
    make_due(database)
    assert ids(queue.claim(60)) == []


def test_delays_have_a_ceiling(database: Database) -> None:
    step = Step("items", order="id", backoff_s=2.0, backoff_cap_s=10.0, max_attempts=30)
    add(database, 1)
    database.rows("UPDATE items SET attempts = 20")
    with Queue(database, step, run_id="r").claim(1) as page:
        page.settle(Outcome(1, Status.PENDING))
    assert 4 < page.again[1] <= 15


def test_a_refusal_for_the_rate_costs_no_attempt(database: Database, queue: Queue) -> None:
    add(database, 1)
    for _ in range(MAX_ATTEMPTS + 3):
        with queue.claim(1) as page:
            page.settle(Outcome(1, Status.PENDING, Reason.RATE_LIMITED, "wait", retry_in_s=40, costs_attempt=False))
        assert page.again[1] == pytest.approx(40, abs=2)
        make_due(database)
    row = row_of(database, 1)
    assert (row["status"], row["attempts"], row["reason"]) == ("pending", 0, "rate_limited")
    assert row["completed_at"] is None


def test_the_delay_asked_for_is_the_delay(database: Database, queue: Queue) -> None:
    add(database, 2)
    with queue.claim(2) as page:
        page.settle(Outcome(1, Status.PENDING, retry_in_s=0.0))
        page.settle(Outcome(2, Status.PENDING, retry_in_s=120.0))
    assert page.again[1] == 0
    assert page.again[2] == pytest.approx(120, abs=2)
    assert ids(queue.claim(2)) == [1]


# --- values ---

VALUES: dict[str, list[Any]] = {
    "name": ["plain", 'O\'Hara \\ {x,y} "q" é 汉 🗺', "", "nul\0l and half \ud83d a pair", None],
    "taken": [date(1899, 12, 31), date(2024, 2, 29), None],
    "seen": [datetime(2024, 3, 1, 12, tzinfo=UTC), None],
    "amount": [Decimal("12345678.90"), 3, None],
    "ratio": [0.1, float("inf"), 5, None],
    "size": [2**40, 0, -1, None],
    "good": [True, False, None],
    "digest": [b"\x00\xff'", None],
    "facts": [{"a": [1, None, {"b": "c"}], "é": "'\\"}, [], {}, ["nul\0", "\\u0000 is text"], None],
}


@pytest.mark.parametrize("column", VALUES)
def test_values_arrive_as_they_are(database: Database, queue: Queue, column: str) -> None:
    given = VALUES[column]
    add(database, len(given))
    with queue.claim(len(given)) as page:
        for item, value in zip(ids(page), given, strict=True):
            page.settle(Outcome(item, Status.COMPLETED, values={column: value}))
    kept = [row[0] for row in database.rows(f"SELECT {column} FROM items ORDER BY id")]
    kept = [bytes(value) if isinstance(value, memoryview) else value for value in kept]
    expected = {
        "name": [*given[:3], "null and half ? a pair", None],
        "facts": [*given[:3], ["nul", "\\u0000 is text"], None],
    }
    assert kept == expected.get(column, given)


def test_rows_with_different_columns_settle_together(database: Database, queue: Queue) -> None:
    add(database, 4)
    with queue.claim(4) as page:
        page.settle(Outcome(1, Status.COMPLETED, values={"name": "a", "size": 1}))
        page.settle(Outcome(2, Status.FAILED, Reason.NOT_FOUND, "no such\0 page \udcff"))
        page.settle(Outcome(3, Status.COMPLETED, values={"size": 3, "name": "c"}))
        page.settle(Outcome(4, Status.SKIPPED, Reason.SEALED, values={"facts": {"seal": True}}))
    rows = database.rows("SELECT status::text, reason, error, name, size, facts FROM items ORDER BY id")
    assert rows == [
        ("completed", None, None, "a", 1, None),
        ("failed", "not_found", "no such page ?", None, None, None),
        ("completed", None, None, "c", 3, None),
        ("skipped", "sealed", None, None, None, {"seal": True}),
    ]


def test_an_endless_error_is_cut(database: Database, queue: Queue) -> None:
    add(database, 1)
    with queue.claim(1) as page:
        page.settle(Outcome(1, Status.FAILED, Reason.INTERNAL, "x" * 100_000))
    assert len(row_of(database, 1)["error"]) == checkpoints.ERROR_CHARS


@pytest.mark.parametrize(
    "poison",
    [{"page": 0}, {"page": 2**40}, {"facts": {"not a number": float("nan")}}, {"amount": "ten"}],
    ids=["check", "range", "json", "type"],
)
def test_values_the_database_refuses_fail_their_item_alone(
    database: Database, queue: Queue, poison: dict[str, Any]
) -> None:
    """One item's nonsense must not cost the others of its batch their results."""
    add(database, 20)
    good = dict.fromkeys(poison)
    with queue.claim(20) as page:
        for item in ids(page):
            page.settle(Outcome(item, Status.COMPLETED, values=poison if item == 13 else good))
    assert counts(database) == {"completed": 19, "failed": 1} == page.settled
    row = row_of(database, 13)
    assert (row["status"], row["reason"]) == ("failed", "internal")
    assert "cannot be stored" in row["error"]


# --- retry ---


def settled_papers(database: Database) -> None:
    """1: stored; 2: failed to fetch; 3: failed to upload; 4: being uploaded."""
    add(database, 4, table="papers")
    database.rows(
        """
        UPDATE papers SET fetch_status = 'in_progress', claimed_by = 'w', lease_until = now() + interval '1 hour';
        UPDATE papers SET fetch_status = CASE WHEN id = 2 THEN 'failed' ELSE 'completed' END::item_status,
            fetch_attempts = 5, fetch_reason = 'timeout', fetch_error = 'e', fetched_at = now();
        UPDATE papers SET optimize_status = 'in_progress' WHERE id <> 2;
        UPDATE papers SET optimize_status = 'completed', optimized_at = now() WHERE id <> 2;
        UPDATE papers SET upload_status = 'in_progress' WHERE id <> 2;
        UPDATE papers SET upload_status = CASE WHEN id = 1 THEN 'completed' ELSE 'failed' END::item_status,
            upload_attempts = 5, uploaded_at = now() WHERE id IN (1, 3);
        UPDATE papers SET claimed_by = NULL, lease_until = NULL WHERE id <> 4;
        """
    )


def statuses(database: Database) -> list[tuple[str, ...]]:
    return database.rows(
        "SELECT fetch_status::text, optimize_status::text, upload_status::text FROM papers ORDER BY id"
    )


def test_retry_takes_back_what_failed_in_that_step(database: Database) -> None:
    settled_papers(database)
    before = statuses(database)
    assert Queue(database, FETCH, run_id="r").retry() == 1
    assert statuses(database) == [before[0], ("pending", "pending", "pending"), before[2], before[3]]
    row = row_of(database, 2, "papers")
    assert (row["fetch_attempts"], row["fetch_reason"], row["fetch_error"], row["fetched_at"]) == (0, None, None, None)
    assert Queue(database, UPLOAD, run_id="r").retry() == 1
    assert statuses(database)[2] == ("completed", "completed", "pending")
    assert Queue(database, UPLOAD, run_id="r").retry() == 0


def test_retry_of_an_early_step_takes_the_later_ones_with_it(database: Database) -> None:
    settled_papers(database)
    queue = Queue(database, FETCH, run_id="r")
    assert queue.retry(Scope().and_ids([1, 3, 4]), statuses=[Status.COMPLETED]) == 2
    assert statuses(database)[0] == statuses(database)[2] == ("pending", "pending", "pending")
    assert statuses(database)[3] == ("completed", "completed", "in_progress"), "somebody works on it"
    assert row_of(database, 3, "papers")["upload_attempts"] == 0
    assert ids(Queue(database, UPLOAD, run_id="r").claim(9)) == []


def test_a_run_may_take_back_some_for_itself(database: Database) -> None:
    database.rows(
        "INSERT INTO items (priority, status, run_id) VALUES (2, 'failed', 'old'), (3, 'failed', 'old'),"
        " (1, 'failed', 'old'), (1, 'completed', 'old')"
    )
    assert Queue(database, ITEMS, run_id="new").retry(limit=2, take=True) == 2
    rows = database.rows("SELECT status::text, run_id FROM items ORDER BY id")
    assert rows == [("pending", "new"), ("failed", "old"), ("pending", "new"), ("completed", "old")]


# --- the dead ---

HOLD_ROWS = """
import sys
from tasks.checkpoints import Queue, Step
from tasks.postgres import Database
with Queue(Database(sys.argv[1]), Step("items", order="priority, id"), run_id="r").claim(5) as page:
    print(page.owner, flush=True)
    sys.stdin.read()
"""


def test_rows_of_a_killed_process_are_given_back_at_once(database: Database, queue: Queue) -> None:
    add(database, 8)
    mine = queue.claim(2)
    command = [sys.executable, "-c", HOLD_ROWS, database.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        owner = worker.stdout.readline().strip()
        assert queue.release_dead() == 0, "it lives"
        assert not is_dead(owner)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert is_dead(owner)
    database.rows("UPDATE items SET status = 'in_progress', claimed_by = 'by hand', lease_until = now() WHERE id = 8")
    assert queue.release_dead() == 5
    assert queue.release_dead() == 0
    assert counts(database) == {"in_progress": 3, "pending": 5}
    assert row_of(database, 3)["attempts"] == 0
    mine.settle(Outcome(1, Status.COMPLETED))
    mine.flush()
    assert mine.final == {1: "completed"}


@pytest.mark.parametrize(
    "owner",
    [
        "other-machine/1a2b3c4d/4026531836/1/77/1",
        machine() + "x/1/77/1",
        machine().rpartition("/")[0] + "/4026999999/1/77/1",
        "by hand",
        "",
        "a/b/c",
    ],
)
def test_only_processes_of_this_machine_are_judged(owner: str) -> None:
    assert not is_dead(owner)


def test_a_number_that_was_given_again_is_not_the_old_process() -> None:
    mine = new_owner()
    name, pid, started, number = mine.rsplit("/", 3)
    assert not is_dead(mine)
    assert is_dead(f"{name}/{pid}/{int(started) - 1}/{number}")
    assert is_dead(f"{name}/{2**22 + 1}/{started}/{number}")
    assert new_owner() != mine


def test_dead_owners_of_another_database_stay_there(database: Database, postgres_url: str) -> None:
    """Each queue gives back its own rows: the owner's name says who, not where."""
    add(database, 1)
    add(database, 1, table="papers")
    dead = f"{machine()}/{2**22 + 1}/1/1"
    for table, column in (("items", "status"), ("papers", "fetch_status")):
        database.rows(f"UPDATE {table} SET {column} = 'in_progress', claimed_by = %s, lease_until = now()", (dead,))
    assert Queue(database, ITEMS, run_id="r").release_dead() == 1
    assert row_of(database, 1, "papers")["fetch_status"] == "in_progress"


# --- the database goes away ---


def test_a_restart_in_the_middle_of_a_page_loses_nothing(own_postgres: OwnPostgres) -> None:
    database = Database(own_postgres.url)
    migrate(database)
    database.rows(TABLES)
    add(database, 12)
    queue = Queue(database, ITEMS, run_id="r")
    with queue.claim(10) as page:
        for item in range(1, 6):
            page.settle(Outcome(item, Status.COMPLETED))
        own_postgres.stop()
        again = threading.Timer(1.5, own_postgres.start)
        again.start()
        page.flush()
        again.join()
        assert page.settled == {"completed": 5}
        page.settle(Outcome(6, Status.FAILED, Reason.NOT_FOUND))
        own_postgres.stop(signal.SIGKILL)
        again = threading.Timer(1.0, own_postgres.start)
        again.start()
    again.join()
    assert page.settled == {"completed": 5, "failed": 1}
    assert page.lost == set()
    assert counts(database) == {"completed": 5, "failed": 1, "pending": 6}
    database.close()


def test_a_database_that_stays_away_is_said_and_the_outcomes_are_kept(
    own_postgres: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(own_postgres.url)
    migrate(database)
    database.rows(TABLES)
    add(database, 3)
    page = Queue(database, ITEMS, run_id="r").claim(3)
    monkeypatch.setattr(Page, "DATABASE_PATIENCE_S", 0.5)
    page.settle(Outcome(1, Status.COMPLETED))
    own_postgres.stop()
    with pytest.raises(OutsideUnreachable):
        page.flush()
    with pytest.raises(OutsideUnreachable), page:
        pass
    with pytest.raises(KeyError), page:
        raise KeyError  # what went wrong first is what is told
    own_postgres.start()
    page.flush()
    assert counts(database) == {"completed": 1, "in_progress": 2}
    database.close()


# --- the plans of the hot statements ---


def plan_of(database: Database, statement: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """The plan as executed, rolled back. The statement's own settings go before EXPLAIN."""
    with contextlib.suppress(ZeroDivisionError), database.transaction() as cursor:
        text = cursor.mogrify(statement, arguments).decode()
        head, query = re.fullmatch(r"(?s)(.*^SET LOCAL [^\n]*\n|)(.*)", text, re.MULTILINE).groups()  # type: ignore[union-attr]
        cursor.execute(f"{head} EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")
        plan = cursor.fetchone()[0][0]["Plan"]  # type: ignore[index]
        raise ZeroDivisionError
    return dict(plan)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def insist_on_indexes(plan: dict[str, Any], *names: str) -> None:
    kinds = Counter(node["Node Type"] for node in nodes(plan))
    assert not {"Seq Scan", "Bitmap Heap Scan", "Hash Join", "Merge Join"} & kinds.keys(), kinds
    assert {node["Index Name"] for node in nodes(plan) if "Index Name" in node} == set(names)


CLAIM = {"limit": 100, "owner": "explain", "run_id": "r", "lease_s": 60}


@pytest.mark.parametrize("analysed", [False, True], ids=["never analysed", "analysed"])
@pytest.mark.parametrize("done", [0.0, 0.99], ids=["all pending", "99 % done"])
def test_claim_and_settle_walk_the_indexes_whatever_the_statistics(
    database: Database, queue: Queue, done: float, analysed: bool
) -> None:
    """100,000 rows. What counts is how many pages of the table and its indexes a claim of 100 rows reads."""
    database.rows("ALTER TABLE items SET (autovacuum_enabled = false)")
    database.rows(
        "INSERT INTO items (status, facts) SELECT CASE WHEN n <= %s THEN 'completed' ELSE 'pending' END::item_status,"
        " jsonb_build_object('n', n) FROM generate_series(1, 100000) AS n",
        (int(done * 100_000),),
    )
    if analysed:
        database.rows("ANALYZE items")
    claim = plan_of(database, ITEMS.statement("claim", scope="true", columns="item.*"), CLAIM)
    insist_on_indexes(claim, "items_due", "items_leases", "items_pkey")
    assert claim["Actual Rows"] == 100
    assert claim["Shared Hit Blocks"] + claim["Shared Read Blocks"] < 4000
    page = queue.claim(100)
    outcomes = [Outcome(item, Status.COMPLETED, values={"size": 1}) for item in ids(page)]
    statement, arguments = queue.settle_statement(outcomes)
    settle = plan_of(database, statement, {**arguments, "owner": page.owner})
    insist_on_indexes(settle, "items_pkey")
    assert settle["Actual Rows"] == 100
    assert settle["Shared Hit Blocks"] + settle["Shared Read Blocks"] < 4000


@pytest.mark.parametrize("step", [s for w in WORKLOADS.values() for s in w.steps], ids=lambda s: f"{s.table}-{s.name}")
def test_each_step_of_each_workload_has_the_index_its_claim_walks(database: Database, step: Step) -> None:
    """What the step says it requires and its order are what its migration said."""
    claim = plan_of(database, step.statement("claim", scope="true", columns="item.*"), CLAIM)
    prefix = f"{step.table}_{step.name}_" if step.name else f"{step.table}_"
    insist_on_indexes(claim, prefix + "due", prefix + "leases", f"{step.table}_pkey")
    for node in nodes(claim):
        assert node["Node Type"] not in {"Sort", "Incremental Sort"} or node["Actual Rows"] == 0
    fresh = [node for node in nodes(claim) if node.get("Subplan Name") == "CTE fresh"]
    assert "Sort" not in {node["Node Type"] for node in nodes(fresh[0])}


# --- any order of events, against a model ---


def working(model: Checkpoints) -> bool:
    return any(page._open for page in model.pages)


class Checkpoints(RuleBasedStateMachine):
    """Several owners claim, settle, release, lose leases and retry; a dict says what must be the case."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue(self.database, ITEMS, run_id="model")
        self.pages: list[Page] = []
        self.status: dict[int, str] = {}
        self.attempts: dict[int, int] = {}
        self.holder: dict[int, Page] = {}
        self.lapsed: set[int] = set()
        self.resting: set[int] = set()
        self.completions: Counter[int] = Counter()

    @initialize(number=st.integers(1, 6))
    def seed(self, number: int) -> None:
        self.database.rows("TRUNCATE items RESTART IDENTITY")
        add(self.database, number)
        self.status = dict.fromkeys(range(1, number + 1), "pending")
        self.attempts = dict.fromkeys(self.status, 0)

    @rule(limit=st.integers(1, 4))
    def claim(self, limit: int) -> None:
        fresh = {i for i, s in self.status.items() if s == "pending" and i not in self.resting}
        page = self.queue.claim(limit)
        taken = set(ids(page))
        assert len(taken) == len(page.rows) == min(limit, len(fresh | self.lapsed))
        assert taken <= fresh | self.lapsed
        assert self.lapsed <= taken or taken <= self.lapsed, "lapsed leases come first"
        self.lapsed -= taken
        for item in taken:
            self.status[item], self.holder[item] = "in_progress", page
        if taken:
            self.pages.append(page)

    @precondition(working)
    @rule(data=st.data(), status=st.sampled_from([s for s in Status if s != Status.IN_PROGRESS]), free=st.booleans())
    def settle(self, data: st.DataObject, status: Status, free: bool) -> None:
        page = self._a_page(data)
        items = data.draw(st.sets(st.sampled_from(sorted(page._open)), min_size=1))
        lost_before, final_before = set(page.lost), set(page.final)
        for item in sorted(items):
            page.settle(Outcome(item, status, "why", costs_attempt=not free, retry_in_s=100.0))
        page.flush()
        mine = {item for item in items if self.holder.get(item) is page}
        assert page.lost - lost_before == items - mine
        for item in mine:
            self._settled(item, status, cost=0 if free else 1)
        assert set(page.final) - final_before == {item for item in mine if self.status[item] in FINAL}

    def _settled(self, item: int, status: Status, cost: int) -> None:
        self.attempts[item] += cost
        exhausted = status == Status.PENDING and cost and self.attempts[item] >= MAX_ATTEMPTS
        self.status[item] = "failed" if exhausted else str(status)
        self.completions[item] += status == Status.COMPLETED
        if self.status[item] == "pending":
            self.resting.add(item)
        self._nobody_has(item)

    @precondition(working)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        page = self._a_page(data)
        for item in self._held_by(page):
            self.status[item] = "pending"
            self._nobody_has(item)
        page.release()

    @precondition(working)
    @rule(data=st.data())
    def leases_of_one_lapse(self, data: st.DataObject) -> None:
        page = self._a_page(data)
        self.database.rows("UPDATE items SET lease_until = now() - interval '1 s' WHERE claimed_by = %s", (page.owner,))
        self.lapsed |= self._held_by(page)

    @precondition(working)
    @rule(data=st.data())
    def one_beats(self, data: st.DataObject) -> None:
        page = self._a_page(data)
        page.renew()
        self.lapsed -= self._held_by(page)

    @precondition(lambda self: self.resting)
    @rule()
    def time_passes(self) -> None:
        make_due(self.database)
        self.resting.clear()

    @precondition(lambda self: "failed" in self.status.values())
    @rule()
    def retry(self) -> None:
        failed = {item for item, status in self.status.items() if status == "failed"}
        assert self.queue.retry() == len(failed)
        for item in failed:
            self.status[item], self.attempts[item] = "pending", 0
            self.resting.discard(item)

    @invariant()
    def the_table_agrees(self) -> None:
        rows = self.database.rows("SELECT id, status::text, attempts::int, claimed_by FROM items")
        assert {i: s for i, s, _, _ in rows} == self.status
        assert {i: n for i, _, n, _ in rows} == self.attempts
        assert {i: o for i, _, _, o in rows if o} == {i: page.owner for i, page in self.holder.items()}
        assert all(number <= 1 for number in self.completions.values()), "nothing is done twice"

    def _a_page(self, data: st.DataObject) -> Page:
        return data.draw(st.sampled_from([page for page in self.pages if page._open]))

    def _held_by(self, page: Page) -> set[int]:
        return {item for item, holder in self.holder.items() if holder is page}

    def _nobody_has(self, item: int) -> None:
        del self.holder[item]
        self.lapsed.discard(item)


def test_any_order_of_events_agrees_with_the_model(database: Database) -> None:
    machine_of_this_database = type("Machine", (Checkpoints,), {"database": database})
    run_state_machine_as_test(
        machine_of_this_database,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
