"""Which overview of each source is read: the coarsest that loses no resolution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.grid.geobox import Grid
from rasteret_dask.grid.warp import CrsMap, least_ratio
from rasteret_dask.plan.table import RawSources, SameGrid, by_grid, footprint

Ints = npt.NDArray[np.int64]

SLACK = 1e-6
"""An overview that is coarser than the output by less than this share is not coarser."""


def wanted_ratios(raw: RawSources, grid: Grid) -> npt.NDArray[np.float64]:
    """Return, for each source, how many of its pixels an output pixel spans along the tighter axis; 0 for one that misses the grid."""
    out = np.zeros(len(raw))
    for same in by_grid(raw):
        out[same.members] = _ratio(same, grid)
    return out


def _ratio(same: SameGrid, grid: Grid) -> float:
    a, b, _, d, e, _ = same.affine
    if same.crs == grid.crs:
        return min(grid.xres / math.hypot(a, d), grid.yres / math.hypot(b, e))
    window = footprint(same, grid)
    if window is None:
        return 0.0
    return least_ratio(CrsMap(grid.crs, same.crs, grid.affine, same.affine, 1), window)


def choose_levels(
    ratios: npt.NDArray[np.float64], widths: Mapping[int, npt.NDArray[np.float64]]
) -> Ints:
    """Return the level of each source.

    Parameters
    ----------
    ratios : ndarray of float64, shape (n,)
        Full-resolution pixels to an output pixel.
    widths : mapping of int to ndarray, shape (n,)
        For each overview the size of its pixels in pixels of full resolution; inf for sources that lack it.
    """
    levels = np.zeros(len(ratios), dtype=np.int64)
    for level in sorted(widths):
        levels[widths[level] <= ratios * (1.0 + SLACK)] = level
    return levels


def mix_levels(raws: Mapping[int, RawSources], levels: Mapping[str, int]) -> RawSources:
    """Return the sources of level 0, each replaced by the level that was chosen for its item.

    Parameters
    ----------
    raws : mapping of int to RawSources
        By level; level 0 has every source.
    levels : mapping of str to int
        By item.
    """
    rows = {level: {item: k for k, item in enumerate(raw.items)} for level, raw in raws.items()}
    return pick_sources([(raws[levels[item]], rows[levels[item]][item]) for item in raws[0].items])


def pick_sources(picks: Sequence[tuple[RawSources, int]]) -> RawSources:
    """Return single sources of one or more collections of them, in the order given."""
    numbering: dict[Any, int] = {}
    ids, pointers, pieces = [], [0], []
    for raw, k in picks:
        layout = raw.layouts[int(raw.layout_ids[k])]
        ids.append(numbering.setdefault(layout, len(numbering)))
        pieces.append((raw, int(raw.tile_ptr[k]), int(raw.tile_ptr[k + 1])))
        pointers.append(pointers[-1] + pieces[-1][2] - pieces[-1][1])

    def rows_of(name: str) -> npt.NDArray[Any]:
        return np.array([getattr(raw, name)[k] for raw, k in picks])

    def values_of(name: str) -> tuple[Any, ...]:
        return tuple(getattr(raw, name)[k] for raw, k in picks)

    return RawSources(
        urls=values_of("urls"),
        etags=values_of("etags"),
        items=values_of("items"),
        crs=values_of("crs"),
        steps=rows_of("steps"),
        affines=rows_of("affines"),
        sizes=rows_of("sizes"),
        layouts=tuple(numbering),
        layout_ids=np.array(ids, dtype=np.int64),
        tile_ptr=np.array(pointers, dtype=np.int64),
        offsets=np.concatenate([raw.offsets[a:b] for raw, a, b in pieces]),
        counts=np.concatenate([raw.counts[a:b] for raw, a, b in pieces]),
        samples=rows_of("samples"),
        nodata=values_of("nodata"),
        scales=rows_of("scales"),
        adds=rows_of("adds"),
        levels=rows_of("levels"),
    )
