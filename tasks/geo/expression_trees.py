"""What an expression consists of, before its columns are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class ExpressionProblem(Exception):
    """What is wrong with an expression, as a sentence with the remedy."""


@dataclass(frozen=True)
class Tree:
    """A part of an expression, and at which character it begins (from 1)."""

    at: int


@dataclass(frozen=True)
class Constant(Tree):
    value: Any


@dataclass(frozen=True)
class Column(Tree):
    name: str


@dataclass(frozen=True)
class Call(Tree):
    """A function or an operator: and, or, not, -x, + - * / %, ||, = <> < <= > >=, or a name."""

    name: str
    given: tuple[Tree, ...]


@dataclass(frozen=True)
class IsNull(Tree):
    value: Tree


@dataclass(frozen=True)
class In(Tree):
    value: Tree
    choices: tuple[Tree, ...]


@dataclass(frozen=True)
class Like(Tree):
    value: Tree
    pattern: Tree
    fold: bool


@dataclass(frozen=True)
class Case(Tree):
    whens: tuple[tuple[Tree, Tree], ...]
    otherwise: Tree


@dataclass(frozen=True)
class Cast(Tree):
    """lenient: null, rather than a failure, for what has no such value."""

    value: Tree
    kind: str
    lenient: bool
