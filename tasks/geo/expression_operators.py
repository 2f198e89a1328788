"""What operators, CASE and functions do: their kinds, checked, and their run on a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.geo.casting import ARROW, Kind, cast, finite
from tasks.geo.expression_functions import Function, joined
from tasks.geo.expression_parts import Rows, Typed, arrayed, as_kind, spread, unified
from tasks.geo.expression_trees import Call, Constant, ExpressionProblem

COMPARED: dict[str, Callable[..., Any]] = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
COMPUTED: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "+": (pc.add_checked, pc.add),
    "-": (pc.subtract_checked, pc.subtract),
    "*": (pc.multiply_checked, pc.multiply),
}


def logical(tree: Call, given: Sequence[Typed], fallible: bool) -> Typed:
    """and, or, not; of any number of terms."""
    terms = [as_kind(g, Kind.BOOLEAN) for g in given]
    if tree.name == "not":
        return Typed(Kind.BOOLEAN, lambda rows: pc.invert(terms[0].run(rows)), tree, fallible)
    join = pc.and_kleene if tree.name == "and" else pc.or_kleene
    return Typed(Kind.BOOLEAN, lambda rows: reduce(join, (t.run(rows) for t in terms)), tree, fallible)


def compared(tree: Call, given: Sequence[Typed], fallible: bool) -> Typed:
    """= <> < <= > >=."""
    left, right = unified(given, tree.at)
    if left.kind is Kind.BOOLEAN and tree.name not in ("=", "<>"):
        raise ExpressionProblem(f"true and false have no order (character {tree.at}); compare them with = or <>.")
    compare = COMPARED[tree.name]
    return Typed(Kind.BOOLEAN, lambda rows: compare(left.run(rows), right.run(rows)), tree, fallible)


def computed(tree: Call, given: Sequence[Typed], fallible: bool) -> Typed:
    """+ - * / % and the sign."""
    for part in given:
        if part.kind is Kind.TEXT and tree.name == "+":
            raise ExpressionProblem(f"{part.named} at character {part.tree.at} is no number; texts are joined with ||.")
    whole = tree.name != "/" and all(g.kind in (Kind.INTEGER, Kind.NOTHING) for g in given)
    kind = Kind.INTEGER if whole else Kind.NUMBER
    parts = [as_kind(g, kind) for g in given]
    run = _arithmetic(tree.name, whole=whole)
    return Typed(kind, lambda rows: run(*(p.run(rows) for p in parts)), tree, fallible or whole)


def _arithmetic(name: str, *, whole: bool) -> Callable[..., Any]:
    if name == "-x":
        negate: Callable[..., Any] = pc.negate_checked if whole else pc.negate
        return negate
    if name == "%":
        return _whole_remainder if whole else _remainder
    if name == "/":
        return lambda a, b: finite(pc.divide(a, b))
    checked, unchecked = COMPUTED[name]
    return checked if whole else lambda a, b: finite(unchecked(a, b))


def _whole_remainder(left: Any, right: Any) -> Any:
    """With the sign of the left; null where the right is 0. By -1 it would overflow, by 1 it is 0 too."""
    one = pc.if_else(pc.equal(right, -1), pa.scalar(1), right)
    by = pc.if_else(pc.equal(one, 0), pa.scalar(None, pa.int64()), one)
    return pc.subtract(left, pc.multiply(pc.divide(left, by), by))


def _remainder(left: Any, right: Any) -> Any:
    def run(a: Any, b: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return finite(pa.array(np.fmod(_floats(a), _floats(b))))

    return arrayed(run, left, right)


def _floats(datum: Any) -> Any:
    """NaN for null."""
    if isinstance(datum, pa.Scalar):
        return np.nan if datum.as_py() is None else datum.as_py()
    return datum.to_numpy(zero_copy_only=False)


def of_one_kind(tree: Call, given: Sequence[Typed], fallible: bool) -> Typed:
    """coalesce, nullif, least, greatest, concat."""
    least, most = (2, 2) if tree.name == "nullif" else (1, None)
    _counted(tree, len(given), least, most)
    if tree.name == "concat":
        parts = [_as_text(g) for g in given]
        return Typed(Kind.TEXT, lambda rows: joined((p.run(rows) for p in parts), skip_nulls=True), tree, True)
    parts = unified(given, tree.at)
    kind = parts[0].kind
    if tree.name == "coalesce" and fallible:
        tests = [_there(part) for part in parts[:-1]]
        return Typed(kind, lambda rows: chosen(tests, parts, rows), tree, fallible)
    if tree.name in ("least", "greatest") and kind is Kind.BOOLEAN:
        raise ExpressionProblem(f"true and false have no order (character {tree.at}); use and, or.")
    run = _UNIFIED[tree.name]
    return Typed(kind, lambda rows: run(*(p.run(rows) for p in parts)), tree, fallible)


def _there(part: Typed) -> Typed:
    return replace(part, kind=Kind.BOOLEAN, run=lambda rows: pc.is_valid(part.run(rows)))


def _nullif(left: Any, right: Any) -> Any:
    return pc.if_else(pc.fill_null(pc.equal(left, right), False), pa.scalar(None, left.type), left)


_UNIFIED: dict[str, Callable[..., Any]] = {
    "coalesce": pc.coalesce,
    "nullif": _nullif,
    "least": pc.min_element_wise,
    "greatest": pc.max_element_wise,
}


def _as_text(part: Typed) -> Typed:
    if part.kind in (Kind.TEXT, Kind.NOTHING, Kind.OTHER):
        return as_kind(part, Kind.TEXT)

    def run(rows: Rows) -> Any:
        return arrayed(lambda values: cast(values, Kind.TEXT, lenient=False), part.run(rows))

    return replace(part, kind=Kind.TEXT, run=run)


def function(tree: Call, known: Function, given: Sequence[Typed], fallible: bool) -> Typed:
    """A call of a function of the table."""
    _counted(tree, len(given), sum(not t.endswith("?") for t in known.takes), len(known.takes))
    written = [_written(part, takes) for part, takes in zip(given, known.takes, strict=False) if "!" in takes]
    parts = [_taken(part, takes) for part, takes in zip(given, known.takes, strict=False) if "!" not in takes]
    kind = known.gives or parts[0].kind
    try:  # a regular expression is looked at before anything is read
        known.run(*(pa.nulls(1, ARROW[p.kind]) for p in parts), *written)
    except pa.ArrowInvalid as exc:
        raise ExpressionProblem(f"{tree.name} at character {tree.at} cannot work: {exc}.") from exc

    def run(rows: Rows) -> Any:
        return arrayed(known.run, *(p.run(rows) for p in parts), *written)

    return Typed(kind, run, tree, fallible or known.fallible)


def _counted(tree: Call, count: int, least: int, most: int | None) -> None:
    if count < least or (most is not None and count > most):
        wanted = f"{least}" if least == most else f"{least} to {most}" if most else f"{least} or more"
        raise ExpressionProblem(f"{tree.name} at character {tree.at} takes {wanted} values, not {count}; correct them.")


def _written(part: Typed, takes: str) -> Any:
    wanted = str if takes.startswith("text") else int
    if type(part.value) is not wanted or not isinstance(part.tree, Constant):
        what = "a text in quotes" if wanted is str else "a whole number"
        raise ExpressionProblem(f"{part.named} at character {part.tree.at} stands where {what} has to be written out.")
    return part.value


def _taken(part: Typed, takes: str) -> Typed:
    if takes == "moment":
        return as_kind(part, Kind.DATE) if part.kind is not Kind.TIMESTAMP else part
    if takes == "numeric":
        return part if part.kind is Kind.INTEGER else as_kind(part, Kind.NUMBER)
    return as_kind(part, Kind.TEXT if takes == "text" else Kind.NUMBER)


def chosen(tests: Sequence[Typed], branches: Sequence[Typed], rows: Rows) -> pa.Array:
    """CASE whose branches run on their own rows only, so that `when b <> 0 then cast(...)` cannot fail elsewhere."""
    left, places = rows, np.arange(rows.count)
    found, positions = [], []
    for test, branch in zip(tests, branches, strict=False):
        hit = pc.fill_null(spread(test.run(left), left.count), False)
        taken, mask = left.where(hit), hit.to_numpy(zero_copy_only=False).astype(bool)
        found.append(spread(branch.run(taken), taken.count))
        positions.append(places[mask])
        left, places = left.where(pc.invert(hit)), places[~mask]
    found.append(spread(branches[-1].run(left), left.count))
    order = np.argsort(np.concatenate([*positions, places]))
    return pa.concat_arrays(found).take(pa.array(order))


def chosen_at_once(tests: Sequence[Typed], branches: Sequence[Typed], rows: Rows) -> Any:
    """CASE whose branches cannot fail: all are run on all rows."""
    result = branches[-1].run(rows)
    for test, branch in zip(reversed(tests), reversed(branches[:-1]), strict=True):
        result = pc.if_else(pc.fill_null(test.run(rows), False), branch.run(rows), result)
    return result
