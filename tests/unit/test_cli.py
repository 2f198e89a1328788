"""The `landrecords` command: what it prints, its exit codes, and one sentence for every mistake."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows import cli
from tasks.postgres import Database
from tasks.records import Reason, Status

LANDRECORDS = Path(sys.executable).with_name("landrecords")
NASTY = 'said "no", twice;\nand [red]left[/red]'


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command in this process, as the console script calls it."""

    def run(*arguments: str, **environment: str) -> Said:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "argv", ["landrecords", *arguments])
            for name, value in environment.items():
                patched.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, said.out, said.err)

    return run


@pytest.fixture
def documents(database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database with three documents done, three failed (two in download, one in upload) and one sealed."""
    monkeypatch.setenv("LANDRECORDS_DATABASE_URL", database_url)
    database.rows(
        "INSERT INTO index_documents (source, book, page, download_status, download_reason, download_error,"
        " download_attempts, optimize_status, optimize_reason, upload_status, upload_reason, upload_error) VALUES"
        " ('duprocess', 300, 1, 'completed', NULL, NULL, 1, 'completed', NULL, 'completed', NULL, NULL),"
        " ('duprocess', 300, 2, 'completed', NULL, NULL, 1, 'skipped', 'lossless_only', 'completed', NULL, NULL),"
        " ('duprocess', 300, 3, 'completed', NULL, NULL, 1, 'completed', NULL, 'completed', NULL, NULL),"
        " ('duprocess', 300, 4, 'failed', 'not_found', %(nasty)s, 2, 'pending', NULL, 'pending', NULL, NULL),"
        " ('duprocess', 300, 5, 'failed', 'truncated', 'short', 5, 'pending', NULL, 'pending', NULL, NULL),"
        " ('duprocess', 300, 6, 'completed', NULL, NULL, 1, 'completed', NULL, 'failed', 'store_error', 'full'),"
        " ('duprocess', 300, 7, 'skipped', 'sealed', 'sealed', 1, 'pending', NULL, 'pending', NULL, NULL)",
        {"nasty": NASTY},
    )
    return database


def pages(database: Database, step: str, status: Status) -> list[int]:
    query = f"SELECT page FROM index_documents WHERE {step}_status = %s ORDER BY page"
    return [row[0] for row in database.rows(query, (str(status),))]


# --- mistakes ---

USAGE = [
    (["bogus"], "No such command 'bogus'; see `landrecords --help`."),
    (["status"], "Missing argument 'WORKLOAD'; see `landrecords status --help`."),
    (["status", "documents", "--jsn"], "No such option: --jsn"),
    (["db"], "Missing command; see `landrecords db --help`."),
    (["db", "drop"], "No such command 'drop'; see `landrecords db --help`."),
    (["up", "--port", "99999"], "Invalid value for '--port'"),
    (["up", "--port", "http"], "Invalid value for '--port'"),
    (["demo", "--documents", "0"], "Invalid value for '--documents'"),
    (["demo", "documents"], "unexpected extra argument"),
    (["status", "nope"], "there is no workload 'nope'; use one of documents"),
    (["failed", "documents", "--reason", "damged"], "there is no reason 'damged'; did you mean damaged?"),
    (["retry", "documents", "--reason", "zzz"], "there is no reason 'zzz'; use one of html_error_page,"),
    (["retry", "tiles", "--step", "download"], "tiles has no step 'download'; leave --step out, there is only one."),
    (
        ["retry", "documents", "--step", "fetch"],
        "documents has no step 'fetch'; use one of download, optimize, upload.",
    ),
]


@pytest.mark.parametrize(("arguments", "sentence"), USAGE, ids=[" ".join(case[0]) for case in USAGE])
def test_bad_usage_is_told_in_one_sentence(run: Callable[..., Said], arguments: list[str], sentence: str) -> None:
    said = run(*arguments, LANDRECORDS_DATABASE_URL="postgresql://127.0.0.1:1/never_asked")
    assert said.code == 2
    assert sentence in said.err
    assert_one_sentence(said)


ENVIRONMENT = [
    ({"LANDRECORDS_STORE_URL": "ftp://host/x"}, 2, "use file:///absolute/folder or gs://bucket/prefix."),
    ({"LANDRECORDS_DATABASE_URL": "mysql://u:s3cret@h/d"}, 2, "use postgresql://user:password@host/name."),
    ({"LANDRECORDS_DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/d"}, 3, "does not answer"),
    ({"LANDRECORDS_DATABASE_URL": "postgresql://u:s3cret@no.such.host.invalid/d"}, 3, "does not answer"),
    ({"LANDRECORDS_DATABASE_URL": "", "LANDRECORDS_HOME": "{file}/home"}, 2, "set LANDRECORDS_HOME to a folder"),
    ({"LANDRECORDS_DATABASE_URL": "", "LANDRECORDS_HOME": "/proc/home"}, 2, "set LANDRECORDS_HOME to a folder"),
]


@pytest.mark.parametrize("command", [["status", "documents"], ["db", "upgrade"], ["retry", "documents"]])
@pytest.mark.parametrize(("environment", "code", "remedy"), ENVIRONMENT)
def test_wrong_settings_and_what_is_away(
    run: Callable[..., Said],
    tmp_path: Path,
    command: list[str],
    environment: dict[str, str],
    code: int,
    remedy: str,
) -> None:
    file = tmp_path / "file"
    file.touch()
    said = run(*command, **{name: value.format(file=file) for name, value in environment.items()})
    assert said.code == code
    assert remedy in said.err
    assert "s3cret" not in said.err
    assert_one_sentence(said)


def assert_one_sentence(said: Said) -> None:
    assert said.err.startswith("landrecords: ")
    assert said.err.count("\n") == 1
    assert said.err.endswith((".\n", "?\n"))
    assert "Traceback" not in said.err + said.out


def test_a_database_without_tables_names_the_command_that_makes_them(
    run: Callable[..., Said], postgres_url: str, empty_database_url: str
) -> None:
    before = run("status", "documents", LANDRECORDS_DATABASE_URL=empty_database_url)
    assert (before.code, "run `landrecords db upgrade`." in before.err) == (2, True)
    upgraded = run("db", "upgrade", LANDRECORDS_DATABASE_URL=empty_database_url)
    assert upgraded.out.startswith("Applied 001_checkpoints, ")
    assert run("db", "upgrade", LANDRECORDS_DATABASE_URL=empty_database_url).out == "The database is up to date.\n"
    assert run("status", "documents", LANDRECORDS_DATABASE_URL=empty_database_url).code == 0


@pytest.fixture
def empty_database_url(database_url: str) -> str:
    """A database of the test's own with nothing in it."""
    emptied = Database(database_url, size=1)
    emptied.rows("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    emptied.close()
    return database_url


# --- what the commands print ---


def test_without_a_command_it_says_which_there_are(run: Callable[..., Said]) -> None:
    said = run()
    assert said.code == 0
    for command in ("demo", "up", "status", "failed", "retry", "doctor", "db"):
        assert re.search(rf"^\W*{command} ", said.out, re.MULTILINE)
    assert run("--version").out.startswith("landrecords 0.")


def test_status_as_json(run: Callable[..., Said], documents: Database) -> None:
    said = run("status", "documents", "--json")
    none = dict.fromkeys((str(s) for s in Status), 0)
    assert json.loads(said.out) == {
        "download": {**none, "completed": 4, "failed": 2, "skipped": 1},
        "optimize": {**none, "pending": 3, "completed": 3, "skipped": 1},
        "upload": {**none, "pending": 3, "completed": 3, "failed": 1},
    }
    assert said.code == 0


def test_status_as_a_table(run: Callable[..., Said], documents: Database) -> None:
    row = next(line for line in run("status", "documents").out.splitlines() if "optimize" in line)
    assert re.findall(r"\d+", row) == ["3", "0", "3", "0", "1"]


def test_failed_as_csv_has_every_failed_item(run: Callable[..., Said], documents: Database) -> None:
    said = run("failed", "documents", "--csv")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert said.code == 1
    assert [(row["page"], row["step"], row["reason"]) for row in rows] == [
        ("4", "download", "not_found"),
        ("5", "download", "truncated"),
        ("6", "upload", "store_error"),
    ]
    assert rows[0]["error"] == NASTY
    assert rows[1]["attempts"] == "5"


def test_failed_as_a_table_and_for_one_reason(run: Callable[..., Said], documents: Database) -> None:
    said = run("failed", "documents", "--reason", "not_found", COLUMNS="300")
    assert said.code == 1
    assert "[red]left[/red]" in said.out  # an error's brackets are not markup
    assert "truncated" not in said.out
    assert run("failed", "documents", "--reason", "damaged").out == "Nothing failed.\n"
    assert run("failed", "documents", "--reason", "damaged").code == 0


def test_the_csv_header_is_the_same_without_items(run: Callable[..., Said], documents: Database) -> None:
    header = run("failed", "documents", "--csv").out.splitlines()[0]
    nothing = run("failed", "documents", "--csv", "--reason", "damaged")
    assert (nothing.out, nothing.code) == (header + "\n", 0)


# --- retry ---


def test_retry_takes_every_failed_item_back(run: Callable[..., Said], documents: Database) -> None:
    said = run("retry", "documents")
    assert (said.code, said.out) == (0, "Items pending again: 3. The next run takes them.\n")
    assert pages(documents, "download", Status.PENDING) == [4, 5]
    assert pages(documents, "upload", Status.PENDING) == [4, 5, 6, 7]
    assert pages(documents, "download", Status.SKIPPED) == [7]
    assert documents.rows("SELECT max(download_attempts) FROM index_documents WHERE page IN (4, 5)") == [(0,)]
    assert run("retry", "documents").out == "Items pending again: 0. Nothing to retry.\n"


@pytest.mark.parametrize(
    ("options", "again"),
    [
        (["--reason", Reason.NOT_FOUND], [4]),
        (["--reason", Reason.STORE_ERROR], []),
        (["--step", "upload"], []),
        (["--step", "download", "--reason", Reason.TRUNCATED], [5]),
        (["--skipped"], [4, 5, 7]),
        (["--skipped", "--reason", Reason.SEALED], [7]),
    ],
)
def test_retry_takes_only_what_is_asked_for(
    run: Callable[..., Said], documents: Database, options: list[str], again: list[int]
) -> None:
    assert run("retry", "documents", *options).code == 0
    assert pages(documents, "download", Status.PENDING) == again
    assert pages(documents, "optimize", Status.SKIPPED) == [2]  # stored as it came: done, not waiting


def test_retry_of_skipped_optimisation_is_possible_where_it_is_named(
    run: Callable[..., Said], documents: Database
) -> None:
    assert run("retry", "documents", "--step", "optimize", "--skipped").code == 0
    assert pages(documents, "optimize", Status.PENDING) == [2, 4, 5, 7]
    assert pages(documents, "download", Status.FAILED) == [4, 5]


# --- the database ---


def test_the_address_is_shown_without_its_password(run: Callable[..., Said]) -> None:
    said = run("db", "url", LANDRECORDS_DATABASE_URL="postgresql://clerk:s3cret@db.example:5433/records")
    assert said.out == "user=clerk dbname=records host=db.example port=5433\n"


# --- as a program ---


def program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LANDRECORDS, *arguments],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"} | environment,
        check=False,
        timeout=120,
    )


def test_the_commands_of_every_day_import_nothing_heavy() -> None:
    heavy = "{'prefect', 'google', 'pikepdf', 'paramiko', 'openpyxl', 'requests', 'PIL'}"
    script = f"import flows.cli, sys; sys.exit(', '.join(sorted({heavy} & set(sys.modules))) or None)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_seen_enough_is_no_error(documents: Database) -> None:
    command = f"{LANDRECORDS} failed documents --csv | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.startswith("id,source,book,page,")
    assert done.stderr == ""


@pytest.fixture
def path_without_gs(tmp_path: Path) -> str:
    """A PATH on which nothing is but this Python."""
    (tmp_path / "bin").mkdir()
    return str(tmp_path / "bin")


def test_doctor_without_ghostscript(database_url: str, path_without_gs: str, tmp_path: Path) -> None:
    done = program(
        "doctor",
        PATH=path_without_gs,
        LANDRECORDS_DATABASE_URL=database_url,
        LANDRECORDS_HOME=str(tmp_path / "home"),
    )
    assert done.returncode == 2
    assert re.search(r"Ghostscript +│ wrong │ Ghostscript is not installed; run", done.stdout)
    assert re.search(r"database +│ ok +│ configured, PostgreSQL", done.stdout)
    assert re.search(r"store +│ ok +│ file://", done.stdout)
    assert "Traceback" not in done.stderr


def test_demo_without_ghostscript_starts_nothing(path_without_gs: str, tmp_path: Path) -> None:
    done = program("demo", PATH=path_without_gs, LANDRECORDS_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert_one_sentence(Said(done.returncode, done.stdout, done.stderr))
    assert not (tmp_path / "home" / "postgres").exists()


def test_doctor_says_what_is_away(tmp_path: Path) -> None:
    done = program(
        "doctor",
        LANDRECORDS_DATABASE_URL="postgresql://u:s3cret@127.0.0.1:1/d",
        LANDRECORDS_STORE_URL=f"file://{tmp_path}/store",
        LANDRECORDS_SPOOL_DIR=str(LANDRECORDS / "spool"),
        LANDRECORDS_HOME=str(tmp_path / "home"),
        PREFECT_API_URL="http://prefect.invalid/api",
    )
    assert done.returncode == 3
    assert re.search(r"Prefect API +│ away +│ the Prefect API http://prefect\.invalid/api does not answer", done.stdout)
    assert re.search(r"database +│ away", done.stdout)
    assert re.search(r"spool +│ wrong", done.stdout)
    assert "s3cret" not in done.stdout
    assert "Traceback" not in done.stderr


def test_a_prefect_address_that_is_none(database_url: str, tmp_path: Path) -> None:
    where = {"LANDRECORDS_DATABASE_URL": database_url, "LANDRECORDS_HOME": str(tmp_path / "home")}
    done = program("doctor", PREFECT_API_URL="http://127.0.0.1:port/api", **where)
    assert done.returncode == 2
    assert re.search(r"Prefect API +│ wrong │ PREFECT_API_URL is no address", done.stdout)
