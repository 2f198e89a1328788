"""What is known of a document once it was looked at: plain values that cross process borders as JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tasks.records import Reason

BILEVEL_FILTERS = frozenset({"ccitt", "jbig2"})


@dataclass(frozen=True, slots=True)
class PageFacts:
    """One page as a reader sees it: crop box, rotation and user unit applied.

    width_pt, height_pt  points, 1/72 inch (ISO 32000-1, 14.11.2)
    images               images drawn, inline ones and those inside form XObjects included
    bilevel_pixels       pixels of the one-bit images drawn; optimising must not lose any of them
    text                 text is shown, visible or as an invisible OCR layer
    """

    width_pt: float
    height_pt: float
    images: int = 0
    bilevel_pixels: int = 0
    text: bool = False


@dataclass(frozen=True, slots=True)
class PdfFacts:
    """A document that passed the ladder (`tasks.pdf_ladder.inspect`).

    pages          None when a password is needed to count them
    layout         one entry for each page
    image_filters  encoding (ccitt, jbig2, jpeg, jpx, lossless) -> images drawn with it
    damaged        readable only after repair, or with streams that do not decode
    encrypted      a password to open it, or restrictions by its owner
    signed         carries a digital signature, which any rewrite would break
    structure      parts that Ghostscript redraws or drops: form, layers, attachments, annotations
    warnings       of the reader; at most 20 of 200 characters
    """

    kind: Literal["pdf", "tiff"]
    size_bytes: int
    sha256: str
    pages: int | None
    layout: tuple[PageFacts, ...] = ()
    image_filters: Mapping[str, int] = field(default_factory=dict)
    damaged: bool = False
    encrypted: bool = False
    signed: bool = False
    structure: tuple[str, ...] = ()
    page_mismatch: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def note(self) -> Reason | None:
        """The remark a stored document carries in its row; the gravest one when there are several."""
        if self.damaged:
            return Reason.DAMAGED
        if self.encrypted:
            return Reason.ENCRYPTED
        return Reason.PAGE_MISMATCH if self.page_mismatch else None

    @property
    def has_text(self) -> bool:
        """Any page shows text."""
        return any(page.text for page in self.layout)

    @property
    def all_bilevel(self) -> bool:
        """There are images, and every one is CCITT or JBIG2: Ghostscript could only make them larger."""
        return bool(self.image_filters) and BILEVEL_FILTERS.issuperset(self.image_filters)

    def to_json(self) -> dict[str, Any]:
        """Values that `json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PdfFacts:
        """The reverse of `to_json`."""
        layout = tuple(PageFacts(**page) for page in values["layout"])
        listed = {name: tuple(values[name]) for name in ("structure", "warnings")}
        return cls(**{**values, **listed, "layout": layout})


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
