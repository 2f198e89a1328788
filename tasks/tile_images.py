"""Is what a tile server sent a tile? The picture's own bytes decide, never the status or the content type.

Called for every download, so nothing is decoded that need not be: the container is walked
(`tasks.tile_containers`), and only a picture small enough to be of one colour is looked into, once.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from PIL import Image

from tasks.errors import ConfigurationError, ItemError, TerminalError, TransientError
from tasks.records import Reason
from tasks.tile_containers import kind_of, read_frame
from tasks.tile_frames import MAX_PIXELS, Kind, damaged
from tasks.tile_png import has_broken_chunk, shows_two_colours

VERDICTS_KEPT = 4096
"""Small pictures whose blankness is remembered, 150 bytes each: a layer repeats the same few."""

_SHORTEST_BYTES = 16
"""No picture of any kind is shorter."""

_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_TEXT_TYPES = ("html", "json", "xml", "text/")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PILLOW_NAMES: dict[Kind, str] = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "avif": "AVIF", "gif": "GIF"}


class TileFacts(NamedTuple):
    """A tile that may be stored.

    kind    png, jpg, webp, avif or gif, by its bytes
    blank   of a single colour, or one of the known blank ones. Wholly transparent is a single colour, but without
            `decode` different colours hidden in the pixels of a PNG are not looked through. What a coarse lossy
            WebP makes of a single colour has specks of others: name its hash among the known ones
    sha256  of the body, hexadecimal
    """

    kind: Kind
    blank: bool
    size_bytes: int
    sha256: str

    @property
    def extension(self) -> str:
        """Of its file name, without the dot."""
        return self.kind


def verify(
    body: bytes, content_type: str | None, *, decode: bool = False, blanks: Collection[str] = frozenset()
) -> TileFacts:
    """Check one tile as downloaded. `content_type` is only heard where the bytes are no picture.

    decode  look at every pixel and, of a PNG, every checksum (1 ms instead of 10 us). Wrong bits inside a JPEG
            scan are not always seen: libjpeg makes the best of them
    blanks  SHA-256 of tiles that count as blank whatever they show; see `known_blanks`

    Raises TransientError (empty, html_error_page, truncated) or TerminalError (wrong_type, damaged, too_large).
    """
    kind = kind_of(body)
    if kind is None or len(body) < _SHORTEST_BYTES:
        raise _no_picture(body, content_type)
    frame = read_frame(kind, body)
    sha256 = hashlib.sha256(body).hexdigest()
    blank = sha256 in blanks
    if decode:
        blank = _look(kind, body) or blank
    elif frame.may_be_blank and not blank:
        blank = _verdicts.of(sha256, kind, body)
    return TileFacts(kind, blank, len(body), sha256)


def known_blanks(hashes: Iterable[str]) -> frozenset[str]:
    """The configured hashes of blank tiles, for `verify`. Raises ConfigurationError for what is no SHA-256."""
    known = frozenset(text.strip().lower() for text in hashes)
    for text in known:
        if not _SHA256.fullmatch(text):
            message = f"{text!r} is not the SHA-256 of a blank tile; give 64 hexadecimal digits (sha256sum FILE)."
            raise ConfigurationError(message)
    return known


class _Verdicts:
    """Whether small pictures are blank, by content; the least used are forgotten. Safe for threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, bool] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, sha256: str, kind: Kind, body: bytes) -> bool:
        """The verdict; two threads that ask for a new one at the same time both decode."""
        with self._lock:
            if sha256 in self._known:
                self._known.move_to_end(sha256)
                return self._known[sha256]
        blank = not (kind == "png" and shows_two_colours(body)) and _look(kind, body, checksums=False)
        with self._lock:
            self._known[sha256] = blank
            if len(self._known) > VERDICTS_KEPT:
                self._known.popitem(last=False)
        return blank


_verdicts = _Verdicts()


def _look(kind: Kind, body: bytes, *, checksums: bool = True) -> bool:
    """Decode the whole picture; whether it is of one colour. Raises TerminalError(damaged)."""
    if checksums and kind == "png" and has_broken_chunk(body):
        raise damaged(kind)
    try:
        with Image.open(io.BytesIO(body), formats=[_PILLOW_NAMES[kind]]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError("larger than its container said")
            image.load()
            return not getattr(image, "is_animated", False) and _is_one_colour(image)
    except Exception as exc:  # Pillow's readers raise almost anything at bytes that make no sense
        raise damaged(kind) from exc


def _is_one_colour(image: Image.Image) -> bool:
    if image.mode in ("P", "PA", "LA"):
        image = image.convert("RGBA")  # two entries of a palette may be of the same colour
    ranges: Any = image.getextrema()
    bands: tuple[Any, ...] = ranges if isinstance(ranges[0], tuple) else (ranges,)
    if image.mode == "RGBA" and bands[3] == (0, 0):
        return True  # wholly transparent, whatever the colours behind
    return all(low == high for low, high in bands)


def _no_picture(body: bytes, content_type: str | None) -> ItemError:
    if not body:
        return TransientError(Reason.EMPTY, "The server sent nothing at all; it is tried again later.")
    text = _BINARY.search(body, 0, 512) is None
    if len(body) < _SHORTEST_BYTES and (not text or body.startswith((b"GIF8", b"RIFF"))):
        return TransientError(Reason.TRUNCATED, f"Only {len(body)} bytes of a picture came; it is tried again later.")
    if text or any(word in (content_type or "").lower() for word in _TEXT_TYPES):
        said = f"The server sent {_sort_of_text(body)} instead of a picture; it is tried again later."
        return TransientError(Reason.HTML_ERROR_PAGE, said)
    said = f"What came is no PNG, JPEG, WebP, AVIF or GIF (it begins {body[:8].hex(' ')}); check the address."
    return TerminalError(Reason.WRONG_TYPE, said)


def _sort_of_text(body: bytes) -> str:
    """A name for it. Its words stay out of messages: servers repeat keys in them."""
    head = body[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"serviceexception" in head or b"exceptionreport" in head:
        return "a WMS service exception"
    if head.startswith((b"{", b"[")):
        return "JSON"
    if head.startswith(b"<?xml"):
        return "XML"
    return "an HTML page" if head.startswith(b"<") else "text"
