"""Which level of each file a cube reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from rasteret_dask.errors import GridError
from rasteret_dask.grid.geobox import Grid
from rasteret_dask.plan.levels import choose_levels, mix_levels, wanted_ratios
from rasteret_dask.plan.table import RawSources
from rasteret_dask.read.gather import Items, overview_methods, raw_sources
from rasteret_dask.read.request import CubeRequest


def at_levels(
    items: Items, band: str, full: RawSources, grid: Grid, request: CubeRequest
) -> tuple[RawSources, tuple[int, ...]]:
    """Return a band's sources at the level that the output grid asks for, and which levels those are.

    Class bands are read from overviews only where those were made by nearest or mode, or where the caller names the level.

    Parameters
    ----------
    items : Items
    band : str
        Canonical name.
    full : RawSources
        At full resolution.
    grid : Grid
        Of the output.
    request : CubeRequest

    Raises
    ------
    GridError
        A level was named that some file does not have.
    """
    wanted = request.overviews
    if wanted == "off" or wanted == 0 or not len(full):
        return full, (0,)
    ratios = wanted_ratios(full, grid)
    if wanted == "auto" and not (ratios > 1.0).any():
        return full, (0,)
    raws, sizes = {0: full}, {}
    level = 1
    while len(found := raw_sources(items, band, request, level=level)):
        sizes[level] = _sizes(full, found)
        raws[level] = found
        level += 1
    if wanted == "auto":
        trusted = {
            lv: np.where(_faithful(items, band, full, request), s, np.inf)
            for lv, s in sizes.items()
        }
        chosen = choose_levels(ratios, trusted)
    else:
        chosen = np.full(len(full), int(wanted))
        if wanted not in sizes or not np.isfinite(sizes[wanted]).all():
            raise GridError(
                f"not every file has an overview level {wanted}",
                band=band,
                hint="use overviews='auto'",
            )
    if not chosen.any():
        return full, (0,)
    by_item = dict(zip(full.items, chosen.tolist()))
    return mix_levels(raws, by_item), tuple(sorted(set(chosen.tolist())))


def _sizes(full: RawSources, level: RawSources) -> Any:
    """Return the sizes of a level's pixels in pixels of full resolution; inf where a source lacks the level."""
    own = {item: abs(float(a[0])) + abs(float(a[1])) for item, a in zip(level.items, level.affines)}
    base = np.abs(full.affines[:, 0]) + np.abs(full.affines[:, 1])
    return np.array([own.get(item, np.inf) for item in full.items]) / base


def _faithful(items: Items, band: str, full: RawSources, request: CubeRequest) -> Any:
    """Whether each source's overviews may stand for it."""
    if band not in request.classes:
        return np.ones(len(full), dtype=bool)
    made = overview_methods(items, band, request)
    return np.array([made.get(item) in ("NEAREST", "MODE") for item in full.items])
