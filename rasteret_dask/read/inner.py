"""What a file itself says of which pixels hold anything, beside nodata: its internal mask, or its alpha band."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rasteret_dask.errors import GridError
from rasteret_dask.index.sources import has_masks
from rasteret_dask.plan.levels import pick_sources
from rasteret_dask.plan.sources import Ints
from rasteret_dask.plan.table import RawSources
from rasteret_dask.read.gather import Items, raw_sources
from rasteret_dask.read.request import CubeRequest
from rasteret_dask.tiff.model import TileLayout

ALPHA = (1, 2)
"""Values of the ExtraSamples tag: associated and unassociated alpha."""


def inner_masks(
    items: Items, band: str, raw: RawSources, request: CubeRequest
) -> RawSources | None:
    """Return the masks that lie in the files of a band's sources, at the levels that are read.

    An internal mask comes before an alpha band, as in GDAL. Where either is 0 there is nothing.

    Returns
    -------
    RawSources or None
        Of those sources that have one; pixel for pixel on the grid of the source. None when no file has any.

    Raises
    ------
    GridError
        If a file has an internal mask, but none of the overview that would be read.
    """
    if not has_masks(items.table, band) and not (_alpha_samples(raw) >= 0).any():
        return None
    own = {
        level: raw_sources(items, band, request, level=level, inner=True)
        for level in sorted({0, *np.unique(raw.levels).tolist()})
    }
    places = {level: {item: k for k, item in enumerate(o.items)} for level, o in own.items()}
    alphas = _alpha_samples(raw)
    seen = replace(raw, samples=alphas, nodata=(None,) * len(raw))
    picks = []
    for k, item in enumerate(raw.items):
        level = int(raw.levels[k])
        if item in places[level]:
            picks.append((own[level], places[level][item]))
        elif item in places[0]:
            raise GridError(
                f"the file has an internal mask, but its overview {level} has none",
                item=item,
                band=band,
                url=raw.urls[k],
                hint="give overviews='off'",
            )
        elif alphas[k] >= 0:
            picks.append((seen, k))
    return pick_sources(picks) if picks else None


def _alpha_samples(raw: RawSources) -> Ints:
    """Return which sample of each source is its alpha band; -1 where there is none, or where that is what is read.

    Files whose bands lie in planes of their own have theirs stored as a mask when they are indexed.
    """
    found = np.array([_alpha(layout) for layout in raw.layouts], dtype=np.int64)[raw.layout_ids]
    found[found == raw.samples] = -1
    return found


def _alpha(layout: TileLayout) -> int:
    first = layout.samples - len(layout.extra_samples)
    if first < 0:
        return -1
    return next((first + k for k, v in enumerate(layout.extra_samples) if v in ALPHA), -1)
