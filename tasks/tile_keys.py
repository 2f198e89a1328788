"""Names of tiles in the store. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MEDIA_TYPES = {"jpg": "image/jpeg"}


def tile_key(layer: str, z: int, x: int, y: int, kind: str) -> str:
    """`layer/z/x/y.ext`: XYZ, as every map library reads a folder of tiles."""
    return f"{layer}/{z}/{x}/{y}.{kind}"


def blank_key(layer: str, sha256: str, kind: str) -> str:
    """`layer/blank/<sha256>.ext`: where all tiles of that content are."""
    return f"{layer}/blank/{sha256}.{kind}"


def key_of(layer: str, tile: Mapping[str, Any]) -> str:
    """Where a completed tile lies: z, x, y, kind, blank and sha256 as its row has them."""
    if tile["blank"]:
        return blank_key(layer, tile["sha256"], tile["kind"])
    return tile_key(layer, tile["z"], tile["x"], tile["y"], tile["kind"])


def is_blank_key(key: str) -> bool:
    """Whether many tiles share the object."""
    return "/blank/" in key


def archive_key(layer: str, name: str) -> str:
    """`archives/<layer><name>`: what is made of a layer."""
    return f"archives/{layer}{name}"


def media_type(kind: str) -> str:
    """`image/...` of a tile's kind."""
    return _MEDIA_TYPES.get(kind, f"image/{kind}")
