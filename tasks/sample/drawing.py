"""Page images that look like recorded documents: deeds, continuation sheets, recording stamps.

Everything is drawn with Pillow's built-in font from a seed, at 300 dots per inch (letter: 2550 x 3300 px),
so the same seed gives the same pixels. The base pages cost 0.1-0.4 s each and are kept; a document is put
together from them in milliseconds (`tasks.sample.scans`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from tasks.sample.chance import seeded

DPI = 300
LETTER_PX = (2550, 3300)
INK = 25

_TITLES = ("WARRANTY DEED", "QUITCLAIM DEED", "RIGHT OF WAY EASEMENT", "ASSIGNMENT OF LEASE")
_NAMES = ("JAMES R. LADNER", "ETHEL M. FAVRE", "PINE RIDGE LAND CO.", "CLAUDE NECAISE", "RUBY J. MORAN")
_SENTENCES = (
    "FOR AND IN CONSIDERATION of the sum of Ten Dollars ($10.00), cash in hand paid, and other good and "
    "valuable consideration, the receipt of all of which is hereby acknowledged,",
    "the undersigned {0} does hereby sell, convey and warrant unto {1}, as joint tenants with full "
    "rights of survivorship and not as tenants in common,",
    "the following described land and property situated and being in the County of Sample, being more "
    "particularly described as follows, to-wit:",
    "Commencing at the Southeast corner of Section {2}, Township {3} South, Range {4} West; thence run "
    "North {5} feet to an iron pin; thence West {6} feet to the Point of Beginning;",
    "thence continue along said line a distance of {6} feet to a point on the margin of a public road; "
    "thence South {5} feet, more or less, back to the Point of Beginning, containing {7} acres, more or "
    "less.",
    "Together with all improvements thereon and appurtenances thereunto belonging or in anywise appertaining.",
    "This conveyance is made subject to all prior reservations of oil, gas and other minerals, and to "
    "any restrictive covenants, easements and rights of way of record.",
    "It is agreed and understood that the ad valorem taxes for the current year have been prorated "
    "between the parties as of this date, and assumed by the Grantee herein.",
    "WITNESS the signature of the Grantor on this the {8} day of {9}.",
    "Personally appeared before me, the undersigned authority in and for said County and State, the "
    "within named {0}, who acknowledged that the above and foregoing instrument was signed and "
    "delivered.",
)
_MONTHS = ("January", "March", "April", "June", "August", "October", "November")


@dataclass(frozen=True)
class Line:
    """One drawn line of text: left edge and top in pixels from the page's top left, height in pixels."""

    text: str
    x_px: int
    y_px: int
    size_px: int


@dataclass(frozen=True)
class Page:
    """A drawn page in grey, ink on white, and the text on it."""

    image: Image.Image
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Stamp:
    """What the clerk's recording stamp says."""

    instrument: str
    book: int
    page: int
    recorded: str

    def lines(self) -> tuple[str, ...]:
        """The stamp's text, top to bottom."""
        number = f"INSTRUMENT {self.instrument}" if self.instrument else "CHANCERY CLERK'S OFFICE"
        return (
            "FILED FOR RECORD",
            number,
            f"BOOK {self.book}  PAGE {self.page}",
            f"{self.recorded}  SAMPLE COUNTY",
        )


@lru_cache(maxsize=64)
def font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font (Aileron) at a size in pixels."""
    return ImageFont.load_default(size_px)


@lru_cache(maxsize=6)
def deed(seed: int, variant: int, *, first: bool) -> Page:
    """A base page of a deed, straight: the first, with title, signature and seal, or a continuation sheet."""
    rng = seeded(f"deed {seed} {variant} {first}")
    image = Image.new("L", LETTER_PX, 255)
    draw = ImageDraw.Draw(image)
    lines = _heading(draw, rng, variant) if first else [_put(draw, "- continued -", 1130, 330, 40)]
    lines += _body(draw, rng, top_px=980 if first else 470, bottom_px=2350 if first else 2900)
    if first:
        lines += _signature(draw, rng)
        _seal(draw, (560, 2740))
    _marks(draw, rng)
    return Page(image, tuple(lines))


def skewed(image: Image.Image, seed: int) -> Image.Image:
    """The page as it lay on the glass: turned by up to 0.7 degrees (nearest pixel: quicker, and rougher)."""
    return image.rotate(seeded(f"skew {seed}").uniform(-0.7, 0.7), fillcolor=255)


def paper(image: Image.Image, seed: int) -> Image.Image:
    """The same page as a grey scan: yellowed, grainy, soft, with the dark edge of the scanner's lid."""
    rng = seeded(f"paper {seed}")
    soft = image.filter(ImageFilter.BoxBlur(2)).point([40 + v * 180 // 255 for v in range(256)])
    grain = noise(rng, image.size).point([128 + (v - 128) // 26 for v in range(256)])
    page = ImageChops.add(soft, grain, scale=1, offset=-128)
    draw = ImageDraw.Draw(page)
    for x in range(45):
        draw.line((x, 0, x, image.height), fill=60 + 3 * x)
    return page


def bilevel(image: Image.Image, dpi: int = DPI) -> Image.Image:
    """The page in black (0) and white (255), scaled from 300 to `dpi`."""
    if dpi != DPI:
        image = image.resize((image.width * dpi // DPI, image.height * dpi // DPI), Image.Resampling.BILINEAR)
    return image.point([255 if v > 150 else 0 for v in range(256)], mode="1")


def stamp_image(stamp: Stamp, dpi: int = DPI) -> Image.Image:
    """The recording stamp in black on white, 2.9 x 1 in."""
    width, height = int(2.9 * dpi), int(1.0 * dpi)
    image = Image.new("1", (width, height), 255)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"
    draw.rectangle((0, 0, width - 1, height - 1), outline=0, width=max(2, dpi // 60))
    for row, text in enumerate(stamp.lines()):
        draw.text((width // 2, height * (2 * row + 0.9) // 9), text, font=font(dpi * 16 // 100), fill=0, anchor="ma")
    return image


def _put(draw: ImageDraw.ImageDraw, text: str, x: int, y: int, size: int) -> Line:
    draw.text((x, y), text, font=font(size), fill=INK)
    return Line(text, x, y, size)


def _heading(draw: ImageDraw.ImageDraw, rng: Random, variant: int) -> list[Line]:
    title = _TITLES[variant % len(_TITLES)]
    draw.line((300, 905, 2250, 905), fill=INK, width=5)
    return [
        _put(draw, "STATE OF MISSISSIPPI", 300, 560, 46),
        _put(draw, "COUNTY OF SAMPLE", 300, 630, 46),
        _put(draw, title, 1275 - 24 * len(title), 770, 76),
        _put(draw, f"Prepared by: {rng.choice(_NAMES)}, Attorney at Law", 300, 300, 34),
        _put(draw, "Return to: P. O. Box 118, Sample, MS", 300, 350, 34),
    ]


def _body(draw: ImageDraw.ImageDraw, rng: Random, top_px: int, bottom_px: int) -> list[Line]:
    lines, y, paragraph = [], top_px, rng.randrange(2)
    while y < bottom_px:
        for number, text in enumerate(_wrapped(_sentence(rng, paragraph), width_px=1900)):
            if y < bottom_px:
                lines.append(_put(draw, text, 420 if number == 0 else 300, y, 44))
            y += 74
        y, paragraph = y + 40, paragraph + 1
    return lines


def _sentence(rng: Random, paragraph: int) -> str:
    names = rng.sample(_NAMES, 2)
    figures = (rng.randint(1, 36), rng.randint(5, 9), rng.randint(14, 17))
    feet = (f"{rng.uniform(90, 990):.2f}", f"{rng.uniform(90, 990):.2f}", f"{rng.uniform(0.4, 60):.2f}")
    day = (rng.randint(1, 28), rng.choice(_MONTHS))
    return _SENTENCES[paragraph % len(_SENTENCES)].format(*names, *figures, *feet, *day)


def _wrapped(text: str, width_px: int) -> list[str]:
    lines, current = [], ""
    for word in text.split():
        longer = f"{current} {word}".strip()
        if font(44).getlength(longer) > width_px:
            lines.append(current)
            longer = word
        current = longer
    return [*lines, current]


def _signature(draw: ImageDraw.ImageDraw, rng: Random) -> list[Line]:
    loops = [(rng.uniform(0.25, 0.5), rng.uniform(20, 80), rng.uniform(0, 6)) for _ in range(3)]
    stroke = []
    for step in range(220):
        height = sum(size * math.sin(pace * step / 2 + phase) for pace, size, phase in loops) * (1 - step / 300)
        stroke.append((1350 + step * 3 + 26 * math.sin(step / 3.1), 2560 + height * 0.6 - step * 0.2))
    draw.line(stroke, fill=INK + 25, width=7, joint="curve")
    draw.line((1300, 2660, 2250, 2660), fill=INK, width=4)
    name = rng.choice(_NAMES)
    return [
        _put(draw, name, 1420, 2680, 40),
        _put(draw, "Notary Public      My commission expires: _______", 1180, 2900, 36),
    ]


def _seal(draw: ImageDraw.ImageDraw, centre: tuple[int, int]) -> None:
    for radius, width in ((230, 9), (205, 4), (120, 4)):
        draw.circle(centre, radius, outline=70, width=width)
    for spoke in range(48):
        angle = spoke * math.tau / 48
        inner, outer = ((centre[0] + r * math.cos(angle), centre[1] + r * math.sin(angle)) for r in (130, 195))
        draw.line((inner, outer), fill=90, width=4)
    draw.text(centre, "SEAL", font=font(64), fill=60, anchor="mm")


def _marks(draw: ImageDraw.ImageDraw, rng: Random) -> None:
    """What a scanner adds: border of the frame, punch holes, specks."""
    draw.rectangle((150, 150, 2400, 3150), outline=INK, width=4)
    for y in (420, 1650, 2880):
        draw.circle((80, y), 38, fill=30)
    for _ in range(220):
        x, y, size = rng.randrange(2550), rng.randrange(3300), rng.choice((1, 1, 2, 3))
        draw.rectangle((x, y, x + size, y + size), fill=rng.randrange(120))


def noise(rng: Random, size: tuple[int, int]) -> Image.Image:
    """Paper grain around 128: a small seeded tile, softened and repeated."""
    tile = Image.frombytes("L", (512, 512), rng.randbytes(512 * 512)).filter(ImageFilter.BoxBlur(1))
    image = Image.new("L", size)
    for x in range(0, size[0], 512):
        for y in range(0, size[1], 512):
            image.paste(tile, (x, y))
    return image
