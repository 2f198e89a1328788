"""The tiles of one zoom as one GeoTIFF in EPSG:3857: tiled, compressed, with overviews, in little memory.

Every map tile becomes one TIFF tile, and nothing is resampled: the tiles already lie on the grid of the
projection. Our own writer, because that allows what GDAL's does not: JPEG tiles go in as they are (the real layer
of 323,040 tiles is then a tenth of the size, and no pixel changes), overviews are made in the same pass, and the
memory does not grow with the mosaic. GDAL reads the result in the tests.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import get_args

from tasks.archive_file import ArchiveFile
from tasks.errors import ConfigurationError
from tasks.geotiff_head import CLASSIC_BYTES, Layer, Place, head_of
from tasks.geotiff_pixels import Compression, Picture, Pixels, TooNarrow, check_tile_px
from tasks.geotiff_pyramid import Grid, Node, Pyramid, part_of
from tasks.geotiff_squares import Packed, Square, Worked, check_stop, pack, work
from tasks.geotiff_survey import TilesOf, survey
from tasks.tile_grid import Block, block_metres, pixel_metres

MEDIA_TYPE = "image/tiff; application=geotiff"

_WORK_PX = 2048  # side of what a thread works on at once: 8 x 8 tiles of 256 pixels
_WORK_LEVEL_MAX = 4  # 16 x 16 tiles, however small they are
_TILES_MAX = 30_000_000  # their offsets alone are half a gigabyte
_SIDE_PX_MAX = 1 << 31


@dataclass(frozen=True, slots=True)
class GeotiffMosaic:
    """What was written.

    width, height  in pixels of the largest picture; levels: overviews below it
    mode           L, RGB or RGBA
    tiles          map tiles in it; `as_they_are` of them are the very JPEG streams
    missing        places without a usable tile: masked, or transparent in RGBA
    left_out       tiles that could not be used: unreadable, wrong_size
    """

    path: Path
    size_bytes: int
    sha256: str
    width: int
    height: int
    levels: int
    tile_px: int
    mode: str
    compression: str
    big: bool
    tiles: int
    as_they_are: int
    missing: int
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Order:
    """What is asked for."""

    destination: Path
    block: Block
    tiles_of: TilesOf
    texts: tuple[str, str]
    overviews: bool
    threads: int
    stop: Event
    progress: Callable[[int, int], None]


def write_geotiff(
    destination: Path,
    block: Block,
    tiles_of: TilesOf,
    *,
    compression: Compression = "deflate",
    tile_px: int | None = None,
    overviews: bool = True,
    description: str = "",
    attribution: str = "",
    threads: int | None = None,
    stop: Event | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> GeotiffMosaic:
    """Write the tiles of `block` to `destination`.

    tiles_of     is asked for squares of some hundred tiles, in this thread, a few of them twice
    compression  deflate or zstd: every pixel as the tile decodes it. jpeg: JPEG tiles go in as they are, pixel for
                 pixel; other tiles, and overviews, are made JPEG, and pixels more than half transparent masked
    tile_px      side of a map tile; None: the commonest. Tiles of another size are left out and counted
    threads      that decode and pack; None: one for each core
    progress     is told the places worked through and all places

    Grey, colour or transparent is found out from a sample, and once more from the start where a tile shows it wrong.
    Raises ConfigurationError (no tile, too large), StopRequested, OutsideUnreachable (disk full). Then nothing
    appears at `destination`, and what was there stays.
    """
    check_mosaic(block, compression)
    order = _Order(
        destination,
        block,
        tiles_of,
        (description, attribution),
        overviews,
        threads or os.cpu_count() or 1,
        stop or Event(),
        progress or _silent,
    )
    pixels = survey(block, tiles_of, compression, tile_px, order.stop)
    check_tile_px(pixels.tile_px)
    _check_side(block, pixels)
    while True:
        try:
            return _Mosaic(order, pixels).write()
        except TooNarrow as wider:
            pixels = Pixels(pixels.tile_px, wider.mode, pixels.compression, pixels.sampling)


class _Mosaic:
    """One attempt at the file."""

    def __init__(self, order: _Order, pixels: Pixels) -> None:
        self.order = order
        self.pixels = pixels
        self.grid = Grid(order.block.columns, order.block.rows)
        self.top = self.grid.top if order.overviews else 0
        self.work_level = min(self.grid.top, max((_WORK_PX // pixels.tile_px).bit_length() - 1, 0), _WORK_LEVEL_MAX)
        self.counts: Counter[str] = Counter()
        levels = range(self.top + 1)
        self.images = [Layer(level, False, *self.grid.size(level)) for level in levels]
        self.masks = [] if pixels.mode == "RGBA" else [Layer(level, True, *self.grid.size(level)) for level in levels]
        self.place = Place(
            block_metres(order.block),
            pixel_metres(order.block.z, pixels.tile_px),
            self.grid.columns * pixels.tile_px,
            self.grid.rows * pixels.tile_px,
        )

    def write(self) -> GeotiffMosaic:
        head_bytes = len(self._head(self._layers(), big=True))
        with ArchiveFile(self.order.destination, head_bytes + -head_bytes % 4096) as file:
            with contextlib.closing(self._worked()) as squares:
                self._fill(file, squares)
            self._refuse_an_empty_one()
            big = file.size_bytes >= CLASSIC_BYTES
            file.write_head(self._head([layer for layer in self._layers() if self._is_needed(layer)], big=big))
            return self._done(file, file.finish(), big)

    def _fill(self, file: ArchiveFile, squares: Iterator[Worked]) -> None:
        """Everything but the head, in the order it is made."""

        def keep(of: Node, picture: Picture) -> None:
            self._put(file, pack(of, picture, self.pixels))

        pyramid = Pyramid(self.grid, self.pixels, self.top, keep)
        for worked in squares:
            for tile in worked.tiles:
                self._put(file, tile)
            pyramid.add(worked.node, worked.top)
            self._tell(worked)

    def _worked(self) -> Generator[Worked]:
        """Squares of tiles as the threads finish them, in order; a few are under way at once."""
        waiting: deque[Future[Worked]] = deque()
        with ThreadPoolExecutor(self.order.threads, thread_name_prefix="geotiff") as pool:
            try:
                for square, contents in self._squares():
                    waiting.append(pool.submit(work, square, contents, self.order.stop))
                    if len(waiting) > self.order.threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _squares(self) -> Iterator[tuple[Square, dict[Node, bytes]]]:
        """Squares with the contents of their tiles, along the Z curve."""
        block = self.order.block
        for node in self.grid.below(Node(self.grid.top, 0, 0), self.work_level):
            check_stop(self.order.stop)
            found = self.order.tiles_of(part_of(block, node))
            contents = {Node(0, x - block.x_first, y - block.y_first): content for _, x, y, content in found}
            yield Square(node, self.grid, self.pixels, min(node.level, self.top)), contents

    def _put(self, file: ArchiveFile, tile: Packed) -> None:
        node, size = tile.node, len(tile.image)
        offset = file.append(tile.image + tile.mask)
        self.images[node.level].put(node.column, node.row, offset, size)
        if self.masks:
            self.masks[node.level].put(node.column, node.row, offset + size, len(tile.mask))

    def _tell(self, worked: Worked) -> None:
        self.counts += worked.counts
        self.counts["places"] += part_of(self.order.block, worked.node).tiles
        self.order.progress(self.counts["places"], self.order.block.tiles)

    def _layers(self) -> list[Layer]:
        """In the file's order: each picture is followed by its mask."""
        if not self.masks:
            return self.images
        return [layer for pair in zip(self.images, self.masks, strict=True) for layer in pair]

    def _is_needed(self, layer: Layer) -> bool:
        """A mask that masks nothing is left away."""
        return not layer.is_mask or self._missing() > 0 or self.counts["masked"] > 0

    def _missing(self) -> int:
        return self.order.block.tiles - self.counts["tiles"]

    def _head(self, layers: list[Layer], *, big: bool) -> bytes:
        return head_of(layers, self.pixels, self.place, self.order.texts, big=big)

    def _refuse_an_empty_one(self) -> None:
        if not self.counts["tiles"]:
            raise ConfigurationError("No tile of the mosaic could be read; look at the tiles, or give another tile_px.")

    def _done(self, file: ArchiveFile, sha256: str, big: bool) -> GeotiffMosaic:
        return GeotiffMosaic(
            path=file.destination,
            size_bytes=file.size_bytes,
            sha256=sha256,
            width=self.place.width,
            height=self.place.height,
            levels=self.top,
            tile_px=self.pixels.tile_px,
            mode=self.pixels.mode,
            compression=self.pixels.compression,
            big=big,
            tiles=self.counts["tiles"],
            as_they_are=self.counts["as_they_are"],
            missing=self._missing(),
            left_out={reason: self.counts[reason] for reason in ("unreadable", "wrong_size") if self.counts[reason]},
        )


def check_mosaic(block: Block, compression: str) -> None:
    """Raises ConfigurationError for a mosaic that cannot be made, whatever its tiles are."""
    if compression not in get_args(Compression):
        raise ConfigurationError(f"compression {compression!r} is not known; use deflate, zstd or jpeg.")
    if block.columns < 1 or block.rows < 1:
        raise ConfigurationError("The mosaic has no tile; give a box or ranges that have some.")
    if block.tiles > _TILES_MAX:
        raise ConfigurationError(
            f"A mosaic of {block.tiles:,} tiles is too large; make several of at most {_TILES_MAX:,}."
        )


def _check_side(block: Block, pixels: Pixels) -> None:
    if max(block.columns, block.rows) * pixels.tile_px >= _SIDE_PX_MAX:
        raise ConfigurationError("The mosaic is more than 2^31 pixels wide or high; make several smaller ones.")


def _silent(_done: int, _all: int) -> None:
    """Nobody listens."""
