"""Polygons with values, painted as class maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer
from rasterio.features import rasterize

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.geobox import CRS84, Grid, crs_text
from rasteret_dask.grid.shapes import NUDGE
from rasteret_dask.grid.tiles import Window


@dataclass(frozen=True, slots=True, eq=False)
class PolygonLabels:
    """Polygons and what each stands for.

    Parameters
    ----------
    shapes : ndarray of shapely geometry, shape (n,)
    values : ndarray of int64 or float32, shape (n,)
    crs : str
    all_touched : bool
        Whether a polygon paints every pixel that it touches, not those alone whose centre it holds.
    background : number
        Where no polygon is.
    """

    shapes: npt.NDArray[np.object_]
    values: npt.NDArray[Any]
    crs: str
    all_touched: bool = False
    background: float | int = 0

    def on(self, grid: Grid) -> Painter:
        """Bring the polygons onto a grid."""
        shapes = self.shapes
        if self.crs != grid.crs:
            transformer = Transformer.from_crs(self.crs, grid.crs, always_xy=True)
            shapes = shapely.transform(
                shapes, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1]))
            )
        scale, corner = np.array([grid.xres, -grid.yres]), np.array([grid.left, grid.top])
        # Nudged as masks are, so that a pixel is painted alike in every window.
        moved = shapely.transform(shapes, lambda xy: (xy - corner) / scale + NUDGE)
        return Painter(self, moved)


class Painter:
    """Polygons in pixels of a grid.

    Parameters
    ----------
    labels : PolygonLabels
    shapes : ndarray of shapely geometry
        Column to the right, row down.
    """

    def __init__(self, labels: PolygonLabels, shapes: npt.NDArray[np.object_]) -> None:
        self._labels = labels
        self._shapes = shapes
        self._tree = shapely.STRtree(shapes)

    def paint(self, window: Window) -> npt.NDArray[Any]:
        """Return the class map of a window; where polygons overlap the later one wins."""
        r0, r1, c0, c1 = window
        labels = self._labels
        near = np.sort(self._tree.query(shapely.box(c0, r0, c1, r1)))
        out = np.full((r1 - r0, c1 - c0), labels.background, dtype=labels.values.dtype)
        if len(near):
            corner = np.array([c0, r0], dtype=float)
            moved = shapely.transform(self._shapes[near], lambda xy: xy - corner)
            pairs = [(shape, value) for shape, value in zip(moved, labels.values[near].tolist())]
            rasterize(pairs, out=out, all_touched=labels.all_touched)
        return out


def polygon_labels(
    frame: Any, column: str, *, crs: Any, all_touched: bool, background: float | int
) -> PolygonLabels:
    """Take polygons and their values out of a GeoDataFrame.

    Parameters
    ----------
    frame : GeoDataFrame
    column : str
        Of the values.
    crs : optional
        What the coordinates are in; as the frame says by default.
    all_touched : bool
    background : number
        Where no polygon lies.

    Raises
    ------
    ArgumentError
        If values are missing, or no numbers.
    """
    values = np.asarray(frame[column])
    if frame[column].isna().any():
        raise ArgumentError(f"some polygons have no {column!r}")
    if values.dtype.kind not in "biuf":
        raise ArgumentError(
            f"{column!r} is not numeric, and a mask holds numbers",
            hint="number the classes: frame[column].astype('category').cat.codes + 1",
        )
    own = crs if crs is not None else frame.crs
    kind = np.float32 if values.dtype.kind == "f" else np.int64
    return PolygonLabels(
        np.asarray(frame.geometry, dtype=object),
        values.astype(kind),
        CRS84 if own is None else crs_text(own),
        all_touched,
        background,
    )
