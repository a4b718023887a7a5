"""Resampling beyond the nearest pixel: every output pixel is a function of its own source coordinates alone.

Point kernels (bilinear, cubic) weigh the pixels around a coordinate; where a source pixel is smaller than an output pixel they widen with
the ratio, so that nothing is skipped. Area kernels (average, mode, min, max, quartiles) take the source pixels under the output pixel's
box. Weights of invalid pixels are left out and the rest is brought back to 1, so that nodata never bleeds. The definitions are GDAL's
(``gdalwarpkernel.cpp``), the order of the operations is fixed for each pixel: no chunking changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

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
            total += w * source[ii, jj]
            weight += w
            complete &= there
    return total, weight, complete


def _weigh_axes(
    source: Array,
    known: Floats,
    across: list[tuple[npt.NDArray[np.int64], Floats]],
    down: list[tuple[npt.NDArray[np.int64], Floats]],
) -> tuple[Array, Floats, Bools]:
    """Do the same for separable axes: first along rows, then down, one tap after the other."""
    rows, cols = source.shape
    width, height = len(across[0][0]), len(down[0][0])
    total = np.zeros((rows, width), dtype=source.dtype)
    weight, count = np.zeros((rows, width)), np.zeros((rows, width))
    for j, wx in across:
        jj = np.clip(j, 0, cols - 1)
        inside = ((j >= 0) & (j < cols)).astype(np.float64)
        total += source[:, jj] * (wx * inside)
        weight += known[:, jj] * (wx * inside)
        count += known[:, jj] * inside
    out = np.zeros((height, width), dtype=source.dtype)
    share, seen = np.zeros((height, width)), np.zeros((height, width))
    for i, wy in down:
        ii = np.clip(i, 0, rows - 1)
        inside = ((i >= 0) & (i < rows)).astype(np.float64)
        out += total[ii] * (wy * inside)[:, None]
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
        out = np.zeros(samples.x.shape, dtype=source.dtype)
        share = np.zeros(samples.x.shape)
        rows, cols = values.shape
        for i, wy in _overlaps(samples.y0, samples.y1, samples.top):
            ii, in_y = np.clip(i, 0, rows - 1), (i >= 0) & (i < rows)
            for j, wx in _overlaps(samples.x0, samples.x1, samples.left):
                jj = np.clip(j, 0, cols - 1)
                w = np.where(in_y & (j >= 0) & (j < cols), wy * wx, 0.0)
                out += w * source[ii, jj]
                share += w * known[ii, jj]
    good = share > 1e-10
    return np.where(good, out / np.where(good, share, 1.0), 0.0), good & _inside(
        samples, values.shape
    )


def _overlaps(low: Floats, high: Floats, corner: int) -> list[tuple[npt.NDArray[np.int64], Floats]]:
    """Return for every pixel that a box may touch along one axis its index and the length of the overlap."""
    first = np.floor(low + _EPSILON).astype(np.int64)
    count = int((np.ceil(high - _EPSILON).astype(np.int64) - first).max(initial=1))
    out = []
    for k in range(count):
        index = first + k
        length = np.minimum(high, index + 1.0) - np.maximum(low, index.astype(np.float64))
        out.append((index - corner, np.maximum(0.0, length)))
    return out


_QUANTILES = {"q1": 0.25, "med": 0.5, "q3": 0.75}


def _boxes(values: Array, valid: Bools, samples: Samples, method: str) -> tuple[Array, Bools]:
    """Statistics that need all pixels of a box at once, a few output rows at a time."""
    height, width = samples.x.shape
    out = np.zeros((height, width), dtype=values.dtype)
    good = np.zeros((height, width), dtype=bool)
    rows = max(1, 2**22 // max(1, width * _box_size(samples)))
    for top in range(0, height, rows):
        part = slice(top, min(height, top + rows))
        stack, known = _stack(values, valid, samples, part)
        out[part] = _STATISTICS[method](stack, known)
        good[part] = known.any(axis=0)
    return out, good & _inside(samples, values.shape)


def _box_size(samples: Samples) -> int:
    wide = np.ceil(samples.x1 - _EPSILON) - np.floor(samples.x0 + _EPSILON)
    high = np.ceil(samples.y1 - _EPSILON) - np.floor(samples.y0 + _EPSILON)
    return int(max(1.0, wide.max(initial=1.0)) * max(1.0, high.max(initial=1.0)))


def _stack(values: Array, valid: Bools, samples: Samples, part: slice) -> tuple[Array, Bools]:
    """Return the pixels of every box along a first axis, in order of rows and columns, and which of them count."""
    rows, cols = values.shape
    layers, flags = [], []
    for i, wy in _overlaps(samples.y0[part], samples.y1[part], samples.top):
        ii, in_y = np.clip(i, 0, rows - 1), (i >= 0) & (i < rows) & (wy > 0)
        for j, wx in _overlaps(samples.x0[part], samples.x1[part], samples.left):
            jj = np.clip(j, 0, cols - 1)
            layers.append(values[ii, jj])
            flags.append(in_y & (j >= 0) & (j < cols) & (wx > 0) & valid[ii, jj])
    return np.stack(layers), np.stack(flags)


def _sorted(stack: Array, known: Bools) -> tuple[Array, npt.NDArray[np.int64]]:
    top = np.inf if stack.dtype.kind == "f" else np.iinfo(stack.dtype).max
    return np.sort(np.where(known, stack, top), axis=0), known.sum(axis=0)


def _minimum(stack: Array, known: Bools) -> Array:
    least: Array = _sorted(stack, known)[0][0]
    return least


def _maximum(stack: Array, known: Bools) -> Array:
    return _rank(stack, known, 1.0)


def _rank(stack: Array, known: Bools, quantile: float) -> Array:
    """Return the value at rank ``ceil(quantile * n)`` of n, counted from 1."""
    ordered, count = _sorted(stack, known)
    rank = np.maximum(0, np.ceil(quantile * count).astype(np.int64) - 1)
    found: Array = np.take_along_axis(ordered, rank[None], axis=0)[0]
    return found


def _mode(stack: Array, known: Bools) -> Array:
    """Return the most frequent value; among equals the smallest."""
    ordered, count = _sorted(stack, known)
    best, most = ordered[0].copy(), np.zeros(count.shape, dtype=np.int64)
    run = np.zeros(count.shape, dtype=np.int64)
    for k in range(len(ordered)):
        same = (ordered[k] == ordered[k - 1]) if k else np.zeros(count.shape, dtype=bool)
        run = np.where(same, run + 1, 1)
        better = (run > most) & (k < count)
        np.copyto(best, ordered[k], where=better)
        np.copyto(most, run, where=better)
    result: Array = best
    return result


_STATISTICS: dict[str, Callable[[Array, Bools], Array]] = {
    "min": _minimum,
    "max": _maximum,
    "mode": _mode,
    **{name: partial(_rank, quantile=q) for name, q in _QUANTILES.items()},
}
