"""The map of a site in a real browser: seen, hovered, turned, and cut off from everything."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor
from pyproj import Geod

from tasks.site_folders import folder_colours
from tasks.site_map import ground_of, site_map
from tasks.site_photo import SitePhoto, printable
from tests.fakes.browser import CHROMIUM, Browser
from tests.fakes.sites import NASTY, SITE, TAKE_OFF_M, nastily_named, photo, ring, tower

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)")
STATE = "document.documentElement.dataset"


class Watched(Browser):
    """A browser that remembers every address its page asked for."""

    def __init__(self, profile: Path) -> None:
        self.asked: list[str] = []
        super().__init__(profile)
        self.ask("Network.enable")

    def _note(self, event: Any) -> None:
        if event.get("method") == "Network.requestWillBeSent":
            self.asked.append(event["params"]["request"]["url"])
        super()._note(event)


@pytest.fixture(scope="module")
def opened_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Watched(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def browser(opened_browser: Watched) -> Iterator[Watched]:
    """A browser of 1200 x 700 px; whatever a test does with it, nothing may complain or leave the page."""
    opened_browser.complaints.clear()
    opened_browser.asked.clear()
    resize(opened_browser, 1200, 700)
    yield opened_browser
    assert opened_browser.complaints == []
    assert [address for address in opened_browser.asked if not address.startswith("file:")] == []
    assert len(opened_browser.asked) == 1


@pytest.fixture
def page(tmp_path: Path, browser: Watched) -> Watched:
    """The tower's map, open."""
    return show(browser, tmp_path, tower())


def show(browser: Watched, folder: Path, photos: list[SitePhoto], title: str = SITE) -> Watched:
    path = folder / "map.html"
    path.write_bytes(site_map(title, photos))
    browser.open(path.as_uri())
    browser.wait_for(f"{STATE}.state === 'ready' && plan.place.dataset.drawn && scene.place.dataset.drawn")
    return browser


def resize(browser: Watched, width: int, height: int, ratio: float = 1, mobile: bool = False) -> None:
    browser.ask(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=mobile
    )


def settle(browser: Watched) -> None:
    """Until what was asked for is drawn."""
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def number_of(browser: Watched, name: str) -> int:
    found = browser.run(f"photos.name.findIndex((name) => name.endsWith({json.dumps(name)}))")
    assert isinstance(found, int)
    assert found >= 0
    return found


def place_of(browser: Watched, view: str, name: str) -> tuple[float, float]:
    """Where a photo is on the screen."""
    n = number_of(browser, name)
    at = f"{view}.canvas.getBoundingClientRect()"
    x, y = browser.run(f"[{at}.left + {view}.x[{n}], {at}.top + {view}.y[{n}]]")
    return x, y


def mouse(browser: Watched, kind: str, x: float, y: float, **more: Any) -> None:
    browser.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)


def drag(browser: Watched, start: tuple[float, float], by: tuple[float, float], **more: Any) -> None:
    held = {"button": "left", "buttons": 1, "clickCount": 1, **more}
    mouse(browser, "mousePressed", *start, **held)
    for part in (0.3, 0.7, 1):
        mouse(browser, "mouseMoved", start[0] + part * by[0], start[1] + part * by[1], **held)
    mouse(browser, "mouseReleased", start[0] + by[0], start[1] + by[1], **held)
    settle(browser)


def press(browser: Watched, key: str, times: int = 1) -> None:
    for _ in range(times):
        text = {"text": key} if len(key) == 1 else {}
        browser.ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        browser.ask("Input.dispatchKeyEvent", type="keyUp", key=key)
    settle(browser)


def tip(browser: Watched) -> str | None:
    return None if browser.run("byId('tip').hidden") else str(browser.run("byId('tip').innerText"))


def colours_around(browser: Watched, x: float, y: float, reach: int = 3) -> set[tuple[int, ...]]:
    image = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
    box = image.crop((round(x) - reach, round(y) - reach, round(x) + reach + 1, round(y) + reach + 1))
    return {colour for _, colour in box.getcolors(1000) if isinstance(colour, tuple)}


# --- the page


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = site_map("A", []).decode()
    assert not re.findall(r"https?://", text)
    assert not re.findall(r"(?:src|href)\s*=", text)
    assert "default-src 'none'" in text
    assert "@TITLE@" not in text
    assert len(text) < 60_000


def test_names_cannot_break_out_of_the_page() -> None:
    for name in NASTY:
        text = site_map(name, [*nastily_named(), photo(name, 0, 0)]).decode()
        assert text.count("</script>") == 2
        assert text.lower().count("<script") == 2
        data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
        assert data
        assert json.loads(data[1])["title"] == printable(name)


def test_the_same_photos_give_the_same_page() -> None:
    assert site_map(SITE, tower()) == site_map(SITE, reversed(tower()))


def test_the_ground_is_where_the_drone_took_off_or_where_the_lowest_photo_is() -> None:
    drifting = ring(5, 20, 30, "Orbit", altitude_m=TAKE_OFF_M + 31) + ring(4, 20, 30, "Orbit")
    assert ground_of(drifting).altitude == pytest.approx(TAKE_OFF_M + 1)
    assert ground_of(drifting).origin == "take-off"
    phones = [photo("a", 0, 0, 5, relative_altitude_m=None), photo("b", 1, 0, 9, relative_altitude_m=None)]
    low_outlier = photo("c", 0, 0, -900, relative_altitude_m=None, outlier=True)
    assert ground_of([*phones, low_outlier]).altitude == pytest.approx(TAKE_OFF_M + 5)
    assert ground_of([photo("a", 0, 0, None)]).altitude is None


# --- looking


@in_a_browser
def test_every_photo_is_drawn_in_its_folders_colour(page: Watched) -> None:
    colours = folder_colours({one.folder for one in tower() if one.position})
    for name in ("DJI_20_0000.JPG", "DJI_40_0011.JPG", "DJI_2_0007.JPG", "road 3.jpg"):
        folder = next(one.folder for one in tower() if one.path.endswith(name))
        assert ImageColor.getrgb(colours[folder]) in colours_around(page, *place_of(page, "plan", name))
    hollow = colours_around(page, *place_of(page, "plan", "distrusted.jpg"), reach=1)
    assert hollow == {(255, 255, 255)}


@in_a_browser
def test_the_plan_and_its_scale_bar_are_true(page: Watched) -> None:
    metres, pixels = page.run("JSON.parse(plan.place.dataset.bar)")
    photos = {one.path.rpartition("/")[2]: one for one in tower()}
    pairs = [
        ("DJI_20_0000.JPG", "DJI_20_0020.JPG"),
        ("DJI_20_0010.JPG", "DJI_20_0030.JPG"),
        ("DJI_20_0005.JPG", "road 7.jpg"),
    ]
    for first, second in pairs:
        a, b = photos[first], photos[second]
        _, _, apart = Geod(ellps="WGS84").inv(a.longitude, a.latitude, b.longitude, b.latitude)
        seen = math.dist(place_of(page, "plan", first), place_of(page, "plan", second))
        assert seen / pixels * metres == pytest.approx(apart, rel=0.002)
    assert place_of(page, "plan", "DJI_20_0000.JPG")[1] < place_of(page, "plan", "DJI_20_0020.JPG")[1]  # north is up
    assert place_of(page, "plan", "DJI_20_0010.JPG")[0] > place_of(page, "plan", "DJI_20_0030.JPG")[0]


@in_a_browser
def test_hovering_tells_about_the_photo_in_both_views(page: Watched) -> None:
    for view in ("plan", "scene"):
        mouse(page, "mouseMoved", *place_of(page, view, "DJI_40_0008.JPG"))
        page.wait_for("!byId('tip').hidden")
        told = tip(page)
        assert told
        for words in (
            f"/homes/{SITE}/Orbit 120ft/DJI_40_0008.JPG", "Flag\tok", "1472.1 m above sea level", "40 m",
            "2024-05-06 14:00:24+00:00", "252\u00b0", "DJI FC6310", "4,800,000 bytes", "43.467",
        ):  # fmt: skip
            assert words in told
        mouse(page, "mouseMoved", 5, 5)
        page.wait_for("byId('tip').hidden")


@in_a_browser
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("distrusted.jpg", "Flag\tvoid"),
        ("flat.jpg", "Altitude\tnot known"),
        ("far.jpg", "Flag\tok, outlier"),
        ("flat.jpg", "Time\t2024-05-06 08:00:00\n"),
    ],
)
def test_what_is_wrong_with_a_photo_is_told(page: Watched, name: str, words: str) -> None:
    page.run(f"choose({number_of(page, name)}, plan, true)")
    assert words in (tip(page) or "")


@in_a_browser
def test_a_click_holds_on_to_a_photo_until_escape(page: Watched) -> None:
    x, y = place_of(page, "plan", "DJI_20_0000.JPG")
    for kind in ("mousePressed", "mouseReleased"):
        mouse(page, kind, x, y, button="left", clickCount=1)
    mouse(page, "mouseMoved", x + 100, y + 200)
    settle(page)
    assert "DJI_20_0000.JPG" in (tip(page) or "")
    press(page, "Escape")
    assert tip(page) is None


@in_a_browser
def test_of_photos_above_one_another_the_one_on_top_is_told(browser: Watched, tmp_path: Path) -> None:
    show(
        browser, tmp_path, [photo("low.jpg", 0, 0, 1), photo("mid.jpg", 0, 0, 50), photo("top.jpg", 0, 0, 99), *tower()]
    )
    mouse(browser, "mouseMoved", *place_of(browser, "plan", "top.jpg"))
    browser.wait_for("!byId('tip').hidden")
    assert (tip(browser) or "").startswith("top.jpg")
    browser.run("scene.elevation = -.1; scene.redraw()")
    settle(browser)
    places = [place_of(browser, "scene", name)[1] for name in ("low.jpg", "mid.jpg", "top.jpg")]
    assert places == sorted(places, reverse=True)


@in_a_browser
def test_the_legend_switches_folders_off(page: Watched) -> None:
    row = "['.name', '.many'].map((part) => row.querySelector(part).textContent)"
    legend = page.run(f"[...document.querySelectorAll('#folders li')].map((row) => {row})")
    folders = [["Orbit", "4"], ["Orbit 40ft", "40"], ["Orbit 120ft", "40"], ["Uplook", "20"], ["Access Road", "8"]]
    assert legend == [*folders, ["Outliers", "2"]]
    x, y = place_of(page, "plan", "DJI_40_0008.JPG")
    switch = (
        "[...document.querySelectorAll('#folders label')].find((one) => one.innerText.includes('Orbit 120ft')).click()"
    )
    before = int(page.run(f"{STATE}.visible"))
    page.run(switch)
    settle(page)
    assert before - int(page.run(f"{STATE}.visible")) == 40
    mouse(page, "mouseMoved", x, y)
    settle(page)
    assert "120ft" not in (tip(page) or "")
    page.run("byId('none').click()")
    settle(page)
    assert page.run(f"{STATE}.visible") == "0"
    assert len(colours_around(page, x, y)) == 1
    page.run("byId('all').click()")
    assert int(page.run(f"{STATE}.visible")) == before


@in_a_browser
def test_outliers_are_pointed_at_shown_and_switched_off(page: Watched) -> None:
    plan = page.run("(({left, top, right, bottom}) => [left, top, right, bottom])(plan.canvas.getBoundingClientRect())")
    x, _ = place_of(page, "plan", "far.jpg")
    assert x > plan[2]
    red = ImageColor.getrgb("#d63027")
    edge = (
        Image.open(io.BytesIO(page.screenshot()))
        .convert("RGB")
        .crop((round(plan[2]) - 30, round(plan[1]), round(plan[2]), round(plan[3])))
    )
    assert red in {colour for _, colour in edge.getcolors(10_000)}
    page.run("byId('everything').click()")
    settle(page)
    for name in ("far.jpg", "abroad.jpg"):
        x, y = place_of(page, "plan", name)
        assert plan[0] < x < plan[2]
        assert plan[1] < y < plan[3]
        assert red in colours_around(page, x, y, reach=10)
    page.run("[...document.querySelectorAll('#folders label')].at(-1).click()")
    settle(page)
    assert red not in colours_around(page, x, y, reach=10)


# --- moving


@in_a_browser
def test_mouse_and_keyboard_move_and_zoom_the_plan(page: Watched) -> None:
    start = place_of(page, "plan", "DJI_20_0000.JPG")
    drag(page, (120, 500), (60, -40))
    assert place_of(page, "plan", "DJI_20_0000.JPG") == pytest.approx((start[0] + 60, start[1] - 40), abs=0.1)
    at = place_of(page, "plan", "DJI_20_0003.JPG")
    scale = page.run("plan.scale")
    mouse(page, "mouseWheel", *at, deltaX=0, deltaY=-300)
    settle(page)
    assert page.run("plan.scale") > 1.3 * scale
    assert place_of(page, "plan", "DJI_20_0003.JPG") == pytest.approx(at, abs=1)  # what is under the mouse stays there
    page.run("plan.canvas.focus()")
    before = page.run("[...plan.at, plan.scale]")
    press(page, "ArrowRight")
    press(page, "ArrowUp")
    press(page, "+")
    after = page.run("[...plan.at, plan.scale]")
    assert all(new > old for new, old in zip(after, before, strict=True))
    press(page, "Home")
    assert place_of(page, "plan", "DJI_20_0000.JPG") == pytest.approx(start, abs=0.1)


@in_a_browser
def test_the_3d_view_turns_zooms_and_moves(page: Watched) -> None:
    camera = "[scene.azimuth, scene.elevation, scene.away, ...scene.target]"
    begun = page.run(camera)
    drag(page, (700, 300), (100, -30))
    turned = page.run(camera)
    assert turned[0] == pytest.approx(begun[0] + 0.8)
    assert turned[1] == pytest.approx(begun[1] - 0.24)
    assert turned[2:] == begun[2:]
    drag(page, (700, 300), (40, 0), modifiers=8)  # shift
    moved = page.run(camera)
    assert moved[:3] == turned[:3]
    assert moved[3:] != turned[3:]
    page.run("scene.canvas.focus()")
    press(page, "ArrowLeft")
    press(page, "-")
    assert page.run(camera)[0] < moved[0]
    assert page.run(camera)[2] > moved[2]
    press(page, "Home")
    assert page.run(camera) == begun


@in_a_browser
def test_the_3d_view_is_the_plan_from_above_and_a_height_from_the_side(page: Watched) -> None:
    low, ring_names = "DJI_2_0000.JPG", [f"DJI_40_{n:04d}.JPG" for n in range(0, 40, 7)]
    page.run("scene.azimuth = 0; scene.elevation = Math.PI / 2; scene.redraw()")
    settle(page)
    centre = page.run("[scene.target[0], scene.target[1]]")
    for name in ring_names:
        n = number_of(page, name)
        x, y = page.run(f"[scene.x[{n}] - scene.width / 2, scene.height / 2 - scene.y[{n}]]")
        east, north = page.run(f"[photos.east[{n}], photos.north[{n}]]")
        ratio = page.run(f"scene.focus / scene.depth[{n}]")
        assert (x, y) == pytest.approx(((east - centre[0]) * ratio, (north - centre[1]) * ratio), abs=0.1)
    page.run("scene.elevation = 0; scene.redraw()")
    settle(page)
    lowest, highest = place_of(page, "scene", low)[1], [place_of(page, "scene", name)[1] for name in ring_names]
    assert max(highest) < lowest - 20  # 38 m above it
    assert max(highest) - min(highest) < 0.2 * (lowest - max(highest))


@in_a_browser
def test_the_keyboard_goes_from_photo_to_photo(page: Watched) -> None:
    page.run("plan.canvas.focus()")
    names = []
    for _ in range(3):
        press(page, "n")
        names.append((tip(page) or "").splitlines()[0])
    assert names == ["road 0.jpg", "road 1.jpg", "road 2.jpg"]
    press(page, "p")
    assert (tip(page) or "").startswith("road 1.jpg")


@in_a_browser
def test_fingers_pinch_and_tap(page: Watched) -> None:
    scale = page.run("plan.scale")

    def touch(kind: str, *points: tuple[float, float]) -> None:
        page.ask(
            "Input.dispatchTouchEvent",
            type=kind,
            touchPoints=[{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)],
        )

    touch("touchStart", (150, 300), (250, 300))
    touch("touchMove", (100, 300), (300, 300))
    touch("touchEnd")
    settle(page)
    assert page.run("plan.scale") == pytest.approx(2 * scale, rel=0.1)
    touch("touchStart", place_of(page, "plan", "DJI_2_0000.JPG"))
    touch("touchEnd")
    page.wait_for("!byId('tip').hidden")


# --- odd sites and screens


@in_a_browser
@pytest.mark.parametrize(("width", "height", "ratio"), [(390, 844, 3), (844, 390, 2), (320, 480, 1), (2560, 1300, 1)])
def test_every_screen_shows_both_views(browser: Watched, tmp_path: Path, width: int, height: int, ratio: float) -> None:
    resize(browser, width, height, ratio)
    show(browser, tmp_path, tower())
    for view in ("plan", "scene"):
        left, top, right, bottom = browser.run(
            f"(({{left, top, right, bottom}}) => [left, top, right, bottom])({view}.canvas.getBoundingClientRect())"
        )
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert right - left >= 140
        assert bottom - top >= 100
        x, y = place_of(browser, view, "DJI_20_0000.JPG")
        assert left < x < right
        assert top < y < bottom
    assert browser.run("document.documentElement.scrollWidth") <= width


@in_a_browser
@pytest.mark.parametrize("many", [0, 1, 2])
def test_a_site_of_hardly_any_photos(browser: Watched, tmp_path: Path, many: int) -> None:
    show(browser, tmp_path, [photo("a", 0, 0, None), photo("b", 0, 0, None)][:many] + tower()[-3:])
    assert browser.run("byId('nothing').hidden") is (many > 0)
    assert browser.run("byId('looking').hidden")
    left_out = browser.run("byId('unplaced').innerText")
    for words in ("1 no_gps", "1 null_island", "1 failed", "photos.csv"):
        assert words in left_out
    press(browser, "Home")


@in_a_browser
def test_names_are_shown_as_they_are(browser: Watched, tmp_path: Path) -> None:
    photos = nastily_named()
    show(browser, tmp_path, photos, title=NASTY[0])
    assert browser.run("document.title") == NASTY[0]
    legend = browser.run("[...document.querySelectorAll('#folders .name')].map((one) => one.textContent)")
    assert sorted(legend) == sorted(printable(name) for name in NASTY)
    told = browser.run("photos.name.map((_, n) => rowsOf(n).find(([name]) => name === 'Path')[1])")
    assert sorted(told) == sorted(printable(name) for name in NASTY)
    assert browser.run("document.querySelectorAll('script').length") == 2


@in_a_browser
def test_twenty_thousand_photos(browser: Watched, tmp_path: Path) -> None:
    photos = [one for height in range(20) for one in ring(1000, 30 + height, 3 * height, f"Orbit {height}")]
    content = site_map(SITE, photos)
    assert len(content) < 150 * len(photos)
    show(browser, tmp_path, photos)
    assert browser.run(f"{STATE}.visible") == "20000"
    for view in ("plan", "scene"):
        mouse(browser, "mouseMoved", *place_of(browser, view, "DJI_57_0123.JPG"))
        browser.wait_for("!byId('tip').hidden")
        assert "DJI_" in (tip(browser) or "")
    drag(browser, (700, 300), (100, -30))
