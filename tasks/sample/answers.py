"""What the sample portal answers to a request, and what it answers when a fault makes it lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from tasks.sample import markup
from tasks.sample.binding import damaged, locked
from tasks.sample.corpus import Corpus, Document, Oddity
from tasks.sample.faults import FaultKind
from tasks.sample.scans import PDF_TYPE

HTML_TYPE = "text/html; charset=utf-8"
JSON_TYPE = "application/json"
_IMAGE_FACTOR, _IMAGE_OFFSET = 7919, 100_003


class Request(NamedTuple):
    """A parsed request: path without query, the fields of query and form together, headers by small name."""

    method: str
    path: str
    fields: dict[str, str]
    headers: Mapping[str, str]


class Target(NamedTuple):
    """What a request is after: a lookup, a file or a page, and of which document (None: of none we have)."""

    on: str
    document: int | None


@dataclass(slots=True)
class Answer:
    """Status, body and headers. Content-Length is the server's business."""

    status: int
    body: bytes
    media_type: str = HTML_TYPE
    headers: dict[str, str] = field(default_factory=dict)


def parse_request(method: str, target: str, form: bytes, headers: Mapping[str, str]) -> Request:
    """Request line and urlencoded body to a Request; later fields win, form over query."""
    parts = urlsplit(target)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    if form:
        pairs += parse_qsl(form.decode("utf-8", "replace"), keep_blank_values=True)
    return Request(method, parts.path, dict(pairs), headers)


class Office:
    """The recorder's office: finds the document a request is after, and answers."""

    takes_long = True

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def find(self, request: Request) -> Target:
        """Cheap; done before any fault is decided."""
        fields = request.fields
        match request.path:
            case "/search.php":
                return Target("lookup", self._find_instrument(fields))
            case "/historical.php":
                return Target("lookup", self._find_place("historical", fields.get("book"), fields.get("page")))
            case "/historical-image.php":
                return Target("file", self._find_place("historical", fields.get("book"), fields.get("page")))
            case "/pdf-records.php":
                return Target("file", self._find_image(fields.get("image", "")))
            case path if path.startswith("/files/"):
                name = path.removeprefix("/files/")
                found = self.corpus.find_file(name)
                return Target("file", self.corpus.find_file(unquote(name)) if found is None else found)
        return Target("page", None)

    def answer(self, request: Request, target: Target, fault: FaultKind | None) -> Answer:
        """The answer. May draw a scan (5-300 ms), so it runs beside the event loop."""
        if fault is FaultKind.HTML:
            return _html_error(target)
        if fault is FaultKind.JSON:
            return json_error()
        if target.on == "file":
            return self._file(target.document, fault)
        if request.path == "/search.php":
            return _html(self._search(request, target.document, wrong_book=fault is FaultKind.WRONG_BOOK))
        if request.path == "/historical.php":
            return _html(self._historical(target.document, wrong_book=fault is FaultKind.WRONG_BOOK))
        return self._page(request.path)

    def _find_instrument(self, fields: dict[str, str]) -> int | None:
        instrument = fields.get("instrument", "").strip()
        if instrument:
            return self._listed(self.corpus.find_instrument(instrument))
        return self._find_place("duprocess", fields.get("book"), fields.get("bpage"))

    def _find_place(self, source: str, book: str | None, page: str | None) -> int | None:
        numbers = [text.strip() for text in (book or "", page or "")]
        if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in numbers):
            return None
        return self._listed(self.corpus.find_book_page(source, int(numbers[0]), int(numbers[1])))

    def _find_image(self, image: str) -> int | None:
        if not (image.isascii() and image.isdigit() and len(image) < 20):
            return None
        number, rest = divmod(int(image), _IMAGE_FACTOR)
        number -= _IMAGE_OFFSET
        return number if rest == 0 and 0 <= number < len(self.corpus) else None

    def _listed(self, number: int | None) -> int | None:
        """Documents that the index has and the portal has not are not found by any look-up."""
        if number is None or self.corpus.document(number).oddity is Oddity.NOT_FOUND:
            return None
        return number

    def _search(self, request: Request, number: int | None, *, wrong_book: bool) -> str:
        if number is None:
            asked = any(request.fields.get(name, "").strip() for name in request.fields if name != "do_search")
            return markup.search_results([]) if asked else markup.search_form()
        document = self.corpus.document(number)
        place, image = _shown(document, wrong_book=wrong_book), image_id(number)
        rows = [markup.result_row(document, place, image)]
        rows += [markup.result_row(document, place, image, swapped=True)] * (number % 3)
        if document.oddity is Oddity.RERECORDED:
            other = image_id((number + 1) % len(self.corpus))
            rows.insert(0, markup.result_row(document, (document.book + 3, document.page), other))
        return markup.search_results(rows)

    def _historical(self, number: int | None, *, wrong_book: bool) -> str:
        if number is None:
            return markup.historical_record(None)
        document = self.corpus.document(number)
        return markup.historical_record(document, _shown(document, wrong_book=wrong_book))

    def _file(self, number: int | None, fault: FaultKind | None) -> Answer:
        document = None if number is None else self.corpus.document(number)
        if document is None or document.oddity in (Oddity.NOT_FOUND, Oddity.SEALED):
            return _html(markup.error_page("Not found", "There is no such image."), status=404)
        if document.oddity is Oddity.HTML_PAGE:
            return _html_error(Target("file", document.number))
        if fault is FaultKind.EMPTY:
            return Answer(200, b"", PDF_TYPE)
        scan = self.corpus.scan(document)
        if scan.media_type == PDF_TYPE and fault is FaultKind.DAMAGED:
            return Answer(200, damaged(scan.content), PDF_TYPE)
        if scan.media_type == PDF_TYPE and fault is FaultKind.ENCRYPTED:
            return Answer(200, locked(scan.content), PDF_TYPE)
        return Answer(200, scan.content, scan.media_type)

    def _page(self, path: str) -> Answer:
        if path == "/":
            return _html(markup.home(self.corpus))
        if path == "/robots.txt":
            return Answer(200, b"User-agent: *\nAllow: /\nCrawl-delay: 1\n", "text/plain; charset=utf-8")
        return _html(markup.error_page("Not found", "There is no such page."), status=404)


def json_error() -> Answer:
    """An error as JSON that calls itself a success."""
    return Answer(200, b'{"error": {"code": 500, "message": "Internal error"}}', JSON_TYPE)


def image_id(number: int) -> str:
    """The opaque ID an image link carries."""
    return str((number + _IMAGE_OFFSET) * _IMAGE_FACTOR)


def _shown(document: Document, *, wrong_book: bool) -> tuple[int, int]:
    return (document.book * 10, document.page) if wrong_book else (document.shown_book, document.shown_page)


def _html(text: str, status: int = 200) -> Answer:
    return Answer(status, text.encode())


def _html_error(target: Target) -> Answer:
    """An error page that calls itself a success, and for every other document even a PDF."""
    if target.on != "file":
        return _html(markup.error_page("Session expired", "Your session has expired. Please sign in again."))
    text = markup.error_page("Error", "Fatal error: Allowed memory size exhausted in pdf-records.php on line 118")
    return Answer(200, text.encode(), PDF_TYPE if (target.document or 0) % 2 else HTML_TYPE)
