"""Portal adapters: on a real HTTP server with the sample county's pages, and on pages that went wrong."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.downloads import HttpDoor
from tasks.errors import ConfigurationError, ItemError, SkippedItem, TerminalError, TransientError
from tasks.portal import Located, PortalProfile, adapter_for, load_profile, mismatch
from tests.fakes.http_server import Connection, RawServer, Seen, answer, redirect

HEADINGS = ("Instrument", "Book", "Page", "Type", "Grantor", "Grantee", "Image")
NONE_FOUND = '<p id="no-results">No records found.</p>'
LINK = '<a href="pdf-records.php?image=77&amp;part=1">View</a>'

MID = {"id": 9, "instrument_number": "945431", "book": 471, "page": 753, "source": "county"}
OLD = {"id": 3, "instrument_number": None, "book": 12, "page": 34, "source": "historical"}


def table(*lines: tuple[object, ...], headings: tuple[str, ...] = HEADINGS) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<table id="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def line(book: object = 471, page: object = 753, image: str = LINK, instrument: object = "945431") -> tuple:
    return (instrument, book, page, "DEED", "DOE, JOHN", "ROE &amp; SONS", image)


def record(image: str = '<a href="historical-image.php?book=12&amp;page=34">View image</a>', **cells: str) -> str:
    shown = {
        "Book": "12",
        "Page": "34",
        "Type": "PLAT",
        "Grantor": "A",
        "Grantee": "B",
        **cells,
        "Image": image,
    }
    inner = "".join(f"<dt>{name}</dt><dd>{cell}</dd>" for name, cell in shown.items())
    return f'<h1>Record</h1><dl id="record">{inner}</dl>'


@dataclass
class Page:
    url: str
    text: str


class Pages:
    """A door that always fetches the same page; keeps what it was asked."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Page:
        self.asked.append((method, url, dict(params or data or {})))
        return Page(url, f"<html><body>{self.html}</body></html>")


@pytest.fixture
def profile() -> PortalProfile:
    return load_profile(portal_url="http://portal.example/records")


def locate(html: str, row: Mapping[str, Any], profile: PortalProfile) -> Located:
    return adapter_for(row, profile).locate(row, Pages(html))


def failure(html: str, row: Mapping[str, Any], profile: PortalProfile) -> ItemError:
    with pytest.raises(ItemError) as caught:
        locate(html, row, profile)
    return caught.value


# --- over HTTP, as the sample portal serves it


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with RawServer() as running:
        yield running


def test_duprocess_takes_two_requests(server: RawServer, tmp_path: Path) -> None:
    server.on("/records/search.php", answer(200, table(line()).encode(), content_type="text/html"))
    server.on("/records/pdf-records.php", answer(200, b"%PDF-1.4"))
    turns: list[int] = []
    profile = load_profile(portal_url=server.url("/records"))
    with HttpDoor(before_request=lambda: turns.append(1)) as door:
        located = adapter_for(MID, profile).locate(MID, door)
        got = door.download(located.url, tmp_path / "a.pdf")
    assert located == Located(
        server.url("/records/pdf-records.php?image=77&part=1"), 471, 753, "DEED", "DOE, JOHN", "ROE & SONS", 1
    )
    assert got.size_bytes == 8
    assert len(turns) == len(server.seen) == 2
    form = parse_qs(server.seen[0].target.partition("?")[2], keep_blank_values=True)
    assert form.pop("instrument") == ["945431"]
    assert form.pop("do_search") == ["Search"]
    rest = "grantor doc_type book bpage month day year thru_month thru_day thru_year section township range"
    assert set(form) == {*rest.split(), "code", "lot", "iyear"}
    assert all(value == [""] for value in form.values())


def test_a_form_can_be_posted(server: RawServer) -> None:
    server.on("/search.php", answer(200, table(line()).encode()))
    profile = PortalProfile.model_validate({"portal_url": server.url(), "duprocess": {"method": "POST"}})
    with HttpDoor(before_request=lambda: None) as door:
        assert adapter_for(MID, profile).locate(MID, door).book == 471
    assert (server.seen[0].method, server.seen[0].target) == ("POST", "/search.php")
    assert b"instrument=945431" in server.seen[0].body


def test_historical_asks_by_book_and_page(server: RawServer) -> None:
    def look_up(connection: Connection, request: Seen) -> bool:
        asked = request.target == "/historical.php?book=12&page=34"
        return answer(200, (record() if asked else NONE_FOUND).encode())(connection, request)

    server.on("/historical.php", look_up)
    profile = load_profile(portal_url=server.url())
    with HttpDoor(before_request=lambda: None) as door:
        located = adapter_for(OLD, profile).locate(OLD, door)
        with pytest.raises(TerminalError) as caught:
            adapter_for(OLD, profile).locate({**OLD, "page": 35}, door)
    image = server.url("/historical-image.php?book=12&page=34")
    assert located == Located(image, 12, 34, "PLAT", "A", "B", requests=1)
    assert caught.value.reason == "not_found"


def test_links_are_relative_to_where_the_page_came_from(server: RawServer) -> None:
    server.on("/search.php", redirect("/v2/search.php"))
    server.on("/v2/search.php", answer(200, table(line()).encode()))
    with HttpDoor(before_request=lambda: None) as door:
        profile = load_profile(portal_url=server.url())
        assert adapter_for(MID, profile).locate(MID, door).url.startswith(server.url("/v2/pdf-records.php"))


def test_old_portals_write_windows_1252(server: RawServer) -> None:
    html = table(("945431", 471, 753, "DEED", "MUÑOZ", "B", LINK)).encode("cp1252")
    server.on("/search.php", answer(200, html, content_type="text/html"))
    with HttpDoor(before_request=lambda: None) as door:
        located = adapter_for(MID, load_profile(portal_url=server.url())).locate(MID, door)
    assert located.grantor == "MUÑOZ"


# --- which adapter


@pytest.mark.parametrize(
    ("source", "book", "path"),
    [
        ("county", 1, "historical.php"),
        ("county", 237, "historical.php"),
        ("county", 238, "search.php"),
        (None, 3971, "search.php"),
        ("", "471", "search.php"),
        ("Historical", 300, "historical.php"),
        (" DUPROCESS ", 12, "search.php"),
        ("duprocess", None, "search.php"),
    ],
)
def test_the_source_decides_else_the_book(profile: PortalProfile, source: str | None, book: object, path: str) -> None:
    row = {**MID, "source": source, "book": book}
    pages = Pages("")
    with pytest.raises(ItemError):
        adapter_for(row, profile).locate({**row, "book": book or 1}, pages)
    assert pages.asked[0][1] == f"http://portal.example/records/{path}"


@pytest.mark.parametrize(("source", "book"), [("county", 3972), ("county", 99999), ("duprocess", 3972)])
def test_later_books_are_left_out(profile: PortalProfile, source: str, book: int) -> None:
    with pytest.raises(SkippedItem) as caught:
        adapter_for({**MID, "source": source, "book": book}, profile)
    assert caught.value.reason == "out_of_range"
    assert str(book) in str(caught.value)


def test_direct_rows_may_have_any_book(profile: PortalProfile) -> None:
    row = {"source": "direct", "book": 5000, "source_url": "a.pdf"}
    assert adapter_for(row, profile).locate(row, Pages("")).url == "http://portal.example/records/a.pdf"


@pytest.mark.parametrize("book", [None, "", "471-A", "x", -3, "1.5"])
def test_a_row_without_book_and_source_is_bad(profile: PortalProfile, book: object) -> None:
    with pytest.raises(TerminalError) as caught:
        adapter_for({**MID, "book": book}, profile)
    assert caught.value.reason == "bad_row"


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({**MID, "instrument_number": None}, "instrument_number"),
        ({**MID, "instrument_number": "  "}, "instrument_number"),
        ({**OLD, "page": None}, "page"),
        ({**OLD, "page": 0}, "page"),
        ({**OLD, "book": None}, "book"),
    ],
)
def test_what_the_portal_is_asked_by_has_to_be_there(profile: PortalProfile, row: dict[str, Any], column: str) -> None:
    pages = Pages(NONE_FOUND)
    with pytest.raises(TerminalError) as caught:
        adapter_for(row, profile).locate(row, pages)
    assert caught.value.reason == "bad_row"
    assert column in str(caught.value)
    assert f"row {row['id']}" in str(caught.value)
    assert pages.asked == []


# --- reading the answer


def test_columns_are_found_by_their_heading(profile: PortalProfile) -> None:
    headings = ("Image", "Recorded", " GRANTEE ", "Grantor:", "type", "Page", "Book", "Instrument")
    cells = (LINK, "1971-01-02", "B", "A", "DEED", 753, 471, "945431")
    located = locate(table(cells, headings=headings), MID, profile)
    assert (located.book, located.page, located.grantor, located.grantee) == (471, 753, "A", "B")


def test_a_table_without_thead_and_with_notes(profile: PortalProfile) -> None:
    html = table(line()).replace("<thead>", "").replace("</thead>", "").replace("th>", "td>")
    html = html.replace("</tbody>", '<tr><td colspan="7">1 record</td></tr></tbody>')
    assert locate(html, MID, profile).book == 471


@pytest.mark.parametrize(
    ("lines", "image"),
    [
        ([line(4710, 753, "<a href=1>v</a>"), line(471, 753, "<a href=2>v</a>")], "2"),
        (
            [
                line(471, 75, "<a href=1>v</a>"),
                line(471, 753, "<a href=2>v</a>"),
                line(image="<a href=3>v</a>"),
            ],
            "2",
        ),
        ([line(1, 1, "<a href=1>v</a>"), line(2, 2, "<a href=2>v</a>")], "1"),
        ([line(1, 1, "<a href=1>v</a>", "9454310"), line(2, 2, "<a href=2>v</a>")], "2"),
        ([line("0471", " 753 ", "<a href=1>v</a>")], "1"),
        ([line(image="SEALED"), line(image="<a href=2>v</a>")], "2"),
    ],
    ids=["fits", "first-that-fits", "first", "instrument", "zeros", "listed-twice"],
)
def test_the_record_of_the_row_is_chosen(profile: PortalProfile, lines: list[tuple], image: str) -> None:
    assert locate(table(*lines), MID, profile).url == f"http://portal.example/records/{image}"


def test_another_book_is_located_and_a_mismatch(profile: PortalProfile) -> None:
    located = locate(table(line(4710)), MID, profile)
    assert (located.book, located.page) == (4710, 753)
    assert mismatch(MID, located)


@pytest.mark.parametrize(
    ("book", "page", "found", "differs"),
    [
        (471, 753, (471, 753), False),
        ("0471", "753", (471, 753), False),
        (471, 753, (4710, 753), True),
        (471, 753, (471, 754), True),
        (471, 753, (None, None), False),
        (471, 753, (None, 754), True),
        (None, None, (471, 753), False),
    ],
)
def test_mismatch(book: object, page: object, found: tuple[int | None, int | None], differs: bool) -> None:
    assert mismatch({"book": book, "page": page}, Located("u", *found)) is differs


@pytest.mark.parametrize("image", ["SEALED", "<i>Sealed</i> by court", '<a href="#">SEALED</a>'])
def test_sealed_is_skipped(profile: PortalProfile, image: str) -> None:
    for error in (failure(table(line(image=image)), MID, profile), failure(record(image), OLD, profile)):
        assert isinstance(error, SkippedItem)
        assert error.reason == "sealed"


def test_another_sealed_record_does_not_seal_this_one(profile: PortalProfile) -> None:
    assert locate(table(line(1, 1, "SEALED"), line()), MID, profile).book == 471
    assert isinstance(failure(table(line(1, 1), line(image="SEALED")), MID, profile), SkippedItem)


def test_nothing_found(profile: PortalProfile) -> None:
    for error in (failure(NONE_FOUND, MID, profile), failure(NONE_FOUND, OLD, profile)):
        assert isinstance(error, TerminalError)
        assert error.reason == "not_found"
    assert failure(table() + NONE_FOUND, MID, profile).reason == "not_found"


@pytest.mark.parametrize(
    "html",
    [
        "",
        "<h1>Service unavailable</h1>",
        "<p>No records found.</p>",
        "%PDF-1.4 \0\x01",
        table(),
        '<table id="results"></table>',
        table(line(), headings=("Nr", *HEADINGS[1:])),
        table(line(), headings=(*HEADINGS[:6], "Document")),
        table(line(image="")),
        table(line(image="ask at the desk")),
        table(line(image='<a href="javascript:open(7)">View</a>')),
        table(line(image='<a href="mailto:clerk@county.example">View</a>')),
        table(line(image="<a>View</a>")),
        table((1, 2, 3)),
    ],
)
def test_a_page_that_is_no_answer_is_a_portal_error(profile: PortalProfile, html: str) -> None:
    error = failure(html, MID, profile)
    assert isinstance(error, TransientError)
    assert error.reason == "portal_error"


@pytest.mark.parametrize("html", ["", '<dl id="record"></dl>', record().replace("Image", "Scan"), record("")])
def test_a_list_that_is_no_answer_is_a_portal_error(profile: PortalProfile, html: str) -> None:
    assert failure(html, OLD, profile).reason == "portal_error"


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=300))
def test_no_page_escapes_the_typed_errors(html: str) -> None:
    profile = load_profile(portal_url="http://portal.example")
    for row, page in (
        (MID, table(line(html, html, html, html))),
        (OLD, record(html, Book=html)),
        (MID, html),
    ):
        with contextlib.suppress(ItemError):
            assert locate(page, row, profile).url.startswith("http")


# --- direct


@pytest.mark.parametrize(
    ("named", "url"),
    [
        ("files/a b.pdf", "http://portal.example/records/files/a b.pdf"),
        ("/files/a.pdf", "http://portal.example/files/a.pdf"),
        ("https://other.example/a.pdf?x=1", "https://other.example/a.pdf?x=1"),
        ("//cdn.example/a.pdf", "http://cdn.example/a.pdf"),
        (" a.pdf ", "http://portal.example/records/a.pdf"),
    ],
)
def test_direct_urls(profile: PortalProfile, named: str, url: str) -> None:
    row = {"source": "direct", "source_url": named, "book": 1, "page": 1}
    pages = Pages("")
    assert adapter_for(row, profile).locate(row, pages) == Located(url)
    assert pages.asked == []


@pytest.mark.parametrize("named", [None, "", "file:///etc/passwd", "ftp://h/a", "C:\\scans\\a.pdf", "http://[x"])
def test_direct_urls_that_cannot_be(profile: PortalProfile, named: str | None) -> None:
    error = failure("", {"id": 4, "source": "direct", "source_url": named}, profile)
    assert isinstance(error, TerminalError)
    assert error.reason == "bad_row"
    assert "row 4" in str(error)
    assert "source_url" in str(error)


def test_direct_template() -> None:
    given = {
        "portal_url": "http://h/",
        "direct": {"url_template": "files/{document_type}/{book:04d}-{page:04d}.pdf?n={instrument_number}"},
    }
    profile = PortalProfile.model_validate(given)
    row = {"source": "direct", "book": 12, "page": 3, "document_type": "A B?#", "instrument_number": "1&2"}
    assert locate("", row, profile).url == "http://h/files/A%20B%3F%23/0012-0003.pdf?n=1%262"
    assert locate("", {**row, "source_url": "own.pdf"}, profile).url == "http://h/own.pdf"
    for broken in ({**row, "book": None}, {**row, "book": "x"}, {"source": "direct"}):
        assert failure("", broken, profile).reason == "bad_row"


# --- profiles


def test_another_county_names_only_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "county.toml"
    file.write_text("""
portal_url = "https://records.example/app"
[duprocess]
path = "find"
method = "POST"
fields = {kind = "all"}
asks = {nr = "instrument_number"}
results = "table.hits"
no_results = ".empty"
sealed_text = "restricted"
[duprocess.labels]
instrument = "Doc #"
grantor = ""
grantee = ""
[[ranges]]
adapter = "duprocess"
first = 10
""")
    profile = load_profile(file)
    assert profile.historical == PortalProfile().historical
    html = table(("945431", 471, 753, "DEED", LINK), headings=("Doc #", "Book", "Page", "Type", "Image")).replace(
        'id="results"', 'class="hits"'
    )
    pages = Pages(html)
    located = adapter_for(MID, profile).locate(MID, pages)
    assert located.url == "https://records.example/app/pdf-records.php?image=77&part=1"
    assert (located.book, located.grantor) == (471, None)
    assert pages.asked == [("POST", "https://records.example/app/find", {"kind": "all", "nr": "945431"})]
    assert failure('<p class="empty">-</p>', MID, profile).reason == "not_found"
    assert isinstance(failure(html.replace(LINK, "Restricted"), MID, profile), SkippedItem)
    with pytest.raises(SkippedItem):
        adapter_for({**MID, "book": 9}, profile)
    assert adapter_for({**MID, "book": 10**6}, profile)


def test_json_and_the_given_address(tmp_path: Path) -> None:
    file = tmp_path / "county.json"
    file.write_text(json.dumps({"portal_url": "http://a/", "direct": {"url_template": "{book}.pdf"}}))
    profile = load_profile(file, "http://b/x?session=1#top")
    assert profile.portal_url == "http://b/x/"
    assert load_profile(str(file)).portal_url == "http://a/"
    assert load_profile("duprocess", "http://h/search.php").portal_url == "http://h/search.php"
    assert load_profile().portal_url == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[duprocess]\nresults = '[['", "duprocess.results"),
        ("[duprocess]\nmethod = 'PUT'", "duprocess.method"),
        ("[duprocess]\nasks = {}", "duprocess.asks"),
        ("[duprocess.labels]\nimage = ''", "duprocess.labels.image"),
        ("[duprocess.labels]\nparties = 'x'", "duprocess.labels.parties"),
        ("dupprocess = 1", "dupprocess"),
        ("duprocess = 1", "duprocess"),
        ("[direct]\nurl_template = '{book'", "direct.url_template"),
        ("[direct]\nurl_template = '{book.real}'", "direct.url_template"),
        ("[direct]\nurl_template = '{book:{page}}'", "direct.url_template"),
        ("[direct]\nurl_template = '{}'", "direct.url_template"),
        ("[[ranges]]\nadapter = 'ftp'\nfirst = 1", "ranges.0.adapter"),
        ("[[ranges]]\nadapter = 'direct'\nfirst = 0", "ranges.0.first"),
        ("[[ranges]]\nadapter = 'direct'\nfirst = 9\nlast = 3", "last is 3, before first"),
        ("portal_url = 'portal.example'", "portal_url"),
        ("portal_url = ", "not valid TOML"),
    ],
)
def test_a_wrong_profile_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "county.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_profile(file)
    assert said in str(caught.value)
    assert "county.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.toml", "nowhere.json", "another-county", "county.yaml"])
def test_an_unknown_profile_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        load_profile(name)


def test_a_json_profile_must_be_an_object(tmp_path: Path) -> None:
    file = tmp_path / "county.json"
    file.write_text("[1]")
    with pytest.raises(ConfigurationError, match="object"):
        load_profile(file)


@pytest.mark.parametrize("url", ["portal.example", "ftp://h/", "http://", "/records", "http://[x"])
def test_a_wrong_portal_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="portal_url"):
        load_profile(portal_url=url)


def test_a_password_in_the_portals_address_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_profile(portal_url="ftp://me:s3cret@h/")
    assert "s3cret" not in str(caught.value)
