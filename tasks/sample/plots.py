"""Sample plots for workflows: a GeoPackage of a made-up village's parcels, a few of them drawn wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyogrio
import shapely

from tasks.partials import disk
from tasks.work_folders import publish, work_folder

LAYER = "plots"
COLUMNS = 50
WRONG_EVERY = 97
"""One plot in so many crosses itself."""

_CORNER_M = 1_600_000.0, 6_470_000.0
_STEP_M = 26.0
_SEED = 7


def write_plots(path: Path, plots: int = 2000) -> Path:
    """Plots with number, use and owner in EPSG:3857, a lane between them: made once, everywhere the same ones."""
    if path.exists():
        return path
    with disk(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with work_folder(path) as folder:
        fresh = folder / path.name
        options = {"driver": "GPKG", "geometry_name": "geom", "geometry_type": "Polygon", "crs": "EPSG:3857"}
        pyogrio.write_arrow(_table(plots), fresh, layer=LAYER, **options)
        publish(fresh, path)
    return path


def _table(plots: int) -> pa.Table:
    chance = np.random.default_rng(_SEED)
    number = np.arange(plots)
    west = _CORNER_M[0] + number % COLUMNS * _STEP_M
    south = _CORNER_M[1] + number // COLUMNS * _STEP_M
    square = np.array([(0, 0), (20, 0), (20, 20), (0, 20)], float)
    corners = square + np.stack([west, south], axis=1)[:, None, :] + chance.uniform(-2.5, 2.5, (plots, 4, 2))
    wrong = number % WRONG_EVERY == WRONG_EVERY - 1
    corners[wrong] = corners[wrong][:, [0, 2, 1, 3]]
    uses = np.array(["garden", "house", "orchard", "meadow"])[chance.integers(0, 4, plots)]
    return pa.table(
        {
            "plot": pa.array([f"{n // COLUMNS + 1}/{n % COLUMNS + 1}" for n in number.tolist()]),
            "use": pa.array(uses.tolist()),
            "owners": pa.array(chance.integers(1, 5, plots)),
            "geom": pa.array(shapely.to_wkb(shapely.polygons(corners)), pa.binary()),
        }
    )
