"""The documents workload: the tasks that download, optimise and upload pages of recorded documents.

One item is one story told once. Download: turn, look-up, turn, fetch, verify, spool, record.
Optimise: plan, Ghostscript, verify, record. Upload: put, verify, record, drop the spooled files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import task

from tasks.agenda import PageOrder
from tasks.checkpoints import Scope, Step
from tasks.documents_tools import UPLOADERS, Job, Toolbox, toolbox
from tasks.downloads import Download
from tasks.errors import TransientError, refuse_when_stopped
from tasks.ghostscript import optimise as optimise_file
from tasks.pages import Row
from tasks.pdf_facts import PdfFacts, sha256_of
from tasks.pipeline import PAGE, PageResult, settle_all
from tasks.portal import adapter_for, mismatch
from tasks.records import ItemId, Outcome, Reason, Status
from tasks.store import document_key, listed_key
from tasks.workloads import DOWNLOAD, OPTIMIZE, UPLOAD

# --- download ---


@task(**PAGE, task_run_name="download-{order.number}")
def download_page(job: Job, order: PageOrder) -> PageResult:
    """Claim a page of rows and fetch their documents into the spool; passes on the ids that completed.

    A page that is run again takes only what its first attempt did not: rows that one gave back are the run's,
    and are tried again with its other retries.
    """
    scope = order.scope(job.scope, job.run_id)
    limit = order.limit - toolbox(job).claimed[order.number]
    return _work_page(job, DOWNLOAD, scope, limit, download, threads=job.workers, number=order.number)


def download(tools: Toolbox, row: Row) -> Outcome:
    """One document from the portal into the spool, validated."""
    with tools.gate.place():
        located = adapter_for(row, tools.profile).locate(row, tools.door)
        fetched = tools.door.download(located.url, tools.spool.fetched(row["id"]))
    try:
        facts = _validated(tools, row, fetched)
    except BaseException:
        tools.spool.drop(row["id"])
        raise
    tools.facts[row["id"]] = facts
    mismatched = mismatch(row, located)
    values = {
        "actual_book": located.book,
        "actual_page": located.page,
        "book_page_mismatch": mismatched,
        "fetched_url": fetched.url,
        "content_type": fetched.content_type,
        "fetched_at": fetched.fetched_at,
        "source_bytes": fetched.size_bytes,
        "source_sha256": fetched.sha256,
        "stored_bytes": facts.size_bytes,
        "stored_sha256": facts.sha256,
        "num_pages_found": facts.pages,
        "spool_id": tools.spool.identity,
    }
    remark = facts.note or (Reason.BOOK_PAGE_MISMATCH if mismatched else None)
    return Outcome(row["id"], Status.COMPLETED, remark, values=values)


def _validated(tools: Toolbox, row: Row, fetched: Download) -> PdfFacts:
    """The ladder's verdict; afterwards the document lies in the spool as a PDF."""
    source = tools.spool.source(row["id"])
    facts = tools.pdf.inspect(
        fetched.path,
        declared_bytes=fetched.declared_bytes,
        expected_pages=row["num_pages"],
        keep_page_mismatch=tools.job.keep_page_mismatch,
    )
    if facts.kind == "tiff":
        tools.pdf.tiff_to_pdf(fetched.path, source)
        fetched.path.unlink()
        return tools.pdf.inspect(source, declared_bytes=None, expected_pages=None)
    fetched.path.replace(source)
    return facts


# --- optimise ---


@task(**PAGE, task_run_name="optimise-{spooled.number}")
def optimise_page(job: Job, spooled: PageResult) -> PageResult:
    """Make the documents of a page smaller where that loses nothing; passes on all of them."""
    scope = Scope().and_ids(spooled.ids)
    tools = toolbox(job)
    return _work_page(job, OPTIMIZE, scope, len(spooled.ids), optimise, threads=2 * tools.cores, number=spooled.number)


def optimise(tools: Toolbox, row: Row) -> Outcome:
    """One document of the spool made smaller, or kept as it is with the reason."""
    item = row["id"]
    facts = tools.facts.pop(item, None)
    if not tools.job.optimise:
        return Outcome(
            item,
            Status.SKIPPED,
            Reason.OPTIMISE_OFF,
            values=_stored("none", row["stored_bytes"], row["stored_sha256"], None),
        )
    source = _spooled(tools, row)
    facts = facts or tools.pdf.inspect(source, declared_bytes=None, expected_pages=None)
    made = optimise_file(source, tools.spool.optimised(item), facts, workers=tools.pdf, stop=tools.stop)
    status = Status.SKIPPED if made.method == "none" else Status.COMPLETED
    values = _stored(made.method, made.size_bytes, made.sha256, made.gs_version)
    return Outcome(item, status, made.reason, values=values)


def _stored(method: str, size_bytes: int, sha256: str, gs_version: str | None) -> dict[str, Any]:
    return {
        "optimize_method": method,
        "stored_bytes": size_bytes,
        "stored_sha256": sha256,
        "gs_version": gs_version,
    }


def _spooled(tools: Toolbox, row: Row) -> Path:
    """The spooled document, if it is the one the row tells of."""
    path = tools.spool.source(row["id"])
    if path.exists() and sha256_of(path) == row["stored_sha256"]:
        return path
    raise TransientError(Reason.SPOOL_LOST, f"{path} is gone or changed; the document is downloaded again.")


# --- upload ---


@task(**PAGE, task_run_name="upload-{optimised.number}")
def upload_page(job: Job, optimised: PageResult) -> PageResult:
    """Put the documents of a page into the store; the spooled files go once the rows say so."""
    scope = Scope().and_ids(optimised.ids)
    return _work_page(job, UPLOAD, scope, len(optimised.ids), upload, threads=UPLOADERS, number=optimised.number)


def upload(tools: Toolbox, row: Row) -> Outcome:
    """One document put into the store under its key; the object is verified when this returns."""
    item = row["id"]
    kept = row["optimize_method"] == "none"
    path = tools.spool.source(item) if kept else tools.spool.optimised(item)
    if not path.exists():
        raise TransientError(Reason.SPOOL_LOST, f"{path} is gone; the document is downloaded again.")
    stored = tools.store.put(
        object_key(row),
        path,
        metadata=object_metadata(row),
        sha256=row["stored_sha256"],
        replaces=row["stored_source_sha256"],
        stop=tools.stop,
    )
    values = {
        "gcs_path": stored.url,
        "stored_bytes": stored.size_bytes,
        "stored_sha256": stored.sha256,
        "stored_source_sha256": row["source_sha256"],
    }
    return Outcome(item, Status.COMPLETED, values=values)


def object_key(row: Row) -> str:
    """Where a row's document lies in the store: by the index's book and page, whatever the portal named.

    A listed file without book and page goes by its `direct_key`, which is the same in every database.
    """
    if row["book"] is None or row["page"] is None:
        return listed_key(row["direct_key"], row["document_type"])
    return document_key(row["book"], row["page"], row["document_type"])


def object_metadata(row: Row) -> dict[str, str]:
    """What is kept with the object, all as text; absent facts are left out."""
    facts = {
        "book": row["book"],
        "page": row["page"],
        "instrument_number": row["instrument_number"],
        "document_type": row["document_type"],
        "original_size": row["source_bytes"],
        "source-sha256": row["source_sha256"],
        "source_url": row["fetched_url"],
        "fetched_at": row["fetched_at"].isoformat() if row["fetched_at"] else None,
        "gs_version": row["gs_version"],
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


# --- what all three have in common ---


def _work_page(
    job: Job,
    step: Step,
    scope: Scope,
    limit: int,
    do: Callable[[Toolbox, Row], Outcome],
    *,
    threads: int,
    number: int = 0,
) -> PageResult:
    """Claim, work, settle; whatever is not settled at the end is released."""
    tools = toolbox(job)
    lost: list[ItemId] = []

    def count(outcome: Outcome, status: str) -> None:
        sizes = _sizes(step, outcome) if status == Status.COMPLETED else {}
        tools.tally.add(step.name, status, **sizes)
        if step is UPLOAD and status == Status.COMPLETED:
            tools.spool.drop(int(outcome.id))
        if outcome.reason == Reason.SPOOL_LOST:
            lost.append(outcome.id)

    with tools.slots[step.name]:
        refuse_when_stopped(tools.stop)
        if limit <= 0:
            return PageResult(number)
        with tools.queue(step).claim(limit, scope) as page:
            if step is DOWNLOAD:
                tools.claimed[number] += len(page.rows)
            page.listener = count
            settle_all(page, lambda row: do(tools, row), threads=threads, stop=tools.stop)
    refuse_when_stopped(tools.stop)
    if lost:
        tools.queue(DOWNLOAD).retry(Scope().and_ids(lost), statuses=[Status.COMPLETED])
    passed = tuple(item for item, status in page.final.items() if status in PASSING[step.name])
    return PageResult(number, passed, page.settled)


PASSING = {
    DOWNLOAD.name: {Status.COMPLETED},
    OPTIMIZE.name: {Status.COMPLETED, Status.SKIPPED},
    UPLOAD.name: {Status.COMPLETED},
}


def _sizes(step: Step, outcome: Outcome) -> dict[str, int]:
    if step is DOWNLOAD:
        return {"bytes_in": outcome.values["source_bytes"]}
    return {"bytes_out": outcome.values["stored_bytes"]} if step is UPLOAD else {}
