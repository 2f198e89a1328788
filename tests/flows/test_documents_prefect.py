"""What Prefect shows of a documents run: artifacts, events, names, tags, limits, the dial; and no secret."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, TaskRun

from tasks.errors import OutsideUnreachable
from tasks.pacing import host_of
from tasks.records import RunReport
from tasks.sample.corpus import GeneratedCorpus, Oddity
from tasks.sample.portal import SamplePortal
from tests.flows.conftest import SECRET, World, opened_world

DOCUMENTS = 48


@dataclass(frozen=True)
class Seen:
    """A finished run and what the Prefect API knows of it."""

    world: World
    host: str
    report: RunReport
    client: SyncPrefectClient

    @property
    def run_id(self) -> UUID:
        return UUID(self.report.run_id)

    def artifacts(self) -> dict[str, Artifact]:
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[self.run_id]))
        return {artifact.key or "": artifact for artifact in self.client.read_artifacts(artifact_filter=mine)}

    def task_runs(self) -> list[TaskRun]:
        mine = FlowRunFilter(id=FlowRunFilterId(any_=[self.run_id]))
        return self.client.read_task_runs(flow_run_filter=mine, limit=200)

    def events(self) -> list[dict[str, Any]]:
        wanted = {"event": {"name": ["landrecords.documents.page"]}}
        answer = self.client.request("POST", "/events/filter", json={"filter": wanted, "limit": 50})
        mine = f"landrecords.documents.{self.run_id}"
        found = answer.json()["events"]
        return [e for e in found if e["resource"]["prefect.resource.id"] == mine]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, prefect_server: str) -> Iterator[Seen]:
    """A run of 48 documents, a few of which fail."""
    corpus = GeneratedCorpus(DOCUMENTS, 7, {Oddity.NOT_FOUND: 12, Oddity.BOOK_PAGE: 12}, distinct=10)
    with (
        opened_world(tmp_path_factory.mktemp("prefect"), postgres_url) as world,
        SamplePortal(corpus, prepare=True) as portal,
        get_client(sync_client=True) as client,
    ):
        report = world.run(portal.url, index=world.index_of(portal), requests_per_second=17)
        found = Seen(world, host_of(portal.url), report, client)
        _wait_for(lambda: _all_ended(found.task_runs()))
        yield found


def _all_ended(runs: list[TaskRun]) -> bool:
    """The server hears of them by events, in batches: at least 5 pages of 3 stages."""
    return len(runs) >= 15 and all(run.state and run.state.is_final() for run in runs)


def _wait_for(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


def test_progress_results_failures_and_report_are_artifacts(seen: Seen) -> None:
    artifacts = seen.artifacts()
    assert {"documents-progress", "documents-results", "documents-failures", "documents-report"} <= set(artifacts)
    assert artifacts["documents-progress"].type == "progress"
    assert artifacts["documents-progress"].data == 100.0
    assert f"{DOCUMENTS} of {DOCUMENTS} done" in str(artifacts["documents-progress"].description)
    results = str(artifacts["documents-results"].data)
    for step, counts in seen.report.steps.items():
        assert step in results
        assert f'"completed": {counts["completed"]}' in results
    failed = str(artifacts["documents-failures"].data)
    assert failed.count("not_found") == seen.report.counts["failed"] > 0
    page = str(artifacts["documents-report"].data)
    assert "not_found" in page
    assert "book_page_mismatch" in page
    assert f"manifests/documents/{seen.run_id}.jsonl" in page


def test_an_event_tells_of_every_page(seen: Seen) -> None:
    events = _wait_for(lambda: found if len(found := seen.events()) >= pages(seen, "upload") else None)
    assert events, "page events"
    stored = sum(event["payload"]["counts"].get("completed", 0) for event in events)
    assert stored == seen.report.counts["completed"]
    numbers = [event["payload"]["page"] for event in events]
    assert len(set(numbers)) == len(numbers)


def pages(seen: Seen, stage: str) -> int:
    return sum(run.name.startswith(f"{stage}-") for run in seen.task_runs())


def test_task_runs_are_named_by_page_and_tagged(seen: Seen) -> None:
    tags = {"download": f"portal-{seen.host}", "optimise": "ghostscript", "upload": "store"}
    runs = seen.task_runs()
    names = [run.name for run in runs]
    assert len(set(names)) == len(names), "each page once"
    for run in runs:
        stage, _, number = run.name.partition("-")
        assert tags[stage] in run.tags
        assert number.isdigit()
        assert run.state_name == "Completed", f"{run.name}: {run.state_name}"
    assert pages(seen, "download") == pages(seen, "optimise") == pages(seen, "upload") >= 5


def test_every_tag_has_a_limit_and_the_host_its_dial(seen: Seen) -> None:
    for tag in (f"portal-{seen.host}", "ghostscript", "store"):
        limit = seen.client.read_concurrency_limit_by_tag(tag)
        assert limit.concurrency_limit > 0
        assert limit.active_slots == [], "given back"
    dial = seen.client.read_global_concurrency_limit_by_name(seen.host)
    assert dial.slot_decay_per_second == 17
    assert dial.active


def test_stages_overlap_page_by_page(seen: Seen) -> None:
    runs = seen.task_runs()
    downloads = [run.end_time for run in runs if run.name.startswith("download") and run.end_time]
    optimises = [run.start_time for run in runs if run.name.startswith("optimise") and run.start_time]
    uploads = [run.start_time for run in runs if run.name.startswith("upload") and run.start_time]
    assert min(optimises) < max(downloads)
    assert min(uploads) < max(downloads)


# --- secrets ---


def test_the_databases_password_is_shown_nowhere(seen: Seen) -> None:
    """Not in logs, artifacts, parameters, task runs, rows, or any file of the home folder."""
    assert SECRET in seen.world.database.url
    logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[seen.run_id]))
    lines = _wait_for(lambda: seen.client.read_logs(log_filter=logs, limit=200))
    texts = {
        "logs": [line.message for line in lines],
        "artifacts": [artifact.model_dump_json() for artifact in seen.artifacts().values()],
        "flow run": [seen.client.read_flow_run(seen.run_id).model_dump_json()],
        "task runs": [run.model_dump_json() for run in seen.task_runs()],
        "events": [str(event) for event in seen.events()],
        "rows": [str(row) for row in seen.world.database.rows("SELECT to_jsonb(d) FROM index_documents AS d")],
        "runs": [str(row) for row in seen.world.database.rows("SELECT to_jsonb(r) FROM landrecords_runs AS r")],
    }
    assert {where: len(found) > 0 for where, found in texts.items()} == dict.fromkeys(texts, True)
    assert [where for where, found in texts.items() if any(SECRET in text for text in found)] == []
    files = [path for path in seen.world.home.rglob("*") if path.is_file()]
    assert [str(path) for path in files if SECRET.encode() in path.read_bytes()] == []


def test_a_database_that_is_away_is_told_without_its_password(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LANDRECORDS_DATABASE_URL", f"postgresql://clerk:{SECRET}@127.0.0.1:9/records")
    with pytest.raises(OutsideUnreachable, match="database does not answer") as caught:
        world.run("http://127.0.0.1:9")
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SECRET not in str(chain)
        chain = chain.__cause__ or chain.__context__
    assert SECRET not in "".join(capfd.readouterr())
