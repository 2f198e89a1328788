"""Parts of stages on a Dask cluster of this machine: the same results, failures told here, no worker left behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.config
import pytest
from distributed import Client, LocalCluster

from tasks.errors import ConfigurationError, OutsideUnreachable, StopRequested
from tasks.geo import engine as engine_module
from tasks.geo.chain import NodeFailed
from tasks.geo.definition import Execution
from tasks.geo.engine import Engine
from tasks.geo.nodes import Node
from tasks.geo.part_dask import ADDRESS, DaskParts
from tasks.geo.plan import plan
from tests.fakes import geo_engine as fakes
from tests.fakes.geo_engine import Among, Bench, Deadly, InOrder, Kept, Numbers, Parity, Plus, Total, after, graph

Spread = Callable[..., tuple[Engine, DaskParts]]


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Kept]:
    """`kept("k", ...)`: a sink with a folder of its own."""
    return lambda name="k", of=Kept, **options: of(folder=tmp_path / name, **options)


@pytest.fixture
def spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spread]:
    """An engine whose parts run on Dask."""
    monkeypatch.setattr(engine_module, "RETRY_AFTER_S", (0.05,))
    fakes.reads.clear()
    bench = Bench(tmp_path)
    opened: list[DaskParts] = []

    def make(of: Any) -> tuple[Engine, DaskParts]:
        engine = bench.engine(plan(of, spread=True))
        opened.append(DaskParts(engine))
        engine.run_part = opened[-1].run
        return engine, opened[-1]

    yield make
    for parts in opened:
        parts.close()
    bench.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One that is not the run's, with a worker. What kills a worker is not sent to another: that is for us to do."""
    folder = str(tmp_path_factory.mktemp("dask"))
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0", "local_directory": folder}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), LocalCluster(**options) as made:
        yield made


@pytest.fixture
def lent(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """Runs find it by its address."""
    monkeypatch.setenv(ADDRESS, cluster.scheduler_address)
    return cluster


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_cluster_made_for_the_run_does_the_same_and_is_gone_afterwards(
    spread: Spread, kept: Callable[..., Kept], tmp_path: Path
) -> None:
    edges = "s>p p>k p>par par.even>o par.odd>t t>d par.even>a par.even>a.overlay a>k4"

    def nodes(mark: str) -> dict[str, Node]:
        return {
            **{"s": Numbers(features=20_000, rows=1000), "p": Plus(add=1), "k": kept(f"{mark}k"), "par": Parity()},
            **{"o": kept(f"{mark}o", of=InOrder), "t": Total(), "d": kept(f"{mark}d"), "a": Among()},
            "k4": kept(f"{mark}k4"),
        }

    mine, theirs = nodes("threads-"), nodes("dask-")
    here = Bench(tmp_path / "threads")
    here.engine(graph(mine, edges)).run()
    here.close()
    fakes.reads.clear()
    seen: Counter[str] = Counter()
    engine, parts = spread(graph(theirs, edges))
    engine.progress = lambda node, features, _bytes: seen.update({node: features})
    engine.run()
    for name in ("k", "o", "d", "k4"):
        assert sorted(theirs[name].numbers()) == sorted(mine[name].numbers()), name  # type: ignore[attr-defined]
    assert theirs["o"].numbers() == list(range(2, 20_001, 2))  # type: ignore[attr-defined]
    assert (seen["s"], seen["k"], seen["p"]) == (20_000, 20_000, 0)
    assert fakes.reads == [], "not here"
    assert parts._client.scheduler.address.startswith("tls://127.0.0.1:"), "nobody else's to use"
    workers = list(parts._client.run(os.getpid).values())
    assert len(workers) == 2
    parts.close()
    assert [pid for pid in workers if alive(pid)] == []


def test_a_failure_on_a_worker_is_told_here(spread: Spread, kept: Callable[..., Kept], lent: LocalCluster) -> None:
    nodes: dict[str, Node] = {"s": Numbers(), "p": Plus(fails_at=777), "k": kept()}
    with pytest.raises(NodeFailed, match=r"^node p: 777 is no good; leave it out\.$"):
        spread(graph(nodes, "s>p p>k"))[0].run()
    slow = graph({**nodes, "p": Plus(batch_s=2)}, "s>p p>k", p=Execution(timeout_s=0.3, max_retries=0))
    with pytest.raises(NodeFailed, match=r"longer than its 0\.3 s"):
        spread(slow)[0].run()


def test_a_stop_ends_the_run_at_once_and_the_part_soon_after(
    spread: Spread, kept: Callable[..., Kept], lent: LocalCluster
) -> None:
    """The cluster is not ours to end: the part is told."""
    engine, parts = spread(graph({"s": Numbers(features=6000, batch_s=0.5), "k": kept()}, "s>k"))
    after(1.5, engine.stop)
    began = time.monotonic()
    with pytest.raises(StopRequested):
        engine.run()
    assert time.monotonic() - began < 4.5
    parts.close()
    with Client(lent.scheduler_address) as client:
        until = time.monotonic() + 10
        while any(map(bool, client.run(_parts_at_work).values())) and time.monotonic() < until:
            time.sleep(0.1)
        assert not any(client.run(_parts_at_work).values())
    assert not (kept().folder / "all.json").exists()


def _parts_at_work() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("geo-_read", "geo-_write"))]


def test_a_worker_that_dies_takes_no_run_with_it(
    spread: Spread, kept: Callable[..., Kept], lent: LocalCluster, tmp_path: Path
) -> None:
    sink = kept()
    engine, _ = spread(graph({"s": Numbers(), "p": Deadly(mark=tmp_path / "died"), "k": sink}, "s>p p>k"))
    engine.run()
    assert engine.works["s+p+k"].retries == {"s": 1}
    assert sink.numbers() == list(range(1000))


def test_a_cluster_that_goes_is_told_as_such(
    spread: Spread, kept: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = graph({"s": Numbers(features=2000, batch_s=0.3), "k": kept()}, "s>k", s=Execution(max_retries=0))
    engine, parts = spread(of)
    gone = threading.Timer(1.5, parts.close)
    gone.start()
    with pytest.raises(NodeFailed, match=r"^node s: Its Dask worker is gone \(\w+\); give the run more memory"):
        engine.run()
    gone.join()


def test_what_there_is_not_is_told_in_a_sentence(
    spread: Spread, kept: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = graph({"s": Numbers(), "k": kept()}, "s>k")
    monkeypatch.setenv(ADDRESS, "nonsense://somewhere")
    with pytest.raises(OutsideUnreachable, match=f"Dask at nonsense://somewhere does not answer; correct {ADDRESS}"):
        spread(of)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigurationError, match=r"needs Dask: pip install 'landrecords\[dask\]'"):
        spread(of)
