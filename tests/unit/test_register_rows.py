"""From an answer to rows: what is kept where, what is absent or unknown, what is refused and why."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from tasks.errors import TransientError
from tasks.register_mapping import BadRecord
from tasks.register_profile import RegisterProfile, load_register
from tasks.register_rows import Record, RegisterReader, parse_answer
from tasks.register_tables import CHILDREN, PROPERTIES, SHARED, TABLES
from tasks.register_values import NULL
from tasks.sample.register_danish import answer_of
from tasks.sample.register_land import Land
from tasks.sample.register_poison import REASONS, Poison, poisoned

DANISH = load_register("boligsiden")
READER = RegisterReader(DANISH)
LAND = Land({"København": 900})


def fields(record: Record, table: str) -> list[dict[str, str | None]]:
    """A table's rows by column; NULL as None."""
    names = (*TABLES[table].names, "extra") if table == PROPERTIES.name else TABLES[table].names
    rows = [line.split("\t") for line in record.lines.get(table, [])]
    return [{n: None if f == NULL else f for n, f in zip(names, row, strict=True)} for row in rows]


def read(answer: Any, asked: str = "home") -> Record:
    return READER.read(asked, json.dumps(answer).encode())


def said(**more: Any) -> dict[str, Any]:
    return {"addressID": "home", **more}


@pytest.fixture(scope="module")
def listed() -> dict[str, Any]:
    """An answer with all there is: a listing with a falling price, a place, two buildings, registrations."""
    answers = [answer_of(LAND.home(number, 0)) for number in range(900)]
    chosen = next(a for a in answers if "priceChanges" in a.get("cases", [{}])[0] and len(a.get("buildings", [])) > 1)
    place = next(a["place"] for a in answers if "place" in a)
    return {**chosen, "place": place}


# --- rows ---


def test_every_table_gets_its_rows(listed: dict[str, Any]) -> None:
    record = read(listed, listed["addressID"])
    assert record.lines.keys() == {"properties", *(table.name for table in CHILDREN)}
    assert {table for table, rows in record.shared.items() if rows} == {table.name for table in SHARED}
    assert record.unknown == frozenset()
    (own,) = fields(record, "properties")
    assert own["road_name"] == listed["roadName"]
    assert own["bfe_numbers"] == "{" + ",".join(map(str, listed["bfeNumbers"])) + "}"
    case = listed["cases"][0]
    assert [row["case_id"] for row in fields(record, "price_changes")] == [case["caseID"]] * len(case["priceChanges"])
    images = {(row["sort_order"], row["size_number"]): row["image_url"] for row in fields(record, "case_images")}
    for at, image in enumerate(case["images"]):
        for size, source in enumerate(image["imageSources"]):
            assert images[str(at), str(size)] == source["url"]
    others = fields(record, "additional_buildings")
    assert [row["position"] for row in others] == [str(at) for at in range(1, len(listed["buildings"]))]
    ((key, line),) = record.shared["places"].items()
    assert key == (str(listed["place"]["id"]),)
    assert [float(field) for field in line.split("\t")[4:8]] == listed["place"]["bbox"]


def test_a_property_that_says_nothing_else_is_one_row() -> None:
    record = read(said())
    assert record.lines.keys() == {"properties"}
    assert {name for name, field in fields(record, "properties")[0].items() if field} == {"id"}
    assert not any(record.shared.values())


def test_absent_null_and_empty_are_the_same() -> None:
    bare = read(said()).content_hash
    assert (
        read(said(roadName=None, coordinates=None, registrations=None, zip={}, municipality=None)).content_hash == bare
    )
    assert read(said(registrations=[], buildings=[], cases=[], coordinates={})).content_hash == bare
    assert read(said(roadName="")).content_hash != bare


@pytest.mark.parametrize(
    ("parts", "address"),
    [
        ({"roadName": "Rugvej", "houseNumber": "6", "zipCode": 2620, "cityName": "By"}, "Rugvej 6, 2620 By"),
        ({"roadName": "Rugvej", "houseNumber": "6", "floor": "st", "door": "th"}, "Rugvej 6, st. th"),
        ({"roadName": "Rugvej", "houseNumber": "6", "floor": "1"}, "Rugvej 6, 1."),
        ({"roadName": "{houseNumber} x", "houseNumber": "6"}, "{houseNumber} x 6"),
        ({"zipCode": 2620, "placeName": "Hf. Sol"}, "Hf. Sol, 2620"),
        ({"houseNumber": None}, None),
    ],
)
def test_an_address_is_made_of_what_is_there(parts: dict[str, Any], address: str | None) -> None:
    assert fields(read(said(**parts)), "properties")[0]["address"] == address


def test_the_first_path_that_fits_counts() -> None:
    for given, label in (({"classification": "c"}, "c"), ("d", "d"), (None, None)):
        record = read(said(cases=[{"caseID": "x", "energyLabel": given, "daysListed": 5}]))
        assert (fields(record, "cases")[0]["energy_label"], fields(record, "cases")[0]["days_listed"]) == (label, "5")
    assert fields(read(said(zip={"zipCode": 2620})), "properties")[0]["zip_code"] == "2620"
    with pytest.raises(BadRecord) as caught:
        read(said(cases=[{"caseID": "x", "daysListed": "soon"}]))
    assert caught.value.field == "cases[0].daysListed.days"


# --- the hash ---


def test_order_says_nothing(listed: dict[str, Any]) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shuffled(value[name]) for name in random.sample(list(value), len(value))}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    other = shuffled(listed)
    for name in ("registrations", "cases"):
        other[name] = other[name][::-1]
    other["cases"][0]["priceChanges"] = other["cases"][0]["priceChanges"][::-1]
    assert json.dumps(other) != json.dumps(listed)
    assert read(other, listed["addressID"]).content_hash == read(listed, listed["addressID"]).content_hash


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda answer: answer.update(livingArea=1),
    lambda answer: answer.pop("slug"),
    lambda answer: answer["registrations"].pop(),
    lambda answer: answer["registrations"][0].update(amount=1),
    lambda answer: answer["cases"][0]["images"].pop(),
    lambda answer: answer["cases"][0].update(priceCash=1),
    lambda answer: answer["buildings"].reverse(),
    lambda answer: answer.update(newField=0),
    lambda answer: answer["cases"][0].update(newField=0),
]


@pytest.mark.parametrize("change", CHANGES)
def test_everything_of_the_property_counts(listed: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> None:
    other = copy.deepcopy(listed)
    change(other)
    assert read(other, listed["addressID"]).content_hash != read(listed, listed["addressID"]).content_hash


def test_what_many_share_and_what_is_ignored_do_not_count(listed: dict[str, Any]) -> None:
    other = copy.deepcopy(listed)
    other["municipality"]["population"] += 1
    other["cases"][0]["defaultImage"] = {"any": "thing"}
    before, after = (read(answer, listed["addressID"]) for answer in (listed, other))
    assert after.content_hash == before.content_hash
    assert after.shared != before.shared
    assert after.unknown == frozenset()


def test_another_mapping_is_another_hash() -> None:
    tables = DANISH.model_dump()["tables"]
    tables["properties"]["columns"]["slug"] = "slugAddress"
    other = RegisterProfile.model_validate({**DANISH.model_dump(), "tables": tables})
    answer = json.dumps(said()).encode()
    assert RegisterReader(other).read("home", answer).content_hash != READER.read("home", answer).content_hash


# --- unknown fields ---


def test_unknown_fields_are_kept_by_their_path() -> None:
    record = read(
        said(
            solar={"panels": 4},
            municipality={"municipalityCode": 1, "mayor": None},
            buildings=[{"colour": "red"}, {"yearBuilt": 1900, "colour": ["a"]}],
            cases=[{"caseID": "x", "images": [{"imageSources": [{"url": "u", "hash": "h"}]}]}],
        )
    )
    (own,) = fields(record, "properties")
    assert json.loads(own["extra"] or "") == {
        "solar": {"panels": 4},
        "municipality.mayor": None,
        "buildings[0].colour": "red",
        "buildings[1].colour": ["a"],
        "cases[0].images[0].imageSources[0].hash": "h",
    }
    paths = {"solar", "municipality.mayor", "buildings[].colour", "cases[].images[].imageSources[].hash"}
    assert record.unknown == paths


def test_what_is_kept_or_ignored_as_a_whole_has_no_unknown_parts() -> None:
    label = {"classification": "c", "year": 2020}
    case = {"caseID": "x", "energyLabel": label, "realtor": {"any": {"thing": 1}}, "defaultImage": {"a": 1}}
    record = read(
        said(_links={"self": {"href": "/a"}, "next": 1}, cases=[case], place={"id": 1, "bbox": [1, 2, 3, 4, 5]})
    )
    assert record.unknown == frozenset()
    assert fields(record, "cases")[0]["realtor"] == '{"any":{"thing":1}}'


# --- what is refused ---


@pytest.mark.parametrize("poison", Poison)
def test_each_poison_is_recognised(poison: Poison) -> None:
    answer = answer_of(LAND.home(5, 0))
    with pytest.raises(BadRecord) as caught:
        READER.read(answer["addressID"], poisoned(answer, poison))
    assert caught.value.reason == REASONS[poison]
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("more", "reason", "field"),
    [
        ({"coordinates": "here"}, "wrong_type", "coordinates"),
        ({"coordinates": {"lat": "55"}}, "wrong_type", "coordinates.lat"),
        ({"registrations": {"registrationID": 1, "date": "x"}}, "bad_date", "registrations.date"),
        ({"registrations": "none"}, "wrong_type", "registrations"),
        ({"registrations": [{"registrationID": 1}, {"amount": "5"}]}, "wrong_type", "registrations[1].amount"),
        ({"registrations": [{"amount": 5}]}, "missing_field", "registrations[0].registration_id"),
        ({"registrations": [{"registrationID": 1}, {"registrationID": "1"}]}, "duplicate_key", "registrations"),
        ({"cases": [{"caseID": "a", "priceChanges": [{"created": 5}]}]}, "wrong_type",
         "cases[0].priceChanges[0].created"),
        ({"cases": [{"images": [{"imageSources": [{"url": "u"}]}]}]}, "missing_field", "cases[0].case_id"),
        ({"municipality": {"name": "By"}}, "missing_field", "municipality.code"),
        ({"place": {"id": 1, "bbox": "everywhere"}}, "wrong_type", "place.bbox.0"),
        ({"zipCode": [2100]}, "wrong_type", "address"),
        ({"roadName": 5}, "wrong_type", "roadName"),
        ({"floor": 1.5}, "wrong_type", "floor"),
        ({"attachment": "a\0"}, "bad_text", "attachment"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(more: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(BadRecord) as caught:
        read(said(**more))
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize("answer", [[], "text", 5, None, True, {}, {"error": {"code": 500}}, {"data": {}}])
def test_an_answer_that_is_no_property_may_be_one_the_next_time(answer: Any) -> None:
    with pytest.raises(TransientError) as caught:
        read(answer)
    assert caught.value.reason == "portal_error"


@pytest.mark.parametrize("answer", [{"addressID": ""}, {"roadName": "x"}, {"addressID": None, "city": {}}])
def test_an_answer_without_an_id_is_refused(answer: Any) -> None:
    with pytest.raises(BadRecord) as caught:
        read(answer)
    assert caught.value.reason == "missing_field"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed_json"),
        (b"<html>", "malformed_json"),
        (b'{"a": 1', "malformed_json"),
        (b'{"a": 1} x', "malformed_json"),
        (b'{"a": "\xff"}', "malformed_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "malformed_json"),
        (b"\xef\xbb\xbf{}", "malformed_json"),
        (b'{"a": -Infinity}', "bad_number"),
        (b'{"a": {"b": 1, "b": 1}}', "duplicate_key"),
        (b"[" * 200_000, "too_deep"),
        (b'"' + b"x" * 8_000_000 + b'"', "too_large"),
    ],
)
def test_bodies_that_are_no_strict_json(body: bytes, reason: str) -> None:
    """What is no JSON at all may be another time; the rest stays as it is."""
    with pytest.raises(TransientError if reason == "malformed_json" else BadRecord) as caught:
        parse_answer(body)
    assert caught.value.reason == reason


def test_ids_have_the_prefix_of_their_register() -> None:
    county = load_register("sample-county")
    body = json.dumps({"data": {"parcel": 77, "deeds": [{"doc": "d"}]}}).encode()
    record = RegisterReader(county).read("county:77", body)
    assert fields(record, "properties")[0]["id"] == fields(record, "registrations")[0]["property_id"] == "county:77"
    with pytest.raises(BadRecord):
        RegisterReader(county).read("77", body)
    with pytest.raises(TransientError):
        RegisterReader(county).read("county:77", b'{"data": null}')
