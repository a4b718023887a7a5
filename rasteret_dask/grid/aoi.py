"""Areas of interest in all the forms people hold them: boxes, shapely, GeoJSON, WKB, GeoPandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer
from shapely.errors import ShapelyError
from shapely.geometry import box, shape
from shapely.geometry.base import BaseGeometry

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.geobox import CRS84, Bounds, crs_text


@dataclass(frozen=True, slots=True)
class Areas:
    """One or more areas in one CRS.

    Parameters
    ----------
    geometries : tuple of shapely geometry
    crs : str
    boxes : bool
        They came as bounds: they crop and do not mask.
    """

    geometries: tuple[BaseGeometry, ...]
    crs: str
    boxes: bool

    @property
    def bounds(self) -> Bounds:
        """Of all of them together, in ``crs``."""
        left, bottom, right, top = shapely.total_bounds(np.array(self.geometries, dtype=object))
        return (float(left), float(bottom), float(right), float(top))

    def to_crs(self, crs: str) -> Areas:
        """Return the areas in another CRS, vertex by vertex."""
        if crs == self.crs:
            return self
        transformer = Transformer.from_crs(self.crs, crs, always_xy=True)
        moved = tuple(
            shapely.transform(
                g, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))
            )
            for g in self.geometries
        )
        return Areas(moved, crs, self.boxes)


def parse_bbox(bbox: Any) -> Bounds:
    """Understand ``(west, south, east, north)`` in lon/lat; west > east crosses the antimeridian.

    Raises
    ------
    ArgumentError
        If it is no box of finite numbers, or south lies above north.
    """
    try:
        west, south, east, north = (float(v) for v in bbox)
    except (TypeError, ValueError):
        raise ArgumentError(f"a bbox is (west, south, east, north), not {bbox!r}") from None
    if not all(np.isfinite([west, south, east, north])) or south > north:
        raise ArgumentError(f"the bbox {tuple(bbox)} is no box: south {south} and north {north}")
    if not (south >= -90 and north <= 90 and -180 <= west <= 360 and -180 <= east <= 360):
        raise ArgumentError(
            f"the bbox {tuple(bbox)} is not in degrees",
            hint="bbox is always lon/lat; give projected bounds as geometries= with geometry_crs=",
        )
    return west, south, east, north


def parse_areas(given: Any, crs: Any = None) -> Areas:
    """Understand geometries in the forms that people hold them.

    Parameters
    ----------
    given : tuple of 4 numbers, shapely geometry, GeoJSON mapping, WKB bytes, GeoSeries, GeoDataFrame, or a sequence of these
    crs : anything that pyproj takes, optional
        What the coordinates mean; taken from the data when that says, else lon/lat.

    Raises
    ------
    ArgumentError
        If nothing can be made of it, or a geometry is empty or invalid.
    """
    own = getattr(given, "crs", None)
    text = crs_text(crs) if crs is not None else crs_text(own) if own is not None else CRS84
    if is_box(given):
        west, south, east, north = (float(v) for v in given)
        if text == CRS84:
            parse_bbox(given)
        if west >= east or south >= north:
            raise ArgumentError(
                f"the box {tuple(given)} is empty",
                hint="a box over the antimeridian (west > east) goes into bbox=",
            )
        return Areas((box(west, south, east, north),), text, True)
    found = tuple(_geometries(given))
    if not found:
        raise ArgumentError("no geometry was given")
    for number, geometry in enumerate(found):
        if geometry.is_empty:
            raise ArgumentError(f"geometry {number} is empty")
        if not np.isfinite(geometry.bounds).all():
            raise ArgumentError(f"geometry {number} has coordinates that are not finite")
    return Areas(found, text, False)


def is_box(given: Any) -> bool:
    """Whether it is four plain numbers."""
    return (
        isinstance(given, (tuple, list, np.ndarray))
        and len(given) == 4
        and all(isinstance(v, (int, float, np.number)) for v in given)
    )


def _geometries(given: Any) -> list[BaseGeometry]:
    if isinstance(given, BaseGeometry):
        return [given]
    if isinstance(given, (bytes, bytearray, memoryview)):
        return [_checked(lambda: shapely.from_wkb(bytes(given)))]
    if isinstance(given, Mapping):
        return _geojson(given)
    if hasattr(given, "__geo_interface__"):
        inner = getattr(given, "geometry", given)
        if hasattr(inner, "to_numpy"):
            return [g for g in inner.to_numpy() if g is not None]
        return _geojson(given.__geo_interface__)
    if isinstance(given, Sequence | np.ndarray) and not isinstance(given, str):
        return [g for one in given for g in _geometries(one)]
    raise ArgumentError(
        f"{type(given).__name__} is no geometry",
        hint="give a box, shapely geometries, GeoJSON, WKB or a GeoDataFrame",
    )


def _geojson(given: Mapping[str, Any]) -> list[BaseGeometry]:
    kind = given.get("type")
    if kind == "FeatureCollection":
        return [g for feature in given["features"] for g in _geojson(feature)]
    if kind == "Feature":
        return [_checked(lambda: shape(given["geometry"]))]
    return [_checked(lambda: shape(dict(given)))]


def _checked(make: Any) -> BaseGeometry:
    try:
        geometry: BaseGeometry = make()
    except (ShapelyError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ArgumentError(f"a geometry cannot be understood: {error}") from None
    if geometry is None:
        raise ArgumentError("a geometry is missing")
    return geometry
