"""The preview page in a real browser: handed a file, and served with ranges and without."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tasks.archive_pmtiles import About, write_pmtiles
from tasks.pmtiles_order import in_tile_id_order
from tasks.tile_grid import Block, degree_bounds
from tasks.tile_preview import preview_page
from tests.fakes.browser import CHROMIUM, Browser

BLOCKS = [Block(21, 1728675, 1728690, 1051362, 1051377), Block(20, 864337, 864345, 525681, 525688)]
MISSING = (21, 1728680, 1051370)
STATE = "document.documentElement.dataset"

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = preview_page("A", "a.pmtiles").decode()
    assert not re.findall(r"https?://", page)
    assert not re.findall(r"(?:src|href)\s*=", page)
    assert "default-src 'none'" in page
    assert "@TITLE@" not in page
    assert len(page) < 40_000


def test_names_cannot_break_out_of_the_page() -> None:
    nasty = '</script><script>alert("@TITLE@ @SETTINGS@")</script> & \\u003c'
    page = preview_page(nasty, nasty, nasty).decode()
    assert page.count("</script>") == 2
    settings = re.search(r'id="settings">(.*)</script>', page)
    assert settings
    assert json.loads(settings[1]) == {"title": nasty, "archive": nasty, "attribution": nasty}


@in_a_browser
def test_from_a_folder_it_asks_for_the_file_and_shows_it(folder: Path, browser: Browser) -> None:
    browser.open((folder / "index.html").as_uri())
    assert "layer of tiles.pmtiles" in browser.run("document.getElementById('note').textContent")
    browser.choose_file("#file", folder / "layer of tiles.pmtiles")
    wait_until_shown(browser)
    assert browser.run("document.title") == "A <layer>"
    check_colours(browser)
    check_the_missing_tile(browser)
    assert browser.complaints == []


@in_a_browser
@pytest.mark.parametrize("ranges", [True, False])
def test_served_it_opens_by_itself(folder: Path, browser: Browser, ranges: bool) -> None:
    with serving(folder, ranges) as server:
        browser.open(f"http://127.0.0.1:{server.server_port}/index.html")
        wait_until_shown(browser)
        check_colours(browser)
        assert browser.complaints == []
        whole = (folder / "layer of tiles.pmtiles").stat().st_size
        assert (server.sent < whole // 2) is ranges


@in_a_browser
def test_every_tile_id_is_the_formats(folder: Path, browser: Browser) -> None:
    from pmtiles.tile import zxy_to_tileid

    browser.open((folder / "index.html").as_uri())
    tiles = [(z, x * 7919 % 2**z, x * 104_729 % 2**z) for z in range(27) for x in range(40)]
    found = browser.run(f"{json.dumps(tiles)}.map((tile) => tileId(...tile))")
    assert found == [zxy_to_tileid(*tile) for tile in tiles]
    back = browser.run(f"{json.dumps(tiles)}.map(([z, x, y]) => [z, ...tileOf(z, tileId(z, x, y))])")
    assert back == [list(tile) for tile in tiles]


@in_a_browser
def test_from_afar_every_tile_is_a_dot(folder: Path, browser: Browser) -> None:
    block = Block(21, 1728675, 1728674 + 100, 1051362, 1051361 + 150)
    content = picture((1, 2, 3))
    archive = write_pmtiles(folder / "large.pmtiles", ((*tile, content) for tile in names([block])), About("Large"))
    browser.open((folder / "index.html").as_uri())
    browser.choose_file("#file", archive.path)
    browser.wait_for(f"{STATE}.dots == '{block.tiles}'")
    browser.wait_for("document.getElementById('note').hidden")
    centre = rgb(screenshot(browser), 450, 280)
    assert centre == pytest.approx((23, 108, 94), abs=2)


@in_a_browser
@pytest.mark.parametrize(
    ("content", "says"),
    [(b"<html>not found</html>" * 20, "no PMTiles"), (b"PMTiles\x02" + bytes(500), "no PMTiles"), (b"", "no PMTiles")],
)
def test_what_is_no_archive_is_said(folder: Path, browser: Browser, content: bytes, says: str) -> None:
    (folder / "bad.pmtiles").write_bytes(content)
    browser.open((folder / "index.html").as_uri())
    browser.choose_file("#file", folder / "bad.pmtiles")
    browser.wait_for(f"document.getElementById('note').textContent.includes('{says}')")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path, browser: Browser) -> Path:
    browser.complaints.clear()
    tiles = [tile for tile in names(BLOCKS) if tile != MISSING]
    contents = ((*tile, picture(colour(*tile), noise=tile[2])) for tile in tiles)
    write_pmtiles(tmp_path / "layer of tiles.pmtiles", contents, About("A <layer>", attribution="them"))
    (tmp_path / "index.html").write_bytes(preview_page("A <layer>", "layer of tiles.pmtiles", "them"))
    return tmp_path


def names(blocks: list[Block]) -> Iterable[tuple[int, int, int]]:
    def of(block: Block) -> list[tuple[int, int, int]]:
        across, down = range(block.x_first, block.x_last + 1), range(block.y_first, block.y_last + 1)
        return [(block.z, x, y) for x in across for y in down]

    return in_tile_id_order(blocks, of)


def colour(z: int, x: int, y: int) -> tuple[int, int, int]:
    return (x * 37 % 256, y * 59 % 256, 200 if z == 21 else 20)


@functools.cache
def picture(fill: tuple[int, int, int], noise: int = 0) -> bytes:
    """A tile of one colour but for a noisy strip at its foot, so that it has some bytes."""
    image = Image.new("RGB", (256, 256), fill)
    strip = Image.effect_noise((256, 64), 90) if noise else Image.new("L", (256, 1))
    image.paste(strip.convert("RGB"), (0, 256 - strip.height))
    packed = io.BytesIO()
    image.save(packed, "PNG")
    return packed.getvalue()


def wait_until_shown(browser: Browser) -> None:
    browser.wait_for(f"{STATE}.state === 'ready' && {STATE}.shown > 0 && document.getElementById('note').hidden")


def look_at(browser: Browser, z: int, x: int, y: int) -> tuple[int, ...]:
    """Colour on the screen where the upper middle of the tile is, at the tile's own zoom."""
    bounds = degree_bounds(z, x, y)
    browser.run(f"go(worldX({(bounds.west + bounds.east) / 2}), worldY({bounds.north}) + 0.4 / 2 ** {z}, {z})")
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    wait_until_shown(browser)
    image = screenshot(browser)
    width, height = browser.run("[canvas.clientWidth, canvas.clientHeight]")
    return rgb(image, width // 2, height // 2)


def check_colours(browser: Browser) -> None:
    for tile in [(21, 1728675, 1051362), (21, 1728690, 1051377), (21, 1728682, 1051369), (20, 864340, 525685)]:
        assert look_at(browser, *tile) == pytest.approx(colour(*tile), abs=2)


def check_the_missing_tile(browser: Browser) -> None:
    shown = look_at(browser, *MISSING)
    assert min(shown) > 160  # paper or a grey stroke, no tile


def screenshot(browser: Browser) -> Image.Image:
    image = Image.open(io.BytesIO(browser.screenshot()))
    return image.convert("RGB")


def rgb(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    folder: Path
    ranges: bool
    sent = 0

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def serving(folder: Path, ranges: bool) -> Server:
    server = Server(("127.0.0.1", 0), Handler)
    server.folder, server.ranges = folder, ranges
    return server


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        from urllib.parse import unquote

        path = self.server.folder / unquote(self.path).lstrip("/")
        if not path.is_file():
            self.send_response(204)
            self.end_headers()
            return
        content, asked = path.read_bytes(), re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        total = len(content)
        if asked and self.server.ranges:
            content = content[int(asked[1]) : int(asked[2]) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {asked[1]}-{asked[2]}/{total}")
        else:
            self.send_response(200)
        self.send_header(
            "Content-Type", "text/html; charset=utf-8" if path.suffix == ".html" else "application/octet-stream"
        )
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.server.sent += len(content) if path.suffix == ".pmtiles" else 0

    def log_message(self, *_: object) -> None:
        pass
