"""Where and when a photo was taken, from as few of its bytes as will do.

JPEG, HEIC, AVIF, TIFF, BigTIFF, DNG, PNG and WebP. Pure: the caller fetches what `Reader.feed` asks for, over
SFTP or from anywhere, so one rule holds for every transport:

    reader = Reader(size)
    answer = reader.feed(0, head)
    while isinstance(answer, NeedMore):
        answer = reader.feed(answer.offset, fetch(answer.offset, answer.length))

No content makes it raise, run on, or ask for more than its budget.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from tasks.exif_containers import Container, open_container
from tasks.exif_gps import GPS_TAGS, GPS_VERSION, DirectionRef, Flag, Gps, judged, read_gps
from tasks.exif_ranges import Broken, NeedMore, OverBudget, Ranges, Steps, Window
from tasks.exif_tiff import Directory, Tiff, open_tiff
from tasks.exif_values import camera_name, camera_time, number, text
from tasks.exif_xmp import read_xmp

__all__ = ["HEAD_BYTES", "Clock", "DirectionRef", "Flag", "NeedMore", "PhotoFacts", "Reader"]

HEAD_BYTES = 4 * 1024
"""The recommended first piece: it holds the GPS tags of most JPEG and the item table of most HEIC."""

_MAX_BYTES = 256 * 1024
_MAX_ASKS = 48

_MAKE, _MODEL, _XMP, _EXIF, _GPS = 271, 272, 700, 34665, 34853
_TAKEN, _OFFSET = 36867, 36881  # DateTimeOriginal, OffsetTimeOriginal
_POSITION = (1, 2, 3, 4)
_DRONES = ("dji", "hasselblad")  # Hasselblad: DJI's Mavic 2 Pro and Mavic 3


class Clock(StrEnum):
    """Whose clock `taken_at` is."""

    GPS = "gps"
    """The satellites': UTC."""
    OFFSET = "offset"
    """The camera's, with its offset from UTC."""
    LOCAL = "local"
    """The camera's, and it does not say which zone it was set to: `taken_at` has no zone."""


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """What a photo says of itself. None: it does not say.

    flag                 what became of the position
    latitude, longitude  signed degrees, WGS 84. With OK a position; with NULL_ISLAND 0, 0; with VOID the receiver's
                         last one, if any; else None
    altitude_m           metres, negative below the reference
    altitude_ref         EXIF GPSAltitudeRef: 0 above, 1 below sea level (the ellipsoid, by Exif 3.0); 2 above, 3 below
                         sea level (Exif 3.0)
    relative_altitude_m  metres above the place of take-off (drones)
    direction_deg        0-360, clockwise from the north that `direction_ref` names
    taken_at             with a zone, except when `clock` is LOCAL
    camera               maker and model
    """

    flag: Flag
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    altitude_ref: int | None = None
    relative_altitude_m: float | None = None
    direction_deg: float | None = None
    direction_ref: DirectionRef | None = None
    taken_at: datetime | None = None
    clock: Clock | None = None
    camera: str | None = None


class Reader:
    """One photo being read.

    size       bytes of the file, as its folder's listing says
    max_bytes  the most that is asked for, the head included
    max_asks   the most ranges that are asked for
    """

    def __init__(self, size: int, *, max_bytes: int = _MAX_BYTES, max_asks: int = _MAX_ASKS) -> None:
        self._file = Ranges(size, max_bytes, max_asks)
        self._steps = _Survey(self._file).steps()
        self._facts: PhotoFacts | None = None

    @property
    def bytes_read(self) -> int:
        """Bytes taken in so far."""
        return self._file.bytes_read

    def feed(self, offset: int, data: bytes) -> NeedMore | PhotoFacts:
        """Take in bytes at `offset`, the head of the file first (4-16 KB); the next range to fetch, or the facts.

        Fewer bytes than were asked for will do, the rest is asked for again. No bytes at all mean that the file
        ends at `offset`.
        """
        self._file.add(offset, data)
        if self._facts is None:
            try:
                return next(self._steps)
            except StopIteration as end:
                self._facts = end.value
        assert self._facts is not None  # noqa: S101 - _Survey.steps always returns facts
        return self._facts


class _Survey:
    """The way through one photo: position, then time, then height above take-off; what fails costs only itself."""

    def __init__(self, file: Ranges) -> None:
        self._file = file
        self._container: Container | None = None
        self._tiff: Tiff | None = None
        self._first: Directory = {}
        self._gps = Gps(Flag.NO_GPS)
        self._make = ""
        self._model = ""
        self._taken_at: datetime | None = None
        self._relative_altitude_m: float | None = None

    def steps(self) -> Steps[PhotoFacts]:
        """The whole way. Raises nothing."""
        try:
            yield from self._find_position()
        except Broken:
            self._gps = Gps(Flag.UNREADABLE)
        except OverBudget:
            self._gps = Gps(Flag.TOO_LARGE)
        with suppress(Broken, OverBudget):
            yield from self._find_time()
        with suppress(Broken, OverBudget):
            yield from self._ask_the_packet()
        return self._told()

    def _find_position(self) -> Steps[None]:
        self._container = yield from open_container(self._file)
        block = yield from self._container.exif()
        if block is None:
            return
        self._tiff = tiff = yield from open_tiff(block)
        self._first = yield from tiff.directory(tiff.first)
        values = yield from tiff.values(self._first, (_MAKE, _MODEL))
        self._make, self._model = text(values.get(_MAKE)), text(values.get(_MODEL))
        directory = yield from self._directory(_GPS)
        tags = yield from tiff.values(directory, GPS_TAGS)
        if any(tag in directory and tag not in tags for tag in _POSITION):
            raise Broken("the position lies outside its block")
        self._gps = read_gps(tags, present=any(tag != GPS_VERSION for tag in directory))

    def _find_time(self) -> Steps[None]:
        """The camera's own time, where the satellites' is not known."""
        if self._tiff is None or self._gps.utc:
            return
        directory = yield from self._directory(_EXIF)
        values = yield from self._tiff.values(directory, (_TAKEN, _OFFSET))
        self._taken_at = camera_time(text(values.get(_TAKEN)), text(values.get(_OFFSET)))

    def _directory(self, pointer: int) -> Steps[Directory]:
        """The directory that a tag of the first one points to; empty when there is no such tag."""
        if self._tiff is None or pointer not in self._first:
            return {}
        offset = number((yield from self._tiff.values(self._first, [pointer])).get(pointer))
        if offset is None or offset < 0:
            raise Broken("a pointer that is none")
        return (yield from self._tiff.directory(int(offset)))

    def _ask_the_packet(self) -> Steps[None]:
        """XMP is fetched for drones and for want of a position; else it is read when it is in hand already."""
        lost = self._gps.flag not in (Flag.OK, Flag.VOID)
        if not lost and not self._make.lower().startswith(_DRONES):
            self._file.close()
        packet = yield from self._packet()
        if packet is None:
            return
        found = yield from read_xmp(packet, position=lost)
        self._relative_altitude_m = found.relative_altitude_m
        if lost and found.latitude is not None and found.longitude is not None:
            flag = judged(found.latitude, found.longitude)
            if flag is not Flag.NO_FIX:
                self._gps = replace(self._gps, flag=flag, latitude=found.latitude, longitude=found.longitude)

    def _packet(self) -> Steps[Window | None]:
        if self._tiff and _XMP in self._first:
            return self._tiff.packet(self._first[_XMP])
        return (yield from self._container.xmp()) if self._container else None

    def _told(self) -> PhotoFacts:
        gps, taken_at = self._gps, self._gps.utc or self._taken_at
        zoned = Clock.LOCAL if taken_at and taken_at.tzinfo is None else Clock.OFFSET if taken_at else None
        return PhotoFacts(
            flag=gps.flag,
            latitude=gps.latitude,
            longitude=gps.longitude,
            altitude_m=gps.altitude_m,
            altitude_ref=gps.altitude_ref,
            relative_altitude_m=self._relative_altitude_m,
            direction_deg=gps.direction_deg,
            direction_ref=gps.direction_ref,
            taken_at=taken_at,
            clock=Clock.GPS if gps.utc else zoned,
            camera=camera_name(self._make, self._model),
        )
