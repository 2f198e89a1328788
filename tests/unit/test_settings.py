"""Where things are: the environment, its defaults, and one sentence for what cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import ConfigurationError
from tasks.settings import load_settings


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("HOME", "DATABASE_URL", "STORE_URL", "SPOOL_DIR"):
        monkeypatch.delenv(f"LANDRECORDS_{name}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_with_nothing_set_all_is_under_one_folder_here(bare: Path) -> None:
    settings = load_settings()
    assert settings.home == bare / ".landrecords"
    assert settings.spool == bare / ".landrecords" / "spool"
    assert settings.store == (bare / ".landrecords" / "store").as_uri()
    assert settings.database_url is None
    assert not settings.home.exists(), "reading settings makes nothing"


def test_an_empty_value_is_the_default(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "DATABASE_URL", "STORE_URL", "SPOOL_DIR"):
        monkeypatch.setenv(f"LANDRECORDS_{name}", "")
    settings = load_settings()
    assert settings.home == bare / ".landrecords"
    assert settings.database_url is None


def test_paths_are_absolute_and_know_the_users_home(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(bare))
    monkeypatch.setenv("LANDRECORDS_HOME", "~/records")
    monkeypatch.setenv("LANDRECORDS_SPOOL_DIR", "fast disk")
    monkeypatch.setenv("LANDRECORDS_STAGES", "~/stages.toml")
    settings = load_settings()
    assert settings.home == bare / "records"
    assert settings.spool == bare / "fast disk"
    assert settings.stages == bare / "stages.toml"
    assert settings.store == (bare / "records" / "store").as_uri()


def test_a_home_with_odd_characters_gives_a_store_address_that_reads_back(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANDRECORDS_HOME", str(bare / "Ünïts & co #1"))
    assert "#" not in load_settings().store


@pytest.mark.parametrize("url", ["file:///data/store", "file://localhost/data", "gs://bucket", "gs://bucket/a/b"])
def test_usable_stores(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDRECORDS_STORE_URL", url)
    assert load_settings().store == url


UNUSABLE = [
    "s3://bucket",
    "file://relative/x",
    "gs:///x",
    "/data/store",
    "nonsense",
    "file:x",
    "gs://[x",
    "s3://k:s3cret@b",
]


@pytest.mark.parametrize("url", UNUSABLE)
def test_unusable_stores_are_named_with_the_remedy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDRECORDS_STORE_URL", url)
    with pytest.raises(ConfigurationError, match=r"LANDRECORDS_STORE_URL.*use file:///.*gs://") as refused:
        load_settings()
    assert "s3cret" not in str(refused.value)


def test_the_database_address_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDRECORDS_DATABASE_URL", "postgresql://plant:hunter2@db/records")
    settings = load_settings()
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value().endswith("@db/records")
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_what_cannot_be_read_is_one_sentence(monkeypatch: pytest.MonkeyPatch, bare: Path) -> None:
    monkeypatch.setenv("HOME", str(bare))
    monkeypatch.setenv("LANDRECORDS_HOME", "~nobody-of-this-name/x")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value).count("\n") == 0
