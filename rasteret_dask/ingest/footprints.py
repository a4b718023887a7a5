"""Where STAC items lie."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from rasteret_dask.index import schema
from rasteret_dask.index.geometries import stored_span

Json = Mapping[str, Any]

_RING = struct.Struct("<BIII")
"""Head of a polygon of one ring as well-known binary: byte order, kind, rings, points. Shapely takes twenty times as long."""


def footprint(item: Json) -> dict[str, Any]:
    """Return the columns that say where an item lies: its geometry as WKB, and its box.

    Parameters
    ----------
    item : mapping
        A STAC item.
    """
    ring = _ring(item.get("geometry"))
    geometry = None if ring is not None else _geometry(item.get("geometry"))
    box = item.get("bbox")
    if box and len(box) in (4, 6):
        half = len(box) // 2
        bounds = (box[0], box[1], box[half], box[half + 1])
    elif ring is not None:
        bounds = (*ring.min(axis=0), *ring.max(axis=0))
    elif geometry is not None and not geometry.is_empty:
        bounds = geometry.bounds
    else:
        return {schema.GEOMETRY: None, schema.BBOX: None}
    named = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, bounds), strict=True))
    if not -180.0 <= named["xmin"] <= named["xmax"] <= 180.0:
        named["xmin"], named["xmax"] = stored_span(named["xmin"], named["xmax"])
    if ring is not None:
        wkb = _RING.pack(1, 3, 1, len(ring)) + ring.astype("<f8").tobytes()
    else:
        geometry = shapely.box(*bounds) if geometry is None else geometry
        wkb = shapely.to_wkb(shapely.force_2d(geometry) if geometry.has_z else geometry)
    return {schema.GEOMETRY: wkb, schema.BBOX: named}


def _geometry(value: Any) -> BaseGeometry | None:
    """The footprint; None when there is none, or none that can be made sense of (the box then
    stands for it)."""
    try:
        return shape(dict(value)) if value else None
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.ShapelyError):
        return None


def _ring(value: Any) -> npt.NDArray[np.float64] | None:
    """Longitudes and latitudes of the closed ring of a polygon without holes, as most footprints are."""
    if not isinstance(value, Mapping) or value.get("type") != "Polygon":
        return None
    rings = value.get("coordinates")
    if not isinstance(rings, list) or len(rings) != 1 or not isinstance(rings[0], list):
        return None
    try:
        ring = np.asarray(rings[0], np.float64)
    except (TypeError, ValueError):
        return None
    # Whatever is odd about it is for shapely to say.
    plain = ring.ndim == 2 and ring.shape[0] > 3 and ring.shape[1] in (2, 3)
    closed = plain and np.isfinite(ring).all() and (ring[0] == ring[-1]).all()
    return ring[:, :2] if closed else None
