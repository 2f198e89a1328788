"""Parts of stages in processes of their own: the same results, failures told here, nothing left when the run ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import StopRequested
from tasks.geo import engine as engine_module
from tasks.geo.chain import NodeFailed
from tasks.geo.definition import Execution
from tasks.geo.engine import Engine
from tasks.geo.nodes import Node
from tasks.geo.part_processes import PartProcesses
from tasks.geo.plan import plan
from tests.fakes import geo_engine as fakes
from tests.fakes.geo_engine import Among, Bench, Deadly, InOrder, Kept, Numbers, Parity, Plus, Total, after, graph


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Kept]:
    """`kept("k", ...)`: a sink with a folder of its own."""
    return lambda name="k", of=Kept, **options: of(folder=tmp_path / name, **options)


@pytest.fixture
def spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Engine]]:
    """An engine whose parts run in processes."""
    monkeypatch.setattr(engine_module, "RETRY_AFTER_S", (0.05,))
    fakes.reads.clear()
    bench = Bench(tmp_path)
    opened: list[PartProcesses] = []

    def make(of: Any, **options: Any) -> Engine:
        engine = bench.engine(plan(of, spread=True), **options)
        opened.append(PartProcesses(engine))
        engine.run_part = opened[-1].run
        return engine

    yield make
    for processes in opened:
        processes.close()
    bench.close()


def test_processes_do_the_same(spread: Callable[..., Engine], kept: Callable[..., Kept]) -> None:
    one, in_order, total = kept("k"), kept("o", of=InOrder), kept("d")
    nodes = {
        **{"s": Numbers(features=200_000, rows=10_000), "p": Plus(add=1), "k": one, "par": Parity()},
        **{"o": in_order, "t": Total(), "d": total, "a": Among(), "k4": kept("k4")},
    }
    edges = "s>p p>k p>par par.even>o par.odd>t t>d par.even>a par.even>a.overlay a>k4"
    seen: Counter[str] = Counter()
    engine = spread(graph(nodes, edges))
    engine.progress = lambda node, features, _bytes: seen.update({node: features})
    record = engine.run()
    assert one.numbers() == list(range(1, 200_001))
    assert in_order.numbers() == list(range(2, 200_001, 2))
    assert total.numbers() == [sum(range(1, 200_001, 2))]
    assert seen["s"] == seen["k"] == 200_000
    assert sum(stage.written["k4"].features for stage in record.stages.values() if "k4" in stage.written) == 100_000
    assert fakes.reads == [], "not here"


def test_a_failure_in_a_process_is_told_here_and_a_hung_one_is_killed(
    spread: Callable[..., Engine], kept: Callable[..., Kept]
) -> None:
    nodes: dict[str, Node] = {"s": Numbers(), "p": Plus(fails_at=777), "k": kept()}
    with pytest.raises(NodeFailed, match=r"^node p: 777 is no good; leave it out\.$"):
        spread(graph(nodes, "s>p p>k")).run()
    engine = spread(graph({**nodes, "p": Plus(batch_s=60)}, "s>p p>k", p=Execution(timeout_s=0.3, max_retries=0)))
    with pytest.raises(NodeFailed, match=r"longer than its 0\.3 s"):
        engine.run()


def test_a_process_that_dies_is_replaced_and_its_part_done_by_another(
    spread: Callable[..., Engine], kept: Callable[..., Kept], tmp_path: Path
) -> None:
    """One retry has to do: what is dead is not tried again."""
    sink = kept()
    nodes = {"s": Numbers(), "p": Deadly(mark=tmp_path / "died"), "k": sink}
    engine = spread(graph(nodes, "s>p p>k", s=Execution(max_retries=1)), threads=1)
    engine.run()
    assert engine.works["s+p+k"].retries == {"s": 1}
    assert sink.numbers() == list(range(1000))


def test_a_stop_ends_the_processes(spread: Callable[..., Engine], kept: Callable[..., Kept]) -> None:
    engine = spread(graph({"s": Numbers(), "p": Plus(batch_s=60), "k": kept()}, "s>p p>k"))
    after(2.5, engine.stop)
    began = time.monotonic()
    with pytest.raises(StopRequested):
        engine.run()
    assert time.monotonic() - began < 5.5
