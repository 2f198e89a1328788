"""All homes of a sample register at a version of it: which there are, what happened to them, what tables must hold.

Each version changes one home in a hundred, takes out one in five hundred and adds one in a thousand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from tasks.errors import ConfigurationError
from tasks.sample.chance import dice
from tasks.sample.register_homes import Event, Home, event_of, home_id, make_home
from tasks.sample.register_listings import Seat, Values
from tasks.sample.register_towns import TOWNS, Town, number_in

VILLA, CONDO = "villa", "condo"
CHANGED, VANISHED = 100, 500
"""One in so many, with each version."""

_OTHERS = 10
"""For ten villas there is a condo beside."""

_NEW_FROM, _NEW_A_TOWN = 10_000_000, 100_000

Rows = dict[str, list[Values]]
_SHARED = ("municipalities", "provinces", "roads", "zip_codes", "cities", "places")


class _Block(NamedTuple):
    """A town's homes: numbers from `first`, the villas before the condos."""

    first: int
    town: Town
    villas: int

    @property
    def homes(self) -> int:
        return self.villas + self.villas // _OTHERS

    @property
    def new_a_version(self) -> int:
        return max(1, self.villas // 1000)


class Land:
    """The register's homes.

    villas  how many, over all towns, or of each town by its name; with them come condos, a tenth of that
    """

    def __init__(self, villas: int | Mapping[str, int], seed: int = 7) -> None:
        self.seed = seed
        self._blocks: list[_Block] = []
        first = 0
        for name, number in (_spread(villas) if isinstance(villas, int) else villas).items():
            if name not in TOWNS:
                raise ConfigurationError(f"there is no town {name!r}; use one of {', '.join(TOWNS)}.")
            self._blocks.append(_Block(first, TOWNS[name], number))
            first += self._blocks[-1].homes
        self._firsts = [block.first for block in self._blocks]
        self._size = first
        self.numbers = lru_cache(maxsize=64)(self._numbers)
        self.events = lru_cache(maxsize=200_000)(self._events)

    @property
    def towns(self) -> list[str]:
        """Names of the towns that have homes."""
        return [block.town.name for block in self._blocks]

    def find(self, item: str) -> int | None:
        """The number of the home with this id; None where there was never one."""
        number = number_in(item)
        if number is None or self.seat(number) is None or home_id(self.seed, number) != item:
            return None
        return number

    def exists(self, number: int, version: int) -> bool:
        """Whether the register has it at that version."""
        seat = self.seat(number)
        return seat is not None and self._since(number) <= version and not self._is_gone(number, version)

    def home(self, number: int, version: int) -> Home:
        """One that exists."""
        seat = self.seat(number)
        assert seat is not None  # noqa: S101 - asked for what exists
        return make_home(self.seed, seat, self.events(number, version))

    def _numbers(self, town: str, address_type: str, version: int) -> tuple[int, ...]:
        """The homes of a town and type at a version, nearly in order of their addresses."""
        found: list[int] = []
        for at, block in enumerate(self._blocks):
            if block.town.name == town:
                villas = block.first + block.villas
                bounds = (block.first, villas) if address_type == VILLA else (villas, block.first + block.homes)
                found += range(*bounds) if address_type in (VILLA, CONDO) else ()
                if address_type == VILLA:
                    new = _NEW_FROM + at * _NEW_A_TOWN
                    found += range(new, new + version * block.new_a_version)
        return tuple(number for number in found if not self._is_gone(number, version))

    def seat(self, number: int) -> Seat | None:
        """Where the home of that number stands; None where there is never one."""
        if number >= _NEW_FROM:
            at, place = divmod(number - _NEW_FROM, _NEW_A_TOWN)
            if at >= len(self._blocks):
                return None
            block = self._blocks[at]
            return Seat(number, block.town, block.homes + place, VILLA)
        if not 0 <= number < self._size:
            return None
        block = self._blocks[bisect_right(self._firsts, number) - 1]
        place = number - block.first
        return Seat(number, block.town, place, VILLA if place < block.villas else CONDO)

    def _since(self, number: int) -> int:
        """The first version that has it."""
        if number < _NEW_FROM:
            return 0
        at, place = divmod(number - _NEW_FROM, _NEW_A_TOWN)
        return 1 + place // self._blocks[at].new_a_version

    def _is_gone(self, number: int, version: int) -> bool:
        later = range(self._since(number) + 1, version + 1)
        return any(dice(self.seed + 9, number * 1000 + v) % VANISHED == 3 for v in later)

    def _events(self, number: int, version: int) -> tuple[Event, ...]:
        events: tuple[Event, ...] = ()
        for later in range(self._since(number) + 1, version + 1):
            if dice(self.seed + 8, number * 1000 + later) % CHANGED == 0:
                events += (event_of(self.seed, number, later, events),)
        return events

    # --- what tests compare with ---

    def ids(self, version: int, towns: Iterable[str] = (), types: Iterable[str] = (VILLA,)) -> list[str]:
        """Ids of the homes of these towns (all, without) and types."""
        return [home_id(self.seed, number) for number in self._chosen(version, towns, types)]

    def truth(self, version: int, towns: Iterable[str] = (), types: Iterable[str] = (VILLA,)) -> Rows:
        """Every row the tables must have once these homes are loaded, as typed values; rows of a property have its
        `property_id`. A value of None is NULL, and columns that are not named are NULL too."""
        rows: Rows = {}
        shared: dict[tuple[str, str], Values] = {}
        for number in self._chosen(version, towns, types):
            home = self.home(number, version)
            item = home["properties"][0]["id"]
            for table, there in home.items():
                if table in _SHARED:
                    shared |= {(table, str(row.get("code") or row.get("id") or row["slug"])): row for row in there}
                else:
                    owned = there if table == "properties" else [{"property_id": item, **row} for row in there]
                    rows.setdefault(table, []).extend(owned)
        for (table, _), row in shared.items():
            rows.setdefault(table, []).append(row)
        return rows

    def changed(
        self, before: int, after: int, towns: Iterable[str] = (), types: Iterable[str] = (VILLA,)
    ) -> dict[str, set[str]]:
        """Ids of the homes that are there at both versions and differ -> what happened to them in between."""
        towns, types = list(towns), list(types)
        both = set(self._chosen(before, towns, types)) & set(self._chosen(after, towns, types))
        happened = {number: self.events(number, after)[len(self.events(number, before)) :] for number in both}
        return {home_id(self.seed, number): set(map(str, events)) for number, events in happened.items() if events}

    def _chosen(self, version: int, towns: Iterable[str], types: Iterable[str]) -> Iterator[int]:
        for town in list(towns) or self.towns:
            for address_type in types:
                yield from self.numbers(town, address_type, version)


def _spread(villas: int) -> dict[str, int]:
    """Two of five in the first town, the rest over the others alike."""
    first, *others = TOWNS
    each = villas * 3 // 5 // len(others)
    return {first: villas - each * len(others), **dict.fromkeys(others, each)}
