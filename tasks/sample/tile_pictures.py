"""The sample village as a parcel map and from the air, on sheets whose edges meet.

Whatever crosses an edge is drawn again on the other side. Drawn twice as large and reduced, for smooth edges;
half a second for both, once in a process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from tasks.sample.chance import seeded
from tasks.sample.drawing import font
from tasks.sample.tile_village import PARKS, SIDE_PX, STREETS_X, STREETS_Y, Lot, Point, Village, block, sample_village

_LARGER = 2

Colour = tuple[int, int, int]

_LAND, _PARK, _WATER = (248, 244, 234), (216, 232, 200), (174, 208, 232)
_KERB, _ROAD, _LOT_LINE, _CONTOUR, _INK, _WALL = (
    (205, 192, 172), (255, 254, 250), (178, 148, 122), (226, 208, 176), (122, 88, 62), (150, 104, 78),
)  # fmt: skip
_FIELDS = ((112, 126, 78), (126, 134, 86), (98, 118, 74), (140, 136, 96), (118, 122, 84), (104, 112, 70))
_ROOFS = ((150, 142, 136), (128, 82, 66), (112, 110, 112), (168, 158, 144))
_TARMAC, _TREE, _POOL = (138, 136, 134), (58, 78, 46), (52, 76, 78)

HOUSES: tuple[Colour, Colour] = ((228, 184, 150), (206, 190, 200))
"""Dwellings and outbuildings on the parcel map: the last two entries of its palette."""

_COLOURS = 62


class _Sheet:
    """Draws on an image whose edges meet, in sheet pixels."""

    def __init__(self, image: Image.Image) -> None:
        self._draw = ImageDraw.Draw(image)
        self._scale = image.width / SIDE_PX

    def polygon(self, points: Sequence[Point], colour: Colour | int) -> None:
        for copy in self._copies(points, 1):
            self._draw.polygon(copy, fill=colour)

    def line(self, points: Sequence[Point], colour: Colour, width_px: float) -> None:
        for copy in self._copies(points, width_px):
            self._draw.line(copy, fill=colour, width=round(width_px * self._scale), joint="curve")

    def disc(self, centre: Point, radius_px: float, colour: Colour) -> None:
        for (place,) in self._copies([centre], radius_px):
            self._draw.circle(place, radius_px * self._scale, fill=colour)

    def text(self, centre: Point, text: str, size_px: float, colour: Colour) -> None:
        for (place,) in self._copies([centre], 40):
            self._draw.text(place, text, fill=colour, font=font(round(size_px * self._scale)), anchor="mm")

    def _copies(self, points: Sequence[Point], margin_px: float) -> Iterator[list[Point]]:
        """The points in image pixels, shifted by every whole sheet with which they are to be seen."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        for across in _shifts(min(xs) - margin_px, max(xs) + margin_px):
            for down in _shifts(min(ys) - margin_px, max(ys) + margin_px):
                yield [((x + across) * self._scale, (y + down) * self._scale) for x, y in points]


def _shifts(low: float, high: float) -> list[int]:
    return [shift for shift in (-SIDE_PX, 0, SIDE_PX) if low + shift < SIDE_PX and high + shift > 0]


@lru_cache(maxsize=1)
def parcel_map() -> Image.Image:
    """The parcel map: SIDE_PX square, with a palette of 64 of which the last two are HOUSES and nothing else."""
    village = sample_village()
    large = Image.new("RGB", (SIDE_PX * _LARGER, SIDE_PX * _LARGER), _LAND)
    sheet = _Sheet(large)
    _parks(sheet, village, _PARK)
    large.paste(_CONTOUR, mask=_contours(large.size))
    _pond(sheet, village, _WATER)
    _streets(sheet, village, _KERB, 19)
    _streets(sheet, village, _ROAD, 15)
    for lot in village.lots:
        corners = village.outline(lot.box)
        sheet.line([*corners, corners[0]], _LOT_LINE, 1)
        sheet.polygon(village.outline(lot.house), _WALL)
    for lot in village.lots:
        _label(sheet, village, lot)
    picture = large.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX).quantize(_COLOURS, dither=Image.Dither.NONE)
    colours = (picture.getpalette() or [])[: 3 * _COLOURS]
    picture.putpalette(colours + [0] * (3 * _COLOURS - len(colours)) + [*HOUSES[0], *HOUSES[1]])
    _houses(_Sheet(picture), village)
    return picture


@lru_cache(maxsize=1)
def aerial_photo() -> Image.Image:
    """The village from the air: SIDE_PX square, RGB."""
    village, rng = sample_village(), seeded("sample aerial photo")
    large = Image.new("RGB", (SIDE_PX * _LARGER, SIDE_PX * _LARGER), _FIELDS[0])
    sheet = _Sheet(large)
    for lot in village.lots:
        sheet.polygon(village.outline(lot.box), _FIELDS[lot.tint % len(_FIELDS)])
    _parks(sheet, village, _FIELDS[2])
    _pond(sheet, village, _POOL)
    _streets(sheet, village, _TARMAC, 13)
    for lot in village.lots:
        left, top, right, bottom = lot.house
        sheet.polygon(village.outline((left + 2, top + 3, right + 3, bottom + 4)), (64, 70, 52))  # its shadow
        sheet.polygon(village.outline(lot.house), _ROOFS[lot.tint % len(_ROOFS)])
    for x, y, radius_px in village.trees:
        sheet.disc(village.bent(x + 1.5, y + 2), radius_px, (44, 56, 38))
        sheet.disc(village.bent(x, y), radius_px, _TREE)
    picture = large.resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    rough = ImageChops.add(_waves(rng, 24, picture.size), _waves(rng, 400, picture.size), scale=2)
    grain = rough.point([128 + (v - 128) * 9 // 16 for v in range(256)])
    return ImageChops.add(picture, Image.merge("RGB", (grain, grain, grain)), scale=1, offset=-128)


def _parks(sheet: _Sheet, village: Village, colour: Colour) -> None:
    for number in PARKS:
        sheet.polygon(village.outline(block(number)), colour)


def _pond(sheet: _Sheet, village: Village, colour: Colour) -> None:
    """In the middle of the first park."""
    left, top, right, bottom = block(PARKS[0])
    x, y, radius = (left + right) / 2, (top + bottom) / 2, (bottom - top) / 3
    shore = []
    for angle in (step * math.tau / 48 for step in range(48)):
        away = radius * (1 + 0.15 * math.sin(3 * angle) + 0.1 * math.sin(5 * angle + 1))
        shore.append(village.bent(x + 1.2 * away * math.cos(angle), y + away * math.sin(angle)))
    sheet.polygon(shore, colour)


def _streets(sheet: _Sheet, village: Village, colour: Colour, width_px: float) -> None:
    along = range(0, SIDE_PX + 1, 16)
    for x in STREETS_X:
        sheet.line([village.bent(x, y) for y in along], colour, width_px)
    for y in STREETS_Y:
        sheet.line([village.bent(x, y) for x in along], colour, width_px)


def _label(sheet: _Sheet, village: Village, lot: Lot) -> None:
    """Number and area; a lot is drawn at 1:500 or so, 0.13 m to the pixel."""
    left, top, right, bottom = lot.box
    x, y = (left + right) / 2, top + (24 if lot.house[1] - top > 40 else bottom - top - 24)
    sheet.text(village.bent(x, y - 5), str(lot.number), 10, _INK)
    sheet.text(village.bent(x, y + 6), f"{(right - left) * (bottom - top) * 0.0169:.0f} sq m", 8, _LOT_LINE)


def _houses(sheet: _Sheet, village: Village) -> None:
    """Filled last and in colours of their own, inside their walls."""
    for lot in village.lots:
        left, top, right, bottom = lot.house
        sheet.polygon(village.outline((left + 1.5, top + 1.5, right - 1.5, bottom - 1.5)), _COLOURS + lot.outbuilding)


def _contours(size: tuple[int, int]) -> Image.Image:
    """Lines of equal height, as a mask: where the height one pixel on is of another band."""
    bands = _waves(seeded("sample heights"), 7, size).point([v // 11 * 11 for v in range(256)])
    edges = [ImageChops.difference(bands, ImageChops.offset(bands, *step)) for step in ((1, 0), (0, 1))]
    return ImageChops.lighter(*edges).point([0] + [255] * 255).filter(ImageFilter.MaxFilter(3))


def _waves(rng: Random, cells: int, size: tuple[int, int]) -> Image.Image:
    """Smooth noise around 128 whose edges meet; `cells` bumps across."""
    bumps = Image.frombytes("L", (cells, cells), rng.randbytes(cells * cells))
    around = Image.new("L", (cells + 8, cells + 8))
    for x in range(-1, 2):
        for y in range(-1, 2):
            around.paste(bumps, (4 + x * cells, 4 + y * cells))
    return around.resize(size, Image.Resampling.BICUBIC, box=(4, 4, cells + 4, cells + 4))
