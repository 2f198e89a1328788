"""A picture of where a site's photos were taken, for reports: the plan with its scale, coloured by category."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable

from PIL import Image, ImageColor, ImageDraw, ImageFont

from tasks.site_folders import COLOURS, Category, category_of, folder_colours
from tasks.site_photo import Position, SitePhoto, in_order, printable
from tasks.site_plane import Point, extent_of, plane_around, round_length

MEDIA_TYPE = "image/png"

_PAPER, _INK, _FAINT, _GRID = (255, 255, 255), (33, 37, 41), (108, 117, 125), (222, 226, 230)
_ALARM = (214, 48, 39)
_PLAN_PX = (660, 440)
_MARGIN, _LINE = 24, 22
_INSET = 40  # between the outermost photo and the frame
_FINER = 3  # dots are drawn so much larger and scaled down, which rounds them
_LEAST_M = 10.0
_NOWHERE = Position(0.0, 0.0)


def site_thumbnail(title: str, photos: Iterable[SitePhoto]) -> bytes:
    """PNG of one site, some 710 x 590 px; the same photos give the same bytes.

    The frame is around the photos that show where the site is; outliers beyond it are triangles at its edge.
    """
    ordered = in_order(photos)
    plan = _Plan([photo for photo in ordered if photo.position])
    sheet = Image.new("RGB", (_PLAN_PX[0] + 2 * _MARGIN, _PLAN_PX[1] + 4 * _LINE + 2 * _MARGIN + 14), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 8), _fitting(title, 22), _INK, _font(22))
    draw.text((_MARGIN, _MARGIN + 22), _summary(ordered), _FAINT, _font(13))
    sheet.paste(plan.painted(), (_MARGIN, _MARGIN + 2 * _LINE + 4))
    _legend(sheet, ordered, _MARGIN + 2 * _LINE + _PLAN_PX[1] + 16)
    packed = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)  # a third of the bytes
    return packed.getvalue()


class _Plan:
    """The map itself: metres to pixels, north up."""

    def __init__(self, photos: list[SitePhoto]) -> None:
        plane = plane_around([photo.position for photo in photos if photo.position] or [_NOWHERE])
        self._dots = [(photo, plane.point(photo.position)) for photo in photos if photo.position]
        inside = [point for photo, point in self._dots if photo.settled] or [point for _, point in self._dots]
        extent = extent_of(inside or [Point(0, 0)], least_m=_LEAST_M)
        width, height = (side - 2 * _INSET for side in _PLAN_PX)
        self._scale = min(width / (extent.east - extent.west), height / (extent.north - extent.south))
        self._middle = Point((extent.west + extent.east) / 2, (extent.south + extent.north) / 2)

    def _pixel(self, point: Point) -> tuple[float, float]:
        width, height = _PLAN_PX
        east_m, north_m = point.east_m - self._middle.east_m, point.north_m - self._middle.north_m
        return width / 2 + east_m * self._scale, height / 2 - north_m * self._scale

    def painted(self) -> Image.Image:
        """The map in its frame."""
        fine = Image.new("RGB", (_PLAN_PX[0] * _FINER, _PLAN_PX[1] * _FINER), _PAPER)
        draw = ImageDraw.Draw(fine)
        self._grid(draw)
        self._paint_dots(draw)
        plan = fine.reduce(_FINER)
        self._annotate(ImageDraw.Draw(plan))
        return plan

    def _grid(self, draw: ImageDraw.ImageDraw) -> None:
        step_px = round_length(140 / self._scale) * self._scale
        width, height = _PLAN_PX
        first_x, first_y = (value % step_px for value in self._pixel(Point(0, 0)))
        for n in range(math.ceil(width / step_px)):
            x = (first_x + n * step_px) * _FINER
            draw.line((x, 0, x, height * _FINER), _GRID, _FINER)
        for n in range(math.ceil(height / step_px)):
            y = (first_y + n * step_px) * _FINER
            draw.line((0, y, width * _FINER, y), _GRID, _FINER)

    def _paint_dots(self, draw: ImageDraw.ImageDraw) -> None:
        colours = folder_colours(photo.folder for photo, _ in self._dots)
        radius = 4 if len(self._dots) < 2000 else 3
        for photo, point in self._dots:
            _circle(draw, self._pixel(point), radius, fill=ImageColor.getrgb(colours[photo.folder]))
        arrows: list[tuple[float, float]] = []
        for photo, point in self._dots:
            if photo.outlier:
                self._mark(draw, *self._pixel(point), radius, arrows)

    def _mark(
        self, draw: ImageDraw.ImageDraw, x: float, y: float, radius: int, arrows: list[tuple[float, float]]
    ) -> None:
        """A ring around an outlier; a triangle at the edge that points to one beyond it, where there is room."""
        half_x, half_y = (side / 2 - 10 for side in _PLAN_PX)
        dx, dy = x - _PLAN_PX[0] / 2, y - _PLAN_PX[1] / 2
        over = max(abs(dx) / half_x, abs(dy) / half_y)
        if over <= 1:
            _circle(draw, (x, y), radius + 3, outline=_ALARM)
            return
        angle, tip = math.atan2(dy, dx), (_PLAN_PX[0] / 2 + dx / over, _PLAN_PX[1] / 2 + dy / over)
        if any(math.dist(tip, other) < 10 for other in arrows):
            return
        arrows.append(tip)
        corners = [
            (tip[0] + 7 * math.cos(angle + turn), tip[1] + 7 * math.sin(angle + turn)) for turn in (0, 2.5, -2.5)
        ]
        draw.polygon([(x * _FINER, y * _FINER) for x, y in corners], fill=_ALARM)

    def _annotate(self, draw: ImageDraw.ImageDraw) -> None:
        """Scale bar, north, frame."""
        (width, height), length_m = _PLAN_PX, round_length(120 / self._scale)
        length_px, y = length_m * self._scale, height - 12
        words = _metres(length_m)
        draw.rectangle((6, y - 24, 26 + max(length_px, _font(13).getlength(words)), height - 4), _PAPER)
        draw.line([(14, y - 6), (14, y), (14 + length_px, y), (14 + length_px, y - 6)], _INK, 2)
        draw.text((20, y - 20), words, _INK, _font(13))
        draw.polygon([(width - 22, 12), (width - 16, 32), (width - 22, 28), (width - 28, 32)], _INK)
        draw.text((width - 22, 42), "N", _INK, _font(13), anchor="mm")
        draw.rectangle((0, 0, width - 1, height - 1), outline=_FAINT)


def _circle(
    draw: ImageDraw.ImageDraw,
    middle: tuple[float, float],
    radius: int,
    fill: tuple[int, ...] | None = None,
    outline: tuple[int, ...] | None = None,
) -> None:
    x, y = (value * _FINER for value in middle)
    if not (-100 < x < _PLAN_PX[0] * _FINER + 100 and -100 < y < _PLAN_PX[1] * _FINER + 100):
        return
    reach = radius * _FINER
    draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill, outline or _PAPER, 2 * _FINER if outline else 2)


def _legend(sheet: Image.Image, photos: list[SitePhoto], y: int) -> None:
    """Each category with its colour and number, on two lines at most."""
    counts = Counter(category_of(photo.folder) for photo in photos if photo.position)
    entries = [(f"{category}  {counts[category]:,}", COLOURS[category]) for category in Category if counts[category]]
    draw, x, font = ImageDraw.Draw(sheet), _MARGIN, _font(14)
    for words, colour in entries:
        width = 30 + int(font.getlength(words)) + 8
        if x + width > _MARGIN + _PLAN_PX[0]:
            x, y = _MARGIN, y + _LINE
        sheet.paste(_dot(colour), (x, y + 2))
        draw.text((x + 19, y), words, _INK, font)
        x += width


def _dot(colour: str) -> Image.Image:
    fine = Image.new("RGB", (14 * _FINER, 14 * _FINER), _PAPER)
    _circle(ImageDraw.Draw(fine), (7, 7), 6, fill=ImageColor.getrgb(colour))
    return fine.reduce(_FINER)


def _summary(photos: list[SitePhoto]) -> str:
    placed = [photo for photo in photos if photo.position]
    outliers = sum(photo.outlier for photo in placed)
    words = f"{_plural(len(photos), 'photo')}, {len(placed):,} with a position"
    return words + (f", {_plural(outliers, 'outlier')} (red)" if outliers else "")


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _metres(length: float) -> str:
    return f"{length:g} m" if length < 1000 else f"{length / 1000:,.0f} km"


def _fitting(text: str, size: int) -> str:
    """On one line, within the picture."""
    line = " ".join(printable(text).split())
    if _font(size).getlength(line) <= _PLAN_PX[0]:
        return line
    while line and _font(size).getlength(line + "...") > _PLAN_PX[0]:
        line = line[:-1]
    return line + "..."


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # comes with Pillow
