"""The store door: finished objects go to a folder (`file:///...`) or a bucket (`gs://...`)."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from tasks.errors import ConfigurationError
from tasks.store_objects import SOURCE_SHA256, Store, StoredObject, check_key

__all__ = ["SOURCE_SHA256", "Store", "StoredObject", "check_key", "document_key", "open_store"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def open_store(url: str, *, uploaders: int = 8) -> Store:
    """The store at `url`: `file:///absolute/folder` (made when missing) or `gs://bucket/prefix`.

    uploaders  threads that will store at the same time; as many connections to the bucket are kept open

    With `STORAGE_EMULATOR_HOST` set, `gs://` means that server and no credentials are used. A bucket is first
    spoken to by `check()` or by the first object. Raises ConfigurationError for an address, folder or
    credentials that cannot work.
    """
    parts = _split(url)
    if parts.scheme == "file":
        from tasks.store_local import LocalStore

        return LocalStore(Path(unquote(parts.path)))
    from tasks.store_gcs import GcsStore  # half a second of imports that a folder does not need

    return GcsStore(parts.netloc, parts.path.strip("/"), uploaders=uploaders)


def document_key(book: int, page: int, document_type: str | None) -> str:
    """`documents/{historical|mid-early|mid-recent}/{type}/{book:04d}-{page:04d}.pdf` of one document."""
    era = "historical" if book < 238 else "mid-early" if book < 1000 else "mid-recent"
    return f"documents/{era}/{_slug(document_type or '')}/{book:04d}-{page:04d}.pdf"


def listed_key(name: str, document_type: str | None) -> str:
    """`documents/direct/{type}/{name}.pdf` of a listed file that has no book and page; `name` is a plain word."""
    return f"documents/direct/{_slug(document_type or '')}/{_slug(name)}.pdf"


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:80].rstrip("-") or "unknown"


def _split(url: str) -> SplitResult:
    """The address in parts, if a store can have it. Never repeats an address that holds a password."""
    try:
        parts = urlsplit(url)
        shown = repr(url) if "@" not in url else "the address given (it holds a user or password)"
    except ValueError:
        parts, shown = SplitResult("", "", "", "", ""), repr(url)
    plain = not parts.query and not parts.fragment
    if parts.scheme == "file" and parts.path.startswith("/") and parts.netloc in ("", "localhost") and plain:
        return parts
    if parts.scheme == "gs" and _BUCKET.fullmatch(parts.netloc) and plain and _clean_prefix(parts.path):
        return parts
    raise ConfigurationError(f"{shown} is no store; use file:///absolute/folder or gs://bucket/prefix.")


def _clean_prefix(path: str) -> bool:
    prefix = path.strip("/")
    return not prefix or all(part not in ("", ".", "..") for part in prefix.split("/"))
