"""Verification of tiles: real pictures of every encoder at hand, cut, mutated, mislabelled and blank."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks import tile_images
from tasks.archive_pmtiles import About, write_pmtiles
from tasks.errors import ConfigurationError, ItemError, TerminalError, TransientError
from tasks.tile_containers import kind_of
from tasks.tile_images import TileFacts, known_blanks, verify

WATER = (170, 211, 223)


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def busy(mode: str = "RGB", side: int = 96) -> Image.Image:
    """A picture of many colours, the same every time."""
    bands = len(mode) if mode in ("RGB", "RGBA", "LA", "CMYK") else 1
    pixels = random.Random(mode).randbytes(side * side * bands // 4)
    small = Image.frombytes(mode if bands > 1 else "L", (side // 2, side // 2), pixels)
    return small.resize((side, side), Image.Resampling.BICUBIC)


@lru_cache(maxsize=1)
def pictures() -> dict[str, bytes]:
    """By kind and variant; the kind is the name's first word."""
    rgb, rgba, grey = busy(), busy("RGBA"), busy("L")
    frames = [busy().quantize(16), busy("L").quantize(16)]
    return {
        "png rgb": encoded(rgb, "PNG"),
        "png rgba": encoded(rgba, "PNG", compress_level=1),
        "png palette": encoded(rgb.quantize(12), "PNG"),
        "png grey 16 bit": encoded(grey.convert("I;16"), "PNG"),
        "png bilevel": encoded(grey.convert("1"), "PNG"),
        "png in many chunks": in_many_chunks(encoded(rgb, "PNG")),
        "jpg": encoded(rgb, "JPEG"),
        "jpg progressive": encoded(rgb, "JPEG", progressive=True, subsampling=0),
        "jpg grey": encoded(grey, "JPEG", optimize=True),
        "jpg cmyk": encoded(busy("CMYK"), "JPEG"),
        "jpg with restarts": encoded(rgb, "JPEG", restart_marker_rows=1),
        "jpg with thumbnail": with_thumbnail(),
        "webp lossy": encoded(rgb, "WEBP", quality=80),
        "webp lossless": encoded(rgb, "WEBP", lossless=True),
        "webp alpha": encoded(rgba, "WEBP", quality=70),
        "webp with profile": encoded(rgb, "WEBP", icc_profile=b"\0" * 128, exif=b"Exif\0\0MM\0*" + b"\0" * 20),
        "webp animated": encoded(rgb, "WEBP", save_all=True, append_images=[grey.convert("RGB")]),
        "gif": encoded(frames[0], "GIF"),
        "gif interlaced with comment": encoded(frames[0], "GIF", interlace=1, comment=b"a comment;"),
        "gif animated": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "avif": encoded(rgb, "AVIF", quality=60),
        "avif alpha": encoded(rgba, "AVIF", quality=60),
        "avif animated": encoded(rgb, "AVIF", save_all=True, append_images=[grey.convert("RGB")]),
    }


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF holds another whole JPEG."""
    content, thumbnail = encoded(busy(), "JPEG"), encoded(busy("L", 48), "JPEG")
    return (
        content[:20] + b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(thumbnail)) + b"Exif\0\0" + thumbnail + content[20:]
    )


def in_many_chunks(png: bytes, each: int = 100) -> bytes:
    """The same picture with its data in IDAT chunks of a hundred bytes."""
    out, at = bytearray(png[:8]), 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        for piece in [data[i : i + each] for i in range(0, length, each)] if name == b"IDAT" else [data]:
            out += chunk(name, piece)
        at += length + 12
    return bytes(out)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_head(width: int, height: int, colour: int = 2, depth: int = 8) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def refused(body: bytes, content_type: str | None = "image/png", **options: Any) -> ItemError:
    with pytest.raises(ItemError) as caught:
        verify(body, content_type, **options)
    return caught.value


every_picture = pytest.mark.parametrize("name", list(pictures()))


# --- sound pictures ---


@every_picture
def test_whole_pictures_pass_and_are_described(name: str) -> None:
    body = pictures()[name]
    facts = verify(body, f"image/{name.split()[0]}")
    assert facts == TileFacts(name.split()[0], False, len(body), hashlib.sha256(body).hexdigest())
    assert facts.extension == name.split()[0]
    assert verify(body, None, decode=True) == facts


@pytest.mark.parametrize("label", ["image/jpeg", "image/png", "text/html", "application/octet-stream", "", None])
def test_bytes_decide_not_the_content_type(label: str | None) -> None:
    assert verify(pictures()["webp lossy"], label).kind == "webp"
    assert verify(pictures()["png rgb"], label).kind == "png"


@every_picture
@pytest.mark.parametrize("tail", [b"\0" * 7, b"\xff\xff", b"\r\n", b"\0\xff\r\n \xff"])
def test_padding_behind_the_end_is_tolerated(name: str, tail: bytes) -> None:
    if name.startswith("avif"):
        tail = struct.pack(">I", 8 + len(tail)) + b"free" + tail  # boxes have no bytes between them
    assert verify(pictures()[name] + tail, None, decode=True).size_bytes == len(pictures()[name]) + len(tail)


def test_real_photos_pass(shared_data: Path) -> None:
    files = [*shared_data.glob("photos/*.jpg"), *shared_data.glob("photos/*.webp")]
    assert len(files) > 5
    for file in files:
        assert verify(file.read_bytes(), None).kind == file.suffix[1:]


def test_the_archive_knows_the_same_kinds(tmp_path: Path) -> None:
    bodies = [pictures()[name] for name in ("png rgb", "jpg", "webp lossy", "avif", "gif")] + [b"something"]
    archive = write_pmtiles(tmp_path / "a.pmtiles", ((3, 0, y, b) for y, b in enumerate(bodies)), About("kinds"))
    assert archive.kinds == {"png": 1, "jpg": 1, "webp": 1, "avif": 1, "gif": 1, "other": 1}
    assert [kind_of(body) for body in bodies] == ["png", "jpg", "webp", "avif", "gif", None]


# --- cut pictures ---


@every_picture
def test_no_beginning_of_a_picture_passes(name: str) -> None:
    body = pictures()[name]
    for size in range(16, len(body)):
        error = refused(body[:size])
        assert (type(error), error.reason) == (TransientError, "truncated"), f"{size} of {len(body)} bytes"
    assert {type(refused(body[:size])) for size in range(16)} == {TransientError}


def test_a_jpeg_cut_behind_its_thumbnail_is_truncated() -> None:
    body = with_thumbnail()
    cut = body[: body.index(b"\xff\xd9") + 2]
    assert refused(cut).reason == "truncated"


def test_a_png_end_without_its_checksum_is_truncated() -> None:
    body = pictures()["png rgb"]
    assert refused(body[:-1] + b"\0").reason == "truncated"


def test_a_piece_missing_in_the_middle_shows_where_containers_count() -> None:
    for name in ("png rgb", "webp lossy", "avif"):
        body = pictures()[name]
        assert refused(body[: len(body) // 2] + body[len(body) // 2 + 10 :]).reason == "truncated"


# --- what is no picture ---


@pytest.mark.parametrize(
    ("body", "label", "words"),
    [
        (b"<!DOCTYPE html><html><body>Session expired</body></html>", "text/html", "HTML page"),
        (b"<html>Wrong key s3cret</html>", "image/png", "HTML page"),
        (b"\xef\xbb\xbf\r\n  <HTML>", "image/jpeg", "HTML page"),
        (b'<?xml version="1.0"?><ServiceExceptionReport><ServiceException>s3cret', "text/xml", "WMS service exception"),
        (b'<?xml version="1.0"?><ows:ExceptionReport xmlns:ows="x">', "image/png", "WMS service exception"),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code>', "application/xml", "XML"),
        (b'{"error": {"code": 500, "key": "s3cret"}}', "application/json", "JSON"),
        (b'[{"error": "x"}]', None, "JSON"),
        (b"ERROR: tile could not be drawn (s3cret)", "image/png", "text"),
        ("Zugriff verweigert: Schlüssel ungültig".encode("latin-1"), None, "text"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03packed without saying so", "text/html; charset=utf-8", "text"),
        (b"no", "text/plain", "text"),
    ],
)
def test_words_instead_of_a_picture(body: bytes, label: str | None, words: str) -> None:
    error = refused(body, label)
    assert (type(error), error.reason) == (TransientError, "html_error_page")
    assert words in str(error)
    assert "s3cret" not in str(error)


def test_nothing_at_all_is_empty() -> None:
    error = refused(b"", "image/png")
    assert (type(error), error.reason) == (TransientError, "empty")


def test_other_files_are_of_the_wrong_type() -> None:
    bodies = {
        "tiff": encoded(busy(), "TIFF"),
        "bmp": encoded(busy(), "BMP"),
        "vector tile": bytes.fromhex("1a2f0a05726f616473120b120200001801220309") + b"\0" * 40,
        "gzip": zlib.compress(b"tile" * 90, wbits=31),
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40,
    }
    for name, body in bodies.items():
        error = refused(body)
        assert (type(error), error.reason) == (TerminalError, "wrong_type"), name


# --- damage ---


def test_impossible_sizes_are_refused_before_anything_is_decoded() -> None:
    bomb = png_head(60_000, 60_000) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    error = refused(bomb)
    assert (type(error), error.reason) == (TerminalError, "too_large")
    assert "60000 x 60000" in str(error)
    nothing = png_head(0, 256) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    assert refused(nothing).reason == "damaged"


def test_a_gif_that_hides_a_huge_frame_is_damaged() -> None:
    body = encoded(Image.new("L", (4200, 4200)), "GIF")  # too small for Pillow's own limit
    assert refused(body, decode=True).reason == "too_large"
    hidden = body[:6] + struct.pack("<HH", 8, 8) + body[10:]
    assert refused(hidden, decode=True).reason == "damaged"


def test_wrong_bits_in_a_png_are_seen_wherever_they_are() -> None:
    body = pictures()["png palette"]
    for at in [*range(8, len(body), 37), *range(len(body) - 160, len(body))]:  # Pillow alone misses some at the end
        changed = body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1 :]
        with pytest.raises(ItemError):
            verify(changed, None, decode=True)


def test_wrong_bits_pass_unless_decoding_is_asked_for() -> None:
    body = pictures()["png rgb"]
    changed = body[:2000] + b"\xaa\x55" * 8 + body[2016:]
    assert verify(changed, None).kind == "png"
    assert refused(changed, decode=True).reason == "damaged"


@pytest.mark.parametrize("name", ["jpg", "webp lossless", "gif", "avif"])
def test_pixels_that_cannot_be_decoded_are_damage(name: str) -> None:
    body = pictures()[name]
    at = {"jpg": body.find(b"\xff\xc4") + 5, "avif": body.find(b"mdat") + 4}.get(name, len(body) // 2)
    changed = body[:at] + b"\xff" * 16 + body[at + 16 :]
    assert verify(changed, None).kind == name.split()[0]
    error = refused(changed, decode=True)
    assert (type(error), error.reason) == (TerminalError, "damaged")


def test_a_container_without_a_picture_is_damaged() -> None:
    assert refused(b"\xff\xd8\xff\xe0\0\x08JFIF\0\0\xff\xda\0\x02" + b"scan\xff\xd9").reason == "damaged"
    assert refused(b"\xff\xd8\xff\xe0\0\x04abnonsense nonsense\xff\xd9").reason == "damaged"
    assert refused(b"GIF89a\x08\0\x08\0\0\0\0\x21\xfe\x01a\0;").reason == "damaged"
    assert refused(b"RIFF\x10\0\0\0WEBPJUNK\x04\0\0\0abcd").reason == "damaged"


# --- blank ---


def in_one_colour(mode: str, colour: Any, side: int = 256) -> Image.Image:
    return Image.new(mode, (side, side), colour)


@pytest.mark.parametrize("side", [16, 64, 256, 512])
@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        *[("PNG", mode, {"compress_type": kind}) for mode in ("L", "RGB", "RGBA") for kind in (0, 1, 3, 4)],
        ("PNG", "1", {}),
        ("PNG", "P", {"bits": 4}),
        ("PNG", "I;16", {}),
        ("PNG", "LA", {"compress_level": 1}),
        *[("JPEG", "RGB", {"quality": q, "subsampling": s}) for q in (5, 75, 100) for s in (0, 2)],
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"restart_marker_rows": 4}),
        ("JPEG", "L", {"optimize": True}),
        ("JPEG", "CMYK", {}),
        *[("WEBP", mode, {"lossless": True, "quality": q}) for mode in ("RGB", "RGBA") for q in (0, 100)],
        ("WEBP", "L", {"quality": 80}),
        ("GIF", "L", {}),
        *[("AVIF", mode, {"quality": q, "speed": 10}) for mode in ("RGB", "RGBA") for q in (40, 90)],
    ],
)
def test_one_colour_is_blank_whoever_encoded_it(form: str, mode: str, options: dict[str, Any], side: int) -> None:
    colour: Any = {"RGB": WATER, "RGBA": (*WATER, 200), "LA": (190, 77), "CMYK": (9, 60, 3, 0), "1": 1, "P": 1}.get(
        mode, 190
    )
    assert verify(encoded(in_one_colour(mode, colour, side), form, **options), None).blank


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 4), st.sampled_from(["PNG", "WEBP"]))
def test_any_colour_will_do(colour: tuple[int, ...], form: str) -> None:
    assert verify(encoded(in_one_colour("RGBA", colour), form, lossless=True), None).blank


def test_wholly_transparent_is_blank() -> None:
    assert verify(encoded(in_one_colour("RGBA", (0, 0, 0, 0)), "PNG"), None).blank
    assert verify(encoded(in_one_colour("RGBA", (255, 255, 255, 0)), "PNG"), None).blank


def test_colours_that_nobody_sees_are_looked_through_when_decoding() -> None:
    transparent = busy("RGBA", 64)
    transparent.putalpha(0)
    palette = Image.new("P", (256, 256), 0)
    palette.putpalette([*WATER, *WATER, 1, 2, 3])
    palette.paste(1, (10, 10, 200, 200))
    for picture in (transparent, palette):
        assert not verify(encoded(picture, "PNG"), None).blank
        assert verify(encoded(picture, "PNG"), None, decode=True).blank
    palette.paste(2, (10, 10, 20, 20))
    assert not verify(encoded(palette, "PNG"), None, decode=True).blank


def test_a_transparent_colour_counts_as_a_difference() -> None:
    picture = Image.new("L", (256, 256), 90)
    picture.paste(91, (0, 0, 9, 9))
    assert not verify(encoded(picture, "PNG", transparency=91), None, decode=True).blank


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["L", "RGB", "RGBA", "P", "1"]),
    st.sampled_from(["PNG", "GIF", "WEBP"]),
    st.integers(0, 255),
    st.integers(0, 255),
)
def test_one_other_pixel_is_enough(mode: str, form: str, x: int, y: int) -> None:
    picture = Image.new(mode, (256, 256))
    if mode == "P":
        picture.putpalette([*WATER, 0, 0, 0])
    picture.putpixel((x, y), {"RGB": (1, 0, 0), "RGBA": (0, 0, 0, 1)}.get(mode, 1))
    options = {"lossless": True} if form == "WEBP" else {}
    if (form, mode) == ("GIF", "RGBA"):
        picture.putpixel((x, y), (0, 0, 0, 255))
    assert not verify(encoded(picture, form, **options), None).blank


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
@pytest.mark.parametrize("width", [1, 2, 3, 9, 20, 27, 64])
def test_narrow_pictures_and_filled_up_bytes_are_blank_too(mode: str, width: int) -> None:
    assert verify(encoded(Image.new(mode, (width, 40), 1), "PNG"), None).blank


def test_rows_of_different_colours_are_not_blank() -> None:
    picture = Image.new("RGB", (256, 256), WATER)
    picture.paste((9, 9, 9), (0, 200, 256, 256))
    assert not verify(encoded(picture, "PNG"), None).blank


@pytest.mark.parametrize("form", ["GIF", "WEBP", "AVIF", "PNG"])
def test_an_animation_is_not_blank_though_its_first_frame_is(form: str) -> None:
    frames = [in_one_colour("RGB", (9, 9, 9), 64), in_one_colour("RGB", (200, 9, 9), 64)]
    body = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    assert not verify(body, None).blank
    assert not verify(body, None, decode=True).blank


def test_known_blank_tiles_are_blank_whatever_they_show() -> None:
    body = pictures()["jpg"]
    known = known_blanks([f" {hashlib.sha256(body).hexdigest().upper()}\n"])
    assert verify(body, None, blanks=known).blank
    assert verify(body, None, blanks=known, decode=True).blank
    assert not verify(pictures()["png rgb"], None, blanks=known).blank
    assert known_blanks([]) == frozenset()


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "a" * 63])
def test_a_hash_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
        known_blanks([text])


# --- cost ---


class Decodings:
    """Counts the pictures that Pillow is asked to open, and opens them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._open, self._lock = Image.open, threading.Lock()
        patch.setattr(tile_images.Image, "open", self)
        patch.setattr(tile_images, "_verdicts", tile_images._Verdicts())

    def __call__(self, *args: Any, **options: Any) -> Image.Image:
        with self._lock:
            self.count += 1
        return self._open(*args, **options)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> Decodings:
    return Decodings(monkeypatch)


def test_ordinary_tiles_are_never_decoded(decodings: Decodings) -> None:
    photo = busy(side=256)
    drawing = Image.new("P", (256, 256), 0)
    drawing.putpalette([*WATER, 0, 0, 0, 90, 90, 90])
    for number in range(0, 256, 6):
        drawing.paste(number // 6 % 3, (number, number * number % 200, number + 4, 255 - number % 90))
    sparse = Image.new("RGBA", (256, 256))
    sparse.paste((200, 30, 30, 255), (100, 170, 102, 256))
    bodies = [
        encoded(photo, "PNG"),
        encoded(photo, "JPEG", quality=30),
        encoded(photo, "WEBP", quality=30),
        encoded(photo.quantize(8), "GIF"),
        encoded(photo, "AVIF", quality=30),
        encoded(drawing, "PNG"),
        encoded(sparse, "PNG"),
    ]
    assert not any(verify(body, None).blank for body in bodies)
    assert decodings.count == 0


def test_a_repeated_small_tile_is_decoded_once(decodings: Decodings) -> None:
    blank = encoded(in_one_colour("RGB", WATER), "JPEG")
    almost = Image.new("L", (256, 256), 7)
    almost.putpixel((3, 3), 9)
    other = encoded(almost, "GIF")
    for _ in range(50):
        assert verify(blank, None).blank
        assert not verify(other, None).blank
    assert decodings.count == 2


def test_only_so_many_verdicts_are_kept_and_the_used_ones_longest(
    decodings: Decodings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_images, "VERDICTS_KEPT", 4)
    blank = encoded(in_one_colour("RGB", WATER), "PNG")
    for shade in range(20):
        assert verify(encoded(in_one_colour("L", shade), "PNG"), None).blank
        assert verify(blank, None).blank
    assert decodings.count == 21
    assert len(tile_images._verdicts._known) == 4


def test_verdicts_are_safe_for_threads(decodings: Decodings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_images, "VERDICTS_KEPT", 3)
    bodies = [encoded(in_one_colour("L", shade, 32), "PNG") for shade in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: verify(bodies[number % 8], None).blank, range(800)))
    assert all(found)
    assert len(tile_images._verdicts._known) == 3


# --- anything at all ---

SMALL = [
    encoded(busy(side=24), "PNG"),
    encoded(busy("RGBA", 24).quantize(8), "PNG"),
    encoded(in_one_colour("RGB", WATER, 64), "PNG"),
    encoded(busy(side=24), "JPEG"),
    encoded(in_one_colour("RGB", WATER, 64), "JPEG", progressive=True),
    encoded(busy(side=24), "WEBP"),
    encoded(in_one_colour("RGBA", (*WATER, 9), 64), "WEBP"),
    encoded(busy(side=24).quantize(8), "GIF"),
    encoded(in_one_colour("L", 9, 64), "GIF"),
    encoded(busy(side=24), "AVIF"),
    encoded(in_one_colour("RGB", WATER, 64), "AVIF"),
]
PIECES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"\xff\xd9", b"\xff" * 9, b"\0" * 9, b"IEND", b"IDAT", b"ANMF", b"\x3b", b"\x2c", b"moov"]),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A picture with one to six places overwritten, cut out or filled in."""
    body = draw(st.sampled_from(SMALL))
    for _ in range(draw(st.integers(1, 6))):
        at, gone, piece = draw(st.integers(0, len(body))), draw(st.integers(0, 20)), draw(PIECES)
        body = body[:at] + piece + body[at + (len(piece) if draw(st.booleans()) else gone) :]
    return body


def is_ours(body: bytes, decode: bool) -> None:
    try:
        facts = verify(body, "image/png", decode=decode)
    except ItemError as error:
        said, reason = str(error), error.reason
    else:
        assert facts.size_bytes == len(body)
        return
    assert reason in ("truncated", "damaged", "too_large", "html_error_page", "wrong_type", "empty")
    assert said.endswith(".")
    assert len(said) < 160


@settings(max_examples=800, deadline=None)
@given(mutated(), st.booleans())
@pytest.mark.filterwarnings("ignore")
def test_mutated_pictures_raise_nothing_foreign(body: bytes, decode: bool) -> None:
    is_ours(body, decode)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(
        [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x20\0\0\0WEBP", b"GIF89a", b"\0\0\0\x0cftypavif"]
    ),
    st.binary(max_size=80),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore")
def test_noise_behind_a_signature_raises_nothing_foreign(head: bytes, noise: bytes, decode: bool) -> None:
    is_ours(head + noise, decode)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([body for body in SMALL if kind_of(body) in ("png", "jpg", "webp")]), st.data())
def test_cut_pictures_never_pass(body: bytes, data: st.DataObject) -> None:
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    with pytest.raises(TransientError):
        verify(cut, "image/png", decode=data.draw(st.booleans()))
