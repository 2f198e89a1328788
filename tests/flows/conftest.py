"""A world for runs inside the test's process: home, store, database, portal, Prefect server."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

from tasks.postgres import Database, connect
from tasks.records import RunReport
from tasks.sample.corpus import GeneratedCorpus
from tasks.sample.portal import SamplePortal
from tests.flows.evidence import Row, rows_of

SECRET = "pa55-w0rd-of-the-database"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class World:
    """Where the runs of a test happen. `run` and `tiles` call the flows as plain functions."""

    home: Path
    database: Database

    @property
    def store(self) -> Path:
        return self.home / "store"

    @property
    def spool(self) -> Path:
        return self.home / "spool"

    def run(self, portal_url: str, **parameters: Any) -> RunReport:
        from flows.documents import documents

        return documents(portal_url, **{"requests_per_second": 500, "backoff_s": 0.2, **parameters})

    def tiles(self, template: str, layer: str, zoom: int | list[int], **parameters: Any) -> RunReport:
        from flows.tiles import tiles

        return tiles(template, layer, zoom, **{"backoff_s": 0.2, "patience_s": 20.0, **parameters})

    def rows(self) -> list[Row]:
        return rows_of(self.database)

    def count(self, condition: str) -> int:
        return int(self.database.rows(f"SELECT count(*) FROM index_documents WHERE {condition}")[0][0])

    def index_of(self, portal: SamplePortal, name: str = "index.csv") -> Path:
        portal.write_index(self.home / name)
        return self.home / name


@contextmanager
def opened_world(home: Path, postgres_url: str) -> Iterator[World]:
    """A world with a database of its own, whose address holds a password."""
    name = f"flows_{next(_numbers)}"
    _run(postgres_url, sql.SQL("CREATE DATABASE {} TEMPLATE migrated").format(sql.Identifier(name)))
    url = _with_password(_url_of(postgres_url, name))
    database = Database(url, size=2, application_name="the-test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDRECORDS_HOME", str(home))
        patch.setenv("LANDRECORDS_DATABASE_URL", url)
        for variable in ("LANDRECORDS_STORE_URL", "LANDRECORDS_SPOOL_DIR"):
            patch.delenv(variable, raising=False)
        yield World(home, database)
    database.close()
    _run(postgres_url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def world(tmp_path: Path, postgres_url: str, prefect_server: str) -> Iterator[World]:
    """A world of the test's own."""
    with opened_world(tmp_path, postgres_url) as made:
        yield made


@pytest.fixture
def make_portal() -> Iterator[Callable[..., SamplePortal]]:
    """`make_portal(documents, oddities={}, ...)`: a running portal of 10 different scans."""
    opened: list[SamplePortal] = []

    def make(documents: int, **options: Any) -> SamplePortal:
        corpus = GeneratedCorpus(documents, 7, options.pop("oddities", {}), distinct=options.pop("distinct", 10))
        opened.append(SamplePortal(corpus, prepare=True, **options).__enter__())
        return opened[-1]

    yield make
    for portal in opened:
        portal.__exit__(None, None, None)


def _url_of(server_url: str, name: str) -> str:
    head, _, tail = server_url.partition("?")
    return f"{head.rpartition('/')[0]}/{name}?{tail}"


def _with_password(url: str) -> str:
    return url.replace("postgres@", f"postgres:{SECRET}@", 1)


def _run(url: str, statement: sql.Composable) -> None:
    connection = connect(_url_of(url, "postgres"))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
