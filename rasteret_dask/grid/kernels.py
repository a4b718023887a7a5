"""Resampling beyond the nearest pixel: every output pixel is a function of its own source coordinates alone.

Point kernels (bilinear, cubic) weigh the pixels around a coordinate; where a source pixel is smaller than an output pixel they widen with
the ratio, so that nothing is skipped. Area kernels (average, mode, min, max, quartiles) take the source pixels under the output pixel's
box. Weights of invalid pixels are left out and the rest is brought back to 1, so that nodata never bleeds. The definitions are GDAL's
(``gdalwarpkernel.cpp``), the order of the operations is fixed for each pixel: no chunking changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.grid.statistics import STATISTICS
from rasteret_dask.grid.warp import nearest_index

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

POINT = ("bilinear", "cubic")
AREA = ("average", "mode", "min", "max", "q1", "med", "q3")
METHODS = ("nearest", *POINT, *AREA)

_RADIUS = {"bilinear": 1.0, "cubic": 2.0}
_EPSILON = 1e-10


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Where each output pixel lies in a source.

    Coordinates count from the source's own corner, not from a window's, so that they are the same numbers for every chunk.

    Parameters
    ----------
    x, y : ndarray of float64
        Of output pixel centres, in source pixels: 1-D, columns and rows, when the axes are separable, else both 2-D.
    x0, x1, y0, y1 : ndarray of float64
        Edges of the boxes, low and high, of the same shapes as ``x`` and ``y``.
    left, top : int
        Source pixel at the corner of the window of values that is resampled.
    flips : tuple of bool
        Whether columns and rows run against the output's (the rows of a south-up file), which decides whose a point on an edge is.
    """

    x: Floats
    y: Floats
    x0: Floats
    x1: Floats
    y0: Floats
    y1: Floats
    left: int = 0
    top: int = 0
    flips: tuple[bool, bool] = (False, False)

    @property
    def separable(self) -> bool:
        """Whether columns and rows are independent."""
        return self.x.ndim == 1

    def plane(self) -> Samples:
        """Return the same with 2-D coordinates."""
        if not self.separable:
            return self
        shape = (len(self.y), len(self.x))
        across = [np.broadcast_to(v[None, :], shape) for v in (self.x, self.x0, self.x1)]
        down = [np.broadcast_to(v[:, None], shape) for v in (self.y, self.y0, self.y1)]
        edges = (across[1], across[2], down[1], down[2])
        return Samples(across[0], down[0], *edges, self.left, self.top, self.flips)


def reach(method: str, ratio: float) -> float:
    """Return how many source pixels beyond an output pixel's centre a method looks, for so many source pixels to an output pixel."""
    if method in POINT:
        return _RADIUS[method] * _widening(ratio)
    return 0.5 * ratio + 1.0 if method in AREA else 0.0


def _widening(ratio: float) -> float:
    # GDAL keeps the plain kernel until the output is 5 % coarser.
    return ratio if ratio > 1.0 / 0.95 else 1.0


def resample(
    values: Array,
    valid: Bools | None,
    samples: Samples,
    method: str,
    ratio: tuple[float, float],
) -> tuple[Array, Bools]:
    """Resample a window of a source.

    Parameters
    ----------
    values : ndarray, shape (rows, columns)
    valid : ndarray of bool, same shape, optional
        Where values mean something; None: everywhere.
    samples : Samples
    method : str
        One of :data:`METHODS` but ``"nearest"``.
    ratio : tuple of float
        Source pixels to an output pixel along x and y; one number each for a whole cube.

    Returns
    -------
    values : ndarray, shape of the output
        float64 for weighing methods (complex128 for complex sources), else of the type of ``values``.
    valid : ndarray of bool, same shape
    """
    if valid is None:
        valid = np.ones(values.shape, dtype=bool)
    if method in POINT:
        return _point(values, valid, samples, method, ratio)
    if method == "average":
        return _average(values, valid, samples)
    return _boxes(values, valid, samples.plane(), method)


def _wide(values: Array) -> Array:
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


# --- point kernels -------------------------------------------------------------------------------
def _linear(t: Floats) -> Floats:
    return np.maximum(0.0, 1.0 - np.abs(t))


def _catmull_rom(t: Floats) -> Floats:
    a = np.abs(t)
    near = (1.5 * a - 2.5) * a * a + 1.0
    far = ((-0.5 * a + 2.5) * a - 4.0) * a + 2.0
    return np.where(a <= 1.0, near, np.where(a < 2.0, far, 0.0))


_KERNELS: dict[str, Callable[[Floats], Floats]] = {"bilinear": _linear, "cubic": _catmull_rom}


def _point(
    values: Array, valid: Bools, samples: Samples, method: str, ratio: tuple[float, float]
) -> tuple[Array, Bools]:
    out, weight, complete = _weigh(values, valid, samples, method, ratio)
    if method == "cubic" and all(_widening(r) == 1.0 for r in ratio):
        # As in GDAL: where a pixel of the 4 × 4 is missing, cubic weights would ring, and bilinear ones take over.
        linear, share, _ = _weigh(values, valid, samples, "bilinear", ratio)
        out = np.where(complete, out, linear)
        weight = np.where(complete, weight, share)
    good = weight > 1e-5
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.where(np.abs(weight - 1.0) < 1e-12, out, out / np.where(good, weight, 1.0))
    return out, good & _centre(valid, samples)


def _centre(valid: Bools, samples: Samples) -> Bools:
    """Whether the pixel that holds the coordinate is valid: what is nodata stays nodata, whatever its neighbours are."""
    i, j = _pixels(samples)
    i, j = i - samples.top, j - samples.left
    rows, cols = valid.shape
    inside = (i >= 0) & (i < rows) & (j >= 0) & (j < cols)
    found: Bools = inside & valid[np.clip(i, 0, rows - 1), np.clip(j, 0, cols - 1)]
    return found


def _inside(samples: Samples, shape: tuple[int, ...]) -> Bools:
    i, j = _pixels(samples)
    found: Bools = (
        (i >= samples.top)
        & (i < samples.top + shape[0])
        & (j >= samples.left)
        & (j < samples.left + shape[1])
    )
    return found


def _pixels(samples: Samples) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return row and column of the pixel that holds each coordinate, by the rule of the nearest pixel."""
    plane = samples.plane()
    return nearest_index(plane.y, samples.flips[1]), nearest_index(plane.x, samples.flips[0])


def _taps(
    centre: Floats, method: str, ratio: float, corner: int
) -> list[tuple[npt.NDArray[np.int64], Floats]]:
    """Return source index and weight of each tap along one axis."""
    wide = _widening(ratio)
    radius = math.ceil(_RADIUS[method] * wide)
    first = np.floor(centre - 0.5).astype(np.int64) - radius + 1
    taps = []
    for k in range(2 * radius):
        index = first + k
        weight = _KERNELS[method]((index + 0.5 - centre) / wide) / wide
        taps.append((index - corner, weight))
    return taps


def _weigh(
    values: Array, valid: Bools, samples: Samples, method: str, ratio: tuple[float, float]
) -> tuple[Array, Floats, Bools]:
    """Return weighted sums, sums of weights, and whether every pixel with a weight was there."""
    across = _taps(samples.x, method, ratio[0], samples.left)
    down = _taps(samples.y, method, ratio[1], samples.top)
    source = np.where(valid, _wide(values), 0.0)
    known = valid.astype(np.float64)
    if samples.separable:
        return _weigh_axes(source, known, across, down)
    finite = bool(np.isfinite(source).all())
    shape = samples.x.shape
    total = np.zeros(shape, dtype=source.dtype)
    weight = np.zeros(shape)
    complete = np.ones(shape, dtype=bool)
    rows, cols = values.shape
    for i, wy in down:
        in_y = (i >= 0) & (i < rows)
        ii = np.clip(i, 0, rows - 1)
        for j, wx in across:
            inside = in_y & (j >= 0) & (j < cols)
            jj = np.clip(j, 0, cols - 1)
            there = inside & valid[ii, jj]
            w = np.where(there, wy * wx, 0.0)
            total += _weighed(source[ii, jj], w, finite)
            weight += w
            complete &= there
    return total, weight, complete


def _weighed(values: Array, weight: Floats, finite: bool) -> Array:
    """Return values times weights; an infinite one that has no weight is nothing, where 0 × inf would be NaN."""
    if finite:
        return values * weight
    with np.errstate(invalid="ignore"):
        found: Array = np.where(weight == 0.0, 0.0, values * weight)
    return found


def _weigh_axes(
    source: Array,
    known: Floats,
    across: list[tuple[npt.NDArray[np.int64], Floats]],
    down: list[tuple[npt.NDArray[np.int64], Floats]],
) -> tuple[Array, Floats, Bools]:
    """Do the same for separable axes: first along rows, then down, one tap after the other."""
    rows, cols = source.shape
    finite = bool(np.isfinite(source).all())
    width, height = len(across[0][0]), len(down[0][0])
    total = np.zeros((rows, width), dtype=source.dtype)
    weight, count = np.zeros((rows, width)), np.zeros((rows, width))
    for j, wx in across:
        jj = np.clip(j, 0, cols - 1)
        inside = ((j >= 0) & (j < cols)).astype(np.float64)
        total += _weighed(source[:, jj], wx * inside, finite)
        weight += known[:, jj] * (wx * inside)
        count += known[:, jj] * inside
    out = np.zeros((height, width), dtype=source.dtype)
    share, seen = np.zeros((height, width)), np.zeros((height, width))
    for i, wy in down:
        ii = np.clip(i, 0, rows - 1)
        inside = ((i >= 0) & (i < rows)).astype(np.float64)
        out += _weighed(total[ii], (wy * inside)[:, None], finite)
        share += weight[ii] * (wy * inside)[:, None]
        seen += count[ii] * inside[:, None]
    return out, share, seen == float(len(across) * len(down))


# --- area kernels --------------------------------------------------------------------------------
def _average(values: Array, valid: Bools, samples: Samples) -> tuple[Array, Bools]:
    """Mean of the pixels under the box, each weighed by how much of it the box covers."""
    source = np.where(valid, _wide(values), 0.0)
    known = valid.astype(np.float64)
    if samples.separable:
        across = _overlaps(samples.x0, samples.x1, samples.left)
        down = _overlaps(samples.y0, samples.y1, samples.top)
        out, share, _ = _weigh_axes(source, known, across, down)
    else:
        out, share = _average_plane(source, known, samples)
    good = share > 1e-10
    return np.where(good, out / np.where(good, share, 1.0), 0.0), good & _inside(
        samples, values.shape
    )


def _average_plane(source: Array, known: Floats, samples: Samples) -> tuple[Array, Floats]:
    """Return weighted sums and sums of weights of boxes that are no product of columns and rows."""
    rows, cols = source.shape
    finite = bool(np.isfinite(source).all())
    out, share = np.zeros(samples.x.size, dtype=source.dtype), np.zeros(samples.x.size)
    for at, boxes in _alike(samples, source.shape):
        total, weight = np.zeros(len(boxes.x0), dtype=source.dtype), np.zeros(len(boxes.x0))
        for i, wy in _overlaps(boxes.y0, boxes.y1, samples.top):
            ii, in_y = np.clip(i, 0, rows - 1), (i >= 0) & (i < rows)
            for j, wx in _overlaps(boxes.x0, boxes.x1, samples.left):
                jj = np.clip(j, 0, cols - 1)
                w = np.where(in_y & (j >= 0) & (j < cols), wy * wx, 0.0)
                total += _weighed(source[ii, jj], w, finite)
                weight += w * known[ii, jj]
        out[at], share[at] = total, weight
    return out.reshape(samples.x.shape), share.reshape(samples.x.shape)


def _overlaps(low: Floats, high: Floats, corner: int) -> list[tuple[npt.NDArray[np.int64], Floats]]:
    """Return for every pixel that a box may touch along one axis its index and the length of the overlap."""
    first = np.floor(low + _EPSILON).astype(np.int64)
    past = np.ceil(high - _EPSILON).astype(np.int64)
    out = []
    for k in range(int((past - first).max(initial=1))):
        index = first + k
        length = np.minimum(high, index + 1.0) - np.maximum(low, index.astype(np.float64))
        # How many are looked at depends on the largest box; noise beyond its own edge is no overlap of a smaller one.
        length = np.where(index < past, length, 0.0)
        out.append((index - corner, np.maximum(0.0, length)))
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """Edges of boxes, 1-D, in source pixels."""

    x0: Floats
    x1: Floats
    y0: Floats
    y1: Floats

    def part(self, at: Any) -> _Boxes:
        return _Boxes(self.x0[at], self.x1[at], self.y0[at], self.y1[at])

    def sizes(self) -> tuple[Floats, Floats]:
        """Return how many columns and rows each touches, at least 1."""
        wide = np.ceil(self.x1 - _EPSILON) - np.floor(self.x0 + _EPSILON)
        high = np.ceil(self.y1 - _EPSILON) - np.floor(self.y0 + _EPSILON)
        return np.maximum(wide, 1.0), np.maximum(high, 1.0)


def _alike(samples: Samples, shape: tuple[int, ...]) -> Iterator[tuple[Any, _Boxes]]:
    """Yield boxes of about one size whose centres lie in the source, and their places in the plane.

    What is done for boxes together takes as long as for the largest of them, and around a pole one pixel may lie over half of the columns.
    """
    boxes = _Boxes(*(v.ravel() for v in (samples.x0, samples.x1, samples.y0, samples.y1)))
    inside = np.flatnonzero(_inside(samples, shape))
    if not len(inside):
        return
    places: Any = slice(None)
    if len(inside) < len(boxes.x0):
        places, boxes = inside, boxes.part(inside)
    sizes = boxes.sizes()
    if all(size.max() <= 2.0 * np.median(size) + 2.0 for size in sizes):
        yield places, boxes
        return
    wide, high = (np.ceil(np.log2(size)).astype(np.int64) for size in sizes)
    kinds = wide * 64 + high
    for kind in np.unique(kinds).tolist():
        same = np.flatnonzero(kinds == kind)
        yield inside[same], boxes.part(same)


def _boxes(values: Array, valid: Bools, samples: Samples, method: str) -> tuple[Array, Bools]:
    """Statistics that need all pixels of a box at once, some boxes at a time."""
    out = np.zeros(samples.x.size, dtype=values.dtype)
    good = np.zeros(samples.x.size, dtype=bool)
    for at, boxes in _alike(samples, values.shape):
        wide, high = boxes.sizes()
        step = max(1, int(2**22 // (wide.max() * high.max())))
        parts = [slice(k, k + step) for k in range(0, len(wide), step)]
        stacks = (_stack(values, valid, boxes.part(p), (samples.left, samples.top)) for p in parts)
        found = [(STATISTICS[method](stack, known), known.any(axis=0)) for stack, known in stacks]
        out[at], good[at] = (np.concatenate(one) for one in zip(*found))
    return out.reshape(samples.x.shape), good.reshape(samples.x.shape)


def _stack(
    values: Array, valid: Bools, boxes: _Boxes, corner: tuple[int, int]
) -> tuple[Array, Bools]:
    """Return the pixels of every box along a first axis, in order of rows and columns, and which of them count."""
    rows, cols = values.shape
    layers, flags = [], []
    for i, wy in _overlaps(boxes.y0, boxes.y1, corner[1]):
        ii, in_y = np.clip(i, 0, rows - 1), (i >= 0) & (i < rows) & (wy > 0)
        for j, wx in _overlaps(boxes.x0, boxes.x1, corner[0]):
            jj = np.clip(j, 0, cols - 1)
            layers.append(values[ii, jj])
            flags.append(in_y & (j >= 0) & (j < cols) & (wx > 0) & valid[ii, jj])
    return np.stack(layers), np.stack(flags)
