"""Sources and sinks of files: round trips of real and made-up features against geopandas, and what files may hold."""

from __future__ import annotations

import datetime as dt
import json
import threading
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pyproj
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigurationError, StopRequested, TerminalError
from tasks.geo.batches import Batch, Geometries
from tasks.geo.layouts import GeometryField, Layout
from tasks.geo.nodes import NodeProblem, Sink, Source
from tasks.geo.sinks_gdal import FlatGeobufSink, GeoPackageSink, ShapefileSink
from tasks.geo.sinks_geoparquet import GeoParquetSink
from tasks.geo.sinks_store import OutputSink, StoreSink
from tasks.geo.sinks_text import CsvSink, GeoJsonSink
from tasks.geo.sources_csv import CsvSource
from tasks.geo.sources_gdal import (
    FlatGeobufSource,
    GeoJsonLinesSource,
    GeoJsonSource,
    GeoPackageSource,
    ShapefileSource,
)
from tasks.geo.sources_geoparquet import GeoParquetSource
from tests.fakes.geo import columns_of, read_all, shapes_of, work_in, write_all

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:'crs' was not|Measured:UserWarning")

PAIRS: dict[str, tuple[type[Sink], type[Source], str]] = {
    "geopackage": (GeoPackageSink, GeoPackageSource, "made.gpkg"),
    "flatgeobuf": (FlatGeobufSink, FlatGeobufSource, "made.fgb"),
    "shapefile": (ShapefileSink, ShapefileSource, "made.zip"),
    "shp": (ShapefileSink, ShapefileSource, "made.shp"),
    "geojson": (GeoJsonSink, GeoJsonSource, "made.geojson"),
    "geojsonl": (GeoJsonSink, GeoJsonLinesSource, "made.geojsonl"),
    "geoparquet": (GeoParquetSink, GeoParquetSource, "made.parquet"),
    "csv": (CsvSink, CsvSource, "made.csv"),
}
OWN = ("geojson", "geojsonl", "geoparquet", "csv")
"""Written without a process."""

LAYERS = ("plots", "buildings", "streets", "tessellation")


@pytest.fixture
def bubenec(shared_data: Path) -> Path:
    return shared_data / "geo" / "bubenec.gpkg"


def sink_of(name: str, **parameters: Any) -> Sink:
    cls, _, path = PAIRS[name]
    return cls.model_validate({"output_path": path, **parameters})


def source_of(name: str, **parameters: Any) -> Source:
    _, cls, path = PAIRS[name]
    return cls.model_validate({"file_path": path, **parameters})


def stream(shapes: Any, crs: str | None = "EPSG:3857", kind: str = "Unknown", **columns: pa.Array) -> Batch:
    shapes = np.array(shapes, dtype=object)
    schema = pa.schema([pa.field(name, array.type) for name, array in columns.items()])
    layout = Layout(schema, GeometryField("geometry", kind, crs))
    return Batch(layout, tuple(columns.values()), Geometries(shapes=shapes), len(shapes))


def there_and_back(name: str, batch: Batch, root: Path, **reading: Any) -> list[Batch]:
    write_all(sink_of(name), batch.layout, [batch], work_in(root))
    return read_all(source_of(name, **reading), work_in(root))


# real data


@pytest.mark.parametrize("layer", LAYERS)
def test_real_layers_are_read_as_geopandas_reads_them(bubenec: Path, layer: str) -> None:
    batches = read_all(GeoPackageSource(file_path=str(bubenec), table_name=layer), work_in_root(bubenec))
    expected = geopandas.read_file(bubenec, layer=layer)
    assert batches[0].layout.crs == "EPSG:3857"
    assert batches[0].layout.geometry is not None
    assert batches[0].layout.geometry.kind == expected.geom_type.iloc[0]
    assert columns_of(batches) == {name: expected[name].to_list() for name in expected.columns.drop("geometry")}
    assert shapely.equals_exact(shapes_of(batches), expected.geometry.to_numpy()).all()


def work_in_root(path: Path) -> Any:
    work = work_in(Path("geo-work").resolve())
    work.outside.root = path.parent.resolve()  # type: ignore[attr-defined]
    return work


@pytest.mark.parametrize("name", PAIRS)
def test_real_layers_are_written_as_geopandas_understands_them(bubenec: Path, tmp_path: Path, name: str) -> None:
    batches = read_all(GeoPackageSource(file_path=str(bubenec), table_name="plots"), work_in_root(bubenec))
    write_all(sink_of(name), batches[0].layout, batches, work_in(tmp_path))
    made = opened_by_geopandas(tmp_path / PAIRS[name][2])
    made = made.rename_geometry("geometry") if made.geometry.name != "geometry" else made
    expected = geopandas.read_file(bubenec, layer="plots")
    if name in ("geojson", "geojsonl"):
        expected = expected.to_crs(4326)
    if name == "flatgeobuf":  # stands in the index's order
        made, expected = (frame.sort_values("ID").reset_index(drop=True) for frame in (made, expected))
    made = made[expected.columns].astype(expected.drop(columns="geometry").dtypes)
    loose = name in ("geojson", "geojsonl", "shapefile", "shp")
    assert made.crs == expected.crs
    for mine, theirs in zip(made.geometry, expected.geometry, strict=True):
        assert shapely.equals_exact(mine.normalize(), theirs.normalize(), tolerance=1e-8 if loose else 0)
    assert_geodataframe_equal(made, expected.set_geometry(made.geometry), check_like=True)


def opened_by_geopandas(path: Path) -> geopandas.GeoDataFrame:
    if path.suffix == ".parquet":
        return geopandas.read_parquet(path)
    if path.suffix == ".csv":
        import pandas

        table = pandas.read_csv(path, dtype={"ID": str, "ID_2": str, "TYPPPD_KOD": str})
        shapes = geopandas.GeoSeries.from_wkt(table.pop("geometry"), crs="EPSG:3857")
        return geopandas.GeoDataFrame(table, geometry=shapes)
    return geopandas.read_file(path)


@pytest.mark.parametrize("name", ["geopackage", "geoparquet"])
def test_parts_read_everything_once(bubenec: Path, tmp_path: Path, name: str) -> None:
    plots = read_all(GeoPackageSource(file_path=str(bubenec), table_name="plots"), work_in_root(bubenec))[0]
    many = [plots] * 180
    write_all(sink_of(name), plots.layout, many, work_in(tmp_path))
    source = source_of(name)
    parts = source.parts(work_in(tmp_path).outside, 4)
    assert len(parts) > 1
    assert json.loads(json.dumps(parts)) == parts
    assert columns_of(read_all(source, work_in(tmp_path), at_most=4)) == columns_of(many)
    limited = read_all(source_of(name, limit=10_000), work_in(tmp_path), at_most=4)
    assert columns_of(limited)["ID"] == columns_of(many)["ID"][:10_000]


# every type


DAY = dt.date(2024, 2, 29)
ZONED = dt.datetime(2024, 2, 29, 12, 30, 15, 250_000, dt.UTC)
MOMENT = ZONED.replace(tzinfo=None)
POINT = shapely.Point(1, 2)


def all_types() -> dict[str, pa.Array]:
    return {
        "small": pa.array([1, None], pa.int32()),
        "large": pa.array([2**40, None], pa.int64()),
        "number": pa.array([1.5, None]),
        "text": pa.array(["Dejvická 5, „Bubeneč“\n2", None]),
        "flag": pa.array([True, None]),
        "day": pa.array([DAY, None]),
        "zoned": pa.array([ZONED, None], pa.timestamp("us", "Europe/Prague")),
        "nothing": pa.nulls(2),
        "words": pa.array(["x", None]).dictionary_encode(),
        "žluť": pa.array(["kůň", None]),
    }


@pytest.mark.parametrize("name", PAIRS)
def test_every_type_comes_back(tmp_path: Path, name: str) -> None:
    columns = all_types()
    shapes = [POINT, POINT] if name == "flatgeobuf" else [POINT, None]
    found = columns_of(there_and_back(name, stream(shapes, "EPSG:4326", **columns), tmp_path))
    expected = {column: array.to_pylist() for column, array in columns.items()}
    if name in ("shapefile", "shp"):
        expected["zoned"] = ["2024-02-29T12:30:15.250Z", None]  # DBF has no moments
    if name == "flatgeobuf":  # has no days, and no zones: moments are UTC
        expected |= {"zoned": [MOMENT, None], "day": [MOMENT.replace(hour=0, minute=0, second=0, microsecond=0), None]}
    assert found == expected


@pytest.mark.parametrize("name", ["geopackage", "flatgeobuf", "geoparquet"])
def test_bytes_come_back(tmp_path: Path, name: str) -> None:
    blobs = pa.array([b"\x00\xff", None])
    assert columns_of(there_and_back(name, stream([POINT, POINT], data=blobs), tmp_path))["data"] == blobs.to_pylist()


@pytest.mark.parametrize("name", sorted(set(PAIRS) - {"geoparquet", "geojson", "geojsonl"}))
def test_lists_are_refused(name: str) -> None:
    batch = stream([POINT], tags=pa.array([["a", "b"]]))
    with pytest.raises(NodeProblem, match="tags"):
        sink_of(name).layouts({"input": batch.layout})


@pytest.mark.parametrize("name", ["geojson", "geoparquet"])
def test_lists_in_a_file_are_refused_unless_left_out(tmp_path: Path, name: str) -> None:
    batch = stream([POINT], "EPSG:4326", tags=pa.array([["a", "b"]]), other=pa.array([1]))
    write_all(sink_of(name), batch.layout, [batch], work_in(tmp_path))
    with pytest.raises(NodeProblem, match=r"'tags'.*lists"):
        source_of(name).describe(work_in(tmp_path).outside)
    assert columns_of(read_all(source_of(name, columns=["other"]), work_in(tmp_path))) == {"other": [1]}


# every geometry


SHAPES = {
    "z": "POINT Z (1 2 3)",
    "polygon_z": "POLYGON Z ((0 0 1, 1 0 2, 1 1 3, 0 0 1))",
    "m": "LINESTRING M (0 0 1, 1 1 2)",
    "zm": "POINT ZM (1 2 3 4)",
    "hole": "POLYGON ((0 0, 9 0, 9 9, 0 9, 0 0), (1 1, 1 2, 2 2, 1 1))",
    "multi": "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)), ((5 5, 6 5, 6 6, 5 5)))",
    "collection": "GEOMETRYCOLLECTION (POINT (1 2), LINESTRING (0 0, 1 1))",
    "empty": "POLYGON EMPTY",
    "empty_point": "POINT EMPTY",
    "empty_collection": "GEOMETRYCOLLECTION EMPTY",
}


@pytest.mark.parametrize("name", ["geopackage", *OWN])
def test_every_geometry_comes_back_in_one_stream(tmp_path: Path, name: str) -> None:
    shapes = [*shapely.from_wkt(list(SHAPES.values())), None]
    found = shapes_of(there_and_back(name, stream(shapes, "EPSG:4326", n=pa.array(range(len(shapes)))), tmp_path))
    expected = [shapely.force_2d(s) if s and shapely.has_m(s) and not s.has_z else s for s in shapes]
    if name not in ("geojson", "geojsonl"):  # GeoJSON has no M
        expected = shapes
    for mine, theirs in zip(found, expected, strict=True):
        if name in ("geojson", "geojsonl") and theirs is not None and theirs.has_z:
            theirs = shapely.from_wkb(shapely.to_wkb(theirs, output_dimension=3))
        if name.startswith("geojson") and theirs is not None and theirs.wkt == "POINT EMPTY":
            theirs = None  # RFC 7946, 3.1: coordinates without content may be taken for null
        assert (mine is None) == (theirs is None)
        assert mine is None or shapely.equals_exact(mine.normalize(), theirs.normalize()), f"{mine} is not {theirs}"
        assert mine is None or mine.geom_type == theirs.geom_type


@pytest.mark.parametrize("key", ["z", "polygon_z", "m", "zm", "hole", "multi"])
def test_flatgeobuf_keeps_type_and_dimension(tmp_path: Path, key: str) -> None:
    shape = shapely.from_wkt(SHAPES[key])
    batches = there_and_back("flatgeobuf", stream([shape], kind=shape.geom_type), tmp_path)
    assert batches[0].layout.geometry is not None
    assert batches[0].layout.geometry.kind == shape.geom_type
    assert shapes_of(batches)[0].wkt == shape.wkt


def test_flatgeobuf_without_index_has_features_without_geometry(tmp_path: Path) -> None:
    shapes = [POINT, None, shapely.box(0, 0, 1, 1), None]
    batch = stream(shapes, n=pa.array(range(4)))
    with pytest.raises(TerminalError, match="spatial_index"):
        there_and_back("flatgeobuf", batch, tmp_path)
    assert not list(tmp_path.glob("*made*"))
    write_all(sink_of("flatgeobuf", spatial_index=False), batch.layout, [batch], work_in(tmp_path))
    assert list(shapes_of(read_all(source_of("flatgeobuf"), work_in(tmp_path)))) == shapes


@pytest.mark.parametrize("name", sorted(set(PAIRS) - {"geojsonl"}))
def test_an_empty_stream_makes_a_file_with_its_columns(tmp_path: Path, name: str) -> None:
    layout = stream([], "EPSG:4326", "Point", n=pa.array([], pa.int32())).layout
    assert write_all(sink_of(name), layout, [], work_in(tmp_path)).features == 0
    described = source_of(name).describe(work_in(tmp_path).outside)
    if not name.startswith("geojson"):
        assert described.layout.names == ["n"]
    assert read_all(source_of(name), work_in(tmp_path)) == []


places = st.tuples(*(st.integers(-end, end).map(lambda n: n / 1000) for end in (170_000, 80_000)))
geometries = st.one_of(
    st.none(),
    st.builds(shapely.Point, places),
    st.builds(shapely.MultiPoint, st.lists(places, min_size=1, max_size=4)),
    st.builds(shapely.LineString, st.lists(places, min_size=2, max_size=4)),
    st.builds(lambda p, w: shapely.box(p[0], p[1], p[0] + w, p[1] + w / 4), places, st.integers(1, 9)),
)
rows = st.tuples(
    geometries,
    st.none() | st.integers(-(10**18), 10**18),  # GDAL reads 19 digits of a GeoJSON as a float
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20),
    st.none() | st.booleans(),
    st.none() | st.dates(dt.date(1000, 1, 1)),
)


def made_of(features: list[Any]) -> Batch:
    shapes, *columns = zip(*features, strict=True)
    types = {"i": pa.int64(), "f": pa.float64(), "t": pa.string(), "b": pa.bool_(), "d": pa.date32()}
    arrays = {n: pa.array(c, t) for (n, t), c in zip(types.items(), columns, strict=True)}
    return stream(list(shapes), "EPSG:4326", **arrays)


def same(batch: Batch, found: list[Batch], loose_types: bool) -> None:
    for name, values in columns_of(found).items():
        expected = batch.column(name).to_pylist()
        if loose_types and name == "t":  # a text that looks like a number or a day is taken for one
            continue
        assert values == expected, name
    tolerance = 1e-9
    for mine, theirs in zip(shapes_of(found), batch.shapes, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or shapely.equals_exact(mine.normalize(), theirs.normalize(), tolerance)


@pytest.mark.parametrize("name", OWN)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(features=st.lists(rows, min_size=1, max_size=6))
def test_any_features_come_back(tmp_path: Path, name: str, features: list[Any]) -> None:
    batch = made_of(features)
    same(batch, there_and_back(name, batch, tmp_path), loose_types=name != "geoparquet")


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(features=st.lists(rows, min_size=40, max_size=60))
def test_any_features_come_back_from_a_geopackage(tmp_path: Path, features: list[Any]) -> None:
    batch = made_of(features)
    (tmp_path / "made.gpkg").unlink(missing_ok=True)
    same(batch, there_and_back("geopackage", batch, tmp_path), loose_types=False)


# what a sink leaves behind


@pytest.fixture
def all_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.geo.format_gdal.SMALL_BYTES", 0)


@pytest.mark.usefixtures("all_in_processes")
@pytest.mark.parametrize("name", PAIRS)
def test_an_abandoned_file_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    batch = stream([POINT] * 3, n=pa.array([1, 2, 3]))
    write_all(sink_of(name), batch.layout, [batch], work_in(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    sink, work = sink_of(name), work_in(tmp_path)
    writer = sink.open(batch.layout, work)
    writer.write(sink.packed(batch))
    writer.abandon()
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"spilled"}


@pytest.mark.usefixtures("all_in_processes")
def test_a_stop_ends_the_writing_process(tmp_path: Path) -> None:
    batch = stream([POINT] * 1000, n=pa.array(range(1000)))
    stop = threading.Event()
    sink, work = sink_of("geopackage"), work_in(tmp_path, stop)
    writer = sink.open(batch.layout, work)
    for _ in range(50):
        writer.write(sink.packed(batch))
    stop.set()
    with pytest.raises(StopRequested):
        writer.finish()
    writer.abandon()
    assert not list(tmp_path.glob("*made*"))


def test_layers_are_added_to_a_geopackage_and_replaced_in_it(tmp_path: Path) -> None:
    batch = stream([POINT, None], n=pa.array([1, 2]))
    for layer in ("a", "b", "a"):
        write_all(sink_of("geopackage", table_name=layer), batch.layout, [batch], work_in(tmp_path))
    assert sorted(name for name, _ in pyogrio.list_layers(tmp_path / "made.gpkg")) == ["a", "b"]
    for layer in ("a", "b"):
        found = read_all(source_of("geopackage", table_name=layer), work_in(tmp_path))
        assert columns_of(found) == {"n": [1, 2]}
        assert found[0].layout == batch.layout
    with pytest.raises(NodeProblem, match=r"name one of them: [ab], [ab]"):
        source_of("geopackage").describe(work_in(tmp_path).outside)
    with pytest.raises(NodeProblem, match="did you mean 'a'"):
        source_of("geopackage", table_name="A").describe(work_in(tmp_path).outside)


def test_a_table_without_geometry(tmp_path: Path) -> None:
    layout = Layout(pa.schema([pa.field("n", pa.int64())]))
    batch = Batch(layout, (pa.array([1, 2]),), None, 2)
    for name in ("geopackage", "geoparquet", "csv"):
        reading = {"geometry_format": "none"} if name == "csv" else {}
        found = there_and_back(name, batch, tmp_path, **reading)
        assert columns_of(found) == {"n": [1, 2]}
        assert found[0].layout.geometry is None
    for name in ("flatgeobuf", "geojson", "shapefile"):
        with pytest.raises(NodeProblem, match="no geometry"):
            sink_of(name).layouts({"input": layout})


@pytest.mark.parametrize("name", ["geopackage", "flatgeobuf", "geoparquet", "shapefile"])
def test_an_unknown_crs_stays_unknown_until_it_is_named(tmp_path: Path, name: str) -> None:
    batch = stream([POINT], None, n=pa.array([1]))
    assert there_and_back(name, batch, tmp_path)[0].layout.crs is None
    assert read_all(source_of(name, crs="epsg:5514"), work_in(tmp_path))[0].layout.crs == "EPSG:5514"


def test_a_crs_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    batch = stream([POINT], n=pa.array([1]))
    write_all(sink_of("geoparquet"), batch.layout, [batch], work_in(tmp_path))
    with pytest.raises(NodeProblem, match="EPSG:3857"):
        source_of("geoparquet", crs="EPSG:4326").describe(work_in(tmp_path).outside)
    with pytest.raises(NodeProblem, match="no coordinate reference system"):
        source_of("geoparquet", crs="EPSG:nonsense").describe(work_in(tmp_path).outside)


@pytest.mark.parametrize("name", ["geopackage", "flatgeobuf", "geoparquet", "shapefile", "csv"])
def test_a_sink_writes_in_the_crs_it_is_told(tmp_path: Path, name: str) -> None:
    place = (1_602_940.0, 6_463_760.0)
    batch = stream([shapely.Point(place)], n=pa.array([1]))
    write_all(sink_of(name, crs="EPSG:4326"), batch.layout, [batch], work_in(tmp_path))
    found = read_all(source_of(name), work_in(tmp_path))
    assert found[0].layout.crs == "EPSG:4326"
    expected = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform(*place)
    assert shapes_of(found)[0].coords[0] == pytest.approx(expected, abs=1e-12)


def test_geojson_follows_rfc_7946(tmp_path: Path) -> None:
    clockwise = shapely.from_wkt("POLYGON ((0 0, 0 1, 1 1, 1 0, 0 0))")
    batch = stream([clockwise], "EPSG:4326", n=pa.array([float("nan")]), t=pa.array([MOMENT]))
    write_all(sink_of("geojson", pretty=True), batch.layout, [batch], work_in(tmp_path))
    text = (tmp_path / "made.geojson").read_text()
    feature = json.loads(text)["features"][0]
    assert shapely.LinearRing(feature["geometry"]["coordinates"][0]).is_ccw
    assert feature["properties"] == {"n": None, "t": "2024-02-29T12:30:15.250000"}
    assert '\n  "type": "Feature"' in text
    with pytest.raises(NodeProblem, match="CRS is not known"):
        sink_of("geojson").layouts({"input": stream([POINT], None).layout})


def test_geoparquet_has_boxes_and_says_so(tmp_path: Path) -> None:
    batch = stream([shapely.box(0.1, 0.2, 0.3, 0.4), None, shapely.Polygon()], n=pa.array([1, 2, 3]))
    write_all(sink_of("geoparquet"), batch.layout, [batch], work_in(tmp_path))
    table, footer = pq.read_table(tmp_path / "made.parquet"), pq.read_metadata(tmp_path / "made.parquet")
    geo = json.loads(footer.metadata[b"geo"])["columns"]["geometry"]
    assert geo["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert geo["bbox"] == [0.1, 0.2, 0.3, 0.4]
    assert geo["geometry_types"] == ["Polygon"]
    box = table["bbox"].to_pylist()
    assert box[0]["xmin"] <= 0.1
    assert box[0]["ymax"] >= 0.4
    assert box[1:] == [None, None]
    inside = geopandas.read_parquet(tmp_path / "made.parquet", bbox=(0, 0, 0.15, 0.25))
    assert inside["n"].to_list() == [1]


def test_a_geopandas_parquet_file_is_read(tmp_path: Path) -> None:
    frame = geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(1, 2)], crs="OGC:CRS84")
    frame.to_parquet(tmp_path / "made.parquet", write_covering_bbox=True)
    found = read_all(source_of("geoparquet"), work_in(tmp_path))
    assert columns_of(found) == {"n": [1]}
    assert found[0].layout.crs == "EPSG:4326"
    frame.to_parquet(tmp_path / "made.parquet", geometry_encoding="geoarrow")
    with pytest.raises(ConfigurationError, match="encoded as 'point'"):
        source_of("geoparquet").describe(work_in(tmp_path).outside)


def test_a_shapefile_refuses_what_it_would_cut(tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match="300 bytes"):
        there_and_back("shapefile", stream([POINT], t=pa.array(["x" * 300])), tmp_path)
    cut = stream([POINT], long_column_a=pa.array([1]), long_column_b=pa.array([2]))
    with pytest.raises(NodeProblem, match="are the same"):
        sink_of("shapefile").layouts({"input": cut.layout})
    mixed = stream([POINT, shapely.box(0, 0, 1, 1)], n=pa.array([1, 2]))
    with pytest.raises(TerminalError, match="cannot hold"):
        there_and_back("shapefile", mixed, tmp_path)


def test_the_store_takes_what_is_made(tmp_path: Path) -> None:
    batch = stream([POINT], n=pa.array([1]))
    written = write_all(StoreSink(key="exports/a.gpkg", format="geopackage"), batch.layout, [batch], work_in(tmp_path))
    assert geopandas.read_file(tmp_path / "store/exports/a.gpkg")["n"].to_list() == [1]
    assert written.places[0].endswith("/store/exports/a.gpkg")
    write_all(OutputSink(name="result"), batch.layout, [batch], work_in(tmp_path))
    assert geopandas.read_parquet(tmp_path / "store/geoetl/results/run/result.parquet").crs == "EPSG:3857"
    assert list((tmp_path / "spilled").iterdir()) == []
    for key in ("../a", "/a", "a//b", "a/../b", ""):
        with pytest.raises(ValueError):
            StoreSink(key=key)
