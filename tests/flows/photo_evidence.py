"""What the rows of photos and the folders of their server must agree on after a run; each disagreement is a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.postgres import Database
from tasks.sample.photo_tags import Shot
from tasks.site_names import store_folder
from tests.fakes.sshd import Sshd
from tests.flows.evidence import Row


def way_in(server: Sshd, **changes: Any) -> dict[str, Any]:
    """Parameters of the flow for the folder `homes` of a server."""
    given = {
        "host": "127.0.0.1",
        "port": server.port,
        "root": str(server.site / "homes"),
        "username": server.username,
        "key_path": str(server.key_path),
        "host_key": server.host_key_line,
        "backoff_s": 0.2,
    }
    return given | changes


def photo_rows(database: Database) -> dict[Path, Row]:
    """Every row by the path it stands for."""
    with database.transaction() as cursor:
        cursor.execute("SELECT * FROM site_images ORDER BY id")
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return {Path(os.fsdecode(bytes(row["raw_path"]))): row for row in rows}


def photo_disagreements(rows: Mapping[Path, Row], photos: Mapping[Path, Shot]) -> list[str]:
    """Everything that is not as it must be once all runs are over. Empty: all is well."""
    lost = [f"{path} has no row" for path in photos.keys() - rows.keys()]
    return lost + [line for path, row in rows.items() for line in _of_row(path, row, photos.get(path))]


def _of_row(path: Path, row: Row, taken: Shot | None) -> Iterator[str]:
    if row["claimed_by"] or row["lease_until"] or row["status"] in ("pending", "in_progress"):
        yield f"{path} is not settled: {row['status']} {row['reason']} {row['error']}"
    elif taken is None:
        if row["vanished_at"] is None:
            yield f"{path} is not on the server, and its row does not say so"
    elif (row["status"], row["flag"], row["vanished_at"]) != ("completed", "ok", None):
        yield f"{path}: {row['status']} {row['flag']} {row['reason']} {row['error']} {row['vanished_at']}"
    else:
        said = (row["latitude"], row["longitude"], row["altitude_m"], row["relative_altitude_m"], row["direction_deg"])
        assert taken.position is not None
        true = (*taken.position, taken.altitude_m, taken.relative_altitude_m, taken.direction_deg)
        close = zip(said, true, (1e-7, 1e-7, 1e-3, 1e-3, 1e-3), strict=True)
        if any(a is None or b is None or abs(a - b) > most for a, b, most in close):
            yield f"{path} was taken at {true}, and its row says {said}"


def features(store: Path, site: str) -> dict[str, dict[str, Any]]:
    """Path -> properties and position of every feature of a site's GeoJSON."""
    found = json.loads((store / store_folder(site) / "photos.geojson").read_text())["features"]
    return {one["properties"]["path"]: one["properties"] | {"at": one["geometry"]["coordinates"]} for one in found}
