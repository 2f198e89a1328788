"""The lay-out of the sample village: streets, blocks, lots, houses and trees, in pixels of its sheet. Pure.

Everything stands on a straight grid and is bent by waves whose length divides the side of the sheet, so that
the village goes on without a seam where it begins again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

from tasks.sample.chance import seeded

TILE_PX = 256
ROUND = 4
"""Tiles after which the village begins again, both ways."""

SIDE_PX = ROUND * TILE_PX

STREETS_X, STREETS_Y = (40, 300, 556, 806), (70, 322, 570, 830)
PARKS = (5, 10)
"""Blocks without lots, counted along the rows of 4; the first has a pond."""

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class Lot(NamedTuple):
    """A lot and its house; `tint` is eight random bits for whoever paints it."""

    number: int
    box: Box
    house: Box
    outbuilding: bool
    tint: int


@dataclass(frozen=True)
class Village:
    """Lots, and trees as x, y and radius; all in sheet pixels and not yet bent."""

    lots: tuple[Lot, ...]
    trees: tuple[tuple[float, float, float], ...]
    phases: tuple[float, ...]

    def bent(self, x: float, y: float) -> Point:
        """Where a point of the straight grid comes to lie."""
        turn = math.tau / SIDE_PX
        one, two, three, four = self.phases
        return (
            x + 17 * math.sin(turn * y + one) + 6 * math.sin(turn * (2 * y + x) + two),
            y + 15 * math.sin(turn * x + three) + 6 * math.sin(turn * (2 * x - y) + four),
        )

    def outline(self, box: Box) -> list[Point]:
        """The corners of a straight box, bent."""
        left, top, right, bottom = box
        return [self.bent(x, y) for x, y in ((left, top), (right, top), (right, bottom), (left, bottom))]


@lru_cache(maxsize=1)
def sample_village() -> Village:
    """The one there is."""
    rng = seeded("sample village")
    lots: list[Lot] = []
    for number in range(len(STREETS_X) * len(STREETS_Y)):
        if number not in PARKS:
            lots += _lots(rng, block(number), len(lots))
    taken = [block(PARKS[0]), *(lot.house for lot in lots)]
    trees = [(rng.uniform(0, SIDE_PX), rng.uniform(0, SIDE_PX), rng.uniform(2.5, 6)) for _ in range(420)]
    standing = tuple(tree for tree in trees if not any(_holds(box, tree[0], tree[1]) for box in taken))
    return Village(tuple(lots), standing, tuple(rng.uniform(0, math.tau) for _ in range(4)))


def block(number: int) -> Box:
    """The ground between four streets; behind the last street it reaches into the next sheet."""
    right, down = number % len(STREETS_X), number // len(STREETS_X)
    ends_x, ends_y = (*STREETS_X, STREETS_X[0] + SIDE_PX), (*STREETS_Y, STREETS_Y[0] + SIDE_PX)
    return ends_x[right] + 11, ends_y[down] + 11, ends_x[right + 1] - 11, ends_y[down + 1] - 11


def _lots(rng: Random, ground: Box, first: int) -> list[Lot]:
    """Two rows of lots, back to back."""
    left, top, right, bottom = ground
    middle = (top + bottom) / 2 + rng.uniform(-14, 14)
    lots: list[Lot] = []
    for upper, lower in ((top, middle), (middle, bottom)):
        x = left
        while x < right - 1:
            wide = rng.uniform(34, 66)
            edge = right if right - x - wide < 34 else x + wide
            box, outbuilding = (x, upper, edge, lower), rng.random() < 0.4
            house = _house(rng, box, to_street=-1 if upper == top else 1)
            lots.append(Lot(first + len(lots) + 1, box, house, outbuilding, rng.getrandbits(8)))
            x = edge
    return lots


def _house(rng: Random, lot: Box, to_street: int) -> Box:
    left, top, right, bottom = lot
    across, down = min(rng.uniform(15, 27), right - left - 10), rng.uniform(13, 22)
    x = rng.uniform(left + 4, right - across - 4)
    y = top + rng.uniform(14, 26) if to_street < 0 else bottom - down - rng.uniform(14, 26)
    return x, y, x + across, y + down


def _holds(box: Box, x: float, y: float) -> bool:
    return box[0] - 6 < x < box[2] + 6 and box[1] - 6 < y < box[3] + 6
