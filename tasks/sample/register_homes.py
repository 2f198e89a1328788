"""The homes of the sample register: each a function of the seed, its number and what happened to it since.

A home is what the tables are to hold of it (`tasks.register_tables`), as typed values; None is what the register does
not say. The answers of the API are made of this (`register_danish`, `register_county`), and tests compare with it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from tasks.sample.chance import dice
from tasks.sample.register_listings import Seat, Values, listings, realtor
from tasks.sample.register_towns import HOMES_A_ROAD, Road, road_of, uuid_text

Home = dict[str, list[Values]]
"""Table -> rows. Rows of `properties` and of the shared tables are whole; the others lack the property's id."""

FIRST_DAY = date(1992, 1, 3)


class Event(StrEnum):
    """What happens to a home between two versions of the register."""

    SOLD = "sold"
    """A registration more."""
    VALUED = "valued"
    RENOVATED = "renovated"
    REPRICED = "repriced"
    """The asking price of its listing falls."""
    CORRECTED = "corrected"
    """Its first registration is taken out."""


def home_id(seed: int, number: int) -> str:
    """The register's id."""
    return uuid_text(dice(seed, number), number)


def valuation(seed: int, number: int, events: tuple[Event, ...] = ()) -> int | None:
    """In kroner; one home in fifty has none."""
    bits = dice(seed + 1, number)
    if bits % 50 == 7:
        return None
    return 400_000 + (bits >> 8) % 12_000 * 1000 + 25_000 * events.count(Event.VALUED)


def is_listed(seed: int, number: int) -> bool:
    """One in sixty was put up for sale."""
    return dice(seed + 2, number) % 60 == 0


def make_home(seed: int, seat: Seat, events: tuple[Event, ...] = ()) -> Home:
    """The home after these events."""
    road = road_of(seat.town, seat.at // HOMES_A_ROAD)
    bits = dice(seed + 3, seat.number)
    main, others = _buildings(bits, seat, events.count(Event.RENOVATED))
    built = _has_buildings(seed, seat.number)
    cases, changes, images = (
        listings(seed, seat, events.count(Event.REPRICED)) if is_listed(seed, seat.number) else ([], [], [])
    )
    home: Home = {
        "properties": [_property(seed, seat, road, bits, events, main, cases)],
        "main_buildings": [main] if built else [],
        "additional_buildings": others if built else [],
        "registrations": _registrations(seed, seat, events),
        "days_on_market": [{"realtors": [realtor(seat.number)] if cases else []}],
        "cases": cases,
        "price_changes": changes,
        "case_images": images,
    }
    return home | _shared(road, bits)


def event_of(seed: int, number: int, version: int, before: tuple[Event, ...]) -> Event:
    """What happens next to a home: something that changes it, whatever it is."""
    bits = dice(seed + 6, number * 1000 + version)
    wanted = Event.REPRICED if is_listed(seed, number) and bits % 2 else tuple(Event)[(bits >> 1) % 5]
    possible = {
        Event.SOLD: True,
        Event.VALUED: valuation(seed, number) is not None,
        Event.RENOVATED: _has_buildings(seed, number),
        Event.REPRICED: is_listed(seed, number),
        Event.CORRECTED: _first_registrations(seed, number) > 0 and Event.CORRECTED not in before,
    }
    return wanted if possible[wanted] else Event.SOLD


# --- the home itself ---


def _property(
    seed: int, seat: Seat, road: Road, bits: int, events: tuple[Event, ...], main: Values, cases: list[Values]
) -> Values:
    item, town = home_id(seed, seat.number), seat.town
    house = f"{1 + seat.at % HOMES_A_ROAD}{'ABC'[bits % 3] if bits % 11 == 0 else ''}"
    flat = seat.address_type == "condo"
    floor, door = (str(1 + (bits >> 4) % 4), ("tv", "th", "mf")[(bits >> 6) % 3]) if flat else (None, None)
    place = f"Hf. {road.name}" if bits % 20 == 1 else None
    parts = [f"{road.name} {house}", flat and f"{floor}. {door}", place, f"{road.zip_code} {road.city}"]
    slug_address = f"{road.slug}-{house.lower()}-{road.zip_code}-{road.city_slug}"
    gstkvhx = f"{town.code:04d}{road.number % 10000:04d}{house:_>4}__{floor or ''}__{door or ''}"
    sold = bits % 10 == 2
    return {
        "id": item,
        "address": ", ".join(part for part in parts if part),
        "address_type": seat.address_type,
        "road_name": road.name,
        "house_number": house,
        "door": door,
        "floor": floor,
        "city_name": road.city,
        "zip_code": str(road.zip_code),
        "place_name": place,
        "latitude": round(town.place[0] + (bits >> 10) % 9973 / 1e5 - 0.05, 6),
        "longitude": round(town.place[1] + (bits >> 20) % 9967 / 1e5 - 0.05, 6),
        "coordinate_type": "EPSG4326",
        "living_area": main["housing_area"],
        "weighted_area": main["housing_area"] + (bits >> 7) % 40 + 0.5 if bits % 3 else None,
        "plot_area": None if flat else 300 + (bits >> 12) % 1200,
        "latest_valuation": valuation(seed, seat.number, events),
        "latest_sold_area": main["housing_area"] if sold else None,
        "property_number": str(100_000 + seat.number % 800_000),
        "is_on_market": any(case["status"] == "open" for case in cases),
        "is_public": True,
        "allow_new_valuation_info": bits % 2 == 0,
        "has_multiple_cases": len(cases) > 1,
        "energy_label": "abcdefg"[(bits >> 15) % 7] if bits % 5 < 3 else None,
        "entry_address_id": uuid_text(bits, seat.number),
        "gstkvhx": gstkvhx,
        "slug": f"{slug_address}-{gstkvhx.lower()}",
        "slug_address": slug_address,
        "api_href": f"/addresses/{item}",
        "bfe_numbers": [2_000_000 + seat.number, *([9_000_000 + seat.number] if bits % 40 == 0 else [])],
        "latest_sold_title": f"Dejligt hjem på {road.name}" if sold else None,
        "latest_sold_body": f"Nær skov og å.\nStort køkken\t\\ {seat.number} m." if sold else None,
        "latest_sold_date": datetime(2019, 1 + bits % 12, 1 + bits % 27, tzinfo=UTC) if sold else None,
        "municipality_code": str(town.code),
        "province_code": "DK011",
        "road_id": road.road_id,
        "city_slug": road.city_slug,
        "place_id": _place_id(road) if place else None,
    }


_USES = ("Garage", "Carport", "Udhus", "Drivhus")
_WALLS = ("Mursten", "Træ", "Letbetonsten", "Bindingsværk")
_ROOFS = ("Tegl", "Fibercement herunder asbest", "Tagpap med lille hældning", "Betontagsten")


def _buildings(bits: int, seat: Seat, renovations: int) -> tuple[Values, list[Values]]:
    built = 1880 + (bits >> 9) % 140
    main = {
        "building_number": "1",
        "building_name": "Etagebolig" if seat.address_type == "condo" else "Fritliggende enfamilieshus (parcelhus)",
        "bathroom_condition": "Badeværelse i enheden",
        "kitchen_condition": "Eget køkken med afløb",
        "toilet_condition": "Vandskyllende toilet i enheden",
        "external_wall_material": _WALLS[bits % 4],
        "roofing_material": _ROOFS[(bits >> 2) % 4],
        "heating_installation": "Fjernvarme/blokvarme" if bits % 3 else "Varmepumpe",
        "supplementary_heating": "Ovne til fast brændsel" if bits % 4 == 0 else None,
        "housing_area": 60 + (bits >> 11) % 240,
        "total_area": 70 + (bits >> 13) % 260,
        "basement_area": (bits >> 17) % 90 if bits % 4 == 1 else None,
        "number_of_rooms": 2 + (bits >> 5) % 7,
        "number_of_floors": 1 + bits % 2,
        "number_of_bathrooms": 1 + (bits >> 3) % 2,
        "number_of_toilets": 1 + (bits >> 6) % 3,
        "year_built": built,
        "year_renovated": built + 20 + renovations if renovations or bits % 3 == 1 else None,
    }
    others = [
        {
            "position": at,
            "building_number": str(at + 1),
            "building_name": _USES[(bits >> at) % 4],
            "external_wall_material": _WALLS[(bits >> at) % 4],
            "total_area": 8 + (bits >> 4 * at) % 40,
            "year_built": built + (bits >> 3 * at) % 30,
        }
        for at in range(1, 1 + (0, 1, 1, 2, 1, 2, 0, 3)[(bits >> 21) % 8])
    ]
    return main, others


def _registrations(seed: int, seat: Seat, events: tuple[Event, ...]) -> list[Values]:
    bits, last = dice(seed + 4, seat.number), _first_registrations(seed, seat.number) + events.count(Event.SOLD)
    return [_registration(dice(bits, at), seat, at) for at in range(events.count(Event.CORRECTED), last)]


def _first_registrations(seed: int, number: int) -> int:
    return (0, 1, 1, 1, 2, 2, 3, 4)[dice(seed + 4, number) % 8]


def _has_buildings(seed: int, number: int) -> bool:
    return dice(seed + 3, number) % 33 > 0


def _registration(bits: int, seat: Seat, at: int) -> Values:
    numbered = bits % 3 > 0  # older registrations have numbers, newer ones UUIDs
    amount = 250_000 + (bits >> 8) % 9000 * 1000
    area = 60 + (bits >> 22) % 200 if bits % 4 else None
    return {
        "registration_id": str(seat.number * 16 + at) if numbered else uuid_text(bits, seat.number * 16 + at),
        "municipality_code": str(seat.town.code),
        "property_number": str(100_000 + seat.number % 800_000),
        "amount": amount,
        "date": FIRST_DAY + timedelta(days=(bits >> 30) % 12_000),
        "type": ("normal", "normal", "normal", "family", "family", "other", "auction", "normal")[(bits >> 4) % 8],
        "area": area,
        "per_area_price": round(amount / area, 2) if area else None,
    }


# --- what many homes refer to ---


def _shared(road: Road, bits: int) -> Home:
    town = road.town
    church, council, land = town.taxes
    has_place = bits % 20 == 1
    return {
        "municipalities": [
            {
                "code": str(town.code),
                "name": town.name,
                "slug": town.slug,
                "church_tax_percentage": round(church, 2),
                "council_tax_percentage": round(council, 2),
                "land_value_tax_per_mille": round(land, 1),
                "number_of_schools": town.schools,
                "population": town.population,
            }
        ],
        "provinces": [{"code": "DK011", "region_code": "1084", "name": "Byen København", "slug": "byen-koebenhavn"}],
        "roads": [
            {
                "id": road.road_id,
                "road_code": str(road.number % 10000),
                "municipality_code": str(town.code),
                "name": road.name,
                "slug": road.slug,
            }
        ],
        "zip_codes": [
            {"code": str(road.zip_code), "zip_group": None, "name": road.city, "slug": road.city_slug},
        ],
        "cities": [{"slug": road.city_slug, "name": road.city}],
        "places": [_place(road)] if has_place else [],
    }


def _place_id(road: Road) -> str:
    return str(road.town.code * 10_000 + road.number)


def _place(road: Road) -> Values:
    latitude, longitude = (round(middle + road.number % 50 / 1e4, 6) for middle in road.town.place)
    return {
        "id": _place_id(road),
        "name": f"Hf. {road.name}",
        "slug": f"hf-{road.slug}",
        "coordinate_type": "EPSG4326",
        "bbox_min_longitude": round(longitude - 0.002, 6),
        "bbox_min_latitude": round(latitude - 0.001, 6),
        "bbox_max_longitude": round(longitude + 0.002, 6),
        "bbox_max_latitude": round(latitude + 0.001, 6),
        "latitude": latitude,
        "longitude": longitude,
    }
