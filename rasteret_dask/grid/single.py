"""Single geometries in all the forms that people hold them: shapely, GeoJSON, WKB, WKT."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from rasteret_dask.errors import ArgumentError


def each(given: Any) -> list[BaseGeometry]:
    """Understand a geometry, or a sequence of them.

    Raises
    ------
    ArgumentError
        If something is none.
    """
    if isinstance(given, (BaseGeometry, bytes, bytearray, memoryview, str)):
        return [one(given, 0)]
    if isinstance(given, Mapping):
        return _geojson(given)
    if hasattr(given, "__geo_interface__"):
        return _geojson(given.__geo_interface__)
    if hasattr(given, "to_list"):  # a series
        given = given.to_list()
    if isinstance(given, (Sequence, np.ndarray)):
        return [geometry for item in given for geometry in each(item)]
    raise ArgumentError(
        f"{type(given).__name__} is no geometry",
        hint="give a box, shapely geometries, GeoJSON, WKB, WKT, a GeoDataFrame or a table",
    )


def one(value: Any, number: int) -> BaseGeometry:
    """Understand the geometry of a row.

    Raises
    ------
    ArgumentError
        If it is none, or more than one.
    """
    if isinstance(value, BaseGeometry):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        found: BaseGeometry = checked(lambda: shapely.from_wkb(bytes(value)))
        return found
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        listed = _geojson(value)
        if len(listed) == 1:
            return listed[0]
    raise ArgumentError(f"geometry {number} is a {type(value).__name__}, no geometry")


def _text(value: str) -> BaseGeometry:
    """Return what WKT, GeoJSON or WKB in hexadecimal digits says."""
    start = value.lstrip()[:2]
    if start.startswith("{"):
        listed = checked(lambda: _geojson(json.loads(value)))
        if len(listed) != 1:
            raise ArgumentError(f"a text holds {len(listed)} geometries; parse it with json.loads")
        found: BaseGeometry = listed[0]
    elif start in ("00", "01"):
        found = checked(lambda: shapely.from_wkb(value))
    else:
        found = checked(lambda: shapely.from_wkt(value))
    return found


def _geojson(given: Mapping[str, Any]) -> list[BaseGeometry]:
    kind = given.get("type")
    if kind == "FeatureCollection":
        features = given.get("features")
        if not isinstance(features, (list, tuple)) or not all(
            isinstance(f, Mapping) for f in features
        ):
            raise ArgumentError("a FeatureCollection has no list of features")
        return [g for feature in features for g in _geojson(feature)]
    if kind == "Feature":
        found = given.get("geometry")
        return [checked(lambda: None if found is None else shape(found))]
    return [checked(lambda: shape(dict(given)))]


def checked(make: Any) -> Any:
    """Return what shapely makes of something.

    Raises
    ------
    ArgumentError
        In place of what shapely raises, or when it makes nothing.
    """
    try:
        found = make()
    except (ShapelyError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ArgumentError(f"a geometry cannot be understood: {error}") from None
    if found is None:
        raise ArgumentError("a geometry is missing")
    return found


def srid(geometries: npt.NDArray[np.object_]) -> int | None:
    """What geometries themselves say of their CRS: the SRID that PostGIS writes into its WKB; None where they say nothing.

    Raises
    ------
    ArgumentError
        If they say several things.
    """
    said = {int(v) for v in np.unique(shapely.get_srid(geometries))} - {0}
    if len(said) > 1:
        raise ArgumentError(f"the geometries have several SRIDs: {sorted(said)}")
    return said.pop() if said else None
