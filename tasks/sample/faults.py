"""How a sample server misbehaves, as data; `tasks.sample.fault_policy` decides which request is hit.

Which documents or tiles a fault hits follows from the seed alone; how often is counted, so a fault heals after `times`
requests for the same one or, with `times` null, never does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import ConfigurationError


class FaultKind(StrEnum):
    """What goes wrong. The words are those of the JSON form and of the request log."""

    TOO_MANY = "too_many"
    """429, with Retry-After."""
    UNAVAILABLE = "unavailable"
    """503, with Retry-After when `retry_after_s` is given."""
    SERVER_ERROR = "server_error"
    """500 with an HTML page."""
    RESET = "reset"
    """The connection is reset instead of an answer."""
    RESET_MIDWAY = "reset_midway"
    """The connection is reset in the middle of the body."""
    STALL = "stall"
    """Nothing is sent for `seconds`; then the connection is closed."""
    STALL_MIDWAY = "stall_midway"
    """The body stops in the middle for `seconds`; then the connection is closed."""
    SLOW = "slow"
    """The right answer, `seconds` later."""
    TRUNCATED = "truncated"
    """Content-Length is right, the body ends early, the connection is closed."""
    WRONG_LENGTH = "wrong_length"
    """Content-Length names less than the document: what arrives is a prefix that looks complete."""
    CHUNKED_CUT = "chunked_cut"
    """Chunked, no length; closed without the last chunk."""
    UNBOUNDED_CUT = "unbounded_cut"
    """No length at all, ended by closing the connection: only the file itself shows that it is cut."""
    JSON = "json"
    """200 with an error as JSON."""
    EMPTY = "empty"
    """200 with no body."""
    HTML = "html"
    """200 with an HTML error page; half of the documents say it is application/pdf, half of the tiles a picture."""
    ENCRYPTED = "encrypted"
    """The file arrives locked with a password."""
    DAMAGED = "damaged"
    """A PDF arrives with a broken cross-reference table, a tile with wrong bits, JSON without its end."""
    WRONG_BOOK = "wrong_book"
    """The look-up names ten times the book."""


class Fault(BaseModel):
    """One rule: what happens, to which requests, how often.

    on         look-ups, files, or any request
    share      part of the documents, by hash; shares of a set's rules do not overlap
    documents  or these documents, by number (tiles by `tile_contents.tile_number`; they count as files)
    every      or each n-th request; with `lasts_s`, everything for that long from there on
    starts_s, lasts_s   or everything in a window counted from when the set was switched on
    times      for share and documents: requests per document until it heals; None: never
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    on: Literal["any", "lookup", "file"] = "any"
    share: float = Field(default=0.0, ge=0, le=1)
    documents: tuple[int, ...] = ()
    every: int | None = Field(default=None, ge=1)
    starts_s: float = Field(default=0.0, ge=0)
    lasts_s: float | None = Field(default=None, gt=0)
    times: int | None = Field(default=1, ge=1)
    retry_after_s: float | None = Field(default=None, ge=0)
    retry_after_as: Literal["seconds", "date"] = "seconds"
    seconds: float = Field(default=30.0, ge=0, description="how long a stall or a slow answer takes")
    cut_at: float = Field(default=0.5, gt=0, lt=1, description="part of the body that is sent before it breaks")

    @model_validator(mode="after")
    def _hits_something(self) -> Self:
        if not (self.share or self.documents or self.every or self.lasts_s):
            raise ValueError("give share, documents, every or lasts_s")
        return self


class Outage(BaseModel):
    """The whole portal is away for a while, counted from when the set was switched on.

    how   refuse: connections are refused and open ones reset; reset: accepted, then reset
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    starts_s: float = Field(default=0.0, ge=0)
    lasts_s: float = Field(gt=0)
    how: Literal["refuse", "reset"] = "refuse"


class Faults(BaseModel):
    """A set of faults. `max_requests_per_second`: one more within any second is answered 429."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "custom"
    latency_ms: float = Field(default=0.0, ge=0)
    jitter_ms: float = Field(default=0.0, ge=0, description="up to this much more, by chance")
    max_requests_per_second: float | None = Field(default=None, gt=0)
    rules: tuple[Fault, ...] = ()
    outages: tuple[Outage, ...] = ()

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if sum(rule.share for rule in self.rules) > 1:
            raise ValueError("the shares of all rules together must not exceed 1")
        return self


NONE = Faults(name="none")

DEMO = Faults(
    name="demo",
    rules=(
        Fault(kind=FaultKind.TOO_MANY, share=0.01, retry_after_s=1),
        Fault(kind=FaultKind.UNAVAILABLE, share=0.03, times=2),
        Fault(kind=FaultKind.RESET, share=0.02, on="file"),
        Fault(kind=FaultKind.TRUNCATED, share=0.03, on="file"),
        Fault(kind=FaultKind.CHUNKED_CUT, share=0.01, on="file"),
        Fault(kind=FaultKind.HTML, share=0.02, on="file"),
        Fault(kind=FaultKind.SLOW, share=0.02, seconds=0.5),
    ),
)
"""Mild: one document in seven fails once or twice and then heals; nothing waits longer than a second."""

NASTY = Faults(
    name="nasty",
    latency_ms=5,
    jitter_ms=20,
    rules=(
        Fault(kind=FaultKind.TOO_MANY, share=0.02, retry_after_s=1),
        Fault(kind=FaultKind.TOO_MANY, share=0.01, retry_after_s=2, retry_after_as="date"),
        Fault(kind=FaultKind.UNAVAILABLE, share=0.05, times=2),
        Fault(kind=FaultKind.UNAVAILABLE, every=150, lasts_s=1.0, retry_after_s=1),
        Fault(kind=FaultKind.SERVER_ERROR, share=0.02),
        Fault(kind=FaultKind.RESET, share=0.03, times=2),
        Fault(kind=FaultKind.RESET_MIDWAY, share=0.03, on="file"),
        Fault(kind=FaultKind.STALL, share=0.01, seconds=5),
        Fault(kind=FaultKind.STALL_MIDWAY, share=0.01, seconds=5, on="file"),
        Fault(kind=FaultKind.TRUNCATED, share=0.04, times=2, on="file"),
        Fault(kind=FaultKind.WRONG_LENGTH, share=0.02, on="file"),
        Fault(kind=FaultKind.CHUNKED_CUT, share=0.02, on="file"),
        Fault(kind=FaultKind.UNBOUNDED_CUT, share=0.02, on="file"),
        Fault(kind=FaultKind.EMPTY, share=0.02),
        Fault(kind=FaultKind.HTML, share=0.04),
        Fault(kind=FaultKind.HTML, share=0.01, times=None, on="file"),
        Fault(kind=FaultKind.ENCRYPTED, share=0.01, times=None, on="file"),
        Fault(kind=FaultKind.DAMAGED, share=0.02, times=None, on="file"),
        Fault(kind=FaultKind.WRONG_BOOK, share=0.03, times=None, on="lookup"),
    ),
    outages=(Outage(starts_s=4, lasts_s=2, how="refuse"), Outage(starts_s=12, lasts_s=1, how="reset")),
)
"""Everything at once, some of it for good, and two outages."""

_NOT_OF_TILES = (FaultKind.ENCRYPTED, FaultKind.WRONG_BOOK)
NASTY_TILES = NASTY.model_copy(
    update={
        "name": "nasty-tiles",
        "rules": (
            *(rule for rule in NASTY.rules if rule.kind not in _NOT_OF_TILES),
            Fault(kind=FaultKind.JSON, share=0.02),
            Fault(kind=FaultKind.JSON, share=0.01, times=None),
        ),
    }
)
"""The same for a tile server."""

NAMED: Mapping[str, Faults] = {faults.name: faults for faults in (NONE, DEMO, NASTY, NASTY_TILES)}


def load_faults(given: Faults | Mapping[str, Any] | str) -> Faults:
    """A set from its name, its JSON text or its JSON object. Raises ConfigurationError in one sentence."""
    if isinstance(given, Faults):
        return given
    if isinstance(given, str) and given.strip() in NAMED:
        return NAMED[given.strip()]
    try:
        return Faults.model_validate(json.loads(given) if isinstance(given, str) else given)
    except json.JSONDecodeError as exc:
        names = ", ".join(NAMED)
        raise ConfigurationError(f"there is no set of faults {given!r}; name one of {names} or give JSON.") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the set"
        raise ConfigurationError(f"{where} of the faults is not usable ({first['msg']}); correct it.") from exc
