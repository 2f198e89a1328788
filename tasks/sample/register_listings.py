"""The listings of the sample register's homes: who sells them, for how much, with which pictures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tasks.sample.chance import dice
from tasks.sample.register_towns import Town, uuid_text

Values = dict[str, Any]

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
IMAGE_SIZES = ((600, 400), (1440, 960))


class Seat(NamedTuple):
    """Where a home stands: its number in the register, its town, its number there, and what it is."""

    number: int
    town: Town
    at: int
    address_type: str


def listings(seed: int, seat: Seat, repriced: int) -> tuple[list[Values], list[Values], list[Values]]:
    """The listing, its price changes and its images, after its price fell so many times."""
    bits = dice(seed + 5, seat.number)
    case_id, begun = uuid_text(bits, seat.number), NOON - timedelta(days=(bits >> 9) % 400)
    asked = 1_500_000 + (bits >> 16) % 8000 * 1000
    steps = bits % 3 + repriced
    status = ("open", "open", "open", "open", "open", "sold", "withdrawn")[bits % 7]
    changes = [
        {
            "case_id": case_id,
            "change_date": begun + timedelta(days=20 * (at + 1), microseconds=at),
            "old_price": asked - 50_000 * at,
            "new_price": asked - 50_000 * (at + 1),
            "amount": -50_000,
        }
        for at in range(steps)
    ]
    case = {
        "case_id": case_id,
        "provider_case_id": f"{bits % 9000}-{seat.number}",
        "status": status,
        "address_type": seat.address_type,
        "case_url": f"https://maegler.example/sag/{seat.number}",
        "description_title": "Skøn bolig med have 🏡",
        "description_body": "Velkommen hjem.\r\n\r\nLys stue & køkken-alrum; 300 m til tog.\\" * 5,
        "energy_label": "abcdefg"[bits % 7],
        "current_price": asked - 50_000 * steps,
        "original_price": asked,
        "monthly_expense": 2_000 + bits % 4000,
        "down_payment": asked // 20,
        "price_change_percentage": round(-5_000_000 * steps / asked, 1),
        "per_area_price": round(asked / 120, 4),
        "lot_area": 300 + (bits >> 12) % 1200,
        "created_date": begun,
        "modified_date": begun + timedelta(days=20 * steps, milliseconds=123),
        "sold_date": begun + timedelta(days=300) if status == "sold" else None,
        "days_on_market_current": (bits >> 9) % 400,
        "days_on_market_total": (bits >> 9) % 400 + bits % 30,
        "days_listed": (bits >> 9) % 400,
        "year_built": 1880 + bits % 140,
        "has_balcony": bits % 5 == 0,
        "has_terrace": bits % 2 == 0,
        "has_elevator": None if bits % 3 else False,
        "highlighted": bits % 9 == 0,
        "realtors": [realtor(seat.number)],
    }
    return [case], changes, _images(case_id, bits, seat.number)


def _images(case_id: str, bits: int, number: int) -> list[Values]:
    return [
        {
            "case_id": case_id,
            "sort_order": at,
            "size_number": size,
            "width": wide,
            "height": high,
            "image_url": f"https://images.example/{number}/{at}/{wide}x{high}.webp",
            "alt_text": f"Billede {at + 1}",
        }
        for at in range(4 + bits % 13)
        for size, (wide, high) in enumerate(IMAGE_SIZES)
    ]


def realtor(number: int) -> Values:
    """Who sells the home of that number."""
    return {"name": f"Mægler {number % 40}", "slug": f"maegler-{number % 40}", "cvr": str(26_000_000 + number % 40)}
