"""PMTiles version 3, written in one pass: clustered, every content once, memory independent of the tiles.

Tiles must come in the order of their tile ids (a Hilbert curve over each zoom, zooms one after the other): only
then is the archive clustered, so that a map reads neighbours together, and only then does the directory grow at
its end and stay out of memory. `pmtiles_order.in_tile_id_order` reads any table of tiles in that order.

Layout: header and root in the first 16 KiB, then the tiles as they come, the metadata, the leaves. The
specification lets sections lie in any order; nothing is written twice.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import IO, TYPE_CHECKING, Any

from pmtiles.tile import Compression, TileType, serialize_header

from tasks.archive_file import ArchiveFile
from tasks.errors import ConfigurationError, StopRequested
from tasks.pmtiles_directory import DirectorySpool, SeenContents
from tasks.pmtiles_order import tile_id
from tasks.tile_containers import kind_of
from tasks.tile_grid import Block, Bounds, block_degrees, tile_at

if TYPE_CHECKING:  # newer than the functions
    from pmtiles.tile import HeaderDict

MEDIA_TYPE = "application/vnd.pmtiles"

_ROOM = 16_384
_HEADER_BYTES = 127
_PROGRESS_EVERY = 1000
_TYPES = {"png": TileType.PNG, "jpg": TileType.JPEG, "webp": TileType.WEBP, "avif": TileType.AVIF}


@dataclass(frozen=True, slots=True)
class About:
    """What the archive says of itself.

    bounds  degrees; None: the box of the tiles of the highest zoom
    extra   further metadata, by TileJSON's names where it has them
    """

    name: str
    description: str = ""
    attribution: str = ""
    bounds: Bounds | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PmtilesArchive:
    """What was written.

    tiles     that can be asked for
    entries   of the directory, runs counted once
    contents  different contents that are stored
    kinds     tiles by png, jpg, webp, avif, gif or other; the header can name only the commonest, and no gif
    empty     tiles without a byte, which were left out
    """

    path: Path
    size_bytes: int
    sha256: str
    tiles: int
    entries: int
    contents: int
    min_zoom: int
    max_zoom: int
    bounds: Bounds
    kinds: dict[str, int]
    empty: int


def write_pmtiles(
    destination: Path,
    tiles: Iterable[tuple[int, int, int, bytes]],
    about: About,
    *,
    stop: Event | None = None,
    progress: Callable[[int], None] | None = None,
) -> PmtilesArchive:
    """Write the tiles (z, x, y, content), which must come in the order of `tile_id`, to `destination`.

    progress  is told the number of tiles every thousand and at the end

    Raises ConfigurationError (no tile, or out of order), StopRequested, OutsideUnreachable (disk full). Then
    nothing appears at `destination`, and what was there stays.
    """
    with ArchiveFile(destination, _ROOM) as file:
        writing = _Writing(file, DirectorySpool(destination.parent))
        try:
            for z, x, y, content in tiles:
                if stop is not None and stop.is_set():
                    raise StopRequested("The archive was not finished; run again to write it.")
                writing.add(z, x, y, content)
                if progress and writing.tiles % _PROGRESS_EVERY == 0:
                    progress(writing.tiles)
            done = writing.finish(about)
        finally:
            writing.directory.close()
    if progress:
        progress(done.tiles)
    return done


class _Writing:
    """One archive under way."""

    def __init__(self, file: ArchiveFile, directory: DirectorySpool) -> None:
        self.file = file
        self.directory = directory
        self.tiles = self.empty = self.contents = 0
        self._last_id = -1
        self._seen = SeenContents()
        self._kinds: Counter[str] = Counter()
        self._extents: dict[int, Block] = {}

    def add(self, z: int, x: int, y: int, content: bytes) -> None:
        number = tile_id(z, x, y)
        if number <= self._last_id:
            raise ConfigurationError(f"Tile {z}/{x}/{y} comes out of order or twice; sort the tiles by tile_id.")
        self._last_id = number
        if not content:
            self.empty += 1
            return
        self.directory.add(number, self._place(content), len(content))
        self.tiles += 1
        self._kinds[kind_of(content) or "other"] += 1
        self._extents[z] = _grown(self._extents.get(z), z, x, y)

    def finish(self, about: About) -> PmtilesArchive:
        if not self.tiles:
            raise ConfigurationError("There is no tile to put into the archive; download some first.")
        data_bytes = self.file.size_bytes - _ROOM
        zooms = min(self._extents), max(self._extents)
        bounds = about.bounds or block_degrees(self._extents[zooms[1]])
        packed = gzip.compress(json.dumps(self._metadata(about, bounds, zooms)).encode(), mtime=0)
        header = self._header(bounds, zooms, data_bytes)
        header["metadata_offset"], header["metadata_length"] = self.file.append(packed), len(packed)
        root = self._append_directory(header)
        self.file.write_head(serialize_header(header) + root)
        return self._done(self.file.finish(), zooms, bounds)

    def _append_directory(self, header: HeaderDict) -> bytes:
        """Write the leaves, note in the header where they are, and return the root."""
        root, leaves, leaves_bytes = self.directory.root_and_leaves()
        header["root_length"] = len(root)
        header["leaf_directory_offset"], header["leaf_directory_length"] = self.file.size_bytes, leaves_bytes
        with leaves:
            _copy(leaves, self.file)
        return root

    def _place(self, content: bytes) -> int:
        """Offset of the content among the tiles; written only when it is new."""
        digest = hashlib.blake2b(content, digest_size=16).digest()
        offset = self._seen.get(digest)
        if offset is None:
            offset = self.file.append(content) - _ROOM
            self._seen.put(digest, offset)
            self.contents += 1
        return offset

    def _metadata(self, about: About, bounds: Bounds, zooms: tuple[int, int]) -> dict[str, Any]:
        known = {"name": about.name, "description": about.description, "attribution": about.attribution}
        return {
            **{name: value for name, value in known.items() if value},
            "format": self._commonest(),
            "minzoom": zooms[0],
            "maxzoom": zooms[1],
            "bounds": list(bounds),
            "generator": "landrecords",
            **about.extra,
        }

    def _header(self, bounds: Bounds, zooms: tuple[int, int], data_bytes: int) -> HeaderDict:
        return {
            "version": 3,
            "root_offset": _HEADER_BYTES,
            "root_length": 0,
            "metadata_offset": 0,
            "metadata_length": 0,
            "leaf_directory_offset": 0,
            "leaf_directory_length": 0,
            "tile_data_offset": _ROOM,
            "tile_data_length": data_bytes,
            "addressed_tiles_count": self.tiles,
            "tile_entries_count": self.directory.entries,
            "tile_contents_count": self.contents,
            "clustered": True,
            "internal_compression": Compression.GZIP,
            "tile_compression": Compression.NONE,
            "tile_type": _TYPES.get(self._commonest(), TileType.UNKNOWN),
            "min_zoom": zooms[0],
            "max_zoom": zooms[1],
            "min_lon_e7": round(bounds.west * 1e7),
            "min_lat_e7": round(bounds.south * 1e7),
            "max_lon_e7": round(bounds.east * 1e7),
            "max_lat_e7": round(bounds.north * 1e7),
            "center_zoom": _first_look(bounds, zooms),
            "center_lon_e7": round((bounds.west + bounds.east) / 2 * 1e7),
            "center_lat_e7": round((bounds.south + bounds.north) / 2 * 1e7),
        }

    def _commonest(self) -> str:
        return self._kinds.most_common(1)[0][0]

    def _done(self, sha256: str, zooms: tuple[int, int], bounds: Bounds) -> PmtilesArchive:
        return PmtilesArchive(
            path=self.file.destination,
            size_bytes=self.file.size_bytes,
            sha256=sha256,
            tiles=self.tiles,
            entries=self.directory.entries,
            contents=self.contents,
            min_zoom=zooms[0],
            max_zoom=zooms[1],
            bounds=bounds,
            kinds=dict(self._kinds),
            empty=self.empty,
        )


def _grown(extent: Block | None, z: int, x: int, y: int) -> Block:
    if extent is None:
        return Block(z, x, x, y, y)
    if extent.x_first <= x <= extent.x_last and extent.y_first <= y <= extent.y_last:
        return extent
    return Block(z, min(x, extent.x_first), max(x, extent.x_last), min(y, extent.y_first), max(y, extent.y_last))


def _first_look(bounds: Bounds, zooms: tuple[int, int]) -> int:
    """The highest zoom at which the whole is some four tiles wide: where a viewer starts."""
    for z in range(zooms[1], zooms[0], -1):
        west, north = tile_at(bounds.west, bounds.north, z)
        east, south = tile_at(bounds.east, bounds.south, z)
        if east - west < 4 and south - north < 4:
            return z
    return zooms[0]


def _copy(source: IO[bytes], target: ArchiveFile) -> None:
    source.seek(0)
    while piece := source.read(1 << 20):
        target.append(piece)
