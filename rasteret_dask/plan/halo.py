"""From pixels of a source that are missing to the pixels of the output that may have needed them.

The other way round than :mod:`rasteret_dask.plan.resolve`: a hole grows by what a mask is dilated and by what a resampling method looks at.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.grid.kernels import Samples
from rasteret_dask.grid.tiles import Window
from rasteret_dask.plan.chunks import method_halo
from rasteret_dask.plan.resolve import Resolved
from rasteret_dask.plan.sources import SourceRead

Bools = npt.NDArray[np.bool_]


def unmasked(hole: Window, mask: SourceRead, mask_where: Resolved, where: Resolved) -> Window:
    """Return the source pixels that a hole of their mask leaves undecided.

    Parameters
    ----------
    hole : tuple of int
        Rows and columns of the window of mask pixels that is read.
    mask : SourceRead
        With the radius by which dropped pixels grow.
    mask_where, where : Resolved
        Of the mask and of its source.

    Returns
    -------
    tuple of int
        Rows and columns of the window of source pixels that is read.
    """
    down, across = (math.ceil(r) for r in mask.radius)
    top, left = mask_where.target[0] - where.pixels[0], mask_where.target[2] - where.pixels[2]
    rows = _run((mask_where.rows >= hole[0] - down) & (mask_where.rows < hole[1] + down))
    cols = _run((mask_where.cols >= hole[2] - across) & (mask_where.cols < hole[3] + across))
    return top + rows[0], top + rows[1], left + cols[0], left + cols[1]


def affected(hole: Window, source: SourceRead, where: Resolved, method: str) -> Window:
    """Return a window of the output that surely holds every pixel that looks at a hole.

    Parameters
    ----------
    hole : tuple of int
        Rows and columns of the window of source pixels that is read.
    source : SourceRead
    where : Resolved
    method : str
        Of resampling.

    Returns
    -------
    tuple of int
        Of the output grid; empty when no pixel does.
    """
    top, left = where.target[0], where.target[2]
    if where.direct:
        return top + hole[0], top + hole[1], left + hole[2], left + hole[3]
    if where.samples is not None:
        down, across = method_halo(source.map, method)
        near_rows, near_cols = _near(where.samples, hole, down, across)
    else:
        near_rows = (where.rows >= hole[0]) & (where.rows < hole[1])
        near_cols = (where.cols >= hole[2]) & (where.cols < hole[3])
    if near_rows.ndim == 2:
        both = near_rows & near_cols
        near_rows, near_cols = np.asarray(both.any(axis=1)), np.asarray(both.any(axis=0))
    rows, cols = _run(near_rows), _run(near_cols)
    return top + rows[0], top + rows[1], left + cols[0], left + cols[1]


def _near(samples: Samples, hole: Window, down: int, across: int) -> tuple[Bools, Bools]:
    """Where boxes of output pixels, grown by a method's reach, meet a hole."""
    r0, r1 = hole[0] + samples.top, hole[1] + samples.top
    c0, c1 = hole[2] + samples.left, hole[3] + samples.left
    rows = (samples.y1 + down >= r0) & (samples.y0 - down <= r1)
    cols = (samples.x1 + across >= c0) & (samples.x0 - across <= c1)
    return rows, cols


def _run(flags: npt.NDArray[Any]) -> tuple[int, int]:
    """First and last of what is set, half-open; empty when nothing is."""
    found = np.flatnonzero(flags)
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)
