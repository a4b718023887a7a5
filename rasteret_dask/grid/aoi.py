"""Areas of interest: geometries, or a box, in one CRS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
from shapely.affinity import translate
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry, BaseMultipartGeometry

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.coordinates import check_degrees, plain_crs, resolve_crs
from rasteret_dask.grid.geobox import CRS84, Bounds, is_geographic, period
from rasteret_dask.grid.given import understand
from rasteret_dask.grid.warp import transformer


@dataclass(frozen=True, slots=True)
class Areas:
    """One or more areas in one CRS.

    Parameters
    ----------
    geometries : tuple of shapely geometry
    crs : str
    boxes : bool
        They came as bounds: they crop and do not mask.
    columns : pyarrow.Table, optional
        The other columns of the table that they came in, a row for each.
    """

    geometries: tuple[BaseGeometry, ...]
    crs: str
    boxes: bool
    columns: pa.Table | None = None

    @property
    def bounds(self) -> Bounds:
        """Of all of them together, in ``crs``."""
        left, bottom, right, top = shapely.total_bounds(np.array(self.geometries, dtype=object))
        return (float(left), float(bottom), float(right), float(top))

    def to_crs(self, crs: str) -> Areas:
        """Return the areas in another CRS, vertex by vertex; what goes on beyond 180 degrees goes on there as well."""
        if crs == self.crs:
            return self
        there = transformer(self.crs, crs)
        west, _, east, _ = self.bounds
        whole = period(crs) if is_geographic(self.crs) and east > 180.0 else None
        start = float(there.transform(west, 0.0)[0])

        def move(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            x, y = there.transform(xy[:, 0], xy[:, 1])
            if whole is not None:
                # PROJ puts 190 degrees where -170 are.
                x = x + whole * np.round((start + (xy[:, 0] - west) * whole / 360.0 - x) / whole)
            return np.column_stack([x, y])

        moved = tuple(shapely.transform(g, move) for g in self.geometries)
        return Areas(moved, crs, self.boxes, self.columns)

    def joined(self) -> Areas:
        """Return areas in lon/lat on both sides of the antimeridian, as GeoJSON cuts them, in one piece: its east goes on beyond 180.

        They stay as they are when they are not narrower in that way.
        """
        west, _, east, _ = self.bounds
        if not is_geographic(self.crs) or east - west <= 180.0:
            return self
        turned = Areas(
            tuple(_eastwards(g) for g in self.geometries), self.crs, self.boxes, self.columns
        )
        low, _, high, _ = turned.bounds
        return turned if high - low < 180.0 else self


def _eastwards(geometry: BaseGeometry) -> BaseGeometry:
    """Return a geometry with its parts of western longitude a turn further east."""
    if isinstance(geometry, BaseMultipartGeometry):
        return shapely.geometrycollections([_eastwards(part) for part in geometry.geoms])
    west, _, east, _ = geometry.bounds
    return translate(geometry, 360.0) if west + east < 0.0 else geometry


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


def parse_areas(given: Any, crs: Any = None, column: str | None = None) -> Areas:
    """Understand areas in the forms that people hold them.

    Parameters
    ----------
    given : tuple of 4 numbers, Areas, or what :func:`~rasteret_dask.grid.given.understand` takes
    crs : anything that pyproj takes, optional
        What the coordinates mean; taken from the data when that says, else lon/lat, but a table must say or be told.
    column : str, optional
        The column of a table that holds them.

    Raises
    ------
    ArgumentError
        If nothing can be made of it, or a geometry is missing, empty or not finite.
    """
    if isinstance(given, Areas):
        return given
    if is_box(given):
        text = CRS84 if crs is None else plain_crs(crs)
        west, south, east, north = (float(v) for v in given)
        if text == CRS84:
            parse_bbox(given)
        if text == CRS84 and west > east:
            east += 360.0  # over the antimeridian, as in a bbox
        if west >= east or south >= north:
            raise ArgumentError(f"the box {tuple(given)} is empty")
        return Areas((box(west, south, east, north),), text, True)
    found = understand(given, column)
    text = resolve_crs(found.crs, crs, tabular=found.tabular)
    check_degrees(shapely.total_bounds(found.geometries), text)
    return Areas(tuple(found.geometries), text, False, found.columns)


def is_box(given: Any) -> bool:
    """Whether it is four plain numbers."""
    return (
        isinstance(given, (tuple, list, np.ndarray))
        and len(given) == 4
        and all(isinstance(v, (int, float, np.number)) for v in given)
    )
