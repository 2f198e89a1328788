"""The order of tiles in a PMTiles archive: a Hilbert curve over each zoom, zooms one after the other. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

from pmtiles.tile import zxy_to_tileid

from tasks.errors import ConfigurationError
from tasks.tile_grid import Block, Tile

Row = TypeVar("Row", bound=tuple[Any, ...])

_CELL = 6  # 64 x 64 tiles are sorted at a time


class _Piece(NamedTuple):
    """What a block has in one cell: a square of 64 x 64 tiles, which the curve fills before it leaves it."""

    z: int
    cell_id: int
    part: Block


def tile_id(z: int, x: int, y: int) -> int:
    """The tile's number in PMTiles order. Raises ConfigurationError for a tile that does not exist."""
    if not (0 <= z <= 31 and 0 <= x < 1 << z and 0 <= y < 1 << z):
        raise ConfigurationError(f"There is no tile {z}/{x}/{y}; x and y go from 0 to 2^z - 1.")
    return int(zxy_to_tileid(z, x, y))


def in_tile_id_order(blocks: Iterable[Block], rows_of: Callable[[Block], Iterable[Row]]) -> Iterator[Row]:
    """Rows (z, x, y, ...) in the order of their tile ids, so that the database need not know the curve.

    blocks   that hold all tiles and do not overlap, of any number of zooms
    rows_of  the rows of one block in any order: `WHERE z = and x BETWEEN and y BETWEEN`. It is asked for at most
             4,096 tiles at a time, cell by cell along the curve, and sorted here.
    """
    pieces = sorted(piece for block in blocks for piece in _pieces(block))
    for _, cell in groupby(pieces, key=lambda piece: (piece.z, piece.cell_id)):
        rows = [row for piece in cell for row in rows_of(piece.part)]
        yield from sorted(rows, key=lambda row: tile_id(row[0], row[1], row[2]))


def _pieces(block: Block) -> Iterator[_Piece]:
    depth = min(_CELL, block.z)
    for x in range(block.x_first >> depth, (block.x_last >> depth) + 1):
        for y in range(block.y_first >> depth, (block.y_last >> depth) + 1):
            cell = Tile(block.z - depth, x, y)
            yield _Piece(block.z, tile_id(*cell), _part(block, cell, depth))


def _part(block: Block, cell: Tile, depth: int) -> Block:
    return Block(
        block.z,
        max(block.x_first, cell.x << depth),
        min(block.x_last, ((cell.x + 1) << depth) - 1),
        max(block.y_first, cell.y << depth),
        min(block.y_last, ((cell.y + 1) << depth) - 1),
    )
