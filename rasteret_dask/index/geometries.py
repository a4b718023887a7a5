"""Areas as people give them → lon/lat bounds and shapely geometries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from rasteret_dask.errors import ArgumentError

Bounds = tuple[float, float, float, float]


def check_bbox(bbox: Any) -> Bounds:
    """A lon/lat box as four floats, longitudes brought to −180 … 180; west > east crosses the
    antimeridian.

    Raises
    ------
    ArgumentError
        It is no box, or not in degrees.
    """
    try:
        west, south, east, north = (float(v) for v in bbox)
    except (TypeError, ValueError):
        raise ArgumentError(f"{bbox!r} is no bbox: west, south, east, north are needed") from None
    if not all(map(math.isfinite, (west, south, east, north))):
        raise ArgumentError(f"the bbox {bbox!r} is not finite")
    if max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 360:
        raise ArgumentError(
            f"the bbox {bbox!r} is not in degrees; a bbox is always lon/lat",
            hint="pass projected bounds as geometries= with geometry_crs=",
        )
    if south > north:
        raise ArgumentError(f"the bbox {bbox!r} has its south above its north")
    if 0 <= east - west < 360:
        west, east = _wrap(west), _wrap(east) if _wrap(east) != -180 else 180.0
    elif east - west >= 360:
        west, east = -180.0, 180.0
    return west, south, east, north


def _wrap(longitude: float) -> float:
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180


def split_bbox(bbox: Bounds) -> list[Bounds]:
    """A box as one, or over the antimeridian as two, that do not cross it."""
    west, south, east, north = bbox
    if west <= east:
        return [bbox]
    return [(west, south, 180.0, north), (-180.0, south, east, north)]


def is_bbox(value: Any) -> bool:
    """Four plain numbers."""
    return (
        isinstance(value, (tuple, list, np.ndarray))
        and len(value) == 4
        and all(isinstance(v, (int, float, np.number)) for v in value)
    )


def to_geometries(value: Any, crs: Any = None) -> list[BaseGeometry]:
    """Geometries of any usual kind, in lon/lat.

    Parameters
    ----------
    value
        A bbox tuple; a shapely geometry, GeoJSON mapping (also Feature or FeatureCollection), WKB,
        WKT; a GeoSeries or GeoDataFrame; an Arrow array of WKB; or a list of any of these.
    crs, optional
        What the coordinates are in, if the data does not say; lon/lat (CRS84) otherwise.

    Raises
    ------
    ArgumentError
        A value is no geometry, or is empty.
    """
    said = getattr(value, "crs", None)
    found = list(_each(value))
    if not found:
        raise ArgumentError("no geometry was given")
    for geometry in found:
        if geometry.is_empty:
            raise ArgumentError("a geometry is empty")
    source = crs if crs is not None else said
    return found if source is None else [_to_lonlat(geometry, source) for geometry in found]


def _each(value: Any) -> Iterable[BaseGeometry]:
    if isinstance(value, BaseGeometry):
        yield value
    elif is_bbox(value):
        west, south, east, north = (float(v) for v in value)
        if west <= east:
            yield box(west, south, east, north)
        else:
            yield shapely.union_all([box(*b) for b in split_bbox((west, south, east, north))])
    elif isinstance(value, Mapping):
        yield from _geojson(value)
    elif isinstance(value, (bytes, str)):
        yield _parse(value)
    elif hasattr(value, "geometry") and hasattr(value, "crs"):  # GeoDataFrame, GeoSeries
        yield from value.geometry
    elif isinstance(value, (pa.Array, pa.ChunkedArray)):
        yield from (_parse(wkb) for wkb in value.to_pylist())
    elif isinstance(value, Iterable):
        for one in value:
            yield from _each(one)
    else:
        raise ArgumentError(f"{type(value).__name__} is no geometry")


def _geojson(value: Mapping[str, Any]) -> Iterable[BaseGeometry]:
    kind = value.get("type")
    if kind == "FeatureCollection":
        for feature in value["features"]:
            yield from _geojson(feature)
    elif kind == "Feature":
        yield from _geojson(value["geometry"])
    else:
        try:
            yield shape(dict(value))
        except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError):
            raise ArgumentError(f"a mapping of type {kind!r} is no GeoJSON geometry") from None


def _parse(value: bytes | str) -> BaseGeometry:
    try:
        parsed: BaseGeometry = (
            shapely.from_wkb(value) if isinstance(value, bytes) else shapely.from_wkt(value)
        )
    except shapely.errors.ShapelyError:
        raise ArgumentError("a value is neither WKB nor WKT") from None
    return parsed


def _to_lonlat(geometry: BaseGeometry, crs: Any) -> BaseGeometry:
    try:
        source = CRS.from_user_input(crs)
    except CRSError:
        raise ArgumentError(f"{crs!r} is no CRS") from None
    transformer = Transformer.from_crs(source, "OGC:CRS84", always_xy=True)
    moved: BaseGeometry = shapely.transform(
        geometry,
        lambda x, y: transformer.transform(x, y),  # type: ignore[arg-type, misc]
        interleaved=False,
    )
    if not np.isfinite(moved.bounds).all():
        raise ArgumentError("a geometry lies outside of where its CRS is defined")
    return moved
