"""What differs from county to county: paths, form fields, selectors, column headings, book ranges.

The defaults describe the `duprocess` county. Another county is a TOML or JSON file naming only what differs:

    [duprocess]
    path = "records/find.php"
    results = "table.hits"
    [duprocess.labels]
    grantee = ""            # this portal does not show it
    [[ranges]]
    adapter = "duprocess"
    first = 1
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from selectolax.lexbor import LexborHTMLParser, SelectolaxError

from tasks.profile_files import checked, read_profile

DEFAULT_NAME = "duprocess"

_FORM = (
    *("grantor", "doc_type", "book", "bpage", "month", "day", "year", "thru_month", "thru_day", "thru_year"),
    *("section", "township", "range", "code", "lot", "iyear", "instrument"),
)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Labels(_Model):
    """The portal's words for what a record shows; an empty one means that it does not show it."""

    instrument: str = "Instrument"
    book: str = "Book"
    page: str = "Page"
    document_type: str = "Type"
    grantor: str = "Grantor"
    grantee: str = "Grantee"
    image: str = Field(default="Image", min_length=1, description="the cell with the link to the document")


class LookUp(_Model):
    """One form of the portal and the page it answers."""

    path: str = Field(description="relative to the portal's address")
    method: Literal["GET", "POST"] = "GET"
    fields: dict[str, str] = Field(default_factory=dict, description="form fields sent as they are")
    asks: dict[str, str] = Field(min_length=1, description="form field -> column of the index row it takes")
    results: str = Field(description="CSS selector of the table or list with the records")
    no_results: str = Field(default="#no-results", description="CSS selector of the words for nothing found")
    sealed_text: str = Field(default="SEALED", min_length=1, description="what stands in place of the link")
    labels: Labels = Labels()

    @field_validator("results", "no_results")
    @classmethod
    def _is_selector(cls, selector: str) -> str:
        try:
            LexborHTMLParser("<p></p>").css_first(selector)
        except SelectolaxError as exc:
            raise ValueError(f"{selector!r} is not a CSS selector") from exc
        return selector


class Direct(_Model):
    """Rows that name their file themselves."""

    url_template: str = Field(
        default="", description="for rows without source_url, e.g. files/{book:04d}-{page:04d}.pdf"
    )

    @field_validator("url_template")
    @classmethod
    def _names_columns(cls, template: str) -> str:
        for _, name, spec, conversion in string.Formatter().parse(template):
            if name is not None and (not name.isidentifier() or "{" in (spec or "") or conversion):
                raise ValueError(f"{{{name}}} is not a column's name with at most a format")
        return template


class BookRange(_Model):
    """Books `first` to `last`, both included, are found by `adapter`."""

    adapter: Literal["duprocess", "historical", "direct"]
    first: int = Field(ge=1)
    last: int | None = Field(default=None, ge=1, description="unset: all later books")

    @model_validator(mode="after")
    def _in_order(self) -> BookRange:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last is {self.last}, before first, which is {self.first}")
        return self

    def holds(self, book: int) -> bool:
        """Whether `book` lies in this range."""
        return self.first <= book and (self.last is None or book <= self.last)


class PortalProfile(_Model):
    """A county's portal. Rows whose `source` names no adapter go by `ranges`; other books are left out."""

    portal_url: str = Field(default="", description="http or https address; paths are relative to it")
    duprocess: LookUp = LookUp(
        path="search.php",
        fields={**dict.fromkeys(_FORM, ""), "do_search": "Search"},
        asks={"instrument": "instrument_number"},
        results="table#results",
    )
    historical: LookUp = LookUp(
        path="historical.php",
        asks={"book": "book", "page": "page"},
        results="dl#record",
        labels=Labels(instrument=""),
    )
    direct: Direct = Direct()
    ranges: tuple[BookRange, ...] = (
        BookRange(adapter="historical", first=1, last=237),
        BookRange(adapter="duprocess", first=238, last=3971),
    )

    @model_validator(mode="before")
    @classmethod
    def _over_the_defaults(cls, given: Any) -> Any:
        """A county's file names only what differs; the rest of a look-up stays as it is here."""
        if not isinstance(given, dict):
            return given
        defaults = {name: cls.model_fields[name].default for name in ("duprocess", "historical")}
        merged = {
            name: _merged(default.model_dump(), given[name])
            for name, default in defaults.items()
            if isinstance(given.get(name), dict)
        }
        return {**given, **merged}

    @field_validator("portal_url")
    @classmethod
    def _is_base(cls, url: str) -> str:
        if not url:
            return url
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it is not an http or https address")
        last = parts.path.rpartition("/")[2]
        path = parts.path if "." in last else parts.path.rstrip("/") + "/"
        return parts._replace(path=path, query="", fragment="").geturl()


def load_profile(path_or_name: str | Path | None = None, portal_url: str | None = None) -> PortalProfile:
    """The profile of a county: the built-in `duprocess`, or a .toml or .json file.

    `portal_url`, when given, stands above the file's. Raises ConfigurationError in one sentence.
    """
    given = {}
    if path_or_name not in (None, "", DEFAULT_NAME):
        given = read_profile(Path(str(path_or_name)), "portal profile", f"use {DEFAULT_NAME!r}")
    if portal_url:
        given = {**given, "portal_url": portal_url}
    return checked(PortalProfile, given, f"portal profile {path_or_name or DEFAULT_NAME}")


def _merged(default: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`given` over `default`; of nested settings only labels are merged, forms are replaced whole."""
    merged = {**default, **given}
    if isinstance(given.get("labels"), dict):
        merged["labels"] = {**default["labels"], **given["labels"]}
    return merged
