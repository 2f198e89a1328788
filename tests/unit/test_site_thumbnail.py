"""The picture for reports: its pixels against the places they stand for."""

from __future__ import annotations

import io
import random
from dataclasses import replace

import pytest
from PIL import Image, ImageColor

from tasks import site_thumbnail as thumbnail
from tasks.site_folders import COLOURS, Category
from tasks.site_photo import SitePhoto
from tests.fakes.sites import NASTY, nastily_named, photo, ring, tower

RED = thumbnail._ALARM
PLAN = (24, 72, 24 + 660, 72 + 440)


def picture(photos: list[SitePhoto], title: str = "Bob/10234567-Acme") -> Image.Image:
    return Image.open(io.BytesIO(thumbnail.site_thumbnail(title, photos))).convert("RGB")


def places_of(
    image: Image.Image, colour: tuple[int, ...], box: tuple[int, int, int, int] = PLAN
) -> list[tuple[int, int]]:
    """Pixels of the plan that are of a colour, or as near as a palette of 256 comes."""
    part = image.crop(box)
    pixels = part.load()
    assert pixels

    def near(found: object) -> bool:
        assert isinstance(found, tuple)
        return all(abs(a - b) <= 8 for a, b in zip(found, colour, strict=True))

    return [(x, y) for x in range(part.width) for y in range(part.height) if near(pixels[x, y])]


def middle(places: list[tuple[int, int]]) -> tuple[float, float]:
    xs, ys = zip(*places, strict=True)
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def test_photos_lie_where_they_were_taken_at_the_bars_scale() -> None:
    corners = {"Orbit": (0, 0), "Scan": (100, 0), "Center": (0, 60), "Uplook": (100, 60)}
    image = picture([photo("a", *place, folder=name) for name, place in corners.items()])
    seen = {}
    for name, category in zip(corners, (Category.ORBIT, Category.SCAN, Category.CENTER, Category.UPLOOK), strict=True):
        seen[name] = middle(
            places_of(image, ImageColor.getrgb(COLOURS[category]), (24 + 35, 72 + 35, 24 + 625, 72 + 425))
        )
    scale = (seen["Scan"][0] - seen["Orbit"][0]) / 100
    assert scale == pytest.approx(5.8, abs=0.05)  # 580 px for 100 m
    assert seen["Orbit"][1] - seen["Center"][1] == pytest.approx(60 * scale, abs=1.5)
    assert seen["Uplook"] == pytest.approx((seen["Scan"][0], seen["Center"][1]), abs=1)
    bar = [x for x, y in places_of(image, thumbnail._INK) if y in (427, 428)]
    assert (max(bar) - min(bar)) / scale == pytest.approx(20, abs=0.5)


def test_a_lone_outlier_among_twenty_thousand_is_seen() -> None:
    photos = [one for height in range(20) for one in ring(1000, 30 + height, 3 * height, f"Orbit {height}")]
    assert places_of(picture(photos), RED) == []
    inside = places_of(picture([*photos, photo("in", 0, 0, 900, outlier=True)]), RED)
    assert middle(inside) == pytest.approx((330, 220), abs=2)
    beyond = places_of(picture([*photos, photo("out", 5000, 0, outlier=True)]), RED)
    assert len(beyond) > 20
    assert middle(beyond)[0] > 640
    assert middle(beyond)[1] == pytest.approx(220, abs=4)


def test_an_outlier_does_not_shrink_the_site() -> None:
    site = ring(40, 30, 20, "Orbit")
    blue = ImageColor.getrgb(COLOURS[Category.ORBIT])
    alone, beside = (places_of(picture(photos), blue) for photos in (site, [*site, photo("x", 9e5, 0, outlier=True)]))
    assert middle(alone) == pytest.approx(middle(beside), abs=1)


@pytest.mark.parametrize("title", [*NASTY, "", "W" * 500, "\n"])
def test_any_title_fits(title: str) -> None:
    image = picture(nastily_named(), title)
    assert image.size == picture([]).size
    margin = image.crop((image.width - 20, 0, image.width, 60))
    assert margin.getcolors() == [(20 * 60, (255, 255, 255))]


def test_the_same_photos_give_the_same_bytes() -> None:
    photos = tower()
    made = thumbnail.site_thumbnail("A", photos)
    assert made == thumbnail.site_thumbnail("A", random.Random(1).sample(photos, len(photos)))
    assert made != thumbnail.site_thumbnail("A", [replace(one, outlier=False) for one in photos])
    assert len(made) < 60_000


@pytest.mark.parametrize("photos", [[], tower()[-3:], [photo("a", 0, 0)], [photo("a", 0, 0, outlier=True)]])
def test_hardly_any_photos(photos: list[SitePhoto]) -> None:
    placed = [one for one in photos if one.position]
    blue = places_of(picture(photos), ImageColor.getrgb(COLOURS[Category.ORBIT]))
    assert bool(blue) is bool(placed)
