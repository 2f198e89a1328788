"""The Postgres door for statements that a user had a hand in: any database, and every error told to that user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from tasks.errors import ConfigurationError, LandrecordsError, OutsideUnreachable, TerminalError, TransientError
from tasks.postgres import PATIENCE, first_line
from tasks.records import Reason


@contextlib.contextmanager
def lent(url: str, application_name: str = "landrecords") -> Iterator[psycopg2.extensions.connection]:
    """A connection of its own, closed at the end.

    Raises what the database's error means to the user: ConfigurationError (no such table, no right, a mistake in a
    query), TerminalError (a value it refuses), TransientError (a deadlock, a lock that was not to be had), and
    OutsideUnreachable.
    """
    try:
        connection = psycopg2.connect(url, application_name=application_name, **PATIENCE)
    except psycopg2.Error as exc:
        raise error_of(exc, url) from exc
    try:
        yield connection
    except psycopg2.Error as exc:
        raise error_of(exc, url) from exc
    finally:
        connection.close()


def error_of(exc: psycopg2.Error, url: str) -> LandrecordsError:
    """Ours for an error of psycopg2's."""
    said = first_line(exc)
    match exc:
        case psycopg2.extensions.TransactionRollbackError() | psycopg2.errors.LockNotAvailable():
            return TransientError(Reason.CONNECTION, f"The database could not do it now ({said}); try again.")
        case psycopg2.OperationalError() | psycopg2.InterfaceError():
            return OutsideUnreachable(f"The database {_place(url)} does not answer ({said}); start it or correct url.")
        case psycopg2.DataError() | psycopg2.IntegrityError():
            return TerminalError(Reason.BAD_ROW, f"The database refuses a value ({said}); correct it or leave it out.")
        case psycopg2.ProgrammingError() if exc.pgcode is None and ("dsn" in said or "connection option" in said):
            return ConfigurationError("That is no address of a database; use postgresql://user:password@host/name.")
        case _:
            return ConfigurationError(f"The database {_place(url)} says: {said}; correct the node.")


def _place(url: str) -> str:
    """Name and host of a database, without user and password."""
    try:
        known = psycopg2.extensions.parse_dsn(url)
    except psycopg2.ProgrammingError:
        return "given"
    return f"{known.get('dbname', '')} at {known.get('host', 'localhost')}"
