"""Runs that were killed: Prefect shows them as running for ever and, for a minute, counts their pages as at work.

The rows they held are given back by `Queue.release_dead`; this is the same for what Prefect keeps of them: the
tag limits' slots, without which a run resumed at once would wait for a killed one's pages, and the state.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Crashed

from tasks.owners import is_dead
from tasks.postgres import Database

log = logging.getLogger(__name__)

_PAGES_READ = 200
_UNKNOWN_BEFORE_S = 0.001  # how long a slot was taken enters an average; a killed run's time says nothing


def end_dead_runs(database: Database, workload: str) -> int:
    """End the runs of this machine's killed processes: crashed in Prefect, ended in the table; returns how many.

    A Prefect server that is away is left alone: its leases lapse by themselves within 75 s.
    """
    found = database.rows(
        "SELECT run_id, parameters ->> 'owner' FROM landrecords_runs WHERE ended_at IS NULL AND workload = %s",
        (workload,),
    )
    dead = [run_id for run_id, owner in found if owner and is_dead(owner)]
    if dead:
        _end_in_prefect(database, dead)
        database.rows("UPDATE landrecords_runs SET ended_at = now() WHERE run_id = ANY(%s)", (dead,))
    return len(dead)


def _end_in_prefect(database: Database, run_ids: list[str]) -> None:
    try:
        with get_client(sync_client=True) as client:
            tags = set().union(*(_end(client, UUID(run_id)) for run_id in run_ids))
            living = "SELECT count(*) FROM landrecords_runs WHERE ended_at IS NULL AND NOT run_id = ANY(%s)"
            if database.rows(living, (run_ids,)) == [(0,)]:
                _free(client, database, tags, _hosts(database, run_ids))
    except (httpx.HTTPError, PrefectException, RuntimeError) as exc:
        log.warning("killed runs not ended in Prefect: %s", exc)


def _hosts(database: Database, run_ids: list[str]) -> set[str]:
    """What the runs leaned on, as their tags name it."""
    named = (
        "SELECT coalesce(parameters ->> 'host', parameters ->> 'portal') FROM landrecords_runs WHERE run_id = ANY(%s)"
    )
    return {host for (host,) in database.rows(named, (run_ids,)) if host}


def _free(client: SyncPrefectClient, database: Database, tags: set[str], hosts: set[str]) -> None:
    """Give back the slots of pages whose start Prefect had not heard of when they were killed, or has since; only
    when no run of ours is alive, whose pages may have begun this moment. A minute later their leases would lapse."""
    for limit in client.read_concurrency_limits(limit=_PAGES_READ, offset=0):
        if limit.tag in tags or limit.tag.partition("-")[2] in hosts:
            for holder in limit.active_slots:
                if _is_ours(client, database, holder):
                    client.decrement_v1_concurrency_slots([limit.tag], holder, _UNKNOWN_BEFORE_S)


def _is_ours(client: SyncPrefectClient, database: Database, task_run_id: UUID) -> bool:
    """Whether it is a page of a run we recorded, or one that Prefect never heard of."""
    try:
        of_run = str(client.read_task_run(task_run_id).flow_run_id)
    except ObjectNotFound:
        return True
    return bool(database.rows("SELECT 1 FROM landrecords_runs WHERE run_id = %s", (of_run,)))


def _end(client: SyncPrefectClient, flow_run_id: UUID) -> set[str]:
    """Give back its slots and set its state; returns the tags of its pages."""
    tags: set[str] = set()
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    offset = 0
    while pages := client.read_task_runs(flow_run_filter=mine, limit=_PAGES_READ, offset=offset):
        for page in pages:
            tags.update(page.tags)
            if page.state is None or not page.state.is_final():
                client.decrement_v1_concurrency_slots(page.tags, page.id, _UNKNOWN_BEFORE_S)
        offset += len(pages)
    state: State[None] = Crashed(message="its process was killed; a later run goes on with what it left")
    with suppress(ObjectNotFound):  # a run without this Prefect server
        client.set_flow_run_state(flow_run_id, state, force=True)
    return tags
