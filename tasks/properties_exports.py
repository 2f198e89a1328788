"""What is made of a register once it is loaded: snapshots of its tables, in the store."""

from __future__ import annotations

import shutil
from pathlib import Path

from prefect import task

from tasks.errors import refuse_when_stopped
from tasks.pipeline import PAGE
from tasks.properties_tools import Job, toolbox
from tasks.register_exports import ExportOrder, make_snapshot, store_snapshot


@task(**PAGE, task_run_name="export-{order.folder}")
def build_export(job: Job, order: ExportOrder) -> tuple[str, ...]:
    """Write a snapshot's files from the tables; returns their paths on this machine."""
    tools = toolbox(job)
    refuse_when_stopped(tools.stop)
    return tuple(map(str, make_snapshot(tools.database, order, tools.work, tools.stop)))


@task(**PAGE, task_run_name="upload-export")
def upload_export(job: Job, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Put a snapshot's files into the store; returns their keys."""
    tools = toolbox(job)
    refuse_when_stopped(tools.stop)
    files = [Path(path) for path in paths]
    keys = store_snapshot(tools.database, tools.store, files, tools.work, tools.stop)
    shutil.rmtree(files[-1].parent, ignore_errors=True)
    return tuple(keys)
