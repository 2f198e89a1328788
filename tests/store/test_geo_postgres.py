"""data_source.postgis and data_sink.postgis against the embedded Postgres and, where it is installed, PostGIS.

The PostGIS server is Debian's: a cluster of the session's own (tests/fakes/debian_postgres.py), as the user postgres
where the tests run as root, on a socket in a temporary folder, so no port and no service of the system's is touched.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import pyarrow as pa
import pytest
import shapely

from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested, TerminalError, TransientError
from tasks.geo.batches import Batch, Geometries
from tasks.geo.layouts import UNKNOWN, GeometryField, Layout
from tasks.geo.nodes import BATCH_ROWS, NodeProblem, Work
from tasks.geo.sinks_postgres import PostgisSink
from tasks.geo.sources_postgres import PART_PAGES, PostgisSource
from tasks.geoetl_outside import Doors
from tests.fakes.debian_postgres import DebianPostgres, postgis_programs
from tests.fakes.geo import Boundless, check_stream

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgis_server() -> Iterator[DebianPostgres]:
    programs = postgis_programs()
    if programs is None:
        pytest.skip("PostGIS is not installed; infra/bootstrap.sh --tests does that")
    server = DebianPostgres(programs)
    server.run("CREATE DATABASE spatial")
    server.run("CREATE EXTENSION postgis", "spatial")
    yield server
    server.close()


everywhere = pytest.mark.parametrize("url", ["plain", "postgis"], indirect=True)
"""What PostGIS, or the older server that Debian has, may do otherwise."""


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A database of the test's own, without PostGIS unless asked for."""
    wanted = getattr(request, "param", "plain")
    return str(request.getfixturevalue("database_url" if wanted == "plain" else "postgis_url"))


@pytest.fixture
def postgis_url(postgis_server: DebianPostgres) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    postgis_server.run(f"CREATE DATABASE {name} TEMPLATE spatial")  # CREATE EXTENSION takes a second
    yield postgis_server.url(name)
    postgis_server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def work(url: str, tmp_path: Path) -> Work:
    return Work(Doors(url, tmp_path.as_uri()), threading.Event(), Boundless(), tmp_path, "run", "sink", "0")


def rows_of(url: str, statement: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def plots(first: int = 0, count: int = 5, kind: str = "Polygon", crs: str | None = "EPSG:4326") -> Batch:
    ids = np.arange(first, first + count)
    layout = Layout(pa.schema([("id", pa.int64()), ("name", pa.string())]), GeometryField("shape", kind, crs))
    names = pa.array([f"plot {i}" if i % 3 else None for i in ids])
    shapes = shapely.box(ids, ids, ids + 1, ids + 2)
    return Batch(layout, (pa.array(ids), names), Geometries(shapes=shapes), count)


def sink_of(**parameters: Any) -> PostgisSink:
    return PostgisSink.model_validate({"table": "plots", **parameters})


def load(sink: PostgisSink, work: Work, *parts: list[Batch]) -> Any:
    layout = parts[0][0].layout
    sink.layouts({"input": layout})
    sink.prepare(layout, work)
    return sink.conclude([write(sink, replace(work, part=str(n)), batches) for n, batches in enumerate(parts)], work)


def write(sink: PostgisSink, work: Work, batches: list[Batch]) -> Any:
    writer = sink.open(batches[0].layout, work)
    try:
        for batch in batches:
            writer.write(sink.packed(batch))
        return writer.finish()
    except BaseException:
        writer.abandon()
        raise


def read(work: Work, **parameters: Any) -> list[Batch]:
    source = PostgisSource.model_validate({"table": "plots"} | parameters if "query" not in parameters else parameters)
    layout = source.describe(work.outside).layout
    found: list[Batch] = []
    with source.shared(work.outside) as shared:
        for part in source.parts(work.outside, 4):
            found += source.read({**part, **shared}, work)
    return check_stream(layout, found)


def column(batches: list[Batch], name: str) -> list[Any]:
    return [value for batch in batches for value in batch.column(name).to_pylist()]


def shapes_of(batches: list[Batch]) -> Any:
    return np.concatenate([batch.shapes for batch in batches])


# --- there and back ---

VALUES = {
    "boolean": pa.array([True, None, False]),
    "int8": pa.array([1, None, -128], pa.int8()),
    "int16": pa.array([1, None, -(2**15)], pa.int16()),
    "int32": pa.array([2**31 - 1, None, -(2**31)], pa.int32()),
    "int64": pa.array([2**63 - 1, None, -(2**63)], pa.int64()),
    "uint64": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "float32": pa.array([1.5, None, float("-inf")], pa.float32()),
    "float64": pa.array([1e308, None, float("inf")]),
    "text": pa.array(["Žižkov\t\n\\.", None, ""]),
    "large text": pa.array(["a", None, "b" * 100], pa.large_string()),
    "coded": pa.array(["a", None, "a"]).dictionary_encode(),
    "bytes": pa.array([b"\0\xff", None, b""]),
    "date": pa.array([-800_000, None, 2_000_000], pa.int32()).view(pa.date32()),
    "time": pa.array([0, None, 86_399_999_999], pa.int64()).view(pa.time64("us")),
    "moment": pa.array([-(10**17), None, 2**60], pa.int64()).view(pa.timestamp("us")),
    "instant": pa.array([1, None, -1], pa.int64()).view(pa.timestamp("us", tz="UTC")),
    "exact": pa.array(
        [Decimal("12345678901234567890123456789012.345678"), None, Decimal("-0.000001")], pa.decimal128(38, 6)
    ),
    "small": pa.array([Decimal("-0.00001234"), None, Decimal("0.1")], pa.decimal128(8, 8)),
    "whole": pa.array([Decimal(-12), None, Decimal(10_000)], pa.decimal128(20, 0)),
    "all there": pa.array([7, 8, 9]),
    "nothing": pa.nulls(3),
}


@everywhere
def test_every_type_comes_back_as_it_was(work: Work) -> None:
    layout = Layout(pa.schema([(name, array.type) for name, array in VALUES.items()]), None)
    load(sink_of(), work, [Batch(layout, tuple(VALUES.values()), None, 3)])
    back = read(work)
    for name, array in VALUES.items():
        assert column(back, name) == array.to_pylist() if name not in {"date", "moment"} else True, name
    for name in ("date", "moment"):  # before the year 1 and after 9999 Python has no word for it
        assert pa.concat_arrays([b.column(name) for b in back]).equals(VALUES[name]), name


def test_nan_comes_back(work: Work) -> None:
    layout = Layout(pa.schema([("x", pa.float64())]), None)
    load(sink_of(), work, [Batch(layout, (pa.array([float("nan")]),), None, 1)])
    assert np.isnan(column(read(work), "x")).all()


GEOMETRIES = [
    shapely.Point(1, 2),
    shapely.LineString([(0, 0), (1, 1), (2, 0)]),
    shapely.Polygon([(0, 0), (9, 0), (9, 9), (0, 9)], [[(1, 1), (2, 1), (2, 2)], [(4, 4), (5, 4), (5, 5)]]),
    shapely.MultiPoint([(1, 1), (2, 2)]),
    shapely.MultiLineString([[(0, 0), (1, 1)], [(2, 2), (3, 3), (4, 4)]]),
    shapely.MultiPolygon(
        [shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6).difference(shapely.box(5.2, 5.2, 5.4, 5.4))]
    ),
    shapely.GeometryCollection([shapely.Point(1, 1), shapely.LineString([(0, 0), (1, 1)])]),
    shapely.Polygon(),
    None,
]


@everywhere
def test_every_geometry_comes_back_as_it_was(work: Work) -> None:
    layout = Layout(pa.schema([("id", pa.int64())]), GeometryField("geometry", UNKNOWN, "EPSG:3857"))
    shapes = np.array(GEOMETRIES, object)
    batch = Batch(layout, (pa.array(range(len(shapes))),), Geometries(shapes=shapes), len(shapes))
    load(sink_of(srid=3857, geometry_column="Ge om"), work, [batch])
    back = read(work, geometry_column="Ge om")
    assert back[0].layout.geometry == GeometryField("Ge om", UNKNOWN, "EPSG:3857")
    assert shapely.equals_exact(shapes_of(back)[:-1], shapes[:-1]).all()
    assert shapes_of(back)[-1] is None


@everywhere
def test_heights_and_measures_come_back(work: Work, url: str) -> None:
    """PostGIS wants a column for them; into bytea they go as they are."""
    wkt = [
        "POINT Z (1 2 3)",
        "POINT M (1 2 3)",
        "POINT ZM (1 2 3 4)",
        "MULTIPOLYGON Z (((0 0 1, 1 0 1, 1 1 1, 0 0 1)))",
    ]
    shapes = shapely.from_wkt(np.array(wkt))
    spatial = rows_of(url, "SELECT 1 FROM pg_type WHERE typname = 'geometry'")
    rows_of(url, f"CREATE TABLE plots (geom {'geometry' if spatial else 'bytea'})")
    layout = Layout(pa.schema([]), GeometryField("geometry", UNKNOWN, "EPSG:4326"))
    load(sink_of(), work, [Batch(layout, (), Geometries(shapes=shapes), len(shapes))])
    assert list(shapely.to_wkt(shapes_of(read(work)))) == list(shapely.to_wkt(shapes))


@everywhere
def test_ewkb_in_bytea_is_what_other_programs_read(work: Work, url: str) -> None:
    load(sink_of(), work, [plots()])
    cast = (
        "encode(geom, 'hex')"
        if "postgis" not in str(rows_of(url, "SELECT extname FROM pg_extension"))
        else "geom::text"
    )
    shapes = shapely.from_wkb([row[0] for row in rows_of(url, f"SELECT {cast} FROM plots ORDER BY id")])
    assert set(shapely.get_srid(shapes)) == {4326}
    assert shapely.equals_exact(shapes, plots().shapes).all()


def test_postgis_knows_the_table(postgis_url: str, tmp_path: Path) -> None:
    work = Work(Doors(postgis_url, tmp_path.as_uri()), threading.Event(), Boundless(), tmp_path, "run", "sink", "0")
    load(sink_of(), work, [plots()])
    known = rows_of(postgis_url, "SELECT f_geometry_column, srid, type FROM geometry_columns")
    assert known == [("geom", 4326, "POLYGON")]
    assert rows_of(postgis_url, "SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%USING gist (geom)%'") == [(1,)]
    assert rows_of(postgis_url, "SELECT sum(ST_Area(geom)), bool_and(ST_IsValid(geom)) FROM plots") == [(10.0, True)]
    assert read(work)[0].layout.geometry == GeometryField("geom", "Polygon", "EPSG:4326")


# --- reading ---


@everywhere
def test_a_large_table_is_read_in_parts_of_one_moment(work: Work, url: str) -> None:
    rows_of(url, "CREATE TABLE plots AS SELECT id, repeat('x', 900) AS filler FROM generate_series(1, 40000) AS id")
    source = PostgisSource.model_validate({"table": "plots"})
    with source.shared(work.outside) as shared:
        rows_of(url, "UPDATE plots SET id = -id WHERE id % 2 = 0; INSERT INTO plots VALUES (0, '')")
        parts = source.parts(work.outside, 8)
        assert len(parts) > 3
        with ThreadPoolExecutor(4) as pool:
            read_parts = list(pool.map(lambda part: list(source.read({**part, **shared}, work)), parts))
    ids = [column(batches, "id") for batches in read_parts]
    assert list(itertools.chain(*ids)) == list(range(1, 40_001))
    assert len([some for some in ids if some]) > 3


def test_parts_cover_what_is_written_behind_the_last_page(work: Work, url: str) -> None:
    rows = PART_PAGES * 2 * 23  # as many as there are in a page filled to a tenth
    rows_of(url, f"CREATE TABLE plots WITH (fillfactor = 10) AS SELECT id FROM generate_series(1, {rows}) AS id")
    source = PostgisSource.model_validate({"table": "plots"})
    parts = source.parts(work.outside, 2)
    assert len(parts) == 2
    rows_of(url, "INSERT INTO plots SELECT -id FROM generate_series(1, 50) AS id")
    ids = [i for part in parts for batch in source.read(part, work) for i in batch.column("id").to_pylist()]
    assert sorted(ids) == [*range(-50, 0), *range(1, rows + 1)]


@everywhere
def test_query_filter_and_limit(work: Work) -> None:
    load(sink_of(), work, [plots(count=9)])
    assert column(read(work, filter="id % 2 = 0 -- even"), "id") == [0, 2, 4, 6, 8]
    assert len(column(read(work, filter="id > 2", limit=3), "id")) == 3
    joined = read(work, query="SELECT a.id * 10 AS tens, b.geom FROM plots a JOIN plots b USING (id) ORDER BY 1 DESC;")
    assert column(joined, "tens") == [80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert joined[0].layout.crs == "EPSG:4326"
    assert read(work, filter="false") == []


def test_reading_changes_nothing(work: Work, url: str) -> None:
    load(sink_of(), work, [plots()])
    rows_of(url, "CREATE FUNCTION emptied() RETURNS int LANGUAGE sql AS 'DELETE FROM plots; SELECT 1'")
    with pytest.raises(ConfigurationError, match="read-only"):
        read(work, query="SELECT emptied()")
    assert rows_of(url, "SELECT count(*) FROM plots") == [(5,)]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("point(1, 2)", "of type point, which cannot be read; use query and cast it"),
        ("ARRAY[1, 2]", "of type _int4"),
        ("1 AS x, 2", "two columns called 'x'"),
    ],
)
def test_types_without_a_like_are_refused(work: Work, expression: str, message: str) -> None:
    with pytest.raises(NodeProblem, match=message):
        read(work, query=f"SELECT {expression} AS x")


@pytest.mark.parametrize(
    "value", ["'infinity'::date", "'-infinity'::timestamptz", "'24:00'::time", "'NaN'::numeric(5, 2)"]
)
def test_values_without_a_like_are_refused(work: Work, value: str) -> None:
    with pytest.raises(TerminalError, match="column 'x' has values that cannot be read"):
        read(work, query=f"SELECT {value} AS x")


def test_odd_types_are_read_as_text_or_numbers(work: Work, url: str) -> None:
    rows_of(url, "CREATE TYPE use AS ENUM ('arable'); CREATE DOMAIN parcel AS varchar(9) NOT NULL")
    values = f"""'arable'::use AS e, 'a/1'::parcel AS d, '{{"a": 1}}'::jsonb AS j, 1.25::numeric AS n,
        '{uuid.UUID(int=1)}'::uuid AS u, 2::numeric(4, 1) AS exact"""
    rows_of(url, f"CREATE TABLE odd AS SELECT {values}")
    (batch,) = read(work, table="odd")
    assert batch.to_arrow().to_pylist() == [
        {"e": "arable", "d": "a/1", "j": '{"a": 1}', "n": 1.25, "u": str(uuid.UUID(int=1)), "exact": Decimal("2.0")}
    ]


@everywhere
def test_mixed_srids_are_refused(work: Work, url: str) -> None:
    load(sink_of(), work, [plots()])
    load(sink_of(table="others", srid=3857), replace(work, node_id="other"), [plots(crs="EPSG:3857")])
    both = "SELECT * FROM plots UNION ALL SELECT * FROM others"
    with pytest.raises(TerminalError, match="geometries of srid 3857 beside 4326"):
        read(work, query=both)


def test_a_stop_ends_a_slow_query(work: Work) -> None:
    source = PostgisSource.model_validate({"query": "SELECT pg_sleep(60)::text AS x"})
    threading.Timer(0.5, work.stop.set).start()
    with pytest.raises(StopRequested):
        list(source.read({}, work))


def test_a_reader_that_leaves_early_leaves_nothing(work: Work, url: str) -> None:
    source = PostgisSource.model_validate(
        {"query": "SELECT id, repeat('x', 500) AS y FROM generate_series(1, 400000) AS id"}
    )
    batches = source.read({}, work)
    assert next(batches).rows > 0
    batches.close()  # type: ignore[attr-defined]
    assert rows_of(url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%'") == [(0,)]


def test_a_reader_that_leaves_when_all_has_come_is_no_error(work: Work, url: str) -> None:
    """Two batches are waiting, and the word that they were the last."""
    source = PostgisSource.model_validate({"query": f"SELECT id FROM generate_series(1, {3 * BATCH_ROWS}) AS id"})
    batches = source.read({}, work)
    assert next(batches).rows == BATCH_ROWS
    running = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%' AND state = 'active'"
    while rows_of(url, running):
        time.sleep(0.05)
    time.sleep(0.1)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "geo-copy"]


@everywhere
def test_fingerprint_follows_every_change(work: Work, url: str) -> None:
    load(sink_of(), work, [plots()])
    source = PostgisSource.model_validate({"table": "plots"})
    seen = [source.fingerprint(work.outside)]
    assert source.fingerprint(work.outside) == seen[0]
    for change in (
        "UPDATE plots SET name = 'a' WHERE id = 1",
        "DELETE FROM plots WHERE id = 2",
        "INSERT INTO plots (id) VALUES (2)",
    ):
        rows_of(url, change)
        seen.append(source.fingerprint(work.outside))
    assert len(set(seen)) == len(seen)


def test_what_is_not_there_is_said(work: Work) -> None:
    with pytest.raises(ConfigurationError, match=r'"nowhere" does not exist'):
        read(work, table="nowhere")
    load(sink_of(), work, [plots()])
    with pytest.raises(NodeProblem, match="there is no column 'gem'; did you mean 'geom'"):
        read(work, geometry_column="gem")
    with pytest.raises(ValueError, match="give a table or a query"):
        PostgisSource.model_validate({})


# --- writing ---


@everywhere
def test_a_part_is_written_once_however_often_it_is_tried(work: Work, url: str) -> None:
    sink, layout = sink_of(), plots().layout
    sink.prepare(layout, work)
    first = write(sink, work, [plots()])
    sink.prepare(layout, work)
    assert write(sink, work, [plots()]) == first == replace(first, features=5)
    assert write(sink, replace(work, part="1"), [plots(5), plots(10)]).features == 10
    done = sink.conclude([first], work)
    assert sink.conclude([first], work) == done
    assert done.places == ("table public.plots",)
    assert rows_of(url, "SELECT count(*), count(DISTINCT id) FROM plots") == [(15, 15)]


def test_an_abandoned_part_leaves_nothing_and_is_written_later(work: Work, url: str) -> None:
    sink, layout = sink_of(), plots().layout
    sink.prepare(layout, work)
    writer = sink.open(layout, work)
    writer.write(sink.packed(plots()))
    writer.abandon()
    writer.abandon()
    assert rows_of(url, "SELECT count(*) FROM plots") == [(0,)]
    assert write(sink, work, [plots()]).features == 5


def test_parts_are_written_side_by_side(work: Work, url: str) -> None:
    sink, layout = sink_of(mode="upsert", key="id"), plots().layout
    sink.prepare(layout, work)

    def part(number: int) -> Any:
        return write(sink, replace(work, part=str(number)), [plots(0, 2000), plots(1000, 2000)])

    with ThreadPoolExecutor(4) as pool:
        assert [w.features for w in pool.map(part, range(8))] == [4000] * 8
    assert rows_of(url, "SELECT count(*), count(DISTINCT id) FROM plots") == [(3000, 3000)]


@everywhere
def test_upsert_takes_the_last_of_each_key(work: Work, url: str) -> None:
    load(sink_of(mode="upsert", key=["id"]), work, [plots()])
    layout = plots().layout
    news = Batch(
        layout, (pa.array([3, 3, 7]), pa.array(["old", "new", "seven"])), plots().geometry.take(np.arange(3)), 3
    )
    load(sink_of(mode="upsert", key=["id"]), replace(work, run_id="second"), [news])
    assert rows_of(url, "SELECT id, name FROM plots WHERE id IN (1, 3, 7) ORDER BY id") == [
        (1, "plot 1"),
        (3, "new"),
        (7, "seven"),
    ]
    assert rows_of(url, "SELECT count(*) FROM plots") == [(6,)]


def test_upsert_needs_a_key_that_is_unique_and_there(work: Work, url: str) -> None:
    with pytest.raises(NodeProblem, match="set key"):
        sink_of(mode="upsert").layouts({"input": plots().layout})
    with pytest.raises(NodeProblem, match="did you mean 'id'"):
        sink_of(mode="upsert", key="ids").layouts({"input": plots().layout})
    with pytest.raises(TerminalError, match="'name' is null"):
        sink_of(mode="upsert", key="name").packed(plots())
    load(sink_of(), work, [plots()])
    with pytest.raises(ConfigurationError, match=r"CREATE UNIQUE INDEX ON public.plots \(id\)"):
        sink_of(mode="upsert", key="id").prepare(plots().layout, replace(work, run_id="second"))


@everywhere
def test_replace_shows_the_new_table_only_when_it_is_whole(work: Work, url: str) -> None:
    load(sink_of(), work, [plots(0, 5)])
    rows_of(
        url, "CREATE ROLE reader_of_plots; GRANT SELECT ON plots TO reader_of_plots; COMMENT ON TABLE plots IS 'old'"
    )
    sink, again = sink_of(mode="replace"), replace(work, run_id="second")
    layout = plots().layout.with_fields([pa.field("id", pa.int32())])
    batch = plots(100, 3)
    sink.prepare(layout, again)
    written = write(sink, again, [Batch(layout, (batch.column("id").cast(pa.int32()),), batch.geometry, 3)])
    sink.prepare(layout, again)
    assert rows_of(url, "SELECT count(*), min(id) FROM plots") == [(5, 0)]
    for _ in range(2):
        assert sink.conclude([written], again).features == 3
    assert rows_of(url, "SELECT count(*), min(id) FROM plots") == [(3, 100)]
    assert rows_of(url, "SELECT has_table_privilege('reader_of_plots', 'plots', 'SELECT')") == [(True,)]
    tables = rows_of(url, "SELECT relname FROM pg_class WHERE relname LIKE 'plots%' ORDER BY 1")
    assert {name for (name,) in tables} <= {"plots", "plots_geom_idx"}
    rows_of(url, "DROP OWNED BY reader_of_plots; DROP ROLE reader_of_plots")


def test_a_table_that_others_lean_on_is_not_replaced(work: Work, url: str) -> None:
    load(sink_of(), work, [plots()])
    rows_of(url, "CREATE VIEW seen AS SELECT * FROM plots")
    with pytest.raises(ConfigurationError, match="while view seen depends on it"):
        sink_of(mode="replace").prepare(plots().layout, replace(work, run_id="second"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id bigint, name text", "has no column 'geom'"),
        ("id bigint, geom bytea", "has no column 'name'"),
        ("id bigint, nam text, geom bytea", "did you mean 'nam'"),
        ("id date, name text, geom bytea", "'id' of table public.plots is date, but the features have bigint"),
        ("id bigint GENERATED ALWAYS AS IDENTITY, name text, geom bytea", "database fills itself"),
        ("id bigint, name text, geom bytea, use int NOT NULL", "demands a value for use"),
        ("id bigint, name text, geom text", "is text, not geometry"),
    ],
)
def test_a_table_that_does_not_fit_is_explained(work: Work, url: str, table: str, message: str) -> None:
    rows_of(url, f"CREATE TABLE plots ({table})")
    with pytest.raises(ConfigurationError, match=message):
        sink_of().prepare(plots().layout, work)


@everywhere
def test_a_table_of_other_types_is_filled_by_casting(work: Work, url: str) -> None:
    rows_of(url, "CREATE TABLE plots (geom bytea, name varchar(20), id smallint, at timestamptz DEFAULT now())")
    assert load(sink_of(), work, [plots()]).features == 5
    assert rows_of(url, "SELECT id, name, at IS NULL FROM plots WHERE id < 2 ORDER BY id") == [
        (0, None, False),
        (1, "plot 1", False),
    ]
    with pytest.raises(TerminalError, match="smallint out of range"):
        load(sink_of(), replace(work, run_id="second"), [plots(40_000)])


def test_a_refused_row_is_named(work: Work, url: str) -> None:
    rows_of(url, "CREATE TABLE plots (id bigint CHECK (id <> 7), name varchar(6), geom bytea)")
    with pytest.raises(
        TerminalError, match=r"refuses row 8 of part 0.*violates check constraint.*Failing row contains \(7"
    ):
        load(sink_of(), work, [plots(0, 5), plots(5, 3)])
    with pytest.raises(TerminalError, match=r"refuses row 2 of part 0, column 'name': value too long"):
        load(sink_of(), replace(work, run_id="second"), [plots(9, 3)])
    assert rows_of(url, "SELECT count(*) FROM plots") == [(0,)]


def bad(kind: pa.DataType, value: Any) -> Batch:
    layout = Layout(pa.schema([("x", kind)]), None)
    return Batch(layout, (pa.array([value], kind),), None, 1)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (bad(pa.string(), "a\0b"), "'x' of row 1 of the batch cannot be written to Postgres: the text has a NUL"),
        (bad(pa.timestamp("ns"), 1), "would lose data"),
        (bad(pa.date32(), -(2**31)), "no date so long ago"),
        (bad(pa.timestamp("us"), -(2**63)), "no date so long ago"),
    ],
)
def test_values_postgres_cannot_hold_are_named(batch: Batch, message: str) -> None:
    with pytest.raises(TerminalError, match=message):
        sink_of().packed(batch)


@pytest.mark.parametrize("broken", [b"", b"\x01\x02", bytes(30)])
def test_wkb_that_is_none_is_named(broken: bytes) -> None:
    layout = Layout(pa.schema([]), GeometryField("g", UNKNOWN, "EPSG:4326"))
    wkb = pa.array([shapely.Point(1, 2).wkb, None, broken])
    with pytest.raises(TerminalError, match="geometry of row 3 of the batch is no WKB"):
        sink_of().packed(Batch(layout, (), Geometries(wkb=wkb), 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "a.b.c"}, "no name of a table"),
        ({"table": "p" * 64}, "longer than the 63 bytes"),
        ({"geometry_column": "id"}, "an attribute is called 'id' too"),
        ({"geometry_column": "ctid"}, "keeps the name 'ctid' for itself"),
        ({"srid": 3857}, "come in EPSG:4326, not in EPSG:3857; set srid: 4326"),
    ],
)
def test_parameters_that_cannot_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NodeProblem, match=message):
        sink_of(**changes).layouts({"input": plots().layout})


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int64()), pa.struct([("a", pa.int64())]), pa.duration("s"), pa.decimal256(60, 2)]
)
def test_types_postgres_has_no_like_of(kind: pa.DataType) -> None:
    with pytest.raises(NodeProblem, match=r"column 'x' is .*, which Postgres has no type for"):
        sink_of().layouts({"input": Layout(pa.schema([("x", kind)]), None)})


@everywhere
def test_names_are_quoted(work: Work, url: str) -> None:
    name = 'x"; DROP TABLE plots; --'
    layout = Layout(pa.schema([(name, pa.int64()), ("select", pa.int64())]), GeometryField("g", "Polygon", "EPSG:4326"))
    rows_of(url, 'CREATE SCHEMA "My Schema"; CREATE TABLE plots ()')
    batch = Batch(layout, (pa.array([1]), pa.array([2])), plots(count=1).geometry, 1)
    load(sink_of(table='"My Schema"."Ta.ble"', geometry_column='ge"om'), work, [batch])
    assert rows_of(url, 'SELECT "select" FROM "My Schema"."Ta.ble"') == [(2,)]
    assert column(read(work, table='"My Schema"."Ta.ble"'), name) == [1]
    assert rows_of(url, "SELECT count(*) FROM plots") == [(0,)]


def test_a_missing_schema_and_a_missing_server(work: Work) -> None:
    with pytest.raises(ConfigurationError, match="no schema nowhere"):
        sink_of(table="nowhere.plots").prepare(plots().layout, work)
    away = sink_of(url="postgresql://somebody:secret@127.0.0.1:1/x")
    with pytest.raises(OutsideUnreachable, match="does not answer") as caught:
        away.prepare(plots().layout, work)
    assert "secret" not in f"{caught.value} {away!r} {away.model_dump_json()}"


def test_a_part_that_another_attempt_holds_is_tried_later(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.geo.postgres_writing.LOCK_TIMEOUT_S", 1)
    sink, layout = sink_of(), plots().layout
    sink.prepare(layout, work)
    hanging = sink.open(layout, work)
    with pytest.raises(TransientError, match="lock timeout"):
        sink.open(layout, work)
    hanging.abandon()
    assert write(sink, work, [plots()]).features == 5


def test_postgis_refuses_other_types_by_name(postgis_url: str, tmp_path: Path) -> None:
    work = Work(Doors(postgis_url, tmp_path.as_uri()), threading.Event(), Boundless(), tmp_path, "run", "sink", "0")
    batch = plots()
    points = batch.reshaped(shapely.centroid(batch.shapes), batch.layout)
    with pytest.raises(TerminalError, match=r"row 1 of part 0.*Geometry type \(Point\) does not match"):
        load(sink_of(), work, [points])
    load(sink_of(table="typed"), replace(work, run_id="second"), [batch])
    with pytest.raises(ConfigurationError, match="holds Polygon, but features come as Point"):
        sink_of(table="typed").prepare(batch.layout.shaped("Point"), replace(work, run_id="third"))
    with pytest.raises(ConfigurationError, match="has srid 4326, but features come with 3857"):
        sink_of(table="typed", srid=3857).prepare(batch.layout.placed("EPSG:3857"), replace(work, run_id="third"))
    with pytest.raises(ConfigurationError, match="does not know srid 899"):
        sink_of(table="new", srid=899).prepare(batch.layout.placed(None), replace(work, run_id="third"))


def test_postgis_may_live_in_a_schema_of_its_own(postgis_server: DebianPostgres, tmp_path: Path) -> None:
    postgis_server.run("CREATE DATABASE apart")
    postgis_server.run("CREATE SCHEMA gis; CREATE EXTENSION postgis SCHEMA gis", "apart")
    outside = Doors(postgis_server.url("apart"), tmp_path.as_uri())
    work = Work(outside, threading.Event(), Boundless(), tmp_path, "run", "sink", "0")
    load(sink_of(), work, [plots()])
    assert read(work)[0].layout.geometry == GeometryField("geom", "Polygon", "EPSG:4326")
    assert shapely.equals_exact(shapes_of(read(work, query="SELECT * FROM plots ORDER BY id")), plots().shapes).all()
    assert len(rows_of(outside.database_url, "SELECT 1 FROM pg_indexes WHERE indexname = 'plots_geom_idx'")) == 1
    postgis_server.run("DROP DATABASE apart WITH (FORCE)")
