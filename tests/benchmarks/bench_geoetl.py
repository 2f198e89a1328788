"""Cadastral plots from a GeoPackage into PostGIS: buffered by 5 m, brought to EPSG:4326, loaded; beside others.

The 407 plots of shared/data/geo/bubenec.gpkg are tiled on a grid of 600 m to `--features` in EPSG:3857. Timed in one
run, into the same server (Debian's PostGIS in a folder of its own), each contender in a process of its own, its start
included:

    read, buffer 5 m, to EPSG:4326, load   of ours, of ogr2ogr (SQLite dialect with SpatiaLite) and of geopandas
    read, to EPSG:4326, load               the same without the buffers
    load alone                             of ours, what was buffered, brought to EPSG:4326 and packed as rows of binary
                                           COPY beforehand (a mapped file): data_sink.postgis makes the table, writes a
                                           part for each processor side by side, commits, indexes and swaps

Seconds are those of the clock and of the processor (client and server), memory is the peak over all processes that work
for a contender, the server's included (`client`: without it). Afterwards the geometries of ours are compared with those
of geopandas one by one. `--sizes` repeats ours with other numbers of features: its memory should stay the same.

    python tests/benchmarks/bench_geoetl.py --features 1000000 --sizes 100000 3000000 --folder /dev/shm

It needs PostGIS and the sample, and says so. Without gdal-bin ogr2ogr is left out, and that is said. A pause of the
whole machine is noticed and taken off, and said.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2
import pyarrow as pa
import pyogrio
import shapely
from psycopg2.extensions import parse_dsn

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks.geo.catalogue import NODES
from tasks.geo.definition import Edge, Execution
from tasks.geo.engine import Engine, Place, cores
from tasks.geo.memory import Budget
from tasks.geo.nodes import Sink, Source, Work, Written
from tasks.geo.plan import Graph, plan
from tasks.geoetl_outside import Doors
from tests.fakes.debian_postgres import DebianPostgres, postgis_programs

PLOTS = Path(__file__).parents[2].parent / "shared" / "data" / "geo" / "bubenec.gpkg"
GRID_M = 600
CONTENDERS = ("ours", "ogr2ogr", "geopandas")
PACKED, LOADED = "packed.arrow", "loaded"
"""The file of rows that are loaded alone, and the table they go to."""

HEADS = {"seconds": 9, "rows/s": 10, "cpu s": 8, "own MB": 8, "client": 8, "paused": 8}

TOLERANCE = 1e-9
"""Degrees."""


def main() -> None:
    """Make the input, run the contenders, compare."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--features", type=int, default=1_000_000)
    arguments.add_argument("--sizes", type=int, nargs="*", default=[])
    arguments.add_argument("--folder", default="/tmp", help="for the input and the server; /dev/shm: without the disk")
    arguments.add_argument("--only", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    given = arguments.parse_args()
    programs = postgis_programs()
    if programs is None or not PLOTS.exists():
        sys.exit("needs PostGIS (infra/bootstrap.sh --tests) and shared/data beside the repository")
    if "ogr2ogr" in given.only and shutil.which("ogr2ogr") is None:
        print("without ogr2ogr, which is not there (apt-get install gdal-bin)")
        given.only.remove("ogr2ogr")
    folder = Path(tempfile.mkdtemp(prefix="landrecords-bench-", dir=given.folder))
    server = DebianPostgres(programs, {"shared_buffers": "128MB", "max_wal_size": "2GB"}, given.folder)
    try:
        server.run("CREATE DATABASE gis")
        server.run("CREATE EXTENSION postgis", "gis")
        Bench(folder, server.url("gis"), server.process.pid, given.only).run(given.features, given.sizes)
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


# --- input ---


def make_plots(path: Path, count: int) -> None:
    """The plots of the sample again and again, east and then north."""
    _, table = pyogrio.read_arrow(PLOTS, layer="plots")
    shapes = shapely.from_wkb(np.array(table["geom"]))
    side = math.ceil(math.sqrt(count / len(shapes)))
    batches = (_tile(table, shapes, n % side, n // side, count - n * len(shapes)) for n in range(side * side))
    schema = pa.schema([*list(table.schema)[:-1], pa.field("geom", pa.binary())])
    reader = pa.RecordBatchReader.from_batches(schema, (b.cast(schema) for b in batches if b.num_rows))
    pyogrio.write_arrow(
        reader, path, layer="plots", driver="GPKG", geometry_name="geom", geometry_type="Polygon", crs="EPSG:3857"
    )


def _tile(table: Any, shapes: Any, east: int, north: int, at_most: int) -> pa.RecordBatch:
    moved = shapely.transform(shapes, lambda points: points + np.array([GRID_M * east, GRID_M * north]))
    columns = [table.column(name).combine_chunks() for name in table.column_names[:-1]]
    columns.append(pa.array(shapely.to_wkb(moved, flavor="iso"), pa.binary()))
    return pa.RecordBatch.from_arrays(columns, names=table.column_names).slice(0, max(at_most, 0))


# --- measuring ---


@dataclass
class Measured:
    """What a contender took; `peak_bytes` over all its processes and the server's, `client_bytes` over its own."""

    seconds: float
    cpu_s: float
    peak_bytes: int
    client_bytes: int
    paused_s: float


class Watch:
    """Looks at processes several times a second: theirs is the memory, and what the clock jumps is a pause."""

    TICK_S = 0.1
    PAUSE_S = 2.0

    def __init__(self, client: psutil.Process, server: psutil.Process) -> None:
        self._client, self._server, self._over = client, server, threading.Event()
        self.peak_bytes, self.client_bytes, self.paused_s = 0, 0, 0.0
        self._cpu: dict[int, float] = {}
        self._before: dict[int, float] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._glance()
        self._before = dict(self._cpu)
        self.peak_bytes = self.client_bytes = 0
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._glance()
        self.seconds = time.monotonic() - self._began - self.paused_s

    @property
    def measured(self) -> Measured:
        cpu_s = sum(used - self._before.get(pid, 0.0) for pid, used in self._cpu.items())
        return Measured(self.seconds, cpu_s, self.peak_bytes, self.client_bytes, self.paused_s)

    def _look(self) -> None:
        last = time.monotonic()
        while not self._over.wait(self.TICK_S):
            self._glance()
            now = time.monotonic()
            self.paused_s += now - last if now - last > self.PAUSE_S else 0.0
            last = now

    def _glance(self) -> None:
        client, server = self._held(self._client), self._held(self._server)
        self.peak_bytes = max(self.peak_bytes, client + server)
        self.client_bytes = max(self.client_bytes, client)

    def _held(self, root: psutil.Process) -> int:
        held = 0
        for process in _family(root):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._cpu[process.pid] = times.user + times.system
                held += _own_bytes(process)
        return held


def _own_bytes(process: psutil.Process) -> int:
    """Resident memory without what is shared: every server process has the whole buffer cache in its own."""
    info = process.memory_info()
    return int(info.rss - info.shared)


class Bench:
    """The contenders, on one server."""

    def __init__(self, folder: Path, url: str, server_pid: int, only: list[str]) -> None:
        self.folder, self.url, self.server_pid, self.only = folder, url, server_pid, only
        self.contenders: dict[str, Callable[[Path, bool], None]] = {
            "ours": self.ours,
            "ogr2ogr": self.ogr2ogr,
            "geopandas": self.geopandas,
            "load_alone": self.load_alone,
        }

    def run(self, features: int, sizes: list[int]) -> None:
        """Everything; prints as it goes."""
        path = self.folder / "plots.gpkg"
        make_plots(path, features)
        print(f"{features:,} plots, {path.stat().st_size / 1e6:.0f} MB; load average {psutil.getloadavg()[0]:.1f}")
        for buffered, title in ((True, "read, buffer 5 m, to EPSG:4326, load"), (False, "read, to EPSG:4326, load")):
            self.compare(title, path, features, buffered)
        if "ours" in self.only:
            self.pack(path)
            self.title("load alone")
            self.line("ours", self.measure(self.load_alone, path, True), features, None)
        if {"ours", "geopandas"} <= set(self.only):
            self.check_equal()
        for size in sizes:
            other = self.folder / "other.gpkg"
            other.unlink(missing_ok=True)
            make_plots(other, size)
            self.line(f"ours, {size:,}", self.measure(self.ours, other, True), size, None)

    def compare(self, title: str, path: Path, features: int, buffered: bool) -> None:
        """One line for each contender; ratios are of the clock."""
        self.title(title)
        ours: Measured | None = None
        for name in self.only:
            measured = self.measure(self.contenders[name], path, buffered)
            ours = measured if name == "ours" else ours
            self.line(name, measured, features, ours)

    def title(self, title: str) -> None:
        """Print it, and what stands in the lines below."""
        heads = "".join(f"{head:>{width}}" for head, width in HEADS.items())
        print(f"\n{title}\n{'':22}{heads}  of ours")

    def line(self, name: str, measured: Measured, features: int, ours: Measured | None) -> None:
        """Print it."""
        ratio = f"{measured.seconds / ours.seconds:8.2f}" if ours else ""
        print(
            f"{name:22}{measured.seconds:9.1f}{features / measured.seconds:10,.0f}{measured.cpu_s:8.1f}"
            f"{measured.peak_bytes / 2**20:8.0f}{measured.client_bytes / 2**20:8.0f}{measured.paused_s:8.0f}{ratio}",
            flush=True,
        )

    def measure(self, contender: Callable[[Path, bool], None], path: Path, buffered: bool) -> Measured:
        """In a process of its own: what one contender leaves in memory is not the next one's."""
        server = psutil.Process(self.server_pid)
        code = f"from bench_geoetl import *; contend({contender.__name__!r}, {str(path)!r}, {self.url!r}, {buffered})"
        with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent) as process:
            own = psutil.Process(process.pid)
            with Watch(own, server) as watch:
                assert process.wait() == 0, f"{contender.__name__} failed"
        return watch.measured

    # --- contenders ---

    def ours(self, path: Path, buffered: bool) -> None:
        """The engine, in threads."""
        outside = Doors(self.url, self.folder.as_uri())
        nodes = _nodes(path, f"ours_{buffered:d}")
        if not buffered:
            del nodes["buffer"]
        run = Path(tempfile.mkdtemp(dir=self.folder))
        (run / "stages").mkdir()
        (run / "scratch").mkdir()
        engine = Engine(plan(_chain(nodes, outside)), outside, Place(run / "stages", run / "scratch", run.name))
        try:
            engine.run()
        finally:
            engine.close()

    def pack(self, path: Path) -> None:
        """What `load_alone` loads, made before its clock begins."""
        nodes = _nodes(path, LOADED)
        with (
            pa.OSFile(str(self.folder / PACKED), "wb") as file,
            pa.ipc.new_file(file, pa.schema([("row", pa.binary())])) as writer,
        ):
            for batch in nodes["read"].read({}, self.work()):
                ready = nodes["reproject"].apply(nodes["buffer"].apply(batch))
                writer.write_batch(pa.record_batch([nodes["write"].packed(ready)], names=["row"]))

    def load_alone(self, path: Path, _: bool) -> None:
        """Rows as `pack` left them through the sink, as the engine has it write parts."""
        graph = _chain(_nodes(path, LOADED), Doors(self.url, self.folder.as_uri()))
        sink, layout, work = graph.nodes["write"], graph.layouts["reproject", "output"], self.work()
        assert isinstance(sink, Sink)

        def write(part: int) -> Written:
            with pa.memory_map(str(self.folder / PACKED)) as file:
                packed = pa.ipc.open_file(file)
                first, last = (packed.num_record_batches * n // cores() for n in (part, part + 1))
                writer = sink.open(layout, replace(work, part=str(part)))
                for number in range(first, last):
                    writer.write(packed.get_batch(number).column("row"))
                return writer.finish()

        sink.prepare(layout, work)
        with ThreadPoolExecutor(cores()) as pool:
            sink.conclude(list(pool.map(write, range(cores()))), work)

    def work(self) -> Work:
        """What a node is given that is run without the engine."""
        memory = Budget(256 << 20)
        return Work(Doors(self.url, self.folder.as_uri()), threading.Event(), memory, self.folder, "load", "write")

    def ogr2ogr(self, path: Path, buffered: bool) -> None:
        """With COPY, its default for a new table, and its default index."""
        shape = "ST_Buffer(geom, 5, 8)" if buffered else "geom"
        statement = f"SELECT ID, ID_2, TYPPPD_KOD, KATUZE_KOD, OBEC_KOD, {shape} AS geom FROM plots"
        target = f"PG:dbname=gis host={parse_dsn(self.url)['host']} user=postgres"
        sql = ["-dialect", "SQLITE", "-sql", statement] if buffered else ["plots"]
        options = [
            "-overwrite",
            "-nln",
            f"ogr_{buffered:d}",
            "-s_srs",
            "EPSG:3857",
            "-t_srs",
            "EPSG:4326",
            "-nlt",
            "POLYGON",
        ]
        subprocess.run(["ogr2ogr", "-f", "PostgreSQL", target, str(path), *sql, *options], check=True)

    def geopandas(self, path: Path, buffered: bool) -> None:
        """read_file, buffer, to_crs, to_postgis: everything in memory."""
        import geopandas
        import sqlalchemy

        plots = geopandas.read_file(path, layer="plots", engine="pyogrio", use_arrow=True)
        if buffered:
            plots["geometry"] = plots.geometry.buffer(5, quad_segs=8)
        engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(self.url))
        plots.to_crs("EPSG:4326").to_postgis(f"geopandas_{buffered:d}", engine, if_exists="replace", chunksize=20_000)

    # --- comparing ---

    def check_equal(self) -> None:
        """Ours with geopandas, geometry by geometry in the order of the file."""
        pairs = zip(self._geometries("ours_1", "geom"), self._geometries("geopandas_1", "geometry"), strict=True)
        compared, worst = 0, 0.0
        for ours, theirs in pairs:
            assert (shapely.get_num_coordinates(ours) == shapely.get_num_coordinates(theirs)).all()
            assert shapely.equals_exact(ours, theirs, TOLERANCE).all()
            worst = max(worst, float(np.abs(shapely.get_coordinates(ours) - shapely.get_coordinates(theirs)).max()))
            compared += len(ours)
        print(f"\n{compared:,} geometries are those of geopandas, the coordinates within {worst:.1e} degrees")

    def _geometries(self, table: str, column: str) -> Iterator[Any]:
        with psycopg2.connect(self.url) as connection, connection.cursor("geometries") as cursor:
            cursor.itersize = 20_000
            # parts are written side by side: the same plot of the same place is the same row
            cursor.execute(
                f'SELECT ST_AsBinary({column}) FROM {table} ORDER BY "ID", ST_XMin({column}), ST_YMin({column})'
            )
            while rows := cursor.fetchmany(20_000):
                yield shapely.from_wkb([bytes(row[0]) for row in rows])


def _nodes(path: Path, table: str) -> dict[str, Any]:
    """The chain of ours."""
    return {
        "read": NODES["data_source.geopackage"].model_validate({"file_path": str(path), "table_name": "plots"}),
        "buffer": NODES["geoprocessing.buffer"].model_validate({"distance": 5, "segments": 8}),
        "reproject": NODES["geoprocessing.reproject"].model_validate({"target_crs": "EPSG:4326"}),
        "write": NODES["data_sink.postgis"].model_validate({"table": table, "mode": "replace"}),
    }


def _chain(nodes: dict[str, Any], outside: Doors) -> Graph:
    ids = list(nodes)
    edges = tuple(Edge.model_validate({"from": a, "to": b}) for a, b in pairwise(ids))
    described = {name: node.describe(outside) for name, node in nodes.items() if isinstance(node, Source)}
    layouts = {("read", "output"): described["read"].layout}
    for edge in edges:
        for port, layout in nodes[edge.target].layouts({"input": layouts[edge.source, "output"]}).items():
            layouts[edge.target, port] = layout
    return Graph(nodes, edges, layouts, described, {name: Execution() for name in nodes})


def _family(root: psutil.Process) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        yield from (root, *root.children(recursive=True))


def contend(name: str, path: str, url: str, buffered: bool) -> None:
    """A contender, in this process."""
    Bench(Path(path).parent, url, 0, []).contenders[name](Path(path), buffered)


if __name__ == "__main__":
    main()
