"""The mask band of every source, beside the sources."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rasteret_dask.errors import GridError
from rasteret_dask.grid.geobox import metres_per_unit
from rasteret_dask.grid.warp import AxisMap, axis_map
from rasteret_dask.plan.chunks import axis_extent
from rasteret_dask.plan.sources import Ints, SourceTable
from rasteret_dask.plan.table import RawSources, cut_table

Affine6 = tuple[float, float, float, float, float, float]


def mask_table(
    table: SourceTable,
    raw: RawSources,
    masks: RawSources,
    dilate: float = 0.0,
    *,
    optional: bool = False,
) -> SourceTable:
    """Return the masks of a table's sources, row by row.

    Parameters
    ----------
    table : SourceTable
        The band, placed.
    raw : RawSources
        The band, as it was before (for its affines).
    masks : RawSources
        The mask band of the same items.
    dilate : float
        Metres by which what the mask drops is dilated.
    optional : bool
        Items without a mask get a row without tiles.

    Raises
    ------
    GridError
        If an item has no mask band, or it is in another CRS or rotated.
    """
    by_item = {item: k for k, item in enumerate(masks.items)}
    own = {item: k for k, item in enumerate(raw.items)}
    maps: list[AxisMap] = []
    numbers: dict[AxisMap, int] = {}
    kept = np.zeros(len(table), dtype=np.int64)
    map_ids = np.zeros(len(table), dtype=np.int64)
    rects = np.zeros((len(table), 4), dtype=np.int64)
    radii: list[tuple[float, float]] = []
    for k, item in enumerate(table.items):
        m = by_item.get(item)
        if m is None and optional:
            radii.append((0.0, 0.0))
            continue
        if m is None:
            raise GridError(
                "the item has no mask band", item=item, hint="leave it out, or read without mask"
            )
        mapped = _map(raw, own[item], masks, m)
        number = numbers.setdefault(mapped, len(maps))
        if number == len(maps):
            maps.append(mapped)
        kept[k], map_ids[k] = m, number
        radius = _radius(masks, m, dilate) if dilate else (0.0, 0.0)
        radii.append(radius)
        rects[k] = _rect(table, k, mapped, masks, m, radius)
    windows = np.zeros((len(table), 4), dtype=np.int64)
    if not maps:
        maps.append(AxisMap(1.0, 0.0, 1.0, 0.0))
    cut = cut_table(masks, kept, tuple(maps), map_ids, windows, rects)
    return replace(cut, radii=tuple(radii) if dilate else ())


def _radius(masks: RawSources, m: int, dilate: float) -> tuple[float, float]:
    """Return metres as rows and columns of a mask's pixels."""
    a, b, _, d, e, f = masks.affines[m].tolist()
    x, y = math.hypot(a, d), math.hypot(b, e)
    unit = metres_per_unit(masks.crs[m])
    if unit is not None:
        return dilate / (y * unit), dilate / (x * unit)
    # Degrees: of latitude they are as long everywhere, of longitude as at the middle of the file.
    middle = f + e * float(masks.sizes[m, 0]) / 2.0
    degree = math.pi / 180.0 * 6371008.8
    return dilate / (y * degree), dilate / (x * degree * max(0.01, math.cos(math.radians(middle))))


def _map(raw: RawSources, k: int, masks: RawSources, m: int) -> AxisMap:
    band, mask = raw.affines[k].tolist(), masks.affines[m].tolist()
    turned = any(affine[1] or affine[3] for affine in (band, mask))
    if masks.crs[m] != raw.crs[k] or (turned and band != mask):
        raise GridError(
            "the mask band lies on a rotated grid or in another CRS than the band",
            item=raw.items[k],
        )
    if turned:
        return AxisMap(1.0, 0.0, 1.0, 0.0)
    return axis_map(_six(band), _six(mask))


def _six(values: list[float]) -> Affine6:
    a, b, c, d, e, f = values
    return a, b, c, d, e, f


def _rect(
    table: SourceTable,
    k: int,
    mapped: AxisMap,
    masks: RawSources,
    m: int,
    radius: tuple[float, float],
) -> Ints:
    """Return the mask tiles under the source's own tiles, and around them as far as dilation reaches."""
    layout = table.layouts[int(table.layout_ids[k])]
    height, width = table.sizes[k].tolist()
    r0, r1, c0, c1 = table.rects[k].tolist()
    pixels = (
        r0 * layout.height,
        min(height, r1 * layout.height),
        c0 * layout.width,
        min(width, c1 * layout.width),
    )
    down, across = (math.ceil(r) for r in radius)
    e = axis_extent(mapped, pixels)
    e = (e[0] - down, e[1] + down, e[2] - across, e[3] + across)
    tile = masks.layouts[int(masks.layout_ids[m])]
    rows, cols = masks.sizes[m].tolist()
    found = (max(0, e[0]), min(rows, e[1]), max(0, e[2]), min(cols, e[3]))
    if found[0] >= found[1] or found[2] >= found[3]:
        return np.zeros(4, dtype=np.int64)
    return np.array(
        [
            found[0] // tile.height,
            -(-found[1] // tile.height),
            found[2] // tile.width,
            -(-found[3] // tile.width),
        ]
    )
