"""The ranged reader of photos: equal to exiftool on real photos, to exifread and to what was written on made ones."""

from __future__ import annotations

import io
import json
import logging
import math
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import exifread
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from tasks.exif import HEAD_BYTES, Clock, DirectionRef, Flag, NeedMore, PhotoFacts, Reader
from tests.fakes import photos as fakes
from tests.fakes.photos import CONTAINERS, Boxes, Layout, Tag, ascii_, packet, position, rationals, tiff

SITE = (-43.4674483, 171.8851267)
CLOSE_DEG = 1e-7
LAYOUTS = [Layout("<"), Layout(">"), Layout("<", gap=70_000), Layout(">", big=True), Layout("<", big=True, gap=3000)]
exifread.exif_log.get_logger().setLevel(logging.CRITICAL)


@dataclass
class Told:
    """The facts, and what it took to learn them. asks: the ranges after the head."""

    facts: PhotoFacts
    asks: list[NeedMore]
    bytes_read: int


def read(content: bytes, head: int = HEAD_BYTES, size: int | None = None, most: int = 1 << 20, **limits: int) -> Told:
    """As a caller over SFTP does. size: told instead of the true one; most: bytes that one answer carries."""
    reader, asks = Reader(len(content) if size is None else size, **limits), []
    answer = reader.feed(0, content[: min(head, most)])
    while isinstance(answer, NeedMore):
        asks.append(answer)
        answer = reader.feed(answer.offset, content[answer.offset : answer.offset + min(answer.length, most)])
    return Told(answer, asks, reader.bytes_read)


def flag_of(gps: dict[int, Tag] | None, **tiff_options: Any) -> Flag:
    return read(fakes.jpeg(tiff(gps, **tiff_options))).facts.flag


def facts_of(gps: dict[int, Tag], **tiff_options: Any) -> PhotoFacts:
    return read(fakes.jpeg(tiff({**position(*SITE), **gps}, **tiff_options))).facts


def assert_at(facts: PhotoFacts, place: tuple[float, float]) -> None:
    assert facts.flag is Flag.OK
    assert (facts.latitude, facts.longitude) == pytest.approx(place, abs=CLOSE_DEG, rel=0)


# --- real photos


def real_photos(shared_data: Path) -> dict[str, tuple[bytes, dict[str, Any]]]:
    folder = shared_data / "photos"
    listed = {Path(one["SourceFile"]).name: one for one in json.loads((folder / "exiftool.json").read_text())}
    return {path.name: (path.read_bytes(), listed[path.name]) for path in folder.iterdir() if path.suffix != ".json"}


def assert_as_exiftool_says(facts: PhotoFacts, said: dict[str, Any]) -> None:
    if "GPSLatitude" in said:
        assert_at(facts, (said["GPSLatitude"], said["GPSLongitude"]))
    else:
        assert (facts.flag, facts.latitude, facts.longitude) == (Flag.NO_GPS, None, None)
    numbers = (facts.altitude_m, facts.altitude_ref, facts.direction_deg)
    names = ("GPSAltitude", "GPSAltitudeRef", "GPSImgDirection")
    assert numbers == tuple(pytest.approx(said[name], rel=1e-9) if name in said else None for name in names)
    assert (facts.taken_at, facts.clock) == time_of(said)
    assert facts.camera
    assert said["Model"] in facts.camera
    assert facts.camera.startswith(said["Make"].split()[0])


def time_of(said: dict[str, Any]) -> tuple[datetime, Clock]:
    if "GPSDateTime" in said:
        whole, _, part = said["GPSDateTime"].rstrip("Z").partition(".")
        exact = datetime.strptime(whole, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
        return exact + timedelta(seconds=float(f"0.{part or 0}")), Clock.GPS
    offset = said.get("OffsetTimeOriginal", "")
    taken = datetime.fromisoformat(said["DateTimeOriginal"].replace(":", "-", 2) + offset)
    return taken, Clock.OFFSET if offset else Clock.LOCAL


@pytest.mark.parametrize("head", [16, 1000, 4096, 16384, 1 << 20])
def test_real_photos_are_as_exiftool_says(shared_data: Path, head: int) -> None:
    for content, said in real_photos(shared_data).values():
        told = read(content, head)
        assert_as_exiftool_says(told.facts, said)
        assert all(ask.offset + ask.length <= len(content) for ask in told.asks)


def test_real_photos_cost_few_bytes(shared_data: Path) -> None:
    told = {name: read(content) for name, (content, _) in real_photos(shared_data).items()}
    jpegs = [one.bytes_read for name, one in told.items() if name.endswith(".jpg")]
    assert sum(jpegs) / len(jpegs) <= 8 * 1024
    assert all(len(one.asks) <= 1 and one.bytes_read <= 8 * 1024 for one in told.values() if one.facts.latitude)


# --- every container and layout

FULL = {
    **position(*SITE),
    5: Tag(fakes.BYTE, b"\1"),
    6: rationals((1205, 100)),
    16: ascii_("M"),
    17: rationals((3599, 10)),
}
FULL_FACTS = PhotoFacts(
    Flag.OK,
    *SITE,
    altitude_m=-12.05,
    altitude_ref=1,
    relative_altitude_m=50.3,
    direction_deg=359.9,
    direction_ref=DirectionRef.MAGNETIC,
    taken_at=datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2))),
    clock=Clock.OFFSET,
    camera="DJI FC6310",
)
DRONE = {271: ascii_("DJI"), 272: ascii_("FC6310")}
HEIGHT = packet("drone-dji:AbsoluteAltitude=+99.1", "drone-dji:RelativeAltitude=+50.30")


def rounded(facts: PhotoFacts) -> PhotoFacts:
    assert facts.latitude is not None
    assert facts.longitude is not None
    return replace(facts, latitude=round(facts.latitude, 8), longitude=round(facts.longitude, 8))


@pytest.mark.parametrize("most", [1 << 20, 700])
@pytest.mark.parametrize("layout", [one for one in LAYOUTS if not one.big and one.gap < 60_000], ids=str)
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_tells_everything(name: str, layout: Layout, most: int) -> None:
    content = CONTAINERS[name](tiff(FULL, first=DRONE, layout=layout), HEIGHT)
    told = read(content, most=most, max_asks=200)
    assert rounded(told.facts) == FULL_FACTS
    assert all(ask.offset + ask.length <= len(content) for ask in told.asks)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_tiff_tells_everything(layout: Layout, last: bool) -> None:
    first = {**DRONE, fakes.PACKET: Tag(fakes.BYTE, HEIGHT), 50706: Tag(fakes.BYTE, b"\1\4\0\0")}  # DNGVersion
    told = read(tiff(FULL, first=first, layout=layout, last=last))
    assert rounded(told.facts) == FULL_FACTS
    assert told.bytes_read <= HEAD_BYTES + 5 * 2048


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_without_metadata_has_no_gps(name: str) -> None:
    maker = {"jpeg": fakes.jpeg, "png": fakes.png, "webp": fakes.webp}.get(name.split(",")[0], fakes.heif)
    assert read(maker(None)).facts == PhotoFacts(Flag.NO_GPS)


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\xff", b"\xff\x01", b"\xff\xd0\xff\xff\xff\xd7"])
def test_filling_and_bare_markers_of_jpeg_are_passed_over(filling: bytes) -> None:
    assert_at(read(fakes.jpeg(tiff(position(*SITE)), before=filling)).facts, SITE)
    assert read(b"\xff\xd8" + filling + b"\xff\xd9" + bytes(50)).facts.flag is Flag.NO_GPS


def test_an_exif_label_that_does_not_belong_is_passed_over() -> None:
    block = tiff(position(*SITE))
    labels = [bytes(4), b"\0\0\0\6Exif\0\0", b"\0\0\0\0Exif\0\0"]
    for content in [
        fakes.webp(b"Exif\0\0" + block),
        fakes.png(b"Exif\0\0" + block),
        *(fakes.heif(block, None, Boxes(label=label)) for label in labels),
    ]:
        assert_at(read(content).facts, SITE)


@pytest.mark.parametrize(
    "boxes",
    [
        Boxes(based=True),
        Boxes(based=True, version=2, in_idat=True),
        Boxes(unsized=True),
        Boxes(unsized=True, in_idat=True),
    ],
)
def test_items_of_heic_wherever_they_may_lie(boxes: Boxes) -> None:
    assert_at(read(fakes.heif(tiff(position(*SITE)), None, boxes)).facts, SITE)


@pytest.mark.parametrize("boxes", [Boxes(reference=1), Boxes(method=2), Boxes(method=7, version=2)])
def test_items_of_heic_that_lie_elsewhere_are_none(boxes: Boxes) -> None:
    assert read(fakes.heif(tiff(position(*SITE)), HEIGHT, boxes)).facts == PhotoFacts(Flag.NO_GPS)


def test_the_last_box_may_reach_to_the_end_of_the_file() -> None:
    content = fakes.heif(tiff(position(*SITE)), None, Boxes(late=True))
    at = content.rindex(b"meta") - 4
    assert_at(read(content[:at] + bytes(4) + content[at + 4 :]).facts, SITE)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iTXt packed"])
def test_a_png_may_hold_exif_as_text(kind: bytes) -> None:
    written = fakes.profile(tiff(position(*SITE)))
    packed = {b"tEXt": written, b"zTXt": b"\0" + zlib.compress(written), b"iTXt": b"\0\0en\0name\0" + written}
    content = packed.get(kind, b"\1\0\0\0" + zlib.compress(written))
    assert_at(read(fakes.png_of(fakes.chunk(kind[:4], b"Raw profile type exif\0" + content))).facts, SITE)


@pytest.mark.parametrize(
    "written", [b"", b"\nexif\n 10\nzz", b"\nexif\n", "\nexif\n 1 \u00e9".encode(), b"\nexif\n 1 f"]
)
def test_a_spoilt_text_profile_is_no_gps(written: bytes) -> None:
    for kind, content in [(b"tEXt", written), (b"zTXt", b"\0" + zlib.compress(written)), (b"zTXt", b"\0" + written)]:
        made = fakes.png_of(fakes.chunk(kind, b"Raw profile type exif\0" + content))
        assert read(made).facts.flag is Flag.NO_GPS


def test_thousands_of_png_chunks_cost_little() -> None:
    content = fakes.png(tiff(position(*SITE)), late=True, idat=[8192] * 3000 + [512])
    told = read(content)
    assert_at(told.facts, SITE)
    assert told.bytes_read < 10_000


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_avif_as_libavif_writes_it() -> None:
    assert_at(read(saved("AVIF", tiff(position(*SITE)))).facts, SITE)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_files_as_pillow_writes_them(form: str) -> None:
    facts = read(saved(form, tiff(position(*SITE)))).facts
    assert_at(facts, SITE)
    assert facts.camera == "Acme Sharp 1"


def saved(form: str, block: bytes) -> bytes:
    output, tags = io.BytesIO(), Image.Exif()
    tags.load(b"Exif\0\0" + block)
    Image.effect_noise((200, 200), 50).convert("RGB").save(output, form, exif=tags)
    return output.getvalue()


# --- positions


EXIFREAD = {
    "jpeg": fakes.jpeg,
    "png": fakes.png,
    "webp": lambda block: fakes.webp(b"Exif\0\0" + block, picture_bytes=9000),  # it wants the label and no padding
    "heic": fakes.heif,
    "tiff": lambda block: block,
}


@settings(max_examples=60, deadline=None)
@given(st.floats(-90, 90), st.floats(-180, 180), st.sampled_from("<>"), st.sampled_from(list(EXIFREAD)))
def test_positions_are_as_exifread_says(latitude: float, longitude: float, order: str, name: str) -> None:
    block = tiff(position(latitude, longitude), layout=Layout(order))
    content = EXIFREAD[name](block)
    facts, oracle = read(content).facts, exifread.process_file(io.BytesIO(content), details=False)
    theirs = theirs_of(oracle, "Latitude", "S"), theirs_of(oracle, "Longitude", "W")
    if facts.flag is Flag.NULL_ISLAND:
        assert max(map(abs, theirs)) < 1e-6
    else:
        assert_at(facts, theirs)
        assert_at(facts, (latitude, longitude))
    assert facts.camera == f"{oracle['Image Make']} {oracle['Image Model']}"
    assert f"{facts.taken_at:%Y:%m:%d %H:%M:%S}" == str(oracle["EXIF DateTimeOriginal"])


def theirs_of(oracle: dict[str, Any], name: str, negative: str) -> float:
    degrees, minutes, seconds = (float(part) for part in oracle[f"GPS GPS{name}"].values)
    size = degrees + minutes / 60 + seconds / 3600
    return -size if str(oracle[f"GPS GPS{name}Ref"]) == negative else size


NORTH, EAST = ascii_("N"), ascii_("E")
SOUND = rationals((10, 1), (30, 1), (0, 1))


@pytest.mark.parametrize(
    ("gps", "place"),
    [
        ({1: NORTH, 2: rationals((10, 1), (30, 1), (0, 0)), 3: EAST, 4: SOUND}, (10.5, 10.5)),  # 0/0 seconds
        ({1: NORTH, 2: rationals((105, 10)), 3: EAST, 4: rationals((10, 1), (30, 1))}, (10.5, 10.5)),  # fewer parts
        ({1: ascii_("s"), 2: SOUND, 3: ascii_("w"), 4: SOUND}, (-10.5, -10.5)),
        ({1: ascii_("South"), 2: SOUND, 3: ascii_(" W"), 4: SOUND}, (-10.5, -10.5)),
        ({1: Tag(fakes.BYTE, b"S"), 2: SOUND, 3: Tag(fakes.UNDEFINED, b"E"), 4: SOUND}, (-10.5, 10.5)),
        ({1: NORTH, 2: Tag(fakes.SRATIONAL, [(-10, 1), (30, 1), (0, 1)]), 3: EAST, 4: SOUND}, (-10.5, 10.5)),
        ({1: ascii_("S"), 2: Tag(fakes.SRATIONAL, [(-10, 1), (-30, 1), (0, 1)]), 3: EAST, 4: SOUND}, (-10.5, 10.5)),
        ({1: NORTH, 2: Tag(fakes.DOUBLE, [10.5]), 3: EAST, 4: Tag(fakes.FLOAT, [10.5, 0, 0])}, (10.5, 10.5)),
        ({1: NORTH, 2: Tag(fakes.SHORT, [10, 30, 0]), 3: EAST, 4: Tag(fakes.LONG, [10, 30])}, (10.5, 10.5)),
        ({1: NORTH, 2: rationals((10, 1), (0, 1), (1800, 1)), 3: EAST, 4: SOUND}, (10.5, 10.5)),
        ({1: NORTH, 2: rationals((90, 1)), 3: EAST, 4: rationals((180, 1))}, (90, 180)),
        ({1: NORTH, 2: rationals((0, 1)), 3: EAST, 4: SOUND}, (0, 10.5)),
        ({**position(1.5, 2.5), 9: ascii_("A")}, (1.5, 2.5)),
    ],
)
def test_positions_in_every_spelling(gps: dict[int, Tag], place: tuple[float, float]) -> None:
    for layout in LAYOUTS[:2]:
        assert_at(read(fakes.jpeg(tiff(gps, layout=layout))).facts, place)


ZERO = rationals((0, 1), (0, 1), (0, 1))


@pytest.mark.parametrize(
    ("gps", "flag"),
    [
        (None, Flag.NO_GPS),
        ({}, Flag.NO_GPS),
        ({0: Tag(fakes.BYTE, b"\2\3\0\0")}, Flag.NO_GPS),  # cameras without a receiver
        ({7: rationals((1, 1), (2, 1), (3, 1))}, Flag.NO_FIX),
        ({1: NORTH, 2: SOUND}, Flag.NO_FIX),
        ({3: EAST, 4: SOUND}, Flag.NO_FIX),
        ({1: NORTH, 2: rationals((90, 1), (0, 1), (1, 1)), 3: EAST, 4: SOUND}, Flag.NO_FIX),
        ({1: NORTH, 2: SOUND, 3: EAST, 4: rationals((181, 1))}, Flag.NO_FIX),
        (position(0, 0), Flag.NULL_ISLAND),
        ({2: ZERO, 4: ZERO}, Flag.NULL_ISLAND),
        ({1: NORTH, 2: SOUND, 4: SOUND}, Flag.MISSING_REF),
        ({2: SOUND, 3: EAST, 4: SOUND}, Flag.MISSING_REF),
        ({1: ascii_(""), 2: SOUND, 3: EAST, 4: SOUND}, Flag.MISSING_REF),
        ({1: ascii_("X"), 2: SOUND, 3: EAST, 4: SOUND}, Flag.MISSING_REF),
        ({1: EAST, 2: SOUND, 3: NORTH, 4: SOUND}, Flag.MISSING_REF),
        ({1: Tag(fakes.BYTE, b"\xff\xfe"), 2: SOUND, 3: EAST, 4: SOUND}, Flag.MISSING_REF),
        ({1: NORTH, 2: rationals((0, 0), (0, 0), (0, 0)), 3: EAST, 4: SOUND}, Flag.ZERO_DENOMINATOR),
        ({1: NORTH, 2: rationals((10, 1), (30, 0), (0, 1)), 3: EAST, 4: SOUND}, Flag.ZERO_DENOMINATOR),
        ({1: NORTH, 2: rationals((10, 1), (0, 0), (0, 0)), 3: EAST, 4: SOUND}, Flag.ZERO_DENOMINATOR),
        ({1: NORTH, 2: SOUND, 3: EAST, 4: rationals((10, 1), (30, 1), (7, 0))}, Flag.ZERO_DENOMINATOR),
        ({1: NORTH, 2: Tag(fakes.DOUBLE, [math.nan]), 3: EAST, 4: SOUND}, Flag.ZERO_DENOMINATOR),
        ({1: NORTH, 2: Tag(fakes.FLOAT, [math.inf]), 3: EAST, 4: SOUND}, Flag.ZERO_DENOMINATOR),
        ({1: NORTH, 2: ascii_("43.5"), 3: EAST, 4: SOUND}, Flag.ZERO_DENOMINATOR),
        ({9: ascii_("V")}, Flag.VOID),
    ],
)
def test_positions_that_are_none(gps: dict[int, Tag] | None, flag: Flag) -> None:
    facts = read(fakes.jpeg(tiff(gps))).facts
    assert facts.flag is flag
    assert (facts.latitude, facts.longitude) == ((0, 0) if flag is Flag.NULL_ISLAND else (None, None))
    assert facts.camera == "Acme Sharp 1"
    assert facts.clock is Clock.OFFSET


def test_a_void_position_is_flagged_and_kept() -> None:
    facts = facts_of({9: ascii_("V")})
    assert facts.flag is Flag.VOID
    assert facts.latitude == pytest.approx(SITE[0])


# --- altitude, direction, time, camera


@pytest.mark.parametrize(
    ("ref", "altitude_m", "told"),
    [
        (None, 12.05, None),
        (Tag(fakes.BYTE, b"\0"), 12.05, 0),
        (Tag(fakes.BYTE, b"\1"), -12.05, 1),
        (Tag(fakes.BYTE, b"\2"), 12.05, 2),
        (Tag(fakes.BYTE, b"\3"), -12.05, 3),
        (Tag(fakes.SHORT, [1]), -12.05, 1),
        (ascii_("1"), -12.05, 1),
        (Tag(fakes.BYTE, b"1"), -12.05, 1),
        (Tag(fakes.BYTE, b"\7"), 12.05, None),
        (Tag(fakes.BYTE, b"\xff"), 12.05, None),
        (Tag(fakes.UNDEFINED, b""), 12.05, None),
    ],
)
def test_altitude_is_signed_by_its_reference(ref: Tag | None, altitude_m: float, told: int | None) -> None:
    for layout in LAYOUTS[:2]:
        facts = facts_of({6: rationals((1205, 100)), **({5: ref} if ref else {})}, layout=layout)
        assert (facts.altitude_m, facts.altitude_ref) == (altitude_m, told)


def test_a_signed_direction_is_none() -> None:
    assert facts_of({17: Tag(fakes.SRATIONAL, [(-90, 1)])}).direction_deg is None


def test_altitude_may_be_signed_or_unknown() -> None:
    signed = Tag(fakes.SRATIONAL, [(-1205, 100)])
    assert facts_of({6: signed}).altitude_m == -12.05
    assert facts_of({6: signed, 5: Tag(fakes.BYTE, b"\1")}).altitude_m == -12.05
    for unknown in (rationals((0, 0)), rationals((5, 0)), ascii_("high"), Tag(fakes.RATIONAL, [])):
        assert facts_of({6: unknown}).altitude_m is None


@pytest.mark.parametrize(
    ("written", "ref", "told"),
    [
        ((1775, 10), "T", (177.5, DirectionRef.TRUE)),
        ((0, 1), "m", (0, DirectionRef.MAGNETIC)),
        ((360, 1), "", (360, None)),
        ((361, 1), "T", (None, DirectionRef.TRUE)),
        ((0, 0), "?", (None, None)),
    ],
)
def test_direction(written: tuple[int, int], ref: str, told: tuple[float | None, DirectionRef | None]) -> None:
    facts = facts_of({16: ascii_(ref), 17: rationals(written)})
    assert (facts.direction_deg, facts.direction_ref) == told


NOON = rationals((12, 1), (0, 1), (4090, 100))
CAMERA_TIME = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("date", "clock", "told"),
    [
        ("2008:10:23", NOON, datetime(2008, 10, 23, 12, 0, 40, 900000, tzinfo=UTC)),
        ("2008-10-23", NOON, datetime(2008, 10, 23, 12, 0, 40, 900000, tzinfo=UTC)),
        ("2016:12:31", rationals((23, 1), (59, 1), (60, 1)), datetime(2017, 1, 1, tzinfo=UTC)),  # a leap second
        ("2008:10:23", rationals((12, 1), (0, 1)), None),
        ("2008:10:23", rationals((12, 1), (0, 1), (0, 0)), None),
        ("2008:10:23", rationals((25, 1), (0, 1), (0, 1)), None),
        ("2008:13:23", NOON, None),
        ("0000:00:00", NOON, None),
        ("9999:12:31", NOON, None),
        ("1980:01:06", NOON, None),  # no time from the satellites yet
        ("", NOON, None),
    ],
)
def test_gps_time_comes_first(date: str, clock: Tag, told: datetime | None) -> None:
    facts = facts_of({7: clock, 29: ascii_(date)})
    assert (facts.taken_at, facts.clock) == ((told, Clock.GPS) if told else (CAMERA_TIME, Clock.OFFSET))


@pytest.mark.parametrize(
    ("written", "offset", "told"),
    [
        ("2024:05:06 07:08:09", "-05:30", "2024-05-06T07:08:09-05:30"),
        ("2024:05:06 07:08:09", "Z", "2024-05-06T07:08:09+00:00"),
        ("2024-05-06T07:08:09.25+0100", "", "2024-05-06T07:08:09+01:00"),
        ("2024:05:06 07:08:09", "", "2024-05-06T07:08:09"),
        ("2024:05:06 07:08:09", "   :  ", "2024-05-06T07:08:09"),
        ("2024:05:06 07:08:09", "+25:00", "2024-05-06T07:08:09"),
        ("2024/05/06 24:00:00", "", "2024-05-07T00:00:00"),
        ("2024:05:06 07:08", "", "2024-05-06T07:08:00"),
        ("0000:00:00 00:00:00", "", None),
        ("    :  :     :  :  ", "", None),
        ("2024:02:30 07:08:09", "", None),
        ("2024:05:06", "", None),
        ("", "", None),
        ("\u0662\u0660:05:06", "", None),
    ],
)
def test_camera_time_has_a_zone_only_when_it_says_so(written: str, offset: str, told: str | None) -> None:
    taken = Tag(fakes.ASCII, written.encode() + b"\0")
    facts = read(fakes.jpeg(tiff(position(*SITE), exif={36867: taken, 36881: ascii_(offset)}))).facts
    assert (facts.taken_at and facts.taken_at.isoformat()) == told
    named = {None: None, True: Clock.OFFSET, False: Clock.LOCAL}
    assert facts.clock is named[None if facts.taken_at is None else facts.taken_at.tzinfo is not None]


@pytest.mark.parametrize(
    ("make", "model", "told"),
    [
        ("Canon", "Canon EOS 7D", "Canon EOS 7D"),
        ("NIKON CORPORATION", "NIKON D70", "NIKON D70"),
        ("  SONY  ", "DSC-HX5V   ", "SONY DSC-HX5V"),
        ("Apple", "", "Apple"),
        ("", "FC6310", "FC6310"),
        ("", "", None),
        ("A\tB\n", "C\x01D", "A B C D"),
        ("Ko\u00f6k", "x", "Ko\u00f6k x"),
        ("y" * 500, "z", "y" * 64 + " z"),
    ],
)
def test_camera_is_tidy(make: str, model: str, told: str | None) -> None:
    first = {271: ascii_(make), 272: ascii_(model)}
    assert read(fakes.jpeg(tiff(position(*SITE), first=first))).facts.camera == told


def test_utf8_texts_of_exif_3() -> None:
    first = {271: Tag(129, "カメラ".encode() + b"\0"), 272: ascii_("X")}
    assert read(fakes.jpeg(tiff(position(*SITE), first=first))).facts.camera == "カメラ X"


# --- packets


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("spelling", ['{0}="{1}"', "{0} = '{1}'", "><{0}>{1}</{0}>\n <a "])
@pytest.mark.parametrize("longitude", ["GpsLongitude", "GpsLongtitude"])
def test_a_drones_packet_stands_in_for_gps(name: str, spelling: str, longitude: str) -> None:
    xmp = packet(
        "drone-dji:RelativeAltitude=-1.5",
        f"drone-dji:GpsLatitude={SITE[0]:+}",
        f"drone-dji:{longitude}={SITE[1]}",
        spelling=spelling,
        lead="x" * 5000,
    )
    facts = read(CONTAINERS[name](tiff(None), xmp)).facts
    assert_at(facts, SITE)
    assert facts.relative_altitude_m == -1.5
    assert facts.camera == "Acme Sharp 1"


def test_a_position_deep_in_a_packet_is_found() -> None:
    lead, place = "xmp:Rating=" + "5" * 5000, ("drone-dji:GpsLatitude=1.5", "drone-dji:GpsLongitude=2.5")
    facts = read(fakes.jpeg(tiff(None), packet("drone-dji:RelativeAltitude=7", lead, *place))).facts
    assert_at(facts, (1.5, 2.5))
    assert facts.relative_altitude_m == 7


def test_a_packet_without_exif_will_do() -> None:
    xmp = packet("drone-dji:GpsLatitude=1.5", "drone-dji:GpsLongitude=2.5")
    for content in (fakes.jpeg(None, xmp), fakes.png(None, xmp), fakes.webp(None, xmp), fakes.heif(None, xmp)):
        assert_at(read(content).facts, (1.5, 2.5))


@pytest.mark.parametrize(
    ("properties", "place"),
    [
        (("exif:GPSLatitude=43,28.5S", "exif:GPSLongitude=171,30,36E"), (-43.475, 171.51)),
        (("exif:GPSLatitude=43,28.5E", "exif:GPSLongitude=171,30,36E"), None),
        (("exif:GPSLatitude=43", "exif:GPSLongitude=171"), None),
        (("drone-dji:GpsLatitude=1.5",), None),
        (("drone-dji:GpsLatitude=nan", "drone-dji:GpsLongitude=inf"), None),
        (("drone-dji:GpsLatitude=95.0", "drone-dji:GpsLongitude=2"), None),
        (("drone-dji:GpsLatitude=" + "9" * 39, "drone-dji:GpsLongitude=2"), None),
    ],
)
def test_positions_of_packets(properties: tuple[str, ...], place: tuple[float, float] | None) -> None:
    facts = read(fakes.jpeg(tiff(None), packet(*properties))).facts
    if place:
        assert_at(facts, place)
    else:
        assert (facts.flag, facts.latitude) == (Flag.NO_GPS, None)


def test_an_empty_position_in_a_packet_is_null_island() -> None:
    xmp = packet("drone-dji:GpsLatitude=0.0000000", "drone-dji:GpsLongitude=0.0000000")
    assert read(fakes.jpeg(tiff(None), xmp)).facts.flag is Flag.NULL_ISLAND


def test_a_packet_does_not_overrule_a_fix_or_a_void() -> None:
    xmp = packet("drone-dji:GpsLatitude=1.5", "drone-dji:GpsLongitude=2.5", "drone-dji:RelativeAltitude=9")
    facts = read(fakes.jpeg(tiff(position(*SITE)), xmp)).facts
    assert_at(facts, SITE)
    assert facts.relative_altitude_m == 9
    assert read(fakes.jpeg(tiff({**position(*SITE), 9: ascii_("V")}), xmp)).facts.flag is Flag.VOID


def test_a_packet_stands_in_for_exif_that_cannot_be_read() -> None:
    xmp = packet("drone-dji:GpsLatitude=1.5", "drone-dji:GpsLongitude=2.5")
    assert_at(read(fakes.jpeg(b"II*\0\xff\xff\xff\xff" + bytes(50), xmp)).facts, (1.5, 2.5))


def test_only_for_drones_a_packet_is_fetched() -> None:
    far = fakes.segment(0xE2, bytes(60_000))
    drone, camera = (
        read(fakes.jpeg(tiff(position(*SITE), first=first), HEIGHT, between=far)) for first in (DRONE, fakes.CAMERA)
    )
    assert (drone.facts.relative_altitude_m, len(drone.asks)) == (50.3, 1)
    assert (camera.facts.relative_altitude_m, len(camera.asks)) == (None, 0)
    assert read(fakes.jpeg(tiff(position(*SITE)), HEIGHT)).facts.relative_altitude_m == 50.3  # in hand anyway


def test_of_a_packet_that_is_cut_off_the_beginning_counts() -> None:
    xmp = packet("drone-dji:GpsLatitude=1.5", "drone-dji:GpsLongitude=2.5", "xmp:Rating=" + "5" * 9000)
    content = fakes.webp(tiff(None), xmp)
    assert_at(read(content[: content.index(b"555") + 2000], size=len(content)).facts, (1.5, 2.5))
    assert_at(read(content, max_asks=1).facts, (1.5, 2.5))


def test_of_a_long_packet_only_the_beginning_is_fetched() -> None:
    height = packet("drone-dji:RelativeAltitude=+50.30") + b" " * 50_000
    told = read(fakes.jpeg(tiff(position(*SITE), first=DRONE), height, between=fakes.segment(0xE2, bytes(20_000))))
    assert told.facts.relative_altitude_m == 50.3
    assert told.bytes_read <= HEAD_BYTES + 2 * 2048


# --- what is no photo, and what is broken


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"not a photo" * 100,
        bytes(1000),
        b"GIF89a" + bytes(1000),
        b"%PDF-1.7" + bytes(1000),
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WAVE" + bytes(100),
        fakes.box(b"ftyp", b"mp42") + fakes.box(b"moov", bytes(100)),
        fakes.box(b"ftyp", b"heic") + fakes.box(b"meta", bytes(4) + fakes.full_box(b"hdlr", 0, bytes(20))),
        b"\xff\xd8" + bytes(1000),
        b"\xff\xd8\xff\xe1\0\1" + bytes(100),
        fakes.jpeg(b"IX*\0" + bytes(100)),
        fakes.jpeg(b""),
        tiff(position(*SITE))[:100],
        b"II*\0",
    ],
)
def test_what_cannot_be_read(content: bytes) -> None:
    assert read(content).facts.flag is Flag.UNREADABLE


def test_a_file_that_is_shorter_than_its_listing_said() -> None:
    content = fakes.webp(tiff(position(*SITE)))
    assert_at(read(content, size=len(content) + 5000).facts, SITE)
    cut = read(content[:-150], size=len(content))
    assert cut.facts.flag is Flag.UNREADABLE
    assert cut.facts.camera == "Acme Sharp 1"
    assert read(b"", size=1000).facts.flag is Flag.UNREADABLE


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "heic", "avif"])
def test_a_cut_photo_is_never_a_wrong_position(name: str) -> None:
    content = CONTAINERS[name](tiff(position(*SITE), exif={}), None)
    start = content.index(b"II*\0")
    for length in range(start, start + len(tiff(position(*SITE), exif={}))):
        facts = read(content[:length]).facts
        assert facts.flag is Flag.UNREADABLE or assert_at(facts, SITE) is None


def test_a_file_that_grew_is_read_as_far_as_its_listing_said() -> None:
    content = fakes.jpeg(tiff(position(*SITE)))
    assert_at(read(content + bytes(100), size=len(content)).facts, SITE)
    assert read(content, size=30).facts.flag is Flag.UNREADABLE


@pytest.mark.parametrize("link", [0, 4, 8, 26, 2**31, 2**32 - 1])
def test_pointers_to_anywhere(link: int) -> None:
    """To the header, to the directory itself, beyond the file: never a position, never a loop."""
    for pointer, layout in [(fakes.GPS, Layout()), (fakes.EXIF, Layout(">")), (fakes.GPS, Layout("<", big=True))]:
        kind = fakes.LONG8 if layout.big else fakes.LONG
        block = tiff(None, first={**fakes.CAMERA, pointer: Tag(kind, [link])}, exif=None, layout=layout)
        told = read(block)
        assert told.facts.latitude is None
        assert len(told.asks) <= 2


def test_a_pointer_to_before_the_file() -> None:
    told = read(tiff(None, first={fakes.GPS: Tag(fakes.SLONG, [-8])}))
    assert (told.facts.flag, told.asks) == (Flag.UNREADABLE, [])


def test_a_broken_time_does_not_cost_the_position() -> None:
    for lost in (Tag(fakes.LONG, [2**32 - 1]), ascii_("what"), Tag(fakes.RATIONAL, [(1, 0)]), Tag(99, b"abcd")):
        facts = read(fakes.jpeg(tiff(position(*SITE), first={**fakes.CAMERA, fakes.EXIF: lost}))).facts
        assert_at(facts, SITE)
        assert facts.taken_at is None


def test_values_beyond_the_file_cost_only_themselves() -> None:
    first = {271: Tag(fakes.ASCII, b"Lost maker\0", offset=2**31), 272: ascii_("Sharp 1")}
    facts = read(fakes.jpeg(tiff({**position(*SITE), 6: replace(rationals((1, 1)), offset=2**30)}, first=first))).facts
    assert_at(facts, SITE)
    assert (facts.camera, facts.altitude_m) == ("Sharp 1", None)


def test_a_position_beyond_the_file_is_unreadable() -> None:
    gps = {**position(*SITE), 4: replace(fakes.dms(1.0), offset=2**30)}
    assert flag_of(gps) is Flag.UNREADABLE


def test_a_position_outside_its_segment_is_not_read_from_what_follows() -> None:
    block = tiff(position(*SITE))
    for cut in (20, len(block) - 30):
        content = fakes.jpeg(block[:cut]).replace(b"\xff\xda", block[cut:], 1)
        assert content.count(block) == 1
        assert read(content).facts.flag is Flag.UNREADABLE


def test_huge_counts_cost_nothing() -> None:
    gps = {**position(*SITE), 2: replace(fakes.dms(SITE[0]), count=2**29 - 1)}  # 4 GB, says the tag
    assert flag_of(gps) is Flag.UNREADABLE
    make = {271: Tag(fakes.ASCII, b"Acme\0", count=2**32 - 1), 272: ascii_("Sharp 1")}
    told = read(fakes.jpeg(tiff(position(*SITE), first=make)))
    assert_at(told.facts, SITE)
    entries = b"II*\0" + struct.pack("<IH", 8, 65535) + bytes(1_000_000)
    told = read(entries)
    assert (told.facts.flag, told.asks) == (Flag.UNREADABLE, [])


# --- budgets


def test_budgets_hold() -> None:
    content = tiff(position(*SITE), layout=Layout(gap=9000), last=True)
    assert_at(read(content).facts, SITE)
    assert read(content, max_bytes=HEAD_BYTES + 10).facts.flag is Flag.TOO_LARGE
    assert read(content, max_asks=1).facts.flag is Flag.TOO_LARGE
    assert read(content, max_asks=0).facts.flag is Flag.TOO_LARGE
    assert read(content, most=1).facts.flag is Flag.TOO_LARGE  # a server that trickles


@pytest.mark.parametrize("max_bytes", range(HEAD_BYTES, HEAD_BYTES + 5000, 450))
def test_never_more_is_asked_for_than_allowed(max_bytes: int) -> None:
    for content in (tiff(FULL, layout=Layout(gap=9000), last=True), fakes.heif(tiff(FULL)), fakes.webp(tiff(FULL))):
        told = read(content, max_bytes=max_bytes)
        assert HEAD_BYTES + sum(ask.length for ask in told.asks) <= max_bytes


def test_a_position_is_not_lost_for_want_of_budget_afterwards() -> None:
    far = fakes.segment(0xE2, bytes(60_000))
    content = fakes.jpeg(tiff(position(*SITE), first=DRONE), HEIGHT, between=far)
    for limits in ({"max_asks": 0}, {"max_bytes": HEAD_BYTES}):
        told = read(content, **limits)
        assert_at(told.facts, SITE)
        assert (told.asks, told.facts.relative_altitude_m) == ([], None)


def test_a_head_beyond_the_budget_is_cut() -> None:
    told = read(fakes.jpeg(tiff(position(*SITE))), head=5000, max_bytes=1000)
    assert_at(told.facts, SITE)
    assert told.bytes_read == 1000


def test_the_facts_stay_when_more_is_fed() -> None:
    content = fakes.jpeg(tiff(position(*SITE)))
    reader = Reader(len(content))
    first = reader.feed(0, content[:HEAD_BYTES])
    assert isinstance(first, PhotoFacts)
    assert reader.feed(HEAD_BYTES, content[HEAD_BYTES:]) is first
    assert reader.feed(0, b"") is first


def test_answers_to_another_question_end_in_too_large() -> None:
    reader = Reader(10**6, max_asks=10)
    answer = reader.feed(500_000, bytes(100))
    for _ in range(10):
        assert answer == NeedMore(0, 2048)
        answer = reader.feed(700_000, bytes(100))
    assert isinstance(answer, PhotoFacts)
    assert answer.flag is Flag.TOO_LARGE


def _nested(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = fakes.box(b"meta", bytes(4) + content)
    return content


def _many_extents() -> bytes:
    """65,535 extents of no bytes each, for each of 10,000 items."""
    info = fakes.full_box(b"iinf", 0, bytes(2))
    items = b"".join(struct.pack(">HHH", n, 0, 65535) for n in range(10_000))
    location = fakes.full_box(b"iloc", 0, bytes(2) + struct.pack(">H", 10_000) + items)
    return fakes.box(b"ftyp", b"heic") + fakes.box(b"meta", bytes(4) + info + location)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "nested boxes": lambda: fakes.box(b"ftyp", b"heic") + _nested(2000),
    "a box of 2^63 bytes": lambda: fakes.box(b"ftyp", b"heic") + struct.pack(">I4sQ", 1, b"mdat", 2**63),
    "a box of no bytes": lambda: fakes.box(b"ftyp", b"heic") + struct.pack(">I4sQ", 1, b"free", 3) + bytes(99),
    "a box of nothing at all": lambda: fakes.box(b"ftyp", b"heic") + struct.pack(">I4sQ", 1, b"free", 0) + bytes(99),
    "boxes to the end of the file": lambda: fakes.box(b"ftyp", b"heic") + struct.pack(">I4s", 0, b"meta") + bytes(500),
    "small boxes": lambda: fakes.box(b"ftyp", b"heic") + fakes.box(b"free", b"") * 100_000,
    "many items": lambda: fakes.heif(tiff(position(*SITE)), None, Boxes(tiles=9000)),
    "many extents": _many_extents,
    "filling": lambda: b"\xff\xd8" + b"\xff" * 1_000_000,
    "empty segments": lambda: b"\xff\xd8" + b"\xff\xe0\0\2" * 250_000,
    "empty chunks of WebP": lambda: b"RIFF\0\0\0\0WEBP" + bytes(1_000_000),
    "empty chunks of PNG": lambda: fakes.png_of(fakes.chunk(b"abCd", b"") * 80_000),
    "unequal chunks of PNG": lambda: fakes.png(tiff(position(*SITE)), late=True, idat=[5000 + n for n in range(300)]),
    "a bomb in a PNG": lambda: fakes.png_of(
        fakes.chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 9\n" + b"00" * 10_000_000))
    ),
    "a chunk of 2 GB": lambda: fakes.png_of(b"")[:33] + struct.pack(">I", 2**31 + 5) + b"eXIf" + bytes(100),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_cost_no_more_than_the_budget(name: str) -> None:
    content = HOSTILE[name]()
    tracemalloc.start()
    told = read(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 1024 * 1024
    assert told.facts.latitude is None
    assert told.facts.flag in (Flag.UNREADABLE, Flag.TOO_LARGE, Flag.NO_GPS)
    assert told.bytes_read <= 256 * 1024
    assert len(told.asks) <= 48
