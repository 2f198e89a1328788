"""What a stage leaves in its folder of the run, by which it is resumed: its parts, what each did, that it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.geo.meters import Measured
from tasks.geo.nodes import Written
from tasks.geo.part_work import PartRecord
from tasks.geo.plan import Output
from tasks.geo.stored import StoredPart
from tasks.partials import PartialFile, disk


@dataclass(frozen=True)
class StageRecord:
    """What a stage did."""

    measured: dict[str, Measured]
    written: dict[str, Written]
    stored: dict[str, list[StoredPart]]


class StageFolder:
    """Files of a stage; each is there whole or not at all. Raises OutsideUnreachable where the disk is full."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self, parts: Callable[[], list[dict[str, Any]]]) -> None:
        """Make it, and note what the parts are, unless an earlier attempt has."""
        with disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if not self._parts_file.exists():
            _write(self._parts_file, parts())

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The input of each."""
        found: list[dict[str, Any]] = json.loads(self.parts_text)
        return found

    @property
    def parts_text(self) -> str:
        """The same as it was noted."""
        return self._parts_file.read_text()

    @property
    def _parts_file(self) -> Path:
        return self.path / "parts.json"

    def stored_file(self, output: Output, number: int) -> Path:
        """Where a part keeps what it stores of an output."""
        return self.path / f"{output}-{number:04}.arrow"

    def part(self, number: int) -> PartRecord | None:
        """Of a part that was done, if what it stored is there."""
        if not self._part_file(number).exists():
            return None
        said = json.loads(self._part_file(number).read_text())
        stored = {name: StoredPart(**each) for name, each in said["stored"].items()}
        whole = all(part.intact(self.path) for part in stored.values())
        return PartRecord(_measured(said), _written(said), stored) if whole else None

    def keep_part(self, number: int, record: PartRecord) -> None:
        """It was done."""
        _write(self._part_file(number), asdict(record))

    def _part_file(self, number: int) -> Path:
        return self.path / f"part-{number:04}.json"

    def done(self) -> StageRecord | None:
        """What the stage did, where it was concluded."""
        if not self._done_file.exists():
            return None
        said = json.loads(self._done_file.read_text())
        stored = {name: [StoredPart(**part) for part in parts] for name, parts in said["stored"].items()}
        return StageRecord(_measured(said), _written(said), stored)

    def keep_done(self, record: StageRecord) -> None:
        """It was concluded."""
        _write(self._done_file, asdict(record))

    @property
    def _done_file(self) -> Path:
        return self.path / "done.json"


def _measured(said: dict[str, Any]) -> dict[str, Measured]:
    return {name: Measured(**each) for name, each in said["measured"].items()}


def _written(said: dict[str, Any]) -> dict[str, Written]:
    return {
        name: Written(each["features"], each["size_bytes"], tuple(each["places"]))
        for name, each in said["written"].items()
    }


def _write(path: Path, value: Any) -> None:
    with PartialFile(path) as partial:
        partial.write(json.dumps(value).encode())
        partial.finish()
