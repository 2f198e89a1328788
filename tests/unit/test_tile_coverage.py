"""The coverage picture's pixels against the counts it was made from."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest
from PIL import Image

from tasks import tile_coverage
from tasks.errors import ConfigurationError
from tasks.tile_coverage import Cell, Coverage, coverage_picture, tiles_a_cell
from tasks.tile_grid import Block

NOTHING = tile_coverage._NOTHING


@pytest.mark.parametrize(
    ("columns", "rows", "side"), [(1, 1, 1), (480, 673, 1), (900, 3, 1), (3, 901, 2), (1800, 9, 2), (1801, 9, 4)]
)
def test_cells_are_as_small_as_can_be(columns: int, rows: int, side: int) -> None:
    block = Block(21, 5, 5 + columns - 1, 7, 7 + rows - 1)
    assert tiles_a_cell(block) == side


def test_each_state_has_its_colour_and_place() -> None:
    block = Block(3, 2, 6, 1, 2)
    cells = [Cell(3, n, 0, state, 1) for n, state in enumerate(Coverage)]
    found = squares(block, cells)
    assert found[0] == [colour(state) for state in Coverage]
    assert found[1] == [NOTHING] * 5
    assert len({colour(state) for state in Coverage} | {NOTHING}) == 6


def test_most_tiles_decide_but_failed_and_pending_never_hide() -> None:
    block = Block(12, 0, 7, 0, 0)
    cells = [
        *(Cell(12, 0, 0, "done", 10), Cell(12, 0, 0, "missing", 11)),
        *(Cell(12, 1, 0, "blank", 12), Cell(12, 1, 0, "done", 11)),
        *(Cell(12, 2, 0, "done", 10_000), Cell(12, 2, 0, "pending", 1)),
        *(Cell(12, 3, 0, "failed", 1), Cell(12, 3, 0, "done", 10_000), Cell(12, 3, 0, "pending", 50)),
        *(Cell(12, 4, 0, "pending", 50), Cell(12, 4, 0, "failed", 1)),
    ]
    shown = [Coverage.MISSING, Coverage.BLANK, Coverage.PENDING, Coverage.FAILED, Coverage.FAILED]
    assert squares(block, cells)[0][:5] == [colour(state) for state in shown]


def test_one_failed_tile_of_ten_million_is_seen() -> None:
    block = Block(21, 0, 3_199, 0, 3_199)
    assert tiles_a_cell(block) == 4
    done = [Cell(21, x, y, "done", 16) for x in range(395, 405) for y in range(295, 305)]
    assert red_pixels(block, [*done, Cell(21, 400, 300, "failed", 1)]) - red_pixels(block, done) == 25


def test_every_zoom_has_its_panel() -> None:
    blocks = [Block(z, 0, 2**z - 1, 0, 2**z - 1) for z in (0, 2, 4, 5, 6)]
    cells = [Cell(block.z, 0, 0, "done", 1) for block in blocks]
    one, many = opened(coverage_picture("a", blocks[:1], cells[:1])), opened(coverage_picture("a", blocks, cells))
    assert many.height > 2 * 420
    assert many.width > 3 * 420
    assert one.width < many.width


def test_a_picture_is_never_huge() -> None:
    blocks = [Block(24, 0, 2**24 - 1, 0, 2**10 - 1), Block(23, 0, 3, 0, 2**23 - 1)]
    picture = opened(coverage_picture("Long and thin", blocks, []))
    assert max(picture.size) < 2500


def test_nothing_counted_is_a_picture_too() -> None:
    assert squares(Block(3, 0, 1, 0, 0), []) == [[NOTHING, NOTHING]]


@pytest.mark.parametrize(
    ("part", "whole", "says"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (1, 10**6, "0.1 %"),
        (10**6 - 1, 10**6, "99.9 %"),
        (1, 8, "12.5 %"),
    ],
)
def test_shares_do_not_round_to_none_or_all(part: int, whole: int, says: str) -> None:
    assert tile_coverage._share(part, whole) == says


@pytest.mark.parametrize(
    ("blocks", "cell", "says"),
    [
        ([], Cell(3, 0, 0, "done", 1), "no zoom"),
        ([Block(3, 0, 1, 0, 1)], Cell(4, 0, 0, "done", 1), "zoom 4"),
        ([Block(3, 0, 1, 0, 1)], Cell(3, 2, 0, "done", 1), "outside"),
        ([Block(3, 0, 1, 0, 1)], Cell(3, 0, -1, "done", 1), "outside"),
        ([Block(3, 0, 1, 0, 1)], Cell(3, 0, 0, "finished", 1), "finished"),
    ],
)
def test_cells_that_cannot_be(blocks: list[Block], cell: Cell, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        coverage_picture("a", blocks, [cell])


def squares(block: Block, cells: Iterable[Cell]) -> list[list[tuple[int, ...]]]:
    """Colours in the middle of each square of a single panel, row by row."""
    picture = opened(coverage_picture("A layer", [block], cells))
    scale = tile_coverage._SINGLE_PX // max(block.columns, block.rows)
    left, top = 24 + 1, 24 + 32 + 2 * 22 + 1
    return [
        [rgb(picture, left + x * scale + scale // 2, top + y * scale + scale // 2) for x in range(block.columns)]
        for y in range(block.rows)
    ]


def red_pixels(block: Block, cells: list[Cell]) -> int:
    data = opened(coverage_picture("A layer", [block], cells)).tobytes()
    red = bytes(colour(Coverage.FAILED))
    return sum(data[at : at + 3] == red for at in range(0, len(data), 3))


def rgb(picture: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = picture.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def opened(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png))
    picture.load()
    return picture.convert("RGB")


def colour(state: Coverage) -> tuple[int, ...]:
    return tile_coverage._COLOURS[state]
