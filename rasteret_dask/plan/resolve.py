"""What exactly a window of a chunk needs from one source: the last step before bytes, shared by reading and explaining."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.grid.kernels import POINT, Samples
from rasteret_dask.grid.tiles import Piece, Window, pieces
from rasteret_dask.grid.warp import AxisMap, CrsMap, axis_indices, nearest_index
from rasteret_dask.plan.chunks import method_halo
from rasteret_dask.plan.sources import Ints, SourceRead

_NONE = np.zeros(0, dtype=np.int64)

_NOWHERE = -1e6
"""A coordinate outside of every source."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """Where the pixels of an output window come from.

    Parameters
    ----------
    target : tuple of int
        Window of the output grid that this source fills or may fill.
    pixels : tuple of int
        Window of source pixels that is read.
    rows, cols : ndarray of int64
        Source indices relative to ``pixels``: 1-D for an :class:`AxisMap` (one an output row, one an output column), 2-D for a
        :class:`CrsMap`.
    inside : ndarray of bool, optional
        For a :class:`CrsMap`: which output pixels fall into the source at all. None: all of them.
    tiles : ndarray of bool, optional
        For a :class:`CrsMap`: which tiles of ``pixels`` are touched, row by row. None: all of them.
    direct : bool
        The window is a plain copy of source pixels.
    samples : Samples, optional
        For a resampling method other than nearest, instead of ``rows`` and ``cols``.
    """

    target: Window
    pixels: Window
    rows: Ints
    cols: Ints
    inside: npt.NDArray[np.bool_] | None = None
    tiles: npt.NDArray[np.bool_] | None = None
    direct: bool = False
    samples: Samples | None = None


@dataclass(slots=True, eq=False)
class Coordinates:
    """What sources share within one task: dates of a place lie alike, and to work it out across two CRSs takes as long as decoding a tile.

    Parameters
    ----------
    planes : dict
        Source columns and rows of a window's pixels, by map and window.
    found : dict
        What a source of some size and tiling needs, by all that decides it.
    """

    planes: dict[tuple[CrsMap, Window], tuple[Floats, Floats]] = field(default_factory=dict)
    found: dict[tuple[Any, ...], Resolved | None] = field(default_factory=dict)


def resolve(
    source: SourceRead, window: Window, cache: Coordinates | None = None, method: str = "nearest"
) -> Resolved | None:
    """Work out which source pixels an output window takes.

    Parameters
    ----------
    source : SourceRead
    window : tuple of int
        ``(row0, row1, col0, col1)`` of the output grid.
    cache : Coordinates, optional
        Shared between sources.
    method : str
        Of resampling.

    Returns
    -------
    Resolved or None
        None when nothing of the window falls into the source.
    """
    w = source.window
    window = (
        max(window[0], w[0]),
        min(window[1], w[1]),
        max(window[2], w[2]),
        min(window[3], w[3]),
    )
    if window[0] >= window[1] or window[2] >= window[3]:
        return None
    cache = Coordinates() if cache is None else cache
    tile = (source.layout.height, source.layout.width)
    key = (source.map, window, source.height, source.width, tile, method)
    if key not in cache.found:
        cache.found[key] = _resolved(source, window, cache, method)
    return cache.found[key]


def _resolved(
    source: SourceRead, window: Window, cache: Coordinates, method: str
) -> Resolved | None:
    if isinstance(source.map, AxisMap):
        found = _axes(source, source.map, window)
        if found is None or method == "nearest" or found.direct:
            return found
        return _sampled_axes(source, source.map, found, method)
    if method == "nearest":
        return _warped(source, source.map, window, cache)
    return _sampled_plane(source, source.map, window, cache, method)


def _axes(source: SourceRead, mapped: AxisMap, window: Window) -> Resolved | None:
    rows = axis_indices(window[0], window[1], mapped.y_scale, mapped.y_shift)
    cols = axis_indices(window[2], window[3], mapped.x_scale, mapped.x_shift)
    in_rows = np.flatnonzero((rows >= 0) & (rows < source.height))
    in_cols = np.flatnonzero((cols >= 0) & (cols < source.width))
    if not len(in_rows) or not len(in_cols):
        return None
    # The maps are monotonous, so what falls inside is one run.
    rows = rows[in_rows[0] : in_rows[-1] + 1]
    cols = cols[in_cols[0] : in_cols[-1] + 1]
    top, left = window[0] + int(in_rows[0]), window[2] + int(in_cols[0])
    pixels = (int(rows.min()), int(rows.max()) + 1, int(cols.min()), int(cols.max()) + 1)
    target = (top, top + len(rows), left, left + len(cols))
    return Resolved(target, pixels, rows - pixels[0], cols - pixels[2], direct=mapped.is_shift)


def _grown(pixels: Window, halo: tuple[int, int], source: SourceRead) -> Window:
    """Return a window of source pixels with a halo, within the source."""
    return (
        max(0, pixels[0] - halo[0]),
        min(source.height, pixels[1] + halo[0]),
        max(0, pixels[2] - halo[1]),
        min(source.width, pixels[3] + halo[1]),
    )


def _sampled_axes(source: SourceRead, mapped: AxisMap, found: Resolved, method: str) -> Resolved:
    r0, r1, c0, c1 = found.target
    pixels = _grown(found.pixels, method_halo(mapped, method), source)
    rows, cols = np.arange(r0, r1, dtype=np.float64), np.arange(c0, c1, dtype=np.float64)
    ys = [mapped.y_scale * (rows + part) + mapped.y_shift for part in (0.5, 0.0, 1.0)]
    xs = [mapped.x_scale * (cols + part) + mapped.x_shift for part in (0.5, 0.0, 1.0)]
    # The rows of a south-up source run against the output's, so a box's upper edge has the higher row.
    y0, y1 = np.minimum(ys[1], ys[2]), np.maximum(ys[1], ys[2])
    x0, x1 = np.minimum(xs[1], xs[2]), np.maximum(xs[1], xs[2])
    flips = (mapped.x_scale < 0, mapped.y_scale < 0)
    samples = Samples(xs[0], ys[0], x0, x1, y0, y1, pixels[2], pixels[0], flips)
    return Resolved(found.target, pixels, _NONE, _NONE, samples=samples)


def _sampled_plane(
    source: SourceRead, mapped: CrsMap, window: Window, cache: Coordinates, method: str
) -> Resolved | None:
    nearest = _warped(source, mapped, window, cache)
    if nearest is None:
        return None
    pixels = _grown(nearest.pixels, method_halo(mapped, method), source)
    x, y = cache.planes[(mapped, window)]
    if method in POINT:
        # Where PROJ has no answer a coordinate outside the source says so.
        x, y = (np.nan_to_num(v, nan=_NOWHERE) for v in (x, y))
        samples = Samples(x, y, x, x, y, y, left=pixels[2], top=pixels[0])
        return Resolved(window, pixels, _NONE, _NONE, samples=samples)
    samples = _boxed(mapped, window, x, y)
    under = _under(samples, source)
    if under is None:
        return None
    samples = replace(samples, left=under[2], top=under[0])
    return Resolved(window, under, _NONE, _NONE, samples=samples)


def _boxed(mapped: CrsMap, window: Window, x: Floats, y: Floats) -> Samples:
    """Return the boxes of source pixels under output pixels, whose centres have the images ``x`` and ``y``.

    As in GDAL a box lies between the images of a pixel's upper left and lower right corner. Between grids that are turned against each
    other it has hardly a width: one of half the width of all four corners' hull, around the centre, has the pixel's own area at 45 degrees.
    """
    r0, r1, c0, c1 = window
    u, v = mapped.coordinates((r0, r1 + 1, c0, c1 + 1), 0.0)
    low, high = slice(None, -1), slice(1, None)
    places = ((low, low), (high, high), (low, high), (high, low))
    corners = [mapped.beside(u[at], v[at], x, y) for at in places]
    edges: list[Floats] = []
    lost = np.isnan(x)
    for axis, centre in enumerate((x, y)):
        first, last, *others = (corner[axis] for corner in corners)
        # The centre besides: around a pole all corners may lie in one row.
        start = np.minimum.reduce([first, last, centre])
        stop = np.maximum.reduce([first, last, centre])
        hull = np.maximum.reduce([stop, *others]) - np.minimum.reduce([start, *others])
        if mapped.middle is None:
            # At a seam a pixel's corners may lie at two ends of the world: there it has no box, or no more than GDAL's.
            most = 8.0 * mapped.ratio[axis] + 16.0
            lost |= stop - start > most
            hull = np.where(hull > most, 0.0, hull)
        lost |= np.isnan(start)
        thin = stop - start < hull / 2.0
        edges += [
            np.where(thin, centre - hull / 4.0, start),
            np.where(thin, centre + hull / 4.0, stop),
        ]
    x, y, x0, x1, y0, y1 = (np.where(lost, _NOWHERE, k) for k in (x, y, *edges))
    return Samples(x, y, x0, x1, y0, y1)


def _under(samples: Samples, source: SourceRead) -> Window | None:
    """Return a window of source pixels that holds all under the boxes of those output pixels whose centres lie in the source, if any do.

    How many those are differs from place to place, so no one ratio says it: on Mercator twice as many at the equator as at 60 degrees.
    """
    x, y = samples.x, samples.y
    inside = (x > -1) & (x < source.width + 1) & (y > -1) & (y < source.height + 1)
    if not inside.any():
        return None
    low = math.floor(float(samples.y0[inside].min())), math.floor(float(samples.x0[inside].min()))
    high = math.ceil(float(samples.y1[inside].max())), math.ceil(float(samples.x1[inside].max()))
    return (
        max(0, low[0] - 1),
        min(source.height, high[0] + 1),
        max(0, low[1] - 1),
        min(source.width, high[1] + 1),
    )


def _warped(
    source: SourceRead, mapped: CrsMap, window: Window, cache: Coordinates
) -> Resolved | None:
    key = (mapped, window)
    if key not in cache.planes:
        cache.planes[key] = mapped.coordinates(window)
    x, y = cache.planes[key]
    finite = np.isfinite(x)
    if not finite.all():
        x, y = np.where(finite, x, -1.0), np.where(finite, y, -1.0)
    cols, rows = nearest_index(x), nearest_index(y)
    inside = (rows >= 0) & (rows < source.height) & (cols >= 0) & (cols < source.width)
    if not inside.any():
        return None
    if inside.all():
        r, c = rows, cols
    else:
        r, c = rows[inside], cols[inside]
    pixels = (int(r.min()), int(r.max()) + 1, int(c.min()), int(c.max()) + 1)
    tiles = _touched(source, pixels, r, c)
    np.clip(rows - pixels[0], 0, pixels[1] - pixels[0] - 1, out=rows)
    np.clip(cols - pixels[2], 0, pixels[3] - pixels[2] - 1, out=cols)
    return Resolved(window, pixels, rows, cols, None if inside.all() else inside, tiles)


def _touched(
    source: SourceRead, pixels: Window, rows: Ints, cols: Ints
) -> npt.NDArray[np.bool_] | None:
    # A window turned against the tiles leaves some at its corners untouched; they are not fetched.
    th, tw = source.layout.height, source.layout.width
    r0, c0 = pixels[0] // th, pixels[2] // tw
    shape = ((pixels[1] - 1) // th - r0 + 1, (pixels[3] - 1) // tw - c0 + 1)
    if shape[0] == 1 or shape[1] == 1:
        return None
    touched = np.zeros(shape, dtype=bool)
    touched[rows // th - r0, cols // tw - c0] = True
    return touched


def needed_pieces(source: SourceRead, resolved: Resolved) -> list[Piece]:
    """Return the pieces of tiles to read, row by row."""
    layout = source.layout
    found = pieces(resolved.pixels, layout.height, layout.width)
    if resolved.tiles is None:
        return found
    return [piece for piece, hit in zip(found, resolved.tiles.ravel().tolist()) if hit]


def inner_needs(source: SourceRead, resolved: Resolved) -> list[Piece]:
    """Return the pieces of a source's internal mask, whose tiles need not be cut as the image's are."""
    inner = source.inner
    if inner is None:
        return []
    layout = inner.layout
    if (layout.height, layout.width) == (source.layout.height, source.layout.width):
        return needed_pieces(source, resolved)
    return pieces(resolved.pixels, layout.height, layout.width)


def mask_window(source: SourceRead, resolved: Resolved) -> Resolved | None:
    """Return what the source's mask band must give for the source pixels that are read (nearest, always)."""
    if source.mask is None:
        return None
    mask = source.mask
    assert isinstance(mask.map, AxisMap)
    found = _axes(mask, mask.map, resolved.pixels)
    if found is None or mask.radius == (0.0, 0.0):
        return found
    # What lies just beyond the window may be dilated into it.
    down, across = (math.ceil(r) for r in mask.radius)
    pixels = _grown(found.pixels, (down, across), mask)
    rows = found.rows + (found.pixels[0] - pixels[0])
    cols = found.cols + (found.pixels[2] - pixels[2])
    return Resolved(found.target, pixels, rows, cols)
