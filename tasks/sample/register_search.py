"""Searches of the sample register: who matches, and the pages that deliver it, rightly or not quite."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from tasks.sample.chance import dice
from tasks.sample.register_homes import valuation
from tasks.sample.register_land import Land
from tasks.sample.register_towns import HOMES_A_ROAD, TOWNS, road_of


class Query(NamedTuple):
    """What a search asks for; an empty filter asks for all."""

    towns: tuple[str, ...]
    types: tuple[str, ...]
    zips: tuple[str, ...] = ()
    lowest: int | None = None
    highest: int | None = None


class Finder:
    """Finds homes.

    shifting  the order moves a little from request to request: pages overlap, and miss what lies between
    """

    def __init__(self, land: Land, *, shifting: bool = False) -> None:
        self._land, self._shifting = land, shifting
        self._asked = 0
        self.matching = lru_cache(maxsize=512)(self._matching)

    def slice(self, query: Query, version: int, start: int, size: int) -> Sequence[int]:
        """Numbers of the hits from `start` on."""
        found = self.matching(query, version)
        if self._shifting and start:
            self._asked += 1
            start += dice(41, self._asked) % 5 - 2
        return found[start : start + size]

    def _matching(self, query: Query, version: int) -> tuple[int, ...]:
        """Numbers of all hits, in the register's order."""
        found: list[int] = []
        for town in query.towns or self._land.towns:
            for address_type in query.types:
                found += self._land.numbers(town, address_type, version) if town in TOWNS else ()
        if query.zips:
            found = [number for number in found if self._zip(number) in query.zips]
        if query.lowest is not None or query.highest is not None:
            found = [number for number in found if self._in_band(query, number, version)]
        return tuple(found)

    def _zip(self, number: int) -> str:
        seat = self._land.seat(number)
        return "" if seat is None else str(road_of(seat.town, seat.at // HOMES_A_ROAD).zip_code)

    def _in_band(self, query: Query, number: int, version: int) -> bool:
        """Homes without a valuation are in no band."""
        value = valuation(self._land.seed, number, self._land.events(number, version))
        low = 0 if query.lowest is None else query.lowest
        return value is not None and low <= value and (query.highest is None or value <= query.highest)
