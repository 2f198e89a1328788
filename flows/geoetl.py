"""Geospatial workflows: nodes that read, change, join and write features, run in parallel and streaming.

Killed at any moment, a run goes on with `resume_run_id`: what its stages have stored is not made again.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from flows import blocks
from flows.workload import workload
from tasks.geo.chain import NodeFailed
from tasks.geo.engine import STAGES_AT_ONCE
from tasks.geo.reading import load_workflow
from tasks.geo.template_files import workflow_source
from tasks.geo.validation import check
from tasks.geoetl import run_workflow
from tasks.geoetl_outside import Doors
from tasks.geoetl_records import RunRecords, RunRow, Trigger, end_killed
from tasks.geoetl_tools import Request, Runner, opened_toolbox, roots_of
from tasks.geoetl_work import Before, before_of, closing_report, estimate, told
from tasks.pipeline import threads_needed
from tasks.postgres import open_database
from tasks.records import RunReport
from tasks.reporting import publish, reported
from tasks.settings import load_settings
from tasks.workloads import GEOETL_NODES

THREADS = STAGES_AT_ONCE * (1 + threads_needed(1))
"""Of the task runner: a stage occupies one, and its mapped parts one each."""


@workload(name="geoetl", task_runner=ThreadPoolTaskRunner(max_workers=THREADS))
def geoetl(
    workflow: Annotated[
        str | dict[str, Any], Field(description="Path of a YAML or JSON file, a template's name, or the definition")
    ],
    parameters: Annotated[dict[str, Any] | None, Field(description="Values for the workflow's parameters")] = None,
    runner: Annotated[Runner, Field(description="Where parts of a stage are computed")] = "threads",
    dry_run: Annotated[bool, Field(description="Only check the workflow and say what it would do")] = False,
    resume_run_id: Annotated[
        str | None, Field(description="A run that failed or was ended: go on with what it has done")
    ] = None,
    memory_mb: Annotated[int, Field(ge=16, le=1_048_576, description="For features under way, in MB")] = 256,
    threads: Annotated[int | None, Field(ge=1, le=256, description="That compute; None: one a processor")] = None,
    roots: Annotated[
        list[str] | None, Field(description="Files are read and made only below these folders; None: anywhere")
    ] = None,
    trigger: Annotated[Trigger, Field(description="What began the run, for its record")] = "manual",
    tenant: Annotated[
        str, Field(min_length=1, max_length=100, description="Whose run it is, for its record")
    ] = "default",
) -> RunReport:
    """Run a workflow; returns its nodes by status, what was read and written, and each node's figures."""
    blocks.fill_environment()
    settings, base = load_settings(), Path.cwd()
    database = open_database(settings)
    given = {"dry_run": dry_run, "runner": runner, "resumed_from": resume_run_id}
    with closing(database), reported("geoetl", database, (GEOETL_NODES,), given) as run:
        end_killed(database)
        definition = load_workflow(workflow_source(workflow))
        before = Before(run.run_id, {}, runner)
        if resume_run_id is not None:
            before = before_of(database, resume_run_id, definition.id)
        origin, values = before.origin, dict(parameters or before.parameters)
        doors = Doors(database.url, settings.store, roots_of(roots, base), base)
        checked = check(definition, values, doors)
        checked.require()
        if dry_run:
            return publish(run, run.empty_report(dry_run=True, estimate=estimate(database, checked)))
        resumed = None if origin == run.run_id else origin
        records = RunRecords(database, RunRow(run.run_id, definition, values, runner, trigger, tenant, resumed))
        request = Request(run.run_id, origin, checked, runner, before.runner != "threads", memory_mb, threads)
        with opened_toolbox(request, settings, doors, records, run.tally) as tools:
            records.begin()
            try:
                run_workflow(tools)
            except BaseException as exc:
                tools.stop.set()
                closing_report(run, tools, exc)
                if isinstance(exc, NodeFailed):
                    raise told(exc, run.run_id) from exc
                raise
            return closing_report(run, tools, None)
