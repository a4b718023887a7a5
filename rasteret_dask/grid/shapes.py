"""Polygons on a grid, as rasterio paints them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.features import geometry_mask

from rasteret_dask.grid.geobox import Grid
from rasteret_dask.grid.tiles import Window

NUDGE = (2.5e-7, 3.1e-7)
"""Pixels to the right and down that polygons are moved by. An edge through the very corner of a pixel touches it or not as GDAL's rounding
falls, which varies with the raster's extent, so with the chunk; moved, it belongs to the right-hand, lower pixel in every chunk."""


def pixel_shapes(geometries: tuple[shapely.Geometry, ...], grid: Grid) -> bytes:
    """Return geometries (in the grid's CRS) as WKB in pixels of the grid: column to the right, row down.

    In pixels a chunk's share is a shift by whole numbers, which loses nothing, so that every chunking masks alike.
    """
    scale = np.array([grid.xres, -grid.yres])
    corner = np.array([grid.left, grid.top])
    moved = [shapely.transform(g, lambda xy: (xy - corner) / scale + NUDGE) for g in geometries]
    return bytes(shapely.to_wkb(shapely.geometrycollections(moved)))


def outside(shapes: bytes, window: Window, all_touched: bool) -> npt.NDArray[np.bool_]:
    """Return True for the pixels of a window that lie outside all shapes.

    Parameters
    ----------
    shapes : bytes
        From :func:`pixel_shapes`.
    window : tuple of int
        ``(row0, row1, col0, col1)`` of the grid.
    all_touched : bool
        Whether touching a pixel is enough; otherwise its centre must lie inside.
    """
    r0, r1, c0, c1 = window
    collection = shapely.from_wkb(shapes)
    moved = shapely.transform(collection, lambda xy: xy - np.array([c0, r0], dtype=float))
    found: npt.NDArray[np.bool_] = geometry_mask(
        list(shapely.get_parts(moved)),
        (r1 - r0, c1 - c0),
        Affine.identity(),
        all_touched=all_touched,
    )
    return found
