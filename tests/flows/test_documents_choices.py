"""What the parameters of the documents flow do: limits, stages, retries, dry run, refusals before anything is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from flows.documents import documents
from tasks.checkpoints import Queue
from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.ghostscript import find_ghostscript
from tasks.pacing import host_of
from tasks.sample.corpus import Oddity
from tasks.sample.portal import SamplePortal
from tasks.spool import Spool
from tasks.workloads import DOWNLOAD
from tests.flows.conftest import World
from tests.flows.evidence import disagreements, objects_in, path_of

MakePortal = Callable[..., SamplePortal]
FIRST_GIN = 1_000_000


def asked_for(portal: SamplePortal) -> set[int]:
    """Numbers of the documents that any request was about."""
    return {r.document for r in portal.requests if r.document is not None}


def html(*numbers: int, times: int | None) -> dict[str, object]:
    """Faults: the files of these documents are HTML error pages, so many times."""
    return {"rules": [{"kind": "html", "on": "file", "documents": numbers, "times": times}]}


# --- limit ---


def test_limit_is_exact_also_with_retries(world: World, make_portal: MakePortal) -> None:
    """A row that goes back to pending is tried again in the same run and does not count twice."""
    portal = make_portal(30, faults={"rules": [{"kind": "html", "on": "any", "share": 0.6, "times": 2}]})
    report = world.run(portal.url, index=world.index_of(portal), limit=13)
    assert report.counts["completed"] == 13
    assert sum(report.counts.values()) == world.count("run_id IS NOT NULL") == 13
    assert len(asked_for(portal)) == 13
    assert world.count("download_attempts > 1") > 0, "some were tried again"
    assert world.count("download_status = 'pending' AND run_id IS NULL") == 17

    rest = world.run(portal.url, limit=100)
    assert rest.counts["completed"] == 17
    assert disagreements(world.database, world.store, world.spool) == []


def test_limit_waits_for_rows_that_are_not_due_yet(world: World, make_portal: MakePortal) -> None:
    """Rows an earlier run put off are rows to take: a limit is not used up by them before they are due."""
    portal = make_portal(6)
    world.run(portal.url, index=world.index_of(portal), dry_run=True)
    world.database.rows("UPDATE index_documents SET not_before = now() + interval '2 seconds' WHERE id <= 4")
    report = world.run(portal.url, limit=5)
    assert report.counts["completed"] == 5


# --- stages ---


def test_the_first_look_takes_twenty_rows(world: World, make_portal: MakePortal) -> None:
    portal = make_portal(26)
    report = world.run(portal.url, index=world.index_of(portal), stage="stage-0-test")
    assert report.counts["completed"] == 20
    taken = [row["id"] for row in world.rows() if row["run_id"]]
    by_priority = sorted(world.rows(), key=lambda row: (row["download_priority"], row["id"]))
    assert sorted(taken) == sorted(row["id"] for row in by_priority[:20])


def test_the_retry_stage_takes_only_what_failed(world: World, make_portal: MakePortal) -> None:
    portal = make_portal(16, faults=html(1, 3, times=None))
    first = world.run(portal.url, index=world.index_of(portal), limit=12, backoff_s=0.02)
    failed = {int(row["gin"]) - FIRST_GIN for row in world.rows() if row["download_status"] == "failed"}
    assert first.failures == {"html_error_page": len(failed)}
    assert failed <= {1, 3}
    assert failed
    assert world.count("download_status = 'failed' AND download_attempts = 5") == len(failed)
    portal.faults = "none"
    before = len(portal.requests)

    report = world.run(portal.url, stage="4-retry")
    assert {r.document for r in portal.requests[before:]} == failed
    assert report.counts["completed"] == len(failed)
    assert sum(report.counts.values()) == len(failed)
    assert world.count("download_status = 'pending'") == 4, "rows nobody tried are not the retry stage's"
    again = world.run(portal.url, stage="4-retry")
    assert sum(again.counts.values()) == 0


def test_a_retried_row_is_fetched_again_in_the_same_run(world: World, make_portal: MakePortal) -> None:
    portal = make_portal(10, faults=html(4, 8, times=2))
    report = world.run(portal.url, index=world.index_of(portal))
    assert report.counts["completed"] == 10
    attempts = {int(row["gin"]) - FIRST_GIN: row["download_attempts"] for row in world.rows()}
    assert attempts == {number: 3 if number in (4, 8) else 1 for number in range(10)}


def test_books_and_types_narrow_a_stage(world: World, make_portal: MakePortal) -> None:
    portal = make_portal(20)
    report = world.run(portal.url, index=world.index_of(portal), books=(1, 237))
    taken = [row for row in world.rows() if row["run_id"]]
    assert {row["source"] for row in taken} == {"historical"}
    assert report.counts["completed"] == len(taken) == 4
    kind = next(row["document_type"] for row in world.rows() if not row["run_id"])
    world.run(portal.url, types=[kind])
    taken = [row for row in world.rows() if row["run_id"] and row["source"] != "historical"]
    assert {row["document_type"] for row in taken} == {kind}


# --- what is kept ---


def test_a_page_mismatch_fails_unless_it_is_kept(world: World, make_portal: MakePortal) -> None:
    portal = make_portal(20, oddities={Oddity.PAGE_COUNT: 20})
    index = world.index_of(portal)
    assert world.run(portal.url, index=index).failures == {"page_mismatch": 2}
    assert world.count("num_pages_found <> num_pages AND upload_status = 'completed'") == 0

    report = world.run(portal.url, stage="4-retry", keep_page_mismatch=True)
    assert report.counts["completed"] == 2
    assert report.notes["page_mismatch"] == 2
    assert world.count("num_pages_found <> num_pages AND upload_status = 'completed'") == 2
    assert disagreements(world.database, world.store, world.spool) == []


def test_without_optimising_documents_are_stored_as_they_came(world: World, make_portal: MakePortal) -> None:
    portal = make_portal(10)
    report = world.run(portal.url, index=world.index_of(portal), optimise=False)
    assert report.notes == {"optimise_off": 10}
    for row in world.rows():
        assert (row["optimize_status"], row["optimize_method"], row["gs_version"]) == ("skipped", "none", None)
        scan = portal.corpus.scan(portal.corpus.document(int(row["gin"]) - FIRST_GIN))
        if scan.media_type == "application/pdf":
            assert path_of(row["gcs_path"]).read_bytes() == scan.content
    assert disagreements(world.database, world.store, world.spool) == []


def test_without_ghostscript_a_run_says_so_at_once_and_can_store_documents_as_they_came(
    world: World, make_portal: MakePortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal = make_portal(3)
    index = world.index_of(portal)
    monkeypatch.setenv("PATH", str(world.home))
    find_ghostscript.cache_clear()
    with pytest.raises(ConfigurationError, match="Ghostscript is not installed"):
        world.run(portal.url, index=index)
    assert portal.requests == []
    assert world.run(portal.url, index=index, optimise=False).counts["completed"] == 3


def test_any_list_of_files_works(world: World, make_portal: MakePortal, tmp_path: Path) -> None:
    """A CSV of nothing but addresses: no book, no page, no type."""
    portal = make_portal(20)
    names = [d.file_name for d in map(portal.corpus.document, range(20)) if d.source == "direct"]
    names += [portal.corpus.document(2).file_name, portal.corpus.document(3).file_name]
    index = tmp_path / "list.csv"
    index.write_text("source,source_url\n" + "".join(f"direct,{portal.url}/files/{name}\n" for name in names))
    report = world.run(portal.url, index=index)
    assert report.counts["completed"] == len(names), world.rows()[0]["upload_error"]
    assert len([p for p in objects_in(world.store) if "manifests" not in p.parts]) == len(names)
    assert disagreements(world.database, world.store, world.spool) == []
    assert sum(world.run(portal.url, index=index).counts.values()) == 0


def test_a_run_leaves_the_files_of_a_living_run_alone(world: World, make_portal: MakePortal) -> None:
    """A document lies in the spool a moment before its row says so; whoever sweeps the spool then must not take it."""
    portal = make_portal(6)
    world.run(portal.url, index=world.index_of(portal), dry_run=True)
    with Queue(world.database, DOWNLOAD, run_id="another living run").claim(1) as page:
        spooled = Spool(world.spool).source(page.rows[0]["id"])
        spooled.write_bytes(b"just fetched")
        assert world.run(portal.url).counts["completed"] == 5
        assert spooled.read_bytes() == b"just fetched"
    assert world.run(portal.url).counts["completed"] == 1
    assert disagreements(world.database, world.store, world.spool) == []


# --- dry run ---


def test_a_dry_run_fetches_nothing_and_foretells_the_real_one(world: World, make_portal: MakePortal) -> None:
    portal = make_portal(24)
    index = world.index_of(portal)
    foretold = world.run(portal.url, index=index, limit=15, dry_run=True, requests_per_second=300)
    assert portal.requests == []
    assert world.count("run_id IS NOT NULL OR download_status <> 'pending'") == 0
    assert not (world.store / "manifests").exists()
    assert foretold.dry_run
    assert foretold.estimate["requests_per_second"] == 300
    with get_client(sync_client=True) as client, pytest.raises(ObjectNotFound):
        client.read_global_concurrency_limit_by_name(host_of(portal.url))

    report = world.run(portal.url, limit=15, requests_per_second=300)
    assert foretold.estimate["documents"] == sum(report.counts.values()) == 15
    assert foretold.estimate["requests"] == len(portal.requests)
    assert foretold.estimate["seconds"] == round(len(portal.requests) / 300, 1)


def test_a_dry_run_leaves_the_dial_as_it_stands(world: World, make_portal: MakePortal) -> None:
    portal = make_portal(4)
    host = host_of(portal.url)
    world.run(portal.url, index=world.index_of(portal), limit=1, requests_per_second=250)
    report = world.run(portal.url, dry_run=True, requests_per_second=None)
    assert report.estimate["requests_per_second"] == 250
    report = world.run(portal.url, dry_run=True, requests_per_second=7)
    assert report.estimate["requests_per_second"] == 7
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name(host).slot_decay_per_second == 250


def test_the_retry_stage_can_be_foretold(world: World, make_portal: MakePortal) -> None:
    portal = make_portal(8, faults=html(2, times=None))
    world.run(portal.url, index=world.index_of(portal), backoff_s=0.02)
    foretold = world.run(portal.url, stage="4-retry", dry_run=True)
    assert foretold.estimate["documents"] == world.count("download_status = 'failed'") == 1


# --- refusals ---


def test_a_portal_that_changed_makes_the_run_fail_aloud(world: World, make_portal: MakePortal) -> None:
    """Its pages show neither results nor the words for none: not one document, so the run says so."""
    portal = make_portal(8, faults={"rules": [{"kind": "html", "share": 1.0, "times": None}]})
    with pytest.raises(OutsideUnreachable, match="portal has changed"):
        world.run(portal.url, index=world.index_of(portal), backoff_s=0.02)
    assert world.count("download_status = 'failed'") == 8
    assert {row["download_reason"] for row in world.rows()} <= {"portal_error", "html_error_page"}
    portal.faults = "none"
    assert world.run(portal.url, stage="4-retry").counts["completed"] == 8


def test_a_few_bad_documents_are_no_sign_of_a_changed_portal(world: World, make_portal: MakePortal) -> None:
    """The last documents of a county may all be broken: a run that only tries these fails them, and no more."""
    portal = make_portal(8, faults=html(1, 3, times=None))
    world.run(portal.url, index=world.index_of(portal), backoff_s=0.02)
    assert world.run(portal.url, stage="4-retry", backoff_s=0.02).counts["failed"] == 2


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"portal_url": "ftp://example.org"}, "ftp"),
        ({"portal_url": "the portal"}, "the portal"),
        ({"portal_url": "http://"}, "http"),
        ({"stage": "0-tset"}, "no stage '0-tset'"),
        ({"books": (90, 2)}, "books"),
        ({"profile": "nowhere.toml"}, "nowhere.toml"),
        ({"index": "nowhere.csv"}, "nowhere.csv"),
        ({"index": "index.pdf"}, "index.pdf"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_users_mistake_is_told_before_anything_is_done(
    world: World, make_portal: MakePortal, parameters: dict[str, object], message: str
) -> None:
    portal = make_portal(2)
    index = world.index_of(portal)
    (world.home / "index.pdf").write_bytes(b"%PDF-1.4")
    given = {"portal_url": portal.url, "index": index, "requests_per_second": 100, **parameters}
    if str(given["index"]).startswith(("nowhere", "index.pdf")):
        given["index"] = world.home / str(given["index"])
    with pytest.raises(ConfigurationError, match=message) as caught:
        documents(**given)
    assert "\n" not in str(caught.value), "one sentence"
    assert portal.requests == []
    assert world.database.rows("SELECT count(*) FROM landrecords_runs") == [(0,)]
    assert world.rows() == []
