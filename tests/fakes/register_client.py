"""Loads a sample register's answers as a flow would, without the network: claim, take the bodies, load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from psycopg2 import sql

from tasks.checkpoints import Queue
from tasks.postgres import Database
from tasks.records import Status
from tasks.register_changes import KINDS, sight
from tasks.register_loading import COLUMNS, Fetched, Loaded, Loader
from tasks.register_profile import RegisterProfile, load_register
from tasks.register_tables import TABLES
from tasks.sample.register_land import Rows
from tasks.sample.register_office import RegisterOffice
from tasks.workloads import PROPERTIES

DANISH, COUNTY = load_register("boligsiden"), load_register("sample-county")

Bodies = Callable[[str], bytes | None]


def find(database: Database, ids: Iterable[str], profile: RegisterProfile = DANISH, search_id: str = "search") -> None:
    """Make pending rows."""
    sight(database, search_id, list(ids), source=profile.source, municipality="København", address_type="villa")


def body_of(office: RegisterOffice, profile: RegisterProfile = DANISH, version: int = 0) -> Bodies:
    """What the sample register answers for an id."""

    def body(item: str) -> bytes:
        number = office.land.find(item.removeprefix(profile.id_prefix))
        assert number is not None
        return office.body(number, version, county=profile is COUNTY)

    return body


def load_all(
    database: Database,
    bodies: Bodies,
    *,
    loader: Loader | None = None,
    profile: RegisterProfile = DANISH,
    run_id: str = "run",
    limit: int = 400,
) -> Loaded:
    """Load everything that is pending, page by page."""
    loader, total = loader or Loader(profile), Loaded()
    queue = Queue(database, PROPERTIES, run_id=run_id)
    while True:
        with queue.claim(limit, columns=COLUMNS) as page:
            if not page.rows:
                return total
            total.add(loader.load(page, [Fetched(row["id"], bodies(row["id"])) for row in page.rows]))


def fetch_again(database: Database) -> None:
    """All of it is to be fetched anew."""
    Queue(database, PROPERTIES, run_id="again").retry(statuses=[Status.COMPLETED, Status.FAILED])


class Change(NamedTuple):
    """One change of one property. `fields` is given for `changed`; listing and prices for `price`."""

    property_id: str
    address: str | None
    kind: str
    fields: tuple[str, ...]
    case_id: str | None
    old_price: Decimal | None
    new_price: Decimal | None


def changes(database: Database, run_id: str, *, kinds: Sequence[str] = KINDS) -> list[Change]:
    """The run's changes, in the order they were noted."""
    rows = database.rows(
        "SELECT c.property_id, p.address, c.kind, coalesce(c.fields, '{}'), c.case_id, c.old_price, c.new_price"
        " FROM property_changes AS c JOIN properties AS p ON p.id = c.property_id"
        " WHERE c.run_id = %s AND c.kind = ANY(%s) ORDER BY c.id",
        (run_id, list(kinds)),
    )
    return [Change(item, address, kind, tuple(fields), *rest) for item, address, kind, fields, *rest in rows]


def rows_of(database: Database, table: str, columns: Iterable[str]) -> list[dict[str, Any]]:
    """The table's rows as dictionaries."""
    names = list(columns)
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(table))
    return [dict(zip(names, row, strict=True)) for row in database.rows(query)]


def differences(database: Database, truth: Rows, profile: RegisterProfile = DANISH) -> list[str]:
    """Where the tables do not hold what they must: nothing, when all is well."""
    found = []
    for name, source in profile.tables.items():
        table = TABLES[name]
        columns = [c for c in table.names if c == "property_id" or c in source.columns]
        there = {_key(row, table.key): row for row in rows_of(database, name, columns)}
        wanted = {_key(row, table.key): row for row in (_prefixed(r, name, profile) for r in truth.get(name, []))}
        found += [f"{name}: {key} is not there" for key in wanted.keys() - there.keys()]
        found += [f"{name}: {key} is not right" for key in there.keys() - wanted.keys()]
        for key in wanted.keys() & there.keys():
            found += [
                f"{name}: {key} {c} is {there[key][c]!r}, not {wanted[key].get(c)!r}"
                for c in columns
                if there[key][c] != wanted[key].get(c)
            ]
    return sorted(found)


def _key(row: Mapping[str, Any], key: Iterable[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in key)


def _prefixed(row: dict[str, Any], table: str, profile: RegisterProfile) -> dict[str, Any]:
    name = "property_id" if TABLES[table].of_property else "id" if table == "properties" else None
    return {**row, name: profile.id_prefix + row[name]} if name else row
