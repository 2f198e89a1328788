"""From a graph to stages: what is fused, what is stored, and that no stage waits for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.geo.nodes import Node
from tasks.geo.plan import Output, Plan, plan
from tests.fakes.geo_engine import Among, InOrder, Kept, Numbers, Ordered, Parity, Plus, Total, graph

KEPT, IN_ORDER = Kept(folder=Path()), InOrder(folder=Path())
NODES: dict[str, Node] = {
    "s": Numbers(),
    "t": Numbers(name="t"),
    "p": Plus(),
    "q": Plus(),
    "par": Parity(),
    "par2": Parity(),
    "a": Among(),
    "b": Among(),
    "tot": Total(),
    "ord": Ordered(),
    "k": KEPT,
    "k2": KEPT,
    "k3": KEPT,
    "o": IN_ORDER,
}


def planned(edges: str, *, spread: bool = False) -> Plan:
    names = {end.partition(".")[0] for edge in edges.split() for end in edge.split(">")}
    return plan(graph({name: NODES[name] for name in sorted(names)}, edges), spread=spread)


def stages(made: Plan) -> list[set[str]]:
    return [set(stage.nodes) for stage in made.stages]


def test_a_chain_is_one_stage_and_nothing_is_stored() -> None:
    made = planned("s>p p>q q>k")
    assert stages(made) == [{"s", "p", "q", "k"}]
    assert made.stages[0].stores == ()


def test_sinks_hang_on_the_stage_that_makes_their_features() -> None:
    made = planned("s>k s>p p>k2 p>q q>k3")
    assert stages(made) == [{"s", "k", "p", "k2", "q", "k3"}]


def test_both_ports_of_a_split_are_fused() -> None:
    assert stages(planned("s>par par.even>p p>k par.odd>k2")) == [{"s", "par", "p", "k", "k2"}]


def test_two_branches_start_from_a_stored_output_each_in_its_own_stage() -> None:
    made = planned("s>p s>q p>k q>k2")
    assert stages(made) == [{"s"}, {"p", "k"}, {"q", "k2"}]
    assert made.stages[0].stores == (Output("s"),)
    assert {stage.root for stage in made.stages[1:]} == {Output("s")}
    assert made.before(made.stages[2]) == [made.stages[0]], "neither waits for the other"


def test_a_blocking_node_begins_a_stage_after_its_input_is_stored() -> None:
    made = planned("s>p p>tot tot>q q>k")
    assert stages(made) == [{"s", "p"}, {"tot", "q", "k"}]
    assert made.stages[1].needs == (Output("p"),)


def test_streams_meet_in_a_blocking_node() -> None:
    made = planned("s>tot t>tot tot>k")
    assert stages(made)[2] == {"tot", "k"}
    assert made.stages[2].needs == (Output("s"), Output("t"))
    assert made.graph.inputs("tot") == {"input": Output("s"), "input#2": Output("t")}


def test_a_lookup_streams_past_its_stored_overlay() -> None:
    made = planned("s>a t>a.overlay a>k")
    assert stages(made) == [{"t"}, {"s", "a", "k"}]
    assert made.stages[1].needs == (Output("t"),)


@pytest.mark.parametrize(
    "edges",
    [
        "s>par par.even>a par.odd>a.overlay a>k",
        "s>p p>a p>ord ord>a.overlay a>k",
        "s>par par.even>a par.odd>q q>a.overlay a>k",
    ],
)
def test_a_lookup_whose_overlay_comes_from_its_own_stage_is_cut_off(edges: str) -> None:
    made = planned(edges)
    stage = next(stage for stage in made.stages if "a" in stage.nodes)
    assert stage.root != "s"
    assert stage not in made.before(stage)


def test_two_lookups_that_would_wait_for_one_another_do_not() -> None:
    made = planned("s>par t>par2 par.even>a par2.odd>a.overlay par2.even>b par.odd>b.overlay a>k b>k2")
    done: set[str] = set()
    for stage in made.stages:
        assert {before.name for before in made.before(stage)} <= done
        done.add(stage.name)
    assert sorted(name for stage in made.stages for name in stage.nodes) == [
        "a",
        "b",
        "k",
        "k2",
        "par",
        "par2",
        "s",
        "t",
    ]


def test_every_node_is_in_one_stage() -> None:
    made = planned("s>p p>k p>par par.even>o par.odd>tot tot>k2 t>a par.odd>a.overlay a>q q>k3")
    names = [name for stage in made.stages for name in stage.nodes]
    assert sorted(names) == sorted(made.graph.nodes)


def test_spread_over_processes_a_sink_that_wants_everything_in_order_is_apart() -> None:
    assert stages(planned("s>p p>o")) == [{"s", "p", "o"}]
    made = planned("s>p p>o p>k", spread=True)
    assert stages(made) == [{"s", "p", "k"}, {"o"}]
