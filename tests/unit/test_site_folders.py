"""What folders are named for, and their colours."""

from __future__ import annotations

import colorsys

import pytest

from tasks.site_folders import COLOURS, Category, category_of, folder_colours


@pytest.mark.parametrize(
    ("folder", "category"),
    [
        *(
            (name, Category.ORBIT)
            for name in ("orbit", "01_ORBIT_120ft", "Orbits", "TowerOrbit", "Orbit/120ft", "orbit\n2")
        ),
        *((name, Category.SCAN) for name in ("Scan", "SCANS 2", "ScanNorth", "Laser scan", "scanning", "Orbit/Scan")),
        *((name, Category.CENTER) for name in ("Center", "centre line", "TowerCenter", "CENTRE")),
        *(
            (name, Category.DOWNLOOK)
            for name in ("Downlook", "down-look 3", "DownLook", "DOWN_LOOK", "Downlook Center")
        ),
        *((name, Category.UPLOOK) for name in ("uplook", "Up Look", "UPLOOKS")),
        *((name, Category.CIVIL) for name in ("civil", "CIVIL works", "Civil/Orbit", "CivilScan", "Scan/civil/Center")),
        *(
            (name, Category.ROAD)
            for name in ("Road", "access roads", "AccessRoad", "accessroad", "Road/Scan", "Crossroads")
        ),
        *(
            (name, Category.OTHER)
            for name in ("", "Photos", "Broadcast", "abroad", "Tuscany", "Scandia", "percent", "100MEDIA")
        ),
    ],
)
def test_category_by_the_words_in_a_name(folder: str, category: Category) -> None:
    assert category_of(folder) is category


def test_one_folder_of_a_category_has_its_colour() -> None:
    folders = {"Orbit", "scan 1", "Center", "Downlook", "Uplook", "Civil", "Road", "Photos"}
    assert folder_colours(folders) == {name: COLOURS[category_of(name)] for name in folders}
    assert len(set(COLOURS.values())) == len(Category)


def test_folders_of_a_category_are_shades_in_the_order_of_their_numbers() -> None:
    names = [f"Orbit {feet}ft" for feet in (40, 80, 120, 160, 1000)]
    colours = folder_colours([*reversed(names), "Scan"])
    assert list(colours) == [*names, "Scan"]
    parts = [tuple(int(colours[name][at : at + 2], 16) / 255 for at in (1, 3, 5)) for name in names]
    hues, lightness, _ = zip(*(colorsys.rgb_to_hls(*part) for part in parts), strict=True)
    assert list(lightness) == sorted(lightness)
    assert len(set(lightness)) == 5
    assert max(hues) - min(hues) < 0.02
    assert 0.1 < lightness[0] < lightness[-1] < 0.8
