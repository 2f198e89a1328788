"""The engine: everything once, in order, no barrier; failures, time, memory, and going on where a run stopped."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ConfigurationError, StopRequested
from tasks.geo import engine as engine_module
from tasks.geo.chain import NodeFailed
from tasks.geo.definition import Execution
from tasks.geo.engine import Engine, RunRecord
from tasks.geo.geometry_buffer import Buffer
from tasks.geo.meters import Measured
from tasks.geo.nodes import Node
from tasks.geo.outcome import State, node_states
from tests.fakes import geo_engine as fakes
from tests.fakes.geo_engine import (
    Among,
    Bench,
    InOrder,
    Kept,
    Numbers,
    Ordered,
    Parity,
    Plus,
    Total,
    Uneven,
    after,
    graph,
)

TOLERANT = Execution(continue_on_error=True)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(engine_module, "RETRY_AFTER_S", (0.05,))
    fakes.reads.clear()
    fakes.calls.clear()
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Kept]:
    """`kept("k", ...)`: a sink with a folder of its own."""
    return lambda name="k", of=Kept, **options: of(folder=tmp_path / name, **options)


def measured(record: RunRecord) -> dict[str, Measured]:
    return {name: found for stage in record.stages.values() for name, found in stage.measured.items()}


def states(engine: Engine) -> dict[str, str]:
    return {state.node: str(state.state) for state in node_states(engine, ended=True)}


# --- what comes out ---


def test_every_feature_goes_through_once(bench: Bench, kept: Callable[..., Kept]) -> None:
    sink = kept()
    record = bench.engine(graph({"s": Numbers(), "p": Plus(add=7), "k": sink}, "s>p p>k")).run()
    assert sink.numbers() == [n + 7 for n in range(1000)]
    found = measured(record)
    assert (found["s"].features_out, found["p"].features_in, found["k"].features_out) == (1000, 1000, 1000)
    assert len(fakes.reads) == 1, "no more parts than the source has features for"


def test_a_big_source_is_read_in_parts_side_by_side(bench: Bench, kept: Callable[..., Kept]) -> None:
    sink = kept()
    numbers = Numbers(features=200_000, rows=10_000)
    bench.engine(graph({"s": numbers, "k": sink}, "s>k")).run()
    assert sink.numbers() == list(range(200_000))
    assert len(fakes.reads) == 4


def test_a_sink_that_wants_the_order_gets_it_while_all_threads_work(bench: Bench, kept: Callable[..., Kept]) -> None:
    """The first batches take longest: later ones are done before them, and wait."""

    class Slower(Plus):
        def apply(self, batch: Any) -> Any:
            time.sleep(0.05 if batch.column("n")[0].as_py() % 200 == 0 else 0.0)
            threads.add(threading.current_thread().name)
            return super().apply(batch)

    threads: set[str] = set()
    sink = kept(of=InOrder)
    nodes: dict[str, Node] = {"s": Numbers(features=200_000, rows=10_000), "p": Slower(), "k": sink}
    bench.engine(graph(nodes, "s>p p>k")).run()
    assert sink.numbers() == list(range(200_000))
    assert len(threads) == 2


def test_branches_and_gathering_nodes(bench: Bench, kept: Callable[..., Kept]) -> None:
    all_of_them, even, total = kept("k"), kept("o", of=InOrder), kept("d")
    nodes = {"s": Numbers(), "p": Plus(add=1), "k": all_of_them, "par": Parity(), "o": even, "t": Total(), "d": total}
    bench.engine(graph(nodes, "s>p p>k p>par par.even>o par.odd>t tot>d".replace("tot>", "t>"))).run()
    assert all_of_them.numbers() == list(range(1, 1001))
    assert even.numbers() == list(range(2, 1001, 2))
    assert total.numbers() == [sum(range(1, 1001, 2))]


def test_a_gathering_node_of_several_streams_gets_them_in_order(bench: Bench, kept: Callable[..., Kept]) -> None:
    total = kept()
    nodes = {"s": Numbers(), "t": Numbers(name="t", features=10), "tot": Total(), "k": total}
    bench.engine(graph(nodes, "s>tot t>tot tot>k")).run()
    assert total.numbers() == [sum(range(1000)) + sum(range(10))]


def test_a_lookup_finds_what_another_branch_of_its_own_input_made(bench: Bench, kept: Callable[..., Kept]) -> None:
    sink = kept()
    nodes = {"s": Numbers(), "par": Parity(), "p": Plus(add=1), "a": Among(), "k": sink}
    bench.engine(graph(nodes, "s>par par.even>a par.odd>p p>a.overlay a>k")).run()
    assert sink.numbers() == list(range(2, 1000, 2))
    assert len(fakes.reads) == 1, "the source was read once"


@pytest.mark.parametrize("features", [0, 1, 99, 100, 101])
def test_few_features_and_none(bench: Bench, kept: Callable[..., Kept], features: int) -> None:
    one, other = kept("k"), kept("o")
    nodes = {"s": Numbers(features=features), "ord": Ordered(), "k": one, "tot": Total(), "o": other}
    bench.engine(graph(nodes, "s>ord ord>k s>tot tot>o")).run()
    assert one.numbers() == list(range(features))
    assert other.numbers() == [sum(range(features))]


def test_a_fast_branch_is_done_long_before_the_slow_one_begins_its_second_stage(
    bench: Bench, kept: Callable[..., Kept]
) -> None:
    """A diamond: no barrier between levels. Told by the times of the nodes."""
    nodes: dict[str, Node] = {
        "s": Numbers(),
        "fast": Plus(),
        "sum_fast": Total(),
        "fast_sink": kept("f"),
        "slow": Plus(batch_s=0.15),
        "sum_slow": Total(),
        "slow_sink": kept("g"),
    }
    edges = "s>fast fast>sum_fast sum_fast>fast_sink s>slow slow>sum_slow sum_slow>slow_sink"
    found = measured(bench.engine(graph(nodes, edges)).run())
    assert found["fast_sink"].ended < found["sum_slow"].began
    assert found["fast_sink"].ended < found["slow"].ended
    assert found["slow"].began < found["fast_sink"].ended, "side by side"
    assert len(fakes.reads) == 1


def test_reading_computing_and_writing_go_on_at_the_same_time(bench: Bench, kept: Callable[..., Kept]) -> None:
    nodes = {"s": Numbers(batch_s=0.02), "p": Plus(batch_s=0.02), "k": kept(write_s=0.02)}
    found = measured(bench.engine(graph(nodes, "s>p p>k")).run())
    assert max(found[name].began for name in "spk") < min(found[name].ended for name in "spk")
    assert found["p"].began < found["s"].ended


# --- failures ---


def test_a_failure_ends_the_run_and_names_the_node(bench: Bench, kept: Callable[..., Kept]) -> None:
    sink = kept()
    nodes = {"s": Numbers(), "p": Plus(fails_at=555), "k": sink, "slow": Plus(batch_s=1.0), "k2": kept("k2")}
    engine = bench.engine(graph(nodes, "s>p p>k s>slow slow>k2"))
    with pytest.raises(NodeFailed, match=r"^node p: 555 is no good; leave it out\.$"):
        engine.run()
    assert not list(sink.folder.glob("*.json")), "what was written of it is taken back"
    assert states(engine) == {"s": "completed", "p": "failed", "k": "skipped", "slow": "cancelled", "k2": "cancelled"}
    assert engine.budget.held == 0


def test_what_may_heal_is_tried_again_and_nothing_is_written_twice(bench: Bench, kept: Callable[..., Kept]) -> None:
    sink = kept()
    engine = bench.engine(graph({"s": Numbers(), "p": Plus(flaky="p", flaky_times=2), "k": sink}, "s>p p>k"))
    record = engine.run()
    assert sink.numbers() == list(range(1000))
    assert measured(record)["p"].features_in == 1000, "only the attempt that succeeded counts"
    assert sum(engine.works["s+p+k"].retries.values()) in (1, 2)


def test_attempts_end(bench: Bench, kept: Callable[..., Kept]) -> None:
    nodes = {"s": Numbers(rows=1000), "p": Plus(flaky="p", flaky_times=99), "k": kept()}
    engine = bench.engine(graph(nodes, "s>p p>k", p=Execution(max_retries=2)))
    with pytest.raises(NodeFailed, match="it broke off"):
        engine.run()
    assert fakes.calls == {"p": 3}


def test_the_rest_goes_on_where_a_node_may_fail(bench: Bench, kept: Callable[..., Kept]) -> None:
    """In its own stage and in others; what comes after it is skipped."""
    lost, whole, far = kept("k"), kept("k2"), kept("k3")
    nodes = {"s": Numbers(), "p": Plus(fails_at=555), "k": lost, "k2": whole, "q": Plus(), "tot": Total(), "k3": far}
    engine = bench.engine(graph(nodes, "s>p p>k s>k2 s>q q>tot tot>k3", p=TOLERANT))
    record = engine.run()
    assert whole.numbers() == list(range(1000))
    assert far.numbers() == [sum(range(1000))]
    assert not (lost.folder / "all.json").exists()
    done = {"s", "k2", "q", "tot", "k3"}
    assert states(engine) == {"p": "failed", "k": "skipped"} | dict.fromkeys(done, "completed")
    assert list(record.failures) == ["p"]


def test_a_source_that_may_fail_takes_only_what_needs_it_with_it(bench: Bench, kept: Callable[..., Kept]) -> None:
    class Broken(Numbers):
        def read(self, part: dict[str, Any], work: Any) -> Any:
            raise ConfigurationError("there is no such table; correct it.")

    nodes = {"s": Broken(), "k": kept(), "t": Numbers(name="t"), "a": Among(), "k2": kept("k2"), "k3": kept("k3")}
    engine = bench.engine(graph(nodes, "s>k s>a.overlay t>a a>k2 t>k3", s=TOLERANT))
    engine.run()
    skipped = dict.fromkeys(["k", "a", "k2"], "skipped")
    assert states(engine) == {"s": "failed", "t": "completed", "k3": "completed"} | skipped


def test_a_broken_sink_leaves_the_other_one_whole(bench: Bench, kept: Callable[..., Kept]) -> None:
    whole = kept("k2")
    nodes = {"s": Numbers(), "k": kept(broken=True), "k2": whole}
    engine = bench.engine(graph(nodes, "s>k s>k2", k=Execution(continue_on_error=True, max_retries=1)))
    engine.run()
    assert whole.numbers() == list(range(1000))
    assert states(engine) == {"s": "completed", "k": "failed", "k2": "completed"}


def test_what_was_borne_is_told_where_the_stage_fails_all_the_same(bench: Bench, kept: Callable[..., Kept]) -> None:
    nodes = {"s": Numbers(), "p": Plus(fails_at=5), "k": kept(), "k2": kept("k2", fails_in="conclude")}
    engine = bench.engine(graph(nodes, "s>p p>k s>k2", p=TOLERANT, k2=TOLERANT))
    engine.run()
    assert states(engine) == {"s": "skipped", "p": "failed", "k": "skipped", "k2": "failed"}


def test_an_overlay_that_is_gathered_again_is_held_once(bench: Bench, kept: Callable[..., Kept]) -> None:
    nodes = {"s": Numbers(), "t": Numbers(name="t"), "a": Among(hold_bytes=3 << 20, flaky_times=2), "k": kept()}
    engine = bench.engine(graph(nodes, "s>a t>a.overlay a>k"), memory_bytes=4 << 20)
    engine.run()
    assert engine.budget.peak < 4 << 20
    assert engine.budget.held == 0


@pytest.mark.parametrize("fails_in", ["prepare", "conclude"])
def test_so_does_one_that_fails_before_or_after_its_parts(
    bench: Bench, kept: Callable[..., Kept], fails_in: str
) -> None:
    whole = kept("k2")
    nodes = {"s": Numbers(), "k": kept(fails_in=fails_in), "k2": whole}
    engine = bench.engine(graph(nodes, "s>k s>k2", k=TOLERANT))
    engine.run()
    assert whole.numbers() == list(range(1000))
    assert states(engine) == {"s": "completed", "k": "failed", "k2": "completed"}


def test_a_node_that_takes_too_long_is_given_up(bench: Bench, kept: Callable[..., Kept]) -> None:
    nodes = {"s": Numbers(rows=500), "p": Plus(batch_s=4), "k": kept()}
    engine = bench.engine(graph(nodes, "s>p p>k", p=Execution(timeout_s=0.2, max_retries=0)))
    with pytest.raises(NodeFailed, match=r"longer than its 0.2 s; raise timeout_s"):
        engine.run()
    assert states(engine)["p"] == State.TIMEOUT


def test_so_is_a_lookup_whose_overlay_takes_too_long(bench: Bench, kept: Callable[..., Kept]) -> None:
    nodes = {"s": Numbers(), "t": Numbers(name="t"), "a": Among(build_s=4), "k": kept()}
    of = graph(nodes, "s>a t>a.overlay a>k", a=Execution(timeout_s=0.2, max_retries=0))
    began = time.monotonic()
    with pytest.raises(NodeFailed, match=r"^node a: it took longer than its 0.2 s"):
        bench.engine(of).run()
    assert time.monotonic() - began < 3.0


def test_so_is_a_sink_that_does_not_come_to_its_end(bench: Bench, kept: Callable[..., Kept]) -> None:
    of = graph({"s": Numbers(), "k": kept(conclude_s=4)}, "s>k", k=Execution(timeout_s=0.2, max_retries=0))
    engine = bench.engine(of)
    began = time.monotonic()
    with pytest.raises(NodeFailed, match=r"^node k: it took longer than its 0.2 s"):
        engine.run()
    assert time.monotonic() - began < 3.0
    assert states(engine)["k"] == State.TIMEOUT


def test_time_spent_waiting_for_others_is_not_the_nodes(bench: Bench, kept: Callable[..., Kept]) -> None:
    nodes = {"s": Numbers(batch_s=0.1), "p": Plus(), "k": kept()}
    bench.engine(graph(nodes, "s>p p>k", p=Execution(timeout_s=0.5, max_retries=0))).run()


# --- the end of a run ---


@pytest.mark.parametrize("where", ["read", "apply", "write", "finish", "conclude", "gather"])
def test_a_stop_ends_it_within_three_seconds_wherever_it_is(
    bench: Bench, kept: Callable[..., Kept], where: str
) -> None:
    hang_s = 6.0
    slow_s = hang_s if where in ("write", "finish", "conclude") else 0
    nodes: dict[str, Node] = {
        "s": Numbers(features=60_000, rows=5000, batch_s=hang_s if where == "read" else 0),
        "p": Plus(batch_s=hang_s if where == "apply" else 0),
        "tot": Total(batch_s=0.2 if where == "gather" else 0),
        "k": kept(**{{"write": "write_s", "finish": "hang_s", "conclude": "conclude_s"}.get(where, "hang_s"): slow_s}),
    }
    edges = "s>p p>tot tot>k" if where == "gather" else "s>p p>k"
    used = {name: made for name, made in nodes.items() if name in edges.replace(">", " ").split()}
    engine = bench.engine(graph(used, edges))
    after(0.5, engine.stop)
    began = time.monotonic()
    with pytest.raises(StopRequested):
        engine.run()
    assert time.monotonic() - began < 3.5


# --- memory ---


def test_batches_wait_for_room(bench: Bench, kept: Callable[..., Kept]) -> None:
    """A slow sink does not make the reader pile up batches; the least that can be under way is one."""
    nodes = {"s": Numbers(features=20_000, rows=1000), "k": kept(write_s=0.01)}
    engine = bench.engine(graph(nodes, "s>k"), memory_bytes=250_000)
    engine.run()
    assert 100_000 < engine.budget.peak <= 250_000
    tight = Bench(bench.folder / "tight").engine(graph(nodes, "s>k"), memory_bytes=110_000)
    tight.run()
    assert tight.budget.peak <= 110_000


def test_little_features_that_grow_have_room(bench: Bench, kept: Callable[..., Kept]) -> None:
    """One batch makes 10 MB of 0.5: its nodes are given it in pieces, in order."""
    nodes = {"s": Numbers(features=5000, rows=5000, shares=1), "b": Buffer(distance=1, segments=32), "k": kept()}
    engine = bench.engine(graph(nodes, "s>b b>k"), memory_bytes=4 << 20)
    record = engine.run()
    assert nodes["k"].numbers() == list(range(5000))
    assert measured(record)["b"].bytes_out > 2 * engine.budget.size_bytes
    assert engine.budget.peak < 5 << 20


def test_far_over_the_budget_is_an_end_with_a_remedy(bench: Bench, kept: Callable[..., Kept]) -> None:
    nodes = {"s": Numbers(features=30_000, rows=5000), "tot": Total(hold_bytes=30 << 20), "k": kept()}
    engine = bench.engine(graph(nodes, "s>tot tot>k"), memory_bytes=64 << 20)
    with pytest.raises(NodeFailed, match=r"node tot: the run holds \d+ MB where its budget is 64 MB; give it more"):
        engine.run()
    assert engine.budget.held == 0


def test_a_process_that_takes_too_much_is_an_end_too(
    bench: Bench, kept: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that nobody counted: GEOS makes it, or a library."""
    engine = bench.engine(graph({"s": Numbers(), "k": kept()}, "s>k"), memory_bytes=64 << 20)
    monkeypatch.setattr("tasks.geo.meters.resident_bytes", lambda: engine.budget._base + (400 << 20))
    with pytest.raises(NodeFailed, match="the run holds 400 MB where its budget is 64 MB"):
        engine.run()


# --- going on ---


def test_a_run_goes_on_with_the_stage_that_failed(bench: Bench, kept: Callable[..., Kept]) -> None:
    """What was corrected meanwhile runs; what was done is not done again, and the input is not read again."""
    first, second = kept("k"), kept("k2")
    edges = "s>ord ord>p p>k s>tot tot>k2"
    nodes: dict[str, Node] = {"s": Numbers(), "ord": Ordered(), "p": Plus(fails_at=3), "tot": Total()}
    with pytest.raises(NodeFailed):
        bench.engine(graph({**nodes, "k": first, "k2": second}, edges)).run()
    engine = bench.engine(graph({**nodes, "p": Plus(add=1), "k": first, "k2": second}, edges))
    record = engine.run()
    assert first.numbers() == list(range(1, 1001))
    assert second.numbers() == [sum(range(1000))]
    assert len(fakes.reads) == 1
    assert "s" in record.restored
    again = bench.engine(graph({**nodes, "p": Plus(add=1), "k": first, "k2": second}, edges)).run()
    assert again.restored == set(again.stages), "and then nothing is left to do"


def test_parts_that_are_done_are_not_done_again(bench: Bench, kept: Callable[..., Kept]) -> None:
    sink = kept()
    numbers = Numbers(features=200_000, rows=10_000)
    of = graph({"s": numbers, "p": Plus(flaky="x", flaky_times=0), "k": sink}, "s>p p>k")
    engine = bench.engine(of)
    work = engine.works["s+p+k"]
    assert work.prepare() == [0, 1, 2, 3]
    for number in (0, 2):
        work.run_part(number)
    first = list(fakes.reads)
    bench.engine(of).run()
    assert Counter(fakes.reads) == dict.fromkeys([("numbers", n * 50_000) for n in range(4)], 1)
    assert len(first) == 2
    assert sink.numbers() == list(range(200_000))


def test_an_input_that_changed_is_read_again_with_all_that_follows(bench: Bench, kept: Callable[..., Kept]) -> None:
    sink = kept()
    nodes: dict[str, Node] = {"s": Numbers(), "ord": Ordered(), "p": Plus(fails_at=3), "k": sink}
    with pytest.raises(NodeFailed):
        bench.engine(graph(nodes, "s>ord ord>p p>k")).run()
    nodes |= {"s": Numbers(features=10, print="2"), "p": Plus()}
    record = bench.engine(graph(nodes, "s>ord ord>p p>k")).run()
    assert sink.numbers() == list(range(10))
    assert record.restored == set()


@pytest.mark.parametrize("how", ["shorter", "gone"])
def test_stored_outputs_that_are_damaged_are_made_again(bench: Bench, kept: Callable[..., Kept], how: str) -> None:
    sink = kept()
    nodes: dict[str, Node] = {"s": Numbers(), "ord": Ordered(), "p": Plus(fails_at=3), "k": sink}
    with pytest.raises(NodeFailed):
        bench.engine(graph(nodes, "s>ord ord>p p>k")).run()
    (stored,) = (bench.folder / "run").rglob("*.arrow")
    stored.write_bytes(stored.read_bytes()[:-100]) if how == "shorter" else stored.unlink()
    bench.engine(graph({**nodes, "p": Plus()}, "s>ord ord>p p>k")).run()
    assert sink.numbers() == list(range(1000))
    assert len(fakes.reads) == 2


def test_what_a_node_that_may_fail_did_not_do_is_tried_again(bench: Bench, kept: Callable[..., Kept]) -> None:
    sink, other = kept(), kept("k2")
    flaky = Plus(flaky="p", flaky_times=1)
    of = graph(
        {"s": Numbers(rows=1000), "p": flaky, "k": sink, "k2": other},
        "s>p p>k s>k2",
        p=Execution(continue_on_error=True, max_retries=0),
    )
    assert list(bench.engine(of).run().failures) == ["p"]
    assert bench.engine(of).run().failures == {}
    assert sink.numbers() == other.numbers() == list(range(1000))


def test_outputs_stored_again_in_other_batches_are_still_read_once(bench: Bench, kept: Callable[..., Kept]) -> None:
    """The source is read again; what its reader has done of it stays done."""
    sink = kept()
    nodes: dict[str, Node] = {"s": Uneven(features=200_000, shares=1), "q": Plus(), "k2": kept("k2")}
    nodes |= {"p": Plus(flaky="p", flaky_times=1), "k": sink}
    of = graph(nodes, "s>p p>k s>q q>k2", p=Execution(max_retries=0))
    with pytest.raises(NodeFailed, match="node p"):
        bench.engine(of).run()
    (stored,) = (bench.folder / "run").rglob("*.arrow")
    stored.write_bytes(stored.read_bytes()[:-100])
    bench.engine(of).run()
    assert len(fakes.reads) == 2
    assert sink.numbers() == list(range(200_000))


def test_a_sink_in_order_that_failed_gets_everything_in_one_part(bench: Bench, kept: Callable[..., Kept]) -> None:
    in_order, other = kept("k", of=InOrder, fails_in="prepare"), kept("k2")
    nodes: dict[str, Node] = {"s": Numbers(features=200_000, rows=10_000), "k": in_order, "k2": other}
    bench.engine(graph(nodes, "s>k s>k2", k=TOLERANT)).run()
    assert [file.name for file in other.folder.glob("part-*.json")] == ["part-0.json"]


def test_what_a_sink_has_written_stays_written_where_another_node_is_corrected(
    bench: Bench, kept: Callable[..., Kept]
) -> None:
    """A table knows its parts by the run and the key in `Work.run_id`."""

    class Named(Kept):
        def open(self, layout: Any, work: Any) -> Any:
            names[work.node_id].add(work.run_id)
            return super().open(layout, work)

    names: dict[str, set[str]] = {"k": set(), "k2": set()}
    nodes: dict[str, Node] = {"s": Numbers(), "k": kept(of=Named), "k2": kept("k2", of=Named)}
    with pytest.raises(NodeFailed):
        bench.engine(graph({**nodes, "p": Plus(fails_at=3)}, "s>k s>p p>k2")).run()
    bench.engine(graph({**nodes, "p": Plus()}, "s>k s>p p>k2")).run()
    assert {name: len(found) for name, found in names.items()} == {"k": 1, "k2": 2}


def test_another_address_is_another_place(bench: Bench, kept: Callable[..., Kept]) -> None:
    keys = set()
    for url in ("postgresql://one/a", "postgresql://two/a"):
        engine = bench.engine(graph({"s": Numbers(), "k": kept(url=url)}, "s>k"))
        keys.add(engine.works["s+k"].key)
    assert len(keys) == 2


def test_stored_outputs_go_when_nobody_needs_them_any_more(bench: Bench, kept: Callable[..., Kept]) -> None:
    nodes = {"s": Numbers(), "ord": Ordered(), "tot": Total(), "k": kept(), "k2": kept("k2")}
    bench.engine(graph(nodes, "s>ord ord>k s>tot tot>k2")).run()
    assert not list((bench.folder / "run").rglob("*.arrow"))
    assert not list((bench.folder / "scratch").iterdir())
