"""Names for what was made, by all that it depends on: a resumed run finds it again, and nothing that is another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from tasks.geo.plan import Plan, Stage


class Keys:
    """Of a plan's stages and nodes.

    fingerprints  of the sources
    stages        stage name -> its key, which changes with anything that changes what the stage makes
    """

    def __init__(self, plan: Plan, fingerprints: Mapping[str, str]) -> None:
        self._plan, self._graph, self._fingerprints = plan, plan.graph, fingerprints
        self.stages: dict[str, str] = {}
        for stage in plan.stages:  # those it needs come before it
            self.stages[stage.name] = self._of_stage(stage)

    def _of_stage(self, stage: Stage) -> str:
        said = {
            "nodes": [self._said(name) for name in stage.nodes],
            "flows": sorted((str(output), list(names)) for output, names in stage.flows.items()),
            "stores": sorted(map(str, stage.stores)),
            "needs": [(str(need), self.stages[self._plan.makers[need].name]) for need in stage.needs],
            "fingerprint": self._fingerprints.get(stage.root) if isinstance(stage.root, str) else None,
        }
        return _hash(said)

    def of_node(self, node: str, parts: str) -> str:
        """Changes with anything that changes what is given to this node in these parts, or what it does with it."""
        before = sorted({node, *(name for name, after in self._graph.below.items() if node in after)})
        said = {
            "nodes": [self._said(name) for name in before],
            "edges": sorted(str(edge) for edge in self._graph.edges if edge.target in before),
            "fingerprints": {name: self._fingerprints[name] for name in before if name in self._fingerprints},
            "parts": parts,
        }
        return _hash(said)

    def _said(self, name: str) -> tuple[str, str, dict[str, Any]]:
        return name, self._graph.nodes[name].type, self._graph.nodes[name].model_dump()


def _hash(said: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=_plain).encode()).hexdigest()[:16]


def _plain(value: Any) -> str:
    """Another address of a database is another place, though nobody may see it."""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
