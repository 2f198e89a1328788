"""Results that are rows, and checkpoints, in one transaction; and items that are named by a text."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg2
import pytest

from tasks.checkpoints import Queue, Scope, Step
from tasks.errors import OutsideUnreachable
from tasks.postgres import Database
from tasks.records import Outcome, Reason, Status

TABLES = """
CREATE TABLE parcels (id text PRIMARY KEY, size integer CHECK (size < 100));
SELECT landrecords_add_step('parcels', '', 'id', '');
CREATE TABLE owners (parcel text, name text);
"""
STEP = Step("parcels", id_type="text")
NAMES = ["0a3f-1", "a,b", 'say "x"', "back\\slash", "{brace}", "NULL", "'quote'"]


@pytest.fixture
def database(database: Database) -> Database:
    database.rows(TABLES)
    return database


@pytest.fixture
def queue(database: Database) -> Queue:
    for name in NAMES:
        database.rows("INSERT INTO parcels (id) VALUES (%s)", (name,))
    return Queue(database, STEP, run_id="run")


def statuses(database: Database) -> dict[str, str]:
    return dict(database.rows("SELECT id, status::text FROM parcels"))


def test_items_may_be_named_by_texts(database: Database, queue: Queue) -> None:
    assert set(queue.due_ids()) == set(NAMES)
    first, second, third, fourth, *rest = NAMES
    with queue.claim(9, Scope().and_ids([first, second, third, fourth])) as page:
        assert {row["id"] for row in page.rows} == {first, second, third, fourth}
        page.settle(Outcome(first, Status.COMPLETED, values={"size": 5}))
        page.settle(Outcome(second, Status.PENDING, Reason.TIMEOUT, retry_in_s=60))
        page.settle(Outcome(third, Status.FAILED, values={"size": 500}))
        page.renew()
    assert page.final == {first: "completed", third: "failed"}
    assert page.again == {second: pytest.approx(60, abs=2)}
    found = statuses(database)
    assert (found[first], found[second], found[third], found[fourth]) == ("completed", "pending", "failed", "pending")
    assert database.rows("SELECT reason FROM parcels WHERE id = %s", (third,)) == [("internal",)]
    queue.claim(9, Scope().and_ids(rest))
    assert queue.release_run() == len(rest)


def test_results_and_checkpoints_hold_together(database: Database, queue: Queue) -> None:
    heard: list[tuple[Any, str]] = []
    with queue.claim(9) as page:
        page.listener = lambda outcome, status: heard.append((outcome.id, status))
        with page.transaction() as settling:
            taken = settling.settle([Outcome(n, Status.COMPLETED, values={"size": 1}) for n in NAMES[:2]])
            taken |= settling.settle([Outcome(NAMES[2], Status.PENDING), Outcome(NAMES[3], Status.SKIPPED)])
            settling.cursor.execute("INSERT INTO owners VALUES (%s, 'A')", (NAMES[0],))
            assert statuses(database)[NAMES[0]] == "in_progress"
            assert (heard, page.settled) == ([], {}), "nothing counts before it is committed"
        assert taken == dict(zip(NAMES, ["completed", "completed", "pending", "skipped"], strict=False))
        assert page.settled == {"completed": 2, "pending": 1, "skipped": 1}
        assert len(heard) == 4
        assert page.final.keys() == {NAMES[0], NAMES[1], NAMES[3]}
        assert page.again.keys() == {NAMES[2]}
    assert database.rows("SELECT parcel FROM owners") == [(NAMES[0],)]
    assert [status for name, status in statuses(database).items() if name in NAMES[4:]] == ["pending"] * 3


def test_what_is_undone_may_be_done_again(database: Database, queue: Queue) -> None:
    with queue.claim(9) as page:
        with contextlib.suppress(ZeroDivisionError), page.transaction() as settling:
            settling.settle([Outcome(NAMES[0], Status.COMPLETED)])
            raise ZeroDivisionError
        assert (page.settled, statuses(database)[NAMES[0]]) == ({}, "in_progress")
        with pytest.raises(psycopg2.errors.CheckViolation), page.transaction() as settling:
            settling.settle([Outcome(NAMES[0], Status.COMPLETED, values={"size": 100})])
        with page.transaction() as settling:
            assert settling.settle([Outcome(NAMES[0], Status.COMPLETED)]) == {NAMES[0]: "completed"}
    assert page.settled == {"completed": 1}


def test_after_a_savepoint_what_was_said_last_counts(database: Database, queue: Queue) -> None:
    with queue.claim(9) as page:
        with page.transaction() as settling:
            settling.cursor.execute("SAVEPOINT here")
            settling.settle([Outcome(name, Status.COMPLETED) for name in NAMES[:2]])
            settling.cursor.execute("ROLLBACK TO SAVEPOINT here")
            settling.settle([Outcome(NAMES[0], Status.COMPLETED)])
            settling.settle([Outcome(NAMES[1], Status.FAILED, Reason.REFUSED)])
        assert page.final == {NAMES[0]: "completed", NAMES[1]: "failed"}
        assert page.settled == {"completed": 1, "failed": 1}
        with pytest.raises(ValueError, match="not open"), page.transaction() as settling:
            settling.settle([Outcome(NAMES[0], Status.COMPLETED)])
        with pytest.raises(ValueError, match="twice"), page.transaction() as settling:
            settling.settle([Outcome(NAMES[2], Status.COMPLETED), Outcome(NAMES[2], Status.FAILED)])


def test_rows_of_another_owner_are_named_and_not_written(database: Database, queue: Queue) -> None:
    slow = queue.claim(9)
    database.rows("UPDATE parcels SET lease_until = now() - interval '1 s' WHERE id = %s", (NAMES[1],))
    quick = Queue(database, STEP, run_id="quick").claim(9)
    with slow.transaction() as settling:
        taken = settling.settle([Outcome(name, Status.COMPLETED) for name in NAMES[:3]])
        assert taken.keys() == {NAMES[0], NAMES[2]}
    assert slow.lost == {NAMES[1]}
    assert [row["id"] for row in quick.rows] == [NAMES[1]]
    assert statuses(database)[NAMES[1]] == "in_progress"


def test_no_connection_waits_for_another_of_the_same_thread(database: Database, queue: Queue) -> None:
    """With a pool of one, whatever the transaction needs from the database must be there before it begins."""
    alone = Queue(Database(database.url, size=1), STEP, run_id="alone")
    page = alone.claim(1)
    with page.transaction() as settling:
        settling.settle([Outcome(page.rows[0]["id"], Status.COMPLETED, values={"size": 1})])
    assert page.settled == {"completed": 1}
    alone.database.close()


def test_an_away_database_leaves_the_page_as_it_was(database: Database, queue: Queue) -> None:
    page = queue.claim(2)
    outcomes = [Outcome(row["id"], Status.COMPLETED) for row in page.rows]

    def settle_and_lose_the_connection() -> None:
        with page.transaction() as settling:
            settling.settle(outcomes)
            database.rows("SELECT pg_terminate_backend(%s)", (settling.cursor.connection.get_backend_pid(),))
            settling.cursor.execute("SELECT 1")

    with pytest.raises(OutsideUnreachable):
        settle_and_lose_the_connection()
    with page.transaction() as settling:
        assert len(settling.settle(outcomes)) == 2
    assert page.settled == {"completed": 2}
