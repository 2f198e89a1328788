"""The work of one thread on a mosaic: a square of map tiles decoded, packed, and halved up to one picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple

from tasks.errors import StopRequested
from tasks.geotiff_pixels import Decoded, Picture, Pixels, Unusable, decode, encode, encode_mask
from tasks.geotiff_pyramid import Grid, Node, Pyramid


class Packed(NamedTuple):
    """A TIFF tile ready to be written, and its mask (empty in RGBA)."""

    node: Node
    image: bytes
    mask: bytes


class Square(NamedTuple):
    """What to work on: the map tiles under `node`, with overviews of the levels up to `top`."""

    node: Node
    grid: Grid
    pixels: Pixels
    top: int


@dataclass(slots=True)
class Worked:
    """What became of a square.

    top     the picture of the square itself, for the overviews above it; None when it has no tile
    counts  tiles, as_they_are, masked, unreadable, wrong_size
    """

    node: Node
    tiles: list[Packed] = field(default_factory=list)
    top: Picture | None = None
    counts: Counter[str] = field(default_factory=Counter)


def work(square: Square, contents: Mapping[Node, bytes], stop: Event) -> Worked:
    """Decode and pack the tiles, and the overviews within the square. Raises TooNarrow, StopRequested."""
    worked = Worked(square.node)

    def keep(node: Node, picture: Picture) -> None:
        worked.tiles.append(pack(node, picture, square.pixels))
        worked.top = picture

    pyramid = Pyramid(square.grid, square.pixels, square.top, keep)
    for leaf in square.grid.below(square.node, 0):
        check_stop(stop)
        decoded = _decoded(contents.get(leaf), square.pixels, worked.counts)
        if decoded:
            worked.tiles.append(pack(leaf, decoded.picture, square.pixels, decoded.whole))
            worked.top = decoded.picture
        pyramid.add(leaf, decoded.picture if decoded else None)
    return worked


def pack(node: Node, picture: Picture, pixels: Pixels, whole: bytes | None = None) -> Packed:
    """A picture as bytes of the file; `whole` is the map tile's own JPEG stream where that may stay."""
    mask = b"" if pixels.mode == "RGBA" else encode_mask(picture.mask, pixels.tile_px)
    return Packed(node, whole or encode(picture.image, pixels), mask)


def check_stop(stop: Event) -> None:
    """Raise StopRequested once the run is shutting down."""
    if stop.is_set():
        raise StopRequested("The mosaic was not finished; run again to write it.")


def _decoded(content: bytes | None, pixels: Pixels, counts: Counter[str]) -> Decoded | None:
    if content is None:
        return None
    try:
        decoded = decode(content, pixels)
    except Unusable as exc:
        counts[str(exc)] += 1
        return None
    counts["tiles"] += 1
    counts["masked"] += decoded.picture.mask is not None
    counts["as_they_are"] += decoded.whole is not None
    return decoded
