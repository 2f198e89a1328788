"""Blocks: known to Prefect without anybody's doing, light to import, silent about secrets, and used by a run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import requests

from flows import blocks
from flows.blocks import LandrecordsDatabase, LandrecordsPortal, LandrecordsStore
from tasks.errors import ConfigurationError, OutsideUnreachable
from tasks.postgres import Database
from tasks.sample.portal import SamplePortal

SECRET = "s3cret-of-the-block"

Save = Callable[[Any, str], None]


@pytest.fixture
def save(prefect_server: str) -> Iterator[Save]:
    """Saves a block for the length of the test."""
    saved: list[tuple[Any, str]] = []

    def save(block: Any, name: str) -> None:
        block.save(name)
        saved.append((type(block), name))

    yield save
    for kind, name in saved:
        kind.delete(name)


@pytest.fixture
def silent_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that says neither database nor store; an empty value means the default."""
    monkeypatch.setenv("LANDRECORDS_DATABASE_URL", "")
    monkeypatch.setenv("LANDRECORDS_STORE_URL", "")


def test_prefect_finds_the_blocks_through_the_entry_point() -> None:
    (entry,) = [e for e in entry_points(group="prefect.collections") if e.name == "landrecords"]
    assert entry.load() is blocks


def test_the_module_imports_nothing_but_itself() -> None:
    """Prefect imports it whenever it starts: every `prefect` command would wait for it."""
    script = (
        "import prefect.blocks.core, sys; before = set(sys.modules); import flows.blocks;"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['flows', 'flows.blocks', 'tasks', 'tasks.errors']"


def test_a_password_is_not_shown(prefect_server: str, save: Save) -> None:
    block = LandrecordsDatabase(url=f"postgresql://clerk:{SECRET}@db/records")
    save(block, "hidden")
    documents = requests.post(f"{prefect_server}/block_documents/filter", json={}, timeout=30).json()
    (shown,) = [d for d in documents if d["name"] == "hidden"]
    assert shown["data"] == {"url": "********"}
    assert SECRET not in repr(block) + str(block) + json.dumps(documents)
    assert LandrecordsDatabase.load("hidden", _sync=True).url.get_secret_value().endswith("@db/records")


def test_the_default_blocks_speak_where_the_environment_is_silent(
    save: Save, silent_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    blocks.fill_environment()
    assert (os.environ["LANDRECORDS_DATABASE_URL"], os.environ["LANDRECORDS_STORE_URL"]) == ("", "")
    save(LandrecordsDatabase(url="postgresql://of/block"), "default")
    save(LandrecordsStore(url="gs://of-block"), "default")
    monkeypatch.setenv("LANDRECORDS_STORE_URL", "file:///of/environment")
    blocks.fill_environment()
    assert os.environ["LANDRECORDS_DATABASE_URL"] == "postgresql://of/block"
    assert os.environ["LANDRECORDS_STORE_URL"] == "file:///of/environment"


def test_a_portal_by_address_and_by_name(save: Save) -> None:
    save(LandrecordsPortal(url="https://county.example/", profile="other"), "county")
    assert blocks.portal("https://else.example/") == ("https://else.example/", None)
    assert blocks.portal("block:county") == ("https://county.example/", "other")


def test_a_portal_with_a_login_takes_it_from_its_block(save: Save) -> None:
    save(LandrecordsPortal(url="https://county.example:8443/", username="a clerk", password="t0p/s3cret"), "closed")
    assert blocks.portal("block:closed") == ("https://a%20clerk:t0p%2Fs3cret@county.example:8443/", None)


def test_a_password_in_an_address_is_refused_before_prefect_hears_of_it(prefect_server: str) -> None:
    from flows.documents import documents
    from flows.geoetl import geoetl

    url = "postgresql://clerk:t0ps3cret@h/db"
    nodes = [{"id": "a", "type": "data_source.postgis", "parameters": {"url": url}}]
    for call in (
        lambda: documents("http://clerk:t0ps3cret@127.0.0.1:1/"),
        lambda: blocks.portal("http://c:t0ps3cret@h/"),
        lambda: geoetl({"id": "w", "nodes": nodes}),
        lambda: geoetl(f"id: w\nnodes:\n  - {{id: a, type: data_source.postgis, parameters: {{url: '{url}'}}}}"),
        lambda: geoetl("w.yaml", {"from": url}),
    ):
        with pytest.raises(ConfigurationError, match=r"holds a password.*block:NAME") as caught:
            call()
        assert "t0ps3cret" not in str(caught.value)


def test_a_script_ends_with_the_sentence_alone(tmp_path: Path) -> None:
    def said(script: str) -> str:
        command = [sys.executable, "-c", f"from flows.documents import documents\n{script}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
        assert done.returncode == 1
        return done.stderr

    mistaken = "documents('http://clerk:t0ps3cret@127.0.0.1:1/')"
    assert re.fullmatch(r"landrecords: the address of 127\.0\.0\.1 holds a password, .*\n", said(mistaken))
    crash = f"try:\n    {mistaken}\nexcept Exception:\n    1 / 0"
    assert "Traceback" in said(crash), "what nobody raised on purpose is shown whole"


@pytest.mark.parametrize(
    "address", ["https://{user}:{password}@tiles.example/{z}/{x}/{y}", "https://clerk@h/", "a:b@c", "http://a:b@[bad/"]
)
def test_an_address_without_a_password(address: str) -> None:
    blocks.refuse_password(address)


def test_a_name_that_no_block_has(prefect_server: str) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no block 'nowhere' .* make it on the UI's Blocks page"):
        blocks.portal("block:nowhere")


def test_a_block_that_lacks_its_address(prefect_server: str, save: Save) -> None:
    save(LandrecordsPortal.model_construct(url=None, profile=None), "empty")
    with pytest.raises(ConfigurationError, match="block 'empty' of type Landrecords Portal is incomplete"):
        blocks.portal("block:empty")


def test_a_prefect_api_that_is_away(prefect_server: str) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    nowhere = {PREFECT_API_URL: "http://127.0.0.1:1/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(nowhere), pytest.raises(OutsideUnreachable, match="does not give its blocks"):
        blocks.portal("block:county")


def test_a_run_takes_database_store_and_portal_from_blocks(
    database: Database,
    database_url: str,
    tmp_path: Path,
    save: Save,
    silent_environment: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows.documents import documents

    store = tmp_path / "store of the block"
    monkeypatch.setenv("LANDRECORDS_HOME", str(tmp_path / "home"))
    save(LandrecordsDatabase(url=database_url), "default")
    save(LandrecordsStore(url=store.as_uri()), "default")
    with SamplePortal(2, oddities={}) as portal:
        portal.write_index(tmp_path / "index.csv")
        save(LandrecordsPortal(url=portal.url), "county")
        report = documents("block:county", index=tmp_path / "index.csv", requests_per_second=100, optimise=False)
    assert report.counts["completed"] == 2
    assert database.rows("SELECT count(*) FROM index_documents WHERE upload_status = 'completed'") == [(2,)]
    assert len(list(store.rglob("documents/**/*.pdf"))) >= 2
    assert not (tmp_path / "home" / "store").exists()
