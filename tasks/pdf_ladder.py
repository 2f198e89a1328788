"""Is this file the document that was asked for, whole and readable? And its lossless rewrite.

The ladder, each rung with its own reason: bytes = Content-Length, not empty, magic, strict open, encrypted,
pages, warnings. pikepdf holds the GIL for seconds, so flows reach these through `tasks.pdf.PdfWorkers`.
"""

from __future__ import annotations

import mmap
import re
import warnings as python_warnings
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pikepdf

from tasks.errors import TerminalError, TransientError
from tasks.partials import PartialFile
from tasks.pdf_facts import PageFacts, PdfFacts, sha256_of
from tasks.pdf_pages import ODD, PageReader, is_signed, structure_of
from tasks.records import Reason
from tasks.tiff import TIFF_MAGIC, count_pages

_HEAD_BYTES = 1024  # readers look for %PDF- this far in (ISO 32000-1, annex H 3.4.1)
_TAIL_BYTES = 1024  # and for %%EOF this far from the end
_MAX_WARNINGS, _MAX_WARNING_CHARS = 20, 200
_HTML = re.compile(
    rb"\A[\s\xef\xbb\xbf]*(<\?xml.*?\?>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body|script|title)\b",
    re.I | re.S,
)
_BINARY = re.compile(rb"[\0-\x08\x0e-\x1f]")
_OBJECT = re.compile(rb"\d\s+\d+\s+obj\b")
# Warnings that mean content is lost or garbled; others (a wrong object count, say) harm nobody.
_SERIOUS = re.compile(
    r"error decoding|expected .* obj|not found in file|ignoring|treating .* as empty|recovered stream"
    r"|missing|cannot be|input stream is complete but"  # the last: zlib data without its end
)
_LOST_PAGE = "ages tree includes non-dictionary"  # qpdf corrects /Count, but says so


def inspect(
    path: Path,
    *,
    declared_bytes: int | None,
    expected_pages: int | None,
    keep_page_mismatch: bool = False,
    check_streams: bool = True,
) -> PdfFacts:
    """Climb the ladder and tell what the file is.

    declared_bytes      Content-Length; None when the server did not say
    expected_pages      page count of the index; None when unknown
    keep_page_mismatch  True: a different page count is noted, not refused
    check_streams       False: images are not decoded (40 ms for a grey page), as for what we made ourselves

    Raises TransientError (truncated, empty, html_error_page, wrong_type, spool_lost) when fetching again may
    help, TerminalError (damaged, page_mismatch, wrong_type) when it will not.
    """
    try:
        size, head = path.stat().st_size, _head(path)
    except FileNotFoundError as exc:
        raise TransientError(Reason.SPOOL_LOST, f"{path.name} is gone from the spool; fetch it again.") from exc
    _require_bytes(path, size, declared_bytes)
    if b"%PDF-" in head:
        facts = _inspect_pdf(path, size, head, check_streams)
    elif head.startswith(TIFF_MAGIC):
        facts = PdfFacts("tiff", size, sha256_of(path), count_pages(path))
    else:
        raise _not_a_document(path, head)
    return _with_expected_pages(facts, expected_pages, keep_page_mismatch)


def lossless_rewrite(source: Path, destination: Path) -> None:
    """Save the PDF with object streams and Flate compressed again; images and content stay bit for bit.

    `destination` is written atomically. Raises TerminalError(damaged) when the source cannot be read,
    OutsideUnreachable when the disk is full.
    """
    saved = BytesIO()
    try:
        with pikepdf.open(source, attempt_recovery=False) as pdf:
            pdf.save(
                saved,
                object_stream_mode=pikepdf.ObjectStreamMode.generate,
                recompress_flate=True,
                deterministic_id=True,
            )
    except ODD as exc:
        raise _damaged(source, exc) from exc
    with PartialFile(destination) as part:
        part.write(saved.getvalue())
        part.finish()


def _require_bytes(path: Path, size: int, declared_bytes: int | None) -> None:
    if declared_bytes is not None and size != declared_bytes:
        message = f"{path.name} has {size} bytes where the server announced {declared_bytes}; fetch it again."
        raise TransientError(Reason.TRUNCATED, message)
    if size == 0:
        raise TransientError(Reason.EMPTY, f"{path.name} is empty; fetch it again.")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _not_a_document(path: Path, head: bytes) -> Exception:
    if _HTML.match(head):
        message = f"{path.name} is an HTML page, not a document; look at the portal and fetch it again."
        return TransientError(Reason.HTML_ERROR_PAGE, message)
    if not _BINARY.search(head):
        message = f"{path.name} is text ({head[:40]!r}), not a document; look at the portal and fetch it again."
        return TransientError(Reason.WRONG_TYPE, message)
    message = f"{path.name} is neither PDF nor TIFF (it begins {head[:8].hex(' ')}); only these can be stored."
    return TerminalError(Reason.WRONG_TYPE, message)


def _with_expected_pages(facts: PdfFacts, expected: int | None, keep: bool) -> PdfFacts:
    if expected is None or facts.pages is None or facts.pages == expected:
        return facts
    if not keep:
        message = f"The document has {facts.pages} page(s) where the index says {expected}"
        raise TerminalError(Reason.PAGE_MISMATCH, f"{message}; compare it with the book.")
    return replace(facts, page_mismatch=True)


def _inspect_pdf(path: Path, size: int, head: bytes, check_streams: bool) -> PdfFacts:
    whole_until, junk = _end_of_pdf(path)
    linearized = re.search(rb"/Linearized\b.{0,200}?/L\s+(\d+)", head, re.S)
    if _OBJECT.search(junk) or (linearized and size < int(linearized[1])):
        raise _truncated(path)
    repaired = False
    try:
        pdf = pikepdf.open(path, attempt_recovery=False)
    except pikepdf.PasswordError:
        return PdfFacts("pdf", size, sha256_of(path), None, encrypted=True)
    except ODD as exc:
        pdf, repaired = _recover(path, whole_until, len(junk), exc), True
    with pdf:
        return _facts(pdf, path, size, repaired=repaired, check_streams=check_streams)


def _end_of_pdf(path: Path) -> tuple[int, bytes]:
    """Offset behind the last %%EOF (0 when there is none), and what follows it.

    Objects behind it are an update that was cut off; the revision before it opens without complaint.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = data.rfind(b"%%EOF")
        return (end + 5, data[end + 5 :]) if end >= 0 else (0, data[-_TAIL_BYTES:])


def _recover(path: Path, whole_until: int, junk_bytes: int, cause: Exception) -> pikepdf.Pdf:
    """Open what qpdf can repair, unless its end never arrived.

    qpdf happily rebuilds a file cut in the middle: all pages, images gone. So without %%EOF near the end, the
    bytes up to the last %%EOF must be a sound PDF of their own (a portal that appends its footer).
    """
    try:
        if whole_until == 0 or junk_bytes > _TAIL_BYTES:
            pikepdf.open(BytesIO(path.read_bytes()[:whole_until]), attempt_recovery=False).close()
    except ODD:
        raise _truncated(path) from cause
    try:
        return pikepdf.open(path)
    except pikepdf.PasswordError:
        message = f"{path.name} is encrypted and damaged; ask the county for another copy."
        raise TerminalError(Reason.DAMAGED, message) from cause
    except ODD as exc:
        raise _damaged(path, exc) from exc


def _facts(pdf: pikepdf.Pdf, path: Path, size: int, *, repaired: bool, check_streams: bool) -> PdfFacts:
    try:
        problems = _page_tree_warnings(pdf, path)
        signed, structure = is_signed(pdf), structure_of(pdf)
    except ODD as exc:
        raise _damaged(path, exc) from exc
    layout, filters, unread = _read_pages(pdf)
    found = _check(pdf) if check_streams else [str(text) for text in pdf.get_warnings()]
    problems = [_tidy(text, path) for text in [*problems, *found, *unread]]
    return PdfFacts(
        kind="pdf",
        size_bytes=size,
        sha256=sha256_of(path),
        pages=len(layout),
        layout=layout,
        image_filters=filters,
        damaged=repaired or any(_SERIOUS.search(text) for text in problems),
        encrypted=pdf.is_encrypted,
        signed=signed,
        structure=structure,
        warnings=tuple(problems[:_MAX_WARNINGS]),
    )


def _page_tree_warnings(pdf: pikepdf.Pdf, path: Path) -> list[str]:
    """Warnings so far. Refuses a document that has no pages, or fewer than its page tree names."""
    pages = len(pdf.pages)
    warnings = [str(text) for text in pdf.get_warnings()]
    if pages == 0 or any(_LOST_PAGE in text for text in warnings):
        message = f"{path.name} lost pages ({pages} can be read); ask the county for another copy."
        raise TerminalError(Reason.DAMAGED, message)
    return warnings


def _read_pages(pdf: pikepdf.Pdf) -> tuple[tuple[PageFacts, ...], dict[str, int], list[str]]:
    reader = PageReader()
    layout = tuple(reader.read(page, number) for number, page in enumerate(pdf.pages, start=1))
    return layout, dict(reader.filters), reader.problems


def _check(pdf: pikepdf.Pdf) -> list[str]:
    """Decode every stream that qpdf can (Flate, JPEG, ...; not CCITT or JBIG2) and collect its warnings."""
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # "missing some specialized decoders (probably jbig2dec)"
        try:
            found: list[Any] = pdf.check_pdf_syntax()
        except ODD as exc:
            found = [f"streams cannot be checked: {exc}"]
    return [str(text) for text in found]


def _tidy(text: str, path: Path) -> str:
    words = text.removeprefix("WARNING: ").replace(str(path), "").strip(" :,")
    return words[:_MAX_WARNING_CHARS]


def _truncated(path: Path) -> TransientError:
    return TransientError(Reason.TRUNCATED, f"{path.name} ends before its PDF does; fetch it again.")


def _damaged(path: Path, exc: Exception) -> TerminalError:
    message = f"{path.name} cannot be read ({_tidy(str(exc), path)}); ask the county for another copy."
    return TerminalError(Reason.DAMAGED, message)
