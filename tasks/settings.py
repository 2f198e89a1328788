"""Where things are: database, store, spool. From the environment, with defaults under one home folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.errors import ConfigurationError


class Settings(BaseSettings):
    """`LANDRECORDS_*` environment variables. An empty value means the default."""

    model_config = SettingsConfigDict(env_prefix="LANDRECORDS_", env_ignore_empty=True, extra="ignore")

    home: Path = Field(default=Path(".landrecords"), description="folder for everything kept on this machine")
    database_url: SecretStr | None = Field(default=None, description="postgresql://...; unset: the embedded Postgres")
    store_url: str | None = Field(default=None, description="file:///folder or gs://bucket/prefix; unset: home/store")
    spool_dir: Path | None = Field(default=None, description="downloads before they reach the store; unset: home/spool")
    stages: Path | None = Field(default=None, description="a stages file of your own, over the shipped stages")

    def resolved(self) -> Settings:
        """The same settings with every path absolute and every default filled in (except the database)."""
        home = self.home.expanduser().resolve()
        spool = self.spool_dir.expanduser().resolve() if self.spool_dir else home / "spool"
        stages = self.stages.expanduser() if self.stages else None
        store = self.store_url or (home / "store").as_uri()
        _check_store_url(store)
        return self.model_copy(update={"home": home, "spool_dir": spool, "store_url": store, "stages": stages})

    @property
    def spool(self) -> Path:
        """Absolute spool folder; only on resolved settings."""
        assert self.spool_dir is not None  # noqa: S101 - resolved() fills it
        return self.spool_dir

    @property
    def store(self) -> str:
        """Store address; only on resolved settings."""
        assert self.store_url is not None  # noqa: S101 - resolved() fills it
        return self.store_url


def load_settings() -> Settings:
    """Settings of this process, resolved. Raises ConfigurationError in one sentence."""
    try:
        return Settings().resolved()
    except ValidationError as exc:
        first = exc.errors()[0]
        name = "LANDRECORDS_" + str(first["loc"][0]).upper()
        raise ConfigurationError(f"{name} is not usable ({first['msg']}); correct it or unset it.") from exc
    except RuntimeError as exc:  # pathlib: a ~ that leads nowhere
        names = "LANDRECORDS_HOME, LANDRECORDS_SPOOL_DIR or LANDRECORDS_STAGES"
        message = f"{names} begins with the ~ of an unknown user; give the whole path."
        raise ConfigurationError(message) from exc


def _check_store_url(url: str) -> None:
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "file" and parts.path.startswith("/") and parts.netloc in ("", "localhost"):
            return
        if parts.scheme == "gs" and parts.netloc:
            return
    shown = "an address with a user or password" if "@" in url else repr(url)
    raise ConfigurationError(f"LANDRECORDS_STORE_URL is {shown}; use file:///absolute/folder or gs://bucket/prefix.")
