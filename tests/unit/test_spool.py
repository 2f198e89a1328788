"""The spool survives a crash, knows itself, and keeps only what is still on its way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.errors import LandrecordsError
from tasks.partials import SUFFIX
from tasks.spool import SWEEP_BATCH, Spool

IDENTITY = (
    "import sys; from pathlib import Path; from tasks.spool import Spool; print(Spool(Path(sys.argv[1])).identity)"
)


def files(spool: Spool) -> set[str]:
    return {path.name for path in spool.folder.iterdir()} - {"identity"}


def test_processes_that_start_together_agree_on_its_name(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IDENTITY, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    named = {process.communicate(timeout=60)[0].strip() for process in started}
    assert named == {Spool(tmp_path).identity}
    assert "" not in named
    assert files(Spool(tmp_path)) == set()


def test_every_folder_has_a_name_of_its_own_that_goes_where_it_goes(tmp_path: Path) -> None:
    here, there = Spool(tmp_path / "a"), Spool(tmp_path / "b")
    assert here.identity != there.identity
    (tmp_path / "a").rename(tmp_path / "c")
    assert Spool(tmp_path / "c").identity == here.identity


def test_dropping_an_item_removes_its_files_and_no_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for item in (7, 77):
        for path in (spool.fetched(item), spool.source(item), spool.optimised(item)):
            path.write_bytes(b"x")
    spool.drop(7)
    spool.drop(8)
    assert files(spool) == {"77.fetched", "77.pdf", "77.optimised.pdf"}


def test_a_sweep_asks_in_batches_and_keeps_what_is_on_its_way(tmp_path: Path) -> None:
    spool, asked = Spool(tmp_path), []
    items = range(1, SWEEP_BATCH + 12)
    for item in items:
        spool.source(item).touch()
    spool.optimised(3).touch()
    (spool.folder / "notes.txt").touch()
    (spool.folder / f"5.pdf.abc{SUFFIX}").touch()

    def finished(batch: list[int]) -> set[int]:
        asked.append(batch)
        return {item for item in batch if item > 4}

    assert spool.sweep(finished) == len(items) - 4
    assert [len(batch) for batch in asked] == [SWEEP_BATCH, 11]
    assert sorted(item for batch in asked for item in batch) == list(items)
    assert files(spool) >= {"1.pdf", "2.pdf", "3.pdf", "3.optimised.pdf", "4.pdf", "notes.txt"}
    assert not {name for name in files(spool) if name.startswith("5.")} - {f"5.pdf.abc{SUFFIX}"}


def test_a_folder_that_cannot_be_made_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LandrecordsError) as caught:
        Spool(tmp_path / "file")
    assert os.linesep not in str(caught.value)
