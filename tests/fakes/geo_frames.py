"""Between geopandas and batches, and nodes run as an engine runs them; for tests beside geopandas."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely

from tasks.geo.batches import Batch, Geometries
from tasks.geo.layouts import UNKNOWN, GeometryField, Layout
from tasks.geo.nodes import Blocking, Lookup, Node, Split, Stream, Work
from tests.fakes.geo import check_batch, work_in


class Budget:
    """Room for so many bytes; knows the most that was held, and that nothing stays held."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes, self.held, self.most = size_bytes, 0, 0

    def room(self, size_bytes: int) -> bool:
        return self.held + size_bytes <= self.size_bytes

    def hold(self, size_bytes: int) -> None:
        self.held += size_bytes
        assert self.held >= 0, "more given back than was held"
        self.most = max(self.most, self.held)


def layer(path: Path, name: str) -> gpd.GeoDataFrame:
    """A layer of a GeoPackage."""
    return gpd.read_file(path, layer=name)


def batch_of(shapes: Sequence[Any], crs: str | None = "EPSG:3857", kind: str = UNKNOWN, **columns: Any) -> Batch:
    """A batch of shapes (or WKT) and columns (Arrow arrays, or lists)."""
    made = np.empty(len(shapes), dtype=object)
    made[:] = [shapely.from_wkt(s) if isinstance(s, str) else s for s in shapes]
    arrays = {name: v if isinstance(v, pa.Array) else pa.array(v) for name, v in columns.items()}
    layout = Layout(pa.schema([pa.field(n, a.type) for n, a in arrays.items()]), GeometryField("geometry", kind, crs))
    return Batch(layout, tuple(arrays.values()), Geometries(shapes=made), len(made))


def batches_of(frame: gpd.GeoDataFrame, rows: int = 100) -> list[Batch]:
    """A frame as batches."""
    kinds = set(frame.geom_type.dropna())
    whole = batch_of(
        frame.geometry.to_numpy(),
        frame.crs.to_string() if frame.crs else None,
        kinds.pop() if len(kinds) == 1 else UNKNOWN,
        **{name: pa.Array.from_pandas(frame[name]) for name in frame.columns.drop(frame.geometry.name)},
    )
    return cut(whole, rows)


def cut(batch: Batch, rows: int) -> list[Batch]:
    """The same in smaller batches, their geometry as WKB."""
    return [_as_wkb(batch.take(np.arange(i, min(i + rows, batch.rows)))) for i in range(0, max(1, batch.rows), rows)]


def frame_of(batches: Iterable[Batch], layout: Layout) -> gpd.GeoDataFrame:
    """All batches as one frame."""
    tables = [pa.Table.from_batches([batch.to_arrow()]) for batch in batches]
    geometry = layout.geometry.name if layout.geometry else None
    whole = pa.concat_tables(tables) if tables else None
    attributes = {n: whole.column(n).to_pandas() if whole else [] for n in layout.names}
    shapes = shapely.from_wkb(whole.column(geometry).to_numpy()) if whole and geometry else []
    return gpd.GeoDataFrame(attributes, geometry=shapes, crs=layout.crs) if geometry else gpd.pd.DataFrame(attributes)


def run(node: Node, root: Path, budget: Budget | None = None, **ports: list[Batch]) -> dict[str, list[Batch]]:
    """What comes out of each port. Keeps to the contract: layouts, pickling, budget given back, files removed."""
    given = {port.replace("_", "#") if "_" in port else port: batches for port, batches in ports.items()}
    layouts = {port: batches[0].layout for port, batches in given.items()}
    promised = node.layouts(layouts)
    work = work_in(root)
    work = replace(work, memory=budget or work.memory)
    made = {port: [b for b in batches if b.rows] for port, batches in _made(node, given, layouts, work).items()}
    for port, batches in made.items():
        for batch in batches:
            check_batch(promised[port], batch)
    assert not list(work.folder.iterdir()), "spilled files are left"
    assert isinstance(node, Lookup) or not getattr(work.memory, "held", 0), "the budget is not given back"
    return made


def one(node: Node, root: Path, budget: Budget | None = None, **ports: list[Batch]) -> gpd.GeoDataFrame:
    """What comes out of `output`, as a frame."""
    layouts = {port.replace("_", "#"): batches[0].layout for port, batches in ports.items()}
    return frame_of(run(node, root, budget, **ports)["output"], node.layouts(layouts)["output"])


def _made(node: Node, given: Mapping[str, list[Batch]], layouts: Mapping[str, Layout], work: Work) -> dict[str, Any]:
    if isinstance(node, Stream):
        return {"output": [_pickled(node).apply(batch) for batch in given["input"]]}
    if isinstance(node, Split):
        apart = [_pickled(node).apply(batch) for batch in given["input"]]
        return {port: [batches[port] for batches in apart] for port in node.outputs}
    if isinstance(node, Lookup):
        built = _pickled(node.build(_once(given["overlay"]), layouts["overlay"], work))
        return {"output": [_pickled(node).apply(batch, built) for batch in given["input"]]}
    assert isinstance(node, Blocking)
    return {"output": list(node.run({port: _once(b) for port, b in given.items()}, layouts, work))}


def _once(batches: list[Batch]) -> Iterator[Batch]:
    yield from batches


def _pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def _as_wkb(batch: Batch) -> Batch:
    return replace(batch, geometry=Geometries(wkb=batch.geometry.wkb)) if batch.geometry is not None else batch


def same_shapes(ours: Any, theirs: Any, tolerance: float = 1e-9) -> None:
    """Pair by pair the same area of the plane, line or points, within a share of its size."""
    ours, theirs = np.asarray(ours, dtype=object), np.asarray(theirs, dtype=object)
    assert len(ours) == len(theirs)
    assert (shapely.is_missing(ours) == shapely.is_missing(theirs)).all()
    some = ~shapely.is_missing(ours)
    ours, theirs = ours[some], theirs[some]
    exact = shapely.equals_exact(shapely.normalize(ours), shapely.normalize(theirs), 0.0)
    a, b = ours[~exact], theirs[~exact]
    assert (shapely.get_dimensions(a) == shapely.get_dimensions(b)).all()
    apart = shapely.symmetric_difference(a, b)
    size = np.maximum(shapely.area(b), 1.0) + np.maximum(shapely.length(b), 1.0)
    assert (shapely.area(apart) <= tolerance * size).all(), "areas differ"
    linear = shapely.get_dimensions(b) < 2
    assert (shapely.hausdorff_distance(a[linear], b[linear]) <= tolerance * size[linear]).all(), "lines differ"


def stopped() -> threading.Event:
    """The run is ending."""
    event = threading.Event()
    event.set()
    return event
