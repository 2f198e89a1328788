"""The sample register's answers in the shape of boligsiden.dk: what a home does not say is absent, never null."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from tasks.sample.register_homes import Home
from tasks.sample.register_listings import Values

_AS_NUMBERS = {"zip_code", "municipality_code", "property_number", "road_code", "region_code", "bfe_numbers"}
"""Columns that are text with us and numbers in the answers, as far as they are digits."""

_ODD_NAMES = {
    "id": "addressID",
    "entry_address_id": "entryAddressID",
    "registration_id": "registrationID",
    "case_id": "caseID",
    "provider_case_id": "providerCaseID",
    "current_price": "priceCash",
    "created_date": "created",
    "modified_date": "modified",
    "sold_date": "sold",
    "land_value_tax_per_mille": "landValueTaxLevelPerThousand",
    "change_date": "created",
    "alt_text": "alt",
    "image_url": "url",
}
_ELSEWHERE = set(
    "address latitude longitude coordinate_type latest_sold_area latest_sold_title latest_sold_body latest_sold_date"
    " municipality_code province_code road_id city_slug place_id api_href position sort_order size_number".split()
)
_OF_HIT = tuple(
    "id address_type road_name house_number floor door city_name zip_code latest_valuation is_on_market slug".split()
)
_OF_CASE = _ELSEWHERE | set("days_on_market_current days_on_market_total days_listed realtors down_payment".split())


def answer_of(home: Home) -> dict[str, Any]:
    """One property as `GET /addresses/{id}` answers it."""
    (own,) = home["properties"]
    answer = {
        "_links": {"self": {"href": own["api_href"]}},
        **_named(own, _ELSEWHERE),
        "coordinates": _coordinates(own),
        "buildings": [_named(row, _ELSEWHERE) for row in (*home["main_buildings"], *home["additional_buildings"])],
        "registrations": [_registration(row) for row in home["registrations"]],
        "daysOnMarket": home["days_on_market"][0],
        **_shared(home),
        **_extras(own),
    }
    if home["cases"]:
        answer["cases"] = [_case(row, home) for row in home["cases"]]
    return {name: value for name, value in answer.items() if value not in ([], None)}


def hit_of(home: Home) -> dict[str, Any]:
    """What a search says of the property: a part of the answer."""
    (own,), (town,) = home["properties"], home["municipalities"]
    hit = _named({name: own[name] for name in _OF_HIT}, set())
    return {**hit, "municipality": {"name": town["name"], "slug": town["slug"]}}


def _named(row: Values, without: set[str]) -> dict[str, Any]:
    return {
        _ODD_NAMES.get(name) or _camel(name): _number(value) if name in _AS_NUMBERS else _plain(value)
        for name, value in row.items()
        if value is not None and name not in without
    }


_CAMELS: dict[str, str] = {}


def _camel(name: str) -> str:
    if name not in _CAMELS:
        first, *rest = name.split("_")
        _CAMELS[name] = first + "".join(word.capitalize() for word in rest)
    return _CAMELS[name]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def _coordinates(row: Values) -> dict[str, Any]:
    return {"lat": row["latitude"], "lon": row["longitude"], "type": row["coordinate_type"]}


def _registration(row: Values) -> dict[str, Any]:
    """Ids of digits are numbers in some answers and text in others, as in the field."""
    answer = _named(row, set())
    if row["registration_id"].isdigit() and int(row["registration_id"]) % 32 < 16:
        answer["registrationID"] = int(row["registration_id"])
    return answer


def _extras(own: Values) -> dict[str, Any]:
    if own["latest_sold_title"] is None:
        return {}
    said = {"title": own["latest_sold_title"], "body": own["latest_sold_body"]}
    return {
        "latestSoldCaseDescription": {**said, "date": own["latest_sold_date"].date().isoformat()},
        "boligsidenInfo": {"latestSoldArea": own["latest_sold_area"]},
    }


def _shared(home: Home) -> dict[str, Any]:
    """Codes have another name in each of them."""
    names: Mapping[str, tuple[str, str, str]] = {
        "municipalities": ("municipality", "code", "municipalityCode"),
        "provinces": ("province", "code", "provinceCode"),
        "roads": ("road", "id", "roadID"),
        "zip_codes": ("zip", "code", "zipCode"),
        "cities": ("city", "slug", "slug"),
    }
    answer: dict[str, Any] = {}
    for table, (name, key, shown) in names.items():
        (row,) = home[table]
        rest = {column: value for column, value in row.items() if column not in (key, "municipality_code")}
        answer[name] = {
            shown: row[key] if shown in ("provinceCode", "slug") else _number(row[key]),
            **_named(rest, set()),
        }
    answer["road"]["municipalityCode"] = _number(home["roads"][0]["municipality_code"])
    for row in home["places"]:
        corners = ("bbox_min_longitude", "bbox_min_latitude", "bbox_max_longitude", "bbox_max_latitude")
        named = {"id": _number(row["id"]), "name": row["name"], "slug": row["slug"]}
        answer["place"] = {**named, "bbox": [row[corner] for corner in corners], "coordinates": _coordinates(row)}
    return answer


def _case(row: Values, home: Home) -> dict[str, Any]:
    answer = _named(row, _OF_CASE)
    days, total = row["days_on_market_current"], row["days_on_market_total"]
    images = [image for image in home["case_images"] if image["case_id"] == row["case_id"]]
    answer |= {
        "realEstate": {"downPayment": row["down_payment"]},
        "daysListed": {"days": row["days_listed"]},
        "timeOnMarket": {"current": {"days": days}, "total": {"days": total, "realtors": row["realtors"]}},
        "images": [_image([size for size in images if size["sort_order"] == at]) for at in range(len(images) // 2)],
    }
    changes = [_change(change) for change in home["price_changes"] if change["case_id"] == row["case_id"]]
    return {**answer, "priceChanges": changes} if changes else answer


def _image(sizes: list[Values]) -> dict[str, Any]:
    return {
        "imageSources": [
            {
                "url": size["image_url"],
                "size": {"width": size["width"], "height": size["height"]},
                "alt": size["alt_text"],
            }
            for size in sizes
        ]
    }


def _change(row: Values) -> dict[str, Any]:
    answer = _named(row, {"case_id", "amount"})
    return {**answer, "priceChange": row["amount"]}
