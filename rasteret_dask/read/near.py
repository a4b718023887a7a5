"""Which points and areas have to do with which items: each by itself, so that what one gets does not hang on the others of a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.aoi import Areas
from rasteret_dask.grid.geobox import CRS84, Bounds
from rasteret_dask.grid.given import Points
from rasteret_dask.grid.warp import transformer
from rasteret_dask.index import columns, schema
from rasteret_dask.index.geometries import check_bbox
from rasteret_dask.index.query import meeting
from rasteret_dask.read.request import lonlat_bounds

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where points or areas lie: a box in lon/lat for each, without extent for a point.

    Parameters
    ----------
    bounds : tuple of float
        Around all of them; what the collection is asked for.
    west, south, east, north : ndarray of float64, shape (n,)
        Within ±180; west > east crosses the antimeridian.
    """

    bounds: Bounds
    west: Floats
    south: Floats
    east: Floats
    north: Floats


def places_of_points(points: Points) -> Places:
    """Return where points lie.

    Raises
    ------
    ArgumentError
        If one lies outside of where its CRS is defined.
    """
    x, y = points.x, points.y
    if points.crs != CRS84:
        x, y = transformer(points.crs, CRS84).transform(x, y)
        lost = np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))
        if len(lost):
            raise ArgumentError(
                f"point {lost[0]} ({points.x[lost[0]]}, {points.y[lost[0]]}) lies outside of where its CRS is defined",
                hint="is geometry_crs right?",
            )
    turned = (x + 180.0) % 360.0 - 180.0
    if x.max() > 360 or x.min() < -360:
        x = turned
    bounds = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
    within = np.where(np.abs(x) <= 180.0, x, turned)
    return Places(bounds, within, y, within, y)


def places_of_areas(areas: Areas | None, bounds: Bounds | None, crs: str) -> Places | None:
    """Return where areas lie; or, when there are none, a box; None for the whole world.

    Parameters
    ----------
    areas : Areas, optional
    bounds : tuple of float, optional
    crs : str
        Of ``bounds``.

    Raises
    ------
    GridError, ArgumentError
        If one has no place in lon/lat.
    """
    each = [bounds]
    if areas is not None:
        crs = areas.crs
        each = [
            (west, south, east, north)
            for west, south, east, north in shapely.bounds(list(areas.geometries)).tolist()
        ]
    told = [box for box in (lonlat_bounds(one, crs) for one in each) if box is not None]
    if not told:
        return None
    west, south, east, north = np.array([check_bbox(box) for box in told]).T
    left, bottom, right, top = zip(*told)
    around = told[0] if len(told) == 1 else (min(left), min(bottom), max(right), max(top))
    return Places(around, west, south, east, north)


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """Which places the boxes of items meet (`rasteret_dask.index.query.meeting`).

    Parameters
    ----------
    places : Places
    boxes : list of list of float
        ``xmin, ymin, xmax, ymax`` of each item; NaN where it does not say.
    """

    places: Places
    boxes: list[list[float]]

    def meets(self, item: int) -> Bools:
        """Which places an item's box meets."""
        asked = self.places
        return meeting(self.boxes[item], asked.west, asked.south, asked.east, asked.north)

    def alike(self, items: Sequence[int], which: Ints) -> list[tuple[Ints, Bools | None]]:
        """Sort items by which of some points their boxes meet; those that meet none are left out.

        Parameters
        ----------
        items : sequence of int
        which : ndarray of int64, shape (n,)
            Numbers of places; at least one.

        Returns
        -------
        list of (ndarray of int64, ndarray of bool or None)
            Positions in ``items``, and which of the places those meet; None when they meet all.
        """
        west, south, east, north = (
            side[which]
            for side in (self.places.west, self.places.south, self.places.east, self.places.north)
        )
        low, bottom, high, top = west.min(), south.min(), east.max(), north.max()
        one_piece = not (west > east).any()
        found: dict[bytes, tuple[list[int], Bools | None]] = {}
        for position, item in enumerate(items):
            xmin, ymin, xmax, ymax = box = self.boxes[item]
            met: Bools | None = None
            # Mostly an item holds all that lies on its file.
            if not (one_piece and xmin <= low and ymin <= bottom and xmax >= high and ymax >= top):
                met = meeting(box, west, south, east, north)
                if not met.any():
                    continue
            if met is not None and met.all():
                met = None
            key = b"" if met is None else met.tobytes()
            found.setdefault(key, ([], met))[0].append(position)
        return [(np.array(positions, dtype=np.int64), met) for positions, met in found.values()]


def near(table: pa.Table, places: Places | None) -> Near | None:
    """Return which places the rows' boxes meet; None when all may, since there are no boxes or nothing was asked.

    Parameters
    ----------
    table : pyarrow.Table
    places : Places, optional
    """
    if places is None or schema.BBOX not in table.column_names:
        return None
    boxes = columns.one_array(table.column(schema.BBOX))
    sides = [columns.floats(boxes, name) for name in ("xmin", "ymin", "xmax", "ymax")]
    return Near(places, np.column_stack(sides).tolist())
