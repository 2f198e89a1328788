"""The places of the sample register: towns with zip codes and taxes, names of roads. Made up, of the real shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tasks.sample.chance import dice


@dataclass(frozen=True)
class Town:
    """A municipality. `place` is its middle: latitude and longitude, EPSG:4326."""

    name: str
    code: int
    slug: str
    zips: tuple[tuple[int, str, str], ...]
    place: tuple[float, float]

    @property
    def taxes(self) -> tuple[float, float, float]:
        """Church and council tax in percent, land value tax per mille."""
        bits = dice(3, self.code)
        return 0.4 + bits % 60 / 100, 23.0 + (bits >> 8) % 40 / 10, 5.0 + (bits >> 16) % 200 / 10

    @property
    def population(self) -> int:
        """Up to 700,000."""
        return 20_000 + dice(5, self.code) % 680_000

    @property
    def schools(self) -> int:
        """Up to 120."""
        return 4 + dice(6, self.code) % 117


def _town(name: str, code: int, slug: str, latitude: float, longitude: float, zips: str) -> Town:
    parts = [zip_code.partition(" ") for zip_code in zips.split(", ")]
    named = tuple((int(number), city, _slug(city)) for number, _, city in parts)
    return Town(name, code, slug, named, (latitude, longitude))


_LETTERS = str.maketrans({"æ": "ae", "ø": "oe", "å": "aa", "é": "e", " ": "-", ".": ""})


def _slug(name: str) -> str:
    return name.lower().translate(_LETTERS)


TOWNS: Mapping[str, Town] = {
    town.name: town
    for town in (
        _town(
            "København", 101, "koebenhavn", 55.68, 12.56,
            "2100 København Ø, 2200 København N, 2300 København S, 2400 København NV, 2450 København SV, 2500 Valby,"
            " 2700 Brønshøj, 2720 Vanløse",
        ),
        _town("Albertslund", 161, "albertslund", 55.66, 12.36, "2620 Albertslund"),
        _town("Dragør", 155, "dragoer", 55.59, 12.66, "2791 Dragør"),
        _town("Gentofte", 157, "gentofte", 55.75, 12.55, "2820 Gentofte, 2900 Hellerup, 2920 Charlottenlund"),
        _town("Helsingør", 217, "helsingoer", 56.03, 12.58, "3000 Helsingør, 3060 Espergærde, 3100 Hornbæk"),
        _town("Høje-Taastrup", 169, "hoeje-taastrup", 55.65, 12.27, "2630 Taastrup, 2640 Hedehusene"),
        _town("Køge", 259, "koege", 55.46, 12.18, "4600 Køge, 4681 Herfølge, 4140 Borup"),
        _town("Lyngby-Taarbæk", 173, "lyngby-taarbaek", 55.77, 12.5, "2800 Kongens Lyngby, 2930 Klampenborg"),
        _town("Roskilde", 265, "roskilde", 55.64, 12.08, "4000 Roskilde, 4040 Jyllinge, 4130 Viby Sjælland"),
        _town("Rudersdal", 230, "rudersdal", 55.83, 12.49, "2840 Holte, 2950 Vedbæk, 3460 Birkerød"),
    )
}  # fmt: skip

_FIRST = (
    "Abild", "Ahorn", "Bakke", "Birke", "Bøge", "Dige", "Eg", "Elle", "Eng", "Fyrre", "Gran", "Hassel", "Hyben",
    "Høj", "Kastanje", "Kirke", "Kløver", "Lærke", "Linde", "Lyng", "Mark", "Mose", "Mølle", "Nørre", "Pile", "Poppel",
    "Rosen", "Rug", "Skole", "Skov", "Solsikke", "Strand", "Syren", "Sønder", "Tjørne", "Torne", "Vester", "Viol",
    "Øster", "Å",
)  # fmt: skip
_SECOND = (
    "allé",
    "bakken",
    "gade",
    "haven",
    "krogen",
    "lunden",
    "parken",
    "stien",
    "stræde",
    "toften",
    "vej",
    "vænget",
)
ROADS = sorted(first + second for first in _FIRST for second in _SECOND)
HOMES_A_ROAD = 40


@dataclass(frozen=True)
class Road:
    """A road of a town; all of it has one zip code."""

    town: Town
    number: int
    name: str
    slug: str
    road_id: str
    zip_code: int
    city: str
    city_slug: str


@lru_cache(maxsize=65536)
def road_of(town: Town, number: int) -> Road:
    """The town's n-th road, nearly in order of the alphabet."""
    round_, at = divmod(number, len(ROADS))
    name = ROADS[at] if round_ == 0 else f"{ROADS[at]} {round_ + 1}"
    bits = dice(town.code, number)
    zip_code, city, city_slug = town.zips[bits % len(town.zips)]
    return Road(town, number, name, _slug(name), uuid_text(bits, number), zip_code, city, city_slug)


_MIX, _UNMIX = 0x5DEECE66D, pow(0x5DEECE66D, -1, 1 << 48)


def uuid_text(bits: int, number: int) -> str:
    """A UUID that hides a number of 48 bits; `number_in` finds it again."""
    text = f"{bits & (1 << 64) - 1:016x}8000{number * _MIX % (1 << 48):012x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{text[16:20]}-{text[20:]}"


def number_in(text: str) -> int | None:
    """The number in such a UUID; None where it can be none."""
    tail = text.rpartition("-")[2]
    try:
        return int(tail, 16) * _UNMIX % (1 << 48) if len(tail) == 12 else None
    except ValueError:
        return None
