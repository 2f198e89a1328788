"""What differs from register to register, as configuration: addresses, parameters, paging, names of fields.

A profile is a TOML or JSON file; `boligsiden` and `sample-county` come with the package (`tasks/register_profiles`).
It says how to search, where to fetch one property, and which field of the answer is which column:

    source = "my-register"
    api_url = "https://api.example.org/"
    [search]
    path = "search/addresses"
    ...
    [tables.registrations]
    rows = "registrations"                  # where the rows are in the answer; left out: the property itself
    [tables.registrations.columns]
    registration_id = "registrationID"      # a path within the row, see tasks/register_fields.py
    municipality_code = "^municipality.code"
    date = { path = "recorded", written = "%d/%m/%Y" }
"""

from __future__ import annotations

import os
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from tasks.errors import ConfigurationError
from tasks.profile_files import checked, read_profile
from tasks.register_fields import Model, PlainPath, TableSource, check_tables, suggested


class Paging(Model):
    """How the pages of a search follow one another: they are counted, or each names the next.

    parameter  takes the page's number (the first is `first`) or the cursor
    size       hits a page, asked for by `size_parameter`
    next       path: where an answer names the next cursor
    """

    kind: Literal["page", "cursor"]
    parameter: str = Field(min_length=1)
    first: int = 1
    size_parameter: str = Field(min_length=1)
    size: int = Field(ge=1)
    next: PlainPath = ""

    @model_validator(mode="after")
    def _names_the_next(self) -> Self:
        if (self.kind == "cursor") != bool(self.next):
            raise ValueError("a cursor goes with `next`, and `next` with a cursor")
        return self


class Search(Model):
    """How properties are found.

    items, id    paths: the hits in an answer, and the property's id in a hit
    total        path: how many hits the query has; empty when the register does not say
    cap          hits that one query delivers at the most
    past_end     statuses that mean "there is no such page"
    parameters   sent with every search
    filters      what a search is narrowed by -> its parameter; two parameters for a band, both ends included
    values       paths: where a hit says its own value of a filter
    partition    the filters by which a search over the cap is divided, in this order
    """

    path: str = Field(min_length=1)
    items: PlainPath
    id: PlainPath = Field(min_length=1)
    total: PlainPath = ""
    cap: int | None = Field(default=None, ge=1)
    past_end: tuple[int, ...] = ()
    parameters: dict[str, str] = Field(default_factory=dict)
    filters: dict[str, str | tuple[str, str]]
    values: dict[str, PlainPath] = Field(default_factory=dict)
    partition: tuple[str, ...] = ()
    paging: Paging

    @model_validator(mode="after")
    def _counts_where_it_must(self) -> Self:
        if not self.total and (self.cap is not None or self.paging.kind == "page"):
            raise ValueError("a cap, and pages that are counted, need `total`: the path of how many hits there are")
        return self

    @model_validator(mode="after")
    def _filters_are_known(self) -> Self:
        for name in (*self.values, *self.partition):
            if name not in self.filters:
                raise ValueError(f"there is no filter {name!r}; {suggested(name, self.filters)}")
        for needed in ("municipality", "address_type"):
            if not isinstance(self.filters.get(needed), str):
                raise ValueError(f"the filters need {needed!r} with one parameter: every run asks by it")
        return self


class Detail(Model):
    """How one property is fetched: a path with {id}, and where in the answer the property is."""

    path: str = Field(pattern=r"\{id\}")
    record: PlainPath = ""


class ApiKey(Model):
    """A header that takes the key kept in an environment variable."""

    header: str = Field(min_length=1)
    environment: str = Field(pattern=r"^LANDRECORDS_[A-Z0-9_]+$")
    prefix: str = ""


def _base(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("it is no http or https address, or has a query")
    return parts._replace(path=parts.path.rstrip("/") + "/").geturl()


class RegisterProfile(Model):
    """A register.

    source     its name in the rows: a table may hold several registers
    id_prefix  put before its ids where those of two registers might be the same
    requests_per_second   the dial that a run starts with when nobody gave one
    ignored    fields that are neither kept nor counted as unknown: paths, with [] behind a list
    """

    source: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    about: str = ""
    api_url: Annotated[str, AfterValidator(_base)]
    id_prefix: str = Field(default="", pattern=r"^[\w.:-]{0,40}$")
    requests_per_second: float = Field(default=10.0, gt=0)
    headers: dict[str, str] = Field(default_factory=dict)
    key: ApiKey | None = None
    search: Search
    detail: Detail
    tables: Annotated[dict[str, TableSource], AfterValidator(check_tables)]
    ignored: tuple[str, ...] = ()

    def request_headers(self, key: str | None = None) -> dict[str, str]:
        """The headers of every request, the key among them: the one given, else that of the environment.

        Raises ConfigurationError where one is wanted and there is none, and the other way round.
        """
        if self.key is None:
            if key:
                raise ConfigurationError(f"the profile {self.source} says no header for a key; add [key] to it.")
            return dict(self.headers)
        secret = (key or os.environ.get(self.key.environment, "")).strip()
        if not secret:
            raise ConfigurationError(f"the register {self.source} wants a key; set {self.key.environment} to it.")
        return {**self.headers, self.key.header: self.key.prefix + secret}


def load_register(name_or_path: str | Path, api_url: str | None = None) -> RegisterProfile:
    """The profile of that name, or of a .toml or .json file. `api_url`, when given, stands above the file's.

    Raises ConfigurationError in one sentence.
    """
    given = _read(str(name_or_path))
    if api_url:
        given = {**given, "api_url": api_url}
    return checked(RegisterProfile, given, f"register profile {name_or_path}")


def shipped_registers() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = resources.files("tasks").joinpath("register_profiles")
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def _read(name: str) -> dict[str, Any]:
    shipped = shipped_registers()
    if name not in shipped:
        return read_profile(Path(name), "register profile", suggested(name, shipped))
    file = resources.files("tasks").joinpath("register_profiles", f"{name}.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))
