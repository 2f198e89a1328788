"""Mosaics read back by GDAL (rasterio), pixel by pixel."""

from __future__ import annotations

import functools
import io
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks import archive_geotiff, geotiff_pyramid
from tasks.archive_geotiff import GeotiffMosaic, write_geotiff
from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested
from tasks.geotiff_pyramid import Grid, Node
from tasks.tile_grid import Block, block_metres, pixel_metres

rasterio = pytest.importorskip("rasterio")

CORNER = (21, 1728675, 1051362)
Tiles = dict[tuple[int, int], bytes]


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("png", "RGB"),
        ("rgba", "RGBA"),
        ("palette", "RGBA"),
        ("plain_palette", "RGB"),
        ("grey", "L"),
        ("grey_alpha", "RGBA"),
        ("one_bit", "L"),
        ("jpg", "RGB"),
        ("grey_jpg", "L"),
        ("webp", "RGBA"),
    ],
)
def test_every_pixel_is_the_tiles(tmp_path: Path, kind: str, mode: str, compression: str) -> None:
    block = at_corner(5, 3)
    tiles = made(block, kind)
    del tiles[block.x_first + 1, block.y_first + 2]
    mosaic = write(tmp_path, block, tiles, compression=compression)
    assert (mosaic.mode, mosaic.tiles, mosaic.missing, mosaic.left_out) == (mode, 14, 1, {})
    same_pixels(mosaic, block, tiles)


def test_mixed_formats_are_one_mosaic(tmp_path: Path) -> None:
    block = at_corner(4, 4)
    kinds = ["png", "jpg", "grey", "plain_palette", "rgba", "webp", "palette"]
    tiles = {place: tile(kinds[n % len(kinds)], n) for n, place in enumerate(places(block))}
    mosaic = write(tmp_path, block, tiles)
    assert mosaic.mode == "RGBA"
    same_pixels(mosaic, block, tiles)


def test_what_the_sample_did_not_show_is_found_in_time(tmp_path: Path) -> None:
    """Thousands of grey tiles, one with colour, one with transparency, where nobody looked."""
    block = at_corner(40, 36)
    grey = tile("grey", 1, side=16)
    tiles = dict.fromkeys(places(block), grey)
    tiles[block.x_first + 31, block.y_first + 27] = tile("png", 2, side=16)
    mosaic = write(tmp_path, block, tiles)
    assert mosaic.mode == "RGB"
    same_pixels(mosaic, block, tiles)
    tiles[block.x_first + 21, block.y_first + 30] = tile("rgba", 2, side=16)
    mosaic = write(tmp_path, block, tiles)
    assert mosaic.mode == "RGBA"
    same_pixels(mosaic, block, tiles)


def test_it_lies_where_the_tiles_lie(tmp_path: Path) -> None:
    block = at_corner(7, 5)
    mosaic = write(tmp_path, block, made(block, "jpg"))
    bounds = block_metres(block)
    with rasterio.open(mosaic.path) as found:
        assert found.crs.to_epsg() == 3857
        assert tuple(found.bounds) == pytest.approx(tuple(bounds), abs=1e-6)
        assert found.res == pytest.approx((pixel_metres(21, 256),) * 2, abs=1e-12)
        assert (found.width, found.height) == (mosaic.width, mosaic.height) == (7 * 256, 5 * 256)
        assert found.tags()["AREA_OR_POINT"] == "Area"
        assert found.profile["tiled"] is True
        assert found.block_shapes == [(256, 256)] * 3


def test_texts_are_kept(tmp_path: Path) -> None:
    block = at_corner(1, 1)
    mosaic = write(tmp_path, block, made(block, "png"), description="Praha", attribution="(c) ČÚZK")
    with rasterio.open(mosaic.path) as found:
        tags = found.tags()
        assert (tags["TIFFTAG_IMAGEDESCRIPTION"], tags["TIFFTAG_COPYRIGHT"]) == ("Praha", "(c) ČÚZK")
    assert mosaic.levels == 0


@pytest.mark.parametrize("kind", ["png", "rgba", "grey"])
def test_overviews_are_means_of_the_pixels_that_count(tmp_path: Path, kind: str) -> None:
    block = at_corner(5, 3)
    tiles = made(block, kind, side=64)
    for n, place in enumerate(places(block)):
        if n % 4 == 1:
            del tiles[place]
    mosaic = write(tmp_path, block, tiles)
    with rasterio.open(mosaic.path) as found:
        assert found.overviews(1) == [2, 4, 8]
    whole, mask = expected(block, tiles, mosaic)
    for level in range(mosaic.levels):
        with rasterio.open(mosaic.path, overview_level=level) as found:
            whole, mask = numpy_halved(whole, mask, mosaic.mode)
            assert (found.height, found.width) == whole.shape[1:]
            if mosaic.mode != "RGBA":
                assert np.array_equal(found.dataset_mask(), mask)
            difference = np.abs(found.read().astype(int) - whole)
            if mosaic.mode == "RGBA":  # a colour under little alpha has few steps
                difference = difference[:, whole[3] > 100]
            assert difference.max() <= 3 * (level + 1)
            assert difference.mean() < 0.5 * (level + 1)


def test_overviews_can_be_left_away(tmp_path: Path) -> None:
    block = at_corner(9, 9)
    tiles = made(block, "png", side=16)
    mosaic = write(tmp_path, block, tiles, overviews=False)
    with rasterio.open(mosaic.path) as found:
        assert found.overviews(1) == []
    same_pixels(mosaic, block, tiles)


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_tiles_go_in_as_they_are(tmp_path: Path, sampling: str) -> None:
    block = at_corner(5, 4)
    tiles = made(block, "jpg", subsampling=sampling)
    full = write(tmp_path, block, tiles, compression="jpeg")
    with Image.open(full.path) as found:  # libjpeg-turbo on both sides
        assert np.array_equal(np.asarray(found).transpose(2, 0, 1), expected(block, tiles, full)[0])
    del tiles[block.x_first + 3, block.y_first]
    mosaic = write(tmp_path, block, tiles, compression="jpeg")
    assert (mosaic.tiles, mosaic.as_they_are, mosaic.missing) == (19, 19, 1)
    same_pixels(mosaic, block, tiles, decoder=gdal_bands)
    data = mosaic.path.read_bytes()
    assert all(content in data for content in tiles.values())
    with rasterio.open(mosaic.path) as found:
        assert found.compression.name == "jpeg"
        assert found.overviews(1) == [2, 4, 8]


def test_grey_jpeg_tiles_go_in_as_they_are(tmp_path: Path) -> None:
    block = at_corner(2, 2)
    tiles = made(block, "grey_jpg")
    mosaic = write(tmp_path, block, tiles, compression="jpeg")
    assert (mosaic.mode, mosaic.as_they_are) == ("L", 4)
    same_pixels(mosaic, block, tiles)


def test_tiles_that_are_no_plain_jpeg_become_one(tmp_path: Path) -> None:
    block = at_corner(4, 2)
    tiles = made(block, "jpg", subsampling="4:2:0")
    odd = [
        tile("png", 3),
        tile("jpg", 4, progressive=True, subsampling="4:2:0"),
        tile("jpg", 5, subsampling="4:4:4"),
        tile("grey_jpg", 6),
    ]
    for place, content in zip(places(block), odd, strict=False):
        tiles[place] = content
    mosaic = write(tmp_path, block, tiles, compression="jpeg")
    assert (mosaic.tiles, mosaic.as_they_are) == (8, 4)
    whole, _ = expected(block, tiles, mosaic)
    with rasterio.open(mosaic.path) as found:
        difference = np.abs(found.read().astype(int) - whole)
    assert difference.mean() < 6
    assert difference[:, :, 4 * 256 :].size == 0 or difference[:, 256:, :].max() == 0


def test_a_transparent_tile_among_jpegs_is_masked(tmp_path: Path) -> None:
    block = at_corner(4, 4)
    tiles = made(block, "jpg")
    place = (block.x_first + 1, block.y_first + 1)
    half = Image.new("RGBA", (256, 256), (200, 0, 0, 255))
    half.paste((0, 0, 0, 0), (0, 0, 128, 256))
    tiles[place] = saved(half, "PNG")
    mosaic = write(tmp_path, block, tiles, compression="jpeg")
    assert (mosaic.mode, mosaic.missing) == ("RGB", 0)
    with rasterio.open(mosaic.path) as found:
        mask = found.dataset_mask()
    assert not mask[256:512, 256:384].any()
    assert mask.sum() == 255 * (mask.size - 128 * 256)


def test_tiles_of_another_size_or_unreadable_are_left_out_and_counted(tmp_path: Path) -> None:
    block = at_corner(4, 3)
    tiles = made(block, "png")
    tiles[block.x_first, block.y_first] = tile("png", 1, side=128)
    tiles[block.x_first + 1, block.y_first] = tile("png", 1)[:-400]
    tiles[block.x_first + 2, block.y_first] = b"<html>busy</html>"
    tiles[block.x_first + 3, block.y_first] = saved(Image.new("I;16", (256, 256), 700), "PNG")
    mosaic = write(tmp_path, block, tiles)
    assert mosaic.left_out == {"unreadable": 3, "wrong_size": 1}
    assert (mosaic.tiles, mosaic.missing) == (8, 4)
    for x in range(4):
        del tiles[block.x_first + x, block.y_first]
    same_pixels(mosaic, block, tiles)


def test_large_tiles(tmp_path: Path) -> None:
    block = at_corner(3, 2)
    tiles = made(block, "png", side=512)
    mosaic = write(tmp_path, block, tiles)
    assert mosaic.tile_px == 512
    same_pixels(mosaic, block, tiles)


def test_the_size_can_be_said(tmp_path: Path) -> None:
    block = at_corner(3, 2)
    tiles = made(block, "png", side=64)
    tiles[block.x_first, block.y_first] = tile("png", 1, side=256)
    mosaic = write(tmp_path, block, tiles, tile_px=256)
    assert (mosaic.tiles, mosaic.left_out) == (1, {"wrong_size": 5})


@pytest.mark.parametrize("columns", [1, 2, 3, 8, 9, 17])
def test_any_width_and_height(tmp_path: Path, columns: int) -> None:
    block = at_corner(columns, 20 - columns)
    tiles = made(block, "png", side=16)
    for place in random.Random(columns).sample(list(tiles), len(tiles) // 3):
        del tiles[place]
    mosaic = write(tmp_path, block, tiles)
    same_pixels(mosaic, block, tiles)


def test_a_mosaic_that_is_nearly_all_missing(tmp_path: Path) -> None:
    """The sample meets no tile: the first that is there is looked for."""
    block = at_corner(350, 300)
    tiles = {(block.x_first + 133, block.y_first + 244): tile("png", 1, side=16)}
    mosaic = write(tmp_path, block, tiles)
    assert (mosaic.tiles, mosaic.missing) == (1, 350 * 300 - 1)
    with rasterio.open(mosaic.path) as found:
        window = rasterio.windows.Window(133 * 16, 244 * 16, 16, 16)
        assert np.array_equal(found.read(window=window), bands(tiles.popitem()[1], "RGB"))
        with rasterio.open(mosaic.path, overview_level=8) as small:
            assert small.dataset_mask().sum() == 255  # a lone tile stays visible from afar
    assert mosaic.size_bytes < 20_000_000


def test_bigtiff_when_offsets_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = at_corner(4, 5)
    tiles = made(block, "jpg")
    del tiles[block.x_first, block.y_first]
    small = write(tmp_path / "small", block, tiles)
    monkeypatch.setattr(archive_geotiff, "CLASSIC_BYTES", 100_000)
    big = write(tmp_path / "big", block, tiles)
    assert (small.big, big.big) == (False, True)
    assert small.path.read_bytes()[:4] == b"II*\0"
    assert big.path.read_bytes()[:4] == b"II+\0"
    same_pixels(small, block, tiles)
    same_pixels(big, block, tiles)


def test_the_same_tiles_make_the_same_file_whatever_the_threads(tmp_path: Path) -> None:
    block = at_corner(20, 20)
    tiles = made(block, "png", side=16)
    one = write(tmp_path / "a", block, tiles, threads=1)
    four = write(tmp_path / "b", block, tiles, threads=4)
    assert one.sha256 == four.sha256


def test_gdal_finds_the_file_sound(tmp_path: Path) -> None:
    """Every block of every level and mask is read; any complaint of GDAL's is a failure."""
    block = at_corner(9, 6)
    tiles = made(block, "jpg")
    del tiles[block.x_first, block.y_first]
    for compression in ("deflate", "zstd", "jpeg"):
        mosaic = write(tmp_path, block, tiles, compression=compression)
        code = f"""
import logging, rasterio
logging.basicConfig(level=logging.WARNING)
with rasterio.Env(CPL_DEBUG=False), rasterio.open({str(mosaic.path)!r}) as whole:
    levels = len(whole.overviews(1))
for level in [None, *range(levels)]:
    with rasterio.open({str(mosaic.path)!r}, **({{}} if level is None else {{"overview_level": level}})) as found:
        found.read(); found.read_masks()
        print(found.width)
"""
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert ran.stdout.split() == [str(-(-9 * 256 >> level)) for level in range(5)]
        assert ran.stderr == ""


def test_pillow_reads_the_first_picture_too(tmp_path: Path) -> None:
    """Another reader than GDAL, through libtiff."""
    block = at_corner(3, 2)
    tiles = made(block, "png")
    mosaic = write(tmp_path, block, tiles)
    whole, _ = expected(block, tiles, mosaic)
    with Image.open(mosaic.path) as found:
        assert np.array_equal(np.asarray(found).transpose(2, 0, 1), whole)


@pytest.mark.parametrize(
    ("columns", "options", "says"),
    [
        (2, {"compression": "lzw"}, "lzw"),
        (0, {}, "no tile"),
        (60_000_000, {}, "too large"),
    ],
)
def test_mosaics_that_cannot_work(tmp_path: Path, columns: int, options: dict[str, Any], says: str) -> None:
    block = Block(28, 0, columns - 1, 0, 0)
    with pytest.raises(ConfigurationError, match=says):
        write(tmp_path, block, {(0, 0): tile("png", 1)}, **options)


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        ([], "No readable tile"),
        ([b"<html>"], "No readable tile"),
        ([b"GIF89a"], "No readable tile"),
        ("wide", "not square"),
        ("odd", "multiples of 16"),
    ],
)
def test_tiles_that_make_no_mosaic_leave_nothing(tmp_path: Path, contents: Any, says: str) -> None:
    block = at_corner(2, 2)
    if contents == "wide":
        contents = [saved(Image.new("RGB", (256, 128)), "PNG")]
    elif contents == "odd":
        contents = [saved(Image.new("RGB", (250, 250)), "PNG")]
    with pytest.raises(ConfigurationError, match=says):
        write(tmp_path, block, dict(zip(places(block), contents, strict=False)))
    assert not list(tmp_path.iterdir())


def test_no_tile_of_the_size_that_was_said(tmp_path: Path) -> None:
    block = at_corner(2, 2)
    with pytest.raises(ConfigurationError, match="tile_px"):
        write(tmp_path, block, made(block, "png", side=64), tile_px=512)
    assert not list(tmp_path.iterdir())


def test_a_stop_leaves_nothing_and_what_was_there_stays(tmp_path: Path) -> None:
    block = at_corner(300, 300)
    content = tile("png", 1, side=16)
    stop = threading.Event()
    there = tmp_path / "a.tif"
    there.write_bytes(b"yesterday's")

    def progress(done: int, _all: int) -> None:
        assert done
        stop.set()

    with pytest.raises(StopRequested):
        write_geotiff(there, block, of(dict.fromkeys(places(block), content)), stop=stop, progress=progress)
    assert there.read_bytes() == b"yesterday's"
    assert list(tmp_path.iterdir()) == [there]


def test_a_stop_at_the_very_end_never_makes_a_mosaic_with_holes(tmp_path: Path) -> None:
    block = at_corner(8, 8)
    tiles = made(block, "png")
    stop = threading.Event()
    asked = 0

    def tiles_of(part: Block) -> Iterable[tuple[int, int, int, bytes]]:
        nonlocal asked
        asked += 1
        if asked == 2:  # the survey was the first
            stop.set()
        return of(tiles)(part)

    with pytest.raises(StopRequested):
        write_geotiff(tmp_path / "a.tif", block, tiles_of, stop=stop)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_tiles_leaves_nothing(tmp_path: Path) -> None:
    block = at_corner(600, 300)
    content = tile("png", 1, side=16)
    asked = 0

    def tiles_of(part: Block) -> Iterable[tuple[int, int, int, bytes]]:
        nonlocal asked
        asked += 1
        if asked > 28:  # 24 or so are the survey's
            raise OutsideUnreachable("The database is away.")
        return [(part.z, part.x_first, part.y_first, content)]

    with pytest.raises(OutsideUnreachable, match="database"):
        write_geotiff(tmp_path / "a.tif", block, tiles_of)
    assert not list(tmp_path.iterdir())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("geotiff")]


def test_progress_is_told_to_the_end(tmp_path: Path) -> None:
    block = at_corner(300, 9)
    told: list[tuple[int, int]] = []
    content = tile("png", 1, side=16)
    write_geotiff(
        tmp_path / "a.tif",
        block,
        of(dict.fromkeys(places(block), content)),
        progress=lambda done, every: told.append((done, every)),
    )
    assert told[-1] == (2700, 2700)
    assert told == sorted(told)


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (5, 3), (120, 169), (1, 9)])
def test_the_walk_meets_every_tile_once(columns: int, rows: int) -> None:
    grid = Grid(columns, rows)
    top = Node(grid.top, 0, 0)
    assert grid.size(grid.top) == (1, 1)
    for level in range(grid.top + 1):
        met = list(grid.below(top, level))
        across, down = grid.size(level)
        assert sorted((node.column, node.row) for node in met) == [(c, r) for c in range(across) for r in range(down)]


def test_a_pyramid_keeps_a_handful_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(100, 90)
    pixels = geotiff_pyramid.Pixels(16, "L", "deflate")
    emitted: list[Node] = []
    pyramid = geotiff_pyramid.Pyramid(grid, pixels, grid.top, lambda node, _: emitted.append(node))
    most = 0
    for node in grid.below(Node(grid.top, 0, 0), 0):
        pyramid.add(node, geotiff_pyramid.Picture(Image.new("L", (16, 16))))
        most = max(most, len(pyramid._open))
    assert most <= grid.top
    assert len(emitted) == len(set(emitted)) == sum(a * b for a, b in map(grid.size, range(1, grid.top + 1)))


def at_corner(columns: int, rows: int) -> Block:
    z, x, y = CORNER
    return Block(z, x, x + columns - 1, y, y + rows - 1)


def places(block: Block) -> list[tuple[int, int]]:
    return [(x, y) for y in range(block.y_first, block.y_last + 1) for x in range(block.x_first, block.x_last + 1)]


def made(block: Block, kind: str, side: int = 256, **options: Any) -> Tiles:
    return {place: tile(kind, n, side, **options) for n, place in enumerate(places(block))}


@functools.cache
def tile(kind: str, seed: int, side: int = 256, **options: Any) -> bytes:
    """A tile full of detail, each seed another."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (max(side // 16, 2),) * 2 + (4,), np.uint8))
    image = coarse.resize((side, side), Image.Resampling.BICUBIC)
    rgb, grey = image.convert("RGB"), image.convert("L")
    match kind:
        case "png":
            return saved(rgb, "PNG")
        case "rgba":
            return saved(image, "PNG")
        case "palette":
            few = rgb.quantize(16, method=Image.Quantize.FASTOCTREE)
            return saved(few, "PNG", transparency=3)
        case "plain_palette":
            return saved(rgb.quantize(16, method=Image.Quantize.FASTOCTREE), "PNG")
        case "grey":
            return saved(grey, "PNG")
        case "grey_alpha":
            return saved(image.convert("LA"), "PNG")
        case "one_bit":
            return saved(grey.convert("1"), "PNG")
        case "grey_jpg":
            return saved(grey, "JPEG", quality=80)
        case "webp":
            return saved(image, "WEBP", lossless=True, exact=True)
        case _:
            return saved(rgb, "JPEG", quality=80, **options)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def of(tiles: Tiles) -> Callable[[Block], Iterable[tuple[int, int, int, bytes]]]:
    def tiles_of(part: Block) -> Iterable[tuple[int, int, int, bytes]]:
        return [
            (part.z, x, y, content)
            for x in range(part.x_first, part.x_last + 1)
            for y in range(part.y_first, part.y_last + 1)
            if (content := tiles.get((x, y)))
        ]

    return tiles_of


def write(folder: Path, block: Block, tiles: Tiles, **options: Any) -> GeotiffMosaic:
    return write_geotiff(folder / "a.tif", block, of(tiles), **options)


def bands(content: bytes, mode: str) -> Any:
    """What Pillow decodes, bands first, in the mosaic's mode."""
    with Image.open(io.BytesIO(content)) as image:
        wide = image.convert("RGBA") if mode == "RGBA" else image.convert(mode)
        found = np.asarray(wide)
    return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)


def gdal_bands(content: bytes, mode: str) -> Any:
    """What GDAL's JPEG decoder makes of the tile: rasterio's wheel has another one than Pillow's (IJG 9, not turbo)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.MemoryFile(content) as memory, memory.open() as found:
            assert found.count == len(mode)
            return found.read()


def expected(block: Block, tiles: Tiles, mosaic: GeotiffMosaic, decoder: Any = bands) -> tuple[Any, Any]:
    side = mosaic.tile_px
    whole = np.zeros((len(mosaic.mode), block.rows * side, block.columns * side), int)
    mask = np.zeros(whole.shape[1:], int)
    for (x, y), content in tiles.items():
        top, left = (y - block.y_first) * side, (x - block.x_first) * side
        whole[:, top : top + side, left : left + side] = decoder(content, mosaic.mode)
        mask[top : top + side, left : left + side] = 255
    return whole, mask


def same_pixels(mosaic: GeotiffMosaic, block: Block, tiles: Tiles, decoder: Any = bands) -> None:
    whole, mask = expected(block, tiles, mosaic, decoder)
    with rasterio.open(mosaic.path) as found:
        assert np.array_equal(found.read(), whole)
        if mosaic.mode == "RGBA":
            assert found.colorinterp[3].name == "alpha"
        else:
            assert np.array_equal(found.dataset_mask(), mask)


def numpy_halved(whole: Any, mask: Any, mode: str) -> tuple[Any, Any]:
    """The mean of the up to four pixels that count, by alpha or mask."""
    height, width = -(-whole.shape[1] // 2) * 2, -(-whole.shape[2] // 2) * 2
    wide = np.zeros((whole.shape[0], height, width))
    wide[:, : whole.shape[1], : whole.shape[2]] = whole
    weight = np.zeros((height, width))
    weight[: mask.shape[0], : mask.shape[1]] = whole[3] if mode == "RGBA" else mask
    four = lambda a: a[..., ::2, ::2] + a[..., 1::2, ::2] + a[..., ::2, 1::2] + a[..., 1::2, 1::2]  # noqa: E731
    total = four(weight)
    mean = np.where(total > 0, four(wide * weight) / np.maximum(total, 1), 0).round()
    if mode == "RGBA":
        mean[3] = (total / 4).round()
    return mean, np.where(total > 0, 255, 0)
