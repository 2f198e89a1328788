"""No content, no size and no caller makes the reader raise, run on, or ask for more than its budget."""

from __future__ import annotations

import math
import struct
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.exif import Clock, Flag, NeedMore, PhotoFacts, Reader
from tests.fakes import photos as fakes
from tests.fakes.photos import CONTAINERS, Boxes, Layout, Tag, ascii_, packet, position, rationals, tiff

MAX_BYTES, MAX_ASKS, MAX_ASK_BYTES = 64 * 1024, 24, 32 * 1024
LOCATED = (Flag.OK, Flag.VOID, Flag.NULL_ISLAND)
SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "photos"
REAL = sorted(path.name for path in SHARED.glob("*") if path.suffix != ".json")

GPS = {
    **position(-43.46, 171.88),
    5: Tag(fakes.BYTE, b"\1"),
    6: rationals((120, 10)),
    7: rationals((1, 1), (2, 1), (3, 1)),
    9: ascii_("A"),
    16: ascii_("T"),
    17: rationals((90, 1)),
    29: ascii_("2024:05:06"),
}
XMP = packet(
    *("drone-dji:RelativeAltitude=+5.5", "drone-dji:GpsLatitude=1.5", "drone-dji:GpsLongtitude=2.5"),
    *("exif:GPSLatitude=43,28.5S", "exif:GPSLongitude=171,30,36E"),
)
NUMBERS = [0, 1, 2, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 2**63, 2**64 - 1]


@cache
def made() -> dict[str, bytes]:
    """Small files of every container; half of them have no position but the packet's."""
    small, drone = Layout(">"), {271: ascii_("DJI"), 272: ascii_("FC1"), fakes.PACKET: Tag(fakes.BYTE, XMP)}
    makers = {
        **CONTAINERS,
        "png, behind the picture": partial(fakes.png, late=True, idat=[300] * 40 + [7]),
        "heic, wide": partial(fakes.heif, boxes=Boxes(wide=True, version=2, tiles=4)),
    }
    files = {name: maker(tiff(GPS, layout=small), XMP) for name, maker in makers.items()}
    files |= {f"{name}, no GPS": maker(tiff(None), XMP) for name, maker in makers.items()}
    files["tiff"] = tiff(GPS, first=drone, layout=Layout(gap=3000))
    files["tiff, no GPS"] = tiff(None, first=drone, layout=Layout(">", gap=3000), last=True)
    files["bigtiff"] = tiff(GPS, first=drone, layout=Layout("<", big=True, gap=3000), last=True)
    files["png, text"] = fakes.png_of(fakes.chunk(b"tEXt", b"Raw profile type exif\0" + fakes.profile(tiff(GPS))))
    files["heic, small"] = fakes.heif(tiff(GPS), XMP, Boxes(in_idat=True, picture_bytes=0, wide=True))
    return files


@cache
def real(name: str) -> bytes:
    return (SHARED / name).read_bytes()


def drive(content: bytes, *, size: int, head: int, answers: list[int]) -> PhotoFacts:
    """A caller whose answers may be short, empty or elsewhere; what the reader may ask is checked on the way.

    answers  for each ask in turn: 0 answers fully, 1 partly, 2 not at all, 3 with what lies elsewhere
    """
    reader = Reader(size, max_bytes=MAX_BYTES, max_asks=MAX_ASKS)
    answer, asks, asked = reader.feed(0, content[:head]), 0, 0
    while isinstance(answer, NeedMore):
        assert answer.offset >= 0
        assert 1 <= answer.length <= MAX_ASK_BYTES
        assert answer.offset + answer.length <= max(size, 0)
        asks, asked = asks + 1, asked + answer.length
        mood = answers[asks - 1] if asks <= len(answers) else 0
        whole = content[answer.offset : answer.offset + answer.length]
        data = {1: whole[: len(whole) // 3], 2: b""}.get(mood, whole)
        answer = reader.feed(answer.offset + (77 if mood == 3 else 0), data)
    assert asks <= MAX_ASKS
    assert reader.bytes_read <= MAX_BYTES
    assert reader.bytes_read <= min(head, len(content)) + asked
    return answer


def assert_sound(facts: PhotoFacts) -> None:
    """What holds for every photo."""
    assert (facts.latitude is None) == (facts.longitude is None)
    if facts.latitude is not None and facts.longitude is not None:
        assert facts.flag in LOCATED
        assert abs(facts.latitude) <= 90
        assert abs(facts.longitude) <= 180
    assert (facts.latitude is not None) or facts.flag not in (Flag.OK, Flag.NULL_ISLAND)
    numbers = [facts.altitude_m, facts.relative_altitude_m, facts.direction_deg]
    assert all(number is None or math.isfinite(number) for number in numbers)
    assert facts.direction_deg is None or 0 <= facts.direction_deg <= 360
    assert facts.altitude_ref in (None, 0, 1, 2, 3)
    assert (facts.taken_at is None) == (facts.clock is None)
    assert facts.taken_at is None or (facts.taken_at.tzinfo is None) == (facts.clock is Clock.LOCAL)
    assert facts.camera is None or (facts.camera.isprintable() and 0 < len(facts.camera) <= 129)


@st.composite
def spoilt(draw: st.DrawFn, content: bytes, *, reach: int) -> bytes:
    """The content with a few changes in its first `reach` bytes: bits, numbers, pieces moved, lost or doubled."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        if not changed:
            break
        at = draw(st.integers(0, min(reach, len(changed)) - 1))
        kind = draw(st.sampled_from(["bit", "number", "number", "bytes", "move", "lose", "double", "cut"]))
        if kind == "bit":
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            value = draw(st.sampled_from([*NUMBERS, len(content), at]) | st.integers(0, 2**64 - 1))
            form = draw(st.sampled_from(["<H", ">H", "<I", ">I", "<Q", ">Q"]))
            number = struct.pack(form, value % 2 ** (8 * struct.calcsize(form)))
            changed[at : at + len(number)] = number
        elif kind == "bytes":
            changed[at:at] = draw(st.binary(max_size=20))
        elif kind in ("move", "double"):
            piece = changed[at : at + draw(st.integers(1, 64))]
            if kind == "move":
                del changed[at : at + len(piece)]
            to = draw(st.integers(0, min(reach, len(changed))))
            changed[to:to] = piece
        elif kind == "lose":
            del changed[at : at + draw(st.integers(1, 64))]
        elif draw(st.integers(0, 3)) == 0:
            del changed[at:]
    return bytes(changed)


SIZES = st.sampled_from([0, 0, 0, 0, -1, 1, -500, 500, 10**6, 2**40])
HEADS = st.sampled_from([4096, 4096, 0, 1, 16, 700, 16384])
MOODS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3]), max_size=8)
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=700, deadline=None, suppress_health_check=QUIET)
@given(st.data(), st.sampled_from(sorted(made())), SIZES, HEADS, MOODS)
def test_spoilt_files_of_every_container(data: st.DataObject, name: str, off: int, head: int, moods: list[int]) -> None:
    content = data.draw(spoilt(made()[name], reach=12_000))
    assert_sound(drive(content, size=len(content) + off, head=head, answers=moods))


@pytest.mark.skipif(not REAL, reason="no real photos here")
@settings(max_examples=250, deadline=None, suppress_health_check=QUIET)
@given(st.data(), st.sampled_from(REAL or [""]), SIZES, HEADS, MOODS)
def test_spoilt_real_photos(data: st.DataObject, name: str, off: int, head: int, moods: list[int]) -> None:
    content = real(name)
    tail = content[45_000:47_000] if name.endswith(".webp") else b""  # where its metadata are
    content = content[:46_362] if tail else content[:80_000]
    content = data.draw(spoilt(content, reach=len(content) if tail else 6_000))
    assert_sound(drive(content, size=len(content) + off, head=head, answers=moods))


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=600), st.sampled_from([b"\xff\xd8", b"II*\0", b"MM\0+", b"RIFF....WEBP", b"\0\0\0\x14ftyp", b""])
)
def test_noise(noise: bytes, magic: bytes) -> None:
    content = magic + noise
    assert_sound(drive(content, size=len(content), head=4096, answers=[]))


@pytest.mark.parametrize("name", [name for name in sorted(made()) if not name.endswith("no GPS")])
def test_every_single_byte_set_to_its_extremes(name: str) -> None:
    """Every byte of the metadata in turn, all zeros and all ones: structure has no blind spot."""
    content = made()[name]
    marks = [content.find(mark) for mark in (b"II*\0", b"MM\0*", b"II+\0", b"iinf", b"iloc", b"eXIf", b"EXIF")]
    ranges = [range(0, 60), *(range(max(0, at - 40), min(len(content), at + 420)) for at in marks if at >= 0)]
    for at in sorted({at for one in ranges for at in one}):
        for value in (0, 0xFF):
            changed = content[:at] + bytes([value]) + content[at + 1 :]
            assert_sound(drive(changed, size=len(changed), head=4096, answers=[]))


@pytest.mark.parametrize("name", ["tiff", "bigtiff", "heic", "webp", "png, text", "jpeg, no GPS"])
def test_cut_anywhere(name: str) -> None:
    content = made()[name]
    for length in range(0, min(len(content), 4000), 7):
        assert_sound(drive(content[:length], size=length, head=4096, answers=[]))
        assert_sound(drive(content[:length], size=len(content), head=4096, answers=[]))
