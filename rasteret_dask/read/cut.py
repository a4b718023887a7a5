"""Which window of which item each geometry wants, on the item's own grid: worked out for all geometries of a grid at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
import shapely.affinity
from affine import Affine

from rasteret_dask.errors import EmptySelectionError, GridError
from rasteret_dask.grid.aoi import Areas
from rasteret_dask.grid.geobox import (
    TOLERANCE,
    Bounds,
    Grid,
    is_geographic,
    period,
    transform_bounds,
)
from rasteret_dask.grid.shapes import pixel_shapes
from rasteret_dask.grid.tiles import Window, tile_rect
from rasteret_dask.plan.layout import TILES
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.plan.table import RawSources, SameGrid, by_grid, own_read
from rasteret_dask.read.near import Near
from rasteret_dask.read.values import STORED, Meaning

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """One geometry on one item.

    Parameters
    ----------
    area : int
        Number of the geometry.
    item : int
        Row of the item.
    reads : tuple of SourceRead
        One for each band.
    meanings : tuple of Meaning
        What becomes of each band's numbers.
    window : tuple of int
        Pixels of the item, the same for every band.
    crs : str
        Of the item.
    transform : Affine
        Of the window.
    shapes : bytes, optional
        The polygon in pixels of the item, to mask with.
    inner : tuple of SourceRead or None
        What each band's own file says of which pixels hold anything, where it does.
    """

    area: int
    item: int
    reads: tuple[SourceRead, ...]
    meanings: tuple[Meaning, ...]
    window: Window
    crs: str
    transform: Affine
    shapes: bytes | None = None
    inner: tuple[SourceRead | None, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        r0, r1, c0, c1 = self.window
        return r1 - r0, c1 - c0

    @property
    def tiles(self) -> int:
        """Tiles of all bands, and of their files' own masks."""
        return sum(len(read.offsets) for read in (*self.reads, *filter(None, self.inner)))


def plan_chips(
    raws: Sequence[RawSources],
    areas: Areas | None,
    bounds: Bounds | None,
    crs: str,
    meanings: Sequence[Meaning] = (),
    inners: Sequence[RawSources | None] = (),
    near: Near | None = None,
) -> list[Chip]:
    """Plan one chip for each geometry and each item that it meets and that has every band; there may be none.

    Parameters
    ----------
    raws : sequence of RawSources
        One for each band; their steps are the rows of the items, by time.
    areas : Areas, optional
        Geometries that mask; their order is that of the chips, items by time within.
    bounds : tuple of float, optional
        When there are no ``areas``: a box that crops only. None takes whole items.
    crs : str
        Of ``bounds``.
    meanings : sequence of Meaning
        What becomes of the numbers of each band; they stay as they are stored by default.
    inners : sequence of RawSources or None
        The masks in the files of each band, as `inner_masks` finds them.
    near : Near, optional
        Which geometries the items' boxes meet; all of them by default.

    Raises
    ------
    GridError
        If an item's grid is rotated, or its bands differ in resolution.
    """
    meant = tuple(meanings) or (STORED,) * len(raws)
    rows = [_by_item(raw) for raw in raws]
    inside = [_by_item(raw) for raw in inners]
    moved: dict[str, tuple[npt.NDArray[np.object_] | None, npt.NDArray[np.float64]]] = {}
    chips = []
    for same in by_grid(raws[0]):
        items = [int(raws[0].steps[k]) for k in same.members]
        items = [item for item in items if all(item in known for known in rows)]
        met = [None if near is None else near.meets(item) for item in items]
        found = [(item, m) for item, m in zip(items, met) if m is None or m.any()]
        if not found:
            continue
        _check_grid(same, raws, rows, [item for item, _ in found])
        if same.crs not in moved:
            moved[same.crs] = _move(areas, bounds, crs, same.crs)
        for number, window, shapes in _places(*moved[same.crs], same):
            for item, m in found:
                if m is not None and not m[number]:
                    continue
                reads = tuple(_read(raw, known[item], window) for raw, known in zip(raws, rows))
                a, b, c, d, e, f = same.affine
                corner = Affine(a, b, c + a * window[2], d, e, f + e * window[0])
                own = tuple(
                    None if raw is None or item not in known else _read(raw, known[item], window)
                    for raw, known in zip(inners, inside)
                )
                chips.append(
                    Chip(number, item, reads, meant, window, same.crs, corner, shapes, own)
                )
    return sorted(chips, key=lambda chip: (chip.area, chip.item))


def check_any(chips: Sequence[Chip]) -> None:
    """Refuse to read nothing.

    Raises
    ------
    EmptySelectionError
    """
    if not chips:
        raise EmptySelectionError("the geometries meet none of the items")


def _by_item(raw: RawSources | None) -> dict[int, int]:
    """Number of each item's source."""
    return {} if raw is None else {int(step): k for k, step in enumerate(raw.steps.tolist())}


def _check_grid(
    same: SameGrid,
    raws: Sequence[RawSources],
    rows: Sequence[dict[int, int]],
    items: Sequence[int],
) -> None:
    a, b, _, d, _, _ = same.affine
    if b or d:
        k = rows[0][items[0]]
        raise GridError(
            "the item's grid is rotated", item=raws[0].items[k], hint="use open_tiff, or a cube"
        )
    for raw, known in zip(raws[1:], rows[1:]):
        ks = np.array([known[item] for item in items])
        fits = np.isclose(raw.affines[ks], same.affine, rtol=0, atol=1e-6 * abs(a)).all(axis=1)
        fits &= (raw.sizes[ks] == (same.height, same.width)).all(axis=1)
        if not fits.all():
            raise GridError(
                "the bands of an item differ in resolution or extent",
                item=raw.items[int(ks[~fits][0])],
                hint="read them one by one, with get_gdf(per='band'), or give get_numpy a resolution=",
            )


def _move(
    areas: Areas | None, bounds: Bounds | None, crs: str, target: str
) -> tuple[npt.NDArray[np.object_] | None, npt.NDArray[np.float64]]:
    """Return the geometries in another CRS, each in one piece, and their boxes there; infinite boxes for whole items."""
    if areas is None:
        box = (-np.inf, -np.inf, np.inf, np.inf)
        if bounds is not None:
            box = transform_bounds(bounds, crs, target)
        return None, np.array([box])
    whole = period(target)
    geometries = np.empty(len(areas.geometries), dtype=object)
    if whole is None or is_geographic(areas.crs):
        wide = np.diff(shapely.bounds(areas.geometries)[:, ::2]).ravel() > 180.0
        # In degrees a part ends where GeoJSON cut it; other wide geometries mean what they say.
        each = [Areas((g,), areas.crs, areas.boxes) for g in areas.geometries]
        joined = [a.joined() if w else a for a, w in zip(each, wide)]
        geometries[:] = [a.to_crs(target).geometries[0] for a in joined]
    else:
        geometries[:] = [_mended(g, whole) for g in areas.to_crs(target).geometries]
    return geometries, shapely.bounds(geometries)


def _mended(geometry: shapely.Geometry, whole: float) -> shapely.Geometry:
    """Return a geometry whose vertices a projection put at both ends of the world as one that goes on beyond its end."""
    west, _, east, _ = shapely.bounds(geometry)
    if not east - west > whole / 2:
        return geometry
    middle = (west + east) / 2

    def turn(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.column_stack([np.where(xy[:, 0] < middle, xy[:, 0] + whole, xy[:, 0]), xy[:, 1]])

    turned = shapely.transform(geometry, turn)
    west, _, east, _ = shapely.bounds(turned)
    return turned if east - west < whole / 2 else geometry


def _places(
    geometries: npt.NDArray[np.object_] | None, boxes: npt.NDArray[np.float64], same: SameGrid
) -> Iterator[tuple[int, Window, bytes | None]]:
    """Find each geometry's window on a grid, and its shape in pixels: one for each turn around the world by which the two meet."""
    everything = geometries is None and not np.isfinite(boxes).all()
    whole = None if everything else period(same.crs)
    for turn in (0.0,) if whole is None else (0.0, whole, -whole):
        windows, met = _windows(boxes + np.array([turn, 0.0, turn, 0.0]), same)
        for number in met.tolist():
            shapes = None
            if geometries is not None:
                shapes = _shapes(shapely.affinity.translate(geometries[number], turn), same)
            r0, r1, c0, c1 = windows[number].tolist()
            yield number, (r0, r1, c0, c1), shapes


def _windows(boxes: npt.NDArray[np.float64], same: SameGrid) -> tuple[Ints, Ints]:
    """Return every pixel that each box touches, cut at the item's edge, and which boxes touch any.

    Returns
    -------
    (ndarray of int64, shape (n, 4)), (ndarray of int64)
    """
    a, _, c, _, e, f = same.affine
    edges = []
    for low, high, start, step, size in (
        (boxes[:, 1], boxes[:, 3], f, e, same.height),
        (boxes[:, 0], boxes[:, 2], c, a, same.width),
    ):
        # What lies outside of where a CRS is defined has no finite coordinates, and no pixels.
        pair = np.sort(np.stack([(low - start) / step, (high - start) / step]), axis=0)
        pair = np.where(np.isnan(pair), np.inf, pair).clip(-1, size + 1)
        first = np.floor(pair[0] + TOLERANCE).astype(np.int64)
        last = np.ceil(pair[1] - TOLERANCE).astype(np.int64)
        # A point, or a line along an edge, still touches one pixel.
        edges += [first.clip(0), np.maximum(last, first + 1).clip(max=size)]
    windows = np.stack(edges, axis=1)
    met = (windows[:, 0] < windows[:, 1]) & (windows[:, 2] < windows[:, 3])
    return windows, np.flatnonzero(met)


def _shapes(geometry: shapely.Geometry, same: SameGrid) -> bytes:
    a, _, c, _, e, f = same.affine
    return pixel_shapes((geometry,), Grid(same.crs, c, f, a, -e, same.width, same.height))


def _read(raw: RawSources, k: int, window: Window) -> SourceRead:
    layout = raw.layouts[int(raw.layout_ids[k])]
    return own_read(raw, k, window, tile_rect(window, layout.height, layout.width))


def batches(chips: Sequence[Chip]) -> list[list[int]]:
    """Cut into tasks of enough tiles to hide latency; chips that share a tile share a task, so that none is fetched twice."""
    groups = _sharing(chips)
    order = np.argsort(groups, kind="stable")
    out: list[list[int]] = [[]]
    tiles = 0
    for at, number in enumerate(order.tolist()):
        if tiles >= TILES and groups[number] != groups[order[at - 1]]:
            out.append([])
            tiles = 0
        out[-1].append(number)
        tiles += chips[number].tiles
    return out


def _sharing(chips: Sequence[Chip]) -> Ints:
    """Return a number for each chip, the same for those that a chain of common tiles joins."""
    parent = list(range(len(chips)))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    first: dict[tuple[str, int], int] = {}
    for number, chip in enumerate(chips):
        for read in (*chip.reads, *filter(None, chip.inner)):
            for offset in read.offsets.ravel().tolist():
                parent[root(number)] = root(first.setdefault((read.url, offset), number))
    return np.array([root(k) for k in range(len(chips))], dtype=np.int64)
