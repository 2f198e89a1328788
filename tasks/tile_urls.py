"""Addresses of tiles from one template, checked before the first request. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from tasks.errors import ConfigurationError
from tasks.tile_grid import Tile, flipped, metre_bounds, quadkey

Scheme = Literal["xyz", "tms"]

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_SHOWN = 200

_OF_TILE: dict[str, Callable[[Tile], object]] = {
    "z": lambda tile: tile.z,
    "x": lambda tile: tile.x,
    "y": lambda tile: tile.y,
    "-y": lambda tile: flipped(tile.z, tile.y),
    "q": lambda tile: quadkey(*tile),
    "bbox-epsg-3857": lambda tile: ",".join(f"{side:.4f}" for side in metre_bounds(*tile)),
}
_NAMES_A_TILE = ({"z", "x", "y"}, {"z", "x", "-y"}, {"q"}, {"bbox-epsg-3857"})


class TileUrls:
    """Fills a template: {z} {x} {y} {-y} {q} {bbox-epsg-3857} {s}, and {name} for each of `values`.

    template    http(s) address; {-y} is the row counted from the south, {q} the quadkey, {s} a subdomain,
                {bbox-epsg-3857} the tile's box in metres for a WMS
    scheme      "tms": {y} is counted from the south (and {-y} from the north)
    subdomains  for {s}; a tile always has the same one, (x + y) mod n as web maps choose it, so that caches
                on the way keep one copy
    values      further names, such as variant or layer; their values are percent-encoded

    Tiles are named XYZ here whatever the scheme. Raises ConfigurationError for a template that cannot work.
    """

    def __init__(
        self,
        template: str,
        *,
        scheme: Scheme = "xyz",
        subdomains: Sequence[str] = (),
        values: Mapping[str, str] | None = None,
    ) -> None:
        self.template = template
        self.subdomains = tuple(subdomains)
        values = values or {}
        names = _names(template, values)
        _check_address(template)
        _check_scheme(scheme)
        _check_subdomains(self.subdomains, "s" in names)
        getters = dict(_OF_TILE)
        if scheme == "tms":
            getters["y"], getters["-y"] = getters["-y"], getters["y"]
        if "s" in names:
            getters["s"] = self._subdomain
        self._getters = [getters[name] for name in names if name in getters]
        self._format = _format(template, values)

    def of(self, z: int, x: int, y: int) -> str:
        """The address of a tile (XYZ)."""
        tile = Tile(z, x, y)
        return self._format.format(*[get(tile) for get in self._getters])

    def hosts(self) -> list[str]:
        """Every host the tiles come from, as host or host:port."""
        filled = [self.template.replace("{s}", label) for label in self.subdomains or ("",)]
        return sorted({urlsplit(url).netloc.rpartition("@")[2].lower() for url in filled})

    def _subdomain(self, tile: Tile) -> str:
        return self.subdomains[(tile.x + tile.y) % len(self.subdomains)]


def _format(template: str, values: Mapping[str, str]) -> str:
    """The template with its values in place and {} for what changes from tile to tile."""
    pieces = _PLACEHOLDER.split(template)
    for place, piece in enumerate(pieces):
        if place % 2:  # the odd ones are names
            pieces[place] = _escaped(quote(values[piece], safe="")) if piece in values else "{}"
    return "".join(pieces)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _names(template: str, values: Mapping[str, str]) -> list[str]:
    names = _PLACEHOLDER.findall(template)
    if set("{}") & set(_PLACEHOLDER.sub("", template)):
        raise ConfigurationError(f"{_shown(template)} has a brace without its partner; write {{name}}, or %7B for one.")
    known = {*_OF_TILE, "s", *values}
    for name in names:
        if name not in known:
            listed = " ".join(f"{{{name}}}" for name in sorted(known))
            raise ConfigurationError(f"{_shown(template)} asks for {{{name}}}; known are {listed}.")
    if reserved := sorted({*_OF_TILE, "s"} & set(values)):
        raise ConfigurationError(f"The value {reserved[0]!r} has the name of a part of the tile; call it otherwise.")
    if not any(needed <= set(names) for needed in _NAMES_A_TILE):
        raise ConfigurationError(
            f"{_shown(template)} does not name a tile; put {{z}}, {{x}} and {{y}} in it, or {{q}}."
        )
    return names


def _check_address(template: str) -> None:
    try:
        parts = urlsplit(_PLACEHOLDER.sub("0", template))
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or template != template.strip() or re.search(r"[\x00-\x20\x7f]", template):
        raise ConfigurationError(f"{_shown(template)} is no address; write http(s)://host/... without spaces.")
    host = urlsplit(template).netloc.replace("{s}", "")
    if "{" in host:
        raise ConfigurationError(
            f"{_shown(template)} has a host that changes from tile to tile; only {{s}} may stand there."
        )


def _check_scheme(scheme: Any) -> None:
    if scheme not in ("xyz", "tms"):
        raise ConfigurationError(f"scheme {scheme!r} is not known; use xyz or tms.")


def _check_subdomains(subdomains: Sequence[str], needed: bool) -> None:
    if needed and not subdomains:
        raise ConfigurationError('The template asks for {s}; give subdomains, such as ["a", "b", "c"].')
    for label in subdomains:
        if not all(_LABEL.fullmatch(part) for part in label.split(".")):
            raise ConfigurationError(f"The subdomain {label!r} is no part of a host name; give letters and digits.")


def _shown(template: str) -> str:
    """For messages: without what may hold a key or a password."""
    head, _, query = template.partition("?")
    head = re.sub(r"//[^/@]*@", "//...@", head)
    return repr((head + ("?..." if query else ""))[:_SHOWN])
