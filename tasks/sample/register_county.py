"""The same homes in the shape of another register: other names, numbers as text, dates as month/day/year, a wrapper."""

from __future__ import annotations

from typing import Any

from tasks.sample.register_homes import Home
from tasks.sample.register_listings import Values

_TYPES = {"normal": "ARMS LENGTH", "family": "INTRAFAMILY", "auction": "FORECLOSURE", "other": "MISC"}
_STATES = {"open": "ACTIVE", "sold": "CLOSED", "withdrawn": "OFF"}


def county_answer(home: Home) -> dict[str, Any]:
    """One property as `GET /v2/parcels/{id}` answers it."""
    (own,), (town,), (post,) = home["properties"], home["municipalities"], home["zip_codes"]
    situs = {"street": own["road_name"], "number": own["house_number"], "floor": own["floor"], "side": own["door"]}
    situs["place"] = own["place_name"]
    return {
        "data": {
            "parcel": own["id"],
            "use": own["address_type"],
            "situs": _there({**situs, "town": own["city_name"], "postcode": own["zip_code"]}),
            "location": [own["longitude"], own["latitude"]],
            "assessment": _there(
                {
                    "value": _grouped(own["latest_valuation"]),
                    "living": f"{own['living_area']:.1f}",
                    "lot": _grouped(own["plot_area"]),
                }
            ),
            "forSale": "Y" if own["is_on_market"] else "N",
            "district": {"no": town["code"], "title": town["name"], "inhabitants": _grouped(town["population"])},
            "post": {"no": post["code"], "title": post["name"]},
            "dwelling": _building(home["main_buildings"][0]) if home["main_buildings"] else None,
            "outbuildings": [_building(row) for row in home["additional_buildings"]],
            "deeds": [_deed(row) for row in home["registrations"]],
            "offers": [_offer(row, home) for row in home["cases"]],
        }
    }


def county_hit(home: Home) -> dict[str, Any]:
    """What a search says of the property."""
    (own,) = home["properties"]
    hit = {"parcel": own["id"], "use": own["address_type"], "postcode": own["zip_code"]}
    return _there({**hit, "assessed": own["latest_valuation"], "district": home["municipalities"][0]["name"]})


def _there(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _grouped(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"


def _building(row: Values) -> dict[str, Any]:
    return _there(
        {
            "no": row.get("position"),
            "use": row["building_name"],
            "walls": row["external_wall_material"],
            "sqm": str(row["total_area"]),
            "built": row["year_built"],
            "renewed": row.get("year_renovated"),
        }
    )


def _deed(row: Values) -> dict[str, Any]:
    return {
        "doc": row["registration_id"],
        "price": _grouped(row["amount"]),
        "recorded": row["date"].strftime("%m/%d/%Y"),
        "nature": _TYPES[row["type"]],
    }


def _offer(row: Values, home: Home) -> dict[str, Any]:
    steps = [change for change in home["price_changes"] if change["case_id"] == row["case_id"]]
    images = [image for image in home["case_images"] if image["case_id"] == row["case_id"]]
    return {
        "ref": row["case_id"],
        "state": _STATES[row["status"]],
        "ask": _grouped(row["current_price"]),
        "listed": row["created_date"].strftime("%m/%d/%Y %H:%M"),
        "terrace": "yes" if row["has_terrace"] else "no",
        "steps": [
            {"on": step["change_date"].isoformat(), "was": _grouped(step["old_price"]), "now": str(step["new_price"])}
            for step in steps
        ],
        "photos": [
            {"no": image["sort_order"], "variant": image["size_number"], "href": image["image_url"]} for image in images
        ],
    }
