"""The picture of a register: its bars and columns measured against the figures they stand for."""

from __future__ import annotations

import io
import itertools
import random
from datetime import date

import pytest
from PIL import Image, ImageChops

from tasks import register_picture as drawing
from tasks.register_picture import YEARS_MAX, ZIPS_MAX, ZipPrice, register_picture, round_number

LAST = date(2024, 11, 9)
AXIS_X = drawing._MARGIN + drawing._AXIS_PX
BARS_X = drawing._MARGIN + drawing._LABEL_PX

Box = tuple[int, int, int, int]


def picture(prices: list[ZipPrice], sales: dict[int, int] | None = None, title: str = "boligsiden") -> Image.Image:
    packed = register_picture(title, prices, sales or {}, LAST if sales or prices else None)
    return Image.open(io.BytesIO(packed)).convert("RGB")


def boxes(image: Image.Image, colour: tuple[int, int, int]) -> list[Box]:
    """Rectangles of the colour, from the top, then from the left: left, top, right, bottom, both ends included."""
    pixels = image.load()
    assert pixels
    seen: set[tuple[int, int]] = set()
    found = []
    for y in range(image.height):
        for x in range(image.width):
            if pixels[x, y] != colour or (x, y) in seen:
                continue
            right, bottom = x, y
            while right + 1 < image.width and pixels[right + 1, y] == colour:
                right += 1
            while bottom + 1 < image.height and pixels[x, bottom + 1] == colour:
                bottom += 1
            seen |= {(i, j) for i in range(x, right + 1) for j in range(y, bottom + 1)}
            found.append((x, y, right, bottom))
    return found


def bars(prices: list[ZipPrice]) -> list[Box]:
    return boxes(picture(prices), drawing._PRICE)


def columns(sales: dict[int, int]) -> list[Box]:
    return sorted(boxes(picture([], sales), drawing._SALES))


def length(box: Box) -> int:
    return box[2] - box[0] + 1


def height(box: Box) -> int:
    return box[3] - box[1] + 1


def inked(image: Image.Image, box: Box) -> bool:
    """Whether anything is drawn there."""
    part = image.crop(box)
    return ImageChops.difference(part, Image.new("RGB", part.size, drawing._PAPER)).getbbox() is not None


# --- prices ---


def test_bars_are_as_long_as_prices_are_high_the_dearest_first() -> None:
    prices = [ZipPrice("2000", "A", 3, 20_000), ZipPrice("1000", "B", 1, 80_000), ZipPrice("3000", None, 9, 40_000)]
    found = bars(prices)
    assert [length(box) for box in found] == [pytest.approx(w, abs=1) for w in (432, 216, 108)]
    assert {box[0] for box in found} == {BARS_X}
    assert {height(box) for box in found} == {drawing._LINE - 6}
    assert [below[1] - above[1] for above, below in itertools.pairwise(found)] == [drawing._LINE] * 2


def test_every_bar_has_its_name_before_and_its_figures_behind() -> None:
    prices = [
        ZipPrice(f"{number}", "Ølstykke-Stenløse og omegn " * 3, 12_345, 10_000.0 * number) for number in range(1, 9)
    ]
    image = picture(prices)
    for left, top, right, bottom in boxes(image, drawing._PRICE):
        assert inked(image, (drawing._MARGIN, top, left - 6, bottom))
        assert not inked(image, (left - 6, top, left, bottom))
        assert not inked(image, (0, top, drawing._MARGIN - 2, bottom))
        assert inked(image, (right + 8, top, right + 100, bottom))
        assert not inked(image, (image.width - drawing._MARGIN, top, image.width, bottom))


def test_of_many_zip_codes_those_with_most_sales_are_shown() -> None:
    prices = [ZipPrice(f"{n:04}", "X", n, 1000 + n) for n in range(1000)]
    random.Random(1).shuffle(prices)
    shown = bars(prices)
    assert len(shown) == ZIPS_MAX
    most = sorted(prices, key=lambda one: -one.sales)[:ZIPS_MAX]
    assert picture(most).size == picture(prices).size
    top = shown[0][1] - 4
    below = (0, top, 900, picture(most).height)
    difference = ImageChops.difference(picture(most).crop(below), picture(prices).crop(below))
    assert all(high <= 12 for _, high in difference.getextrema())  # the palette is another one


@pytest.mark.parametrize("price", [0.004, 1.0, 1e9])
def test_any_price_has_a_bar(price: float) -> None:
    assert [length(box) for box in bars([ZipPrice("1", None, 1, price), ZipPrice("2", None, 1, price / 1e6)])] == [
        432,
        1,
    ]


# --- sales ---


def test_columns_are_as_high_as_sales_are_many_year_by_year() -> None:
    found = columns({2020: 100, 2021: 50, 2024: 25})
    assert [height(box) for box in found] == [200, 100, 50]
    assert len({box[3] for box in found}) == 1
    wide = (900 - drawing._MARGIN - AXIS_X) / 5
    middles = [(box[0] + box[2] + 1) / 2 for box in found]
    assert middles == [pytest.approx(AXIS_X + (at + 0.5) * wide, abs=1) for at in (0, 1, 4)]


@pytest.mark.parametrize("years", [1, 2, 10, YEARS_MAX, 200])
def test_columns_neither_touch_nor_leave_the_frame(years: int) -> None:
    found = columns({2024 - n: 7 for n in range(years)})
    assert len(found) == min(years, YEARS_MAX)
    assert found[0][0] >= AXIS_X
    assert found[-1][2] < 900 - drawing._MARGIN
    assert all(after[0] - before[2] >= 2 for before, after in itertools.pairwise(found))


@pytest.mark.parametrize("most", [1, 3, 7, 99, 1001, 49_999, 12_345_678])
def test_the_highest_column_fills_the_frame_and_its_line_is_named(most: int) -> None:
    image = picture([], {2023: most, 2024: 1})
    [highest, lowest] = sorted(boxes(image, drawing._SALES))
    assert 100 <= height(highest) <= 200
    assert height(lowest) == max(1, round(height(highest) / most))
    lines = [y for y in range(image.height) if image.getpixel((870, y)) == drawing._GRID]
    assert 1 <= len(lines) <= 5
    assert all(inked(image, (drawing._MARGIN - 4, y - 8, AXIS_X - 4, y + 8)) for y in lines)


def test_every_year_that_is_named_has_room() -> None:
    """Between two names there is paper."""
    for years in (1, 2, 12, 20, 40):
        image = picture([], dict.fromkeys(range(2025 - years, 2025), 5))
        ground = max(box[3] for box in boxes(image, drawing._SALES))
        inks = [inked(image, (x, ground + 4, x + 1, ground + 20)) for x in range(AXIS_X, 900)]
        gaps = "".join("x" if ink else " " for ink in inks).strip().split(" " * 6)
        named = [gap for gap in gaps if gap.strip()]
        assert all(20 <= len(name.strip()) <= 40 for name in named)
        assert 1 <= len(named) <= min(years, 20)


# --- all of it ---


@pytest.mark.parametrize("title", ["", "W" * 500, "\n\t", "\0\x01", "København\r\nØ", "日本語", "\ud800"])
def test_any_name_fits(title: str) -> None:
    image = picture([ZipPrice(title, title, 1, 1000.0)], {2024: 1}, title)
    assert image.size == picture([ZipPrice("", None, 1, 1000.0)], {2024: 1}).size
    assert not inked(image, (900 - drawing._MARGIN, 0, 900, image.height))


def test_letters_that_the_font_lacks_are_spelled() -> None:
    def named(town: str) -> bytes:
        return picture([ZipPrice("1", town, 1, 1.0)]).tobytes()

    assert named("Ærø Ålborg São é") == named("Aeroe Aalborg Sao e")
    assert named("Å") == named("A\u030a") != named("A")
    assert named("日本") == named("")


def test_nothing_is_known() -> None:
    image = picture([])
    assert inked(image, (0, 0, 900, image.height))
    assert boxes(image, drawing._PRICE) == boxes(image, drawing._SALES) == []
    assert image.height < 200


def test_the_same_figures_give_the_same_bytes() -> None:
    prices = [ZipPrice(f"{n}", "X", 5, 1000.0) for n in range(40)]
    made = register_picture("a", prices, {2023: 3, 2024: 4}, LAST)
    random.Random(1).shuffle(prices)
    assert made == register_picture("a", prices, {2024: 4, 2023: 3}, LAST)
    assert len(made) < 40_000


@pytest.mark.parametrize(
    ("least", "expected"),
    [(0, 1), (0.25, 1), (1, 1), (1.01, 2), (2, 2), (3, 5), (5.1, 10), (10, 10), (11, 20), (99, 100)],
)
def test_round_numbers(least: float, expected: int) -> None:
    assert round_number(least) == expected
