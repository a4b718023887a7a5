"""The pixels around points: squares, and the nearest that is valid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rasteret_dask.grid.radiometry import Number
from rasteret_dask.read.spots import Floats, Ints, Order, cut_spots


def square(radius: int) -> tuple[Ints, Ints]:
    """Rows and columns of a square around a pixel, row by row."""
    axis = np.arange(-radius, radius + 1, dtype=np.int64)
    return np.repeat(axis, len(axis)), np.tile(axis, len(axis))


def around(order: Order, chosen: Ints, radius: int) -> tuple[Order, Ints]:
    """Return an order for the squares around some of an order's points, and which of the squares' pixels lie on the file.

    Parameters
    ----------
    order : Order
    chosen : ndarray of int64, shape (n,)
        Which of the order's points.
    radius : int
        Pixels.
    """
    dr, dc = square(radius)
    place = order.place
    rows = place.y[chosen].astype(np.int64)[:, None] + dr
    cols = place.x[chosen].astype(np.int64)[:, None] + dc
    same = place.same
    on = (rows >= 0) & (cols >= 0) & (rows < same.height) & (cols < same.width)
    inside = np.flatnonzero(on)
    spots = cut_spots(same, rows.ravel()[inside], cols.ravel()[inside])
    return replace(order, points=order.points[chosen], spots=spots), inside


def nearest_valid(
    order: Order, chosen: Ints, windows: Floats, radius: int
) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Find the valid pixel nearest to each point: in the first ring of pixels that holds one, the one whose edge is nearest in the file's
    units (PostGIS' ST_NearestValue); ties go to the ring's top row, then bottom row, left and right column.

    Parameters
    ----------
    order : Order
    chosen : ndarray of int64, shape (n,)
        Which of the order's points.
    windows : ndarray of float64, shape (n, (2 * radius + 1)²)
        Squares around them, NaN outside of the file.
    radius : int

    Returns
    -------
    (ndarray of bool, ndarray of float64), shape (n,)
        Whether there is one, and its value.
    """
    dr, dc = square(radius)
    ring = np.maximum(abs(dr), abs(dc))
    # Within a ring: top row, bottom row, left column, right column.
    side = np.select([dr == -ring, dr == ring, dc == -ring], [0, 1, 2], 3)
    scan = np.lexsort((dc, dr, side, ring))[1:]
    valid = ~is_nodata(windows[:, scan], order.nodata)
    rings = np.where(valid, ring[scan], radius + 1)
    first = rings.min(axis=1)
    candidate = valid & (rings == first[:, None])
    place = order.place
    v, u = (p[chosen] - np.floor(p[chosen]) for p in (place.y, place.x))
    a, b, _, d, e, _ = place.same.affine
    dy = np.maximum(np.maximum(dr[scan] - v[:, None], v[:, None] - dr[scan] - 1), 0.0)
    dx = np.maximum(np.maximum(dc[scan] - u[:, None], u[:, None] - dc[scan] - 1), 0.0)
    distance = (dx * np.hypot(a, d)) ** 2 + (dy * np.hypot(b, e)) ** 2
    best = np.argmin(np.where(candidate, distance, np.inf), axis=1)
    return first <= radius, windows[np.arange(len(windows)), scan[best]]


def is_nodata(values: Floats, nodata: Number) -> npt.NDArray[np.bool_]:
    """Which values mean nothing: NaN, and nodata."""
    nothing = np.isnan(values)
    return nothing if nodata is None else nothing | (values == float(nodata))
