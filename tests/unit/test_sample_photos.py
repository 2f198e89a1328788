"""The generated photos are what they claim to be: pictures to Pillow, positions to the reader and to exifread."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import exifread
import pytest
from PIL import Image, ImageChops

from tasks.exif import HEAD_BYTES, Clock, Flag, NeedMore, PhotoFacts, Reader
from tasks.sample.photo_tags import Shot
from tasks.sample.photos import PICTURES, PhotoKind, make_photo

TAKEN = datetime(2024, 5, 6, 23, 8, 9, tzinfo=timezone(timedelta(hours=-5, minutes=-30)))
SHOT = Shot((-33.8567844, 151.2152967), -12.5, 52.3, 187.25, TAKEN)
exifread.exif_log.get_logger().setLevel(logging.CRITICAL)


def facts_of(content: bytes) -> PhotoFacts:
    reader = Reader(len(content))
    answer = reader.feed(0, content[:HEAD_BYTES])
    while isinstance(answer, NeedMore):
        answer = reader.feed(answer.offset, content[answer.offset : answer.offset + answer.length])
    return answer


@pytest.mark.parametrize("kind", PhotoKind)
def test_a_photo_says_what_its_shot_says(kind: PhotoKind) -> None:
    facts = facts_of(make_photo(kind, SHOT))
    assert (facts.flag, facts.clock, facts.taken_at) == (Flag.OK, Clock.GPS, TAKEN.astimezone(UTC))
    assert (facts.latitude, facts.longitude) == pytest.approx(SHOT.position, abs=1e-9)
    assert (facts.altitude_m, facts.relative_altitude_m, facts.direction_deg) == (-12.5, 52.3, 187.25)
    assert facts.camera == "DJI FC6310"


@pytest.mark.parametrize("kind", PhotoKind)
def test_a_shot_may_say_little(kind: PhotoKind) -> None:
    facts = facts_of(make_photo(kind, Shot(None, camera=("Canon", "Canon EOS 7D"))))
    assert facts == PhotoFacts(Flag.NO_GPS, camera="Canon EOS 7D")
    local = facts_of(make_photo(kind, Shot((1.0, 2.0), taken_at=TAKEN.replace(tzinfo=None))))
    assert (local.clock, local.taken_at, local.altitude_m) == (Clock.LOCAL, TAKEN.replace(tzinfo=None), None)
    assert facts_of(make_photo(kind, Shot(None, taken_at=TAKEN))).taken_at == TAKEN


@pytest.mark.parametrize("kind", PhotoKind)
@pytest.mark.parametrize("picture", [0, 7])
def test_a_photo_is_a_picture(kind: PhotoKind, picture: int) -> None:
    """A decoder that is asked for all of it finds no fault, and the picture is the kind's own."""
    names = {PhotoKind.JPEG: "JPEG", PhotoKind.PNG: "PNG", PhotoKind.TIFF: "TIFF", PhotoKind.WEBP: "WEBP"}
    with Image.open(io.BytesIO(make_photo(kind, SHOT, picture))) as image:
        image.load()
        assert (image.format, image.size) == (names[kind], (320, 240))
        assert image.getexif().get_ifd(0x8825)[1] == "S"
        pixels = image.convert("RGB")
    reference = Image.open(io.BytesIO(make_photo(PhotoKind.PNG, SHOT, picture)))
    assert max(high for _, high in ImageChops.difference(pixels, reference).getextrema()) < 120


def test_the_same_shot_gives_the_same_bytes_and_other_pictures_differ() -> None:
    for kind in PhotoKind:
        made = [make_photo(kind, SHOT, picture) for picture in range(PICTURES)]
        assert len(set(made)) == PICTURES
        assert make_photo(kind, SHOT, PICTURES + 3) == made[3]
        assert make_photo(kind, replace(SHOT, altitude_m=1.0)) != made[0]


@pytest.mark.parametrize("place", [(0.0000001, -0.0000001), (90, -180), (-89.99999999, 179.99999999)])
def test_every_place_on_earth(place: tuple[float, float]) -> None:
    content = make_photo(PhotoKind.JPEG, Shot(place))
    tags = exifread.process_file(io.BytesIO(content), details=False)
    degrees = [[float(part) for part in tags[f"GPS GPS{name}"].values] for name in ("Latitude", "Longitude")]
    assert all(minutes < 60 and seconds < 60 for _, minutes, seconds in degrees)
    facts = facts_of(content)
    assert (facts.latitude or 0, facts.longitude or 0) == pytest.approx(place, abs=1e-6)
