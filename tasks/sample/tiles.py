"""The sample tile server: any layer, zoom, column and row of a generated village, with switchable faults.

In a test, `with SampleTiles() as tiles:` runs it in a thread. For a demo or a benchmark,
`python -m tasks.sample.tiles --port 0` runs it as a process that prints one line of JSON when it is ready.
What each tile is, and must be after a download, says `tasks.sample.tile_contents.tile_content`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tasks.sample.answers import HTML_TYPE, Answer, Request, Target, json_error
from tasks.sample.faults import NONE, FaultKind
from tasks.sample.markup import error_page, page
from tasks.sample.running import AnyFaults, InThread, add_options, run_process
from tasks.sample.tile_contents import (
    LAYERS,
    MAX_ZOOM,
    damaged_content,
    draw_all,
    extension_of,
    tile_content,
    tile_edition,
    tile_number,
)

_TILE = re.compile(r"/([\w-]{1,64})/(\d{1,2})/(\d{1,10})/(\d{1,10})(?:\.(\w+))?", re.ASCII)
_WMS = re.compile(r"(\d{1,10})/(\d{1,10})/(\d{1,2})/([\w-]{1,64})", re.ASCII)
_TYPES = {"png": "image/png", "jpg": "image/jpeg"}
_FIRST_PUBLISHED = datetime(2024, 5, 2, 9, 30, tzinfo=UTC)
_BETWEEN_EDITIONS = timedelta(days=30)
_SHOWN_ZOOM, _SHOWN_X, _SHOWN_Y = 17, 66_016, 53_000


class _Name(NamedTuple):
    layer: str
    z: int
    x: int
    y: int


class TileOffice:
    """Answers `/{layer}/{z}/{x}/{y}` with or without the layer's extension, and `/wms/?d={x}/{y}/{z}/{layer}`.

    A missing tile is answered 404, every other one 204. `version` may change at any time.
    """

    takes_long = False

    def __init__(self, version: int = 0) -> None:
        self.version = version
        draw_all()

    def find(self, request: Request) -> Target:
        """Tiles count as files; their document is `tile_number`."""
        name = _name_of(request)
        return Target("page", None) if name is None else Target("file", tile_number(*name))

    def answer(self, request: Request, target: Target, fault: FaultKind | None) -> Answer:
        """The answer, in some 30 us."""
        if fault is FaultKind.HTML:
            return _html_error(target)
        if fault is FaultKind.JSON:
            return json_error()
        name = _name_of(request)
        if name is None:
            return _page(request.path)
        if fault is FaultKind.EMPTY:
            return Answer(200, b"", _TYPES[extension_of(name.layer)])
        return self._tile(name, request.headers, damaged=fault is FaultKind.DAMAGED)

    def _tile(self, name: _Name, wishes: Mapping[str, str], *, damaged: bool) -> Answer:
        version = self.version
        content = tile_content(*name, version)
        if content is None:
            return _missing(name)
        edition = tile_edition(*name, version)
        etag, published = f'"{tile_number(*name):x}-{edition}"', _published(edition)
        headers = {"ETag": etag, "Last-Modified": _date(edition)}
        if _is_current(wishes, etag, published):
            return Answer(304, b"", headers=headers)
        return Answer(200, damaged_content(content) if damaged else content, _TYPES[extension_of(name.layer)], headers)


class SampleTiles(InThread):
    """The tile server in a thread of this process, for tests.

    version  how often the layers were brought up to date; each time, one picture in ten changes

    The rest as `InThread`.
    """

    def __init__(
        self,
        *,
        version: int = 0,
        seed: int = 7,
        faults: AnyFaults = NONE,
        latency_ms: float = 0.0,
        log: Path | None = None,
        port: int = 0,
    ) -> None:
        self._office = TileOffice(version)
        super().__init__(self._office, seed=seed, faults=faults, latency_ms=latency_ms, log=log, port=port)

    @property
    def version(self) -> int:
        """May be assigned while the server runs."""
        return self._office.version

    @version.setter
    def version(self, version: int) -> None:
        self._office.version = version

    def template(self, layer: str = LAYERS[0]) -> str:
        """The layer's address with {z}, {x} and {y}."""
        return self.url + _path_template(layer)


def _name_of(request: Request) -> _Name | None:
    if found := _TILE.fullmatch(request.path):
        layer, z, x, y, extension = found.groups()
        if extension not in (None, extension_of(layer)):
            return None
    elif request.path == "/wms/" and (found := _WMS.fullmatch(request.fields.get("d", ""))):
        x, y, z, layer = found.groups()
    else:
        return None
    return _Name(layer, int(z), int(x), int(y)) if int(z) <= MAX_ZOOM else None


def _path_template(layer: str) -> str:
    return f"/{layer}/{{z}}/{{x}}/{{y}}.{extension_of(layer)}"


def _is_current(wishes: Mapping[str, str], etag: str, published: datetime) -> bool:
    """Whether the client has this edition already (RFC 9110, 13.2.2: the tag goes before the date)."""
    if "if-none-match" in wishes:
        tags = [tag.strip().removeprefix("W/") for tag in wishes["if-none-match"].split(",")]
        return etag in tags or tags == ["*"]
    try:
        return parsedate_to_datetime(wishes["if-modified-since"]) >= published
    except (KeyError, ValueError, TypeError):  # TypeError: a date without a zone
        return False


def _published(edition: int) -> datetime:
    return _FIRST_PUBLISHED + edition * _BETWEEN_EDITIONS


@lru_cache(maxsize=64)
def _date(edition: int) -> str:
    return format_datetime(_published(edition), usegmt=True)


def _missing(name: _Name) -> Answer:
    if tile_number(*name) >> 20 & 1:
        return Answer(204, b"")
    return Answer(404, error_page("Not found", "There is no such tile.").encode())


def _html_error(target: Target) -> Answer:
    """An error page that calls itself a success, and for every other tile even a picture."""
    text = error_page("Error", "Fatal error: maximum execution time exceeded in tile.php on line 61")
    return Answer(200, text.encode(), "image/png" if (target.document or 0) % 2 else HTML_TYPE)


def _page(path: str) -> Answer:
    if path == "/":
        return Answer(200, page("Sample tiles", "".join(map(_sampler, LAYERS))).encode())
    if path == "/robots.txt":
        return Answer(200, b"User-agent: *\nAllow: /\n", "text/plain; charset=utf-8")
    return Answer(404, error_page("Not found", "There is no such page.").encode())


def _sampler(layer: str) -> str:
    """A piece of a layer as people see it; grey where tiles are missing."""
    template = _path_template(layer)
    tiles = "".join(
        f'<img alt="" width="160" height="160" src="{template.format(z=_SHOWN_ZOOM, x=_SHOWN_X + x, y=_SHOWN_Y + y)}">'
        for y in range(4)
        for x in range(6)
    )
    grid = '<div style="display:grid;grid-template-columns:repeat(6,160px);background:#ccc">'
    return f"<h2>{layer}: <code>{template}</code></h2>{grid}{tiles}</div>"


# --- as a process ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM, SIGINT or the end of the parent. Returns the exit code."""
    parent = os.getppid()
    options = _parser().parse_args(arguments)
    return run_process(options, lambda: _open(options), parent)


def _open(options: argparse.Namespace) -> tuple[TileOffice, Callable[[], dict[str, object]]]:
    return TileOffice(options.version), lambda: {"layers": {layer: _path_template(layer) for layer in LAYERS}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.sample.tiles", description="A sample tile server.")
    add_options(parser)
    parser.add_argument("--version", type=int, default=0, help="each version changes one picture in ten")
    return parser


if __name__ == "__main__":
    sys.exit(main())
