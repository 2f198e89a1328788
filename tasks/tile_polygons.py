"""Which tiles a polygon takes: found row by row from its edges, never tile by tile. Pure.

Polygons are GeoJSON (RFC 7946): degrees, edges straight in longitude and latitude, holes as inner rings.
A tile is taken when it shares more than a touch (0.1 mm) with the polygon, border included: a polygon made of
tile bounds takes those tiles and no neighbour, and a hole takes away only the tiles that lie wholly in it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.errors import ConfigurationError
from tasks.tile_grid import MAX_LATITUDE, TOUCH, Bounds, Run, column_of, latitude_of, row_of, takes

_NESTED = {"Feature": "geometry", "FeatureCollection": "features", "GeometryCollection": "geometries"}
_DEGREES = ("CRS84", "4326")  # as old GeoJSON files name the one system that is allowed
_TOO_DEEP = 20

Ring = list[tuple[float, float]]
Polygon = list[Ring]


class _Edge(NamedTuple):
    """A side of a ring, south end first."""

    lon: float
    lat: float
    north_lon: float
    north_lat: float
    ring_owner: int

    def longitude_at(self, lat: float) -> float:
        """Where the edge is at `lat`; ends are met exactly, and it never leaves them."""
        if lat <= self.lat:
            return self.lon
        if lat >= self.north_lat:
            return self.north_lon
        share = (lat - self.lat) / (self.north_lat - self.lat)
        return self.lon + share * (self.north_lon - self.lon)


def polygons_of(geojson: Mapping[str, Any]) -> list[Polygon]:
    """Every polygon of a Polygon, MultiPolygon, GeometryCollection, Feature or FeatureCollection.

    A polygon is its rings, outer first, in degrees. Raises ConfigurationError for anything else in it.
    """
    _check_system(geojson)
    found = list(_walk(geojson, 0))
    if not found:
        raise ConfigurationError("The GeoJSON holds no polygon; give a Polygon, a MultiPolygon or features of them.")
    return found


def polygon_bounds(polygons: Iterable[Polygon]) -> Bounds:
    """The box around the polygons, in degrees."""
    points = [point for polygon in polygons for ring in polygon for point in ring]
    lons, lats = [lon for lon, _ in points], [lat for _, lat in points]
    return Bounds(min(lons), min(lats), max(lons), max(lats))


def runs_of_polygons(polygons: Sequence[Polygon], zooms: Iterable[int]) -> Iterator[Run]:
    """The tiles the polygons take together, each once: runs by zoom, then row, then column.

    Memory is that of the edges, whatever the number of tiles.
    """
    edges = [edge for owner, polygon in enumerate(polygons) for edge in _edges(polygon, owner)]
    for z in zooms:
        for y, active in _rows(edges, z):
            yield from (Run(z, y, first, last) for first, last in _row_spans(active, z, y))


def _walk(node: Any, depth: int) -> Iterator[Polygon]:
    if not isinstance(node, Mapping) or depth > _TOO_DEEP:
        raise ConfigurationError("The GeoJSON is not an object of polygons; give a Polygon, MultiPolygon or features.")
    kind = str(node.get("type"))
    if kind == "Polygon":
        yield _polygon(node.get("coordinates"))
    elif kind == "MultiPolygon":
        yield from (_polygon(rings) for rings in _items(node.get("coordinates")))
    elif kind == "Feature" and node.get("geometry") is None:
        return  # RFC 7946 3.2: an unlocated feature
    elif kind in _NESTED:
        inner = node.get(_NESTED[kind])
        for child in [inner] if kind == "Feature" else _items(inner):
            yield from _walk(child, depth + 1)
    else:
        raise ConfigurationError(f"The GeoJSON holds a {kind}, which has no area; give polygons.")


def _polygon(rings: Any) -> Polygon:
    polygon = [_ring(ring) for ring in _items(rings)]
    if not polygon:
        raise ConfigurationError("The GeoJSON holds a polygon without rings; remove it or give its outer ring.")
    return polygon


def _ring(points: Any) -> Ring:
    ring = [_point(point) for point in _items(points)]
    if ring and ring[0] != ring[-1]:
        ring.append(ring[0])
    if len(ring) < 4:
        raise ConfigurationError("The GeoJSON holds a ring of fewer than three corners; correct or remove it.")
    return ring


def _point(point: Any) -> tuple[float, float]:
    try:
        lon, lat = float(point[0]), float(point[1])
    except (TypeError, ValueError, IndexError, KeyError, OverflowError) as exc:
        raise ConfigurationError(f"The GeoJSON holds {point!r:.60} where [longitude, latitude] is due.") from exc
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        remedy = "reproject it to EPSG:4326, and cut it at the antimeridian"
        raise ConfigurationError(f"The GeoJSON holds the point {[lon, lat]}, which is not in degrees; {remedy}.")
    return lon, lat


def _items(value: Any) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigurationError(f"The GeoJSON holds {value!r:.60} where a list is due; check the file.")
    return value


def _check_system(geojson: Any) -> None:
    found = geojson
    for key in ("crs", "properties", "name"):
        found = found.get(key) if isinstance(found, Mapping) else None
    name = str(found or "")
    if name and not name.endswith(_DEGREES):
        raise ConfigurationError(f"The GeoJSON is in {name}; reproject it to EPSG:4326 (longitude, latitude).")


def _edges(polygon: Polygon, owner: int) -> Iterator[_Edge]:
    for ring in polygon:
        for (lon, lat), (next_lon, next_lat) in itertools.pairwise(ring):
            if lat <= next_lat:
                yield _Edge(lon, lat, next_lon, next_lat, owner)
            else:
                yield _Edge(next_lon, next_lat, lon, lat, owner)


def _rows(edges: list[_Edge], z: int) -> Iterator[tuple[int, list[_Edge]]]:
    """Each row that edges pass through, with those edges, from the north."""
    touch, end = math.ldexp(TOUCH, z), 1 << z
    waiting = sorted(
        (
            (max(math.floor(row_of(edge.north_lat, z) - touch), 0), math.floor(row_of(edge.lat, z) + touch), edge)
            for edge in edges
            if edge.lat < MAX_LATITUDE and edge.north_lat > -MAX_LATITUDE
        ),
        reverse=True,
    )
    active: list[tuple[int, _Edge]] = []
    y = 0
    while active or waiting:
        y = y if active else waiting[-1][0]
        while waiting and waiting[-1][0] <= y:
            _, last, edge = waiting.pop()
            active.append((last, edge))
        if y >= end:
            return
        yield y, [edge for _, edge in active]
        active = [(last, edge) for last, edge in active if last > y]
        y += 1


def _row_spans(edges: list[_Edge], z: int, y: int) -> list[tuple[int, int]]:
    """Columns taken in row y: those an edge passes through, and those inside a polygon on the row's middle line."""
    touch = math.ldexp(TOUCH, z)
    north, south, middle = latitude_of(y + touch, z), latitude_of(y + 1 - touch, z), latitude_of(y + 0.5, z)
    spans = [_columns(low, high, z) for low, high in _passes(edges, north, south)]
    spans += [_columns(low, high, z) for low, high in _insides(edges, middle)]
    return _union([span for span in spans if span[0] <= span[1]])


def _passes(edges: list[_Edge], north: float, south: float) -> Iterator[tuple[float, float]]:
    """From which to which longitude each edge runs between two latitudes."""
    for edge in edges:
        if edge.lat <= north and edge.north_lat >= south:
            if edge.lat == edge.north_lat:
                ends = (edge.lon, edge.north_lon)
            else:
                ends = (edge.longitude_at(south), edge.longitude_at(north))
            yield min(ends), max(ends)


def _insides(edges: list[_Edge], middle: float) -> Iterator[tuple[float, float]]:
    """The stretches of a line of latitude inside each polygon, even-odd over its rings."""
    crossings = sorted(
        (edge.ring_owner, edge.longitude_at(middle)) for edge in edges if edge.lat <= middle < edge.north_lat
    )
    for (_, enters), (_, leaves) in zip(crossings[::2], crossings[1::2], strict=True):
        yield enters, leaves


def _columns(low: float, high: float, z: int) -> tuple[int, int]:
    first, last = takes(column_of(low, z), column_of(high, z), math.ldexp(TOUCH, z))
    return max(first, 0), min(last, (1 << z) - 1)


def _union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged
