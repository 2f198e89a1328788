"""`landrecords up`: the Prefect server, the sample portal and the deployments, served on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType
from rich.console import Console

from flows.demo import Portal, own_documents, sample_portal
from flows.documents import documents
from flows.local import SERVED_BY, prefect_api, terminable
from tasks.errors import ConfigurationError
from tasks.partials import disk
from tasks.postgres import open_database
from tasks.settings import load_settings

RUNS_AT_ONCE = 4
CANCEL_TIMEOUT_S = 10.0


def serve_all(port: int | None, portal_port: int, documents_there: int) -> None:
    """Blocks until Ctrl-C or SIGTERM; then everything that was started here ends.

    Where the database holds documents of the user's own, the server is all there is: the sample would touch them.
    Raises ConfigurationError when a port is taken or `up` runs already in this home.
    """
    settings, configured = load_settings(), PREFECT_API_URL.value()
    # the runs are processes that inherit these
    os.environ.update({"LANDRECORDS_HOME": str(settings.home), SERVED_BY: str(os.getpid())})
    with contextlib.ExitStack() as opened:
        opened.enter_context(terminable())
        opened.enter_context(_the_only_one(settings.home))
        own = own_documents(open_database(settings))
        api = opened.enter_context(prefect_api(settings, port=port, any_port=False))
        places = {"Prefect UI": api.removesuffix("/api"), "store": settings.store}
        if api != configured:
            places["other shells"] = f"export PREFECT_API_URL={api}"
        if own is not None:
            places["sample"] = f"not served: this database holds documents of your own (from {own})"
            asyncio.run(_serve([], places))
        else:
            portal = opened.enter_context(sample_portal(settings.home, documents_there, ports=(portal_port,)))
            places["sample portal"] = portal.url
            places["run it"] = "prefect deployment run documents/sample --watch"
            asyncio.run(_serve(deployments(portal), places))


@contextlib.contextmanager
def _the_only_one(home: Path) -> Iterator[None]:
    """Two that serve the same deployments would start every run twice."""
    with disk(home):
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "up.lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"`landrecords up` runs already for {home}; use that one, or end it first."
            ) from None
        yield


def deployments(portal: Portal) -> list[RunnerDeployment]:
    """The sample deployment of every workload."""
    parameters: dict[str, Any] = {
        "portal_url": portal.url,
        "index": str(portal.index),
        "requests_per_second": 20.0,
        "backoff_s": 0.5,  # the portal breaks some answers on purpose; they are asked for again soon
    }
    sample = documents.to_deployment(
        name="sample",
        parameters=parameters,
        description="Documents of the sample portal. Run it as it is; a second run fetches nothing again.",
        tags=["landrecords", "documents", "sample"],
        schedules=_schedules("documents/sample"),
        entrypoint_type=EntrypointType.MODULE_PATH,
        concurrency_limit=1,
    )
    assert isinstance(sample, RunnerDeployment)  # noqa: S101 - there is no event loop here
    return [sample]


def _schedules(deployment: str) -> list[DeploymentScheduleCreate]:
    """Those an operator gave the deployment, which applying it again would delete; at first a nightly one, off."""
    with get_client(sync_client=True) as client:
        try:
            standing = client.read_deployment_by_name(deployment).schedules
        except ObjectNotFound:
            nightly = CronSchedule(cron="0 2 * * *", timezone="UTC")
            return [DeploymentScheduleCreate(schedule=nightly, active=False)]
    kept = ("schedule", "active", "parameters", "slug", "max_scheduled_runs")
    return [DeploymentScheduleCreate(**{name: getattr(each, name) for name in kept}) for each in standing]


async def _serve(served: list[RunnerDeployment], places: Mapping[str, str]) -> None:
    """Start the runs that are due until a signal comes; then those that go on are cancelled and end themselves.

    `prefect.serve` takes a SIGTERM by stopping the runner from another thread's loop, pauses the deployments
    for good when it ends, and on Ctrl-C kills its runs before they can release their rows.
    """
    runner = Runner(name="landrecords", limit=RUNS_AT_ONCE, pause_on_shutdown=False)
    for deployment in served:
        await runner.aadd_deployment(deployment)
    _say(places)
    stop = asyncio.Event()
    working = asyncio.create_task(runner.start() if served else stop.wait())
    await asyncio.sleep(0)  # by now the runner has set its own handler of SIGTERM
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await asyncio.wait([working, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    if served:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(runner.cancel_all(), CANCEL_TIMEOUT_S)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


def _say(places: Mapping[str, str]) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for name, value in {**places, "end it": "Ctrl-C"}.items():
        console.print(f"{name:<15} {value}")
