"""What became of every node of a run, told from the engine's record at any moment of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from tasks.errors import ConfigurationError, ItemError, OutsideUnreachable
from tasks.geo.chain import message_of
from tasks.geo.engine import Engine
from tasks.geo.meters import Measured
from tasks.geo.nodes import NodeProblem, Written
from tasks.geo.plan import Stage
from tasks.records import Reason


class State(StrEnum):
    """Where a node, or a run, stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class NodeState:
    """One node of a run.

    stage     the stage's name
    retries   further attempts after failures that might heal
    restored  an earlier attempt of the run had done it
    """

    node: str
    type: str
    stage: str
    state: State
    reason: str | None = None
    error: str | None = None
    retries: int = 0
    restored: bool = False
    measured: Measured = field(default_factory=Measured)
    written: Written = field(default_factory=Written)


def node_states(engine: Engine, *, ended: bool = False) -> list[NodeState]:
    """Of every node, in the order of the flow. `ended`: the run goes on no more."""
    return [_state(engine, stage, name, ended) for stage in engine.plan.stages for name in stage.nodes]


def _state(engine: Engine, stage: Stage, name: str, ended: bool) -> NodeState:
    record, done = engine.record, engine.record.stages.get(stage.name)
    error = record.failures.get(name)
    return NodeState(
        name,
        engine.graph.nodes[name].type,
        stage.name,
        _standing(engine, stage, name, ended),
        _reason(error) if error else None,
        message_of(error) if error else None,
        engine.works[stage.name].retries[name],
        stage.name in record.restored,
        done.measured[name] if done else Measured(),
        done.written.get(name, Written()) if done else Written(),
    )


def _standing(engine: Engine, stage: Stage, name: str, ended: bool) -> State:
    record = engine.record
    if name in record.failures:
        return State.TIMEOUT if _reason(record.failures[name]) == Reason.TIMEOUT else State.FAILED
    if name in record.skipped or any(name in engine.graph.below[failed] for failed in record.failures):
        return State.SKIPPED
    if stage.name in record.stages:
        return State.COMPLETED
    if ended:
        return State.CANCELLED
    return State.RUNNING if stage.name in engine.flying else State.PENDING


def _reason(error: BaseException) -> str:
    match error:
        case ItemError():
            return error.reason
        case ConfigurationError() | NodeProblem():
            return Reason.CONFIGURATION
        case OutsideUnreachable():
            return Reason.CONNECTION
        case _:
            return Reason.INTERNAL
