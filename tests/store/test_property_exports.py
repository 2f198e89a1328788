"""Snapshots of a register's tables: read back, every value is the database's; killed, the store has them or has not."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import shapely
from psycopg2.extras import Json
from pyarrow import parquet

from tasks import register_exports, register_snapshots
from tasks.errors import OutsideUnreachable, StopRequested
from tasks.postgres import Database
from tasks.register_changes import sight
from tasks.register_exports import MANIFEST, ExportOrder, export_orders, make_snapshot, store_snapshot
from tasks.register_snapshots import GEOMETRY, columns_of
from tasks.register_tables import CHILDREN, PROPERTIES, TABLES, Kind, Table
from tasks.sample.register_land import Land
from tasks.sample.register_office import RegisterOffice
from tasks.store_local import LocalStore
from tasks.store_objects import Store
from tasks.work_folders import opened_work
from tests.fakes.register_client import COUNTY, body_of, find, load_all, rows_of

VILLAS = 120
BOTH = ("csv", "geoparquet")
NEVER = threading.Event()
TYPES = {
    Kind.CODE: pa.string(),
    Kind.TEXT: pa.string(),
    Kind.INTEGER: pa.int32(),
    Kind.NUMBER: pa.float64(),
    Kind.MONEY: pa.decimal128(14, 2),
    Kind.BOOLEAN: pa.bool_(),
    Kind.DATE: pa.date32(),
    Kind.MOMENT: pa.timestamp("us", tz="UTC"),
    Kind.NUMBERS: pa.list_(pa.int64()),
    Kind.JSON: pa.string(),
}

Values = dict[str, Any]


class Meanwhile(threading.Event):
    """A stop that nobody asks for; but at the n-th look at it something happens."""

    def __init__(self, at: int, happens: Callable[[], object]) -> None:
        super().__init__()
        self.looks, self._at, self._happens = 0, at, happens

    def is_set(self) -> bool:
        self.looks += 1
        if self.looks == self._at:
            self._happens()
        return super().is_set()


@pytest.fixture(scope="module")
def office() -> RegisterOffice:
    return RegisterOffice(Land({"København": VILLAS}))


@pytest.fixture
def loaded(database: Database, office: RegisterOffice) -> Database:
    """A database with the sample register in it."""
    find(database, office.land.ids(0))
    load_all(database, body_of(office))
    return database


def order_of(source: str = "boligsiden", formats: tuple[Any, ...] = BOTH) -> ExportOrder:
    return ExportOrder(source, f"properties/{source}/2026-11-22", formats)


def made(database: Database, work: Path, order: ExportOrder | None = None) -> dict[str, Path]:
    """The files of a snapshot by name."""
    return {path.name: path for path in make_snapshot(database, order or order_of(), work, NEVER)}


def typed(row: Values, table: Table) -> Values:
    """A row of a Parquet file as psycopg2 would give it."""
    kinds = columns_of(table)
    return {
        name: json.loads(value) if kinds.get(name) is Kind.JSON and value is not None else value
        for name, value in row.items()
        if name != GEOMETRY
    }


_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)')


def rfc4180(text: str) -> Iterator[list[str | None]]:
    """Records, as the RFC's grammar has them; an empty field without quotes is None."""
    at, record = 0, list[str | None]()
    while at < len(text):
        field = _FIELD.match(text, at)
        assert field, text[at : at + 100]
        quoted, plain, end = field.groups()
        record.append(quoted.replace('""', '"') if quoted is not None else plain or None)
        if end == "\r\n":
            yield record
            record = []
        at = field.end()
    assert not record


def parsed(text: str, kind: Kind) -> Any:
    if kind is Kind.BOOLEAN:
        return {"true": True, "false": False}[text]
    if kind is Kind.MOMENT:
        assert text.endswith("Z")
    read: dict[Kind, Callable[[str], Any]] = {
        Kind.INTEGER: int,
        Kind.NUMBER: float,
        Kind.MONEY: Decimal,
        Kind.DATE: date.fromisoformat,
        Kind.MOMENT: datetime.fromisoformat,
        Kind.NUMBERS: json.loads,
        Kind.JSON: json.loads,
    }
    return read.get(kind, str)(text)


def csv_rows(path: Path, table: Table) -> list[Values]:
    head, *records = rfc4180(gzip.decompress(path.read_bytes()).decode())
    kinds = columns_of(table)
    assert head == list(kinds)
    return [
        {name: None if text is None else parsed(text, kinds[name]) for name, text in zip(kinds, record, strict=True)}
        for record in records
    ]


def parquet_rows(path: Path, table: Table) -> list[Values]:
    return [typed(row, table) for row in parquet.read_table(path).to_pylist()]


def key_of(row: Values, table: Table) -> tuple[Any, ...]:
    return tuple(row[name] for name in table.key)


def assert_equal_to_the_tables(database: Database, files: dict[str, Path]) -> None:
    for table in TABLES.values():
        there = sorted(rows_of(database, table.name, columns_of(table)), key=lambda row: key_of(row, table))
        for found in (
            parquet_rows(files[f"{table.name}.parquet"], table),
            csv_rows(files[f"{table.name}.csv.gz"], table),
        ):
            assert sorted(found, key=lambda row: key_of(row, table)) == there, table.name


# --- what is in the files ---


def test_every_row_and_type_of_every_table_is_in_both_files(
    loaded: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register_snapshots, "GROUP_ROWS", 50)
    files = made(loaded, tmp_path)
    assert len(files) == 2 * len(TABLES) + 1
    assert_equal_to_the_tables(loaded, files)
    for table in TABLES.values():
        schema = parquet.read_schema(files[f"{table.name}.parquet"])
        kinds = columns_of(table)
        assert {name: schema.field(name).type for name in kinds} == {name: TYPES[kind] for name, kind in kinds.items()}
        assert set(schema.names) - kinds.keys() <= {GEOMETRY}
        assert {name for name in schema.names if not schema.field(name).nullable} == set(table.key)
    metadata = parquet.read_metadata(files["properties.parquet"])
    assert (metadata.num_rows, metadata.num_row_groups) == (VILLAS, 3)
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_rows_are_in_order_and_the_same_rows_give_the_same_bytes(loaded: Database, tmp_path: Path) -> None:
    first, second = made(loaded, tmp_path / "a"), made(loaded, tmp_path / "b")
    assert {name: path.read_bytes() for name, path in first.items() if name != MANIFEST} == {
        name: path.read_bytes() for name, path in second.items() if name != MANIFEST
    }
    ids = [row["id"] for row in parquet_rows(first["properties.parquet"], PROPERTIES)]
    assert ids == sorted(ids)


ODD_TEXTS = [
    "",
    " ",
    '"',
    '""',
    "',",
    "a,b",
    "a\nb\r\nc\rd\n",
    "\r\n",
    "\\N",
    "\\.",
    "\\",
    "\t",
    "NULL",
    "null",
    "NaN",
    "true",
    "0012",
    "1e5",
    "=1+1",
    "+45 12",
    "Ærø Ålborg ß ł",
    "日本語 العربية",
    "🏡👩‍👩‍👧",
    "e\u0301",
    "\ufeffmark",
    "\u2028\u2029\u0085\u00a0",
    "\x01\x7f",
    "x" * 100_000,
    '"\r\n,' * 20_000,
]


def test_odd_texts_come_back_as_they_are(database: Database, tmp_path: Path) -> None:
    columns = "(id, source, content_hash, address, road_name)"
    for at, text in enumerate(ODD_TEXTS):
        values = (f"{at}{text[:50]}", "boligsiden", "h", text, text)
        database.rows(f"INSERT INTO properties {columns} VALUES (%s, %s, %s, %s, %s)", values)
        database.rows(
            "INSERT INTO cases (property_id, case_id, description_body) VALUES (%s, %s, %s)",
            (values[0], text[:50] or "-", text),
        )
    files = made(database, tmp_path)
    assert_equal_to_the_tables(database, files)
    assert {row["address"] for row in parquet_rows(files["properties.parquet"], PROPERTIES)} == set(ODD_TEXTS)


EXTREMES: list[Values] = [
    {},  # nothing is known but the key
    {"latitude": "-0", "living_area": 5e-324, "weighted_area": 1.7976931348623157e308, "plot_area": 0.1 + 0.2},
    {"latest_valuation": Decimal("999999999999.99"), "latest_sold_area": 1e16, "bfe_numbers": [2**63 - 1, -(2**63)]},
    {"latest_valuation": Decimal("-0.01"), "latest_sold_date": datetime(1600, 1, 1, tzinfo=UTC), "bfe_numbers": []},
    {"latest_sold_date": datetime(2200, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "latest_valuation": Decimal(0)},
    {"is_public": True, "is_on_market": False, "extra": Json({"a": [None, 1.5, "ø", {"b": "\\u0041\n"}], "c": ""})},
    {"extra": Json("x" * 1_000_000)},
    {"extra": Json(None), "address": ""},
]


def test_extremes_and_absence_come_back_as_they_are(database: Database, tmp_path: Path) -> None:
    for at, values in enumerate(EXTREMES):
        row = {"id": f"{at}", "source": "boligsiden", "content_hash": "h", **values}
        database.rows(f"INSERT INTO properties ({', '.join(row)}) VALUES %s", (tuple(row.values()),))
    database.rows(
        "INSERT INTO main_buildings (property_id, number_of_rooms, number_of_floors)"
        " VALUES ('0', 2147483647, -2147483648)"
    )
    database.rows("INSERT INTO registrations (property_id, registration_id, date) VALUES ('0', 'r', '1600-01-01')")
    files = made(database, tmp_path)
    assert_equal_to_the_tables(database, files)
    nothing, minus_zero = parquet_rows(files["properties.parquet"], PROPERTIES)[:2]
    known = {name for name, value in nothing.items() if value is not None}
    assert known == {"id", "source", "discovered_at"}
    assert math.copysign(1, minus_zero["latitude"]) == -1


def test_a_row_larger_than_a_group_is_one_row(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register_snapshots, "GROUP_BYTES", 1000)
    for at, length in enumerate((10, 50_000, 10, 999, 1001)):
        values = (f"{at}", "boligsiden", "h", "é\n" * length)
        database.rows("INSERT INTO properties (id, source, content_hash, address) VALUES (%s, %s, %s, %s)", values)
    assert_equal_to_the_tables(database, made(database, tmp_path))


def test_a_table_without_rows_has_its_columns(database: Database, tmp_path: Path) -> None:
    files = made(database, tmp_path)
    for table in TABLES.values():
        assert csv_rows(files[f"{table.name}.csv.gz"], table) == []
        found = parquet.read_table(files[f"{table.name}.parquet"])
        assert found.num_rows == 0
        assert set(columns_of(table)) <= set(found.column_names)
    assert [file["rows"] for file in json.loads(files[MANIFEST].read_text())["files"]] == [0] * 2 * len(TABLES)


def test_a_snapshot_is_of_one_register_and_of_what_was_loaded(
    loaded: Database, office: RegisterOffice, tmp_path: Path
) -> None:
    ids = office.land.ids(0)[:40]
    find(loaded, [COUNTY.id_prefix + item for item in ids], COUNTY)
    load_all(loaded, body_of(office, COUNTY), profile=COUNTY)
    sight(loaded, "s", ["unknown"], source="boligsiden", municipality="København", address_type="villa")
    loaded.rows("UPDATE properties SET vanished_at = now() WHERE id = %s", (ids[0],))
    loaded.rows("INSERT INTO roads (id, name) VALUES ('9', 'A road that no property lies at')")
    danish = made(loaded, tmp_path)
    county = made(loaded, tmp_path, order_of(COUNTY.source))
    found = parquet_rows(danish["properties.parquet"], PROPERTIES)
    assert {row["id"] for row in found} == set(office.land.ids(0))
    assert [row["id"] for row in found if row["vanished_at"]] == [ids[0]]
    of_county = parquet_rows(county["properties.parquet"], PROPERTIES)
    assert {row["id"] for row in of_county} == {f"county:{item}" for item in ids}
    for table in CHILDREN:
        rows = parquet_rows(county[f"{table.name}.parquet"], table)
        assert all(row["property_id"].startswith("county:") for row in rows)
        both = len(rows) + len(parquet_rows(danish[f"{table.name}.parquet"], table))
        assert both == loaded.rows(f"SELECT count(*) FROM {table.name}")[0][0]
    roads = parquet_rows(danish["roads.parquet"], TABLES["roads"])
    assert {row["id"] for row in roads} == {row["road_id"] for row in found}
    assert parquet_rows(county["roads.parquet"], TABLES["roads"]) == []


# --- GeoParquet ---

PLACES = [
    # longitude, latitude, coordinate_type, whether there is a point
    (12.5683, 55.6761, "EPSG4326", True),
    (-180.0, -90.0, "EPSG:4326", True),
    (180.0, 90.0, None, True),
    (0.0, 51.5, None, True),
    (None, 55.0, "EPSG4326", False),
    (12.0, None, "EPSG4326", False),
    (0.0, 0.0, "EPSG4326", False),
    (720_000.0, 6_170_000.0, "EPSG25832", False),
    (12.0, 55.0, "EPSG25832", False),
    (180.1, 55.0, None, False),
    (12.0, -90.1, None, False),
    (math.nan, 55.0, None, False),
    (math.inf, 55.0, None, False),
]


def test_points_are_where_the_coordinates_are_degrees(database: Database, tmp_path: Path) -> None:
    for at, (longitude, latitude, kind, _) in enumerate(PLACES):
        database.rows(
            "INSERT INTO properties (id, source, content_hash, longitude, latitude, coordinate_type, place_id)"
            " VALUES (%s, 'boligsiden', 'h', %s, %s, %s, 'p')",
            (f"{at:02}", longitude, latitude, kind),
        )
    database.rows("INSERT INTO places (id, longitude, latitude, coordinate_type) VALUES ('p', 9, 56, 'EPSG4326')")
    files = made(database, tmp_path)
    table = parquet.read_table(files["properties.parquet"])
    assert table.schema.field(GEOMETRY).type == pa.binary()
    points = table[GEOMETRY].to_pylist()
    assert [point is not None for point in points] == [there for *_, there in PLACES]
    for point, (longitude, latitude, *_) in zip(points, PLACES, strict=True):
        if point is not None:
            assert shapely.from_wkb(point) == shapely.Point(longitude, latitude)
    assert geo(files["properties.parquet"]) == {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"], "bbox": [-180, -90, 180, 90]}},
    }
    assert geo(files["places.parquet"])["columns"]["geometry"]["bbox"] == [9, 56, 9, 56]
    assert b"geo" not in parquet.read_metadata(files["cases.parquet"]).metadata


def test_the_box_is_around_all_points_of_all_groups(
    loaded: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register_snapshots, "GROUP_ROWS", 7)
    [box] = loaded.rows("SELECT min(longitude), min(latitude), max(longitude), max(latitude) FROM properties")
    path = made(loaded, tmp_path)["properties.parquet"]
    assert geo(path)["columns"]["geometry"]["bbox"] == list(box)
    points = shapely.from_wkb(parquet.read_table(path, columns=[GEOMETRY])[GEOMETRY].to_pylist())
    assert list(shapely.total_bounds(points)) == list(box)


def test_without_points_there_is_no_box(database: Database, tmp_path: Path) -> None:
    about = geo(made(database, tmp_path)["properties.parquet"])
    assert about["columns"]["geometry"] == {"encoding": "WKB", "geometry_types": ["Point"]}


def geo(path: Path) -> Any:
    return json.loads(parquet.read_metadata(path).metadata[b"geo"])


# --- one moment ---


def test_all_tables_are_of_one_moment(loaded: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register_snapshots, "GROUP_ROWS", 50)
    before = {table.name: sorted(map(str, rows_of(loaded, table.name, columns_of(table)))) for table in TABLES.values()}

    def upheaval() -> None:
        loaded.rows("DELETE FROM properties")  # and their rows, by the trigger
        loaded.rows("DELETE FROM zip_codes")
        loaded.rows("INSERT INTO properties (id, source, content_hash) VALUES ('new', 'boligsiden', 'h')")

    stop = Meanwhile(3, upheaval)
    files = {path.name: path for path in make_snapshot(loaded, order_of(), tmp_path, stop)}
    assert stop.looks > 20
    assert loaded.rows("SELECT id FROM properties") == [("new",)]
    for table in TABLES.values():
        rows = parquet.read_table(files[f"{table.name}.parquet"]).num_rows
        assert rows == len(before[table.name]) == len(csv_rows(files[f"{table.name}.csv.gz"], table))


def test_a_stop_ends_it_and_leaves_the_connection_well(
    loaded: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(register_snapshots, "GROUP_ROWS", 50)
    stop = Meanwhile(2, lambda: stop.set())
    with pytest.raises(StopRequested):
        make_snapshot(loaded, order_of(), tmp_path, stop)
    assert stop.looks == 2
    assert loaded.rows("SELECT count(*) FROM properties") == [(VILLAS,)]
    assert_equal_to_the_tables(loaded, made(loaded, tmp_path))


def test_a_database_that_goes_away_is_said(loaded: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register_snapshots, "GROUP_ROWS", 25)

    def cut() -> None:
        statement = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE xact_start < now() AND query ~ '^COPY'"
        )
        assert loaded.rows(statement.replace("COPY", "-- The rows")) == [(True,)]

    with pytest.raises(OutsideUnreachable, match="database"):
        make_snapshot(loaded, order_of(), tmp_path, Meanwhile(2, cut))
    assert_equal_to_the_tables(loaded, made(loaded, tmp_path))


@pytest.mark.parametrize("kind", BOTH)
def test_a_full_disk_is_said(loaded: Database, tmp_path: Path, kind: str) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(OutsideUnreachable, match="is full"):
            make_snapshot(loaded, order_of(formats=(kind,)), tmp_path, NEVER)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert loaded.rows("SELECT count(*) FROM properties") == [(VILLAS,)]


# --- in the store ---


def stored_names(store: Store) -> list[str]:
    return [one.key.rpartition("/")[2] for one in store.list("properties/")]


def export(database: Database, store: Store, work: Path, formats: Any = BOTH) -> list[str]:
    """As the tasks do; returns the keys of what was made."""
    return [
        key
        for order in export_orders(database, store, "boligsiden", formats)
        for key in store_snapshot(database, store, make_snapshot(database, order, work, NEVER), work, NEVER)
    ]


def whole(store: Store) -> bool:
    """Whether the store has a manifest; then everything is there as it says, and nothing else."""
    folders = {one.key.rpartition("/")[0] for one in store.list("properties/")}
    assert len(folders) <= 1
    for folder in folders:
        names = stored_names(store)
        if MANIFEST not in names:
            return False
        with store.open(f"{folder}/{MANIFEST}") as file:
            said = json.load(file)["files"]
        assert sorted(names) == sorted([*(file["name"] for file in said), MANIFEST])
        for one in said:
            with store.open(f"{folder}/{one['name']}") as file:
                content = file.read()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (one["bytes"], one["sha256"])
    return bool(folders)


def test_a_snapshot_is_stored_whole_and_once(loaded: Database, any_store: Store, tmp_path: Path) -> None:
    keys = export(loaded, any_store, tmp_path)
    today = loaded.rows("SELECT to_char(now(), 'YYYY-MM-DD')")[0][0]
    assert keys[-1] == f"properties/boligsiden/{today}/{MANIFEST}"
    assert f"properties/boligsiden/{today}/properties.parquet" in keys
    assert f"properties/boligsiden/{today}/cases.csv.gz" in keys
    assert sorted(keys) == [one.key for one in any_store.list("")]
    assert whole(any_store)
    assert export(loaded, any_store, tmp_path) == []


def test_the_manifest_says_what_there_is(loaded: Database, local: LocalStore, tmp_path: Path) -> None:
    *_, key = export(loaded, local, tmp_path)
    said = json.loads((local.root / key).read_text())
    assert (said["source"], said["formats"]) == ("boligsiden", list(BOTH))
    moment = datetime.fromisoformat(said["taken_at"])
    assert abs(moment - loaded.rows("SELECT now()")[0][0]).total_seconds() < 60
    counted = {name: loaded.rows(f"SELECT count(*) FROM {name}")[0][0] for name in TABLES}
    assert {file["name"]: file["rows"] for file in said["files"]} == {
        f"{name}{suffix}": number for name, number in counted.items() for suffix in (".parquet", ".csv.gz")
    }
    types = json.loads((local.root / ".metadata" / f"{key.replace(MANIFEST, 'cases.parquet')}.json").read_text())
    assert types["content_type"] == "application/vnd.apache.parquet"


CHANGES = [
    "UPDATE properties SET fetched_at = fetched_at + interval '1 microsecond' WHERE id = %s",
    "UPDATE properties SET vanished_at = now() WHERE id = %s",
    "DELETE FROM properties WHERE id = %s",
    "INSERT INTO properties (id, source, content_hash) VALUES ('new ' || %s, 'boligsiden', 'h')",
]


def test_what_changes_the_rows_makes_it_anew(loaded: Database, local: LocalStore, tmp_path: Path) -> None:
    [*_, key] = export(loaded, local, tmp_path, ["csv"])
    loaded.rows("INSERT INTO properties (id, source) VALUES ('found but not loaded', 'boligsiden')")
    loaded.rows("INSERT INTO properties (id, source, content_hash) VALUES ('another register', 'other', 'h')")
    assert export(loaded, local, tmp_path, ["csv"]) == []
    said = {(local.root / key).read_text()}
    for number, change in enumerate(CHANGES, 2):
        loaded.rows(change, (loaded.rows("SELECT min(id) FROM properties WHERE source = 'boligsiden'")[0][0],))
        assert export(loaded, local, tmp_path, ["csv"])[-1] == key
        said.add((local.root / key).read_text())
        assert len(said) == number
        assert export(loaded, local, tmp_path, ["csv"]) == []
    assert whole(local)


def test_other_formats_take_the_place_of_the_first(loaded: Database, local: LocalStore, tmp_path: Path) -> None:
    export(loaded, local, tmp_path)
    assert len(export(loaded, local, tmp_path, ["geoparquet"])) == len(TABLES) + 1
    assert whole(local)
    assert export_orders(loaded, local, "boligsiden", []) == []
    assert export_orders(loaded, local, "boligsiden", ["csv"])[0].formats == ("csv",)


def test_nothing_loaded_is_nothing_to_export(database: Database, local: LocalStore) -> None:
    sight(database, "s", ["a"], source="boligsiden", municipality="København", address_type="villa")
    assert export_orders(database, local, "boligsiden", BOTH) == []


def test_a_manifest_that_says_nothing_counts_as_none(loaded: Database, local: LocalStore, tmp_path: Path) -> None:
    [*_, key] = export(loaded, local, tmp_path, ["csv"])
    good = (local.root / key).read_text()
    for manifest in ("", "[]", "[1]", "null", "{", '{"state": 1}', "\0", good[:-2]):
        (local.root / key).write_text(manifest)
        assert len(export_orders(loaded, local, "boligsiden", ["csv"])) == 1, manifest
    (local.root / key).write_text(good)
    assert export_orders(loaded, local, "boligsiden", ["csv"]) == []


def test_runs_that_store_at_once_wait_for_one_another(loaded: Database, local: LocalStore, tmp_path: Path) -> None:
    """The second has other formats: mixed, the folder would hold what its manifest does not name."""
    [first], [second] = (export_orders(loaded, local, "boligsiden", kinds) for kinds in (["csv"], ["geoparquet"]))
    works = tmp_path / "a", tmp_path / "b"
    files = [make_snapshot(loaded, *pair, NEVER) for pair in zip((first, second), works, strict=True)]
    other = threading.Thread(target=store_snapshot, args=(loaded, local, files[1], works[1], NEVER))

    def begin() -> None:
        other.start()
        other.join(0.3)
        assert other.is_alive()
        assert not any(name.endswith(".parquet") for name in stored_names(local))

    store_snapshot(loaded, local, files[0], works[0], Meanwhile(5, begin))
    other.join()
    assert whole(local)
    assert len(stored_names(local)) == len(TABLES) + 1


def test_who_waits_to_store_can_be_stopped(loaded: Database, local: LocalStore, tmp_path: Path) -> None:
    [order] = export_orders(loaded, local, "boligsiden", ["csv"])
    files = make_snapshot(loaded, order, tmp_path, NEVER)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with (
        register_exports._alone(loaded, f"{order.folder}/", NEVER),
        pytest.raises(StopRequested),
    ):
        store_snapshot(loaded, local, files, tmp_path, stop)
    assert stored_names(local) == []
    assert store_snapshot(loaded, local, files, tmp_path, NEVER)
    assert whole(local)


# --- killed ---

WORKER = """
    import os, signal, sys, threading
    from pathlib import Path
    from tasks.postgres import Database
    from tasks.register_exports import export_orders, make_snapshot, store_snapshot
    from tasks.store_local import LocalStore
    from tasks.work_folders import opened_work

    url, root, spool = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    makes, stores = (int(number) for number in sys.argv[4:])

    class Deadly(threading.Event):
        def __init__(self, looks):
            super().__init__()
            self.looks = looks

        def is_set(self):
            self.looks -= 1
            if not self.looks:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

    database, store = Database(url), LocalStore(root)
    with opened_work(spool) as work:
        [order] = export_orders(database, store, "boligsiden", ["geoparquet"])
        files = make_snapshot(database, order, work, Deadly(makes))
        store_snapshot(database, store, files, work, Deadly(stores))
"""


def worker(database_url: str, store: LocalStore, spool: Path, makes: int, stores: int) -> int:
    """A process that exports, and is killed at the n-th look at its stop while it makes or stores; its exit code."""
    arguments = [database_url, str(store.root), str(spool), str(makes), str(stores)]
    command = [sys.executable, "-c", textwrap.dedent(WORKER), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ended.stderr == ""
    return ended.returncode


@pytest.mark.parametrize(
    ("makes", "stores"),
    [(3, 0), (0, 1), (0, 7), (0, len(TABLES) + 1)],
    ids=["making", "before the first file", "half-way", "before the manifest"],
)
def test_killed_nothing_is_half_written_and_the_next_run_makes_it_anew(
    loaded: Database, database_url: str, local: LocalStore, tmp_path: Path, makes: int, stores: int
) -> None:
    spool = tmp_path / "spool"
    with opened_work(spool) as work:
        export(loaded, local, work, ["geoparquet"])
    loaded.rows("UPDATE properties SET fetched_at = now(), address = 'another'")
    assert worker(database_url, local, spool, makes, stores) == -signal.SIGKILL
    assert whole(local) is bool(makes)  # the day's earlier one stays until the new one is stored
    for one in local.list():
        assert one.sha256 == hashlib.sha256((local.root / one.key).read_bytes()).hexdigest()
    assert len(export_orders(loaded, local, "boligsiden", ["geoparquet"])) == 1
    assert any(spool.iterdir())
    assert worker(database_url, local, spool, 0, 0) == 0
    assert whole(local)
    assert list(spool.iterdir()) == []
    assert export_orders(loaded, local, "boligsiden", ["geoparquet"]) == []
    [key] = [one.key for one in local.list() if one.key.endswith("properties.parquet")]
    assert {row["address"] for row in parquet_rows(local.root / key, PROPERTIES)} == {"another"}
