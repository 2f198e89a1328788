"""What the nodes of a workflow reach: files below the allowed folders, Postgres, the store. Made of the doors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError
from tasks.postgres_lent import lent
from tasks.store import open_store

_FROM_ENVIRONMENT = "env:"


@dataclass(frozen=True)
class Doors:
    """An `Outside` (see tasks.geo.nodes). Small and picklable: workers in other processes have their own.

    database_url  of the landrecords database
    roots         files are read and made only below these folders; empty: wherever this user may
    base          relative paths begin here
    """

    database_url: str
    store_url: str
    roots: tuple[Path, ...] = ()
    base: Path = Path()

    def readable(self, path: str) -> Path:
        """A local file to read. Raises ConfigurationError outside the allowed folders, or where there is none."""
        found = self._allowed(path)
        if not os.access(found, os.F_OK):  # also below a folder that this user may not look into
            raise ConfigurationError(f"There is no file {found}; correct the path.")
        return found

    def writable(self, path: str) -> Path:
        """A local file to make; its folder may be missing. Raises ConfigurationError outside the allowed folders."""
        found = self._allowed(path)
        if found.is_dir():
            raise ConfigurationError(f"{found} is a folder; give the path of a file in it.")
        there = next(folder for folder in found.parents if os.access(folder, os.F_OK))
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ConfigurationError(f"Nothing can be made in {there}; choose another folder.")
        return found

    def _allowed(self, path: str) -> Path:
        """Absolute, without symbolic links: one that leads out of the allowed folders is outside."""
        found = resolved(self.base, path)
        if self.roots and not any(found.is_relative_to(root) for root in self.roots):
            allowed = ", ".join(map(str, self.roots))
            raise ConfigurationError(f"{found} lies outside of {allowed}; move it there, or allow its folder (roots).")
        return found

    @contextmanager
    def postgres(self, url: str | None) -> Iterator[Any]:
        """A psycopg2 connection, in no transaction; None: the landrecords database. Closed at the end.

        `env:NAME` reads the address there, so that a workflow file holds no password.
        """
        with lent(_address(url) if url else self.database_url, "landrecords-geoetl") as connection:
            yield connection

    def put(self, key: str, path: Path, media_type: str) -> str:
        """Upload a file to the store; returns its address."""
        with open_store(self.store_url) as store:
            return store.put_replacing(key, path, content_type=media_type).url


def resolved(base: Path, path: str) -> Path:
    """The path, absolute and without symbolic links. Raises ConfigurationError for one that cannot be."""
    if path.startswith("/vsi"):
        raise ConfigurationError(f"{path!r} is an address of GDAL's; give the path of a file.")
    try:
        return (base / Path(path).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError) as exc:  # a loop of links, an unknown ~user, a NUL
        raise ConfigurationError(f"{path!r} is no path that can be used; correct it.") from exc


def _address(url: str) -> str:
    if url.startswith(_FROM_ENVIRONMENT):
        name = url.removeprefix(_FROM_ENVIRONMENT)
        if not os.environ.get(name):
            raise ConfigurationError(f"The environment variable {name} is not set; put the database's address there.")
        return os.environ[name]
    return url
