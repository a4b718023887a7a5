"""Which pixels of which tiles points want: worked out for all points of a grid at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

from rasteret_dask.grid.geobox import is_geographic
from rasteret_dask.grid.given import Points
from rasteret_dask.grid.radiometry import Number
from rasteret_dask.plan.table import RawSources, SameGrid, by_grid
from rasteret_dask.read.near import Near

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ROUNDING = 6
"""Decimals of a pixel that coordinates are rounded to before they are floored."""

EDGE = 1e-7
"""Pixels by which a point on an edge is moved off it: less than what the rounding leaves between two points."""


@dataclass(frozen=True, slots=True, eq=False)
class Spots:
    """Pixels wanted of one tile.

    Parameters
    ----------
    row, col : int
        The tile.
    rows, cols : (int, int)
        Half-open ranges within the tile that hold them all.
    at : ndarray of int64, shape (2, n)
        Row and column of each pixel within those ranges.
    into : ndarray of int64, shape (n,)
        Where each value goes.
    """

    row: int
    col: int
    rows: tuple[int, int]
    cols: tuple[int, int]
    at: Ints
    into: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Which pixels of one source are wanted, before anything is cut out of it.

    Parameters
    ----------
    band : str
        As it was asked for.
    item : int
        Row of the item.
    k : int
        Number of the source among the band's.
    raw : RawSources
    points : ndarray of int64, shape (n,)
        Numbers of the points.
    spots : tuple of Spots
        The same for every source on one grid.
    place : Place
    inner : (RawSources, int), optional
        The masks in the files of the band, and which of them is this source's.
    """

    band: str
    item: int
    k: int
    raw: RawSources
    points: Ints
    spots: tuple[Spots, ...]
    place: Place
    inner: tuple[RawSources, int] | None = None

    @property
    def nodata(self) -> Number:
        """What the source calls nodata."""
        return self.raw.nodata[self.k]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Points on one grid, in its pixels; those outside are left out.

    Parameters
    ----------
    same : SameGrid
    points : ndarray of int64, shape (n,)
        Their numbers.
    x, y : ndarray of float64, shape (n,)
        Column and row with fractions.
    """

    same: SameGrid
    points: Ints
    x: Floats
    y: Floats


def place_points(same: SameGrid, numbers: Ints, x: Floats, y: Floats) -> Place:
    """Put points, in the grid's CRS, onto the grid: pixels are half-open, to the right and down.

    Parameters
    ----------
    same : SameGrid
    numbers : ndarray of int64
        Of the points.
    x, y : ndarray of float64
        Their coordinates; those that the CRS has no place for are infinite.
    """
    a, b, c, d, e, f = same.affine
    if is_geographic(same.crs) and not b:
        # Whole turns, so that 190 degrees finds -170; the rounding keeps the western edge where it is.
        left = min(c, c + a * same.width)
        x = x - np.floor((x - left) / 360.0 + 1e-12) * 360.0
    with np.errstate(invalid="ignore"):
        dx, dy, det = x - c, y - f, a * e - b * d
        u = np.round((e * dx - b * dy) / det, ROUNDING)
        v = np.round((a * dy - d * dx) / det, ROUNDING)
        if not (b or d):
            # Rows and columns that run the other way hold their far edges, so that an edge is still the pixel's to its right and below.
            u -= EDGE if a < 0 else 0.0
            v -= EDGE if e > 0 else 0.0
        inside = np.flatnonzero((u >= 0) & (u < same.width) & (v >= 0) & (v < same.height))
    return Place(same, numbers[inside], u[inside], v[inside])


def cut_spots(
    same: SameGrid, rows: Ints, cols: Ints, into: Ints | None = None
) -> tuple[Spots, ...]:
    """Sort pixels of a grid by tile.

    Parameters
    ----------
    same : SameGrid
    rows, cols : ndarray of int64, shape (n,)
        Pixels within the grid.
    into : ndarray of int64, shape (n,), optional
        Where their values go; 0, 1, 2 … by default.
    """
    if not len(rows):
        return ()
    th, tw = same.layout.height, same.layout.width
    across = -(-same.width // tw)
    tiles = (rows // th) * across + cols // tw
    order = np.argsort(tiles, kind="stable")
    found = tiles[order]
    starts = np.flatnonzero(np.diff(found, prepend=-1))
    edges = np.append(starts, len(order))
    sizes = np.diff(edges)
    places = order if into is None else into[order]
    r, c = rows[order] % th, cols[order] % tw
    r0, r1 = np.minimum.reduceat(r, starts), np.maximum.reduceat(r, starts) + 1
    c0, c1 = np.minimum.reduceat(c, starts), np.maximum.reduceat(c, starts) + 1
    at = np.stack([r - np.repeat(r0, sizes), c - np.repeat(c0, sizes)])
    each = np.stack([found[starts], edges[:-1], edges[1:], r0, r1, c0, c1], axis=1).tolist()
    return tuple(
        Spots(tile // across, tile % across, (y0, y1), (x0, x1), at[:, i:j], places[i:j])
        for tile, i, j, y0, y1, x0, x1 in each
    )


def mask_order(order: Order) -> Order | None:
    """The same pixels of the mask in the file, which may be tiled in another way; None where there is none."""
    if order.inner is None:
        return None
    raw, k = order.inner
    th, tw = order.place.same.layout.height, order.place.same.layout.width
    spots = order.spots
    rows = np.concatenate([s.row * th + s.rows[0] + s.at[0] for s in spots])
    cols = np.concatenate([s.col * tw + s.cols[0] + s.at[1] for s in spots])
    same = replace(order.place.same, layout=raw.layouts[int(raw.layout_ids[k])])
    cut = cut_spots(same, rows, cols, np.concatenate([s.into for s in spots]))
    place = replace(order.place, same=same)
    return Order(order.band, order.item, k, raw, order.points, cut, place)


Part = tuple[Place, Ints]
"""Points on a grid, and those of its sources that all of them are on."""


def plan_points(
    raws: Sequence[tuple[str, RawSources]],
    points: Points,
    *,
    latest: bool,
    inners: Sequence[RawSources | None] = (),
    near: Near | None = None,
) -> list[Order]:
    """Say which pixels of which sources the points want, by item and band.

    A point is on an item when the item's box holds it, which is how the collection is asked for it alone, and it lies on the file's grid.

    Parameters
    ----------
    raws : sequence of (str, RawSources)
        Each band as it was asked for, with its sources; their steps are the numbers of the items, by time.
    points : Points
    latest : bool
        Only the last item that each point lies on, band by band.
    inners : sequence of RawSources or None
        The masks in the files of each band, as `inner_masks` finds them.
    near : Near, optional
        Which points the items' boxes hold; all of them by default.
    """
    numbers = np.arange(len(points), dtype=np.int64)
    moved: dict[str, tuple[Floats, Floats]] = {}
    orders: list[tuple[int, int, Order]] = []
    for position, (band, raw) in enumerate(raws):
        inner = inners[position] if inners else None
        masks = {} if inner is None else {int(s): (inner, k) for k, s in enumerate(inner.steps)}
        parts: list[Part] = []
        for same in by_grid(raw):
            if same.crs not in moved:
                to = Transformer.from_crs(points.crs, same.crs, always_xy=True)
                moved[same.crs] = to.transform(points.x, points.y)
            place = place_points(same, numbers, *moved[same.crs])
            if len(place.points):
                parts += _parts(place, raw, near)
        for place, members in _latest(parts, len(points)) if latest else parts:
            same = place.same
            spots = cut_spots(same, place.y.astype(np.int64), place.x.astype(np.int64))
            for k in members.tolist():
                item = int(raw.steps[k])
                order = Order(band, item, k, raw, place.points, spots, place, masks.get(item))
                orders.append((item, position, order))
    return [order for _, _, order in sorted(orders, key=lambda o: o[:2])]


def _parts(place: Place, raw: RawSources, near: Near | None) -> list[Part]:
    """Cut the sources of a grid into those that the same points are on."""
    members = place.same.members
    if near is None:
        return [(place, members)]
    alike = near.alike(raw.steps[members].tolist(), place.points)
    return [(place if on is None else _only(place, on), members[chosen]) for chosen, on in alike]


def _only(place: Place, on: npt.NDArray[np.bool_]) -> Place:
    return Place(place.same, place.points[on], place.x[on], place.y[on])


def _latest(parts: Sequence[Part], count: int) -> list[Part]:
    """Keep of each part its last source, and of its points those that no later source of another part holds."""
    winner = np.full(count, -1, dtype=np.int64)
    for place, members in parts:
        winner[place.points] = np.maximum(winner[place.points], members.max())
    kept = []
    for place, members in parts:
        last = members.max()
        mine = winner[place.points] == last
        if mine.any():
            kept.append((_only(place, mine), np.array([last], dtype=np.int64)))
    return kept
