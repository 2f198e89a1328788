"""Subdivision plats in colour: lots, bearings, a road, a river, north arrow and title block."""

from __future__ import annotations

import math
from random import Random

from PIL import Image, ImageChops, ImageDraw

from tasks.sample.chance import seeded
from tasks.sample.drawing import font, noise

PLAT_PX = (3300, 2550)
"""11 x 8.5 in at 300 dpi."""


def plat(seed: int, variant: int) -> Image.Image:
    """A subdivision plat in colour (11 x 8.5 in): lots, bearings, a road, north arrow and title block."""
    rng = seeded(f"plat {seed} {variant}")
    image = Image.new("RGB", PLAT_PX, (251, 249, 240))
    draw = ImageDraw.Draw(image)
    _lots(draw, rng)
    _road(draw, rng)
    _title_block(draw, rng, variant)
    draw.rectangle((70, 70, 3230, 2480), outline=(20, 20, 20), width=9)
    draw.rectangle((95, 95, 3205, 2455), outline=(20, 20, 20), width=3)
    grain = noise(rng, PLAT_PX).point([128 + (v - 128) // 40 for v in range(256)])
    shade = Image.merge("RGB", (grain, grain, grain))
    return ImageChops.add(image, shade, scale=1, offset=-128)


def _lots(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    number = 0
    for top, bottom, slant in ((330, 1010, 40), (1290, 1960, -40)):
        x = 260
        while x < 2600:
            width = rng.randint(240, 380)
            corners = ((x, top), (x + width, top), (x + width + slant, bottom), (x + slant, bottom))
            draw.polygon(corners, outline=(30, 40, 140), width=6)
            number += 1
            draw.text(
                (x + width // 2, (top + bottom) // 2),
                f"LOT {number}",
                font=font(58),
                fill=(150, 30, 30),
                anchor="mm",
            )
            draw.text(
                (x + width // 2, (top + bottom) // 2 + 70),
                f"{width / 900:.2f} AC",
                font=font(36),
                fill=(40, 40, 40),
                anchor="mm",
            )
            draw.text(
                (x + width // 2, top - 45),
                f"{width * 0.37:.1f}'",
                font=font(34),
                fill=(40, 40, 40),
                anchor="mm",
            )
            draw.circle((x, top), 9, fill=(20, 20, 20))
            x += width


def _road(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    draw.line((180, 1090, 2850, 1090), fill=(90, 90, 90), width=5)
    draw.line((180, 1210, 2850, 1210), fill=(90, 90, 90), width=5)
    draw.text(
        (1300, 1122),
        "P I N E   R I D G E   R O A D   (60' R.O.W.)",
        font=font(44),
        fill=(90, 60, 20),
        anchor="ma",
    )
    for x in range(300, 2700, 640):
        draw.text((x, 2010), _bearing(rng), font=font(36), fill=(40, 40, 40))
    river = [(x, 2200 + 60 * math.sin(x / 300)) for x in range(1080, 2260, 40)]
    draw.line(river, fill=(60, 130, 200), width=22, joint="curve")
    draw.text((1480, 2330), "BAYOU LACROIX", font=font(46), fill=(60, 130, 200))


def _bearing(rng: Random) -> str:
    degrees, minutes, seconds = rng.randint(1, 89), rng.randint(0, 59), rng.randint(0, 59)
    return f"N {degrees}°{minutes:02d}'{seconds:02d}\" E  {rng.uniform(90, 600):.2f}'"


def _title_block(draw: ImageDraw.ImageDraw, rng: Random, variant: int) -> None:
    draw.rectangle((2300, 2120, 3180, 2430), fill=(251, 249, 240), outline=(20, 20, 20), width=6)
    rows = (
        "PLAT OF SURVEY",
        f"PINE RIDGE SUBDIVISION, PHASE {variant + 1}",
        f"SECTION {rng.randint(1, 36)}, T-8-S, R-14-W",
        "SAMPLE COUNTY    SCALE 1\" = 100'",
    )
    for row, text in enumerate(rows):
        draw.text((2340, 2145 + row * 68), text, font=font(58 if row == 0 else 42), fill=(20, 20, 20))
    draw.polygon(((3020, 250), (3075, 480), (3020, 430), (2965, 480)), fill=(20, 20, 20))
    draw.text((3020, 190), "N", font=font(70), fill=(20, 20, 20), anchor="mm")
