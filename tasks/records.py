"""The words every floor shares: statuses, outcomes, reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field


class Status(StrEnum):
    """Where an item stands in one step. Each member says who puts a row there and who takes it out."""

    PENDING = "pending"
    """Put by: import, a retryable failure, a release, `landrecords retry`. Taken by: a claim."""

    IN_PROGRESS = "in_progress"
    """Put by: a claim. Taken by: settle, release, or any claim once the lease has lapsed."""

    COMPLETED = "completed"
    """Put by: settle, after the file or object is durable. Taken by: an explicit command only."""

    FAILED = "failed"
    """Put by: settle, when trying again is pointless or attempts ran out. Taken by: `landrecords retry`."""

    SKIPPED = "skipped"
    """Put by: settle, when there is rightly nothing to do. Taken by: an explicit command only."""


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.SKIPPED})

MAX_ATTEMPTS = 5


class Reason(StrEnum):
    """Why an item is not simply completed. Stored in `<step>_reason`, counted in every report."""

    # what the server sent
    HTML_ERROR_PAGE = "html_error_page"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    WRONG_TYPE = "wrong_type"
    TOO_LARGE = "too_large"
    # what the document is
    DAMAGED = "damaged"
    ENCRYPTED = "encrypted"
    PAGE_MISMATCH = "page_mismatch"
    BOOK_PAGE_MISMATCH = "book_page_mismatch"
    # what the portal says
    NOT_FOUND = "not_found"
    SEALED = "sealed"
    PORTAL_ERROR = "portal_error"
    OUT_OF_RANGE = "out_of_range"
    # how the conversation went
    HTTP_ERROR = "http_error"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    # our side
    BAD_ROW = "bad_row"
    SPOOL_LOST = "spool_lost"
    STORE_ERROR = "store_error"
    STORE_CONFLICT = "store_conflict"
    INTERNAL = "internal"
    # why a document was stored without Ghostscript (optimize step)
    NOT_SMALLER = "not_smaller"
    LOSSLESS_ONLY = "lossless_only"
    TEXT_LAYER = "text_layer"
    SIGNED = "signed"
    GS_FAILED = "gs_failed"
    GS_TIMEOUT = "gs_timeout"
    GS_CHANGED = "gs_changed"
    OPTIMISE_OFF = "optimise_off"
    # what a tile is
    MISSING = "missing"
    BLANK = "blank"
    UNCHANGED = "unchanged"
    # what a photo is
    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    # what an SFTP server says
    PERMISSION_DENIED = "permission_denied"
    SFTP_ERROR = "sftp_error"
    # what a register's answer holds
    MALFORMED_JSON = "malformed_json"
    MISSING_FIELD = "missing_field"
    BAD_DATE = "bad_date"
    BAD_NUMBER = "bad_number"
    BAD_TEXT = "bad_text"
    DUPLICATE_KEY = "duplicate_key"
    TOO_DEEP = "too_deep"
    OTHER_ITEM = "other_item"
    REFUSED = "refused"
    # what a workflow's data are
    BAD_GEOMETRY = "bad_geometry"
    OUTSIDE_CRS = "outside_crs"
    INACCURATE = "inaccurate"
    CONTRACT = "contract"
    UNWRITABLE = "unwritable"
    # what became of a query of a search
    DIVIDED = "divided"
    FELL_SHORT = "fell_short"
    # what became of a workflow's node
    CONFIGURATION = "configuration"
    KILLED = "killed"


ItemId = int | str
"""What names an item: a number of the database's, or a text of the source's own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one claimed item; `Page.settle` writes it to the row.

    status       completed, failed, skipped, or pending for "again later"
    retry_in_s   for pending: seconds before the row is due again; None lets the backoff decide
    costs_attempt  False for a 429: the server's patience is not the item's fault
    values       further columns of the row, by name
    """

    id: ItemId
    status: Status
    reason: str | None = None
    error: str | None = None
    retry_in_s: float | None = None
    costs_attempt: bool = True
    values: dict[str, Any] = field(default_factory=dict)


class RunReport(BaseModel):
    """What a run did, counted from the table it wrote. Returned by every flow.

    counts       status -> items this run took; every status is present
    failures     reason -> items, of the failed ones
    steps        step -> status -> items this run took
    notes        reason -> items, of those that completed with a remark (mismatch, damaged, not smaller)
    shortfalls   what there must be and could not be found, a sentence each: no items, so no count shows it
    facts        what only this workload has to tell, by name
    """

    workload: str
    run_id: str
    seconds: float = 0.0
    counts: dict[str, int] = Field(default_factory=lambda: {str(s): 0 for s in Status})
    failures: dict[str, int] = Field(default_factory=dict)
    steps: dict[str, dict[str, int]] = Field(default_factory=dict)
    notes: dict[str, int] = Field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    items_per_second: float = 0.0
    dry_run: bool = False
    estimate: dict[str, Any] = Field(default_factory=dict)
    shortfalls: list[str] = Field(default_factory=list)
    facts: dict[str, Any] = Field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when everything this run took is done, 1 when some items failed, wait, were left at work or not found."""
        left = any(self.counts.get(s, 0) for s in (Status.FAILED, Status.PENDING, Status.IN_PROGRESS))
        return 1 if left or self.shortfalls else 0
