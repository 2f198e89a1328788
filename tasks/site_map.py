"""A page that shows where a site's photos were taken, in plan and in space: one file, no other address."""

from __future__ import annotations

import html
import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, NamedTuple

from tasks.site_folders import folder_colours
from tasks.site_photo import Fact, Position, SitePhoto, described, in_order, printable
from tasks.site_plane import Plane, Point, extent_of, plane_around

MEDIA_TYPE = "text/html; charset=utf-8"

_LEAST_M = 10.0  # the side of the smallest site
_PLACES = 2  # of metres
_NOWHERE = Position(0.0, 0.0)
_AS_THEY_ARE = {
    "latitude": "latitude",
    "longitude": "longitude",
    "altitude": "altitude_m",
    "reference": "altitude_ref",
    "relative": "relative_altitude_m",
    "direction": "direction_deg",
    "taken": "taken_at",
    "size": "size",
}


class Ground(NamedTuple):
    """How high the ground plane lies. altitude: metres, None when no photo says its own; origin: how it is known."""

    altitude: float | None
    origin: str


class _Shot(NamedTuple):
    """Where a photo was taken. above_m: over the ground plane; None: not known. settled: it shows where the site is."""

    point: Point
    above_m: float | None
    settled: bool


def site_map(title: str, photos: Iterable[SitePhoto]) -> bytes:
    """The page, UTF-8, of one site's photos; the same photos give the same bytes.

    It works from a folder, from a store or from a mail, asks nothing of any address, and shows 20,000 photos.
    """
    packed = json.dumps(_data(printable(title), in_order(photos)), ensure_ascii=False, separators=(",", ":"))
    filled = {"@TITLE@": html.escape(printable(title)), "@DATA@": packed.replace("<", "\\u003c")}
    page = resources.files("tasks").joinpath("site_map.html").read_text(encoding="utf-8")
    return re.sub("@TITLE@|@DATA@", lambda found: filled[found[0]], page).encode()


def ground_of(photos: Sequence[SitePhoto]) -> Ground:
    """The height of take-off where drones tell it (the median, as it drifts), else the lowest photo's."""
    sure = [photo for photo in photos if photo.settled] or photos
    told = [(photo.altitude_m, photo.relative_altitude_m) for photo in sure if photo.altitude_m is not None]
    starts = [altitude - relative for altitude, relative in told if relative is not None]
    if starts:
        return Ground(statistics.median(starts), "take-off")
    return Ground(min((altitude for altitude, _ in told), default=None), "lowest")


def _data(title: str, photos: list[SitePhoto]) -> dict[str, Any]:
    placed = [photo for photo in photos if photo.position]
    plane = plane_around([photo.position for photo in placed if photo.position] or [_NOWHERE])
    ground = ground_of(placed)
    shots = [_shot(photo, plane, ground) for photo in placed]
    return {
        "title": title,
        "total": len(photos),
        "ground": ground._asdict(),
        "extent": _extent([shot for shot in shots if shot.settled] or shots),
        "whole": _extent(shots),
        "unplaced": Counter(photo.flag or photo.status for photo in photos if not photo.position),
        **_columns(placed, shots),
    }


def _shot(photo: SitePhoto, plane: Plane, ground: Ground) -> _Shot:
    assert photo.position  # noqa: S101 - the caller chose such
    if photo.altitude_m is not None and ground.altitude is not None:
        above: float | None = photo.altitude_m - ground.altitude
    else:
        above = photo.relative_altitude_m
    return _Shot(plane.point(photo.position), above, photo.settled)


def _extent(shots: list[_Shot]) -> list[float]:
    """West, south, east, north, lowest, highest: metres of the plane."""
    flat = extent_of([shot.point for shot in shots] or [Point(0, 0)], least_m=_LEAST_M)
    heights = [0.0, *(shot.above_m for shot in shots if shot.above_m is not None)]
    return [round(side, _PLACES) for side in (*flat, min(heights), max(heights))]


def _columns(photos: list[SitePhoto], shots: list[_Shot]) -> dict[str, Any]:
    """The photos by columns, words by their numbers: a third of the bytes that a row for each would take."""
    facts = [described(photo) for photo in photos]
    folders = _folders(facts)
    numbers = {folder["name"]: number for number, folder in enumerate(folders)}
    flags, cameras = (list(dict.fromkeys(fact[name] for fact in facts)) for name in ("flag", "camera"))
    return {
        "folders": folders,
        "flags": flags,
        "cameras": cameras,
        "photos": {
            "folder": [numbers[fact["folder"]] for fact in facts],
            "name": [str(fact["path"])[len(folders[numbers[fact["folder"]]]["base"]) :] for fact in facts],
            "flag": [flags.index(fact["flag"]) for fact in facts],
            "camera": [cameras.index(fact["camera"]) for fact in facts],
            "east": [round(shot.point.east_m, _PLACES) for shot in shots],
            "north": [round(shot.point.north_m, _PLACES) for shot in shots],
            "up": [None if shot.above_m is None else round(shot.above_m, _PLACES) for shot in shots],
            "outliers": [number for number, fact in enumerate(facts) if fact["outlier"]],
            **{name: [fact[fact_name] for fact in facts] for name, fact_name in _AS_THEY_ARE.items()},
        },
    }


def _folders(facts: list[dict[str, Fact]]) -> list[dict[str, Any]]:
    """In the order of the legend. base: what the paths of all its photos begin with."""
    paths: dict[str, list[str]] = {}
    for fact in facts:
        paths.setdefault(str(fact["folder"]), []).append(str(fact["path"]))
    return [
        {"name": name, "colour": colour, "photos": len(paths[name]), "base": _base(paths[name])}
        for name, colour in folder_colours(paths).items()
    ]


def _base(paths: list[str]) -> str:
    common = os.path.commonprefix(paths)  # noqa: RUF071 - cut at a slash below
    return common[: common.rfind("/") + 1]
