"""Pixels of a mosaic: map tiles decoded to one kind of pixel, and packed as TIFF tiles.

Sources: TIFF 6.0 section 14 (differencing predictor), TIFF Technical Note 2 (JPEG in TIFF), libtiff's
compression 50000 (Zstandard).
"""

from __future__ import annotations

import functools
import io
import zlib
from dataclasses import dataclass
from typing import Literal, NamedTuple

from PIL import Image, ImageChops, JpegImagePlugin

from tasks.errors import ConfigurationError

Compression = Literal["deflate", "zstd", "jpeg"]
Mode = Literal["L", "RGB", "RGBA"]

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP")
_DEPTH_8 = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "La", "RGBa", "RGBX"})
_DEFLATE_LEVEL = 3  # on photographs as small as 6, in 40 % of its time
_ZSTD_LEVEL = 3  # on photographs as small as deflate, in a third of its time
_JPEG_QUALITY = 90  # for overviews, and for tiles that cannot be taken as they are
_SUBSAMPLING = {(1, 1): 0, (2, 1): 1, (2, 2): 2}
_EOI = b"\xff\xd9"

Sampling = tuple[int, int]
"""How many pixels share a colour sample in a JPEG, across and down."""


class Unusable(Exception):
    """A tile that cannot be part of the mosaic; `args[0]` is `unreadable` or `wrong_size`."""


class TooNarrow(Exception):
    """A tile has colours or transparency that the mosaic's pixels cannot hold; `mode` could."""

    def __init__(self, mode: Mode) -> None:
        super().__init__(mode)
        self.mode = mode


@dataclass(frozen=True, slots=True)
class Pixels:
    """How all tiles of a mosaic are kept.

    mode      L (grey), RGB or RGBA, 8 bits each
    sampling  with jpeg: of the tiles that are taken as they are
    """

    tile_px: int
    mode: Mode
    compression: Compression
    sampling: Sampling = (2, 2)


class Picture(NamedTuple):
    """Pixels of one TIFF tile; `mask` (L, 0 or 255) says which count, None: all of them."""

    image: Image.Image
    mask: Image.Image | None = None


class Decoded(NamedTuple):
    """A map tile. `whole` is its own JPEG stream where that can be the TIFF tile, pixel for pixel."""

    picture: Picture
    whole: bytes | None


def look_at(content: bytes) -> Image.Image:
    """The tile's image with all pixels read, in its own mode. Raises Unusable."""
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as exc:
        raise Unusable("unreadable") from exc
    if image.mode not in _DEPTH_8:  # 16-bit elevations would be cut to 8
        raise Unusable("unreadable")
    return image


def mode_of(image: Image.Image) -> Mode:
    """The least mode that holds what the image can hold."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"


def sampling_of(image: Image.Image) -> Sampling | None:
    """How a JPEG's colours are sampled, if TIFF readers can read its stream as a tile; else None.

    Baseline with one component, or with three in YCbCr of which the first is the finest.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.info.get("progressive"):
        return None
    factors = [(across, down) for _, across, down, _ in image.layer]
    if len(factors) == 1:
        return (1, 1)
    plain = len(factors) == 3 and factors[1:] == [(1, 1), (1, 1)] and image.info.get("adobe_transform", 1) == 1
    names = bytes(layer[0] for layer in image.layer) if plain else b""
    return factors[0] if plain and factors[0] in _SUBSAMPLING and names != b"RGB" else None


def decode(content: bytes, pixels: Pixels) -> Decoded:
    """A map tile in the mosaic's pixels. Raises Unusable, or TooNarrow for a lossless mosaic."""
    image = look_at(content)
    if image.size != (pixels.tile_px, pixels.tile_px):
        raise Unusable("wrong_size")
    picture = _fitted(image, pixels)
    return Decoded(picture, content if _can_stay(image, content, pixels) else None)


def encode(image: Image.Image, pixels: Pixels) -> bytes:
    """Pack pixels as a TIFF tile."""
    if pixels.compression == "jpeg":
        packed = io.BytesIO()
        subsampling = _SUBSAMPLING[pixels.sampling] if pixels.mode == "RGB" else -1
        image.save(packed, "JPEG", quality=_JPEG_QUALITY, subsampling=subsampling)
        return packed.getvalue()
    shifted = Image.new(image.mode, image.size)
    shifted.paste(image, (1, 0))
    differences = ImageChops.subtract_modulo(image, shifted).tobytes()
    return _zstd(differences) if pixels.compression == "zstd" else zlib.compress(differences, _DEFLATE_LEVEL)


def encode_mask(mask: Image.Image | None, tile_px: int) -> bytes:
    """Pack a mask (L, 0 or 255; None: all of it counts) as a TIFF tile of one bit a pixel, deflated."""
    return _full_mask(tile_px) if mask is None else _packed_mask(mask)


@functools.cache
def _full_mask(tile_px: int) -> bytes:
    return _packed_mask(Image.new("L", (tile_px, tile_px), 255))


def _packed_mask(mask: Image.Image) -> bytes:
    return zlib.compress(mask.convert("1", dither=Image.Dither.NONE).tobytes(), _DEFLATE_LEVEL)


def halved(picture: Picture, mode: Mode) -> Picture:
    """Half as wide and high: the mean of the pixels that count. A pixel counts when one of its four does."""
    if picture.mask is None:
        return Picture(picture.image.reduce(2))
    covered = picture.image.convert("RGB")
    covered.putalpha(picture.mask)
    small = covered.reduce(2)  # weighs by alpha
    mask = small.getchannel("A").point(lambda alpha: 255 if alpha else 0)
    return Picture(small.convert("RGB").convert(mode), mask)


def check_tile_px(tile_px: int) -> None:
    """TIFF tiles are multiples of 16 pixels. Raises ConfigurationError."""
    if not (0 < tile_px <= 4096 and tile_px % 16 == 0):
        raise ConfigurationError(
            f"Tiles of {tile_px} pixels cannot be TIFF tiles; only multiples of 16 up to 4096 can."
        )


def _fitted(image: Image.Image, pixels: Pixels) -> Picture:
    if pixels.mode == "RGBA":
        return Picture(image.convert("RGBA"))
    image, alpha = _parted(image)
    if alpha and pixels.compression != "jpeg":
        raise TooNarrow("RGBA")
    if pixels.mode == "L" and not _is_grey(image):
        raise TooNarrow("RGB")
    mask = alpha.point(lambda value: 255 if value >= 128 else 0) if alpha else None
    return Picture(image if image.mode == pixels.mode else image.convert(pixels.mode), mask)


def _parted(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours, and the transparency where there is any."""
    if mode_of(image) != "RGBA":
        return image, None
    whole = image.convert("RGBA")
    alpha = whole.getchannel("A")
    return whole.convert("RGB"), None if alpha.getextrema() == (255, 255) else alpha


def _is_grey(image: Image.Image) -> bool:
    """Whether nothing is lost by making it grey."""
    if image.mode in ("1", "L"):
        return True
    red, green, blue = image.convert("RGB").split()
    return all(ImageChops.difference(red, other).getextrema() == (0, 0) for other in (green, blue))


def _can_stay(image: Image.Image, content: bytes, pixels: Pixels) -> bool:
    if pixels.compression != "jpeg" or not content.rstrip(b"\0").endswith(_EOI):
        return False
    sampling = sampling_of(image)
    if pixels.mode == "L":
        return sampling is not None and image.mode == "L"
    return sampling == pixels.sampling and image.mode == "RGB"


def _zstd(data: bytes) -> bytes:
    import pyarrow  # of the ETL's: no further dependency, and it lets go of the GIL

    packed = pyarrow.Codec("zstd", compression_level=_ZSTD_LEVEL).compress(data, asbytes=True)
    return bytes(packed)
