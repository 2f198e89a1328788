"""A first look at some tiles of a mosaic: how large they are, and what pixels hold them without loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from threading import Event

from PIL import Image

from tasks.errors import ConfigurationError, StopRequested
from tasks.geotiff_pixels import Compression, Mode, Pixels, Unusable, look_at, mode_of, sampling_of
from tasks.geotiff_pyramid import Grid, Node, part_of
from tasks.tile_grid import Block

TilesOf = Callable[[Block], Iterable[tuple[int, int, int, bytes]]]
"""The tiles (z, x, y, content) there are in a block, in any order."""

_SQUARE = 4  # 16 x 16 tiles
_SQUARES = 24
_TILES_A_SQUARE = 8


def survey(block: Block, tiles_of: TilesOf, compression: Compression, tile_px: int | None, stop: Event) -> Pixels:
    """Pixels for the mosaic, from up to 192 tiles spread over it. Raises ConfigurationError when there is none."""
    images = list(_sample(block, tiles_of, stop))
    if not images:
        raise ConfigurationError(f"No readable tile of zoom {block.z} lies in the mosaic; download some first.")
    side = tile_px or _commonest_side(images)
    images = [image for image in images if image.size == (side, side)] or images
    mode = _mode(images)
    if compression == "jpeg" and mode == "RGBA":
        mode = "RGB"
    return Pixels(side, mode, compression, _sampling(images))


def _sample(block: Block, tiles_of: TilesOf, stop: Event) -> Iterator[Image.Image]:
    """Some images from squares all over the mosaic; when those are empty, from the first square that is not."""
    grid = Grid(block.columns, block.rows)
    nodes = list(grid.below(Node(grid.top, 0, 0), min(grid.top, _SQUARE)))
    step = max(len(nodes) // _SQUARES, 1)
    found = False
    for image in _images([part_of(block, node) for node in nodes[::step]], tiles_of, stop):
        found = True
        yield image
    if not found:
        yield from islice(_images((part_of(block, node) for node in nodes), tiles_of, stop), _TILES_A_SQUARE)


def _images(squares: Iterable[Block], tiles_of: TilesOf, stop: Event) -> Iterator[Image.Image]:
    for square in squares:
        if stop.is_set():
            raise StopRequested("The mosaic was not begun; run again to write it.")
        for *_, content in islice(tiles_of(square), _TILES_A_SQUARE):
            try:
                yield look_at(content)
            except Unusable:
                continue


def _commonest_side(images: list[Image.Image]) -> int:
    sides = Counter(image.width for image in images if image.width == image.height)
    if not sides:
        raise ConfigurationError("The tiles are not square; only square tiles make a mosaic.")
    return sides.most_common(1)[0][0]


def _mode(images: list[Image.Image]) -> Mode:
    modes = {mode_of(image) for image in images}
    return "RGBA" if "RGBA" in modes else "RGB" if "RGB" in modes else "L"


def _sampling(images: list[Image.Image]) -> tuple[int, int]:
    found = Counter(sampling for image in images if image.mode == "RGB" and (sampling := sampling_of(image)))
    return found.most_common(1)[0][0] if found else (2, 2)
