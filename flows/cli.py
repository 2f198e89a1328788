"""The `landrecords` command: every mistake ends in one sentence with its remedy, never in a traceback."""

from __future__ import annotations

import csv
import difflib
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tasks import workloads
from tasks.checkpoints import Queue, Scope, Step
from tasks.errors import ConfigurationError, LandrecordsError, OutsideUnreachable
from tasks.postgres import Database, migrate, open_database
from tasks.records import Reason, Status
from tasks.settings import load_settings

UsageError: type[Exception] = typer.BadParameter.__mro__[2]
"""click's ClickException. Older Typers import click, newer ones carry their own; both export this child of it."""

INTERRUPTED = 130
PIPED_COLUMNS = 160
"""Width of a table that goes to a file or a pipe, where rich would take 80."""

HELP = """Land and property records in bulk. A run goes on where the last one stopped.

Exit codes: 0 all done, 1 some items failed, 2 bad usage or configuration, 3 an outside system is unreachable."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=HELP)
db = typer.Typer(help="The database: its address, its migrations.")
app.add_typer(db, name="db")

WorkloadName = Annotated[str, typer.Argument(metavar="WORKLOAD", help=", ".join(workloads.WORKLOADS))]
ReasonName = Annotated[str | None, typer.Option(metavar="REASON", help="Only items that failed for this reason")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"landrecords {version('landrecords')}")
        raise typer.Exit


@app.callback()
def landrecords(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """What stands before the command's name."""


@app.command()
def demo(
    documents: Annotated[int, typer.Option(min=1, max=100_000, help="Documents the sample portal has")] = 200,
    requests_per_second: Annotated[float, typer.Option(min=0.1, help="The portal's dial")] = 60.0,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the Prefect UI up until Ctrl-C")] = False,
) -> None:
    """Run the documents flow on a sample portal. A second time, nothing is fetched again."""
    from flows.demo import run_demo

    raise typer.Exit(run_demo(documents, requests_per_second, keep=keep))


@app.command()
def up(
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port of the Prefect server and its UI (default: as configured, else 4200)"
        ),
    ] = None,
    portal_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the sample portal")] = 4280,
    tiles_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the sample tile server")] = 4281,
    sites_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the sample site server")] = 4282,
    register_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the sample register")] = 4283,
    documents: Annotated[int, typer.Option(min=1, max=100_000, help="Documents the sample portal has")] = 200,
) -> None:
    """Serve the Prefect UI, sample servers and the deployments on this machine, until Ctrl-C."""
    from flows.serving import serve_all

    serve_all(port, portal_port, tiles_port, sites_port, register_port, documents)


@app.command()
def status(workload: WorkloadName, as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False) -> None:
    """Count the items by step and status."""
    of = workloads.workload(workload)
    counts = workloads.status_counts(_database(), of)
    if as_json:
        typer.echo(json.dumps(counts))
        return
    table = Table("step", title=of.name, title_justify="left")
    for each in of.statuses:
        table.add_column(each, justify="right")
    for step, of_step in counts.items():
        table.add_row(step, *(f"{of_step[status]:,}" for status in of.statuses))
    console().print(table)


@app.command()
def failed(
    workload: WorkloadName,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV")] = False,
    reason: ReasonName = None,
) -> None:
    """List every failed item with its reason; the exit code is 1 when there is one."""
    of = workloads.workload(workload)
    items = workloads.failed_items(_database(), of, reason=_known(reason))
    if as_csv:
        _print_csv(of, items)
    else:
        _print_items(items)
    raise typer.Exit(1 if items else 0)


@app.command()
def retry(
    workload: WorkloadName,
    reason: ReasonName = None,
    step: Annotated[str | None, typer.Option(metavar="STEP", help="Only items that failed in this step")] = None,
    skipped: Annotated[
        bool, typer.Option("--skipped", help="Skipped items too (of the first step, or of STEP)")
    ] = False,
) -> None:
    """Put failed items back to pending, so that the next run takes them."""
    of, wanted = workloads.workload(workload), _known(reason)
    if not of.steps:
        raise ConfigurationError(f"a run of {of.name} is resumed: run the flow again with its id as resume_run_id.")
    steps = [of.step(step)] if step else list(of.steps)
    database = _database()
    # a step skipped later on (nothing to optimise) did not end its item, so only the first one's, or STEP's, go back
    total = sum(_put_back(database, each, wanted, skipped=skipped and each is steps[0]) for each in steps)
    typer.echo(f"Items pending again: {total:,}. {'The next run takes them.' if total else 'Nothing to retry.'}")


def _put_back(database: Database, step: Step, reason: str | None, *, skipped: bool) -> int:
    statuses = [Status.FAILED, Status.SKIPPED] if skipped else [Status.FAILED]
    scope = Scope(f"{step.column('reason')} = %(reason)s", {"reason": reason}) if reason else Scope()
    return Queue(database, step, run_id="retry").retry(scope, statuses=statuses)


@app.command()
def doctor() -> None:
    """Look whether everything a run needs is here, and say what to do where it is not."""
    from flows.doctor import examine

    raise typer.Exit(examine(console()))


@db.command()
def upgrade() -> None:
    """Bring the database's tables up to date."""
    settings = load_settings()
    given = settings.database_url
    applied = migrate(Database(given.get_secret_value())) if given else migrate(open_database(settings))
    typer.echo(f"Applied {', '.join(applied)}." if applied else "The database is up to date.")


@db.command()
def url() -> None:
    """Print the database's address without its password, as psql takes it."""
    from psycopg2.extensions import make_dsn, parse_dsn

    known = parse_dsn(_database().url)
    known.pop("password", None)
    typer.echo(make_dsn(**known))


def console() -> Console:
    """Standard output as rich sees it, with room for whole rows when nobody's terminal limits them."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_COLUMNS)


def _database() -> Database:
    return open_database(load_settings())


def _known(reason: str | None) -> str | None:
    """The reason itself. Raises ConfigurationError for a word that no item can have."""
    if reason is None or reason in set(Reason):
        return reason
    near = difflib.get_close_matches(reason, list(Reason), n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"use one of {', '.join(Reason)}."
    raise ConfigurationError(f"there is no reason {reason!r}; {remedy}")


def _print_csv(of: workloads.Workload, items: Sequence[dict[str, Any]]) -> None:
    fields = ["id", *of.names, "step", "reason", "error", "attempts", "failed_at"]
    writer = csv.DictWriter(sys.stdout, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(items)


def _print_items(items: Sequence[dict[str, Any]]) -> None:
    if not items:
        typer.echo("Nothing failed.")
        return
    table = Table("id", "item", "step", "reason", "attempts", "error")
    apart = ("id", "step", "reason", "attempts", "error", "failed_at")
    for item in items:
        name = " ".join(str(v) for k, v in item.items() if k not in apart and v is not None)
        told = ("" if item[k] is None else str(item[k]) for k in ("step", "reason", "attempts", "error"))
        table.add_row(*(Text(cell) for cell in (str(item["id"]), name, *told)))  # Text: an error may hold [brackets]
    console().print(table)


def main() -> None:
    """Entry point. Without arguments: say which commands there are."""
    sys.exit(_guarded(lambda: app(sys.argv[1:] or ["--help"], prog_name="landrecords", standalone_mode=False)))


def _guarded(command: Callable[[], Any]) -> int:
    """Run a command; returns its exit code, having said in one sentence what went wrong."""
    try:
        code = command()
        sys.stdout.flush()
        return int(code or 0)
    except UsageError as exc:
        return _say(_usage(exc), 2)
    except LandrecordsError as exc:
        return _say(
            str(exc), 2 if isinstance(exc, ConfigurationError) else 3 if isinstance(exc, OutsideUnreachable) else 1
        )
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # `landrecords failed documents | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _usage(exc: Any) -> str:
    """click's sentence with where to read more."""
    command = exc.ctx.command_path if getattr(exc, "ctx", None) else "landrecords"
    return f"{exc.format_message().rstrip('.')}; see `{command} --help`."


def _say(message: str, code: int) -> int:
    typer.echo(f"landrecords: {message}", err=True)
    return code
