"""The picture of a register for reports: what homes cost by zip code, and how many were sold each year."""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK, _FAINT, _GRID = (255, 255, 255), (33, 37, 41), (108, 117, 125), (222, 226, 230)
_PRICE, _SALES = (23, 108, 94), (44, 123, 182)
_WIDTH, _MARGIN, _LINE = 900, 24, 22
_LABEL_PX, _FIGURES_PX = 230, 190  # beside the bars: the town's name, price and sales
_COLUMNS_PX = 200
_AXIS_PX = 60
ZIPS_MAX, YEARS_MAX = 24, 40


class ZipPrice(NamedTuple):
    """What homes of a zip code were sold for: how many sales, and the median price per m2."""

    zip_code: str
    town: str | None
    sales: int
    price_per_m2: float


def register_picture(title: str, prices: Sequence[ZipPrice], sales: Mapping[int, int], last: date | None) -> bytes:
    """PNG, 900 px wide: bars of the dearest zip code down to the cheapest, then columns of sales, year by year.

    prices  of the twelve months to `last`, the day of the last sale; of many zip codes those with most sales are shown
    sales   year -> number
    The same figures give the same bytes.
    """
    shown = sorted(sorted(prices, key=_most_sales)[:ZIPS_MAX], key=lambda one: (-one.price_per_m2, one.zip_code))
    panels = [_headed(title, _about(sales, last), 22), _prices(shown, len(prices)), _sales(sales)]
    sheet = Image.new("RGB", (_WIDTH, sum(panel.height for panel in panels) + _MARGIN), _PAPER)
    y = 0
    for panel in panels:
        sheet.paste(panel, (0, y))
        y += panel.height
    packed = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return packed.getvalue()


def _most_sales(one: ZipPrice) -> tuple[int, str]:
    return -one.sales, one.zip_code


def _about(sales: Mapping[int, int], last: date | None) -> str:
    if last is None:
        return "no sales are known"
    return f"{sum(sales.values()):,} sales, the last on {last.day} {last:%B %Y}"


def _headed(heading: str, below: str, size: int, height: int = 0) -> Image.Image:
    """A panel with its heading and a line below it."""
    panel = Image.new("RGB", (_WIDTH, height + size + _LINE + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(panel)
    draw.text((_MARGIN, _MARGIN - 8), _fitting(heading, size, _WIDTH - 2 * _MARGIN), _INK, _font(size))
    draw.text((_MARGIN, _MARGIN + size - 2), _fitting(below, 13, _WIDTH - 2 * _MARGIN), _FAINT, _font(13))
    return panel


# --- prices ---


def _prices(shown: Sequence[ZipPrice], known: int) -> Image.Image:
    below = "median of the last twelve months' sales" if shown else "nothing was sold whose area is known"
    if known > len(shown):
        below += f"; of {known:,} zip codes the {len(shown)} with most sales"
    panel = _headed("Price per m2 by zip code", below, 17, _LINE * len(shown) + 8)
    draw, top = ImageDraw.Draw(panel), panel.height - _LINE * len(shown)
    widest = max((one.price_per_m2 for one in shown), default=1.0) or 1.0
    for at, one in enumerate(shown):
        _bar(draw, top + at * _LINE, one, one.price_per_m2 / widest)
    return panel


def _bar(draw: ImageDraw.ImageDraw, y: int, one: ZipPrice, share: float) -> None:
    left = _MARGIN + _LABEL_PX
    length = max(1, round(share * (_WIDTH - _MARGIN - _FIGURES_PX - left)))
    name = _fitting(f"{one.zip_code} {one.town or ''}", 14, _LABEL_PX - 10)
    draw.text((left - 8, y + _LINE // 2), name, _INK, _font(14), anchor="rm")
    draw.rectangle((left, y + 3, left + length - 1, y + _LINE - 4), _PRICE)
    price, sold = f"{one.price_per_m2:,.0f}", f"  {_plural(one.sales, 'sale')}"
    x = left + length + 8
    draw.text((x, y + _LINE // 2), price, _INK, _font(14), anchor="lm")
    draw.text((x + _font(14).getlength(price), y + _LINE // 2), sold, _FAINT, _font(13), anchor="lm")


# --- sales ---


def _sales(sales: Mapping[int, int]) -> Image.Image:
    if not sales:
        return Image.new("RGB", (_WIDTH, 1), _PAPER)
    last = max(sales)
    years = range(max(min(sales), last - YEARS_MAX + 1), last + 1)
    below = "on the open market; families' transfers and auctions are left out"
    panel = _headed("Sales by year", below, 17, _COLUMNS_PX + _LINE + 16)
    draw, ground = ImageDraw.Draw(panel), panel.height - _LINE - 4
    step = round_number(max(sales[year] for year in years if year in sales) / 4)
    scale = _COLUMNS_PX / (math.ceil(max(sales.get(year, 0) for year in years) / step) * step)
    _lines(draw, ground, step, scale)
    wide = (_WIDTH - 2 * _MARGIN - _AXIS_PX) / len(years)
    half = min(wide - 2, 60) // 2
    for at, year in enumerate(years):
        middle = round(_MARGIN + _AXIS_PX + (at + 0.5) * wide)
        if sales.get(year):
            top = ground - max(1, round(sales[year] * scale))
            draw.rectangle((middle - half, top, middle + half - 1, ground - 1), _SALES)
        if (last - year) % _every(wide) == 0:
            draw.text((middle, ground + 5), str(year), _INK, _font(13), anchor="ma")
    return panel


def _lines(draw: ImageDraw.ImageDraw, ground: int, step: int, scale: float) -> None:
    for number in range(0, math.floor(_COLUMNS_PX / scale + 0.5) + 1, step):
        y = ground - round(number * scale)
        draw.line((_MARGIN + _AXIS_PX, y, _WIDTH - _MARGIN - 1, y), _GRID if number else _FAINT)
        draw.text((_MARGIN + _AXIS_PX - 8, y), f"{number:,}", _FAINT, _font(13), anchor="rm")


def _every(wide: float) -> int:
    """Of how many years one is named, so that their names do not touch."""
    return next(number for number in (1, 2, 5, 10, 20) if number * wide >= 42)


def round_number(least: float) -> int:
    """The first of 1, 2, 5, 10, 20, 50, ... that is not below."""
    power: int = 10 ** max(0, math.floor(math.log10(max(least, 1))))
    return next(power * first for first in (1, 2, 5, 10) if power * first >= least)


# --- words ---


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


_SPELLED = str.maketrans({"æ": "ae", "ø": "oe", "å": "aa", "Æ": "Ae", "Ø": "Oe", "Å": "Aa", "ß": "ss", "ł": "l"})


def _spelled(text: str) -> str:
    """In the letters that Pillow's font has, which are those of ASCII, as registers' own links are: Koebenhavn."""
    plain = unicodedata.normalize("NFC", text).translate(_SPELLED)
    letters = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return " ".join("".join(filter(str.isprintable, word)) for word in letters.split())


def _fitting(text: str, size: int, width: int) -> str:
    """On one line, within the width."""
    line = _spelled(text)
    if _font(size).getlength(line) <= width:
        return line
    while line and _font(size).getlength(line + "...") > width:
        line = line[:-1]
    return line + "..."


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # comes with Pillow
