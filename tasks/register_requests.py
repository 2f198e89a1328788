"""What a profile asks a register, and what the answers to searches say. Pure: whoever fetches does so elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urljoin

from tasks.errors import ConfigurationError
from tasks.records import Reason
from tasks.register_profile import RegisterProfile
from tasks.register_rows import BadRecord, parse_answer
from tasks.register_values import INTEGER_MAX, Unusable, read_code

Band = tuple[int | None, int | None]
"""From and to, both included; None: open."""

Filters = Mapping[str, str | Band]
"""Filter of the profile -> its value."""


@dataclass(frozen=True, slots=True)
class Hits:
    """One page of a search.

    ids     of the hits that have one, as the tables name them; the order is the register's
    total   hits of the whole query, as the register says; None where it does not
    next    cursor of the next page; None on the last, and where pages are counted
    values  filter -> the values that the hits have of it: what a search over the cap can be divided by
    """

    ids: tuple[str, ...]
    total: int | None
    next: str | None
    values: Mapping[str, tuple[Any, ...]]


def search_url(profile: RegisterProfile, filters: Filters, page: int | str | None = None) -> str:
    """Address of one page of a search: its number (1 is the first), or its cursor; None is the first page.

    Raises ConfigurationError for a filter that the register does not have.
    """
    search, paging = profile.search, profile.search.paging
    parameters = {**search.parameters, **dict(_parameters(profile, filters)), paging.size_parameter: str(paging.size)}
    if paging.kind == "page":
        parameters[paging.parameter] = str(int(page or 1) - 1 + paging.first)
    elif page is not None:
        parameters[paging.parameter] = str(page)
    return f"{urljoin(profile.api_url, search.path)}?{urlencode(parameters)}"


def detail_url(profile: RegisterProfile, item: str) -> str:
    """Address of one property, by its id in the tables."""
    own = quote(item.removeprefix(profile.id_prefix), safe="")
    return urljoin(profile.api_url, profile.detail.path.replace("{id}", own))


def read_hits(profile: RegisterProfile, body: bytes) -> Hits:
    """The hits in the answer to a search. One without an id that a row can hold is left out where there is a total,
    which tells that it is missing.

    Raises TransientError where it is no JSON, BadRecord where it is not what the profile says, or no hit has an id.
    """
    search, answer = profile.search, parse_answer(body)
    items = _at(answer, search.items)
    if type(items) is not list or not all(type(hit) is dict for hit in items):
        raise BadRecord(Reason.WRONG_TYPE, search.items, "is no list of objects")
    total = _at(answer, search.total) if search.total else None
    if search.total and (type(total) is not int or not 0 <= total <= INTEGER_MAX):
        raise BadRecord(Reason.WRONG_TYPE, search.total, "is no count")
    ids = tuple(f"{profile.id_prefix}{own}" for hit in items if _is_code(own := _at(hit, search.id)))
    if len(ids) < len(items) and (not ids or total is None):
        raise BadRecord(Reason.MISSING_FIELD, search.id, "is missing in a hit, or is no id")
    onward = _at(answer, search.paging.next) if search.paging.next else None
    values = {
        name: tuple(value for hit in items if _is_code(value := _at(hit, path)) or _is_finite(value))
        for name, path in search.values.items()
    }
    return Hits(ids, total, None if onward in (None, "") else str(onward), values)


def _parameters(profile: RegisterProfile, filters: Filters) -> Iterator[tuple[str, str]]:
    for name, value in filters.items():
        parameter = profile.search.filters.get(name)
        if parameter is None or isinstance(parameter, str) != isinstance(value, str):
            raise ConfigurationError(f"the register {profile.source} has no filter {name!r} like {value!r}.")
        if isinstance(parameter, str):
            yield parameter, str(value)
        else:
            yield from ((each, str(end)) for each, end in zip(parameter, value, strict=True) if end is not None)


def _is_code(value: Any) -> bool:
    """Whether it is a text or number that rows and addresses can hold, as they are."""
    try:
        return "\\" not in read_code(value)  # nor NULL, which is what an empty text becomes
    except Unusable:
        return False


def _is_finite(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _at(value: Any, path: str) -> Any:
    for step in path.split("."):
        value = value.get(step) if type(value) is dict else None
    return value
