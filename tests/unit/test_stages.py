"""Stages: what each one selects from known rows, that claims stay on the index, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.checkpoints import Queue, Scope
from tasks.errors import ConfigurationError
from tasks.postgres import Database, connect
from tasks.stages import Stage, load_stages, stage_filter
from tasks.workloads import DOWNLOAD

# As WORKLOADS.md lists them, spacing included.
MID_FILTERED = """DEED|TRUSTEES DEED|TAX DEED|Transfer on Death Deed|DEED RESTRICTIONS|RIGHT OF WAY|EASEMENT
TRUST AGREEMENT|HEIRSHIP|LAST WILL AND TESTAM|LIVING WILL|AGREEMENT|AGREEMENT-DEEDS
CONTRACT TO SELL|OPTION|PROTECTIVE COVENANT|AMENDED PROTECTIVE C|PROTECTIVE COV TERMI
MINERAL DEED|ROYALTY DEED|ASSIGN OIL GAS  MIN|MINERAL RIGHT  ROYA|LEASE ASSIGNMENT
ASSIGNMENT OF LEASES|LEASE CONTRACT|AMENDMENT TO LEASE|NOTICE TO RENEW LEAS|SUBDIVISION PLATS
PLAT FILED|CORRECTION OF PLAT|MAP|SURVEYS|JUDGMENT OR ORDER|EMINENT DOMAIN|SEALED|DECLARATION
AMENDED DECLARATION|SUPPLEMENT|SUPPLEMENT TO COVENA|DECLARATION OF ROAD|ARCHITECTURAL REVIEW
ENVIRONMENTAL PROTEC|AFFIDAVIT "T"|PATENT|WAIVER|CERT OF SALESEIZED|RECEIVER|AMENDMENT(T)
AMENDMENT(W)|MISCELLANEOUS|MISCELLANEOUS "T"|MISCELLANEOUS "C"|REVOCATION  CANCELL
RECISSION OF FORECLO|VOID LEASES 16TH SEC|- [DEED 90W]""".replace("\n", "|").split("|")

NAMES = [
    "all",
    "stage-0-test",
    "historical-all",
    "historical-single",
    "1-small",
    "2-medium",
    "3-large",
    "4-retry",
    "mid-filtered",
]

# name -> source, book, priority, parsed type, document type, status
ROWS = {
    "first": ("historical", 1, 3, "DEED", "DEED", "pending"),
    "last historical": ("historical", 237, 1, "RELEASE", "RELEASE", "pending"),
    "first mid": ("duprocess", 238, 2, "DEED", "DEED", "pending"),
    "urgent": ("duprocess", 900, 0, "RELEASE", "RELEASE", "pending"),
    "spaced": ("duprocess", 1000, 3, "ASSIGN OIL GAS  MIN", "ASSIGN OIL GAS  MIN", "pending"),
    "single space": ("duprocess", 1000, 4, "ASSIGN OIL GAS MIN", "ASSIGN OIL GAS MIN", "pending"),
    "by document type": ("duprocess", 1001, 3, "X", "MAP", "pending"),
    "other case": ("duprocess", 1002, 3, "deed", "deed", "pending"),
    "bracket": ("duprocess", 3971, 3, "- [DEED 90W]", "- [DEED 90W]", "pending"),
    "too late": ("duprocess", 3972, 1, "DEED", "DEED", "pending"),
    "listed late": ("direct", 5000, 1, "DEED", "DEED", "pending"),
    "listed": ("direct", None, 3, "DEED", "DEED", "pending"),
    "failed": ("duprocess", 400, 3, "DEED", "DEED", "failed"),
    "failed late": ("duprocess", 4000, 3, "DEED", "DEED", "failed"),
}

COUNTY = set(ROWS) - {"too late", "listed late", "listed", "failed", "failed late"}
LISTED = {"listed late", "listed"}
SELECTED = {
    "all": COUNTY | LISTED | {"too late"},
    "stage-0-test": COUNTY | LISTED,
    "historical-all": {"first", "last historical"},
    "historical-single": {"first", "last historical"},
    "1-small": {"last historical", "first mid", "listed late"},
    "2-medium": COUNTY | LISTED,
    "3-large": {"first", "spaced", "by document type", "other case", "bracket", "listed"},
    "4-retry": COUNTY | LISTED,
    "mid-filtered": {"first mid", "spaced", "by document type", "bracket"},
}


@pytest.fixture
def queue(database: Database) -> Queue:
    """The download queue over ROWS; `gin` holds each row's name."""
    for page, (name, (source, book, priority, parsed, kind, status)) in enumerate(ROWS.items(), 1):
        database.rows(
            "INSERT INTO index_documents (gin, source, book, page, download_priority, instrument_type_parsed,"
            " document_type, download_status) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (name, source, book, page, priority, parsed, kind, status),
        )
    return Queue(database, DOWNLOAD, run_id="test")


def claimed(queue: Queue, scope: Scope) -> list[str]:
    with queue.claim(1000, scope) as page:
        return [row["gin"] for row in page.rows]


def test_the_shipped_stages_are_those_of_the_issue() -> None:
    assert list(load_stages()) == NAMES
    assert load_stages()["mid-filtered"].types == MID_FILTERED
    assert {name: stage.limit for name, stage in load_stages().items() if stage.limit} == {
        "stage-0-test": 20,
        "historical-single": 1,
        "1-small": 2000,
        "2-medium": 50_000,
    }
    assert [name for name in NAMES if stage_filter(name).retry_failed] == ["4-retry"]


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_takes_exactly_the_rows_of_the_stage(queue: Queue, name: str) -> None:
    stage = stage_filter(name)
    taken = claimed(queue, Scope(stage.where, stage.parameters))
    assert set(taken) == SELECTED[name]
    assert len(taken) == len(set(taken))


def test_only_failed_rows_of_the_stage_are_retried(queue: Queue, database: Database) -> None:
    stage = stage_filter("4-retry")
    queue.retry(Scope(stage.where, stage.parameters))
    assert database.rows("SELECT gin FROM index_documents WHERE download_status = 'failed'") == [("failed late",)]


def test_parameters_narrow_a_stage(queue: Queue) -> None:
    stage = stage_filter("mid-filtered", books=(200, 1000), types=["DEED", "ASSIGN OIL GAS  MIN"], priorities=[3])
    assert claimed(queue, Scope(stage.where, stage.parameters)) == ["spaced"]


def test_parameters_alone_make_a_stage(queue: Queue) -> None:
    stage = stage_filter(types=["MAP", "RELEASE"], books=(1, 9999))
    assert claimed(queue, Scope(stage.where, stage.parameters)) == ["urgent", "last historical", "by document type"]


def test_a_file_of_ones_own_adds_stages_and_replaces_some(queue: Queue, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('["our plats"]\ntypes = ["MAP"]\nlimit = 7\n[1-small]\nsources = ["direct"]\n', encoding="utf-8")
    assert list(load_stages(own)) == [*NAMES, "our plats"]
    plats, small = stage_filter("our plats", file=own), stage_filter("1-small", file=own)
    assert plats.limit == 7
    assert claimed(queue, Scope(plats.where, plats.parameters)) == ["by document type"]
    assert set(claimed(queue, Scope(small.where, small.parameters))) == LISTED


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "mid-filterd"}, ["no stage 'mid-filterd'", "did you mean 'mid-filtered'", "stage-0-test"]),
        ({"name": "zzz"}, ["no stage 'zzz'", "use one of all, stage-0-test"]),
        ({"name": "all", "books": (5, 2)}, ["books", "first <= last"]),
        ({"name": "all", "types": []}, ["types"]),
        ({"name": "all", "types": "DEED"}, ["types"]),
        ({"name": "historical-all", "books": (300, 400)}, ["'historical-all'", "books 300 to 400"]),
        ({"name": "mid-filtered", "types": ["LEAN", "LIEN"]}, ["'mid-filtered'", "types LEAN, LIEN"]),
        ({"name": "3-large", "priorities": [1, 2]}, ["'3-large'", "priorities 1, 2"]),
    ],
)
def test_what_cannot_select_anything_is_refused(arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        stage_filter(**arguments)  # type: ignore[arg-type]
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a]\nbook = [1, 2]", ["stage 'a'", "no key 'book'", "did you mean 'books'"]),
        ("[a]\nbooks = [1]", ["stage 'a'", "books"]),
        ("[a]\nlimit = 0", ["stage 'a'", "limit"]),
        ("a = 1", ["stage 'a'"]),
        ("[a", ["own.toml", "cannot be read"]),
        (None, ["own.toml", "cannot be read"]),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str | None, words: list[str]) -> None:
    own = tmp_path / "own.toml"
    if text is not None:
        own.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        load_stages(own)
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("done", [0, 199_000])
def test_claims_of_every_stage_stay_on_the_index(database: Database, done: int) -> None:
    """The plan of the real statement, on a table of 200,000 rows: nothing is read that is not pending."""
    database.rows(
        "INSERT INTO index_documents (source, book, page, document_type, instrument_type_parsed, download_priority,"
        " download_status) SELECT 'duprocess', 1 + n / 50, 1 + n %% 50, kind, kind, 1 + n %% 3,"
        " (CASE WHEN n < %s THEN 'completed' ELSE 'pending' END)::item_status"
        " FROM generate_series(0, 199999) AS n,"
        " LATERAL (SELECT (ARRAY['DEED', 'RELEASE', 'MAP'])[1 + n %% 3]) AS t (kind)",
        (done,),
    )
    database.rows("ANALYZE index_documents")
    for name in NAMES:
        plan = plan_of_claim(database, stage_filter(name))
        assert "Seq Scan on index_documents" not in plan, f"{name}\n{plan}"
        assert "index_documents_download_due" in plan, f"{name}\n{plan}"
        assert "index_documents_download_leases" in plan, f"{name}\n{plan}"
        passed_over = sum(map(int, re.findall(r"Rows Removed by Filter: (\d+)", plan)))
        assert passed_over <= min(5000, 200_000 - done), f"{name}\n{plan}"


def plan_of_claim(database: Database, stage: Stage) -> str:
    claim = DOWNLOAD.statement("claim", scope=stage.where, columns="item.*")
    given = {**stage.parameters, "limit": 50, "owner": "me", "run_id": "test", "lease_s": 60}
    connection = connect(database.url)
    try:
        with connection.cursor() as cursor:
            settings, _, statement = claim.as_string(cursor).rpartition(";")
            cursor.execute(settings)
            cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}", given)
            return "\n".join(line for (line,) in cursor.fetchall())
    finally:
        connection.close()  # what EXPLAIN claimed is rolled back
