"""The Ghostscript door: make a document smaller where that loses nothing that matters, or leave it.

Plan before choosing, verify before keeping: gs, else a lossless rewrite, else the original. A failure of
optimisation never loses the document; the reason says why it was stored without Ghostscript.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.errors import ConfigurationError, ItemError, TransientError
from tasks.ghostscript_process import IMAGE_DPI, Ghostscript, Version, find_ghostscript, run
from tasks.partials import disk
from tasks.pdf_facts import PdfFacts
from tasks.pdf_workers import PdfWorkers
from tasks.records import Reason
from tasks.work_folders import publish, sweep_work, work_folder

__all__ = [
    "Ghostscript",
    "Optimised",
    "Plan",
    "changed",
    "find_ghostscript",
    "optimise",
    "plan",
    "run",
    "sweep_work",
    "tool_versions",
]

Method = Literal["ghostscript", "lossless", "none"]

_SIZE_TOLERANCE_PT = 1.0
# 10.00.0 to 10.02.0 corrupt existing text, OCR layers above all (OCRmyPDF refuses these for text; PR 1268)
_TEXT_BROKEN: tuple[Version, Version] = ((10, 0, 0), (10, 2, 0))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to try first, and why it is not Ghostscript."""

    method: Literal["gs", "lossless", "keep"]
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Optimised:
    """What is to be stored.

    path        the destination; for method none the source itself, and nothing was written
    reason      why it was not Ghostscript; None when it was
    gs_version  of the gs that was at hand, whatever the method
    """

    method: Method
    reason: Reason | None
    path: Path
    size_bytes: int
    sha256: str
    gs_version: str


def plan(facts: PdfFacts, release: Version) -> Plan:
    """What may be done to a document, given the release of gs. Pure."""
    untouchable = {
        Reason.WRONG_TYPE: facts.kind != "pdf",
        Reason.SIGNED: facts.signed,
        Reason.ENCRYPTED: facts.encrypted,
        Reason.DAMAGED: facts.damaged,
    }
    for reason, applies in untouchable.items():
        if applies:
            return Plan("keep", reason)
    if facts.all_bilevel or facts.structure:
        return Plan("lossless", Reason.LOSSLESS_ONLY)
    if facts.has_text and _TEXT_BROKEN[0] <= release <= _TEXT_BROKEN[1]:
        return Plan("lossless", Reason.TEXT_LAYER)
    return Plan("gs")


def optimise(
    source: Path,
    destination: Path,
    facts: PdfFacts,
    *,
    workers: PdfWorkers,
    image_dpi: int = IMAGE_DPI,
    timeout_s: float = 120.0,
    stop: threading.Event | None = None,
) -> Optimised:
    """Make `source`, of which `facts` were found, smaller at `destination`, or say that it stays.

    Never raises for a document's sake. Raises StopRequested, ConfigurationError (no gs, folder not writable),
    OutsideUnreachable (disk full), TransientError(spool_lost) when the source is not what `facts` tell of.
    """
    gs = find_ghostscript()
    _require_source(source, facts)
    chosen = plan(facts, gs.release)
    reason = chosen.reason
    if chosen.method != "keep":
        with work_folder(destination) as folder:
            ways: dict[Method, Callable[[], Path]] = {
                "ghostscript": lambda: run(gs, source, folder, image_dpi=image_dpi, timeout_s=timeout_s, stop=stop),
                "lossless": lambda: _rewritten(source, folder, workers, stop),
            }
            if chosen.method == "lossless":
                del ways["ghostscript"]
            made, reason = _first_good(ways, facts, reason, workers, stop)
            if made:
                publish(made.path, destination)
                found = made.facts
                return Optimised(made.method, reason, destination, found.size_bytes, found.sha256, gs.version)
    with disk(destination.parent):
        destination.unlink(missing_ok=True)  # an earlier attempt's
    return Optimised("none", reason, source, facts.size_bytes, facts.sha256, gs.version)


def changed(before: PdfFacts, after: PdfFacts) -> str | None:
    """What got lost on the way, in a few words; None when nothing did. Pure."""
    if after.damaged or after.encrypted:
        return "it does not read well"
    if before.pages != after.pages:
        return f"{before.pages} page(s) became {after.pages}"
    for number, (old, new) in enumerate(zip(before.layout, after.layout, strict=True), start=1):
        if max(abs(old.width_pt - new.width_pt), abs(old.height_pt - new.height_pt)) > _SIZE_TOLERANCE_PT:
            return f"page {number} has another size"
        if new.images < old.images or new.bilevel_pixels < old.bilevel_pixels:
            return f"page {number} lost an image"
        if old.text and not new.text:
            return f"page {number} lost its text"
    return None


def tool_versions(workers: PdfWorkers) -> dict[str, str]:
    """Versions of pikepdf, qpdf and img2pdf, and of ghostscript where there is one, for provenance."""
    versions = workers.versions()
    with suppress(ConfigurationError):
        versions["ghostscript"] = find_ghostscript().version
    return versions


@dataclass(frozen=True, slots=True)
class _Made:
    method: Method
    path: Path
    facts: PdfFacts


def _first_good(
    ways: dict[Method, Callable[[], Path]],
    before: PdfFacts,
    reason: Reason | None,
    workers: PdfWorkers,
    stop: threading.Event | None,
) -> tuple[_Made | None, Reason | None]:
    """The first result that may replace the original; `reason` is of the first way that did not do."""
    for method, make in ways.items():
        try:
            made = make()
            verdict = _verify(made, before, workers, stop)
        except ItemError as exc:
            verdict = Reason(exc.reason)
        if isinstance(verdict, PdfFacts):
            return _Made(method, made, verdict), reason
        reason = reason or verdict
    return None, reason


def _rewritten(source: Path, folder: Path, workers: PdfWorkers, stop: threading.Event | None) -> Path:
    made = folder / "lossless.pdf"
    workers.lossless_rewrite(source, made, stop=stop)
    return made


def _verify(made: Path, before: PdfFacts, workers: PdfWorkers, stop: threading.Event | None) -> PdfFacts | Reason:
    """Facts of what was made if it may replace the original, else the reason why not."""
    try:
        after = workers.inspect(made, declared_bytes=None, expected_pages=before.pages, check_streams=False, stop=stop)
    except ItemError:
        return Reason.GS_CHANGED
    if changed(before, after):
        return Reason.GS_CHANGED
    return after if after.size_bytes < before.size_bytes else Reason.NOT_SMALLER


def _require_source(source: Path, facts: PdfFacts) -> None:
    try:
        unchanged = source.stat().st_size == facts.size_bytes
    except FileNotFoundError:
        unchanged = False
    if not unchanged:
        message = f"{source.name} is not the file that was checked; it is fetched again."
        raise TransientError(Reason.SPOOL_LOST, message)
