"""What the sample portal has, its index, and the policy of its faults: no network here."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path

import openpyxl
import pytest

from tasks.errors import ConfigurationError
from tasks.sample.corpus import ODDITIES, GeneratedCorpus, Oddity
from tasks.sample.fault_policy import FaultPolicy
from tasks.sample.faults import NAMED, Fault, FaultKind, Faults, load_faults
from tasks.sample.folder import FolderCorpus
from tasks.sample.index_rows import COLUMNS, index_records, index_rows, write_index
from tasks.sample.scans import Kind, make_scan
from tasks.sample.vocabulary import MID_TYPES

MIGRATION = Path(__file__).parents[2] / "tasks" / "sql" / "migrations" / "010_index_documents.sql"
BOOKS = {"historical": range(1, 238), "duprocess": range(238, 3871), "direct": range(3871, 3972)}


# --- the corpus ---


@pytest.mark.parametrize("documents", [1, 7, 20, 200, 1003])
def test_every_document_is_found_by_what_names_it(documents: int) -> None:
    corpus = GeneratedCorpus(documents)
    places = set()
    for number in range(documents):
        document = corpus.document(number)
        assert document.book in BOOKS[document.source]
        assert corpus.find_book_page(document.source, document.book, document.page) == number
        assert corpus.find_file(document.file_name) == number
        assert bool(document.instrument) is (document.source == "duprocess")
        if document.instrument:
            assert corpus.find_instrument(document.instrument) == number
        places.add((document.book, document.page))
    assert len(places) == documents


def test_what_is_not_on_record_is_not_found() -> None:
    corpus = GeneratedCorpus(200)
    document = corpus.document(4)
    for instrument in ("", "abc", "0", "9" * 12, "²", str(int(document.instrument) + 1)):
        assert corpus.find_instrument(instrument) is None
    for place in ((0, 1), (238, 0), (4000, 1), (document.book, document.page + 1)):
        assert corpus.find_book_page("duprocess", *place) is None
    for name in ("", "x.pdf", "0000004.tif", "0000200.pdf", "../0000004.pdf"):
        assert corpus.find_file(name) is None


def test_a_million_documents_are_told_apart_without_being_held() -> None:
    corpus = GeneratedCorpus(1_000_000)
    tracemalloc.start()
    rows = Counter(row[2] for row in islice(index_rows(corpus), 4_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows.pop("") == 1_000
    assert set(rows.values()) == {1}
    assert peak < 4_000_000
    last = corpus.document(999_998)
    assert corpus.find_instrument(last.instrument) == last.number
    assert len(last.instrument) == 6


def test_two_hundred_documents_have_every_kind_and_oddity() -> None:
    documents = [GeneratedCorpus(200).document(number) for number in range(200)]
    assert {document.kind for document in documents} == set(Kind)
    odd = Counter(document.oddity for document in documents if document.oddity)
    assert set(odd) == set(Oddity)
    assert 0.05 <= odd[Oddity.BOOK_PAGE] / 200 <= 0.15
    assert odd[Oddity.PAGE_COUNT] == odd[Oddity.HTML_PAGE] == 1
    assert Counter(document.source for document in documents) == {
        "historical": 40,
        "duprocess": 150,
        "direct": 10,
    }


def test_oddities_are_chosen_by_the_caller_and_by_the_seed() -> None:
    assert all(GeneratedCorpus(200, oddities={}).document(n).oddity is None for n in range(200))
    placed = [
        [n for n in range(200) if GeneratedCorpus(200, seed, {Oddity.DAMAGED: 10}).document(n).oddity]
        for seed in (1, 2)
    ]
    assert [len(numbers) for numbers in placed] == [10, 10]
    assert placed[0] != placed[1]


def test_oddities_show_in_index_and_record() -> None:
    corpus = GeneratedCorpus(2000)
    for document in map(corpus.document, range(2000)):
        differs = (document.shown_book, document.shown_page) != (document.book, document.page)
        assert differs is (document.oddity is Oddity.BOOK_PAGE)
        assert (document.index_pages != document.pages) is (document.oddity is Oddity.PAGE_COUNT)
        assert (document.type_raw == "SEALED") is (document.oddity is Oddity.SEALED)
    assert any(d.shown_book == d.book * 10 for d in map(corpus.document, range(2000)))


def test_scans_carry_the_condition_and_the_page_count() -> None:
    corpus = GeneratedCorpus(200)
    document = next(d for d in map(corpus.document, range(200)) if d.oddity is Oddity.DAMAGED)
    assert corpus.scan(document).pages == document.pages
    assert corpus.scan(document) is corpus.scan(document)
    assert corpus.scan(document).content != make_scan(document.number, kind=document.kind, pages=document.pages).content


def test_distinct_bounds_what_is_drawn() -> None:
    corpus = GeneratedCorpus(400, oddities={}, distinct=20)
    contents = {corpus.scan(corpus.document(number)).content for number in range(400)}
    assert len(contents) == 20


# --- the index ---


def test_index_columns_are_the_tables() -> None:
    table = MIGRATION.read_text().split("CREATE TABLE index_documents (")[1]
    assert all(f"\n    {name} " in table for name in COLUMNS)


def test_csv_holds_every_row_and_every_awkward_text(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    assert write_index(path, 3000) == 3000
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == list(index_records(GeneratedCorpus(3000)))
    types = {row["instrument_type_raw"].split(" - ")[0] for row in rows}
    assert types > set(MID_TYPES)
    assert any("\n" in row["remarks"] for row in rows)
    assert any("MUÑOZ" in row["grantor_party"] for row in rows)
    assert {row["download_priority"] for row in rows} == {"1", "2", "3"}
    assert all(row["source_url"].startswith("files/") is (row["source"] == "direct") for row in rows)


def test_related_items_name_documents_on_record_and_others() -> None:
    corpus = GeneratedCorpus(200)
    related = [row["related_items_raw"] for row in index_records(corpus) if row["related_items_raw"]]
    assert any(text.endswith("; 945431 bk:4140/753") for text in related)
    for text in related:
        instrument, _, place = text.split(";")[0].partition(" bk:")
        number = corpus.find_instrument(instrument)
        assert number is not None
        assert place == f"{corpus.document(number).book}/{corpus.document(number).page}"


def test_xlsx_holds_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "index.xlsx"
    write_index(path, 40, seed=3)
    book = openpyxl.load_workbook(path, read_only=True)
    rows = [["" if cell is None else str(cell) for cell in row] for row in book.active.iter_rows(values_only=True)]
    book.close()
    assert rows[0] == list(COLUMNS)
    width = len(COLUMNS)  # a row's empty cells at its end are not read back
    assert [row + [""] * (width - len(row)) for row in rows[1:]] == [
        list(map(str, row)) for row in index_rows(GeneratedCorpus(40, 3))
    ]


# --- a folder ---


def test_folder_serves_its_files_by_name_and_by_instrument(tmp_path: Path) -> None:
    (tmp_path / "deep er").mkdir()
    scan = make_scan(1, kind=Kind.BILEVEL, pages=2)
    (tmp_path / "deep er" / "a&b.PDF").write_bytes(scan.content)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (tmp_path / "notes.txt").write_text("not a document")
    corpus = FolderCorpus(tmp_path)
    rows = {row["source_url"]: row for row in index_records(corpus)}
    assert set(rows) == {"files/broken.pdf", "files/deep%20er/a%26b.PDF"}
    assert rows["files/broken.pdf"]["num_pages"] == ""
    row = rows["files/deep%20er/a%26b.PDF"]
    assert (row["source"], row["num_pages"]) == ("direct", "2")
    number = corpus.find_file("deep%20er/a%26b.PDF")
    assert number is not None
    assert corpus.scan(corpus.document(number)).content == scan.content
    looked_up = FolderCorpus(tmp_path, "duprocess")
    assert looked_up.find_instrument(row["instrument_number"]) == number
    assert looked_up.find_book_page("duprocess", int(row["book"]), int(row["page"])) == number


def test_folder_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds no"):
        FolderCorpus(tmp_path)


# --- the policy of faults ---


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def kinds(policy: FaultPolicy, requests: list[tuple[str, int | None]]) -> list[str | None]:
    faults = (policy.decide(on, document) for on, document in requests)
    return [str(fault.kind) if fault else None for fault in faults]


def policy_of(*rules: dict[str, object], clock: Clock | None = None, seed: int = 7, **rest: object) -> FaultPolicy:
    return FaultPolicy(load_faults({"rules": rules, **rest}), seed, clock or Clock())


def test_a_fault_heals_after_its_times() -> None:
    policy = policy_of({"kind": "reset", "documents": [3], "times": 2})
    assert kinds(policy, [("file", 3)] * 4 + [("file", 4)]) == ["reset", "reset", None, None, None]


def test_a_fault_without_times_never_heals() -> None:
    policy = policy_of({"kind": "html", "documents": [3], "times": None})
    assert kinds(policy, [("file", 3)] * 50) == ["html"] * 50


def test_a_fault_keeps_to_look_ups_or_files() -> None:
    policy = policy_of({"kind": "empty", "documents": [3], "on": "file"})
    assert kinds(policy, [("lookup", 3), ("file", 3), ("page", None)]) == [None, "empty", None]


def test_shares_do_not_overlap_and_are_as_large_as_said() -> None:
    rules = ({"kind": "reset", "share": 0.1}, {"kind": "html", "share": 0.2})
    hit = Counter(kinds(policy_of(*rules), [("file", n) for n in range(5000)]))
    assert hit["reset"] == pytest.approx(500, rel=0.15)
    assert hit["html"] == pytest.approx(1000, rel=0.15)
    twice = policy_of(*rules)
    first, second = (kinds(twice, [("file", n) for n in range(500)]) for _ in range(2))
    assert any(first)
    assert not any(second)


def test_the_seed_decides_which_documents_are_hit() -> None:
    rule = {"kind": "reset", "share": 0.1}
    requests = [("file", n) for n in range(300)]
    assert kinds(policy_of(rule), requests) == kinds(policy_of(rule), requests)
    assert kinds(policy_of(rule), requests) != kinds(policy_of(rule, seed=8), requests)


def test_every_nth_request_alone_or_as_a_burst() -> None:
    assert (
        kinds(policy_of({"kind": "unavailable", "every": 3}), [("page", None)] * 6) == [None, None, "unavailable"] * 2
    )
    clock = Clock()
    policy = policy_of({"kind": "unavailable", "every": 3, "lasts_s": 2}, clock=clock)
    assert kinds(policy, [("page", None)] * 5) == [None, None, *["unavailable"] * 3]
    clock.now += 2.5
    assert kinds(policy, [("page", None)] * 2) == ["unavailable"] * 2  # the sixth request begins another
    clock.now += 2.5
    assert kinds(policy, [("page", None)] * 2) == [None, "unavailable"]


def test_a_window_of_time() -> None:
    clock = Clock()
    policy = policy_of({"kind": "server_error", "starts_s": 5, "lasts_s": 2}, clock=clock)
    seen = []
    for clock.now in (100.0, 104.9, 105.0, 106.9, 107.0):
        seen += kinds(policy, [("file", 1)])
    assert seen == [None, None, "server_error", "server_error", None]


def test_one_request_too_many_within_any_second() -> None:
    clock = Clock()
    policy = policy_of(clock=clock, max_requests_per_second=3)
    refused = []
    for clock.now in (100.0, 100.5, 100.9, 100.95, 101.0, 101.1, 101.5, 101.6):
        refused.append(policy.over_rate())
    assert refused == [False, False, False, True, False, True, False, True]


def test_latency_has_its_jitter() -> None:
    policy = policy_of(latency_ms=20, jitter_ms=10)
    waits = [policy.latency_s() for _ in range(100)]
    assert 0.020 <= min(waits) < 0.022
    assert 0.028 < max(waits) <= 0.030


@pytest.mark.parametrize("name", NAMED)
def test_named_sets_survive_json(name: str) -> None:
    faults = load_faults(name)
    assert load_faults(faults.model_dump_json()) == faults
    assert load_faults(json.loads(faults.model_dump_json())) == faults


def test_demo_heals_within_three_attempts() -> None:
    policy = FaultPolicy(NAMED["demo"])
    for document in range(1000):
        for on in ("lookup", "file"):
            attempts = kinds(policy, [(on, document)] * 3)
            assert attempts[2] in (None, "slow")
    assert all(rule.times and rule.seconds <= 1 for rule in NAMED["demo"].rules if rule.kind is FaultKind.SLOW)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mild", "none, demo, nasty"),
        ("{", "give JSON"),
        ({"rules": [{"kind": "explode", "share": 1}]}, "rules.0.kind"),
        ({"rules": [{"kind": "reset"}]}, "give share, documents, every or lasts_s"),
        ({"rules": [{"kind": "reset", "share": 0.6}, {"kind": "html", "share": 0.6}]}, "must not exceed 1"),
        ({"latency": 5}, "latency"),
    ],
)
def test_faults_that_make_no_sense_are_refused_in_a_sentence(given: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_faults(given)  # type: ignore[arg-type]


def test_a_set_is_taken_as_it_is() -> None:
    faults = Faults(rules=(Fault(kind=FaultKind.RESET, share=1),))
    assert load_faults(faults) is faults
    assert sum(ODDITIES.values()) < 40
