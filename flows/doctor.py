"""`landrecords doctor`: what a run needs, looked at one by one."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from prefect.settings import PREFECT_API_URL
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.local import answers, refuse_away
from tasks.errors import ConfigurationError, LandrecordsError, OutsideUnreachable
from tasks.ghostscript import find_ghostscript
from tasks.postgres import open_database, pending_migrations
from tasks.settings import Settings, load_settings
from tasks.spool import Spool
from tasks.store import open_store
from tasks.tally import size

ENOUGH_BYTES = 2_000_000_000


def examine(console: Console) -> int:
    """Print a line per need; returns 0, 2 (something is wrong here) or 3 (something outside is away)."""
    settings, code = load_settings(), 0
    table = Table("what", "state", "says", title="landrecords doctor", title_justify="left")
    for name, look in CHECKS.items():
        state, says, weight = _looked(look, settings)
        table.add_row(name, state, Text(says))
        code = max(code, weight)
    console.print(table)
    return code


def _looked(look: Callable[[Settings], str], settings: Settings) -> tuple[str, str, int]:
    """State, sentence and exit code of one need."""
    try:
        return "ok", look(settings), 0
    except OutsideUnreachable as exc:
        return "away", str(exc), 3
    except LandrecordsError as exc:
        return "wrong", str(exc), 2


def _python(_settings: Settings) -> str:
    return f"{sys.version.split()[0]} in {sys.prefix}"


def _ghostscript(_settings: Settings) -> str:
    found = find_ghostscript()
    return f"{found.version} at {found.executable}"


def _database(settings: Settings) -> str:
    database = open_database(settings)
    waiting = pending_migrations(database)
    if waiting:
        raise ConfigurationError(f"{', '.join(waiting)} not applied; run `landrecords db upgrade`.")
    kind = "configured" if settings.database_url else "embedded"
    return f"{kind}, PostgreSQL {database.rows('SHOW server_version')[0][0]}"


def _store(settings: Settings) -> str:
    with open_store(settings.store) as store:
        store.check()
    return settings.store


def _spool(settings: Settings) -> str:
    folder = Spool(settings.spool).folder
    free = shutil.disk_usage(folder).free
    if free < ENOUGH_BYTES:
        raise OutsideUnreachable(f"{folder} has only {size(free)} free; make room or set LANDRECORDS_SPOOL_DIR.")
    return f"{folder}, {size(free)} free"


def _prefect(_settings: Settings) -> str:
    api = PREFECT_API_URL.value()
    if api and answers(api):
        return f"{api} answers"
    refuse_away(api)
    return "no server runs; a run starts one (or keep one with `landrecords up`)"


CHECKS: dict[str, Callable[[Settings], str]] = {
    "Python": _python,
    "Ghostscript": _ghostscript,
    "database": _database,
    "store": _store,
    "spool": _spool,
    "Prefect API": _prefect,
}
