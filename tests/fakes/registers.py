"""Profiles of the sample register for tests, and what its tables must hold after a run."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from tasks.postgres import Database
from tasks.register_profile import RegisterProfile, load_register
from tasks.sample.register_land import Rows
from tests.fakes.register_client import differences


def profile_with(folder: Path, name: str = "boligsiden", **changed: str) -> Path:
    """A shipped profile with other values on some lines, by the lines' names: `cap="250"`, `size="20"`."""
    lines = (resources.files("tasks") / "register_profiles" / f"{name}.toml").read_text().splitlines()
    for key, value in changed.items():
        (at,) = [number for number, line in enumerate(lines) if line.startswith(f"{key} = ")]
        lines[at] = f"{key} = {value}"
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines))
    return path


def disagreements(database: Database, truth: Rows, profile: RegisterProfile | None = None) -> list[str]:
    """Where the tables do not hold what they must, once what vanished is left out; and rows that are not done."""
    database.rows("DELETE FROM properties WHERE vanished_at IS NOT NULL")
    open_rows = database.rows("SELECT id, status::text FROM properties WHERE status NOT IN ('completed', 'failed')")
    return differences(database, truth, profile or load_register("boligsiden")) + [str(row) for row in open_rows]


def count(database: Database, table: str, condition: str = "true", *values: Any) -> int:
    """Rows of a table for which it holds."""
    return int(database.rows(f"SELECT count(*) FROM {table} WHERE {condition}", values)[0][0])
