"""The PDF door. Parsing happens in worker processes, so pikepdf is never imported here.

`PdfWorkers` climbs the validation ladder (`tasks.pdf_ladder`), makes TIFF into PDF (`tasks.tiff`) and
rewrites without loss; `PdfFacts` is what it tells of a document.
"""

from __future__ import annotations

from tasks.pdf_facts import PageFacts, PdfFacts, sha256_of
from tasks.pdf_workers import PdfWorkers

__all__ = ["PageFacts", "PdfFacts", "PdfWorkers", "sha256_of"]
