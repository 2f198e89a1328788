"""The sample register API: any number of homes, in two shapes, with a cap, versions and switchable faults.

In a test, `with SampleRegister(2000) as register:` runs it in a thread. For a demo or a benchmark,
`python -m tasks.sample.register --villas 14368 --port 0` runs it as a process that prints one line of JSON when it is
ready. What the tables must hold after a run says `SampleRegister.land` (`tasks.sample.register_land.Land.truth`).

    GET /search/addresses, /addresses/{id}    as boligsiden.dk: counted pages, at most 10,000 hits a query
    GET /v2/parcels, /v2/parcels/{id}         profile `sample-county`: a cursor, no cap, a key in X-Api-Key
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import ConfigurationError
from tasks.sample.faults import NONE
from tasks.sample.register_land import Land
from tasks.sample.register_office import API_KEY, CAP, Habits, RegisterOffice
from tasks.sample.running import AnyFaults, InThread, add_options, run_process

__all__ = ["API_KEY", "SampleRegister"]


class SampleRegister(InThread):
    """The register in a thread of this process, for tests.

    villas   how many, or of each town by its name (`tasks.sample.register_towns.TOWNS`)
    version  how often it was brought up to date; may be assigned while it runs
    habits   keywords of `tasks.sample.register_office.Habits`
    land     what there is: `land.truth(version)` are the rows that the tables must hold

    The rest as `InThread`.
    """

    def __init__(
        self,
        villas: int | Mapping[str, int] = 200,
        *,
        version: int = 0,
        seed: int = 7,
        faults: AnyFaults = NONE,
        latency_ms: float = 0.0,
        log: Path | None = None,
        port: int = 0,
        **habits: Any,
    ) -> None:
        self.land = Land(villas, seed)
        self.office = RegisterOffice(self.land, Habits(**habits), version)
        super().__init__(self.office, seed=seed, faults=faults, latency_ms=latency_ms, log=log, port=port)

    @property
    def version(self) -> int:
        """Of the answers; see `Land`."""
        return self.office.version

    @version.setter
    def version(self, version: int) -> None:
        self.office.version = version


# --- as a process ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM, SIGINT or the end of the parent. Returns the exit code."""
    parent = os.getppid()
    options = _parser().parse_args(arguments)
    return run_process(options, lambda: _open(options), parent)


def _open(options: argparse.Namespace) -> tuple[RegisterOffice, Callable[[], dict[str, object]]]:
    villas = _villas(options.villas)
    habits = Habits(options.cap, options.shifting, options.overstated, options.unknown, options.poisoned)
    office = RegisterOffice(Land(villas, options.seed), habits, options.version)
    return office, lambda: {"towns": office.land.towns}


def _villas(text: str) -> int | dict[str, int]:
    try:
        villas = json.loads(text)
    except ValueError:
        villas = None
    numbers = villas.values() if isinstance(villas, dict) else [villas]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ConfigurationError(f"--villas is {text!r}; give a number, or numbers by town as JSON.")
    return villas  # type: ignore[no-any-return]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.sample.register", description="A sample property register.")
    add_options(parser)
    add = parser.add_argument
    add("--villas", default="2000", help='how many, or {"København": 14368, "Dragør": 3000}')
    add("--version", type=int, default=0, help="each version changes one home in a hundred")
    add("--cap", type=int, default=CAP, help="hits a query delivers at the most")
    add("--shifting", action="store_true", help="the order moves a little between requests")
    add("--overstated", type=int, default=0, help="hits a query claims to have beyond those it delivers")
    add("--unknown", type=float, default=0.0, help="share of homes with fields no profile knows")
    add("--poisoned", type=float, default=0.0, help="share of homes whose answer cannot be loaded")
    return parser


if __name__ == "__main__":
    sys.exit(main())
