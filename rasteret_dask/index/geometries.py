"""Areas as people give them → lon/lat bounds and shapely geometries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.aoi import is_box, parse_areas
from rasteret_dask.grid.geobox import CRS84, Bounds


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
    west, east = wrap_span(west, east)
    return west, south, east, north


def wrap_span(west: float, east: float) -> tuple[float, float]:
    """Two longitudes brought to −180 … 180; west > east crosses the antimeridian, and a turn or more is all of it."""
    if east - west >= 360:
        return -180.0, 180.0
    left, right = _wrap(west), _wrap(east)
    # What ends at the antimeridian ends at 180, unless it is the meridian alone.
    return left, 180.0 if west <= east and right == -180 and left != -180 else right


def stored_span(west: float, east: float) -> tuple[float, float]:
    """The longitudes of a footprint as a collection has them.

    One that crosses the antimeridian has west > 0 > east, by which it is known (`query.bbox_expression`); what is too wide for that is
    taken for the whole turn.
    """
    if not (math.isfinite(west) and math.isfinite(east)):
        return west, east
    west, east = wrap_span(west, east)
    return (west, east) if west <= east or west > 0 > east else (-180.0, 180.0)


def _wrap(longitude: float) -> float:
    return longitude if -180 <= longitude <= 180 else (longitude + 180) % 360 - 180


def split_bbox(bbox: Bounds) -> list[Bounds]:
    """A box as one, or over the antimeridian as two, that do not cross it."""
    west, south, east, north = bbox
    if west <= east:
        return [bbox]
    return [(west, south, 180.0, north), (-180.0, south, east, north)]


def to_geometries(value: Any, crs: Any = None, column: str | None = None) -> list[BaseGeometry]:
    """Geometries of any usual kind, in lon/lat.

    Parameters
    ----------
    value
        A bbox tuple, or what `rasteret_dask.grid.given.understand` takes.
    crs, optional
        What the coordinates are in, if the data does not say; lon/lat (CRS84) otherwise.
    column : str, optional
        The column of a table that holds them.

    Raises
    ------
    ArgumentError
        A value is no geometry, is empty, or lies outside of where its CRS is defined.
    """
    if is_box(value) and value[0] > value[2]:
        west, south, east, north = (float(v) for v in value)
        return [shapely.union_all([box(*b) for b in split_bbox((west, south, east, north))])]
    areas = parse_areas(value, crs, column)
    found = list(areas.to_crs(CRS84).geometries)
    if not np.isfinite(shapely.total_bounds(found)).all():
        raise ArgumentError(
            f"a geometry lies outside of where its CRS is defined ({areas.crs[:60]})",
            hint="is geometry_crs right?",
        )
    return found
