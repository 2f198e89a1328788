"""The geoetl workload: a stage of a workflow is a task, and so is each of its parts, mapped in a bounded window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from prefect import Task, task
from prefect.client.schemas.objects import State

from tasks.errors import refuse_when_stopped
from tasks.geo.chain import NodeFailed
from tasks.geo.engine import Engine, RunRecord
from tasks.geo.stage_folder import StageRecord
from tasks.geo.stage_work import StageWork
from tasks.geoetl_tools import Job, Toolbox, toolbox
from tasks.pipeline import PAGE, PageResult, run_pages

TAGS = {"geoetl"}
MOST_RETRIES = 100
_NAME_CHARACTERS = 60


@dataclass(frozen=True)
class PartOrder:
    """A part of a stage."""

    stage: str
    number: int


async def _again(_task: Any, _run: Any, state: State[Any]) -> bool:
    """The stage has counted the node's attempts and knows what heals."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, NodeFailed) and error.again


NODES_WORK: dict[str, Any] = {
    **PAGE,
    "retries": MOST_RETRIES,
    "retry_delay_seconds": None,
    "retry_condition_fn": _again,
}
"""Prefect sleeps through a delay of its own whatever happens meanwhile (3.8.8): the failed attempt waits instead."""


@task(**NODES_WORK, tags=TAGS)
def run_stage(job: Job, name: str) -> PageResult:
    """Prepare a stage, run its parts, conclude it."""
    tools = toolbox(job)
    work = tools.engine.works[name]
    with _waiting(tools.engine):
        numbers = work.prepare()
    orders = (PartOrder(name, number) for number in numbers)
    for _ in run_pages((_named(run_part, name),), job, orders, stop=tools.stop):
        pass
    refuse_when_stopped(tools.stop)
    with _waiting(tools.engine):
        done = work.conclude()
    return PageResult(0, (), {node: measured.features_out for node, measured in done.measured.items()})


@task(**NODES_WORK, tags=TAGS)
def run_part(job: Job, order: PartOrder) -> PageResult:
    """Read, compute and write one part of a stage."""
    tools = toolbox(job)
    with _waiting(tools.engine):
        record = tools.engine.works[order.stage].run_part(order.number)
    return PageResult(order.number, (), {node: measured.features_out for node, measured in record.measured.items()})


@contextmanager
def _waiting(engine: Engine) -> Iterator[None]:
    """A failure that is tried again leaves the block after a delay; a run that ends cuts it short."""
    try:
        yield
    except NodeFailed as exc:
        engine.waits(exc)
        raise


def run_workflow(tools: Toolbox) -> RunRecord:
    """Every stage as a task, each as soon as those before it are done. Raises NodeFailed, or StopRequested."""
    return tools.engine.run(partial(_as_task, tools))


def _as_task(tools: Toolbox, work: StageWork) -> StageRecord:
    name = work.stage.name
    for _ in run_pages((_named(run_stage, name),), tools.job, [name], stop=tools.stop):
        pass
    refuse_when_stopped(tools.stop)
    return cast(StageRecord, work.concluded)


def _named(of: Task[Any, Any], stage: str) -> Task[Any, Any]:
    """The task under the stage's name, cut where it is long."""
    name = stage if len(stage) <= _NAME_CHARACTERS else stage[: _NAME_CHARACTERS - 3] + "..."
    return of.with_options(task_run_name=name if of is run_stage else name + " {order.number}")
