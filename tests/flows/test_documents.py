"""The documents flow end to end: every kind of document of the sample corpus ends as it must, and all accounts agree.

One run of 50 documents, each oddity among them, looked at from all sides; then a second run that has nothing to do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pikepdf
import pytest

from tasks.records import RunReport, Status
from tasks.sample.corpus import Document, GeneratedCorpus, Oddity
from tasks.sample.portal import SamplePortal
from tasks.sample.scans import TIFF_TYPE, Kind
from tests.flows.conftest import World, opened_world
from tests.flows.evidence import Row, disagreements, objects_in, path_of, sha256_of

DOCUMENTS, SEED = 50, 8  # this corpus has every kind of scan, each sound and odd
SHARES = {**dict.fromkeys(Oddity, 7), Oddity.BOOK_PAGE: 16, Oddity.DAMAGED: 10}
FIRST_GIN = 1_000_000

VERDICTS = {
    None: ("completed", None),
    Oddity.SEALED: ("skipped", "sealed"),
    Oddity.NOT_FOUND: ("failed", "not_found"),
    Oddity.BOOK_PAGE: ("completed", "book_page_mismatch"),
    Oddity.PAGE_COUNT: ("failed", "page_mismatch"),
    Oddity.HTML_PAGE: ("failed", "html_error_page"),
    Oddity.RERECORDED: ("completed", None),
    Oddity.ENCRYPTED: ("completed", "encrypted"),
    Oddity.LOCKED: ("completed", "encrypted"),
    Oddity.DAMAGED: ("completed", "damaged"),
}
"""What becomes of the download of each kind of document, and the reason or remark in its row."""


@dataclass(frozen=True)
class Crawl:
    """A finished run and everything it can be judged by."""

    world: World
    portal: SamplePortal
    report: RunReport
    rows: dict[int, Row]

    def having(self, *oddities: Oddity | None) -> Iterator[tuple[Document, Row]]:
        """Documents with one of these oddities, and their rows."""
        for number, row in self.rows.items():
            document = self.portal.corpus.document(number)
            if document.oddity in oddities:
                yield document, row

    def scan_of(self, document: Document) -> bytes:
        return self.portal.corpus.scan(document).content


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, prefect_server: str) -> Iterator[Crawl]:
    """One run over the whole corpus."""
    corpus = GeneratedCorpus(DOCUMENTS, SEED, SHARES)
    with (
        opened_world(tmp_path_factory.mktemp("documents"), postgres_url) as world,
        SamplePortal(corpus, prepare=True) as portal,
    ):
        report = world.run(portal.url, index=world.index_of(portal))
        rows = {int(row["gin"]) - FIRST_GIN: row for row in world.rows()}
        yield Crawl(world, portal, report, rows)


def test_every_kind_of_document_ends_as_it_must(crawl: Crawl) -> None:
    wrong = []
    seen = Counter[Oddity | None]()
    for number, row in crawl.rows.items():
        oddity = crawl.portal.corpus.document(number).oddity
        seen[oddity] += 1
        status, reason = VERDICTS[oddity]
        if (row["download_status"], row["download_reason"]) != (status, reason):
            wrong.append((number, oddity, row["download_status"], row["download_reason"], row["download_error"]))
        stored = (row["upload_status"] == "completed") is (status == "completed")
        if not stored or (row["gcs_path"] is None) is (status == "completed"):
            wrong.append((number, oddity, row["upload_status"], row["gcs_path"]))
    assert wrong == []
    assert set(seen) == set(VERDICTS)
    assert len(crawl.rows) == DOCUMENTS


def test_the_three_accounts_agree(crawl: Crawl) -> None:
    """Table, store and spool: every object has the size and sha256 of its row, and nothing else lies about."""
    assert disagreements(crawl.world.database, crawl.world.store, crawl.world.spool) == []


def test_stored_documents_are_the_portals(crawl: Crawl) -> None:
    """The source's hash is that of the bytes the portal has; pages are kept, also by what Ghostscript made."""
    for document, row in crawl.having(None, Oddity.BOOK_PAGE, Oddity.RERECORDED):
        source = crawl.world.home / "source"
        source.write_bytes(crawl.scan_of(document))
        assert row["source_sha256"] == sha256_of(source), document
        assert row["source_bytes"] == source.stat().st_size
        assert row["num_pages_found"] == document.pages == row["num_pages"]
        assert row["stored_bytes"] <= row["source_bytes"] or document.kind is Kind.TIFF


def test_ghostscript_and_the_lossless_rewrite_did_their_part(crawl: Crawl) -> None:
    methods = Counter((crawl.portal.corpus.document(n).kind, r["optimize_method"]) for n, r in crawl.rows.items())
    assert methods[Kind.GREY, "ghostscript"] > 0
    assert methods[Kind.BILEVEL, "lossless"] > 0
    assert methods[Kind.BILEVEL, "ghostscript"] == 0, "all-bilevel scans are never given to Ghostscript"
    versions = {r["gs_version"] for r in crawl.rows.values() if r["optimize_method"] == "ghostscript"}
    assert len(versions) == 1
    assert None not in versions


def test_a_mismatch_is_flagged_with_both_values_and_stored_under_the_indexs_place(crawl: Crawl) -> None:
    misread = list(crawl.having(Oddity.BOOK_PAGE))
    for document, row in misread:
        assert row["book_page_mismatch"] is True
        assert (row["book"], row["page"]) == (document.book, document.page)
        assert (row["actual_book"], row["actual_page"]) == (document.shown_book, document.shown_page)
        assert (document.shown_book, document.shown_page) != (document.book, document.page)
        assert row["gcs_path"].endswith(f"/{document.book:04d}-{document.page:04d}.pdf")
    assert crawl.report.notes["book_page_mismatch"] == len(misread) > 0
    others = [row["id"] for _, row in crawl.having(None, Oddity.RERECORDED) if row["book_page_mismatch"]]
    assert others == []


def test_tiffs_became_pdfs(crawl: Crawl) -> None:
    tiffs = [(d, r) for d, r in crawl.having(None) if d.kind is Kind.TIFF]
    for document, row in tiffs:
        assert row["content_type"].startswith(TIFF_TYPE)
        stored = path_of(row["gcs_path"])
        assert stored.read_bytes().startswith(b"%PDF-")
        with pikepdf.open(stored) as pdf:
            assert len(pdf.pages) == document.pages
    assert tiffs


def test_encrypted_and_damaged_documents_are_kept_untouched(crawl: Crawl) -> None:
    kept = list(crawl.having(Oddity.ENCRYPTED, Oddity.LOCKED, Oddity.DAMAGED))
    for document, row in kept:
        assert path_of(row["gcs_path"]).read_bytes() == crawl.scan_of(document)
        assert (row["optimize_method"], row["optimize_status"]) == ("none", "skipped")
        assert row["stored_sha256"] == row["source_sha256"]
    assert kept


def test_documents_are_asked_for_in_the_order_of_priority(crawl: Crawl) -> None:
    """Claims follow priority, so the files of priority 1 are asked for before any of priority 3."""
    files = [r.document for r in crawl.portal.requests if r.path.startswith(("/pdf-records", "/historical-image"))]
    priorities = [crawl.rows[number]["download_priority"] for number in files if number is not None]
    last_urgent = max(at for at, priority in enumerate(priorities) if priority == 1)
    before = priorities[:last_urgent]
    assert before.count(3) <= 20, "at most what was claimed beside it"
    assert len(before) < len(priorities) / 2


# --- statistics ---


def test_the_report_agrees_with_the_table_and_the_store(crawl: Crawl) -> None:
    report, rows = crawl.report, list(crawl.rows.values())
    downloads = Counter(row["download_status"] for row in rows)
    assert report.counts == {str(s): downloads[str(s)] for s in Status}, "uploads all succeeded"
    failures = Counter(row["download_reason"] for row in rows if row["download_status"] == "failed")
    assert report.failures == dict(failures)
    for step in ("download", "optimize", "upload"):
        assert report.steps[step] == {str(s): sum(r[f"{step}_status"] == s for r in rows) for s in Status}
    assert report.bytes_in == sum(row["source_bytes"] for row in rows if row["download_status"] == "completed")
    objects = [p for p in objects_in(crawl.world.store) if "manifests" not in p.parts]
    assert report.bytes_out == sum(path.stat().st_size for path in objects)
    assert len(objects) == report.counts["completed"]
    assert report.exit_code == 1
    assert {row["run_id"] for row in rows} == {report.run_id}


def test_remarks_are_counted(crawl: Crawl) -> None:
    found = Counter[str]()
    for row in crawl.rows.values():
        remarks = {row["optimize_reason"]}  # an encrypted document says so in both steps, and is one document
        if row["download_status"] != "failed":
            remarks.add(row["download_reason"])
        found.update(remarks - {None})
    assert crawl.report.notes == dict(found)
    assert {"book_page_mismatch", "encrypted", "damaged", "sealed"} <= set(found)


def test_the_database_keeps_the_report(crawl: Crawl) -> None:
    query = "SELECT report, ended_at IS NOT NULL FROM landrecords_runs WHERE run_id = %s"
    ((kept, ended),) = crawl.world.database.rows(query, (crawl.report.run_id,))
    assert RunReport.model_validate(kept) == crawl.report
    assert ended


def test_the_manifest_has_the_provenance_of_every_object(crawl: Crawl) -> None:
    path = crawl.world.store / "manifests" / "documents" / f"{crawl.report.run_id}.jsonl"
    head, *entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert set(head["tools"]) >= {"ghostscript", "pikepdf", "qpdf", "img2pdf"}
    assert head["run_id"] == crawl.report.run_id
    by_id = {entry["id"]: entry for entry in entries}
    stored = [row for row in crawl.rows.values() if row["upload_status"] == "completed"]
    assert len(entries) == len(by_id) == len(stored)
    for row in stored:
        entry = by_id[row["id"]]
        assert entry["object"] == row["gcs_path"]
        assert entry["source_url"].startswith(crawl.portal.url)
        for name in ("source_sha256", "stored_sha256", "source_bytes", "stored_bytes"):
            assert entry[name] == row[name]
        assert entry["pages"] == row["num_pages_found"]
        assert entry["fetched_at"] <= entry["uploaded_at"]
        assert entry["optimised_by"] == row["optimize_method"]
        assert entry["gs_version"]
        assert sha256_of(path_of(entry["object"])) == entry["stored_sha256"]


def test_what_is_stored_with_an_object(crawl: Crawl) -> None:
    _, row = next(crawl.having(None))
    path = path_of(row["gcs_path"])
    about = crawl.world.store / ".metadata" / f"{path.relative_to(crawl.world.store)}.json"
    metadata = json.loads(about.read_text())["metadata"]
    assert metadata["book"] == str(row["book"])
    assert metadata["page"] == str(row["page"])
    assert metadata["document_type"] == row["document_type"]
    assert metadata["original_size"] == str(row["source_bytes"])
    assert metadata["stored_size"] == str(row["stored_bytes"])
    assert metadata["source_url"] == row["fetched_url"]
    assert metadata["fetched_at"]
    assert metadata["gs_version"]


# --- the second run; keep it last, it is the same world ---


def test_a_second_run_sends_no_request(crawl: Crawl, tmp_path: Path) -> None:
    before, table = len(crawl.portal.requests), crawl.world.rows()
    report = crawl.world.run(crawl.portal.url, index=crawl.world.index_of(crawl.portal))
    assert len(crawl.portal.requests) == before
    assert sum(report.counts.values()) == 0
    assert report.exit_code == 0
    assert crawl.world.rows() == table
