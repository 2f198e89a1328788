"""How a search of a register is divided until each query delivers all its hits, and which pages a query has. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from tasks.register_profile import RegisterProfile, Search
from tasks.register_requests import Band, Filters

Values = Mapping[str, Collection[Any]]
"""Filter -> the values that hits were seen to have of it."""

ALWAYS = ("municipality", "address_type")
"""Filters of every query: one search is of one of each."""

ROOM = 1.5
"""Bands are made for so many times the hits there are: prices seen on some pages do not lie as all of them do."""


def filters_from(stored: Mapping[str, Any]) -> Filters:
    """As they were kept in a row, as JSON: a band is a list there, and names have lost their order."""
    names = sorted(stored, key=lambda name: (name not in ALWAYS, name))
    return {name: (value[0], value[1]) if isinstance(value := stored[name], list) else value for name in names}


def label(filters: Filters) -> str:
    """`villa in København, zip_code 2100, price 100 to 200` for people."""
    parts = [f"{name} {_written(value)}" for name, value in filters.items() if name not in ALWAYS]
    return ", ".join([f"{filters['address_type']} in {filters['municipality']}", *parts])


def _written(value: str | Band) -> str:
    if isinstance(value, str):
        return value
    first, last = value
    if first is None:
        return f"up to {last}"
    return f"{first} and more" if last is None else f"{first} to {last}"


def is_over_cap(search: Search, total: int | None) -> bool:
    """Whether a query of so many hits does not deliver all of them."""
    return search.cap is not None and total is not None and total > search.cap


def pages_of(search: Search, total: int) -> int:
    """Pages that a query of so many hits has, as far as it delivers them; at least one."""
    size = search.paging.size
    there = math.ceil(total / size)
    return max(1, there if search.cap is None else min(there, search.cap // size))


def divide(
    profile: RegisterProfile, filters: Filters, total: int, values: Values, tried: Collection[str] = ()
) -> list[Filters]:
    """The parts of a query over the cap, by the first filter of `partition` that can divide it and was not tried;
    none: it cannot be.

    Parts do not overlap. Together they may lack hits that have no value of that filter, or one that was not seen.
    """
    search = profile.search
    for name in (name for name in search.partition if name not in tried):
        seen = values.get(name, ())
        if isinstance(search.filters[name], str):
            parts = _by_value(seen) if name not in filters else []
        else:
            band = filters.get(name, (None, None))
            assert not isinstance(band, str)  # noqa: S101 - two parameters take a band
            parts = list(_by_band(band, _numbers(seen), math.ceil(total / (search.cap or total) * ROOM)))
        if len(parts) > 1:
            return [{**filters, name: part} for part in parts]
    return []


def _by_value(seen: Iterable[Any]) -> list[Any]:
    return sorted({str(value) for value in seen})


def _by_band(band: Band, seen: list[int], number: int) -> Iterator[Band]:
    """At least two bands that hold about as many of the numbers each; one where they cannot be told apart."""
    first, last = band
    number = max(2, number)
    cuts = sorted({seen[len(seen) * at // number] for at in range(1, number)}) if seen else []
    for cut in cuts:
        end = cut if cut != last else cut - 1  # many of the same value: the band before it, and it alone
        if (first is None or end >= first) and (last is None or end < last):
            yield first, end
            first = end + 1
    yield first, last


def _numbers(seen: Iterable[Any]) -> list[int]:
    numbers = []
    for value in seen:
        try:
            numbers.append(math.floor(float(value)))
        except (TypeError, ValueError, OverflowError):
            continue
    return sorted(numbers)
