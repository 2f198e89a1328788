"""A mosaic's overviews, made from its tiles in one pass: four tiles become one as soon as they are there.

Levels count up: level 0 are the map tiles, and tile (column, row) of level k covers 2^k x 2^k of them, counted
from the mosaic's own corner. Walking the tiles along a Z curve keeps a handful of pictures in memory, however
wide the mosaic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from PIL import Image

from tasks.geotiff_pixels import Picture, Pixels, halved
from tasks.tile_grid import Block

Emit = Callable[["Node", Picture], None]


class Node(NamedTuple):
    """A tile of a level."""

    level: int
    column: int
    row: int

    @property
    def parent(self) -> Node:
        """The tile of the next level that covers it."""
        return Node(self.level + 1, self.column // 2, self.row // 2)


class Grid(NamedTuple):
    """How many map tiles the mosaic has across and down."""

    columns: int
    rows: int

    def size(self, level: int) -> tuple[int, int]:
        """Tiles across and down at a level."""
        return -(-self.columns >> level), -(-self.rows >> level)

    @property
    def top(self) -> int:
        """The first level that is one tile."""
        return (max(self.columns, self.rows) - 1).bit_length()

    def children(self, node: Node) -> Iterator[Node]:
        """The up to four tiles that a tile covers, in the order of the Z curve."""
        across, down = self.size(node.level - 1)
        for row in (2 * node.row, 2 * node.row + 1):
            for column in (2 * node.column, 2 * node.column + 1):
                if column < across and row < down:
                    yield Node(node.level - 1, column, row)

    def below(self, node: Node, level: int) -> Iterator[Node]:
        """All tiles of a lower level that a tile covers, along the Z curve."""
        if node.level == level:
            yield node
            return
        for child in self.children(node):
            yield from self.below(child, level)


def part_of(block: Block, node: Node) -> Block:
    """The map tiles that a tile of the mosaic of `block` covers."""
    x, y, side = block.x_first + (node.column << node.level), block.y_first + (node.row << node.level), 1 << node.level
    return Block(block.z, x, min(x + side - 1, block.x_last), y, min(y + side - 1, block.y_last))


class Pyramid:
    """Takes tiles of one level, any order; emits every tile above them up to `top` that holds something.

    emit  is told each overview tile as it is complete
    """

    def __init__(self, grid: Grid, pixels: Pixels, top: int, emit: Emit) -> None:
        self._grid = grid
        self._pixels = pixels
        self._top = top
        self._emit = emit
        self._open: dict[Node, tuple[int, list[tuple[Node, Picture]]]] = {}

    def add(self, node: Node, picture: Picture | None) -> None:
        """One tile, or None where there is nothing. Every tile of the level must come once."""
        if node.level >= self._top:
            return
        parent = node.parent
        if parent not in self._open:
            self._open[parent] = (sum(1 for _ in self._grid.children(parent)), [])
        left, parts = self._open.pop(parent)
        if picture:
            parts.append((node, halved(picture, self._pixels.mode)))
        if left > 1:
            self._open[parent] = (left - 1, parts)
            return
        whole = joined(parts, self._pixels)
        if whole:
            self._emit(parent, whole)
        self.add(parent, whole)


def joined(parts: list[tuple[Node, Picture]], pixels: Pixels) -> Picture | None:
    """Up to four half-size pictures in one; what is missing is masked, or transparent in RGBA."""
    if not parts:
        return None
    image = Image.new(pixels.mode, (pixels.tile_px, pixels.tile_px))
    mask = Image.new("L", image.size)
    for node, part in parts:
        place = (node.column % 2 * part.image.width, node.row % 2 * part.image.height)
        image.paste(part.image, place)
        mask.paste(part.mask or 255, (*place, place[0] + part.image.width, place[1] + part.image.height))
    whole = pixels.mode == "RGBA" or mask.getextrema() == (255, 255)
    return Picture(image, None if whole else mask)
