"""Loading an index into a real database: formats, bad lines, loading again, related items."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable, Iterable
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import openpyxl
import psutil
import pytest

from tasks.errors import ConfigurationError
from tasks.index import LoadReport, load_index
from tasks.index_columns import COLUMNS, OURS
from tasks.postgres import Database

HEADER = "instrument_number,book,page,instrument_type_raw,file_date"
LINE = "945431,4140,753,DEED - [DEED 90W],04/30/2003"

Load = Callable[..., LoadReport]


@pytest.fixture
def load(database: Database, tmp_path: Path) -> Load:
    """`load(text_or_bytes, ...)`: the report of loading a file with that content."""

    def load(content: str | bytes, **options: Any) -> LoadReport:
        path = tmp_path / "index.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_index(database, path, **options)

    return load


def rows(database: Database, columns: str) -> list[Any]:
    found = database.rows(f"SELECT {columns} FROM index_documents ORDER BY id")
    return [row[0] if len(row) == 1 else row for row in found]


def number_of_rows(database: Database) -> int:
    return int(database.rows("SELECT count(*) FROM index_documents")[0][0])


def move(database: Database, status: str, which: str = "true") -> None:
    """What claims and settles do to rows."""
    lease = "'me', now() + interval '1 minute'" if status == "in_progress" else "NULL, NULL"
    database.rows(
        "UPDATE index_documents SET download_status = %s, download_attempts = 5, download_reason = 'timeout',"
        f" (claimed_by, lease_until) = ROW({lease}) WHERE {which}",
        (status,),
    )


def lines(*of: str) -> str:
    return "\n".join(of) + "\n"


def counts(report: LoadReport) -> tuple[int, int, int, int]:
    assert report.rows_read == report.inserted + report.updated + report.unchanged + report.bad_count
    return report.inserted, report.updated, report.unchanged, report.bad_count


def bad(report: LoadReport) -> list[tuple[int, str]]:
    return [(line.line, line.column) for line in report.bad]


# --- the columns ---


def test_every_column_of_the_table_is_either_the_files_or_ours(database: Database) -> None:
    found = database.rows(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'index_documents'::regclass"
        " AND attnum > 0 AND NOT attisdropped"
    )
    assert {name for (name,) in found} == set(COLUMNS) | set(OURS)
    assert not set(COLUMNS) & set(OURS)


def test_a_line_becomes_a_row(load: Load, database: Database) -> None:
    assert counts(load(lines(HEADER, LINE))) == (1, 0, 0, 0)
    columns = "source, source_file, instrument_number, book, page, instrument_type_raw, instrument_type_parsed"
    assert rows(database, columns) == [("duprocess", "index.csv", "945431", 4140, 753, "DEED - [DEED 90W]", "DEED")]
    assert rows(database, "document_type, file_date, download_status, download_priority") == [
        ("DEED", date(2003, 4, 30), "pending", 3)
    ]


def test_all_columns_load(load: Load, database: Database) -> None:
    samples = {"file_date": "2003-04-30", "source": "Historical", "related_items_raw": "945431 bk:1/2"}
    numbers = {"book", "page", "num_pages", "party_seq", "download_priority"}
    cells = {
        name: samples.get(name, "7" if name in numbers else "X" if "_of_" in name else f"a {name}") for name in COLUMNS
    }
    out = io.StringIO()
    csv.writer(out).writerows([list(cells), list(cells.values())])
    assert counts(load(out.getvalue())) == (1, 0, 0, 0)
    given = [name for name in COLUMNS if name not in samples]
    (row,) = rows(database, ", ".join(given))
    found = dict(zip(given, row, strict=True))
    assert found == {n: 7 if n in numbers else True if "_of_" in n else f"a {n}" for n in given}
    assert rows(database, "source, file_date::text") == [("historical", "2003-04-30")]


@pytest.mark.parametrize(
    "header",
    [
        "Instrument Number,BOOK,Page,Instrument-Type Raw,File Date",
        " instrument.number , Book,PAGE,InstrumentTypeRaw,FILE_DATE",
        "instrument_number;book;page;instrument_type_raw;file_date",
        "instrument_number\tbook\tpage\tinstrument_type_raw\tfile_date",
        "instrument_number|book|page|instrument_type_raw|file_date",
    ],
)
def test_spellings_and_delimiters(load: Load, database: Database, header: str) -> None:
    delimiter = next(sign for sign in ";\t|," if sign in header)
    assert counts(load(lines(header, LINE.replace(",", delimiter)))) == (1, 0, 0, 0)
    assert rows(database, "book, page, document_type, file_date::text") == [(4140, 753, "DEED", "2003-04-30")]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("DEED - [DEED 90W]", "DEED"),
        ("- [DEED 90W]", "- [DEED 90W]"),
        (" - [DEED 90W]", "- [DEED 90W]"),
        ("AGREEMENT-DEEDS", "AGREEMENT-DEEDS"),
        ("ASSIGN OIL GAS  MIN - [AOG]", "ASSIGN OIL GAS  MIN"),
        ('AFFIDAVIT "T" - [AF]', 'AFFIDAVIT "T"'),
    ],
)
def test_the_type_is_the_text_before_the_dash(load: Load, database: Database, raw: str, expected: str) -> None:
    quoted = '"' + raw.replace('"', '""') + '"'
    load(lines("book,page,instrument_type_raw", f"1,1,{quoted}"))
    assert rows(database, "instrument_type_parsed, document_type") == [(expected, expected)]


def test_a_named_document_type_is_kept(load: Load, database: Database) -> None:
    load(lines("book,page,instrument_type_raw,document_type", "1,1,DEED - X,plat", "1,2,DEED - X,"))
    assert rows(database, "document_type") == ["plat", "DEED"]


def test_where_rows_come_from(load: Load, database: Database) -> None:
    """The row says; else the caller; else a URL means a list of files; else the part of the portal with the book."""
    text = lines(
        "source,book,page,source_url", "Other.County,1,1,", ",237,1,", ",238,1,", ",300,1,a.pdf", "direct,,,b.pdf"
    )
    load(text)
    assert rows(database, "source") == ["other.county", "historical", "duprocess", "direct", "direct"]
    database.rows("TRUNCATE index_documents")
    load(text, source="here")
    assert rows(database, "source") == ["other.county", "here", "here", "here", "direct"]


# --- what is refused ---


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is empty"]),
        (lines("instrument_number,bok,pg", "1,2,3"), ["no column book", "no column page", "'bok'"]),
        (lines("book,page,Book", "1,2,3"), ["column book twice"]),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 rest", [".xls workbook", ".xlsx"]),
        (b"PK\x03\x04 and nothing more", ["is damaged", ".xlsx"]),
        (b"%PDF-1.4\0\0\0", ["is not a table"]),
        ("book,page," + "x" * 200_000, ["first line", "larger than field limit"]),
    ],
)
def test_files_that_cannot_do_are_refused_in_one_sentence(load: Load, content: str | bytes, words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(content)
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.csv cannot be read"):
        load_index(database, tmp_path / "nowhere.csv")


def test_an_index_in_the_users_home(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "of-mine.csv").write_text(lines("book,page", "1,2"))
    assert load_index(database, "~/of-mine.csv").inserted == 1
    with pytest.raises(ConfigurationError, match=r"~nobody-of-this-name/i\.csv cannot be read"):
        load_index(database, "~nobody-of-this-name/i.csv")


def test_a_workbook_of_charts_alone_is_refused(database: Database, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.create_chartsheet("sales")
    del book["Sheet"]
    book.save(tmp_path / "charts.xlsx")
    with pytest.raises(ConfigurationError, match=r"charts\.xlsx is not an \.xlsx workbook"):
        load_index(database, tmp_path / "charts.xlsx")


def test_bad_lines_that_cannot_be_kept_end_the_load_in_one_sentence(database: Database, tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text(lines("book,page", "one,2"))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"Cannot write in .*file"):
        load_index(database, tmp_path / "index.csv", bad_file=tmp_path / "file" / "bad-lines.csv")


def test_a_list_without_anything_that_names_a_document_is_refused(load: Load) -> None:
    with pytest.raises(ConfigurationError, match="no column that names a document"):
        load(lines("remarks,city", "a,b"), source="direct")


def test_unknown_columns_are_told_once_and_ours_are_passed_over(load: Load, database: Database) -> None:
    report = load(lines("book,page,Grantr Party,id,download_status", "1,1,A,77,completed", "1,2,B,78,failed"))
    assert counts(report) == (2, 0, 0, 0)
    assert [note for note in report.notes if "'Grantr Party'" in note and "grantor_party" in note]
    assert [note for note in report.notes if "id, download_status" in note]
    assert len(report.notes) == 2
    assert set(rows(database, "download_status")) == {"pending"}


BAD_CELLS = [
    ("book", "forty"),
    ("book", ""),
    ("book", "0"),
    ("book", "-4"),
    ("book", "41.5"),
    ("book", "1,234"),
    ("book", "99999999999"),
    ("page", "753A"),
    ("page", ""),
    ("file_date", "13/45/2003"),
    ("file_date", "30.04.2003"),
    ("file_date", "04/30/03"),
    ("file_date", "2003-02-29"),
    ("file_date", "37741"),
    ("num_pages", "-1"),
    ("ne_of_ne", "maybe"),
    ("download_priority", "urgent"),
    ("party_seq", "A"),
    ("source", "two words"),
    ("instrument_number", "9" * 201),
]


@pytest.mark.parametrize(("column", "text"), BAD_CELLS)
def test_a_bad_cell_costs_its_line_only(load: Load, database: Database, column: str, text: str) -> None:
    columns = ["source", "book", "page", "instrument_number", "file_date", "num_pages", "ne_of_ne", "party_seq"]
    columns.append("download_priority")
    good = {"book": "1", "page": "2"}
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="")
    writer.writeheader()
    writer.writerows([good, {**good, "page": "3", column: text}, {**good, "page": "4"}])
    report = load(out.getvalue())
    assert counts(report) == (2, 0, 0, 1)
    assert bad(report) == [(3, column)]
    assert column in report.bad[0].message
    assert rows(database, "page") == [2, 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2003-04-30", "2003-04-30"),
        ("2003-04-30 00:00:00.000", "2003-04-30"),
        ("2003-04-30T12:30:00", "2003-04-30"),
        ("4/3/2003", "2003-04-03"),
        ("4/30/2003 12:00:00 AM", "2003-04-30"),
        ("  1899-12-31 ", "1899-12-31"),
        ("", None),
    ],
)
def test_dates(load: Load, database: Database, text: str, expected: str | None) -> None:
    assert counts(load(lines("book,page,file_date", f"1,1,{text}"))) == (1, 0, 0, 0)
    assert rows(database, "file_date::text") == [expected]


def test_numbers_as_spreadsheets_write_them(load: Load, database: Database) -> None:
    load(lines("book,page,num_pages", "0471, 12 ,0", "4140.0,753.,3"))
    assert rows(database, "book, page, num_pages") == [(471, 12, None), (4140, 753, 3)]


# --- lines ---


def test_line_numbers_count_lines_inside_quotes(load: Load, database: Database) -> None:
    text = 'book,page,remarks\n1,1,"two\nlines"\n1,2,ok\n1,x,"three\n\nlines"\n\n1,3,ok\n1,y,ok\n'
    report = load(text)
    assert bad(report) == [(5, "page"), (10, "page")]
    assert rows(database, "remarks") == ["two\nlines", "ok", "ok"]


def test_wrong_field_counts(load: Load, database: Database) -> None:
    report = load(lines("book,page,remarks", "1,1,ok", "1,2", "1,3,too,many", "1,4,ok", ",,", ""))
    assert bad(report) == [(3, ""), (4, "")]
    assert report.bad[0].message == "the line has 2 fields, the header has 3"
    assert rows(database, "page") == [1, 4]


@pytest.mark.parametrize("tail", ["", "\n1,9000,the end"])
def test_a_quote_that_is_never_closed_costs_one_line(load: Load, database: Database, tail: str) -> None:
    text = lines("book,page,remarks", *(f"1,{n},ok" for n in range(1, 2001))).replace("1,700,ok", '1,700,"open')
    report = load(text + tail.lstrip("\n"))
    assert bad(report) == [(701, "")]
    assert report.inserted == 1999 + bool(tail)


def test_a_quote_that_is_closed_by_a_later_one_costs_one_line(load: Load, database: Database) -> None:
    text = lines("book,page,remarks", '1,1,"open', "1,2,ok", '1,3,"fine, really"', "1,4,ok")
    report = load(text)
    assert bad(report) == [(2, "")]
    assert rows(database, "page") == [2, 3, 4]


def test_a_quoted_field_across_the_edge_of_a_batch(load: Load, database: Database) -> None:
    text = lines("book,page,remarks", *(f"1,{n},ok" for n in range(1, 1200)))
    text = text.replace("1,500,ok\n", '1,500,"this\ngoes\non"\n')
    assert counts(load(text)) == (1199, 0, 0, 0)
    assert rows(database, "remarks")[499] == "this\ngoes\non"


def test_awkward_texts_survive(load: Load, database: Database) -> None:
    texts = [
        "\N{PILE OF POO} é ñ",
        "tab\there",
        "back\\slash \\N \\.",
        "\\.",
        'a "quote"',
        "cr\rlf\r\nend",
        "NULL",
        "'",
    ]
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([["book", "page", "remarks"]])
    csv.writer(out).writerows([[1, n, text] for n, text in enumerate(texts, 1)])
    assert counts(load(out.getvalue())) == (len(texts), 0, 0, 0)
    assert rows(database, "remarks") == texts


def test_nul_bytes_and_huge_fields_are_reported(load: Load, database: Database) -> None:
    text = lines("book,page,remarks", "1,1,a\0b", f"1,2,{'x' * 100_000}", f"1,3,{'x' * 200_000}", "1,4,ok")
    report = load(text)
    assert bad(report) == [(2, ""), (4, "")]
    assert "NUL" in report.bad[0].message
    assert rows(database, "page, length(remarks)") == [(2, 100_000), (4, 2)]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("book,page,city\n1,1,Peña\n".encode("utf-8-sig"), "Peña"),
        ("book,page,city\n1,1,Peña – €\n".encode("cp1252"), "Peña – €"),
        ("book\tpage\tcity\r\n1\t1\tPeña\r\n".encode("utf-16"), "Peña"),
        (b"book,page,city\r1,1,Pe\xf1a\r", "Peña"),
    ],
)
def test_encodings(load: Load, database: Database, content: bytes, name: str) -> None:
    assert counts(load(content)) == (1, 0, 0, 0)
    assert rows(database, "city") == [name]


def test_one_line_in_another_encoding_does_not_spoil_the_others(load: Load, database: Database) -> None:
    content = "book,page,city\n1,1,Peña\n".encode() + b"1,2,Pe\xf1a\n" + b"1,3,\x81\x8d\n" + b"1,4,ok\n"
    report = load(content)
    assert bad(report) == [(4, "")]
    assert rows(database, "city") == ["Peña", "Peña", "ok"]


def test_duplicates_in_the_file_are_reported_and_the_first_stays(load: Load, database: Database) -> None:
    text = lines("book,page,remarks", "1,1,first", "1,2,b", "1,1,second", "1,1,first", "01,2.0,c")
    for expected in ((2, 0, 0, 3), (0, 0, 2, 3)):
        report = load(text)
        assert counts(report) == expected
        assert [line.line for line in report.bad] == [4, 5, 6]
        assert "line 2" in report.bad[0].message
        assert "line 3" in report.bad[2].message
        assert rows(database, "remarks") == ["first", "b"]


def test_the_report_is_bounded_and_the_file_of_bad_lines_is_not(load: Load, tmp_path: Path) -> None:
    everything = tmp_path / "made" / "bad.csv"
    report = load(lines("book,page", *(f"x,{n}" for n in range(2500)), "1,1"), bad_file=everything)
    assert counts(report) == (1, 0, 0, 2500)
    assert len(report.bad) == 1000
    assert report.bad_file == everything
    with everything.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [int(line["line"]) for line in written] == list(range(2, 2502))
    assert load(lines("book,page", "1,1"), bad_file=tmp_path / "none.csv").bad_file is None
    assert not (tmp_path / "none.csv").exists()


# --- loading again ---


def test_loading_again_changes_nothing(load: Load, database: Database) -> None:
    text = lines(HEADER + ",related_items_raw,ne_of_ne", LINE + ",945431 bk:4140/753,x", "1,1,1,DEED,,,")
    load(text)
    move(database, "in_progress")
    before = rows(database, "index_documents::text, xmin::text")
    assert counts(load(text)) == (0, 0, 2, 0)
    assert rows(database, "index_documents::text, xmin::text") == before


def test_new_rows_come_in_the_order_of_the_file(load: Load, database: Database) -> None:
    """Claims follow the ids. Also when some rows are there already, which the others are told from by a join."""
    load(lines("book,page", *(f"1,{n}" for n in range(2, 4000, 2))))
    file = [n * 1009 % 4001 for n in range(1, 4001)]
    assert counts(load(lines("book,page", *(f"1,{n}" for n in file)))) == (2001, 0, 1999, 0)
    old = range(2, 4000, 2)
    assert rows(database, "page")[1999:] == [n for n in file if n not in old]


def test_changed_lines_change_index_columns_and_no_checkpoint(load: Load, database: Database) -> None:
    load(lines(HEADER + ",remarks", LINE + ",old", "1,4140,754,DEED,,same"))
    move(database, "in_progress")
    move(database, "failed")
    report = load(lines("remarks,book,page,source_file", "new,4140,753,july.csv", "same,4140,754,july.csv"))
    assert counts(report) == (0, 1, 1, 0)
    assert rows(database, "remarks, source_file") == [("new", "july.csv"), ("same", "index.csv")]
    assert rows(database, "instrument_number") == ["945431", "1"], "columns the file does not have stay"
    assert set(rows(database, "download_status, download_attempts, download_reason")) == {("failed", 5, "timeout")}


def test_an_emptied_cell_empties_the_column(load: Load, database: Database) -> None:
    load(lines("book,page,city,download_priority", "1,1,Canton,1"))
    assert counts(load(lines("book,page,city,download_priority", "1,1,,"))) == (0, 1, 0, 0)
    assert rows(database, "city, download_priority") == [(None, 3)]


def test_a_new_address_is_taken_and_resets_nothing(load: Load, database: Database) -> None:
    load(lines("book,page,source_url", "1,1,a.pdf", "1,2,a.pdf"))
    move(database, "in_progress", "page = 2")
    move(database, "completed", "page = 2")
    assert counts(load(lines("book,page,source_url", "1,1,b.pdf", "1,2,b.pdf"))) == (0, 2, 0, 0)
    assert rows(database, "source_url, download_status") == [("b.pdf", "pending"), ("b.pdf", "completed")]


def test_an_index_without_addresses_leaves_them(load: Load, database: Database) -> None:
    load(lines("source,book,page,source_url", "direct,1,1,a.pdf"))
    assert counts(load(lines("source,book,page,city", "direct,1,1,Canton"))) == (0, 1, 0, 0)
    assert rows(database, "source_url, city") == [("a.pdf", "Canton")]


def test_two_loads_at_once_insert_each_row_once(load: Load, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_text(lines("book,page", *(f"1,{n}" for n in range(1, 3001))))
    reports: list[LoadReport] = []
    threads = [threading.Thread(target=lambda: reports.append(load_index(database, path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.inserted for report in reports) == [0, 0, 3000]
    assert number_of_rows(database) == 3000


def test_a_load_that_breaks_off_has_loaded_nothing(load: Load, database: Database) -> None:
    content = "book,page\n" + "".join(f"1,{n}\n" for n in range(1, 5000))
    with pytest.raises(ConfigurationError, match="is damaged"):
        load(content.encode("utf-16")[:-1] + b"")
    assert number_of_rows(database) == 0
    assert load(content).inserted == 4999, "the connection is good for another"


# --- lists of files ---


def test_lists_of_files_need_neither_book_nor_page(load: Load, database: Database) -> None:
    long_url = "https://example.org/" + "x" * 5000
    text = lines("source_url,document_type", "a/1.pdf,DEED", f"{long_url},DEED", "a/1.pdf,MAP", ",DEED")
    report = load(text)
    assert counts(report) == (2, 0, 0, 2)
    assert bad(report) == [(4, ""), (5, "source_url")]
    assert rows(database, "source, book, source_url") == [("direct", None, "a/1.pdf"), ("direct", None, long_url)]
    assert counts(load(text)) == (0, 0, 2, 2)


def test_a_list_of_one_column(load: Load, database: Database) -> None:
    assert counts(load(lines("source_url", "a.pdf", "b.pdf", "", "a.pdf"))) == (2, 0, 0, 1)


def test_rows_for_a_url_template_are_named_by_their_numbers(load: Load, database: Database) -> None:
    text = lines("instrument_number,city", "1,Canton", "2,Ridgeland", ",Flora")
    assert bad(load(text, source="direct")) == [(4, "source_url")]
    assert counts(load(text, source="direct")) == (0, 0, 2, 1)


def test_the_loader_names_listed_files_as_the_database_does(load: Load, database: Database) -> None:
    load(lines("source_url", "é.pdf"))
    database.rows("INSERT INTO index_documents (source, source_url) VALUES ('direct', 'é.pdf') ON CONFLICT DO NOTHING")
    assert number_of_rows(database) == 1, "named alike, so the second is the first"


# --- related items ---


def related(database: Database) -> list[Any]:
    query = "SELECT page, related_items FROM index_documents WHERE related_items IS NOT NULL ORDER BY page"
    return [(page, [(i["exists_in_db"], i["target_id"]) for i in items]) for page, items in database.rows(query)]


def id_of(database: Database, page: int, source: str = "duprocess") -> int:
    query = "SELECT id FROM index_documents WHERE page = %s AND source = %s"
    return int(database.rows(query, (page, source))[0][0])


def test_related_items_are_found_by_book_and_page_or_number(load: Load, database: Database) -> None:
    load(
        lines(
            "instrument_number,book,page,related_items_raw",
            "11,400,1,12 bk:400/2; bk:400/3; 14; 99 bk:900/9; see plat",
            "12,400,2,",
            "13,400,3,",
            "14,400,4,14 bk:900/8",
        )
    )
    two, three, four = (id_of(database, page) for page in (2, 3, 4))
    assert related(database) == [
        (1, [(True, two), (True, three), (True, four), (False, None), (False, None)]),
        (4, [(True, four)]),
    ]


def test_items_are_found_when_their_target_comes_later(load: Load, database: Database) -> None:
    load(lines("instrument_number,book,page,related_items_raw", "11,400,1,12 bk:400/2; 13"))
    assert related(database) == [(1, [(False, None), (False, None)])]
    report = load(lines("instrument_number,book,page", "12,400,2", "13,400,3"))
    assert counts(report) == (2, 0, 0, 0)
    assert related(database) == [(1, [(True, id_of(database, 2)), (True, id_of(database, 3))])]


def test_the_best_of_several_targets(load: Load, database: Database) -> None:
    """Book, page and number together beat book and page; of equals the same source; a number alone comes last."""
    load(
        lines(
            "source,instrument_number,book,page,related_items_raw",
            "duprocess,1,400,1,77 bk:400/5",
            "other,1,400,2,78 bk:400/5",
            "duprocess,77,400,9,",
            "duprocess,5,400,5,",
            "other,77,400,5,",
        )
    )
    assert related(database) == [(1, [(True, id_of(database, 5, "other"))]), (2, [(True, id_of(database, 5, "other"))])]


def test_changed_text_is_read_and_looked_up_again(load: Load, database: Database) -> None:
    header = "instrument_number,book,page,related_items_raw"
    load(lines(header, "1,400,1,bk:400/2", "2,400,2,"))
    load(lines(header, "1,400,1,bk:400/7", "2,400,2,"))
    assert related(database) == [(1, [(False, None)])]
    load(lines(header, "1,400,1,", "2,400,2,"))
    assert related(database) == []


# --- workbooks ---


def workbook(path: Path, cells: Iterable[Iterable[Any]]) -> Path:
    book = openpyxl.Workbook()
    for row in cells:
        book.active.append(list(row))
    book.save(path)
    return path


def test_a_workbook_loads_like_a_csv(database: Database, tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "index.xlsx",
        [
            ["Instrument Number", "Book", "Page", "File Date", "NE of NE", "Remarks", None],
            [945431, 4140.0, "753", datetime.combine(date(2003, 4, 30), time()), True, "two\nlines é \N{PILE OF POO}"],
            [945432.0, 4140, 754, "4/30/2003", None, None],
            [],
            ["945433", "forty", 755, None, None, None],
            ["945434", 4140, 756, 37741, None, None],
            [None, 4140, 757, None, None, "x", None, "stray"],
            [945436, 4140, 758, date(1999, 12, 31)],
        ],
    )
    report = load_index(database, path)
    assert counts(report) == (3, 0, 0, 3)
    assert bad(report) == [(5, "book"), (6, "file_date"), (7, "")]
    assert rows(database, "instrument_number, page, file_date::text, ne_of_ne") == [
        ("945431", 753, "2003-04-30", True),
        ("945432", 754, "2003-04-30", None),
        ("945436", 758, "1999-12-31", None),
    ]
    assert rows(database, "remarks")[0] == "two\nlines é \N{PILE OF POO}"
    assert counts(load_index(database, path)) == (0, 0, 3, 3)


def test_a_damaged_workbook_is_refused_and_nothing_stays(database: Database, tmp_path: Path) -> None:
    path = workbook(tmp_path / "index.xlsx", [["book", "page"], *([1, n] for n in range(1, 3000))])
    content = bytearray(path.read_bytes())
    start = content.index(b"xl/worksheets/sheet1.xml") + 400
    content[start : start + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"index\.xlsx"):
        load_index(database, path)
    assert number_of_rows(database) == 0


# --- size ---


def test_memory_does_not_grow_with_the_file(database: Database, tmp_path: Path) -> None:
    def written(rows: int) -> Path:
        path = tmp_path / f"{rows}.csv"
        with path.open("w") as file:
            file.write("instrument_number,book,page,remarks\n")
            file.writelines(f"{n},{1 + n // 700},{1 + n % 700},{'LOT 5 OF THE MEADOWS ' * 20}\n" for n in range(rows))
        return path

    small, large = written(2_000), written(40_000)
    assert large.stat().st_size > 16e6
    load_index(database, small)  # what is allocated once
    process = psutil.Process()
    before = process.memory_info().rss
    assert load_index(database, large).inserted == 38_000
    assert process.memory_info().rss - before < 8e6
