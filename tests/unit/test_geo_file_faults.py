"""Files that lie, break or reach for what they may not, and CSV as it comes."""

from __future__ import annotations

import json
import os
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely

from tasks.errors import ConfigurationError, LandrecordsError, OutsideUnreachable, TerminalError
from tasks.geo.batches import Batch, Geometries
from tasks.geo.file_columns import iso_wkb
from tasks.geo.file_sources import pieces
from tasks.geo.gdal_writing import GdalProcess
from tasks.geo.layouts import GeometryField, Layout
from tasks.geo.nodes import BATCH_BYTES, NodeProblem
from tasks.geo.sinks_gdal import GeoPackageSink
from tasks.geo.sinks_text import CsvSink
from tasks.geo.sources_csv import CsvSource
from tasks.geo.sources_gdal import (
    FlatGeobufSource,
    GeoJsonLinesSource,
    GeoJsonSource,
    GeoPackageSource,
    ShapefileSource,
)
from tasks.geo.sources_geoparquet import GeoParquetSource
from tasks.geo.sources_inline import InlineSource, TextOrFileSource
from tests.fakes.geo import columns_of, read_all, shapes_of, work_in, write_all

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:'crs' was not:UserWarning")

POINT = {"type": "Point", "coordinates": [14.4, 50.1]}
FEATURE = {"type": "Feature", "properties": {"n": 1}, "geometry": POINT}
COLLECTION = {"type": "FeatureCollection", "features": [FEATURE]}
SECRET = "a secret of another folder"


def written(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def outside_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features in a folder that is not allowed."""
    feature = {**FEATURE, "properties": {"secret": SECRET}}
    return written(tmp_path_factory.mktemp("elsewhere"), "secret.geojson", json.dumps(feature))


# what a file may make GDAL do


def lures(secret: Path) -> dict[str, str]:
    command = f"gdal vector pipeline ! read {secret}"
    return {
        "pipeline": json.dumps({"type": "gdal_streamed_alg", "command_line": command}),
        "vrt": f"<OGRVRTDataSource><OGRVRTLayer name='secret'><SrcDataSource>{secret}</SrcDataSource>"
        "</OGRVRTLayer></OGRVRTDataSource>",
        "address": str(secret),
        "entity": f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]><kml>&x;</kml>',
    }


SOURCES = {
    "a.gpkg": GeoPackageSource,
    "a.fgb": FlatGeobufSource,
    "a.shp": ShapefileSource,
    "a.geojson": GeoJsonSource,
    "a.geojsonl": GeoJsonLinesSource,
    "a.parquet": GeoParquetSource,
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("lure", ["pipeline", "vrt", "address", "entity"])
def test_a_file_of_another_format_is_never_obeyed(tmp_path: Path, outside_file: Path, name: str, lure: str) -> None:
    written(tmp_path, name, lures(outside_file)[lure])
    with pytest.raises((ConfigurationError, TerminalError)):
        read_all(SOURCES[name](file_path=name), work_in(tmp_path))


def test_gdal_would_have_obeyed(tmp_path: Path, outside_file: Path) -> None:
    """Else the test above proves nothing."""
    obeyed = written(tmp_path, "a.geojson", lures(outside_file)["pipeline"])
    assert pyogrio.read_info(obeyed)["fields"].tolist() == ["secret"]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("path", ["../elsewhere/a", "/etc/passwd", "/vsicurl/http://127.0.0.1:1/a", "none"])
def test_files_elsewhere_are_not_read(tmp_path: Path, name: str, path: str) -> None:
    with pytest.raises(ConfigurationError):
        SOURCES[name](file_path=path).describe(work_in(tmp_path).outside)


def test_files_elsewhere_are_not_made(tmp_path: Path) -> None:
    sink = GeoPackageSink(output_path="../made.gpkg")
    with pytest.raises(ConfigurationError):
        sink.prepare(Layout(pa.schema([])), work_in(tmp_path))


def test_a_layer_is_not_added_to_what_is_no_geopackage(tmp_path: Path, outside_file: Path) -> None:
    lure = written(tmp_path, "a.gpkg", lures(outside_file)["pipeline"])
    before = lure.read_bytes()
    with pytest.raises(ConfigurationError, match="no GeoPackage; choose another"):
        GeoPackageSink(output_path="a.gpkg").prepare(Layout(pa.schema([])), work_in(tmp_path))
    assert lure.read_bytes() == before


def test_a_link_in_an_archive_leads_nowhere(tmp_path: Path, outside_file: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.shp", f"<OGRVRTDataSource>{outside_file}</OGRVRTDataSource>")
    with pytest.raises(ConfigurationError, match="no Shapefile"):
        ShapefileSource(file_path="a.zip").describe(work_in(tmp_path).outside)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(ConfigurationError, match="0 Shapefiles"):
        ShapefileSource(file_path="a.zip").describe(work_in(tmp_path).outside)
    whole = (tmp_path / "a.zip").read_bytes()
    written(tmp_path, "a.zip", whole.replace(b"PK\x01\x02", b"PK\x01\x09"))
    with pytest.raises(ConfigurationError, match="cannot be unpacked"):
        ShapefileSource(file_path="a.zip").describe(work_in(tmp_path).outside)


def test_names_that_mean_something_to_pyogrio_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "a!b.geojson", json.dumps(COLLECTION))
    with pytest.raises(ConfigurationError, match="rename"):
        GeoJsonSource(file_path="a!b.geojson").describe(work_in(tmp_path).outside)
    written(tmp_path, "ž #%& b.geojson", json.dumps(COLLECTION))
    assert columns_of(read_all(GeoJsonSource(file_path="ž #%& b.geojson"), work_in(tmp_path))) == {"n": [1]}


# broken files


@pytest.mark.parametrize("name", ["a.gpkg", "a.fgb", "a.parquet", "a.geojson"])
@pytest.mark.parametrize("kept", [0.1, 0.6, 0.98])
def test_a_truncated_file_is_an_error(tmp_path: Path, name: str, kept: float) -> None:
    many = Layout(pa.schema([pa.field("n", pa.int64())]), GeometryField("geometry", "Point", "EPSG:4326"))
    shapes = np.array([shapely.Point(n % 170, n % 80) for n in range(30_000)], dtype=object)
    batch = Batch(many, (pa.array(range(30_000)),), Geometries(shapes=shapes), 30_000)
    from tasks.geo.sinks_gdal import FlatGeobufSink
    from tasks.geo.sinks_geoparquet import GeoParquetSink
    from tasks.geo.sinks_text import GeoJsonSink

    sinks = {"a.gpkg": GeoPackageSink, "a.fgb": FlatGeobufSink, "a.parquet": GeoParquetSink, "a.geojson": GeoJsonSink}
    write_all(sinks[name](output_path=name), many, [batch], work_in(tmp_path))
    os.truncate(tmp_path / name, int((tmp_path / name).stat().st_size * kept))
    with pytest.raises(LandrecordsError):
        read_all(SOURCES[name](file_path=name), work_in(tmp_path))


@pytest.mark.parametrize(
    "broken", ['{"type":"Feature", no', "hello", "[1]", '\x1e{"type":"Feature"}', '{"type":"Feature",']
)
def test_a_line_that_is_no_feature_is_an_error(tmp_path: Path, broken: str) -> None:
    line = json.dumps(FEATURE)
    written(tmp_path, "a.geojsonl", f"{line}\n{broken}\n{line}\n")
    with pytest.raises(TerminalError, match="1 of 3 features"):
        list(GeoJsonLinesSource(file_path="a.geojsonl").read({}, work_in(tmp_path)))
    written(tmp_path, "a.geojsonl", f"{line}\n\n{line}")
    assert columns_of(read_all(GeoJsonLinesSource(file_path="a.geojsonl"), work_in(tmp_path))) == {"n": [1, 1]}
    written(tmp_path, "a.geojsonl", f"\x1e{line}\n\x1e{json.dumps(FEATURE, indent=2)}\n")
    assert columns_of(read_all(GeoJsonLinesSource(file_path="a.geojsonl"), work_in(tmp_path))) == {"n": [1, 1]}


def test_a_layer_that_is_a_view_has_one_part(tmp_path: Path) -> None:
    layout = Layout(pa.schema([pa.field("n", pa.int64())]))
    batch = Batch(layout, (pa.array([1, 2]),), None, 2)
    write_all(GeoPackageSink(output_path="a.gpkg", table_name="t"), layout, [batch], work_in(tmp_path))
    with sqlite3.connect(tmp_path / "a.gpkg") as file:
        file.execute("CREATE VIEW v AS SELECT fid, n FROM t")
        file.execute("INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('v', 'attributes', 'v')")
    file.close()
    source = GeoPackageSource(file_path="a.gpkg", table_name="v")
    assert source.parts(work_in(tmp_path).outside, 4) == [{}]
    assert columns_of(read_all(source, work_in(tmp_path))) == {"n": [1, 2]}


def test_parquet_metadata_that_make_no_sense(tmp_path: Path) -> None:
    shapes = pa.array([shapely.Point(1, 2).wkb])
    column = {"encoding": "WKB", "geometry_types": [], "crs": {"type": "nonsense"}}
    geo = {"version": "1.1.0", "primary_column": "g", "columns": {"g": column}}
    extension = {b"ARROW:extension:name": b"geoarrow.wkb", b"ARROW:extension:metadata": b"{"}
    for schema in (
        pa.schema([pa.field("g", pa.binary())], {b"geo": json.dumps(geo).encode()}),
        pa.schema([pa.field("g", pa.binary(), metadata=extension)]),
    ):
        pq.write_table(pa.table([shapes], schema=schema), tmp_path / "a.parquet")
        with pytest.raises(ConfigurationError, match="make no sense"):
            GeoParquetSource(file_path="a.parquet").describe(work_in(tmp_path).outside)


def test_foreign_and_broken_wkb() -> None:
    big = shapely.to_wkb(shapely.Point(1, 2), byte_order=0)
    extended = shapely.to_wkb(shapely.set_srid(shapely.Point(1, 2, 3), 4326), include_srid=True)
    found = iso_wkb(pa.array([big, None, extended, b"\x01\x02broken", b""]))
    assert [wkb.as_py() for wkb in found.wkb][3:] == [b"\x01\x02broken", b""]
    readable, broken = found.readable()
    assert [shape.wkt if shape else None for shape in readable] == ["POINT (1 2)", None, "POINT Z (1 2 3)", None, None]
    assert broken.tolist() == [False, False, False, True, True]
    assert iso_wkb(pa.array([None, None], pa.binary())).wkb.null_count == 2


def test_large_features_make_small_batches() -> None:
    layout = Layout(pa.schema([pa.field("n", pa.int64())]), GeometryField())
    shape = shapely.LineString(np.zeros((100_000, 2)))
    batch = Batch(layout, (pa.array(range(100)),), Geometries(wkb=pa.array([shape.wkb] * 100)), 100)
    found = list(pieces(batch))
    assert len(found) > 4
    assert all(piece.geometry.wkb.slice(0).nbytes <= 1.1 * BATCH_BYTES for piece in found if piece.geometry)
    assert columns_of(found) == {"n": list(range(100))}


def write_much(process: GdalProcess, batch: pa.RecordBatch) -> None:
    for _ in range(50):
        process.write(batch)
    process.close()


def test_a_killed_writing_process_is_told_of(tmp_path: Path) -> None:
    import threading

    order = {
        "path": str(tmp_path / "a.gpkg"), "driver": "GPKG", "layer": "a", "options": {}, "crs": None, "geometry": None,
        "kind": None,
    }  # fmt: skip
    process = GdalProcess(order, threading.Event())
    batch = pa.RecordBatch.from_pydict({"n": list(range(200_000))})
    process.write(batch)
    process._process.kill()
    with pytest.raises(OutsideUnreachable, match="was ended"):
        write_much(process, batch)
    assert process._process.poll() is not None


# features in the workflow


@pytest.mark.parametrize("given", [COLLECTION, [FEATURE], FEATURE, json.dumps(COLLECTION)])
def test_inline_features(tmp_path: Path, given: Any) -> None:
    for source in (InlineSource(features=given), TextOrFileSource(content=given)):
        batches = read_all(source, work_in(tmp_path))
        assert columns_of(batches) == {"n": [1]}
        assert batches[0].layout.crs == "EPSG:4326"
        assert shapes_of(batches)[0].wkt == "POINT (14.4 50.1)"
    assert InlineSource(features=given).fingerprint(work_in(tmp_path).outside)


def test_inline_commands_are_not_obeyed(tmp_path: Path, outside_file: Path) -> None:
    lure = json.loads(lures(outside_file)["pipeline"])
    with pytest.raises(NodeProblem, match="gdal_streamed_alg"):
        InlineSource(features=lure).describe(work_in(tmp_path).outside)
    hidden = {**lure, "type": "FeatureCollection", "kind": "gdal_streamed_alg", "features": [FEATURE]}
    assert columns_of(read_all(InlineSource(features=hidden), work_in(tmp_path))) == {"n": [1]}


@pytest.mark.parametrize(
    ("given", "said"),
    [("{", "no JSON"), ({}, "type is None"), ([1] * 3, "valid"), ("x" * (11 << 20), "no JSON"), ("[]", "nothing")],
)
def test_inline_nonsense_is_refused(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises((NodeProblem, ConfigurationError, ValueError), match=said):
        read_some(given, tmp_path)


def read_some(given: Any, root: Path) -> None:
    if not read_all(InlineSource.model_validate({"features": given}), work_in(root)):
        raise ValueError("nothing in it")


def test_inline_features_have_a_size(tmp_path: Path) -> None:
    with pytest.raises(NodeProblem, match="put it in a file"):
        InlineSource(features=[{**FEATURE, "properties": {"t": "x" * (11 << 20)}}]).describe(work_in(tmp_path).outside)


def test_a_file_by_its_url(tmp_path: Path) -> None:
    path = written(tmp_path, "a b.geojson", json.dumps(COLLECTION))
    for url in ("a b.geojson", str(path), path.as_uri()):
        assert columns_of(read_all(TextOrFileSource(url=url), work_in(tmp_path))) == {"n": [1]}
    for wrong in ({"url": "https://example.com/a.geojson"}, {}, {"url": "a", "content": COLLECTION}):
        with pytest.raises(NodeProblem):
            TextOrFileSource.model_validate(wrong).describe(work_in(tmp_path).outside)


# CSV


def read_csv(root: Path, text: str | bytes, **parameters: Any) -> tuple[dict[str, list[Any]], list[Any]]:
    written(root, "a.csv", text)
    batches = read_all(CsvSource.model_validate({"file_path": "a.csv", **parameters}), work_in(root))
    shapes = shapes_of(batches) if batches and batches[0].geometry else []
    return dict(columns_of(batches)), [None if shape is None else shape.wkt for shape in shapes]


def test_csv_types_are_those_of_all_rows(tmp_path: Path) -> None:
    """A later row than any sample makes a column text; noughts before a number stay."""
    rows = "".join(f"{n},00{n},{n},1.5,2024-02-29,true,POINT (1 2)\n" for n in range(60_000))
    late = "1,007,A12,,,,\n"
    columns, shapes = read_csv(tmp_path, "n,parcel,late,f,d,b,wkt\n" + rows + late)
    assert columns["n"][-1] == 1
    assert columns["parcel"][:2] == ["000", "001"]
    assert columns["late"][-2:] == ["59999", "A12"]
    assert (columns["f"][0], columns["b"][0], str(columns["d"][0])) == (1.5, True, "2024-02-29")
    assert [columns[name][-1] for name in "fdb"] == [None] * 3
    assert shapes[0] == "POINT (1 2)"
    assert shapes[-1] is None


def test_csv_with_quotes_lines_marks_and_encodings(tmp_path: Path) -> None:
    text = 'name;geom\r\n"Dejvická; „5“\n""x""";POINT (1 2)\r\n;\r\n"";POINT EMPTY\r\n'
    for encoded, encoding in ((b"\xef\xbb\xbf" + text.encode(), "utf-8"), (text.encode("cp1250"), "cp1250")):
        columns, shapes = read_csv(tmp_path, encoded, delimiter=";", encoding=encoding)
        assert columns == {"name": ['Dejvická; „5“\n"x"', None, ""]}
        assert shapes == ["POINT (1 2)", None, "POINT EMPTY"]


@pytest.mark.parametrize("word", ["LatLon", "lonlat"])
def test_csv_with_coordinates(tmp_path: Path, word: str) -> None:
    columns, shapes = read_csv(tmp_path, "id,Lat,Lng\n1,50.1,14.4\n2,,14\n3,+1e1,-0.5\n", geometry_format=word)
    assert columns == {"id": [1, 2, 3]}
    assert shapes == ["POINT (14.4 50.1)", None, "POINT (-0.5 10)"]


def test_csv_without_names_and_with_hexadecimal(tmp_path: Path) -> None:
    text = f"1,{shapely.Point(1, 2).wkb_hex}\n"
    columns, shapes = read_csv(tmp_path, text, has_header=False, geometry_column="f1", geometry_format="wkb")
    assert columns == {"f0": [1]}
    assert shapes == ["POINT (1 2)"]


@pytest.mark.parametrize(
    ("text", "parameters", "error", "said"),
    [
        ("n,wkt\n1,POINT (1 2)\n2,POINT 1\n", {}, TerminalError, "Row 2 .*POINT 1"),
        ("n,lat,lon\n1,x,2\n", {"geometry_format": "LatLon"}, TerminalError, "Row 1 .*x, 2"),
        ("n,wkt\n1\n", {}, TerminalError, "Expected 2 columns"),
        ("n,n,wkt\n1,2,\n", {}, TerminalError, "two columns 'n'"),
        ("", {}, TerminalError, "Empty CSV"),
        ("n,m\n1,2\n", {}, NodeProblem, "name the geometry_column"),
        ("n,wkt\n1,\n", {"geometry_column": "wkb"}, NodeProblem, "did you mean 'wkt'"),
        ("n,wkt\n1,\n", {"columns": ["m"]}, NodeProblem, "no column 'm'"),
        (b"n,wkt\n\xff\xfe,\n", {}, TerminalError, "UTF8"),
        ("n,wkt\n1,\n", {"encoding": "klingon"}, TerminalError, "klingon"),
        ("n,wkt\n1,\n", {"delimiter": "€"}, ValueError, "'€' cannot stand between fields"),
    ],
)
def test_csv_that_is_wrong(
    tmp_path: Path, text: str | bytes, parameters: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        read_csv(tmp_path, text, **parameters)


def test_csv_is_written_as_it_is_told(tmp_path: Path) -> None:
    layout = Layout(pa.schema([pa.field("t", pa.string())]), GeometryField("geom", "Point", "EPSG:4326"))
    shapes = np.array([shapely.Point(14.4, 50.1), None], dtype=object)
    batch = Batch(layout, (pa.array(["it's; so", None]),), Geometries(shapes=shapes), 2)
    sink = CsvSink(
        output_path="a.csv", geometry_format="LatLon", delimiter=";", quote_char="'", lat_column="y", lon_column="x"
    )
    write_all(sink, layout, [batch], work_in(tmp_path))
    assert (tmp_path / "a.csv").read_text() == "t;y;x\n'it''s; so';50.1;14.4\n;;\n"
    with pytest.raises(NodeProblem, match="are both ';'"):
        CsvSink(output_path="a.csv", delimiter=";", quote_char=";").layouts({"input": layout})
    with pytest.raises(NodeProblem, match="'t' already"):
        CsvSink(output_path="a.csv", geometry_column="t").layouts({"input": layout})
    with pytest.raises(NodeProblem, match="no single latitude"):
        CsvSink(output_path="a.csv", geometry_format="LatLon").layouts({"input": layout.shaped("Polygon")})
    boxes = batch.reshaped(np.array([shapely.box(0, 0, 1, 1), None]), layout.shaped("Unknown"))
    with pytest.raises(TerminalError, match="no single latitude"):
        sink.packed(boxes)


def test_csv_numbers_keep_their_digits(tmp_path: Path) -> None:
    rows = [("9223372036854775807", "9223372036854775808", "0.1", "1e300"), ("-1", "1", "12345", ".5")]
    text = "whole,longer,number,power,wkt\n" + "".join(",".join(row) + ",\n" for row in rows)
    columns, _ = read_csv(tmp_path, text)
    assert columns["whole"] == [9223372036854775807, -1]
    assert columns["longer"] == ["9223372036854775808", "1"]
    assert columns["number"] == [0.1, 12345.0]
    assert columns["power"] == [1e300, 0.5]
