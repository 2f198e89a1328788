"""What the folders of a site hold, by their names, and the colour each has on maps. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum


class Category(StrEnum):
    """What a folder's photos show, in the order of the legend."""

    ORBIT = "orbit"
    """Flown around the structure."""
    SCAN = "scan"
    """Flown over the ground in lines."""
    CENTER = "center"
    """Of the structure's middle."""
    DOWNLOOK = "downlook"
    UPLOOK = "uplook"
    CIVIL = "civil"
    """Works on the ground around the structure."""
    ROAD = "road"
    """The way to the site: often far from it."""
    OTHER = "other"


APART = frozenset({Category.CIVIL, Category.ROAD})
"""Taken around the site rather than of it: they do not say where the site is."""

COLOURS = {  # Okabe and Ito's, told apart by those who see fewer colours; red is left for outliers
    Category.ORBIT: "#0072b2",
    Category.SCAN: "#009e73",
    Category.CENTER: "#cc79a7",
    Category.DOWNLOOK: "#56b4e9",
    Category.UPLOOK: "#e69f00",
    Category.CIVIL: "#8c5a2b",
    Category.ROAD: "#343a40",
    Category.OTHER: "#868e96",
}

_RANKS = {category: rank for rank, category in enumerate(Category)}
_SHADES = 0.5  # of the way to white or black, at most
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORDS = {  # in names of small letters and single blanks
    Category.CIVIL: r"civil",
    Category.ROAD: r"(?<!b)road",  # not broadcast, not abroad
    Category.ORBIT: r"orbit",
    Category.SCAN: r"\bscan(?!d)",  # not Tuscany, not Scandia
    Category.DOWNLOOK: r"\bdown ?look",
    Category.UPLOOK: r"\bup ?look",
    Category.CENTER: r"\bcent(er|re)",
}
_NAMED = [(category, re.compile(words)) for category, words in _WORDS.items()]


def category_of(folder: str) -> Category:
    """What a folder below its site is named for, in any case and spelling (`Down-Look 2`, `AccessRoads`).

    folder  path below the site's folder; empty for the site's own

    Civil or road anywhere in the path decides; else the innermost part that has one of the words.
    """
    found = [category for part in folder.split("/") if (category := _named(part))]
    return next((category for category in found if category in APART), found[-1] if found else Category.OTHER)


def _named(part: str) -> Category | None:
    plain = re.sub(r"[\W\d_]+", " ", _CAMEL.sub(" ", part)).lower()
    return next((category for category, words in _NAMED if words.search(plain)), None)


def legend_order(folder: str) -> tuple[int, list[str | int]]:
    """Sort key: by category, then by name with its numbers as numbers (`Orbit 40ft` before `Orbit 120ft`)."""
    parts = re.split(r"([0-9]+)", folder.lower())
    return _RANKS[category_of(folder)], [int(part) if n % 2 else part for n, part in enumerate(parts)]


def folder_colours(folders: Iterable[str]) -> dict[str, str]:
    """folder -> `#rrggbb`, in the order of the legend: shades of its category's colour, from dark to light."""
    alike: dict[Category, list[str]] = {}
    for folder in sorted(set(folders), key=legend_order):
        alike.setdefault(category_of(folder), []).append(folder)
    return {
        folder: _shade(COLOURS[category], (2 * place + 1) / len(names) - 1)
        for category, names in alike.items()
        for place, folder in enumerate(names)
    }


def _shade(colour: str, lightness: float) -> str:
    """The colour itself at 0, on the way to black down to -1, to white up to 1."""
    goal, share = (255 if lightness > 0 else 0), abs(lightness) * _SHADES
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(part + (goal - part) * share):02x}" for part in parts)
