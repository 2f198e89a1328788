"""The coverage picture of a tile layer: what is done, blank, missing, failed or still to come, for each zoom.

It is painted from counts by cell, so that ten million tiles are a few hundred thousand rows of one query:

    SELECT z, (x - x_first) / n AS cell_x, (y - y_first) / n AS cell_y, state, count(*) ... GROUP BY 1, 2, 3, 4

with x_first and y_first of the zoom's block and n = tiles_a_cell(block).
"""

from __future__ import annotations

import io
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from tasks.errors import ConfigurationError
from tasks.tile_grid import Block

CELLS_MAX = 900
"""Cells of a zoom's longer side, at most."""


class Coverage(StrEnum):
    """What is known of a tile, in the order of the legend."""

    DONE = "done"
    BLANK = "blank"
    MISSING = "missing"
    PENDING = "pending"
    FAILED = "failed"


class Cell(NamedTuple):
    """How many tiles of a cell are in one state; each (cell, state) comes once."""

    z: int
    cell_x: int
    cell_y: int
    state: str
    tiles: int


_STATES = tuple(Coverage)
_NUMBERS: dict[str, int] = {state: number for number, state in enumerate(_STATES, 1)}  # 0 is nothing
_ALARMS = frozenset({_NUMBERS[Coverage.PENDING], _NUMBERS[Coverage.FAILED]})
_COLOURS = {  # told apart by lightness too, for those who see fewer colours
    Coverage.DONE: (23, 108, 94),
    Coverage.BLANK: (145, 207, 190),
    Coverage.MISSING: (190, 196, 204),
    Coverage.PENDING: (255, 224, 130),
    Coverage.FAILED: (214, 48, 39),
}
_NOTHING = (243, 244, 246)
_PAPER, _INK, _FAINT = (255, 255, 255), (33, 37, 41), (108, 117, 125)
_SINGLE_PX, _PANEL_PX = 900, 420
_PANEL_COLUMNS = 3
_SEEN_PX = 5
_MARGIN = 24
_LINE = 22


def tiles_a_cell(block: Block) -> int:
    """Side of a cell in tiles: the smallest power of two with at most 900 cells along the longer side."""
    return 1 << ((max(block.columns, block.rows) - 1) // CELLS_MAX).bit_length()


def coverage_picture(title: str, blocks: Sequence[Block], cells: Iterable[Cell]) -> bytes:
    """PNG of a layer: a panel for each zoom, and a legend with counts.

    blocks  the box around the layer's tiles, one for each zoom

    A cell has the colour of most of its tiles; but one failed tile makes it red, and failing that one pending
    tile makes it yellow: nothing that is not done hides. Small red cells are drawn larger. Raises
    ConfigurationError for a cell outside its block.
    """
    panels = {block.z: _Panel(block) for block in sorted(blocks)}
    if not panels:
        raise ConfigurationError("There is no zoom to paint; give the box of the layer's tiles.")
    for cell in cells:
        if cell.z not in panels:
            raise ConfigurationError(f"Tiles of zoom {cell.z} have no box in the coverage picture; give one.")
        if cell.state not in _NUMBERS:
            raise ConfigurationError(f"The coverage picture knows no state {cell.state!r}; use {', '.join(_STATES)}.")
        panels[cell.z].count(cell)
    painted = [panel.painted(_SINGLE_PX if len(panels) == 1 else _PANEL_PX) for panel in panels.values()]
    totals: Counter[Coverage] = Counter()
    for panel in panels.values():
        totals += panel.totals
    return _png(_sheet(title, painted, totals))


class _Panel:
    """One zoom."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.side = tiles_a_cell(block)
        self.size = -(-block.columns // self.side), -(-block.rows // self.side)
        self._counted = [0] * (len(_NUMBERS) + 1)
        self._most = array("Q", bytes(8 * self.size[0] * self.size[1]))
        self._shown = bytearray(self.size[0] * self.size[1])  # as in _NUMBERS
        self._alarm = bytearray(self.size[0] * self.size[1])

    def count(self, cell: Cell) -> None:
        _, x, y, state, tiles = cell
        if not (0 <= x < self.size[0] and 0 <= y < self.size[1]):
            named = f"{x}, {y} of zoom {cell.z}"
            raise ConfigurationError(f"The coverage cell {named} lies outside the box; count from the box's corner.")
        place, number = y * self.size[0] + x, _NUMBERS[state]
        self._counted[number] += tiles
        if number in _ALARMS:
            self._alarm[place] = max(self._alarm[place], number)
        elif tiles > self._most[place]:
            self._most[place], self._shown[place] = tiles, number

    @property
    def totals(self) -> Counter[Coverage]:
        """Tiles by state."""
        return Counter({state: self._counted[_NUMBERS[state]] for state in _STATES})

    def painted(self, side_px: int) -> Image.Image:
        """The map with its heading."""
        scale = max(side_px // max(self.size), 1)
        cells = Image.frombytes("P", self.size, bytes(a or s for a, s in zip(self._alarm, self._shown, strict=True)))
        cells.putpalette([part for colour in (_NOTHING, *(_COLOURS[state] for state in _STATES)) for part in colour])
        grown = cells.convert("RGB").resize((self.size[0] * scale, self.size[1] * scale), Image.Resampling.NEAREST)
        if scale >= 8:
            _rule(grown, scale)
        self._mark_failures(grown, scale)
        heading, counts = self._words()
        width = max(
            grown.width + 2, *(int(_font(size).getlength(text)) for size, text in ((15, heading), (13, counts)))
        )
        panel = Image.new("RGB", (width, grown.height + 2 + 2 * _LINE), _PAPER)
        draw = ImageDraw.Draw(panel)
        draw.text((0, 0), heading, _INK, _font(15))
        draw.text((0, _LINE - 2), counts, _FAINT, _font(13))
        draw.rectangle((0, 2 * _LINE, grown.width + 1, 2 * _LINE + grown.height + 1), outline=_FAINT)
        panel.paste(grown, (1, 2 * _LINE + 1))
        return panel

    def _mark_failures(self, grown: Image.Image, scale: int) -> None:
        """A square of a pixel or two would not be seen."""
        if scale >= _SEEN_PX:
            return
        draw, failed = ImageDraw.Draw(grown), _NUMBERS[Coverage.FAILED]
        place = self._alarm.find(failed)
        while place >= 0:
            x, y = (place % self.size[0]) * scale, (place // self.size[0]) * scale
            draw.rectangle((x - 2, y - 2, x + 2, y + 2), _COLOURS[Coverage.FAILED])
            place = self._alarm.find(failed, place + 1)

    def _words(self) -> tuple[str, str]:
        square = "a square is a tile" if self.side == 1 else f"a square is {self.side} x {self.side} tiles"
        totals = self.totals
        counts = ", ".join(f"{totals[state]:,} {state}" for state in _STATES if totals[state])
        heading = f"Zoom {self.block.z}: {self.block.columns:,} x {self.block.rows:,} tiles, {square}"
        return heading, counts or "nothing counted"


def _rule(image: Image.Image, scale: int) -> None:
    """Fine lines between squares that are large enough."""
    draw = ImageDraw.Draw(image)
    for x in range(scale, image.width, scale):
        draw.line((x, 0, x, image.height), _PAPER)
    for y in range(scale, image.height, scale):
        draw.line((0, y, image.width, y), _PAPER)


def _sheet(title: str, panels: list[Image.Image], totals: Counter[Coverage]) -> Image.Image:
    rows = [panels[start : start + _PANEL_COLUMNS] for start in range(0, len(panels), _PANEL_COLUMNS)]
    widths = [sum(panel.width + _MARGIN for panel in row) - _MARGIN for row in rows]
    heights = [max(panel.height for panel in row) + _MARGIN for row in rows]
    legend = _legend(totals)
    width = max(*widths, legend.width, int(_font(22).getlength(title))) + 2 * _MARGIN
    sheet = Image.new("RGB", (width, sum(heights) + legend.height + 40 + 2 * _MARGIN), _PAPER)
    ImageDraw.Draw(sheet).text((_MARGIN, _MARGIN - 8), title, _INK, _font(22))
    y = _MARGIN + 32
    for row, height in zip(rows, heights, strict=True):
        x = _MARGIN
        for panel in row:
            sheet.paste(panel, (x, y))
            x += panel.width + _MARGIN
        y += height
    sheet.paste(legend, (_MARGIN, y))
    return sheet


def _legend(totals: Counter[Coverage]) -> Image.Image:
    """Every colour with its meaning, number and share."""
    words = [f"{state}  {totals[state]:,}  ({_share(totals[state], totals.total())})" for state in _STATES]
    font, box = _font(14), 16
    widths = [box + 8 + int(font.getlength(text)) + _MARGIN for text in words]
    note = "A square is red when any of its tiles failed, yellow when any is pending, else of the colour of most."
    legend = Image.new("RGB", (max(sum(widths), int(_font(13).getlength(note))), 2 * _LINE + 4), _PAPER)
    draw = ImageDraw.Draw(legend)
    x = 0
    for state, text, width in zip(_STATES, words, widths, strict=True):
        draw.rectangle((x, 2, x + box, 2 + box), fill=_COLOURS[state], outline=_FAINT)
        draw.text((x + box + 8, 1), text, _INK, font)
        x += width
    draw.text((0, _LINE + 4), note, _FAINT, _font(13))
    return legend


def _share(part: int, whole: int) -> str:
    """Per cent; never a nought for something, nor a hundred for less than all."""
    if part in (0, whole):
        return "100 %" if part else "0 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # comes with Pillow


def _png(image: Image.Image) -> bytes:
    packed = io.BytesIO()
    image.save(packed, "PNG", optimize=True)
    return packed.getvalue()
