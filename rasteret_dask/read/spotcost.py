"""What values under points cost, before any is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rasteret_dask.grid.given import Points
from rasteret_dask.plan.coalesce import coalesce
from rasteret_dask.plan.costs import BandCost
from rasteret_dask.plan.enough import enough
from rasteret_dask.read.gather import items_by_id, raw_sources
from rasteret_dask.read.inner import inner_masks
from rasteret_dask.read.near import near, places_of_points
from rasteret_dask.read.request import CubeRequest
from rasteret_dask.read.spots import Order, mask_order, plan_points


def orders_of(table: pa.Table, request: CubeRequest, points: Points) -> list[Order]:
    """Which pixels of which sources `sample_points` would read, of every item that a point lies on.

    Parameters
    ----------
    table : pyarrow.Table
        Rows of a collection, as for `sample_points`.
    request : CubeRequest
    points : Points
    """
    items = items_by_id(table, request)
    raws = [(asked, raw_sources(items, band, request)) for asked, band in request.bands]
    inners = [
        inner_masks(items, band, raw, request)
        for (_, band), (_, raw) in zip(request.bands, raws, strict=True)
    ]
    found = near(table, places_of_points(points))
    return plan_points(raws, points, latest=False, inners=inners, near=found)


def cost_of(orders: Sequence[Order]) -> BandCost:
    """Requests and bytes of orders that one process reads together, masks in the files included; a
    tile counts once."""
    ranges: dict[str, dict[tuple[int, int], int]] = defaultdict(dict)
    for order in [o for one in orders for o in (one, mask_order(one)) if o is not None]:
        raw, same = order.raw, order.place.same
        across, height = -(-same.width // same.layout.width), same.layout.height
        base = int(raw.tile_ptr[order.k])
        flat = np.array([base + s.row * across + s.col for s in order.spots], dtype=np.int64)
        starts, counts = raw.offsets[flat].astype(np.int64), raw.counts[flat].astype(np.int64)
        last = np.array([s.rows[1] for s in order.spots], dtype=np.int64)
        above = np.array([s.row * height for s in order.spots], dtype=np.int64)
        held = np.minimum(height, same.height - above)
        ends = starts + enough(counts, last, held, same.layout)
        found = ranges[raw.urls[order.k]]
        for start, count, end in zip(starts.tolist(), counts.tolist(), ends.tolist(), strict=True):
            if count:  # sparse tiles are not fetched
                key = (start, start + count)
                found[key] = max(end, found.get(key, 0))
    requests = size = 0
    for found in ranges.values():
        if found:
            both = np.array(sorted(found), dtype=np.int64)
            asked = np.array([found[a, b] for a, b in both.tolist()], dtype=np.int64)
            merged = coalesce(both[:, 0], both[:, 1], asked)
            requests += len(merged)
            size += sum(one.stop - one.start for one in merged)
    return BandCost(requests=requests, bytes=size, tiles=sum(map(len, ranges.values())))
