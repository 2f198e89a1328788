"""Prefect blocks: where the database and the store are, when the environment does not say.

Prefect imports this module through the `prefect.collections` entry point whenever it starts, so it imports nothing
heavy. A server of this machine knows the types by itself; others learn by `prefect block register -m flows.blocks`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlsplit

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from tasks.errors import ConfigurationError, OutsideUnreachable

if TYPE_CHECKING:  # paramiko is heavy
    from tasks.photos_tools import Access

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

    url: str = Field(description="http(s) address of the portal")
    username: str | None = Field(default=None, description="Where the portal asks for a login")
    password: SecretStr | None = Field(default=None, description="Of the user")
    profile: str | None = Field(default=None, description="Portal profile of another county: a name or a path")


class LandrecordsSftp(Block):
    """An SFTP server of site photos, named as `host="block:NAME"` in a deployment's parameters."""

    _block_type_name = "Landrecords SFTP"
    _block_type_slug = "landrecords-sftp"

    host: str = Field(description="Its SSH name or address")
    port: int = Field(default=22, ge=1, le=65535)
    username: str | None = Field(default=None, description="Empty: the name the run's process has")
    password: SecretStr | None = Field(default=None, description="Of the user")
    key_path: str | None = Field(default=None, description="Private key file on the machines that run the flow")
    passphrase: SecretStr | None = Field(default=None, description="Of the key")
    host_key: str | None = Field(default=None, description="Pins the server's key: a public key line, or SHA256:...")


class LandrecordsRegister(Block):
    """A property register's API, named as `api_url="block:NAME"` in a deployment's parameters."""

    _block_type_name = "Landrecords Register"
    _block_type_slug = "landrecords-register"

    url: str = Field(description="http(s) address of the API")
    profile: str | None = Field(default=None, description="What its answers look like: a profile's name or a path")
    key: SecretStr | None = Field(default=None, description="Where the API wants one")


def fill_environment() -> None:
    """Take from the `default` blocks what the environment does not say; call inside a flow run."""
    database = _unless_said("LANDRECORDS_DATABASE_URL", LandrecordsDatabase)
    if database is not None:
        os.environ["LANDRECORDS_DATABASE_URL"] = database.url.get_secret_value()
    store = _unless_said("LANDRECORDS_STORE_URL", LandrecordsStore)
    if store is not None:
        os.environ["LANDRECORDS_STORE_URL"] = store.url


def _unless_said(variable: str, block: type[B]) -> B | None:
    return None if os.environ.get(variable) else _load(block, DEFAULT)


def portal(address: str) -> tuple[str, str | None]:
    """Address and profile of a portal given as an address or as `block:NAME`.

    Raises ConfigurationError when there is no block of that name, and for an address with a password: Prefect writes a
    run's parameters into its database.
    """
    if not address.startswith("block:"):
        refuse_password(address)
        return address, None
    block = _named(LandrecordsPortal, address, "the portal's address")
    return _with_login(block), block.profile


def _with_login(block: LandrecordsPortal) -> str:
    if not block.username:
        return block.url
    password = block.password.get_secret_value() if block.password else ""
    parts = urlsplit(block.url)
    login = f"{quote(block.username, safe='')}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()


def refuse_password(address: str) -> None:
    """Raises ConfigurationError for an address that holds a password; a {name} in its place is none."""
    try:
        parts = urlsplit(address)
    except ValueError:  # no address, as who uses it will say
        return
    password = parts.password
    if password and not (password.startswith("{") and password.endswith("}")):
        raise ConfigurationError(
            f"the address of {parts.hostname} holds a password, which Prefect would keep with the run; "
            "put it into a block of the UI and give block:NAME instead, or for tiles "
            "{password} in the address and values={'password': 'env:NAME'}, or in a workflow url: env:NAME."
        )


def register(address: str) -> tuple[str, str | None, SecretStr | None]:
    """Address, profile and key of a register given as an address or as `block:NAME`.

    Raises ConfigurationError when there is no block of that name.
    """
    if not address.startswith("block:"):
        refuse_password(address)
        return address, None, None
    block = _named(LandrecordsRegister, address, "the register's address")
    return block.url, block.profile, block.key


def sftp(access: Access) -> Access:
    """The access itself, or where its host is `block:NAME` that of the block; what the caller said goes before it.

    Raises ConfigurationError when there is no block of that name.
    """
    if not access.host.startswith("block:"):
        return access
    block = _named(LandrecordsSftp, access.host, "the server's name")
    return replace(
        access,
        host=block.host,
        port=block.port if access.port == 22 else access.port,
        username=access.username or block.username,
        password=access.password or block.password,
        key_path=access.key_path or (Path(block.key_path) if block.key_path else None),
        passphrase=access.passphrase or block.passphrase,
        host_key=access.host_key or block.host_key,
    )


def _named(block: type[B], given: str, instead: str) -> B:
    """The block that `block:NAME` names. Raises ConfigurationError where there is none, OutsideUnreachable."""
    name = given.removeprefix("block:")
    loaded = _load(block, name)
    if loaded is None:
        raise ConfigurationError(
            f"there is no block {name!r} of type {block._block_type_name}; "
            f"make it on the UI's Blocks page, or give {instead} instead."
        )
    return loaded


def _load(block: type[B], name: str) -> B | None:
    """The block of that name, None where there is none. Raises ConfigurationError, OutsideUnreachable."""
    from httpx import HTTPError

    try:
        loaded = block.load(name, _sync=True)  # type: ignore[call-arg]  # a keyword of Prefect's sync wrapper
    except RuntimeError as exc:  # what Prefect makes of fields that are missing or wrong
        raise ConfigurationError(
            f"block {name!r} of type {block._block_type_name} is incomplete; correct it on the UI's Blocks page."
        ) from exc
    except ValueError:  # Prefect raises it for a block, or a block type, that does not exist
        return None
    except HTTPError as exc:
        raise OutsideUnreachable(
            f"the Prefect API does not give its blocks ({exc}); start it, or say everything by LANDRECORDS_* variables."
        ) from exc
    assert isinstance(loaded, block)  # noqa: S101 - load answers its own class
    return loaded
