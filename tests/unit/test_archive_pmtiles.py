"""PMTiles archives read back by the reference reader, tile by tile."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmtiles.reader import MemorySource, MmapSource, Reader, all_tiles
from pmtiles.tile import TileType, deserialize_directory, zxy_to_tileid

from tasks import pmtiles_directory
from tasks.archive_pmtiles import About, write_pmtiles
from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested
from tasks.partials import sweep_partials
from tasks.pmtiles_order import in_tile_id_order, tile_id
from tasks.tile_grid import Block, Bounds, block_degrees

PNG = b"\x89PNG\r\n\x1a\n"
JPG = b"\xff\xd8\xff\xe0"
BLANK = PNG + b"blank"

Content = tuple[int, int, int, bytes]


def test_every_tile_comes_back(tmp_path: Path) -> None:
    tiles = dict_of(
        pattern(Block(12, 2200, 2260, 1380, 1420))
        + pattern(Block(11, 1100, 1130, 690, 710))
        + pattern(Block(0, 0, 0, 0, 0))
    )
    archive = write(tmp_path, tiles)
    assert read_all(archive.path) == tiles
    assert archive.tiles == len(tiles)
    assert (archive.min_zoom, archive.max_zoom) == (0, 12)


def test_each_tile_is_found_and_its_neighbours_are_not(tmp_path: Path) -> None:
    tiles = dict_of(pattern(Block(6, 30, 33, 30, 34)))
    with write(tmp_path, tiles).path.open("rb") as file:
        reader = Reader(MmapSource(file))
        for x in range(28, 37):
            for y in range(28, 37):
                assert reader.get(6, x, y) == tiles.get((6, x, y))
        assert reader.get(5, 15, 15) is None


def test_blank_tiles_are_stored_once_and_runs_are_one_entry(tmp_path: Path) -> None:
    tiles = {(z, x, y): BLANK for z in (4, 5) for x in range(2**z) for y in range(2**z)}
    tiles[5, 9, 9] = PNG + b"a house"
    archive = write(tmp_path, tiles)
    assert read_all(archive.path) == tiles
    assert (archive.tiles, archive.contents, archive.entries) == (256 + 1024, 2, 3)
    assert archive.path.read_bytes().count(BLANK) == 1


def test_the_header_and_metadata_say_what_it_is(tmp_path: Path) -> None:
    tiles = dict_of(pattern(Block(12, 2200, 2203, 1380, 1389), JPG))
    about = About("Praha", attribution="(c) ČÚZK", extra={"version": "3"})
    archive = write(tmp_path, tiles, about)
    header, metadata = head_of(archive.path)
    assert header["tile_type"] == TileType.JPEG
    assert header["clustered"] is True
    assert (header["min_zoom"], header["max_zoom"]) == (12, 12)
    assert (header["addressed_tiles_count"], header["tile_contents_count"]) == (40, 40)
    assert (metadata["name"], metadata["attribution"], metadata["version"]) == ("Praha", "(c) ČÚZK", "3")
    own = block_degrees(Block(12, 2200, 2203, 1380, 1389))
    assert archive.bounds == own
    assert metadata["bounds"] == list(own)
    assert header["min_lon_e7"] == round(own.west * 1e7)
    assert header["max_lat_e7"] == round(own.north * 1e7)
    assert own.west < header["center_lon_e7"] / 1e7 < own.east


def test_bounds_that_are_given_are_kept(tmp_path: Path) -> None:
    given_bounds = Bounds(10, 20, 11, 21)
    archive = write(tmp_path, dict_of(pattern(Block(3, 1, 2, 1, 2))), About("a", bounds=given_bounds))
    assert archive.bounds == given_bounds


def test_a_mixed_layer_is_named_for_its_commonest_kind(tmp_path: Path) -> None:
    tiles = dict_of(pattern(Block(3, 0, 3, 0, 0), JPG) + pattern(Block(3, 4, 5, 0, 0), PNG))
    archive = write(tmp_path, tiles)
    assert archive.kinds == {"jpg": 4, "png": 2}
    assert head_of(archive.path)[0]["tile_type"] == TileType.JPEG


def test_the_same_tiles_make_the_same_file_and_its_hash_is_right(tmp_path: Path) -> None:
    tiles = dict_of(pattern(Block(9, 0, 40, 0, 40)))
    first, again = write(tmp_path / "a", tiles), write(tmp_path / "b", tiles)
    assert first.sha256 == again.sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest()
    assert first.size_bytes == first.path.stat().st_size


def test_sections_lie_where_verifiers_of_the_format_want_them(tmp_path: Path) -> None:
    """As go-pmtiles `verify`: padded layout, all sections accounted for, offsets of new contents only rise."""
    rng = random.Random(1)
    tiles = {
        (z, x, y): c + rng.randbytes(rng.randrange(300)) for z, x, y, c in pattern(Block(12, 1000, 1130, 1000, 1130))
    }
    tiles |= {(12, x, 1000): BLANK for x in range(1000, 1130, 3)}
    archive = write(tmp_path, tiles)
    header, _ = head_of(archive.path)
    assert header["root_offset"] + header["root_length"] <= 16_384
    parts = header["metadata_length"] + header["leaf_directory_length"] + header["tile_data_length"]
    assert archive.size_bytes == 16_384 + parts
    assert header["leaf_directory_length"] > 0
    entries = list(entries_of(archive.path))
    assert len(entries) == header["tile_entries_count"] == archive.entries
    end = 0
    for entry in entries:
        assert entry.offset <= end
        end = max(end, entry.offset + entry.length)
    assert end == header["tile_data_length"]


def test_a_root_that_would_overflow_gets_larger_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pmtiles_directory, "_LEAF_ENTRIES", 2)
    monkeypatch.setattr(pmtiles_directory, "_ROOT_ENTRIES", 10**6)
    rng = random.Random(3)
    tiles = {
        (14, rng.randrange(2**14), rng.randrange(2**14)): PNG + rng.randbytes(rng.randrange(200)) for _ in range(12_000)
    }
    archive = write(tmp_path, tiles)
    assert head_of(archive.path)[0]["root_length"] <= 16_384 - 127
    assert read_all(archive.path) == tiles


def test_contents_are_forgotten_in_time_but_not_those_that_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pmtiles_directory, "_REMEMBERED", 8)
    block = Block(7, 0, 31, 0, 31)
    ordered = sorted(pattern(block), key=lambda tile: tile_id(*tile[:3]))
    tiles = [(z, x, y, BLANK if n % 5 == 0 else content) for n, (z, x, y, content) in enumerate(ordered)]
    tiles[3] = (*tiles[3][:3], PNG + b"twice")
    tiles[-2] = (*tiles[-2][:3], PNG + b"twice")
    archive = write_pmtiles(tmp_path / "a.pmtiles", tiles, About("a"))
    assert read_all(archive.path) == dict_of(tiles)
    data = archive.path.read_bytes()
    assert data.count(BLANK) == 1
    assert data.count(b"twice") == 2


@pytest.mark.parametrize(
    ("tiles", "says"),
    [
        ([], "no tile"),
        ([(3, 0, 0, b"")], "no tile"),
        ([(3, 1, 0, b"a"), (3, 0, 0, b"a")], "order"),
        ([(3, 1, 0, b"a"), (3, 1, 0, b"b")], "twice"),
        ([(3, 8, 0, b"a")], "no tile 3/8/0"),
        ([(3, -1, 0, b"a")], "no tile 3/-1/0"),
        ([(32, 0, 0, b"a")], "no tile 32/0/0"),
    ],
)
def test_tiles_that_cannot_work_leave_nothing(tmp_path: Path, tiles: list[Content], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        write_pmtiles(tmp_path / "a.pmtiles", tiles, About("a"))
    assert not list(tmp_path.iterdir())


def test_empty_tiles_are_left_out_and_counted(tmp_path: Path) -> None:
    archive = write_pmtiles(tmp_path / "a.pmtiles", [(1, 0, 0, b""), (1, 0, 1, b"a")], About("a"))
    assert (archive.tiles, archive.empty) == (1, 1)


def test_a_stop_leaves_nothing_and_what_was_there_stays(tmp_path: Path) -> None:
    there = tmp_path / "a.pmtiles"
    there.write_bytes(b"yesterday's")
    stop = threading.Event()

    def stopping() -> Iterator[Content]:
        for number, tile in enumerate(ordered_pattern(Block(8, 0, 20, 0, 20))):
            if number == 100:
                stop.set()
            yield tile

    with pytest.raises(StopRequested):
        write_pmtiles(there, stopping(), About("a"), stop=stop)
    assert there.read_bytes() == b"yesterday's"
    assert list(tmp_path.iterdir()) == [there]


def test_what_a_killed_writer_left_is_swept_but_a_living_ones_is_not(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from tasks.archive_pmtiles import About, write_pmtiles
def tiles():
    yield 1, 0, 0, b"a" * 5000
    print("writing", flush=True)
    import time
    time.sleep(60)
write_pmtiles(Path({str(tmp_path / "a.pmtiles")!r}), tiles(), About("a"))
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    assert writer.stdout.readline() == "writing\n"
    assert sweep_partials(tmp_path) == 0
    writer.kill()
    writer.wait()
    writer.stdout.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    assert sweep_partials(tmp_path) == 1
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_tiles_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Content]:
        yield (1, 0, 0, b"a")
        raise OutsideUnreachable("The database is away.")

    with pytest.raises(OutsideUnreachable, match="database"):
        write_pmtiles(tmp_path / "a.pmtiles", failing(), About("a"))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("no")
    with pytest.raises(ConfigurationError, match="folder"):
        write_pmtiles(tmp_path / "folder" / "a.pmtiles", [(1, 0, 0, b"a")], About("a"))


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    tiles = ordered_pattern(Block(8, 0, 49, 0, 49))
    write_pmtiles(tmp_path / "a.pmtiles", tiles, About("a"), progress=told.append)
    assert told == [1000, 2000, 2500]


@given(st.integers(0, 31).flatmap(lambda z: st.tuples(st.just(z), *[st.integers(0, 2**z - 1)] * 2)))
def test_ids_are_the_formats(tile: tuple[int, int, int]) -> None:
    assert tile_id(*tile) == zxy_to_tileid(*tile)


@pytest.mark.parametrize(
    "blocks",
    [
        [Block(12, 2200, 2331, 1380, 1450)],
        [Block(5, 0, 31, 3, 9), Block(6, 0, 63, 3, 9), Block(7, 60, 70, 60, 70), Block(0, 0, 0, 0, 0)],
        [Block(4, 15, 15, 3, 9), Block(4, 0, 2, 3, 9)],  # both sides of the antimeridian, in one cell
        [Block(9, 500, 511, 3, 9), Block(9, 0, 2, 3, 9)],
    ],
)
def test_rows_are_asked_for_cell_by_cell_and_come_in_order(blocks: list[Block]) -> None:
    asked: list[Block] = []

    def rows_of(block: Block) -> Iterable[tuple[int, int, int, str]]:
        asked.append(block)
        return [(z, x, y, f"{z}/{x}/{y}") for z, x, y, _ in pattern(block)]

    rows = list(in_tile_id_order(blocks, rows_of))
    numbers = [tile_id(z, x, y) for z, x, y, _ in rows]
    assert numbers == sorted(set(numbers))
    assert {name for *_, name in rows} == {f"{z}/{x}/{y}" for block in blocks for z, x, y, _ in pattern(block)}
    assert max(block.tiles for block in asked) <= 4096


def test_many_tiles_take_little_memory(tmp_path: Path) -> None:
    """In a process of its own: the peak of the whole process, modules included."""
    code = f"""
import resource, sys
from pathlib import Path
from tasks.archive_pmtiles import About, write_pmtiles
from pmtiles.tile import tileid_to_zxy
first = 4**11  # anywhere in zoom 11
tiles = ((*tileid_to_zxy(first + n), b"%d" % n) for n in range(150_000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
archive = write_pmtiles(Path({str(tmp_path / "a.pmtiles")!r}), tiles, About("a"))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(archive.tiles, after - before)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tiles, grown_kb = map(int, ran.stdout.split())
    assert tiles == 150_000
    assert grown_kb < 60_000


def pattern(block: Block, magic: bytes = PNG) -> list[Content]:
    """A different content for each tile."""
    return [
        (block.z, x, y, magic + f"{block.z}/{x}/{y}".encode())
        for x in range(block.x_first, block.x_last + 1)
        for y in range(block.y_first, block.y_last + 1)
    ]


def ordered_pattern(block: Block) -> Iterator[Content]:
    return in_tile_id_order([block], pattern)


def dict_of(tiles: Iterable[Content]) -> dict[tuple[int, int, int], bytes]:
    return {(z, x, y): content for z, x, y, content in tiles}


def write(folder: Path, tiles: dict[tuple[int, int, int], bytes], about: About | None = None) -> Any:
    ordered = sorted(tiles, key=lambda tile: tile_id(*tile))
    return write_pmtiles(folder / "a.pmtiles", ((*tile, tiles[tile]) for tile in ordered), about or About("a"))


def read_all(path: Path) -> dict[tuple[int, int, int], bytes]:
    with path.open("rb") as file:
        return dict(all_tiles(MmapSource(file)))


def head_of(path: Path) -> tuple[Any, Any]:
    reader = Reader(MemorySource(path.read_bytes()))
    return reader.header(), reader.metadata()


def entries_of(path: Path) -> Iterator[Any]:
    data = path.read_bytes()
    header = Reader(MemorySource(data)).header()
    directories = [(header["root_offset"], header["root_length"])]
    while directories:
        offset, length = directories.pop(0)
        for entry in deserialize_directory(data[offset : offset + length]):
            if entry.run_length:
                yield entry
            else:
                directories.append((header["leaf_directory_offset"] + entry.offset, entry.length))
