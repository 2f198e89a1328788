"""The text of a definition, YAML or JSON, as plain values: nothing is executed, and size, depth and count are capped.

YAML is read by its core schema (yaml.org/spec/1.2.2 section 10.3), so `no` and `2024-01-01` stay text and `1:30` is no
number. Values are built from the parser's events without recursion: libyaml's own composer overflows the stack on
100,000 open brackets, and a nest of aliases that would unfold to millions of values is refused as it appears.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from tasks.errors import ConfigurationError

MAX_BYTES = 8 << 20
MAX_DEPTH = 64
MAX_VALUES = 1_000_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT = "tag:yaml.org,2002:str"
_INTEGER = re.compile(r"[-+]?[0-9]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,100}|[0-9]{1,100}(\.[0-9]{0,100})?)([eE][-+]?[0-9]{1,2})?")
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}


class _Unreadable(Exception):
    """What is wrong with the text, and in which line."""


def parsed(text: str, name: str) -> dict[str, Any]:
    """The mapping that the text holds. Raises ConfigurationError with the line, and the remedy."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise ConfigurationError(f"{name} is larger than {MAX_BYTES >> 20} MiB; put the data into files and name them.")
    try:
        value = _json(text) if text.lstrip()[:1] == "{" else _yaml(text)
    except _Unreadable as exc:
        raise ConfigurationError(f"{name} cannot be read: {exc}.") from exc
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name} is no workflow; it has to begin with fields such as id: and nodes:.")
    return value


def checked(value: Any, name: str) -> None:
    """Raises ConfigurationError for values that JSON does not have, or too many, or too deep."""
    rest: list[Iterator[Any]] = [iter([value])]
    count = 0
    while rest:
        inner = next(rest[-1], _END)
        if inner is _END:
            rest.pop()
            continue
        count += 1
        if count > MAX_VALUES or len(rest) > MAX_DEPTH:
            raise ConfigurationError(f"{name} has {_LIMITS}; put the data into files and name them.")
        rest.append(_within(inner, name))


_END = object()
_LIMITS = f"more than {MAX_VALUES:,} values, or more than {MAX_DEPTH} levels"


def _within(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return iter(value.values())
    if isinstance(value, list | tuple):
        return iter(value)
    if isinstance(value, str) and _UNWRITABLE.search(value):
        raise ConfigurationError(f"{name} holds a text with a character that no file can have; remove it.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{name} holds {value}, which is no number in JSON; use null or leave it out.")
    if value is None or isinstance(value, str | int | float):
        return iter(())
    raise ConfigurationError(
        f"{name} holds a {type(value).__name__}; use text, numbers, true, false, null, lists and maps."
    )


def _json(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        try:
            return _yaml(text)  # YAML may begin with a brace too
        except _Unreadable:
            raise _Unreadable(f"line {exc.lineno}, column {exc.colno}: {exc.msg[0].lower() + exc.msg[1:]}") from exc
    except RecursionError as exc:
        raise _Unreadable(f"it has more than {MAX_DEPTH} levels") from exc
    except ValueError as exc:  # an integer of thousands of digits
        raise _Unreadable(str(exc)) from exc
    checked(value, "the workflow")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unreadable(f"{twice!r} stands twice in the same map; keep one")
    return made


def _no_constant(name: str) -> Any:
    raise _Unreadable(f"{name} is no number in JSON; use null or leave it out")


def _yaml(text: str) -> Any:
    built = _Built()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            built.take(event)
    except yaml.MarkedYAMLError as exc:
        mark, what = exc.problem_mark or exc.context_mark, exc.problem or exc.context or "it is no YAML"
        tabs = mark and "\t" in "".join(text.split("\n")[mark.line : mark.line + 1])[: mark.column + 1]
        raise _Unreadable(f"{_line(mark)}: {what}{'; indent with spaces, not tabs' if tabs else ''}") from exc
    except yaml.reader.ReaderError as exc:
        raise _Unreadable(f"there is a control character at position {exc.position}; remove it") from exc
    return built.value


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"


@dataclass
class _Open:
    """A list or a map that is not yet closed."""

    value: Any
    anchor: str | None
    before: int
    key: str | None = None


@dataclass
class _Built:
    """The values so far."""

    value: Any = None
    count: int = 0
    documents: int = 0
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int]] = field(default_factory=dict)

    def take(self, event: Any) -> None:
        """The parser's next event."""
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise _Unreadable(f"{_line(event.start_mark)}: a second document begins; keep one workflow a file")
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end(event)

    def _scalar(self, event: Any) -> None:
        if self._wants_key():
            self._name(event)
            return
        if event.tag not in (None, "!", _TEXT):
            raise _Unreadable(f"{_line(event.start_mark)}: the tag {event.tag} is not known here; remove it")
        value = _resolved(event.value) if event.tag is None and event.implicit[0] else event.value
        self._counted(1, event)
        self._put(value, event)
        if event.anchor:
            self.anchors[event.anchor] = value, 1

    def _alias(self, event: Any) -> None:
        if self._wants_key():
            raise _Unreadable(f"{_line(event.start_mark)}: an alias cannot be a name here; write the name")
        if event.anchor not in self.anchors:
            raise _Unreadable(f"{_line(event.start_mark)}: *{event.anchor} stands before the end of &{event.anchor}")
        value, size = self.anchors[event.anchor]
        self._counted(size, event)
        self._put(value, event)

    def _begin(self, event: Any) -> None:
        if self._wants_key():
            raise _Unreadable(f"{_line(event.start_mark)}: a name is wanted here, not a list or a map")
        if event.tag not in (None, "!") or len(self.stack) >= MAX_DEPTH:
            what = f"the tag {event.tag} is not known here" if event.tag else f"more than {MAX_DEPTH} levels"
            raise _Unreadable(f"{_line(event.start_mark)}: {what}")
        self._counted(1, event)
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self.stack.append(_Open(value, event.anchor, self.count - 1))

    def _end(self, event: Any) -> None:
        closed = self.stack.pop()
        if closed.anchor:
            self.anchors[closed.anchor] = closed.value, self.count - closed.before
        self._put(closed.value, event)

    def _wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None

    def _name(self, event: Any) -> None:
        if event.value in self.stack[-1].value:
            raise _Unreadable(f"{_line(event.start_mark)}: {event.value!r} stands twice in the same map; keep one")
        self.stack[-1].key = event.value

    def _put(self, value: Any, event: Any) -> None:
        if not self.stack:
            self.value = value
        elif isinstance(self.stack[-1].value, list):
            self.stack[-1].value.append(value)
        else:
            self.stack[-1].value[self.stack[-1].key] = value
            self.stack[-1].key = None

    def _counted(self, size: int, event: Any) -> None:
        self.count += size
        if self.count > MAX_VALUES:
            raise _Unreadable(f"{_line(event.start_mark)}: more than {MAX_VALUES:,} values; put the data into files")


def _resolved(plain: str) -> Any:
    """The core schema's value of a plain scalar; what it does not know is text."""
    if plain.lower() in _WORDS and plain in (plain.lower(), plain.capitalize(), plain.upper()):
        return _WORDS[plain.lower()]
    if _INTEGER.fullmatch(plain):
        return int(plain)
    return float(plain) if _FLOAT.fullmatch(plain) else plain
