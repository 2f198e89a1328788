"""Outliers of sites whose places are known in metres, anywhere on earth."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from tasks.site_outliers import find_outliers
from tasks.site_photo import Position, SitePhoto
from tasks.site_plane import Point, extent_of, plane_around, round_length
from tests.fakes.sites import photo, ring

ORIGINS = [(43.4674, -111.8851), (-36.8, 180.0), (-16.5, -179.99999), (78.2, 15.6), (0.0, 0.0), (-54.8, -68.3)]


def apart(photos: list[SitePhoto]) -> list[str]:
    flags = find_outliers(photos)
    assert len(flags) == len(photos)
    return [photo.path.rpartition("/")[2] for photo, flag in zip(photos, flags, strict=True) if flag]


@pytest.mark.parametrize("origin", ORIGINS)
def test_photos_far_from_their_site_are_found_anywhere(origin: tuple[float, float]) -> None:
    photos = ring(40, 30, 20, "Orbit", origin=origin)
    places = {"east": (260, 0), "west": (-260, 0), "north": (0, 260), "south": (0, -260), "abroad": (4e6, 3e6)}
    inside = [photo("near", 150, -150, 20, origin=origin), photo("in the middle", 0, 0, 20, origin=origin)]
    assert apart(photos + inside) == []
    assert apart(photos + [photo(name, *place, 20, origin=origin) for name, place in places.items()]) == list(places)


def test_altitude_alone_makes_an_outlier() -> None:
    photos = ring(30, 30, 20, "Orbit 1") + ring(30, 30, 40, "Orbit 2")
    assert apart([*photos, photo("high", 0, 0, 900), photo("low", 0, 0, -900), photo("unknown", 0, 0, None)]) == [
        "high",
        "low",
    ]
    unknown = [replace(one, altitude_m=None) for one in photos]
    assert apart([*unknown, photo("high", 0, 0, 900)]) == []  # by whom should it be judged?


@pytest.mark.parametrize("folder", ["Civil", "Access Road", "Civil/Orbit"])
def test_civil_and_road_set_no_bounds_but_are_judged(folder: str) -> None:
    orbit, along = ring(20, 30, 20, "Orbit"), [photo(f"{n}", 40 * n, 0, 20, folder=folder) for n in range(100)]
    assert apart(orbit + along) == [f"{n}" for n in range(5, 100)]  # the bound is at 190 m
    elsewhere = [replace(one, folder="Overview") for one in along]
    assert not any(name.isdigit() for name in apart(orbit + elsewhere))


def test_a_distrusted_position_sets_no_bounds_and_none_is_no_outlier() -> None:
    orbit = ring(20, 30, 20, "Orbit")
    void = [photo(f"{n}", 5000, n, 20, flag="void") for n in range(100)]
    lost = photo("lost", 0, 0, flag="null_island", latitude=0.0, longitude=0.0)
    none = photo("none", 0, 0, flag="no_gps", latitude=None, longitude=None)
    assert apart([*orbit, lost, none, *void]) == [f"{n}" for n in range(100)]


@pytest.mark.parametrize("many", [0, 1, 2, 3])
def test_a_few_photos_have_no_outliers(many: int) -> None:
    assert apart([photo(f"{n}", 10.0**n, 0) for n in range(many)]) == []
    assert apart([photo(f"{n}", 10.0**n, 0) for n in range(many)] + [photo("road", 1e6, 0, folder="Road")]) == []


def test_one_of_four_moves_a_quartile_and_one_of_nine_does_not() -> None:
    assert apart([photo("a", 0, 0), photo("b", 1, 0), photo("c", 0, 1), photo("d", 5000, 0)]) == []
    assert apart([photo(f"{n}", 0, n) for n in range(8)] + [photo("d", 5000, 0)]) == ["d"]


def test_photos_from_one_spot_bear_neighbours_within_the_receivers_accuracy() -> None:
    spot = [photo(f"{n}", 0, 0) for n in range(50)]
    assert apart([*spot, photo("near", 15, -15, 15), photo("there", 30, 0), photo("above", 0, 0, 30)]) == [
        "there",
        "above",
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(), st.sampled_from(ORIGINS), st.integers(4, 60))
def test_order_and_place_on_earth_make_no_difference(seed: int, origin: tuple[float, float], many: int) -> None:
    rng = random.Random(seed)
    places = [(f"{n}", rng.gauss(0, 30), rng.gauss(0, 30), rng.gauss(20, 5)) for n in range(many)]
    places += [("far", rng.choice([-1, 1]) * 5000, 100.0, 20.0)] if many > 12 else []
    here = {name: photo(name, e, n, h, origin=origin) for name, e, n, h in places}
    shuffled = rng.sample(list(here), len(here))
    found = apart([here[name] for name in shuffled])
    assert set(found) == set(apart(list(here.values())))
    assert ("far" in found) is (many > 12)


@pytest.mark.parametrize("origin", ORIGINS)
def test_the_plane_is_true_to_geodesics(origin: tuple[float, float]) -> None:
    rng, geod = random.Random(5), Geod(ellps="WGS84")
    places = [(rng.uniform(-500, 500), rng.uniform(-500, 500)) for _ in range(40)]
    positions = [
        Position(one.latitude, one.longitude)
        for e, n in places
        if (one := photo("", e, n, origin=origin)).latitude and one.longitude
    ]
    plane = plane_around(positions)
    origin_point = plane.point(Position(*origin))
    for position in positions:
        _, _, metres = geod.inv(origin[1], origin[0], position.longitude, position.latitude)
        point = plane.point(position)
        measured = ((point.east_m - origin_point.east_m) ** 2 + (point.north_m - origin_point.north_m) ** 2) ** 0.5
        assert measured == pytest.approx(metres, rel=1e-3, abs=0.01)


def test_the_middle_is_not_moved_by_the_meridian_nor_by_one_far_away() -> None:
    around = [Position(-16.5, longitude) for longitude in (179.9, 179.95, -179.95, -179.9, -179.85, 179.92, -179.99)]
    assert abs(plane_around(around).origin.longitude) == pytest.approx(179.99, abs=0.02)
    assert abs(plane_around([*around, Position(50, 0)]).origin.longitude) == pytest.approx(179.97, abs=0.03)
    assert plane_around([Position(1, 7)] * 3).origin == Position(1, 7)


def test_extent_and_round_lengths() -> None:
    assert extent_of([Point(1, 2)], least_m=10) == (-4, -3, 6, 7)
    assert extent_of([Point(0, 0), Point(40, 2)], least_m=10) == (0, -4, 40, 6)
    assert [round_length(x) for x in (1, 1.99, 2, 4.9, 5, 99, 100, 0.3, 1e6, 0.02)] == pytest.approx(
        [1, 1, 2, 2, 5, 50, 100, 0.2, 1e6, 0.02]
    )
