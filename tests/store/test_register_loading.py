"""Loading a register's answers into a real database: exactly what they say, once, with the checkpoints."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from psycopg2 import sql

from tasks import workloads
from tasks.checkpoints import Queue
from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.patience import patiently
from tasks.postgres import Database, migrate
from tasks.register_changes import Missed, change_report, forget_search, mark_vanished, sight, sighted
from tasks.register_loading import COLUMNS, Fetched, Loader
from tasks.register_rows import RegisterReader
from tasks.register_staging import _changed, _statement, _update, prepare, stage
from tasks.register_tables import CHILDREN, PROPERTIES, SHARED, TABLES, Kind
from tasks.sample.register_land import Land, Rows
from tasks.sample.register_office import Habits, RegisterOffice
from tasks.sample.register_poison import REASONS, Poison
from tests.fakes.own_postgres import OwnPostgres
from tests.fakes.register_client import (
    COUNTY,
    DANISH,
    Bodies,
    body_of,
    changes,
    differences,
    fetch_again,
    find,
    load_all,
    rows_of,
)

VILLAS = 700
TYPES = {
    Kind.CODE: "text",
    Kind.TEXT: "text",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "double precision",
    Kind.MONEY: "numeric(14,2)",
    Kind.BOOLEAN: "boolean",
    Kind.DATE: "date",
    Kind.MOMENT: "timestamp with time zone",
    Kind.NUMBERS: "bigint[]",
    Kind.JSON: "jsonb",
}


OWNED = [PROPERTIES.name, *(table.name for table in CHILDREN)]
REFERRED = {
    "municipalities": "municipality_code",
    "provinces": "province_code",
    "roads": "road_id",
    "zip_codes": "zip_code",
    "cities": "city_slug",
    "places": "place_id",
}
"""Shared table -> the column of properties that names its key."""


@pytest.fixture(scope="module")
def land() -> Land:
    return Land({"København": VILLAS})


@pytest.fixture(scope="module")
def office(land: Land) -> RegisterOffice:
    return RegisterOffice(land)


def counts(database: Database) -> dict[str, int]:
    return dict(database.rows("SELECT status::text, count(*)::int FROM properties GROUP BY 1"))


def sizes(database: Database) -> dict[str, int]:
    return {name: int(database.rows(f"SELECT count(*) FROM {name}")[0][0]) for name in TABLES}


def versions(database: Database) -> dict[str, set[tuple[Any, ...]]]:
    """Which version of each row there is, by table: it changes when the row is written."""
    return {
        table.name: set(database.rows(f"SELECT {', '.join(table.key)}, xmin::text FROM {table.name}"))
        for table in (*CHILDREN, *SHARED)
    }


def truth_of(land: Land, ids: Iterable[str], version: int = 0) -> Rows:
    """The rows of these properties, and of what they refer to."""
    wanted = set(ids)
    rows = land.truth(version)
    truth = {name: [row for row in rows[name] if row.get("property_id", row.get("id")) in wanted] for name in OWNED}
    for name, column in REFERRED.items():
        keys = {row[column] for row in truth["properties"]}
        truth[name] = [row for row in rows[name] if row[TABLES[name].key[0]] in keys]
    return truth


def answer(item: str, **said: Any) -> dict[str, Any]:
    return {"addressID": item, "roadName": "Testvej", **said}


def bodies(answers: dict[str, Any]) -> Bodies:
    return lambda item: json.dumps(answers[item]).encode()


# --- the tables ---


def test_the_tables_are_those_that_are_written(database: Database) -> None:
    ours = {
        "source searched_municipality searched_type discovered_at vanished_at extra content_hash etag last_modified"
        " fetched_at changed_at status attempts reason error completed_at claimed_by lease_until not_before run_id"
    }
    for table in TABLES.values():
        found = dict(
            database.rows(
                "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                (table.name,),
            )
        )
        known = {name: TYPES[table.columns.get(name, Kind.CODE)] for name in table.names}
        extra = set(" ".join(ours).split()) if table is PROPERTIES else set()
        assert {name: kind for name, kind in found.items() if name not in extra} == known
        assert extra <= found.keys()


# --- loading ---


@pytest.mark.parametrize("profile", [DANISH, COUNTY], ids=lambda profile: profile.source)
def test_all_tables_hold_what_the_register_says(
    database: Database, office: RegisterOffice, land: Land, profile: Any
) -> None:
    ids = [profile.id_prefix + item for item in land.ids(0)]
    find(database, ids, profile)
    loaded = load_all(database, body_of(office, profile), profile=profile)
    assert (loaded.new, loaded.changed, loaded.unchanged, loaded.quarantined, loaded.lost) == (VILLAS, 0, 0, 0, 0)
    assert differences(database, land.truth(0), profile) == []
    there = sizes(database)
    assert {name: number for name, number in there.items() if number} == dict(loaded.written)
    assert len([number for number in there.values() if number]) == len(profile.tables)
    assert counts(database) == {"completed": VILLAS}
    assert change_report(database, "run").kinds["new"] == VILLAS


def test_loading_the_same_again_touches_nothing(database: Database, office: RegisterOffice, land: Land) -> None:
    find(database, land.ids(0))
    load_all(database, body_of(office))
    before, hashes = (
        versions(database),
        dict(database.rows("SELECT id, (content_hash, changed_at)::text FROM properties")),
    )
    fetch_again(database)
    loaded = load_all(database, body_of(office), run_id="second")
    assert (loaded.unchanged, loaded.new, loaded.changed, sum(loaded.written.values())) == (VILLAS, 0, 0, 0)
    assert versions(database) == before
    assert dict(database.rows("SELECT id, (content_hash, changed_at)::text FROM properties")) == hashes
    assert database.rows("SELECT DISTINCT status::text, reason FROM properties") == [("completed", "unchanged")]
    assert database.rows("SELECT count(*) FROM properties WHERE fetched_at > changed_at") == [(VILLAS,)]
    assert change_report(database, "second").kinds == dict.fromkeys(change_report(database, "none").kinds, 0)


def test_exactly_what_changed_is_written_and_reported(database: Database, office: RegisterOffice, land: Land) -> None:
    """Eight versions on, when one home in twelve has changed; those that vanished are fetched no more."""
    there = set(land.ids(8))
    staying = [item for item in land.ids(0) if item in there]
    find(database, staying)
    load_all(database, body_of(office))
    untouched = versions(database)
    fetch_again(database)
    loaded = load_all(database, body_of(office, version=8), run_id="second")

    truth = land.changed(0, 8)
    happened = Counter(event for events in truth.values() for event in events)
    assert len(happened) == 5, "every kind of event is tried"
    assert (loaded.changed, loaded.unchanged) == (len(truth), len(staying) - len(truth))
    assert differences(database, truth_of(land, staying, version=8)) == []

    found = {change.property_id: change for change in changes(database, "second", kinds=["changed"])}
    assert found.keys() == truth.keys()
    for item, events in truth.items():
        fields = set(found[item].fields)
        assert ("registrations added" in fields) == ("sold" in events)
        assert ("registrations removed" in fields) == ("corrected" in events)
        assert ("latest_valuation" in fields) == ("valued" in events)
        assert ("main_buildings.year_renovated" in fields) == ("renovated" in events)
        assert ("cases.current_price" in fields) == ("repriced" in events)
        assert found[item].address
    priced = changes(database, "second", kinds=["price"])
    assert {change.property_id for change in priced} == {item for item, events in truth.items() if "repriced" in events}
    assert {(change.old_price or 0) - (change.new_price or 0) for change in priced} <= {50_000, 100_000}
    report = change_report(database, "second")
    assert report.kinds == {"new": 0, "changed": len(truth), "price": len(priced), "vanished": 0, "returned": 0}
    assert report.fields["registrations added"] == happened["sold"]
    now = versions(database)
    for table, key in (("main_buildings", 0), ("registrations", 0), ("case_images", 0)):
        changed = {row[key] for row in now[table] - untouched[table]}
        assert changed <= truth.keys()
    assert now["main_buildings"] - untouched["main_buildings"], "the renovated ones were written"
    assert (
        len(now["registrations"] - untouched["registrations"])
        == loaded.written["registrations"] - happened["corrected"]
    )


def test_a_profile_that_says_more_is_loaded_without_being_a_change(database: Database, land: Land) -> None:
    office = RegisterOffice(land, Habits(unknown=1.0))
    find(database, land.ids(0)[:20])
    load_all(database, body_of(office))
    said = DANISH.model_dump()
    said["ignored"] = [*DANISH.ignored, "nothing"]
    del said["tables"]["days_on_market"]
    other = type(DANISH).model_validate(said)
    fetch_again(database)
    loaded = load_all(database, body_of(office), profile=other, run_id="second")
    assert loaded.changed == 20
    assert {change.fields for change in changes(database, "second")} == {("days_on_market removed", "extra")}


# --- poison ---


def test_good_ones_are_committed_and_bad_ones_are_in_quarantine(database: Database, land: Land) -> None:
    office = RegisterOffice(land, Habits(poisoned=0.08, unknown=0.05))
    ids = land.ids(0)
    bad = {item: office.poison_of(land.find(item) or 0) for item in ids}
    wrong = {item: poison for item, poison in bad.items() if poison}
    assert set(wrong.values()) == set(Poison), "every kind is tried"
    find(database, ids)
    loaded = load_all(database, body_of(office), limit=150)
    assert (loaded.new, loaded.quarantined) == (VILLAS - len(wrong), len(wrong))
    good = {item for item in ids if item not in wrong}
    truth = truth_of(land, good)
    rows = {row["id"]: row for row in rows_of(database, "properties", ("id", "status", "reason", "road_name"))}
    assert {item for item, row in rows.items() if row["status"] == "completed"} == good
    assert all(row["road_name"] is None for item, row in rows.items() if item in wrong)
    assert {t.name: sizes(database)[t.name] for t in CHILDREN} == {t.name: len(truth[t.name]) for t in CHILDREN}
    kept = dict(database.rows("SELECT property_id, (reason, payload_bytes)::text FROM property_quarantine"))
    assert kept.keys() == wrong.keys()
    for item, poison in wrong.items():
        assert rows[item]["reason"] == REASONS[poison]
        number = land.find(item)
        assert kept[item] == f"({REASONS[poison]},{len(office.body(number or 0, 0))})"
    assert counts(database) == {"completed": len(good), "failed": len(wrong)}


def test_a_quarantined_answer_is_kept_as_it_came_and_let_go_when_it_is_well(
    database: Database, office: RegisterOffice, land: Land
) -> None:
    item = land.ids(0)[3]
    find(database, [item])
    ill = b'{"addressID": "' + item.encode() + b'", "slug": "a\\u0000b \xf0\x9f\x8f\xa1"}'
    load_all(database, lambda _item: ill)
    ((reason, field, payload, run),) = database.rows("SELECT reason, field, payload, run_id FROM property_quarantine")
    assert (reason, field, payload.encode(), run) == ("bad_text", "slug", ill, "run")
    ((shown,),) = database.rows("SELECT field FROM properties_failed")
    assert shown == "slug"
    fetch_again(database)
    load_all(database, lambda _item: b'{"addressID": "\xff\0"}', run_id="second")
    assert counts(database) == {"pending": 1}, "what is no JSON may be a moment's trouble"
    database.rows("UPDATE properties SET not_before = NULL")
    assert load_all(database, body_of(office)).new == 1
    assert database.rows("SELECT count(*) FROM property_quarantine") == [(0,)]


def test_what_is_no_json_is_fetched_again_before_it_fails(database: Database, land: Land) -> None:
    find(database, land.ids(0)[:2])
    statuses = []
    for _ in range(5):
        loaded = load_all(database, lambda _item: b'{"addressID": "a')
        statuses.append((loaded.again, loaded.quarantined))
        database.rows("UPDATE properties SET not_before = NULL")
    assert statuses == [(2, 0)] * 4 + [(0, 2)]
    assert database.rows("SELECT DISTINCT reason, payload FROM property_quarantine") == [
        ("malformed_json", '{"addressID": "a')
    ]


def test_one_that_the_database_refuses_is_found_among_the_others(database: Database) -> None:
    """A rule of the user's own, which no profile knows."""
    database.rows("ALTER TABLE registrations ADD CHECK (amount <> 13)")
    answers = {f"home-{n}": answer(f"home-{n}", registrations=[{"registrationID": n, "amount": n}]) for n in range(60)}
    find(database, answers)
    loader = Loader(DANISH)
    loaded = load_all(database, bodies(answers), loader=loader)
    assert (loaded.new, loaded.quarantined) == (59, 1)
    assert database.rows("SELECT property_id, reason FROM property_quarantine") == [("home-13", "refused")]
    assert sizes(database)["registrations"] == loaded.written["registrations"] == 59
    assert counts(database) == {"completed": 59, "failed": 1}
    assert change_report(database, "run").kinds["new"] == 59


def test_several_that_the_database_refuses(database: Database) -> None:
    database.rows("ALTER TABLE municipalities ADD CHECK (population > 0)")
    towns = {f"home-{n}": {"municipalityCode": n % 7, "population": n % 7, "name": "By"} for n in range(50)}
    answers = {item: answer(item, municipality=town) for item, town in towns.items()}
    find(database, answers)
    loaded = load_all(database, bodies(answers))
    assert (loaded.new, loaded.quarantined) == (42, 8)
    assert sizes(database)["municipalities"] == loaded.written["municipalities"] == 6


def test_texts_of_all_kinds_arrive_as_they_are(database: Database) -> None:
    texts = [
        "",
        " ",
        "\\",
        "\\N",
        "\\.",
        "a\tb\nc\r\n",
        "🏡 Å ñ 中",
        "'; DROP",
        '"',
        "\x01\x7f\u200b\ufffe",
        "%s {x}",
        "\\u0000",
    ]
    answers = {
        f"home-{n}": answer(f"home-{n}", slug=text, extraText=text, **{f"né\\w {n}": 1}) for n, text in enumerate(texts)
    }
    find(database, answers)
    assert load_all(database, bodies(answers)).new == len(texts)
    rows = {row["id"]: row for row in rows_of(database, "properties", ("id", "slug", "extra"))}
    for number, text in enumerate(texts):
        assert rows[f"home-{number}"]["slug"] == text
        assert rows[f"home-{number}"]["extra"] == {"extraText": text, f"né\\w {number}": 1}


# --- unknown fields ---


def test_unknown_fields_are_kept_and_counted(database: Database, land: Land) -> None:
    office = RegisterOffice(land, Habits(unknown=0.1))
    ids = land.ids(0)
    strange = [item for item in ids if office.is_unknown(land.find(item) or 0)]
    find(database, ids)
    loaded = load_all(database, body_of(office))
    assert 30 < len(strange) < 120
    assert loaded.unknown["floodRisk"] == loaded.unknown["viewsToday"] == len(strange)
    counted = dict(database.rows("SELECT path, properties::int FROM property_unknown_fields"))
    assert counted == dict(loaded.unknown)
    assert 0 < counted["buildings[].solarPanels"] < len(strange)
    extra = dict(database.rows("SELECT id, extra FROM properties WHERE extra IS NOT NULL"))
    assert extra.keys() == set(strange)
    number = land.find(strange[0]) or 0
    assert extra[strange[0]]["floodRisk"] == {"level": number % 4, "source": "DMI"}
    assert extra[strange[0]]["viewsToday"] is None


# --- the page ---


def test_answers_of_a_lost_lease_are_dropped(database: Database) -> None:
    answers = {f"home-{n}": answer(f"home-{n}", registrations=[{"registrationID": 1}]) for n in range(4)}
    find(database, answers)
    slow = Queue(database, workloads.PROPERTIES, run_id="slow").claim(4, columns=COLUMNS)
    database.rows("UPDATE properties SET lease_until = now() - interval '1 s' WHERE id IN ('home-1', 'home-2')")
    quick = Queue(database, workloads.PROPERTIES, run_id="quick").claim(4, columns=COLUMNS)
    late = {item: answer(item, roadName="For sent", registrations=[{"registrationID": 2}]) for item in answers}
    good = [Fetched(item, json.dumps(late[item]).encode()) for item in ("home-0", "home-1")]
    loaded = Loader(DANISH).load(slow, [*good, Fetched("home-2", b"["), Fetched("home-3", b'{"addressID": 3}')])
    assert (loaded.new, loaded.quarantined, loaded.lost) == (1, 1, 2)
    assert slow.lost == {"home-1", "home-2"}
    assert slow.final == {"home-0": "completed", "home-3": "failed"}
    assert database.rows("SELECT property_id, registration_id FROM registrations") == [("home-0", "2")]
    Loader(DANISH).load(quick, [Fetched(row["id"], json.dumps(answers[row["id"]]).encode()) for row in quick.rows])
    assert set(database.rows("SELECT id, road_name FROM properties WHERE status = 'completed'")) == {
        ("home-0", "For sent"),
        ("home-1", "Testvej"),
        ("home-2", "Testvej"),
    }


def test_what_did_not_change_on_the_server_needs_no_body(database: Database) -> None:
    find(database, ["a"])
    queue = Queue(database, workloads.PROPERTIES, run_id="r")
    with queue.claim(1, columns=COLUMNS) as page:
        body = json.dumps(answer("a")).encode()
        Loader(DANISH).load(page, [Fetched("a", body, etag='"1"', last_modified="Mon, 02 Jun 2025 10:00:00 GMT")])
    before = rows_of(database, "properties", ("content_hash", "etag", "last_modified", "changed_at"))
    fetch_again(database)
    with queue.claim(1, columns=COLUMNS) as page:
        assert page.rows[0]["etag"] == '"1"'
        assert Loader(DANISH).load(page, [Fetched("a", None)]).unchanged == 1
    assert rows_of(database, "properties", ("content_hash", "etag", "last_modified", "changed_at")) == before
    assert database.rows("SELECT status::text, reason, fetched_at > changed_at FROM properties") == [
        ("completed", "unchanged", True)
    ]


def test_an_item_of_no_page_or_twice_is_refused(database: Database) -> None:
    find(database, ["a", "b"])
    body = json.dumps(answer("a")).encode()
    with Queue(database, workloads.PROPERTIES, run_id="r").claim(1, columns=COLUMNS) as page:
        with pytest.raises(ValueError, match="not open"):
            Loader(DANISH).load(page, [Fetched("b", json.dumps(answer("b")).encode())])
        with pytest.raises(ValueError, match="twice"):
            Loader(DANISH).load(page, [Fetched("a", body), Fetched("a", body)])
        assert Loader(DANISH).load(page, []).new == 0
        Loader(DANISH).load(page, [Fetched("a", body)])
        with pytest.raises(ValueError, match="not open"):
            Loader(DANISH).load(page, [Fetched("a", body)])
    assert counts(database) == {"completed": 1, "pending": 1}


def test_a_property_takes_its_rows_with_it(database: Database, office: RegisterOffice, land: Land) -> None:
    find(database, land.ids(0)[:200])
    load_all(database, body_of(office))
    item = database.rows("SELECT property_id FROM case_images LIMIT 1")[0][0]
    database.rows("DELETE FROM properties WHERE id = %s", (item,))
    for table in CHILDREN:
        assert database.rows(f"SELECT count(*) FROM {table.name} WHERE property_id = %s", (item,)) == [(0,)]
    assert sizes(database)["registrations"] > 0


def test_a_few_properties_are_brought_up_to_date_without_reading_the_tables(
    database: Database, office: RegisterOffice, land: Land
) -> None:
    """Also while nothing is known of the tables' contents."""
    ids = land.ids(0)
    find(database, ids)
    load_all(database, body_of(office))
    reader, answer_of = RegisterReader(DANISH), body_of(office)
    records = [(reader.read(item, answer_of(item) or b""), True) for item in ids[:5]]
    seen: list[str] = []
    with database.transaction() as cursor:
        prepare(cursor)
        stage(cursor, records)
        statements = [_changed(), _update(), *(_statement("properties_remove", t, same="kept") for t in CHILDREN)]
        for statement in statements:
            cursor.execute(sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) ") + statement, {"run_id": "run"})
            for node in nodes((cursor.fetchone() or [[]])[0][0]["Plan"]):
                if node.get("Relation Name", "staged_").startswith("staged_"):
                    continue
                seen.append(node["Relation Name"])
                rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                assert rows <= 40, node
        cursor.connection.rollback()
    assert {"properties", "registrations", "additional_buildings", "case_images"} <= set(seen)
    assert sizes(database)["registrations"] > 1000


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


# --- several at once, and the worst ---


def test_several_workers_load_the_same_towns_and_roads(database: Database, office: RegisterOffice, land: Land) -> None:
    """Each with caches of its own, as if they were processes; small pages, so that they meet."""
    find(database, land.ids(0))
    trouble: list[BaseException] = []

    def work(number: int) -> None:
        try:
            load_all(database, body_of(office), run_id=f"run-{number}", limit=20)
        except BaseException as exc:
            trouble.append(exc)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert trouble == []
    assert differences(database, land.truth(0)) == []
    assert database.rows("SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()") == [(0,)]


def test_what_the_register_says_last_of_a_town_is_kept(database: Database) -> None:
    def town(population: int) -> dict[str, Any]:
        return {"municipalityCode": 101, "name": "By", "population": population}

    answers = {"a": answer("a", municipality=town(5)), "b": answer("b", municipality=town(6))}
    find(database, ["a"])
    load_all(database, bodies(answers))
    find(database, ["b"])
    load_all(database, bodies(answers))
    assert database.rows("SELECT code, population FROM municipalities") == [("101", 6)]


def test_a_crash_in_the_middle_leaves_all_or_nothing_of_an_answer(own_postgres: OwnPostgres, land: Land) -> None:
    office = RegisterOffice(land)
    database = Database(own_postgres.url)
    migrate(database)
    ids = land.ids(0)[:300]
    find(database, ids)
    loader, queue = Loader(DANISH), Queue(database, workloads.PROPERTIES, run_id="run")
    answer_of = body_of(office)

    def crash() -> None:
        own_postgres.stop(signal.SIGKILL)
        own_postgres.start()

    for number in range(3):
        with patiently(lambda: queue.claim(50, columns=COLUMNS), 10) as page:  # the pool may lend a dead connection
            fetched = [Fetched(row["id"], answer_of(row["id"])) for row in page.rows]
            crashing = threading.Timer(0.01, crash) if number == 1 else threading.Timer(0, lambda: None)
            crashing.start()
            loader.load(page, fetched)
            crashing.join()
    database.rows("UPDATE properties SET lease_until = now() - interval '1 s' WHERE status = 'in_progress'")
    load_all(database, answer_of, loader=loader)
    assert differences(database, truth_of(land, ids)) == []
    assert counts(database) == {"completed": 300}
    database.close()


# --- searches ---


def test_sightings_are_noted_once_and_make_rows_once(database: Database) -> None:
    def see(ids: list[str], search: str = "s") -> tuple[int, int]:
        return tuple(sight(database, search, ids, source="x", municipality="By", address_type="villa"))  # type: ignore[return-value]

    assert see(["a", "b", "a"]) == (2, 2)
    assert see(["b", "c"]) == (1, 1)
    assert see(["a", "b", "c"]) == (0, 0)
    assert sighted(database, "s") == 3
    assert see(["c", "d"], "t") == (2, 1)
    assert counts(database) == {"pending": 4}
    forget_search(database, "s")
    assert (sighted(database, "s"), sighted(database, "t")) == (0, 2)


def test_ids_of_another_register_are_refused(database: Database) -> None:
    """Its rows would stay the other's, and nobody would load them."""
    find(database, ["a", "b"])
    with pytest.raises(ConfigurationError, match=r"the register boligsiden has .* ids of mine; give .* an id_prefix"):
        sight(database, "s", ["b", "c"], source="mine", municipality="København", address_type="villa")


def vanish(database: Database, search: str, run: str, *, of: str = "villa", whole: bool = True) -> Missed:
    where = {"source": "boligsiden", "municipality": "København", "address_type": of}
    return mark_vanished(database, search, run, whole=whole, **where)


def test_what_vanished_and_returned_is_the_truth(database: Database, office: RegisterOffice, land: Land) -> None:
    before, after = set(land.ids(0)), set(land.ids(4))
    find(database, before, search_id="first")
    load_all(database, body_of(office))
    assert vanish(database, "first", "run") == (0, 0)
    find(database, after, search_id="second")
    gone = before - after
    assert vanish(database, "second", "later") == (len(gone), 0)
    assert {change.property_id for change in changes(database, "later")} == gone
    assert {item for (item,) in database.rows("SELECT id FROM properties WHERE vanished_at IS NOT NULL")} == gone
    assert vanish(database, "second", "again") == (0, 0), "each is told once"
    assert vanish(database, "first", "back") == (len(after - before), len(gone))
    assert change_report(database, "back").kinds["returned"] == len(gone)


def test_a_search_that_fell_short_only_brings_back(database: Database) -> None:
    find(database, ["a", "b", "c"], search_id="first")
    find(database, ["a", "c"], search_id="second")
    assert vanish(database, "second", "run") == (1, 0)
    find(database, ["a", "b"], search_id="third")
    assert vanish(database, "third", "short", whole=False) == (0, 1)
    assert [(change.kind, change.property_id) for change in changes(database, "short")] == [("returned", "b")]


def test_other_searches_are_left_alone(database: Database) -> None:
    find(database, ["a", "b"])
    sight(database, "s", ["k"], source="boligsiden", municipality="Køge", address_type="villa")
    sight(database, "s", ["c"], source="boligsiden", municipality="København", address_type="condo")
    sight(database, "s", ["o"], source="other", municipality="København", address_type="villa")
    sight(database, "new", ["a"], source="boligsiden", municipality="København", address_type="villa")
    assert vanish(database, "new", "run") == (1, 0)
    assert [change.property_id for change in changes(database, "run")] == ["b"]
    sight(database, "other", ["b"], source="boligsiden", municipality="København", address_type="condo")
    assert vanish(database, "other", "next", of="condo") == (1, 1), "b is a condo now, c is gone"


def test_an_away_database_is_said_to_be_so(database: Database) -> None:
    find(database, ["a"])
    page = Queue(database, workloads.PROPERTIES, run_id="r").claim(1, columns=COLUMNS)
    page.DATABASE_PATIENCE_S = 0.2
    name = database.rows("SELECT current_database()")[0][0]
    other = Database(database.url.replace(f"/{name}", "/postgres"), size=1)
    other.rows(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    other.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
    try:
        with pytest.raises(OutsideUnreachable):
            Loader(DANISH).load(page, [Fetched("a", json.dumps(answer("a")).encode())])
    finally:
        other.rows(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        other.close()
    loaded = Loader(DANISH).load(page, [Fetched("a", json.dumps(answer("a")).encode())])
    assert loaded.new == 1, "nothing of the first try held"
