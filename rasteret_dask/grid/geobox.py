"""The one output grid of a cube: CRS, affine and size, decided before anything is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS
from pyproj.exceptions import CRSError, ProjError

from rasteret_dask.errors import GridError
from rasteret_dask.grid.edges import image_bounds
from rasteret_dask.grid.warp import transformer

TOLERANCE = 1e-6
"""Of a pixel: what lies nearer than this to an edge lies on it."""

MOST = 2**27
"""Pixels along an axis: more than there are columns of 30 cm around the world, and their labels alone take a gigabyte."""

CRS84 = "OGC:CRS84"
WORLD = (-180.0, -90.0, 180.0, 90.0)
"""Longitude and latitude, in that order."""

Bounds = tuple[float, float, float, float]
"""``(left, bottom, right, top)`` in the units of a CRS."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A north-up grid of square-cornered pixels.

    Parameters
    ----------
    crs : str
        ``EPSG:32633`` or WKT2.
    left, top : float
        Corner of pixel (0, 0), in CRS units.
    xres, yres : float
        Size of a pixel, both positive, in CRS units.
    width, height : int
        Pixels.
    """

    crs: str
    left: float
    top: float
    xres: float
    yres: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if max(self.width, self.height) > MOST:
            raise GridError(
                f"a grid of {self.width} × {self.height} pixels is hardly meant",
                hint="resolution= counts in units of the CRS",
            )

    @property
    def affine(self) -> tuple[float, float, float, float, float, float]:
        """``(a, b, c, d, e, f)`` of pixel corners, as in :class:`~rasteret_dask.tiff.model.TiffHeader`."""
        return (self.xres, 0.0, self.left, 0.0, -self.yres, self.top)

    @property
    def bounds(self) -> Bounds:
        """Outer edges."""
        return (
            self.left,
            self.top - self.height * self.yres,
            self.left + self.width * self.xres,
            self.top,
        )

    @property
    def geobox(self) -> GeoBox:
        """The same as an odc-geo ``GeoBox``."""
        return GeoBox((self.height, self.width), Affine(*self.affine), self.crs)

    def centres(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return x of every column and y of every row, at pixel centres."""
        x = self.left + (np.arange(self.width, dtype=np.float64) + 0.5) * self.xres
        y = self.top - (np.arange(self.height, dtype=np.float64) + 0.5) * self.yres
        return x, y


def from_geobox(geobox: GeoBox) -> Grid:
    """Take over an odc-geo ``GeoBox``.

    Raises
    ------
    GridError
        If it is rotated, sheared, south-up or has no CRS.
    """
    a, b, c, d, e, f = tuple(geobox.affine)[:6]
    if geobox.crs is None:
        raise GridError("the geobox has no CRS")
    if b or d or a <= 0 or e >= 0:
        raise GridError(
            "the geobox is rotated, sheared or south-up", hint="cubes are axis-aligned and north-up"
        )
    height, width = geobox.shape
    return Grid(crs_text(geobox.crs), c, f, a, -e, int(width), int(height))


def crs_text(crs: Any) -> str:
    """Return ``EPSG:n`` where there is a code, else WKT2.

    Raises
    ------
    GridError
        If pyproj does not understand it.
    """
    try:
        parsed = CRS.from_user_input(crs)
    except CRSError as error:
        raise GridError(f"{crs!r} is not a coordinate reference system: {error}") from None
    authority = parsed.to_authority(min_confidence=100)
    if authority is not None and authority[0] == "EPSG":
        return f"EPSG:{authority[1]}"
    code = parsed.to_epsg(min_confidence=100)
    return f"EPSG:{code}" if code is not None else str(parsed.to_wkt("WKT2_2019"))


@lru_cache(maxsize=256)
def is_geographic(crs: str) -> bool:
    """Whether a CRS counts in degrees of longitude and latitude."""
    return bool(CRS.from_user_input(crs).is_geographic)


@lru_cache(maxsize=256)
def metres_per_unit(crs: str) -> float | None:
    """Return how long a unit of a projected CRS is in metres; None for degrees."""
    parsed = CRS.from_user_input(crs)
    if parsed.is_geographic:
        return None
    return float(parsed.axis_info[0].unit_conversion_factor)


@lru_cache(maxsize=256)
def period(crs: str) -> float | None:
    """Return after how much x comes back to where it was: 360 in degrees, the world's width on a cylinder (Mercator); else None.

    Asked of the projection itself: on a cylinder a degree of longitude is as wide everywhere.
    """
    if is_geographic(crs):
        return 360.0
    x, y = transformer(CRS84, crs).transform([1.0, 2.0, 3.0, 1.0, 3.0], [0.0, 0.0, 0.0, 60.0, 60.0])
    degree = x[1] - x[0]
    wide = abs(degree) * 1e-9
    if not math.isfinite(degree) or degree <= 0.0:
        return None
    same = abs(x[2] - x[1] - degree) <= wide and abs(x[4] - x[3] - 2.0 * degree) <= wide
    return 360.0 * degree if same and y[0] == y[2] and y[3] == y[4] else None


def turns(left: float, right: float, low: float, high: float, crs: str) -> tuple[float, ...]:
    """Return by how much x must be shifted for ``[left, right]`` to meet ``[low, high]``: whole turns where there are any.

    Parameters
    ----------
    left, right : float
        What is shifted, in units of the CRS.
    low, high : float
        What it is to meet.
    crs : str
    """
    whole = period(crs)
    if whole is None:
        return (0.0,)
    return tuple(t for t in (0.0, -whole, whole) if left + t < high and right + t > low)


def within_a_turn(x: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray[np.float64]:
    """Return x within a turn from a grid's left edge, where its CRS goes round the world.

    A grid over the antimeridian ends beyond it, and one of 0 … 360 begins where longitudes of others are in their middle.

    Parameters
    ----------
    x : ndarray of float64
        In the grid's CRS; what is not finite stays.
    grid : Grid
    """
    whole = period(grid.crs)
    if whole is None:
        return x
    with np.errstate(invalid="ignore"):
        return x - whole * np.floor((x - grid.left + TOLERANCE * grid.xres) / whole)


def transform_bounds(bounds: Bounds, source: str, target: str, *, closely: bool = True) -> Bounds:
    """Return the bounds, in another CRS, of a box whose edges are followed to where they reach furthest.

    ``west > east`` in a geographic source means the box crosses the antimeridian; in a target that goes round the world such a box goes on
    beyond its end (170 … 190 degrees; on Mercator beyond 20037508 m). Those that are not asked for ``closely`` may be short by
    a hundredth, and take a fifth of the time.

    Raises
    ------
    GridError
        If the box has no image, reaches from the earth to beside it, or is torn apart by the antimeridian.
    """
    left, bottom, right, top = bounds
    if source == target:
        return (left, bottom, right + 360.0 if left > right else right, top)
    if is_geographic(source) and right - left >= 360.0:
        left, right = -180.0, 180.0
    elif is_geographic(source) and right > 180.0:
        left, right = (left - 360.0 if left >= 180.0 else left), right - 360.0
    there = transformer(source, target)
    turn = period(target) or 0.0
    # What lies on a plane beside the earth (the corners of a Mollweide map) is no edge of what lies on it.
    how = {"closely": closely, "whole": not is_geographic(source)}
    try:
        if left > right:
            west = image_bounds(there, (left, bottom, 180.0, top), turn, **how)
            east = image_bounds(there, (-180.0, bottom, right, top), turn, **how)
            box = _join(west, east, turn, bounds, target)
        else:
            box = image_bounds(there, (left, bottom, right, top), turn, **how)
    except ProjError as error:
        raise GridError(f"the box {bounds} cannot be expressed in {target}: {error}") from None
    if turn and box[2] - box[0] > turn / 2.0 and not is_geographic(target) and source != CRS84:
        # On a cylinder PROJ does not say that a box crosses the antimeridian; in lon/lat it does, and what is a box there is one here.
        degrees = transform_bounds(bounds, source, CRS84, closely=closely)
        box = transform_bounds(degrees, CRS84, target, closely=closely)
    if not all(math.isfinite(v) for v in box):
        raise GridError(f"the box {bounds} cannot be expressed in {target}")
    return (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def lonlat_box(bounds: Bounds, crs: str) -> Bounds:
    """Return a box in lon/lat that surely holds one in another CRS: the world, where only a part of that is on the earth.

    Raises
    ------
    GridError
        Nothing of it is on the earth.
    """
    try:
        return transform_bounds(bounds, crs, CRS84)
    except GridError:
        along, up = (np.linspace(low, high, 65) for low, high in zip(bounds[:2], bounds[2:]))
        x, y = np.meshgrid(along, up)
        lon, lat = transformer(crs, CRS84).transform(x, y)
        if not (np.isfinite(lon) & np.isfinite(lat)).any():
            raise
        return WORLD


def _join(west: Bounds, east: Bounds, turn: float, bounds: Bounds, target: str) -> Bounds:
    """Return the box around the images of both sides of the antimeridian; what lies east of it may be a turn further on."""
    if abs(east[0] + turn - west[2]) < abs(east[0] - west[2]):
        east = (east[0] + turn, east[1], east[2] + turn, east[3])
    gap = max(east[0] - west[2], west[0] - east[2], east[1] - west[3], west[1] - east[3])
    size = max(west[2] - west[0], west[3] - west[1], east[2] - east[0], east[3] - east[1])
    if gap > 0.01 * size:
        raise GridError(
            f"{target} is torn along the antimeridian, which the box {bounds} crosses",
            hint="use crs='utm', EPSG:4326 or EPSG:3857, where such a box is one piece, or read both sides apart",
        )
    return (
        min(west[0], east[0]),
        min(west[1], east[1]),
        max(west[2], east[2]),
        max(west[3], east[3]),
    )


def snap(bounds: Bounds, crs: str, xres: float, yres: float, anchor: tuple[float, float]) -> Grid:
    """Return the grid through ``anchor`` that holds every pixel which ``bounds`` touch.

    Parameters
    ----------
    bounds : tuple of float
        In CRS units.
    crs : str
        Of the grid.
    xres, yres : float
        Positive, in CRS units.
    anchor : tuple of float
        ``(x, y)`` of any pixel corner of the grid.

    Raises
    ------
    GridError
        If the bounds are empty or hold more than 2**31 pixels in a direction.
    """
    left, bottom, right, top = bounds
    x, y = anchor
    c0 = _floor((left - x) / xres)
    c1 = _ceil((right - x) / xres)
    r0 = _floor((y - top) / yres)
    r1 = _ceil((y - bottom) / yres)
    # A box thinner than the tolerance still touches one pixel.
    c1, r1 = max(c1, c0 + 1), max(r1, r0 + 1)
    if c1 - c0 >= 2**31 or r1 - r0 >= 2**31:
        raise GridError(f"the output grid would have {c1 - c0} × {r1 - r0} pixels")
    return Grid(crs, x + c0 * xres, y - r0 * yres, xres, yres, c1 - c0, r1 - r0)


def _floor(value: float) -> int:
    return math.floor(value + TOLERANCE)


def _ceil(value: float) -> int:
    return math.ceil(value - TOLERANCE)


def aligned(value: float, step: float) -> bool:
    """Whether ``value`` is a whole number of steps, to a millionth of one."""
    ratio = value / step
    return abs(ratio - round(ratio)) <= TOLERANCE


def phase(origin: float, step: float) -> float:
    """Return where a grid line falls within a step, in steps, in ``[0, 1)``, rounded to the tolerance."""
    part = round((origin / step) % 1.0, 6)
    return 0.0 if part >= 1.0 else part
