"""The tables a register's answers are kept in: their columns, kinds and natural keys. Migration 040 makes them.

Codes and identifiers are text, whatever a register writes them as: they have leading zeros, letters and dashes.
Areas are square metres, amounts the register's own currency, coordinates degrees (EPSG:4326).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a column holds."""

    CODE = "code"
    """An identifier of at most 200 characters; a number becomes its digits."""
    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    MONEY = "money"
    BOOLEAN = "boolean"
    DATE = "date"
    MOMENT = "moment"
    """A date with a time of day, kept in UTC."""
    NUMBERS = "numbers"
    """A list of whole numbers."""
    JSON = "json"


@dataclass(frozen=True, eq=False)
class Table:
    """One table.

    columns  those that a profile maps, in the order rows are written; a key that is mapped comes first
    key      the natural key; a table of a property's rows has the property's id first in it
    """

    name: str
    columns: Mapping[str, Kind]
    key: tuple[str, ...]

    @property
    def mapped_key(self) -> tuple[str, ...]:
        """The part of the key that a profile maps."""
        return tuple(name for name in self.key if name in self.columns)

    @property
    def of_property(self) -> bool:
        """Whether its rows belong to one property, and come and go with what the register says of it."""
        return "property_id" in self.key

    @property
    def names(self) -> tuple[str, ...]:
        """Every column of its rows as they are staged."""
        return ("property_id", *self.columns) if self.of_property else tuple(self.columns)

    @property
    def plain(self) -> tuple[str, ...]:
        """The columns that are no key."""
        return tuple(name for name in self.names if name not in self.key)


def _table(name: str, key: str, **columns: str) -> Table:
    kinds = {column: Kind(kind) for kind, names in columns.items() for column in names.split()}
    keys = tuple(key.split())
    ordered = sorted(kinds, key=lambda column: column not in keys)  # stable: keys first, the rest as listed
    return Table(name, {column: kinds[column] for column in ordered}, keys)


PROPERTIES = _table(
    "properties",
    "id",
    code="id zip_code property_number entry_address_id municipality_code province_code road_id place_id",
    text="address address_type road_name house_number door floor city_name place_name coordinate_type energy_label"
    " gstkvhx slug slug_address api_href city_slug latest_sold_title latest_sold_body",
    number="latitude longitude living_area weighted_area plot_area latest_sold_area",
    money="latest_valuation",
    boolean="is_on_market is_public allow_new_valuation_info has_multiple_cases",
    moment="latest_sold_date",
    numbers="bfe_numbers",
)

_BUILDING = {
    "text": "building_name bathroom_condition kitchen_condition toilet_condition external_wall_material"
    " supplementary_external_wall_material roofing_material supplementary_roofing_material heating_installation"
    " supplementary_heating asbestos_containing_material",
    "number": "housing_area total_area basement_area business_area other_area",
    "code": "building_number",
}
_ROOMS = "number_of_rooms number_of_floors number_of_bathrooms number_of_kitchens number_of_toilets"
_YEARS = "year_built year_renovated"

CHILDREN = (
    _table("main_buildings", "property_id", integer=f"{_ROOMS} {_YEARS}", **_BUILDING),
    _table("additional_buildings", "property_id position", integer=f"position {_ROOMS} {_YEARS}", **_BUILDING),
    _table(
        "registrations",
        "property_id registration_id",
        code="registration_id municipality_code property_number",
        money="amount",
        date="date",
        text="type",
        number="area living_area per_area_price",
    ),
    _table("days_on_market", "property_id", json="realtors"),
    _table(
        "cases",
        "property_id case_id",
        code="case_id provider_case_id",
        text="status address_type slug case_url description_title description_body energy_label",
        money="current_price original_price monthly_expense down_payment gross_mortgage net_mortgage",
        number="price_change_percentage per_area_price housing_area weighted_area lot_area basement_area",
        moment="created_date modified_date sold_date",
        integer="days_on_market_current days_on_market_total days_listed number_of_rooms number_of_floors"
        " number_of_bathrooms year_built",
        boolean="has_balcony has_terrace has_elevator highlighted",
        json="realtors realtor distinction",
    ),
    _table(
        "price_changes",
        "property_id case_id change_date",
        code="case_id",
        moment="change_date",
        money="old_price new_price amount",
    ),
    _table(
        "case_images",
        "property_id case_id sort_order size_number",
        code="case_id",
        integer="sort_order size_number width height",
        text="image_url alt_text",
    ),
)
"""Rows of one property; a table stands before those that refer to it."""

SHARED = (
    _table(
        "municipalities",
        "code",
        code="code region_code",
        text="name slug",
        number="church_tax_percentage council_tax_percentage land_value_tax_per_mille",
        integer="number_of_schools population",
    ),
    _table("provinces", "code", code="code region_code", text="name slug"),
    _table("roads", "id", code="id road_code municipality_code", text="name slug"),
    _table("zip_codes", "code", code="code zip_group", text="name slug"),
    _table("cities", "slug", code="slug", text="name"),
    _table(
        "places",
        "id",
        code="id",
        text="name slug coordinate_type",
        number="bbox_min_longitude bbox_min_latitude bbox_max_longitude bbox_max_latitude latitude longitude",
    ),
)
"""Rows that many properties refer to; what a register says last is kept."""

TABLES: Mapping[str, Table] = {table.name: table for table in (PROPERTIES, *CHILDREN, *SHARED)}
