"""Names typed in the field, and names that nobody should have typed."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.site_names import is_photo, parse_site, store_folder
from tasks.store_objects import check_key
from tests.fakes.sites import NASTY

MAY_6 = date(2024, 5, 6)


@pytest.mark.parametrize(
    ("folder", "site_id", "day", "client"),
    [
        ("10234567-2024-05-06-Acme", "10234567", MAY_6, "Acme"),
        ("10234567-20240506-Acme Tower-West", "10234567", MAY_6, "Acme Tower-West"),
        ("10234567-05062024-Acme", "10234567", MAY_6, "Acme"),
        ("10234567_05.06.24_Acme", "10234567", MAY_6, "Acme"),
        ("10234567-5-6-2024-Acme", "10234567", MAY_6, "Acme"),
        ("10234567-16-05-2024-Acme", "10234567", date(2024, 5, 16), "Acme"),
        ("10234567-16052024", "10234567", date(2024, 5, 16), ""),
        ("10234567-050624-Acme", "10234567", MAY_6, "Acme"),
        ("10234567-240516-Acme", "10234567", date(2024, 5, 16), "Acme"),
        ("0012345678 6 May 2024 Acme", "0012345678", MAY_6, "Acme"),
        ("10234567-06MAY24-Acme", "10234567", MAY_6, "Acme"),
        ("10234567-May 6th, 2024-Acme", "10234567", MAY_6, "Acme"),
        ("10234567-2024-september-30-Acme", "10234567", date(2024, 9, 30), "Acme"),
        ("2024-05-06 10234567 Acme", "10234567", MAY_6, "Acme"),
        ("Site 10234567 - Acme - 2024-05-06 - West", "10234567", MAY_6, "Site Acme West"),
        ("10234567-Acme", "10234567", None, "Acme"),
        ("10234567-2024-13-45-Acme", "10234567", None, "2024-13-45-Acme"),
        ("10234567-2023-02-29-Acme", "10234567", None, "2023-02-29-Acme"),
        ("10234567-Marina 5 24", "10234567", None, "Marina 5 24"),
        ("10234567", "10234567", None, ""),
        ("12345678901 1234567 123456789-x", "123456789", None, "12345678901 1234567 x"),
        ("20240506-10234567-Acme", "20240506", None, "10234567-Acme"),
    ],
)
def test_site_date_and_client(folder: str, site_id: str, day: date | None, client: str) -> None:
    site = parse_site("Bob", folder)
    assert site
    assert (site.site_id, site.day, site.client) == (site_id, day, client)
    assert site.path == f"Bob/{folder}"


@pytest.mark.parametrize("folder", ["", "Acme", "1234567-Acme", "12345678901", "2024-05-06", "١٢٣٤٥٦٧٨-Acme"])
def test_what_is_no_site(folder: str) -> None:
    assert parse_site("Bob", folder) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((f"DJI_0001.{ending}", True) for ending in "jpg JPEG Png tif TIFF dng HEIC webp".split()),
        *(
            (name, False)
            for name in ("a.mp4", "a.jpg.part", "jpg", ".jpg", "a.jpgx", "._DJI_0001.JPG", "", "a.", "a.cr2")
        ),
        *((name, True) for name in (".hidden.jpg", "a b\n'\".JPG", "caf\udce9.jpg")),
    ],
)
def test_photos_by_their_ending(name: str, expected: bool) -> None:
    assert is_photo(name) is expected


def test_a_plain_site_keeps_its_name_in_the_store() -> None:
    assert store_folder("Bob/10234567-2024-05-06-Acme") == "photos/Bob/10234567-2024-05-06-Acme"


@given(st.lists(st.text(st.characters(codec=None), max_size=300), min_size=1, max_size=3))
def test_every_site_has_a_key_that_every_store_takes(parts: list[str]) -> None:
    key = store_folder("/".join(parts))
    assert check_key(f"{key}/photos.geojson")
    assert re.fullmatch(r"photos(/[\w.-]{1,140})+", key, re.ASCII)


def test_no_two_sites_share_a_key() -> None:
    names = [*NASTY, "a b", "a_b", "a  b", "A_B", ".a_b", "", "x" * 120, "x" * 121, "x" * 122, "a/b", "a_/b"]
    assert len({store_folder(name) for name in names}) == len(names)
