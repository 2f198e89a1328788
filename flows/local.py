"""The Prefect server on this machine: joined when it runs, started when it does not.

Prefect's own ephemeral server loses task runs under load and says "database is locked"; a real
`prefect server` on SQLite does not. It is started once per home folder and lives until its last user ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.settings import (
    PREFECT_API_KEY,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    temporary_settings,
)

from tasks import services
from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.settings import Settings
from tasks.work_folders import work_folder

DEFAULT_PORT = 4200


@contextlib.contextmanager
def prefect_api(settings: Settings, *, port: int | None = None, any_port: bool = True) -> Iterator[str]:
    """Address of a Prefect API that answers, in force for the block.

    The one configured (environment, profile, prefect.toml) when it answers; else, when none is configured
    or it is on this machine, the local server of this home. Raises OutsideUnreachable for a remote one.

    port      the local server, started on this port, whatever is configured
    any_port  where its port is taken: True takes another, False raises ConfigurationError
    """
    configured = PREFECT_API_URL.value() if port is None else None
    if configured and answers(configured):
        url = configured
    else:
        refuse_away(configured)
        wanted = port or (urlsplit(configured).port if configured else None) or DEFAULT_PORT
        url = local_server(settings.home, ports=(wanted, 0) if any_port else (wanted,))
    with temporary_settings({PREFECT_API_URL: url, **quick_clients(url, settings.home)}):
        yield url


def quick_clients(api_url: str, home: Path) -> dict[Any, str]:
    """Prefect makes a client for every slot it takes and every lease it renews, and each reads the whole bundle of
    certificate authorities (30 ms), also where the API is plain http and needs none: there it reads one."""
    if not api_url.startswith("http://"):
        return {}
    file = home / "prefect" / "one-authority.pem"
    if not file.exists():
        end = "-----END CERTIFICATE-----\n"
        file.parent.mkdir(parents=True, exist_ok=True)
        with work_folder(file) as folder:
            fresh = folder / file.name
            fresh.write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
            fresh.replace(file)
    return {PREFECT_API_SSL_CERT_FILE: str(file)}


def refuse_away(configured: str | None) -> None:
    """Raises OutsideUnreachable for an API on another machine, which cannot be started from here, and
    ConfigurationError for what is no address."""
    try:
        parts = urlsplit(configured or "")
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        remedy = "give it like http://127.0.0.1:4200/api, or unset it"
        raise ConfigurationError(f"PREFECT_API_URL is no address ({exc}); {remedy}.") from exc
    if configured and host not in {"127.0.0.1", "localhost", "::1"}:
        raise OutsideUnreachable(
            f"the Prefect API {configured} does not answer; start it, or unset PREFECT_API_URL for a local one."
        )


def is_of_home(api_url: str, home: Path) -> bool:
    """Whether this is the address of the home's own server, which ends with its last user."""
    facts = services.running(home / "prefect")
    return facts is not None and facts["api_url"] == api_url


def answers(api_url: str) -> bool:
    """Whether a Prefect API is healthy at this address."""
    key = PREFECT_API_KEY.value()
    secret = key.get_secret_value() if hasattr(key, "get_secret_value") else key
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    try:
        return requests.get(f"{api_url.rstrip('/')}/health", timeout=5, headers=headers).status_code == 200
    except requests.RequestException:
        return False


def local_server(home: Path, *, ports: Sequence[int] = (DEFAULT_PORT, 0)) -> str:
    """API address of this home's Prefect server, kept until this process ends.

    When nobody runs it, it is started on the first free of the ports (0: any).
    """
    folder = home / "prefect"
    facts, started = services.hold(folder, lambda: _service(folder, _free_port(ports)))
    if started:
        _forget_slots(facts["api_url"])
    return facts["api_url"]


def _service(folder: Path, port: int) -> services.Service:
    api_url = f"http://127.0.0.1:{port}/api"
    return services.Service(
        name="Prefect server",
        folder=folder,
        command=[
            *(sys.executable, "-W", "ignore", "-m", "flows.prefect_server"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        probe=lambda: answers(api_url),
        environment=server_environment(folder),
        facts={"api_url": api_url, "ui_url": f"http://127.0.0.1:{port}"},
        start_timeout_s=120,
    )


def server_environment(folder: Path) -> dict[str, str]:
    """Settings measured to keep SQLite calm under thousands of task runs."""
    return {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # a page that waits for its tag looks again every second rather than every ten
        "PREFECT_SERVER_TASKS_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
        "PREFECT_API_URL": "",
        # a schedule that somebody makes or turns on takes effect within seconds rather than a minute
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
        # the UI asks the server it came from, on whatever port or through whatever tunnel (default: port 4200)
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PYTHONWARNINGS": "ignore",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]).strip(
            os.pathsep
        ),
    }


def _free_port(wanted: Sequence[int]) -> int:
    for port in wanted:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if port:
                _reserve(port)
            return int(probe.getsockname()[1])
    taken = " and ".join(str(port) for port in wanted)
    raise ConfigurationError(f"port {taken} is taken by another program; choose another with --port.")


_reserved: list[int] = []


def _reserve(port: int) -> None:
    """The server listens seconds after its port was found free: meanwhile no other home may choose it, or it
    would take the other's server for its own. Raises OSError when one has. The lock ends with this process."""
    path = Path(tempfile.gettempdir(), f"landrecords-port-{port}")
    # another user's file may be opened, but not with O_CREAT in a folder of everybody's (fs.protected_regular)
    file = os.open(path, os.O_RDONLY if path.exists() else os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    _reserved.append(file)


def _forget_slots(api_url: str) -> None:
    """A server that was just started has no runs: slots that killed ones held are given back, those of tags and
    those of deployments, which would never run again. Leases live in the server's memory, the number of
    taken slots in its database; the server's own `reset` of a tag only revokes leases (3.8.8)."""
    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        for limit in client.read_global_concurrency_limits(limit=200, offset=0):
            if limit.active_slots and limit.name.startswith(("tag:", "deployment:")):
                client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=0))
