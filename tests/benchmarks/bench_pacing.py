"""What a host's clock delivers of its dial, by the server's own log: processes x threads x rate x latency.

Per line: requests over the steady seconds as a share of the dial, and the most in any one second less the dial (the
promise: 97 to 100 %, at most 1). Prints; asserts nothing.
"""

from __future__ import annotations

import argparse
import bisect
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks import services
from tasks.pacing import Clock
from tasks.postgres import Database, migrate
from tasks.postgres_embedded import embedded_url
from tests.fakes.turn_log import moments, turn_log, turn_workers

# processes, threads each, turns per second, seconds the server takes to answer
CASES = [
    *((processes, 1, rate, 0.0) for processes in (1, 4, 16) for rate in (10.0, 50.0, 500.0)),
    (1, 5, 8.0, 0.4),
    (4, 5, 50.0, 0.2),
    (16, 4, 50.0, 0.5),
]


def main() -> None:
    """Measure every case, print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=10.0)
    seconds = arguments.parse_args().seconds
    home = Path(tempfile.mkdtemp(prefix="landrecords-bench-"))
    try:
        url = embedded_url(home)
        database = Database(url, size=2)
        migrate(database)
        print(f"{'processes':>9} {'threads':>7} {'latency s':>9} {'dial/s':>7} {'delivered':>10} {'peak - dial':>11}")
        for processes, threads, rate, latency_s in CASES:
            share, excess = delivered(database, url, processes, threads, rate, latency_s, seconds)
            print(f"{processes:>9} {threads:>7} {latency_s:>9} {rate:>7.0f} {share:>10.1%} {excess:>11.0f}", flush=True)
        database.close()
    finally:
        services.let_go(home / "postgres")
        services.wait_until_gone(home / "postgres")
        shutil.rmtree(home, ignore_errors=True)


def delivered(
    database: Database, url: str, processes: int, threads: int, rate: float, latency_s: float, seconds: float
) -> tuple[float, float]:
    """Share of the dial over the steady seconds, and the worst second's excess over the dial."""
    with turn_log(latency_s) as port:
        host = f"127.0.0.1:{port}"
        Clock(database, host).set_rate(rate)
        with turn_workers(processes, url, host, port, threads=threads) as (began, _):
            time.sleep(seconds + 1.5)
            times = moments(port)
    steady = [t for t in times if began + 1.0 <= t < began + 1.0 + seconds]
    return len(steady) / (rate * seconds), busiest(times, 1.0) - rate


def busiest(times: list[float], window_s: float) -> int:
    """The most moments in any half-open window."""
    return max((bisect.bisect_left(times, t + window_s) - i for i, t in enumerate(times)), default=0)


if __name__ == "__main__":
    main()
