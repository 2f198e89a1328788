"""Prefect blocks: where the database and the store are, when the environment does not say.

Registered with `prefect block register -m flows.blocks` or by Prefect itself through the `prefect.collections`
entry point, so this module imports nothing heavy.
"""

from __future__ import annotations

import os
from typing import TypeVar

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

DEFAULT = "default"

B = TypeVar("B", bound=Block)


class LandrecordsDatabase(Block):
    """A Postgres database. A block named `default` stands in for LANDRECORDS_DATABASE_URL."""

    _block_type_name = "Landrecords Database"
    _block_type_slug = "landrecords-database"

    url: SecretStr = Field(description="postgresql://user:password@host/name")


class LandrecordsStore(Block):
    """A store of objects. A block named `default` stands in for LANDRECORDS_STORE_URL."""

    _block_type_name = "Landrecords Store"
    _block_type_slug = "landrecords-store"

    url: str = Field(description="gs://bucket/prefix or file:///folder")


class LandrecordsPortal(Block):
    """A county's portal, named as `portal_url="block:NAME"` in a deployment's parameters."""

    _block_type_name = "Landrecords Portal"
    _block_type_slug = "landrecords-portal"

    url: str = Field(description="http or https address")
    profile: str | None = Field(default=None, description="Portal profile: a name or a path")


def fill_environment() -> None:
    """Take from the `default` blocks what the environment does not say; call inside a flow run."""
    for variable, block in (
        ("LANDRECORDS_DATABASE_URL", LandrecordsDatabase),
        ("LANDRECORDS_STORE_URL", LandrecordsStore),
    ):
        if not os.environ.get(variable):
            value = _default_url(block)
            if value:
                os.environ[variable] = value


def _default_url(block: type[LandrecordsDatabase] | type[LandrecordsStore]) -> str | None:
    try:
        url = _load(block, DEFAULT).url
    except ValueError:  # Prefect raises it for a block, or a block type, that does not exist
        return None
    return url.get_secret_value() if isinstance(url, SecretStr) else url


def portal(address: str) -> tuple[str, str | None]:
    """Address and profile of a portal given as an address or as `block:NAME`."""
    if not address.startswith("block:"):
        return address, None
    block = _load(LandrecordsPortal, address.removeprefix("block:"))
    return block.url, block.profile


def _load(block: type[B], name: str) -> B:
    loaded = block.load(name, _sync=True)  # type: ignore[call-arg]  # a keyword of Prefect's sync wrapper
    assert isinstance(loaded, block)  # noqa: S101 - load answers its own class
    return loaded
