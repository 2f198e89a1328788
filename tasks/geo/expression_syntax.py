"""The text of an expression as a tree. The grammar is SQL's, for one row:

    area_m2 > 100 and (owner is null or owner like 'City%')
    case when storeys between 1 and 3 then 'low' else 'high' end
    coalesce("land use", 'unknown') || ' ' || cast(plot as text)

Names are columns, in double quotes where they have other characters than letters, digits and _, or are words of the
language. Text stands in single quotes, a quote in it is doubled. `==` and `!=` are understood too.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from tasks.geo.expression_trees import (
    Call,
    Case,
    Cast,
    Column,
    Constant,
    ExpressionProblem,
    In,
    IsNull,
    Like,
    Tree,
)

MAX_LENGTH = 10_000
MAX_DEPTH = 40
"""Levels of brackets and of operators that stand upon one another."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?!\w))|(?P<text>'(?:[^']|'')*')"
    r"|(?P<name>\"(?:[^\"]|\"\")+\")|(?P<word>[^\W\d]\w*)|(?P<sign><=|>=|<>|!=|==|\|\||[-+*/%(),<>=])|(?P<end>$))"
)
_WORDS = frozenset(
    "and or not is null in between like ilike case when then else end cast try_cast as true false".split()
)
_COMPARISONS = {"=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True)
class _Token:
    sort: str
    text: str
    at: int


def parsed(text: str) -> Tree:
    """The tree of an expression. Raises ExpressionProblem."""
    if len(text) > MAX_LENGTH:
        raise ExpressionProblem(f"it is {len(text):,} characters long; {MAX_LENGTH:,} are allowed, so divide it.")
    return _Parser(_tokens(text)).whole()


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while not found or found[-1].sort != "end":
        match = _TOKEN.match(text, at)
        if match is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            raise ExpressionProblem(_unknown(text, place))
        sort = str(match.lastgroup)
        found.append(_Token(sort, match[sort], match.start(sort) + 1))
        at = match.end()
    return found


def _unknown(text: str, place: int) -> str:
    if text[place] in "'\"":
        return f"the {text[place]} at character {place + 1} is not closed; write it again at the end."
    if text[place].isdigit():
        return f"at character {place + 1} is no number; put a name that begins with a digit in double quotes."
    return f"{text[place]!r} at character {place + 1} has no meaning here; put names that have it in double quotes."


class _Parser:
    """Reads tokens by precedence: or, and, not, comparisons, ||, + -, * / %, a sign."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.next = 0
        self.depth = 0

    def whole(self) -> Tree:
        tree = self._any()
        if self._token.sort != "end":
            self._wrong("a sign such as =, + or and")
        return tree

    @property
    def _token(self) -> _Token:
        return self.tokens[self.next]

    def _wrong(self, wanted: str) -> NoReturn:
        token = self._token
        there = "the expression ends" if token.sort == "end" else f"{token.text} stands"
        raise ExpressionProblem(f"{there} at character {token.at} where {wanted} is wanted; correct it there.")

    def _is(self, *words: str) -> bool:
        return self._token.sort in ("word", "sign") and self._token.text.lower() in words

    def _took(self, *words: str) -> bool:
        """Whether the words come next, one after the other; then they are taken."""
        ahead = self.tokens[self.next : self.next + len(words)]
        if [t.text.lower() for t in ahead if t.sort in ("word", "sign")] != list(words):
            return False
        self.next += len(words)
        return True

    def _take(self, word: str) -> None:
        if not self._took(word):
            self._wrong(word)

    def _deeper(self, read: Callable[[], Tree]) -> Tree:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionProblem(f"it has more than {MAX_DEPTH} levels; divide it over several columns.")
        tree = read()
        self.depth -= 1
        return tree

    def _any(self) -> Tree:
        return self._deeper(lambda: self._joined("or", lambda: self._joined("and", self._negated)))

    def _joined(self, word: str, inner: Callable[[], Tree]) -> Tree:
        at, terms = self._token.at, [inner()]
        while self._took(word):
            terms.append(inner())
        return terms[0] if len(terms) == 1 else Call(at, word, tuple(terms))

    def _negated(self) -> Tree:
        at = self._token.at
        if self._took("not"):
            return Call(at, "not", (self._deeper(self._negated),))
        return self._compared()

    def _compared(self) -> Tree:
        left = self._chain(0)
        if self._is(*_COMPARISONS):
            at, sign = self._token.at, _COMPARISONS[self._token.text]
            self.next += 1
            left = Call(at, sign, (left, self._chain(0)))
            if self._is(*_COMPARISONS):
                self._wrong("and (a < b < c is written a < b and b < c)")
        return self._tested(left)

    def _tested(self, left: Tree) -> Tree:
        at = self._token.at
        if self._took("is", "not", "null"):
            return Call(at, "not", (IsNull(at, left),))
        if self._took("is", "null"):
            return IsNull(at, left)
        negated = self._took("not")
        test = self._test(at, left)
        if test is None:
            return left if not negated else self._wrong("in, like, ilike or between")
        return Call(at, "not", (test,)) if negated else test

    def _test(self, at: int, left: Tree) -> Tree | None:
        if self._took("in"):
            return In(at, left, self._list())
        if self._took("like"):
            return Like(at, left, self._chain(0), fold=False)
        if self._took("ilike"):
            return Like(at, left, self._chain(0), fold=True)
        if self._took("between"):
            low = self._chain(0)
            self._take("and")
            return Call(at, "and", (Call(at, ">=", (left, low)), Call(at, "<=", (left, self._chain(0)))))
        return None

    _LEVELS = (("||",), ("+", "-"), ("*", "/", "%"))

    def _chain(self, level: int) -> Tree:
        """Operators of one precedence, from the left; they stand upon one another, so they count as levels."""
        if level == len(self._LEVELS):
            return self._signed()
        left, before = self._chain(level + 1), self.depth
        while self._is(*self._LEVELS[level]):
            token = self._token
            self.next += 1
            left = Call(token.at, token.text, (left, self._deeper(lambda: self._chain(level + 1))))
            self.depth += 1
        self.depth = before
        return left

    def _signed(self) -> Tree:
        at = self._token.at
        if self._took("-"):
            inner = self._deeper(self._signed)
            negative = isinstance(inner, Constant) and type(inner.value) in (int, float)
            return Constant(at, -inner.value) if negative else Call(at, "-x", (inner,))  # type: ignore[attr-defined]
        return self._deeper(self._signed) if self._took("+") else self._single()

    def _single(self) -> Tree:
        token = self._token
        if token.sort == "sign" and self._took("("):
            inner = self._any()
            self._take(")")
            return inner
        if token.sort == "word":
            return self._word(token)
        if token.sort not in ("number", "text", "name"):
            self._wrong("a value")
        self.next += 1
        if token.sort == "name":
            return Column(token.at, token.text[1:-1].replace('""', '"'))
        return Constant(token.at, _number(token) if token.sort == "number" else _plain(token))

    def _word(self, token: _Token) -> Tree:
        word = token.text.lower()
        if word in ("true", "false", "null"):
            self.next += 1
            return Constant(token.at, {"true": True, "false": False, "null": None}[word])
        if word == "case":
            return self._case(token.at)
        if word in ("cast", "try_cast"):
            return self._cast(token.at, lenient=word == "try_cast")
        if word in _WORDS:
            self._wrong(f'a value (a column of that name is written "{token.text}")')
        self.next += 1
        if word in ("date", "timestamp") and self._token.sort == "text":
            return self._moment(word)
        return Call(token.at, word, self._list()) if self._is("(") else Column(token.at, token.text)

    def _list(self) -> tuple[Tree, ...]:
        self._take("(")
        if self._took(")"):
            return ()
        given = [self._any()]
        while self._took(","):
            given.append(self._any())
        self._take(")")
        return tuple(given)

    def _case(self, at: int) -> Tree:
        self._take("case")
        subject = None if self._is("when") else self._any()
        whens: list[tuple[Tree, Tree]] = []
        while self._took("when"):
            test = self._any()
            self._take("then")
            whens.append((test if subject is None else Call(test.at, "=", (subject, test)), self._any()))
        otherwise = self._any() if whens and self._took("else") else Constant(at, None)
        self._take("end" if whens else "when")
        return Case(at, tuple(whens), otherwise)

    def _cast(self, at: int, *, lenient: bool) -> Tree:
        self.next += 1
        self._take("(")
        value = self._any()
        self._take("as")
        kind = self._token
        if kind.sort != "word":
            self._wrong("a type such as integer or text")
        self.next += 1
        self._take(")")
        return Cast(at, value, kind.text.lower(), lenient)

    def _moment(self, word: str) -> Tree:
        token = self._token
        self.next += 1
        read = dt.date.fromisoformat if word == "date" else dt.datetime.fromisoformat
        try:
            value = read(_plain(token))
        except ValueError:
            raise ExpressionProblem(f"{token.text} at character {token.at} is no {word}; write 2024-12-31.") from None
        return Constant(token.at, value.replace(tzinfo=None) if isinstance(value, dt.datetime) else value)


def _plain(token: _Token) -> str:
    return token.text[1:-1].replace("''", "'")


def _number(token: _Token) -> int | float:
    value = int(token.text) if token.text.isdecimal() else float(token.text)
    if value == math.inf:
        raise ExpressionProblem(f"{token.text} at character {token.at} is too large; write a smaller one.")
    if isinstance(value, int) and value >= 2**63:
        raise ExpressionProblem(f"{token.text} at character {token.at} is too large; write {token.text}.0.")
    return value
