"""`landrecords up`: the Prefect server, the sample portal and the deployments, served on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType
from pydantic import SecretStr
from rich.console import Console

from flows import blocks
from flows.demo import own_documents
from flows.documents import documents
from flows.geoetl import geoetl
from flows.local import prefect_api, quick_clients
from flows.photos import photos
from flows.properties import properties
from flows.samples import Portal, Server, Sites, sample_portal, sample_register, sample_sites, sample_tiles
from flows.tiles import tiles
from flows.workload import SERVED_BY, terminable
from tasks.errors import ConfigurationError
from tasks.partials import disk
from tasks.postgres import open_database
from tasks.sample.plots import write_plots
from tasks.settings import load_settings

RUNS_AT_ONCE = 4
CANCEL_TIMEOUT_S = 10.0


def serve_all(
    port: int | None, portal_port: int, tiles_port: int, sites_port: int, register_port: int, documents_there: int
) -> None:
    """Blocks until Ctrl-C or SIGTERM; then everything that was started here ends.

    Where the database holds documents of the user's own, the sample of documents is not served: it would touch them.
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
        os.environ.update({setting.name: value for setting, value in quick_clients(api, settings.home).items()})
        places = {"Prefect UI": api.removesuffix("/api"), "store": settings.store}
        if api != configured:
            places["other shells"] = f"export PREFECT_API_URL={api}"
        tile_server = opened.enter_context(sample_tiles(settings.home, ports=(tiles_port,)))
        site_server = opened.enter_context(sample_sites(settings.home, ports=(sites_port,)))
        register = opened.enter_context(sample_register(settings.home, ports=(register_port,)))
        served = [tiles_deployment(tile_server), photos_deployment(site_server), properties_deployment(register)]
        served.append(geoetl_deployment(settings.home))
        if own is not None:
            places["documents"] = f"sample not served: this database holds documents of your own (from {own})"
        else:
            portal = opened.enter_context(sample_portal(settings.home, documents_there, ports=(portal_port,)))
            places["sample portal"] = portal.url
            served.insert(0, documents_deployment(portal))
        places |= {"sample tiles": tile_server.url, "sample sites": f"sftp://127.0.0.1:{site_server.port}"}
        places["sample register"] = register.url
        for deployment in served:
            name = f"{deployment.flow_name}/{deployment.name}"
            places[f"run {deployment.flow_name}"] = f"prefect deployment run {name} --watch"
        asyncio.run(_serve(served, places))


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


def documents_deployment(portal: Portal) -> RunnerDeployment:
    """Documents of the sample portal."""
    parameters: dict[str, Any] = {
        "portal_url": portal.url,
        "index": str(portal.index),
        "requests_per_second": 20.0,
        "backoff_s": 0.5,  # the portal breaks some answers on purpose; they are asked for again soon
    }
    said = "Documents of the sample portal. Run it as it is; a second run fetches nothing again."
    return _deployment(documents, parameters, said)


def tiles_deployment(server: Server) -> RunnerDeployment:
    """A thousand tiles of the sample village, made into one archive."""
    parameters: dict[str, Any] = {
        "url_template": f"{server.url}/parcels/{{z}}/{{x}}/{{y}}.png",
        "layer": "sample-parcels",
        "zoom": [16, 17],
        "x_range": [66016, 66047],
        "y_range": [53000, 53031],
        "requests_per_second": 200.0,
        "archive": "pmtiles",
        "backoff_s": 0.5,
    }
    said = "A thousand tiles of a sample map, as a PMTiles archive. A second run fetches nothing again."
    return _deployment(tiles, parameters, said)


def photos_deployment(server: Sites) -> RunnerDeployment:
    """Photos of three sample sites, read over SFTP. The way in is a block, as it would be for a real server."""
    blocks.LandrecordsSftp(
        host="127.0.0.1",
        port=server.port,
        username=server.username,
        password=SecretStr(server.password),
        host_key=server.host_key,
    ).save("sample-sites", overwrite=True, _sync=True)  # type: ignore[call-arg]  # a keyword of Prefect's sync wrapper
    parameters = {"host": "block:sample-sites", "root": server.root}
    said = "Where the photos of three sample sites were taken, with a map each. A second run reads no photo again."
    return _deployment(photos, parameters, said)


def properties_deployment(server: Server) -> RunnerDeployment:
    """Homes in four towns of the sample register."""
    parameters: dict[str, Any] = {
        "api_url": server.url,
        "municipalities": ["København", "Dragør", "Gentofte", "Roskilde"],
        "requests_per_second": 100.0,
        "export": "both",
        "backoff_s": 0.5,
    }
    said = "Homes in four towns of a sample register, with a snapshot. A second run fetches no home again."
    return _deployment(properties, parameters, said)


def geoetl_deployment(home: Path) -> RunnerDeployment:
    """Sample plots with a border around them, in a table and a file."""
    folder = home / "sample"
    parameters: dict[str, Any] = {
        "workflow": "plots-buffered",
        "parameters": {
            "source": str(write_plots(folder / "plots.gpkg")),
            "output": str(folder / "plots-buffered.gpkg"),
            "table": "sample_plots_buffered",
        },
        "roots": [str(folder)],
    }
    said = (
        "2,000 sample plots, each with a border of 5 m: in the table sample_plots_buffered and in a GeoPackage. "
        "Those drawn wrongly are in its layer invalid, with the reason."
    )
    return _deployment(geoetl, parameters, said)


def _deployment(flow: Flow[..., Any], parameters: dict[str, Any], description: str) -> RunnerDeployment:
    sample = flow.to_deployment(
        name="sample",
        parameters=parameters,
        description=description,
        tags=["landrecords", flow.name, "sample"],
        schedules=_schedules(f"{flow.name}/sample"),
        entrypoint_type=EntrypointType.MODULE_PATH,
        concurrency_limit=1,
    )
    assert isinstance(sample, RunnerDeployment)  # noqa: S101 - there is no event loop here
    return sample


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


async def _serve(served: Sequence[RunnerDeployment], places: Mapping[str, str]) -> None:
    """Start the runs that are due until a signal comes; then those that go on are cancelled and end themselves.

    `prefect.serve` takes a SIGTERM by stopping the runner from another thread's loop, pauses the deployments
    for good when it ends, and on Ctrl-C kills its runs before they can release their rows.
    """
    runner = Runner(name="landrecords", limit=RUNS_AT_ONCE, pause_on_shutdown=False)
    for deployment in served:
        await runner.aadd_deployment(deployment)
    stop = asyncio.Event()
    working = asyncio.create_task(runner.start())
    while not (runner.started or working.done()):  # by then the runner has set its own handler of SIGTERM
        await asyncio.sleep(0.05)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _say(places)
    await asyncio.wait([working, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(runner.cancel_all(), CANCEL_TIMEOUT_S)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


def _say(places: Mapping[str, str]) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for name, value in {**places, "end it": "Ctrl-C"}.items():
        console.print(f"{name:<15} {value}")
