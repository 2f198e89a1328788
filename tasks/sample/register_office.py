"""Who answers for the sample register: searches with a cap, properties with ETags, in two shapes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

from tasks.sample.answers import JSON_TYPE, Answer, Request, Target, json_error
from tasks.sample.chance import dice
from tasks.sample.faults import FaultKind
from tasks.sample.markup import error_page, page
from tasks.sample.register_county import county_answer, county_hit
from tasks.sample.register_danish import answer_of, hit_of
from tasks.sample.register_land import Land
from tasks.sample.register_poison import Poison, poisoned
from tasks.sample.register_search import Finder, Query

API_KEY = "sample-key"
CAP = 10_000
MOST_A_PAGE = 100
_DANISH, _COUNTY = "/search/addresses", "/v2/parcels"
_DETAILS = ("/addresses/", "/v2/parcels/")


class Habits(NamedTuple):
    """What the register does to everybody, all the time.

    cap        hits a query of the Danish shape delivers at the most
    shifting   the order moves a little between requests: pages overlap, and miss what lies between
    overstated hits that a query claims to have beyond those it delivers
    unknown    share of homes whose answer has fields no profile knows
    poisoned   share of homes whose answer nobody can load (Danish shape)
    """

    cap: int = CAP
    shifting: bool = False
    overstated: int = 0
    unknown: float = 0.0
    poisoned: float = 0.0


class RegisterOffice:
    """Answers searches and properties. `version` may change at any time."""

    takes_long = False

    def __init__(self, land: Land, habits: Habits = Habits(), version: int = 0) -> None:  # noqa: B008 - unchangeable
        self.land, self.habits, self.version = land, habits, version
        self._finder = Finder(land, shifting=habits.shifting)
        self._hit = lru_cache(maxsize=100_000)(self._hit_text)

    def find(self, request: Request) -> Target:
        """Properties count as files, searches as look-ups; their document is the home, or a number of the query."""
        for prefix in _DETAILS:
            if request.path.startswith(prefix):
                return Target("file", self.land.find(request.path.removeprefix(prefix)))
        if request.path in (_DANISH, _COUNTY):
            return Target("lookup", crc32(json.dumps(request.fields, sort_keys=True).encode()))
        return Target("page", None)

    def answer(self, request: Request, target: Target, fault: FaultKind | None) -> Answer:
        """The answer; a property takes 150 us, the first search of many homes longer."""
        if fault is FaultKind.HTML:
            return Answer(200, error_page("Error", "Bad gateway").encode(), JSON_TYPE)
        if fault is FaultKind.JSON:
            return json_error()
        if fault is FaultKind.EMPTY:
            return Answer(200, b"", JSON_TYPE)
        answer = self._right(request, target)
        if fault is FaultKind.DAMAGED:  # its end is missing, and nothing but its JSON shows that
            answer.body = answer.body[: len(answer.body) * 2 // 3]
        return answer

    def poison_of(self, number: int) -> Poison | None:
        """What is wrong with the answer for a home, if anything."""
        bits = dice(self.land.seed + 20, number)
        return tuple(Poison)[(bits >> 20) % len(Poison)] if bits % 1_000_000 < self.habits.poisoned * 1e6 else None

    def is_unknown(self, number: int) -> bool:
        """Whether the answer for a home has fields that no profile knows."""
        return dice(self.land.seed + 21, number) % 1_000_000 < self.habits.unknown * 1e6

    def _right(self, request: Request, target: Target) -> Answer:
        if request.path.startswith("/v2/") and request.headers.get("x-api-key") != API_KEY:
            return _refused(401, "missing or wrong X-Api-Key")
        if target.on == "file":
            return self._property(request, target.document)
        if request.path == _DANISH:
            return self._search(request.fields)
        if request.path == _COUNTY:
            return self._county_search(request.fields)
        if request.path == "/":
            return Answer(200, page("Sample register", f"<p>Homes in {', '.join(self.land.towns)}.</p>").encode())
        return _refused(404, "there is no such path")

    # --- one property ---

    def _property(self, request: Request, number: int | None) -> Answer:
        version = self.version
        if number is None or not self.land.exists(number, version):
            return _refused(404, "not found")
        etag = f'"{number:x}-{len(self.land.events(number, version))}"'
        if request.headers.get("if-none-match") == etag:
            return Answer(304, b"", JSON_TYPE, {"ETag": etag})
        county = request.path.startswith("/v2/")
        return Answer(200, self.body(number, version, county=county), JSON_TYPE, {"ETag": etag})

    def body(self, number: int, version: int, *, county: bool = False) -> bytes:
        """The answer's bytes for a home that exists."""
        home = self.land.home(number, version)
        answer = county_answer(home) if county else answer_of(home)
        if self.is_unknown(number):
            (answer["data"] if county else answer).update(_unknown_fields(number, answer))
        poison = None if county else self.poison_of(number)
        return poisoned(answer, poison) if poison else json.dumps(answer, ensure_ascii=False).encode()

    # --- searches ---

    def _search(self, fields: Mapping[str, str]) -> Answer:
        """Pages are counted from 1; what is no page of the query is answered with 400."""
        try:
            number, size = int(fields.get("page", "1")), int(fields.get("per_page", "50"))
            query = _query(fields, ("municipalities", "addressTypes", "zipCodes", "priceMin", "priceMax"))
        except ValueError:
            return _refused(400, "page, per_page, priceMin and priceMax are whole numbers")
        if not 1 <= size <= MOST_A_PAGE or number < 1:
            return _refused(400, f"per_page must be 1 to {MOST_A_PAGE}, page 1 or more")
        total = len(self._finder.matching(query, self.version))
        start = (number - 1) * size
        if start + size > self.habits.cap or (start and start >= total):
            return _refused(400, "page is beyond the end of the results")
        hits = self._hits(query, start, size, county=False)
        return _json_answer(f'{{"addresses": [{hits}], "totalHits": {total + self.habits.overstated}}}')

    def _county_search(self, fields: Mapping[str, str]) -> Answer:
        try:
            size = int(fields.get("limit", "100"))
            start = _start_of(fields["cursor"]) if fields.get("cursor") else 0
            query = _query(fields, ("district", "use", "postcode", "assessed_from", "assessed_to"))
        except ValueError:
            return _refused(400, "cursor or a number is not usable")
        if not 1 <= size <= MOST_A_PAGE:
            return _refused(400, f"limit must be 1 to {MOST_A_PAGE}")
        total, end = len(self._finder.matching(query, self.version)), start + size
        onward = f'"next": "{_cursor(end)}", ' if end < total else ""
        hits = self._hits(query, start, size, county=True)
        matched = total + self.habits.overstated
        return _json_answer(f'{{"results": [{hits}], "page": {{{onward}"matched": {matched}}}}}')

    def _hits(self, query: Query, start: int, size: int, *, county: bool) -> str:
        version = self.version
        return ", ".join(
            self._hit(number, version, county) for number in self._finder.slice(query, version, start, size)
        )

    def _hit_text(self, number: int, version: int, county: bool) -> str:
        home = self.land.home(number, version)
        return json.dumps(county_hit(home) if county else hit_of(home), ensure_ascii=False)


def _cursor(start: int) -> str:
    return base64.urlsafe_b64encode(f"after {start}".encode()).decode()


def _start_of(cursor: str) -> int:
    """Raises ValueError for what is no cursor of ours."""
    word, _, start = base64.urlsafe_b64decode(cursor).decode().partition(" ")
    if word != "after":
        raise ValueError(cursor)
    return int(start)


def _query(fields: Mapping[str, str], names: Sequence[str]) -> Query:
    """From parameters of these names. Several values are divided by commas. Raises ValueError."""
    towns, types, zips = (tuple(part for part in fields.get(name, "").split(",") if part) for name in names[:3])
    lowest, highest = (int(fields[name]) if fields.get(name) else None for name in names[3:])
    return Query(towns, types or ("villa", "condo"), zips, lowest, highest)


def _unknown_fields(number: int, answer: Mapping[str, Any]) -> dict[str, Any]:
    """As an API that grows: some at the top, one within a list."""
    for building in answer.get("buildings", ())[:1]:
        building["solarPanels"] = number % 30
    return {"floodRisk": {"level": number % 4, "source": "DMI"}, "viewsToday": None}


def _json_answer(text: str) -> Answer:
    return Answer(200, text.encode(), JSON_TYPE)


def _refused(status: int, said: str) -> Answer:
    return Answer(status, json.dumps({"error": said}).encode(), JSON_TYPE)
