"""The sample portal over real sockets: what it answers, how it misbehaves, and how it starts and ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from selectolax.lexbor import LexborHTMLParser as HTMLParser

from tasks.errors import ConfigurationError
from tasks.sample.corpus import Document, GeneratedCorpus, Oddity
from tasks.sample.folder import FolderCorpus
from tasks.sample.portal import SamplePortal

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tasks.sample.portal"]
# fmt: off
SEARCH_FIELDS = [
    "grantor", "doc_type", "book", "bpage", "month", "day", "year", "thru_month", "thru_day", "thru_year",
    "section", "township", "range", "code", "lot", "iyear", "instrument", "do_search",
]
# fmt: on

ONE_PAGE = GeneratedCorpus(200, oddities={}, distinct=4)
"""Cheap to draw; shared by the tests that only need some document."""


@pytest.fixture(scope="module")
def full() -> Iterator[SamplePortal]:
    """All kinds and oddities, no faults."""
    with SamplePortal(200) as portal:
        yield portal


@pytest.fixture
def portal() -> Iterator[SamplePortal]:
    with SamplePortal(ONE_PAGE) as portal:
        yield portal


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def first(corpus: GeneratedCorpus, source: str, oddity: Oddity | None = None) -> Document:
    documents = map(corpus.document, range(len(corpus)))
    return next(d for d in documents if d.source == source and d.oddity is oddity)


def look_up(session: requests.Session, portal: SamplePortal, instrument: str) -> HTMLParser:
    fields = dict.fromkeys(SEARCH_FIELDS, "") | {"instrument": instrument, "do_search": "1"}
    answer = session.post(f"{portal.url}/search.php", data=fields, timeout=10)
    assert answer.status_code == 200
    return HTMLParser(answer.text)


def result_rows(tree: HTMLParser) -> list[tuple[str, ...]]:
    """Text of the first six cells, and the link or text of the seventh."""
    rows = []
    for row in tree.css("table#results tbody tr"):
        cells = row.css("td")
        link = cells[6].css_first("a")
        texts = [cell.text(strip=True).replace("\xa0", "") for cell in cells]
        rows.append((*texts[:6], link.attributes["href"] if link else texts[6]))
    return rows


def file_url(portal: SamplePortal, document: Document) -> str:
    """The direct address of any document whose file name is enough, whatever its source."""
    return f"{portal.url}/files/{document.file_name}"


# --- answers ---


def test_duprocess_look_up_leads_to_the_document(full: SamplePortal, session: requests.Session) -> None:
    for number in range(4, 19):
        document = full.corpus.document(number)
        if document.oddity:
            continue
        rows = result_rows(look_up(session, full, document.instrument))
        assert rows[0][:3] == (document.instrument, str(document.book), str(document.page))
        assert rows[0][3:6] == (document.type_raw, document.grantor, document.grantee)
        assert len(rows) == 1 + number % 3
        assert len({row[6] for row in rows}) == 1
        answer = session.get(urljoin(f"{full.url}/search.php", rows[0][6]), timeout=10)
        assert answer.headers["Content-Type"] == "application/pdf"
        assert answer.headers["Content-Length"] == str(len(answer.content))
        assert answer.content == full.corpus.scan(document).content


def test_get_and_book_and_page_find_the_same(full: SamplePortal, session: requests.Session) -> None:
    document = first(full.corpus, "duprocess")
    page = look_up(session, full, document.instrument).html
    for query in ({"instrument": document.instrument}, {"book": document.book, "bpage": document.page}):
        answer = session.get(f"{full.url}/search.php", params=query | {"do_search": "1"}, timeout=10)
        assert HTMLParser(answer.text).html == page


def test_duprocess_oddities_show_as_they_do_in_the_field(full: SamplePortal, session: requests.Session) -> None:
    corpus = full.corpus
    sealed = first(corpus, "duprocess", Oddity.SEALED)
    assert result_rows(look_up(session, full, sealed.instrument))[0][6] == "SEALED"
    missing = look_up(session, full, first(corpus, "duprocess", Oddity.NOT_FOUND).instrument)
    assert missing.css_first("p#no-results").text() == "No records found."
    assert missing.css_first("table#results") is None
    moved = first(corpus, "duprocess", Oddity.BOOK_PAGE)
    row = result_rows(look_up(session, full, moved.instrument))[0]
    assert row[1:3] == (str(moved.shown_book), str(moved.shown_page)) != (str(moved.book), str(moved.page))
    twice = first(corpus, "duprocess", Oddity.RERECORDED)
    rows = result_rows(look_up(session, full, twice.instrument))
    assert rows[0][1:3] != (str(twice.book), str(twice.page)) == rows[1][1:3]
    assert rows[0][6] != rows[1][6]


def test_an_error_page_pretends_to_be_the_document(full: SamplePortal, session: requests.Session) -> None:
    numbers = range(200)
    document = next(d for d in map(full.corpus.document, numbers) if d.oddity is Oddity.HTML_PAGE)
    for _ in range(2):
        answer = session.get(file_url(full, document), timeout=10)
        assert answer.status_code == 200
        assert b"<html" in answer.content


def test_historical_look_up_leads_to_pdf_or_tiff(full: SamplePortal, session: requests.Session) -> None:
    magics = set()
    for number in range(200):
        document = full.corpus.document(number)
        if document.source != "historical" or document.oddity:
            continue
        place = {"book": document.book, "page": document.page}
        answer = session.get(f"{full.url}/historical.php", params=place, timeout=10)
        record = HTMLParser(answer.text).css_first("dl#record")
        items = dict(zip((t.text() for t in record.css("dt")), record.css("dd"), strict=True))
        assert [items[name].text() for name in ("Book", "Page", "Type", "Grantor", "Grantee")] == [
            *map(str, place.values()), document.type_raw, document.grantor, document.grantee,
        ]  # fmt: skip
        image = session.get(urljoin(answer.url, items["Image"].css_first("a").attributes["href"]), timeout=10)
        assert image.content == full.corpus.scan(document).content
        magics.add((image.headers["Content-Type"], image.content[:4]))
    assert magics == {("application/pdf", b"%PDF"), ("image/tiff", b"II*\0")}


def test_historical_books_have_no_other_pages(full: SamplePortal, session: requests.Session) -> None:
    for place in (
        {"book": 9999, "page": 1},
        {"book": "x", "page": 1},
        {"book": 3},
        {"book": "²", "page": "1"},
    ):
        answer = session.get(f"{full.url}/historical.php", params=place, timeout=10)
        assert HTMLParser(answer.text).css_first("p#no-results") is not None
        assert session.get(f"{full.url}/historical-image.php", params=place, timeout=10).status_code == 404


def test_index_rows_lead_to_direct_files(full: SamplePortal, session: requests.Session) -> None:
    rows = [row for row in full.index_rows() if row["source"] == "direct"]
    assert len(rows) == 10
    for row in rows:
        number = full.corpus.find_file(row["source_url"].removeprefix("files/"))
        assert number is not None
        document = full.corpus.document(number)
        answer = session.get(urljoin(full.url, row["source_url"]), timeout=10)
        assert answer.status_code == (404 if document.oddity is Oddity.NOT_FOUND else 200)
        if not document.oddity:
            assert answer.content == full.corpus.scan(document).content


def test_people_get_a_page_with_working_links(full: SamplePortal, session: requests.Session) -> None:
    tree = HTMLParser(session.get(full.url, timeout=10).text)
    links = [urljoin(full.url, link.attributes["href"]) for link in tree.css("tbody a")]
    assert len(links) == 20
    assert all(session.get(link, timeout=10).ok for link in links[:6])
    assert {form.attributes["action"] for form in tree.css("form")} == {"/search.php", "/historical.php"}
    assert "User-agent" in session.get(f"{full.url}/robots.txt", timeout=10).text
    empty = HTMLParser(session.get(f"{full.url}/search.php", timeout=10).text)
    assert empty.css_first("table#results, p#no-results") is None


@pytest.mark.parametrize("path", ["/nothing", "/files/", "/files/%2e%2e/x.pdf", "/pdf-records.php?image=7919"])
def test_what_is_not_there_is_404(portal: SamplePortal, session: requests.Session, path: str) -> None:
    assert session.get(portal.url + path, timeout=10).status_code == 404


def test_folder_is_served(tmp_path: Path, session: requests.Session) -> None:
    content = ONE_PAGE.scan(ONE_PAGE.document(5)).content
    (tmp_path / "deed of trust.pdf").write_bytes(content)
    with SamplePortal(FolderCorpus(tmp_path)) as portal:
        row = next(portal.index_rows())
        assert session.get(urljoin(portal.url, row["source_url"]), timeout=10).content == content
    with SamplePortal(FolderCorpus(tmp_path, "duprocess")) as portal:
        link = result_rows(look_up(session, portal, next(portal.index_rows())["instrument_number"]))[0][6]
        assert session.get(urljoin(portal.url, link), timeout=10).content == content


# --- HTTP ---


def test_one_connection_serves_many_requests(portal: SamplePortal, session: requests.Session) -> None:
    for _ in range(5):
        session.get(portal.url, timeout=10)
    assert len(portal.requests) == 5
    assert portal.connections == 1
    assert session.get(f"{portal.url}/__status", timeout=10).json()["connections_total"] == 1


def test_stopping_with_a_connection_open_says_nothing(
    session: requests.Session, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with SamplePortal(ONE_PAGE, faults={"rules": [{"kind": "stall", "every": 2}]}) as portal:
        assert session.get(portal.url, timeout=10).ok
        with pytest.raises(requests.ReadTimeout):
            requests.get(portal.url, timeout=0.2)
        assert portal.connections >= 1
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_the_log_tells_what_happened(portal: SamplePortal, session: requests.Session) -> None:
    document = first(ONE_PAGE, "direct")
    before = time.time()
    portal.faults = {"rules": [{"kind": "unavailable", "documents": [document.number]}]}
    session.get(file_url(portal, document), timeout=10)
    answer = session.get(file_url(portal, document), timeout=10)
    failed, served = portal.requests
    assert (failed.status, failed.fault, failed.document) == (503, "unavailable", document.number)
    assert (served.status, served.fault, served.sent) == (200, None, len(answer.content))
    assert served.path == f"/files/{document.file_name}"
    assert before <= failed.at <= served.at <= time.time()
    assert failed.monotonic <= served.monotonic <= time.monotonic()


def test_head_has_a_length_and_no_body(portal: SamplePortal) -> None:
    connection = http.client.HTTPConnection(urlsplit(portal.url).netloc, timeout=10)
    connection.request("HEAD", f"/files/{first(ONE_PAGE, 'direct').file_name}")
    answer = connection.getresponse()
    assert int(answer.headers["Content-Length"]) > 10_000
    assert answer.read() == b""
    connection.request("GET", "/robots.txt")
    assert connection.getresponse().read().startswith(b"User-agent")
    connection.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"A" * 70_000,
        b"\x16\x03\x01",
    ],
)
def test_what_is_no_http_ends_the_connection_and_nothing_else(
    portal: SamplePortal, session: requests.Session, raw: bytes
) -> None:
    with socket.create_connection(_address(portal), timeout=10) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        assert _read_all(connection) == b""
    assert session.get(portal.url, timeout=10).ok


def test_connection_close_is_honoured(portal: SamplePortal) -> None:
    for request in (
        b"GET /robots.txt HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /robots.txt HTTP/1.0\r\n\r\n",
    ):
        with socket.create_connection(_address(portal), timeout=10) as connection:
            connection.sendall(request)
            assert _read_all(connection).endswith(b"Crawl-delay: 1\n")


# --- faults ---


def _address(portal: SamplePortal) -> tuple[str, int]:
    parts = urlsplit(portal.url)
    return str(parts.hostname), int(parts.port or 0)


def _read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        return received
    return received


def raw_get(portal: SamplePortal, path: str, timeout_s: float = 10) -> tuple[bytes, bytes, bool]:
    """Head, body as sent, and whether the connection ended in a reset."""
    received, was_reset = b"", False
    try:
        with socket.create_connection(_address(portal), timeout=timeout_s) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            while part := connection.recv(65536):
                received += part
    except ConnectionResetError:
        was_reset = True
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body, was_reset


def broken_get(portal: SamplePortal, kind: str, **options: object) -> tuple[bytes, bytes, bool, bytes]:
    """`raw_get` of a document that a fault hits once, and its true content."""
    document = first(ONE_PAGE, "direct")
    portal.faults = {"rules": [{"kind": kind, "documents": [document.number], **options}]}
    got = raw_get(portal, f"/files/{document.file_name}")
    healed = raw_get(portal, f"/files/{document.file_name}")
    truth = ONE_PAGE.scan(document).content
    assert healed[1] == truth
    assert [record.fault for record in portal.requests[-2:]] == [kind, None]
    return *got, truth


def test_reset_answers_nothing(portal: SamplePortal) -> None:
    head, body, was_reset, _ = broken_get(portal, "reset")
    assert (head, body, was_reset) == (b"", b"", True)
    assert portal.requests[0].status == 0


def test_reset_midway_breaks_the_body(portal: SamplePortal) -> None:
    _, body, was_reset, truth = broken_get(portal, "reset_midway", cut_at=0.25)
    assert was_reset
    assert truth.startswith(body)
    assert len(body) < len(truth)


def test_truncated_promises_more_than_it_sends(portal: SamplePortal) -> None:
    head, body, was_reset, truth = broken_get(portal, "truncated", cut_at=0.75)
    assert f"Content-Length: {len(truth)}".encode() in head
    assert body == truth[: int(len(truth) * 0.75)]
    assert not was_reset


def test_wrong_length_promises_less_than_the_document(portal: SamplePortal) -> None:
    head, body, _, truth = broken_get(portal, "wrong_length")
    assert f"Content-Length: {len(truth) // 2}".encode() in head
    assert body == truth


def test_chunked_cut_lacks_the_last_chunk(portal: SamplePortal) -> None:
    head, body, _, _ = broken_get(portal, "chunked_cut")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert not body.endswith(b"0\r\n\r\n")
    document = first(ONE_PAGE, "direct")
    portal.faults = {"rules": [{"kind": "chunked_cut", "documents": [document.number]}]}
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(file_url(portal, document), timeout=10)


def test_unbounded_cut_shows_only_in_the_file(portal: SamplePortal) -> None:
    head, body, was_reset, truth = broken_get(portal, "unbounded_cut")
    assert b"Content-Length" not in head
    assert b"Connection: close" in head
    assert body == truth[: len(truth) // 2]
    assert not was_reset


@pytest.mark.parametrize(("kind", "seen"), [("stall", b""), ("stall_midway", b"HTTP/1.1 200 OK")])
def test_stall_says_no_more(portal: SamplePortal, kind: str, seen: bytes) -> None:
    document = first(ONE_PAGE, "direct")
    portal.faults = {"rules": [{"kind": kind, "documents": [document.number], "seconds": 30}]}
    with socket.create_connection(_address(portal), timeout=0.4) as connection:
        connection.sendall(f"GET /files/{document.file_name} HTTP/1.1\r\n\r\n".encode())
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
            pytest.fail("the connection was closed before the client gave up")
        except TimeoutError:
            pass
    assert received.startswith(seen)
    assert len(received) < len(ONE_PAGE.scan(document).content)
    _wait_until(lambda: portal.connections == 0)  # it notices that the client has given up


def test_stall_ends_by_itself(portal: SamplePortal) -> None:
    head, body, was_reset, _ = broken_get(portal, "stall", seconds=0.2)
    assert (head, body, was_reset) == (b"", b"", False)


def test_slow_is_late_and_right(portal: SamplePortal) -> None:
    started = time.monotonic()
    _, body, _, truth = broken_get(portal, "slow", seconds=0.4)
    assert time.monotonic() - started >= 0.4
    assert body == truth


def test_empty_and_html_say_200(portal: SamplePortal) -> None:
    head, body, _, _ = broken_get(portal, "empty")
    assert head.startswith(b"HTTP/1.1 200")
    assert body == b""
    portal.faults = {"rules": [{"kind": "html", "share": 1, "times": None}]}
    types = set()
    for number in (19, 38):
        head, body, _ = raw_get(portal, f"/files/{ONE_PAGE.document(number).file_name}")
        assert b"<html" in body
        types.add(b"application/pdf" in head)
    assert types == {True, False}
    assert b"session has expired" in raw_get(portal, "/search.php?instrument=" + ONE_PAGE.document(5).instrument)[1]


def test_encrypted_and_damaged_arrive_changed(portal: SamplePortal) -> None:
    _, locked, _, truth = broken_get(portal, "encrypted")
    assert b"/Encrypt" in locked
    assert b"/Encrypt" not in truth
    _, damaged, _, truth = broken_get(portal, "damaged")
    assert damaged.startswith(b"%PDF")
    assert damaged != truth


def test_wrong_book_is_ten_times_the_book(portal: SamplePortal, session: requests.Session) -> None:
    document = first(ONE_PAGE, "duprocess")
    portal.faults = {"rules": [{"kind": "wrong_book", "share": 1, "times": 1, "on": "lookup"}]}
    shown = [result_rows(look_up(session, portal, document.instrument))[0][1] for _ in range(2)]
    assert shown == [str(document.book * 10), str(document.book)]


def test_retry_after_in_seconds_and_as_a_date(portal: SamplePortal, session: requests.Session) -> None:
    url = file_url(portal, first(ONE_PAGE, "direct"))
    portal.faults = {"rules": [{"kind": "too_many", "share": 1, "retry_after_s": 3}]}
    answer = session.get(url, timeout=10)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    rule = {"kind": "unavailable", "share": 1, "retry_after_s": 30, "retry_after_as": "date"}
    portal.faults = {"rules": [rule]}
    answer = session.get(url, timeout=10)
    wait_s = parsedate_to_datetime(answer.headers["Retry-After"]).timestamp() - portal.requests[-1].at
    assert answer.status_code == 503
    assert 30 <= wait_s < 32
    portal.faults = {"rules": [{"kind": "server_error", "share": 1}]}
    answer = session.get(url, timeout=10)
    assert answer.status_code == 500
    assert "Retry-After" not in answer.headers
    assert session.get(url, timeout=10).status_code == 200


def test_a_server_that_counts_refuses_what_is_too_much(portal: SamplePortal, session: requests.Session) -> None:
    portal.faults = {"max_requests_per_second": 5}
    statuses = [session.get(f"{portal.url}/robots.txt", timeout=10).status_code for _ in range(20)]
    accepted = [record.monotonic for record in portal.requests if record.status == 200]
    assert statuses[:5] == [200] * 5
    assert 429 in statuses
    assert all(later - earlier >= 0.99 for earlier, later in zip(accepted, accepted[5:], strict=False))


def test_an_outage_refuses_and_then_the_same_port_answers(portal: SamplePortal, session: requests.Session) -> None:
    assert session.get(portal.url, timeout=10).ok
    portal.go_down(0.5)
    assert portal.connections == 0 or _wait_until(lambda: portal.connections == 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(_address(portal), timeout=5)
    _wait_until(lambda: _connects(portal))
    assert session.get(portal.url, timeout=10).ok


def test_an_outage_can_reset_instead(portal: SamplePortal) -> None:
    portal.go_down(30, how="reset")
    assert raw_get(portal, "/")[2]
    portal.faults = "none"  # a new set ends the outage
    assert raw_get(portal, "/")[0].startswith(b"HTTP/1.1 200")


def test_outages_of_a_set_come_in_their_time(portal: SamplePortal) -> None:
    portal.faults = {"outages": [{"starts_s": 0.2, "lasts_s": 0.3}, {"starts_s": 0.3, "lasts_s": 0.6}]}
    assert raw_get(portal, "/")[0].startswith(b"HTTP/1.1 200")
    _wait_until(lambda: not _connects(portal))
    _wait_until(lambda: _connects(portal))
    assert raw_get(portal, "/")[0].startswith(b"HTTP/1.1 200")


def test_a_portal_that_is_down_still_stops() -> None:
    with SamplePortal(ONE_PAGE) as portal:
        portal.go_down(60)
    assert not _connects(portal)


def _connects(portal: SamplePortal) -> bool:
    try:
        socket.create_connection(_address(portal), timeout=5).close()
    except ConnectionError:
        return False
    return True


def _wait_until(condition: object, timeout_s: float = 10) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return True


def test_faults_are_switched_over_http(portal: SamplePortal, session: requests.Session) -> None:
    control = f"{portal.url}/__faults"
    assert session.post(control, data="nasty", timeout=10).json()["faults"]["name"] == "nasty"
    assert portal.faults.name == "nasty"
    bad = session.post(control, data='{"rules": [{"kind": "explode", "share": 1}]}', timeout=10)
    assert (bad.status_code, "rules.0.kind" in bad.text) == (400, True)
    assert session.post(control, json={"max_requests_per_second": 1}, timeout=10).ok
    assert session.get(control, timeout=10).json()["faults"]["max_requests_per_second"] == 1
    assert session.get(f"{portal.url}/__other", timeout=10).status_code == 404
    assert portal.requests == []


def test_latency_is_kept_through_a_change_of_faults(session: requests.Session) -> None:
    with SamplePortal(ONE_PAGE, latency_ms=150) as portal:
        portal.faults = "demo"
        started = time.monotonic()
        session.get(portal.url, timeout=10)
        assert time.monotonic() - started >= 0.15


def test_every_document_of_the_demo_is_had_in_three_attempts(session: requests.Session) -> None:
    with SamplePortal(ONE_PAGE, faults="demo") as portal:
        numbers = range(19, 200, 20)
        portal.faults = portal.faults.model_copy(
            update={"rules": tuple(r.model_copy(update={"share": r.share * 7}) for r in portal.faults.rules)}
        )
        for document in map(ONE_PAGE.document, numbers):
            assert ONE_PAGE.scan(document).content in [_content(session, portal, document) for _ in range(3)]
        assert any(record.fault for record in portal.requests)


def _content(session: requests.Session, portal: SamplePortal, document: Document) -> bytes:
    try:
        return session.get(file_url(portal, document), timeout=10).content
    except requests.RequestException:
        return b""


# --- as a process ---


def started(*arguments: str | Path) -> tuple[subprocess.Popen[str], dict[str, object]]:
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def ended(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(how)
    code = process.wait(timeout=10)
    assert process.stdout is not None
    process.stdout.close()
    return code


def test_process_announces_logs_and_stops_on_sigterm(tmp_path: Path, session: requests.Session) -> None:
    log, index = tmp_path / "log.jsonl", tmp_path / "index.csv"
    process, ready = started("--documents", "60", "--no-oddities", "--log", log, "--index-out", index)
    try:
        assert ready["pid"] == process.pid
        assert ready["documents"] == 60
        assert index.read_text().count("duprocess,") == 45
        assert session.get(f"{ready['url']}/robots.txt", timeout=10).ok
        _wait_until(lambda: log.read_text())
        assert ended(process) == 0  # though the session still holds its connection
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((urlsplit(str(ready["url"])).hostname, urlsplit(str(ready["url"])).port))
    finally:
        process.kill()
    (line,) = log.read_text().splitlines()
    record = json.loads(line)
    assert (record["method"], record["path"], record["status"]) == ("GET", "/robots.txt", 200)


def test_process_dies_with_its_parent() -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'tasks.sample.portal',"
        " '--die-with-parent'], stdout=subprocess.PIPE, text=True); print(p.stdout.readline(), flush=True);"
        " sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        pid = int(json.loads(parent.stdout.readline())["pid"])
        assert _runs(pid)
        parent.kill()
    try:
        _wait_until(lambda: not _runs(pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    """Whether the process is alive; one that has ended but that nobody has waited for is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--faults", "mild"], "name one of none, demo, nasty"),
        (["--folder", "/nonexistent"], "holds no"),
        (["--port", "99999"], "choose another port"),
    ],
)
def test_process_refuses_what_cannot_work_in_one_sentence(arguments: list[str], words: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_taken_port_is_refused(portal: SamplePortal) -> None:
    with pytest.raises(ConfigurationError, match="choose another port"):
        SamplePortal(ONE_PAGE, port=_address(portal)[1]).__enter__()
