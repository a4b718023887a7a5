"""Which source pixel an output pixel takes: exact affine maps within a CRS, an anchored lattice between two.

A coordinate is a function of the *global* pixel index of the output grid and of nothing else, so that every chunking gives the same
pixels. GDAL's warp interpolates along each chunk's own scanlines, and moves pixels with the chunking.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

from rasteret_dask.errors import GridError
from rasteret_dask.grid.tiles import Window

Affine6 = tuple[float, float, float, float, float, float]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STEPS = (32, 16, 8, 4, 2, 1)
"""Distances between lattice nodes that are tried, in output pixels."""

BOUND = 1e-3
"""Largest error of the linear interpolation between nodes, in source pixels, at the middle of a cell."""

_SEAM = 1e-6
"""Columns within which a pixel lies on the seam of a map: what coordinates are rounded to when the nearest pixel is looked for."""

_ALL = (-(2**31), 2**31)
"""More rows, or columns, than there are."""


@dataclass(frozen=True, slots=True)
class AxisMap:
    """Output pixel centres to source pixel coordinates along both axes, in one CRS.

    ``column = x_scale * (X + 0.5) + x_shift`` for output column X, and likewise rows.
    """

    x_scale: float
    x_shift: float
    y_scale: float
    y_shift: float

    @property
    def ratio(self) -> tuple[float, float]:
        """Source pixels to an output pixel, along x and y."""
        return abs(self.x_scale), abs(self.y_scale)

    @property
    def is_shift(self) -> bool:
        """Whether it only moves by whole pixels."""
        return (
            self.x_scale == 1.0
            and self.y_scale == 1.0
            and self.x_shift == round(self.x_shift)
            and self.y_shift == round(self.y_shift)
        )


IDENTITY = AxisMap(1.0, 0.0, 1.0, 0.0)
"""Of a source that is read on its own grid."""


def axis_map(grid: Affine6, source: Affine6) -> AxisMap:
    """Compose the output grid's affine with the inverse of the source's, both axis-aligned and in one CRS.

    Scales and shifts nearer than a millionth of a pixel to a whole number are that number.
    """
    a, _, c, _, e, f = grid
    p, _, r, _, t, u = source
    return AxisMap(_whole(a / p), _whole((c - r) / p), _whole(e / t), _whole((f - u) / t))


def _whole(value: float) -> float:
    near = round(value)
    return float(near) if abs(value - near) <= 1e-6 else value


def nearest_index(coordinate: Floats, flipped: bool = False) -> Ints:
    """Return the pixel that holds each coordinate.

    Pixels are half-open: a point on an edge belongs to the right-hand, lower pixel. Coordinates are rounded to a millionth first, so that
    arithmetic noise does not decide. ``flipped`` is for an axis that runs against the output's (south-up rows).
    """
    rounded = np.round(coordinate, 6)
    if flipped:
        return (np.ceil(rounded) - 1).astype(np.int64)
    return np.floor(rounded).astype(np.int64)


def axis_indices(start: int, stop: int, scale: float, shift: float) -> Ints:
    """Return the source index of each output index in ``[start, stop)`` along one axis.

    Parameters
    ----------
    start, stop : int
        Output pixels.
    scale : float
        Source pixels to an output pixel.
    shift : float
        Source coordinate of the output's origin, in source pixels.
    """
    return nearest_index(
        scale * (np.arange(start, stop, dtype=np.float64) + 0.5) + shift, scale < 0
    )


@lru_cache(maxsize=64)
def transformer(source: str, target: str) -> Transformer:
    """Return what takes x and y from one CRS to another, made once in a process: that costs more than most uses. Threads may share it."""
    return Transformer.from_crs(source, target, always_xy=True)


@dataclass(frozen=True, slots=True)
class CrsMap:
    """Output pixels to source pixels across two CRSs, through lattice nodes anchored at the output grid's origin.

    Parameters
    ----------
    grid_crs, source_crs : str
    grid, source : tuple of float
        Affines of pixel corners.
    step : int
        Output pixels between nodes; 1 computes the coordinates of every pixel exactly.
    middle : float, optional
        Of a source whose CRS goes round the world: x is taken from within half a turn of it, so that files in 0 … 360 and cubes over the
        antimeridian meet.
    turn : float
        How far round the world is, in units of the source's CRS.
    ratio : tuple of float
        Source pixels to an output pixel along x and y: one value for the whole cube, so that kernels are as wide in every chunk.
    """

    grid_crs: str
    source_crs: str
    grid: Affine6
    source: Affine6
    step: int
    middle: float | None = None
    ratio: tuple[float, float] = (1.0, 1.0)
    turn: float = 360.0

    def exact(self, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
        """Return source coordinates of output coordinates (both in pixels), by PROJ."""
        a, b, c, d, e, f = self.grid
        x = a * columns + b * rows + c
        y = d * columns + e * rows + f
        sx, sy = transformer(self.grid_crs, self.source_crs).transform(x, y)
        sx, sy = np.asarray(sx, dtype=np.float64), np.asarray(sy, dtype=np.float64)
        if self.middle is not None:
            with np.errstate(invalid="ignore"):
                sx = sx - self.turn * np.round((sx - self.middle) / self.turn)
        p, q, r, s, t, u = self.source
        det = p * t - q * s
        dx, dy = sx - r, sy - u
        # What PROJ cannot transform is inf; inf - inf would warn, and nan says it as well.
        bad = ~(np.isfinite(dx) & np.isfinite(dy))
        dx, dy = np.where(bad, np.nan, dx), np.where(bad, np.nan, dy)
        return (t * dx - q * dy) / det, (p * dy - s * dx) / det

    def _begun(self, column: Floats) -> Floats:
        """Return columns of which none lies on the seam's right: what is half a turn to the right of the middle is as far to the left of
        it, where a map of the world begins. Only pixels lie there; the edge of a cube may stay where it ends."""
        p, q, r, s, _, _ = self.source
        if self.middle is None or p <= 0.0 or q or s:
            return column
        whole = self.turn / p
        right = (self.middle - r) / p + whole / 2.0
        return np.where(column >= right - _SEAM, column - whole, column)

    def beside(self, u: Floats, v: Floats, column: Floats, row: Floats) -> tuple[Floats, Floats]:
        """Return source coordinates brought to within half a turn of others, where the source's CRS goes round the world.

        Corners of one pixel may lie at both ends of a map, as those of a pixel over the antimeridian do.
        """
        if self.middle is None or self.step > 1:  # no lattice goes across
            return u, v
        p, q, _, s, t, _ = self.source
        turns = self.turn * np.round((p * (u - column) + q * (v - row)) / self.turn)
        det = p * t - q * s
        return u - turns * t / det, v + turns * s / det

    def nodes(self, window: Window) -> tuple[Floats, Floats, int, int]:
        """Return source columns and rows at the nodes around a window of output pixels, and the first node's indices."""
        r0, r1, c0, c1 = window
        n = self.step
        i0, i1 = r0 // n, -(-r1 // n)
        j0, j1 = c0 // n, -(-c1 // n)
        columns, rows = np.meshgrid(
            np.arange(j0, j1 + 1) * float(n), np.arange(i0, i1 + 1) * float(n)
        )
        u, v = self.exact(columns, rows)
        return u, v, i0, j0

    def coordinates(self, window: Window, part: float = 0.5) -> tuple[Floats, Floats]:
        """Return source columns and rows, in pixels, of the centres of a window of output pixels.

        Parameters
        ----------
        window : tuple of int
        part : float
            Where in each output pixel: 0.5 is its centre, 0 its upper left corner.

        Returns
        -------
        columns, rows : ndarray of float64, shape (rows of window, columns of window)
            NaN where PROJ has no answer.
        """
        r0, r1, c0, c1 = window
        if self.step == 1:
            columns, rows = np.meshgrid(np.arange(c0, c1) + part, np.arange(r0, r1) + part)
            column, row = self.exact(columns, rows)
            return (self._begun(column) if part == 0.5 else column), row
        u, v, i0, j0 = self.nodes(window)
        y = (np.arange(r0, r1) + part) / self.step - i0
        x = (np.arange(c0, c1) + part) / self.step - j0
        return _bilinear(u, y, x), _bilinear(v, y, x)

    def extent(self, window: Window) -> Window | None:
        """Return a window of source pixels that surely holds every one that the output window's pixels cover.

        None when no node has a finite image. Where some have none, everything might be needed, and the window is unbounded.
        """
        if self.step == 1:
            # Corners besides: a pixel around a pole holds what lies between none of them.
            r0, r1, c0, c1 = window
            edges = self.coordinates((r0, r1 + 1, c0, c1 + 1), 0.0)
            centres = self.coordinates(window)
            u, v = (np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(edges, centres))
        else:
            u, v, _, _ = self.nodes(window)
        finite = np.isfinite(u)
        if not finite.any():
            return None
        if not finite.all():
            return (*_ALL, *_ALL)
        rows, columns = ((int(np.floor(k.min())) - 1, int(np.floor(k.max())) + 2) for k in (v, u))
        p, q, _, s, _, _ = self.source
        if self.middle is not None and np.ptp(p * u + q * v) > self.turn / 2.0:
            # A pixel over the antimeridian, or around a pole, may reach to either end of a map.
            rows, columns = _ALL if s else rows, _ALL
        return (*rows, *columns)


def _bilinear(nodes: Floats, y: Floats, x: Floats) -> Floats:
    # Separable: first along rows of nodes, then down. The same operations in the same order for every chunk that holds a pixel.
    i = np.minimum(y.astype(np.int64), nodes.shape[0] - 2)
    j = np.minimum(x.astype(np.int64), nodes.shape[1] - 2)
    dy, dx = (y - i)[:, None], (x - j)[None, :]
    across = nodes[:, j] * (1.0 - dx) + nodes[:, j + 1] * dx
    out: Floats = across[i] * (1.0 - dy) + across[i + 1] * dy
    return out


def _torn(crs_map: CrsMap, window: Window) -> bool:
    """Whether the image of a window has gaps, or leaps from one end of the world to the other: no interpolation goes across those."""
    r0, r1, c0, c1 = window
    columns, rows = np.meshgrid(np.linspace(c0, c1, 65), np.linspace(r0, r1, 65))
    u, v = crs_map.exact(columns, rows)
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        return True
    p, q, _, s, t, _ = crs_map.source
    x, y = p * u + q * v, s * u + t * v
    leap = crs_map.turn / 4.0 if crs_map.middle is not None else 1e7
    return any(
        bool((np.abs(np.diff(k, axis=axis)) > leap).any()) for k in (x, y) for axis in (0, 1)
    )


_MIDDLES = ((0.5, 0.5), (0.0, 0.5), (0.5, 0.0))
"""Where in a cell of the lattice, rows and columns, the interpolation errs most."""


def _cell_errors(
    crs_map: CrsMap, rows: Floats, columns: Floats, step: int, part: tuple[float, float]
) -> list[Floats]:
    """Return how far the interpolation is off along x and y, in source pixels, at one place of each cell."""
    y, x = part
    weights = [
        (dy, dx, (y if dy else 1.0 - y) * (x if dx else 1.0 - x)) for dy in (0, 1) for dx in (0, 1)
    ]
    corners = [
        (crs_map.exact((columns + dx) * step, (rows + dy) * step), weight)
        for dy, dx, weight in weights
        if weight
    ]
    middle = crs_map.exact((columns + x) * step, (rows + y) * step)
    return [
        np.abs(sum(corner[axis] * weight for corner, weight in corners) - middle[axis])
        for axis in (0, 1)
    ]


def choose_step(crs_map: CrsMap, window: Window) -> int:
    """Return the widest node distance whose interpolation stays within :data:`BOUND` over a window of the output grid.

    The error is measured in up to 16 × 16 cells, at their middles and at the middles of their edges. The middles alone would not do:
    between two conformal CRSs (UTM and Mercator) coordinates are harmonic, and the errors along rows and columns cancel there. The choice
    is made once for a cube, never for a chunk.

    Raises
    ------
    GridError
        The window is empty.
    """
    r0, r1, c0, c1 = window
    if r1 <= r0 or c1 <= c0:
        raise GridError("an empty window has no coordinates")
    if _torn(crs_map, window):
        return 1
    for step in STEPS:
        if step == 1:
            break
        i = np.unique(np.linspace(r0 // step, (r1 - 1) // step, 16).astype(np.int64))
        j = np.unique(np.linspace(c0 // step, (c1 - 1) // step, 16).astype(np.int64))
        jj, ii = np.meshgrid(j.astype(float), i.astype(float))
        errors = [e for part in _MIDDLES for e in _cell_errors(crs_map, ii, jj, step, part)]
        if all(np.isfinite(e).all() and float(e.max()) <= BOUND for e in errors):
            return step
    return 1


def _spans(crs_map: CrsMap, window: Window) -> tuple[Floats, Floats]:
    """Return how many source pixels an output pixel spans along x and y, in 7 × 7 places of a window, as far as PROJ has an answer."""
    r0, r1, c0, c1 = window
    columns, rows = np.meshgrid(np.linspace(c0, c1 - 1, 7), np.linspace(r0, r1 - 1, 7))
    u, v = crs_map.exact(columns, rows)
    right, below = crs_map.exact(columns + 1.0, rows), crs_map.exact(columns, rows + 1.0)
    x = np.hypot(right[0] - u, below[0] - u)
    y = np.hypot(right[1] - v, below[1] - v)
    known = np.isfinite(x) & np.isfinite(y) & (x > 0.0) & (y > 0.0)
    return x[known], y[known]


def measure_ratio(crs_map: CrsMap, window: Window) -> tuple[float, float]:
    """Return how many source pixels an output pixel mostly spans along x and y, to four digits; 1 if nowhere any.

    The median over a window, not what it is in the middle: around a pole one pixel spans a quarter of all longitudes, and its neighbours
    do not.
    """
    x, y = _spans(crs_map, window)
    if not x.size:
        return 1.0, 1.0
    return float(f"{np.median(x):.4g}"), float(f"{np.median(y):.4g}")


def least_ratio(crs_map: CrsMap, window: Window) -> float:
    """Return how many source pixels an output pixel spans where it spans fewest, along the tighter axis, to four digits; 1 if nowhere any.

    On Mercator a pixel at 60 degrees is half as wide as at the equator.
    """
    found = np.minimum(*_spans(crs_map, window))
    return float(f"{found.min():.4g}") if found.size else 1.0
