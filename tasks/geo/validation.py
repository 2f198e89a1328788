"""Everything that is wrong with a workflow, said at once and before anything runs; and what its nodes will be given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from psycopg2.extensions import parse_dsn
from pydantic import SecretStr, ValidationError

from tasks.errors import ConfigurationError, ItemError, OutsideUnreachable
from tasks.geo.catalogue import NODES
from tasks.geo.definition import Edge, NodeSpec, Problem, Workflow
from tasks.geo.estimate import Expected, expected_of, told
from tasks.geo.fields import languages, suggested
from tasks.geo.graph_order import circles, ordered
from tasks.geo.layouts import Layout
from tasks.geo.nodes import Described, Node, NodeProblem, Outside, Source
from tasks.geo.parameters import Unfit, names_in, placed, valued
from tasks.geo.reading import UNTYPED
from tasks.geo.wording import findings


@dataclass(frozen=True)
class Checked:
    """A workflow looked at with the values of a run. It can run when there are no problems.

    nodes      those whose parameters are right, by id
    layouts    what each node's ports give, by (id, port)
    described  the sources, by id
    expected   how much each node gives and holds, by id
    values     of the workflow's parameters
    problems   why it cannot run
    notes      what is worth knowing: memory of gathering nodes, parameters that nothing uses
    """

    workflow: Workflow
    values: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    layouts: dict[tuple[str, str], Layout] = field(default_factory=dict)
    described: dict[str, Described] = field(default_factory=dict)
    expected: dict[str, Expected] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def require(self) -> None:
        """Raises ConfigurationError with every problem, one a line."""
        if self.problems:
            count = f"{len(self.problems)} problems" if len(self.problems) > 1 else "a problem"
            said = "\n".join(f"  {problem}" for problem in self.problems)
            raise ConfigurationError(f"The workflow {self.workflow.id} has {count}:\n{said}")


def check(workflow: Workflow, values: Mapping[str, Any], outside: Outside) -> Checked:
    """Looks at the definition, the values and the outside things; reads no features.

    Raises OutsideUnreachable where a source's system does not answer and nothing else is wrong.
    """
    known, wrong = valued(workflow.parameters, values)
    checked = Checked(workflow, values=known, problems=[*workflow.problems, *wrong])
    _Check(checked, outside).whole()
    return checked


class _Check:
    """One workflow being looked at."""

    def __init__(self, checked: Checked, outside: Outside) -> None:
        self.checked = checked
        self.outside = outside
        self.specs: dict[str, NodeSpec] = {}
        for spec in checked.workflow.nodes:
            self.specs.setdefault(spec.id, spec)
        self.edges: list[Edge] = []
        self.unreachable: OutsideUnreachable | None = None

    def whole(self) -> None:
        self._ids()
        for spec in self.specs.values():
            self._node(spec)
        for edge, count in Counter(self.checked.workflow.edges).items():
            self._edge(edge, count)
        for spec in self.specs.values():
            self._ports(spec)
        self._circles()
        for name in ordered(list(self.specs), self.edges):
            if name in self.checked.nodes:
                self._flow(name, self.checked.nodes[name])
        self._notes()
        if self.unreachable is not None and not self.checked.problems:
            raise self.unreachable

    def _wrong(self, node: str | None, place: str | None, message: str) -> None:
        self.checked.problems.append(Problem(node, place, message))

    def _ids(self) -> None:
        if not self.specs and not self.checked.workflow.problems:
            self._wrong(None, "nodes", "there are none; give at least a source and a sink.")
        for name, count in Counter(spec.id for spec in self.checked.workflow.nodes).items():
            if count > 1:
                self._wrong(name, "id", f"{count} nodes have the id {name!r}; rename all but one.")

    # --- nodes ---

    def _node(self, spec: NodeSpec) -> None:
        kind = NODES.get(spec.type)
        if kind is None:
            if spec.type != UNTYPED:
                self._wrong(
                    spec.id, "type", f"there is no node type {spec.type!r}; {suggested(spec.type, sorted(NODES))}."
                )
            return
        parameters = self._placed(spec, languages(kind))
        if parameters is None:
            return
        try:
            self.checked.nodes[spec.id] = kind.model_validate(parameters)
        except ValidationError as exc:
            for place, message in findings(exc, kind, parameters):
                self._wrong(spec.id, place or None, message)
        except NodeProblem as exc:
            self._wrong(spec.id, exc.field, str(exc))
        else:
            self._addresses(spec.id, self.checked.nodes[spec.id])

    def _addresses(self, name: str, node: Node) -> None:
        """Definitions are kept with their runs, wherever they come from, so no secret may stand in one."""
        for place in type(node).model_fields:
            value = getattr(node, place)
            if isinstance(value, SecretStr) and _holds_password(value.get_secret_value()):
                self._wrong(
                    name, place, "it holds a password; put the address into the environment, and give env:NAME here."
                )

    def _placed(self, spec: NodeSpec, language: Mapping[str, str]) -> dict[str, Any] | None:
        """The node's parameters with the workflow's put in; None where one of them has no value that fits."""
        found: dict[str, Any] = {}
        fits = True
        for name, value in spec.parameters.items():
            try:
                found[name] = placed(value, self.checked.values, language.get(name))
            except Unfit as exc:
                self._wrong(spec.id, name, str(exc))
                fits = False
            if names_in(value) and found.get(name) is None:
                found.pop(name, None)
                fits = fits and not names_in(value) & self._refused()
        return found if fits else None

    def _refused(self) -> set[str]:
        """Parameters whose value was wrong: that is told once, there."""
        places = {p.field for p in self.checked.problems if p.node is None}
        return {name for name in self.checked.values if f"parameters.{name}" in places}

    # --- edges ---

    def _edge(self, edge: Edge, count: int) -> None:
        place = f"inputs.{edge.to_port}"
        missing = [name for name in (edge.source, edge.target) if name not in self.specs]
        for name in missing:
            node = edge.target if edge.target in self.specs else edge.source if edge.source in self.specs else None
            self._wrong(
                node, place, f"an edge names the node {name!r}, which is not there; {suggested(name, self.specs)}."
            )
        if missing:
            return
        if count > 1:
            self._wrong(edge.target, place, f"the edge from {edge.source} stands {count} times; keep one.")
        gives, takes = self._ports_of(edge.source, "outputs"), self._ports_of(edge.target, "inputs")
        if gives is not None and edge.from_port not in gives:
            said = suggested(edge.from_port, gives, "it gives nothing, it writes")
            self._wrong(edge.target, place, f"{edge.source} has no port {edge.from_port!r}; {said}.")
        elif takes is not None and edge.to_port not in takes:
            said = suggested(edge.to_port, takes, "it reads, and takes no input")
            self._wrong(edge.target, place, f"there is no port {edge.to_port!r}; {said}.")
        else:
            self.edges.append(edge)

    def _ports_of(self, name: str, side: str) -> tuple[str, ...] | None:
        """Ports of a node; of its type, where its parameters are wrong; None where that is not known either."""
        found: Any = self.checked.nodes.get(name) or NODES.get(self.specs[name].type)
        return getattr(found, side) if found is not None else None

    def _ports(self, spec: NodeSpec) -> None:
        takes, gives = self._ports_of(spec.id, "inputs"), self._ports_of(spec.id, "outputs")
        found: Any = self.checked.nodes.get(spec.id) or NODES.get(spec.type)
        tried = {(e.target, e.to_port) for e in self.checked.workflow.edges}
        for port in takes or ():
            origins = [e.source for e in self.edges if (e.target, e.to_port) == (spec.id, port)]
            if not origins and (spec.id, port) not in tried:
                short = f"inputs: {{{port}: ...}}" if takes != ("input",) else "inputs: ..."
                self._wrong(spec.id, f"inputs.{port}", f"nothing comes in; name the node it comes from ({short}).")
            if len(origins) > 1 and not (found.many and port == "input"):
                said = " and ".join(origins)
                self._wrong(spec.id, f"inputs.{port}", f"{said} both come in here; put a node of type merge before it.")
        if gives and not any(e.source == spec.id for e in self.checked.workflow.edges):
            self._wrong(spec.id, None, "its result goes nowhere; connect it to a sink, or remove it.")

    def _circles(self) -> None:
        for circle in circles(list(self.specs), self.edges):
            path = " -> ".join([*circle, circle[0]])
            self._wrong(
                circle[0], "inputs", f"its input depends on its own output ({path}); remove one of these edges."
            )

    # --- what flows ---

    def _flow(self, name: str, node: Node) -> None:
        """Layouts of a node's ports, where all that comes in is known. Every node is asked, and once only."""
        given = self._given(name, node)
        if given is None or self._mismatch(name, given) or not self._paths(name, node):
            return
        try:
            if isinstance(node, Source):
                self.checked.described[name] = found = node.describe(self.outside)
                gives: Mapping[str, Layout] = dict.fromkeys(node.outputs, found.layout)
            else:
                gives = node.layouts({port: layout for port, (_, layout) in given.items()})
        except NodeProblem as exc:
            self._wrong(name, exc.field, str(exc))
        except (ConfigurationError, ItemError) as exc:
            self._wrong(name, None, str(exc))
        except OutsideUnreachable as exc:
            self.unreachable = self.unreachable or exc
        else:
            self.checked.layouts.update({(name, port): layout for port, layout in gives.items()})

    def _given(self, name: str, node: Node) -> dict[str, tuple[str, Layout]] | None:
        """Port -> the node it comes from and the layout; further streams of a `many` node are input#2, input#3."""
        given: dict[str, tuple[str, Layout]] = {}
        for edge in (e for e in self.edges if e.target == name):
            layout = self.checked.layouts.get((edge.source, edge.from_port))
            if layout is None:
                return None
            count = sum(port.partition("#")[0] == edge.to_port for port in given)
            given[edge.to_port if not count else f"{edge.to_port}#{count + 1}"] = edge.source, layout
        return given if {port.partition("#")[0] for port in given} == set(node.inputs) else None

    def _mismatch(self, name: str, given: Mapping[str, tuple[str, Layout]]) -> bool:
        placed_in = [(port, origin, crs) for port, (origin, layout) in given.items() if (crs := layout.crs)]
        for port, origin, crs in placed_in[1:]:
            if crs != placed_in[0][2]:
                first = f"{placed_in[0][1]} is in {_short(placed_in[0][2])}"
                remedy = f"put geoprocessing.reproject with target_crs: {_short(placed_in[0][2])} between"
                self._wrong(name, f"inputs.{port}", f"{origin} is in {_short(crs)}, but {first}; {remedy}.")
                return True
        return False

    def _paths(self, name: str, node: Node) -> bool:
        """Files are where they may be."""
        for place, asked in (("file_path", self.outside.readable), ("output_path", self.outside.writable)):
            path = getattr(node, place, None)
            if isinstance(path, str):
                try:
                    asked(path)
                except ConfigurationError as exc:
                    self._wrong(name, place, str(exc))
                    return False
        return True

    def _notes(self) -> None:
        checked = self.checked
        used = {name for spec in checked.workflow.nodes for name in names_in(spec.parameters)}
        for name in checked.workflow.parameters.keys() - used:
            checked.notes.append(
                Problem(None, f"parameters.{name}", "no node uses it; remove it, or write ${" + name + "}.")
            )
        order = [name for name in ordered(list(self.specs), self.edges) if name in checked.nodes]
        checked.expected.update(expected_of(order, checked.nodes, self.edges, checked.layouts, checked.described))
        checked.notes.extend(told(checked.nodes, checked.expected))


def _holds_password(address: str) -> bool:
    """Whether libpq finds one in it: postgresql://user:password@host/name, ?password=, or words such as password=x."""
    try:
        return "password" in parse_dsn(address)
    except psycopg2.ProgrammingError:  # no address, as who uses it will say
        return False


def _short(crs: str) -> str:
    return crs if len(crs) <= 40 else crs[:40].partition(",")[0] + "..."
