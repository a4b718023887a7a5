"""Arrays of sources and one output grid to a :class:`SourceTable`: grouped by grid, never a loop over tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import GridError
from rasteret_dask.grid.geobox import Grid, period, transform_bounds, turns
from rasteret_dask.grid.tiles import TileRect, Window, cut_rect
from rasteret_dask.grid.warp import (
    IDENTITY,
    AxisMap,
    CrsMap,
    axis_indices,
    axis_map,
    choose_step,
    measure_ratio,
)
from rasteret_dask.plan.chunks import Chunks, axis_extent, method_halo
from rasteret_dask.plan.sources import Ints, Number, SourceRead, SourceTable
from rasteret_dask.tiff.model import TileLayout

Affine6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class RawSources:
    """What is known of ``n`` sources before there is an output grid; ordered by time step and rank.

    Parameters
    ----------
    urls, etags, items, crs : tuple, length n
    steps : ndarray of int64, shape (n,)
    affines : ndarray of float64, shape (n, 6)
    sizes : ndarray of int64, shape (n, 2)
        Rows and columns.
    layouts : tuple of TileLayout
    layout_ids : ndarray of int64, shape (n,)
    tile_ptr : ndarray of int64, shape (n + 1,)
    offsets, counts : ndarray of uint64
        All tiles of each source, row by row.
    samples : ndarray of int64, shape (n,)
    nodata : tuple of number or None
    scales, adds : ndarray of float64, shape (n,)
    levels : ndarray of int64, shape (n,)
        Which level of the file each source is, for messages.
    """

    urls: tuple[str, ...]
    etags: tuple[str | None, ...]
    items: tuple[str, ...]
    crs: tuple[str, ...]
    steps: Ints
    affines: npt.NDArray[np.float64]
    sizes: Ints
    layouts: tuple[TileLayout, ...]
    layout_ids: Ints
    tile_ptr: Ints
    offsets: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.uint64]
    samples: Ints
    nodata: tuple[Number, ...]
    scales: npt.NDArray[np.float64]
    adds: npt.NDArray[np.float64]
    levels: Ints

    def __len__(self) -> int:
        return len(self.urls)


def own_read(raw: RawSources, k: int, window: Window, rect: TileRect) -> SourceRead:
    """Cut one source down to some of its tiles, to be read on its own grid.

    Parameters
    ----------
    raw : RawSources
    k : int
        Which source.
    window : tuple of int
        Of its pixels.
    rect : TileRect
        The tiles.
    """
    layout = raw.layouts[int(raw.layout_ids[k])]
    height, width = (int(v) for v in raw.sizes[k])
    flat = cut_rect(int(raw.tile_ptr[k]), -(-width // layout.width), rect)
    return SourceRead(
        url=raw.urls[k],
        etag=raw.etags[k],
        item=raw.items[k],
        step=0,
        window=window,
        height=height,
        width=width,
        map=IDENTITY,
        layout=layout,
        rect=rect,
        offsets=raw.offsets[flat],
        counts=raw.counts[flat],
        sample=int(raw.samples[k]),
        nodata=raw.nodata[k],
        scale=float(raw.scales[k]),
        add=float(raw.adds[k]),
    )


@dataclass(frozen=True, slots=True, eq=False)
class SameGrid:
    """Sources that share CRS, affine, size and tiling."""

    members: Ints
    crs: str
    affine: Affine6
    height: int
    width: int
    layout: TileLayout


def by_grid(raw: RawSources) -> list[SameGrid]:
    """Group sources that share a grid, in the order in which they first appear."""
    codes: dict[str, int] = {}
    crs = np.array([codes.setdefault(c, len(codes)) for c in raw.crs], dtype=np.float64)
    keys = np.column_stack([crs, raw.layout_ids, raw.sizes, raw.affines])
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    groups = []
    for number in np.argsort(first, kind="stable").tolist():
        k = int(first[number])
        a, b, c, d, e, f = raw.affines[k].tolist()
        groups.append(
            SameGrid(
                np.flatnonzero(inverse == number),
                raw.crs[k],
                (a, b, c, d, e, f),
                int(raw.sizes[k, 0]),
                int(raw.sizes[k, 1]),
                raw.layouts[int(raw.layout_ids[k])],
            )
        )
    return groups


def build_table(
    raw: RawSources, grid: Grid, chunks: Chunks, method: str = "nearest"
) -> tuple[SourceTable, dict[int, tuple[int, int, Ints]]]:
    """Place sources on an output grid.

    Parameters
    ----------
    raw : RawSources
    grid : Grid
    chunks : tuple of tuple of int
        Of the cube, along time, y and x.

    Returns
    -------
    SourceTable
        Without the sources that miss the grid, and with those tiles only that the grid touches.
    dict
        For each map between two CRSs the source windows of the chunks (see :class:`~rasteret_dask.plan.chunks.BandPlan`).
    """
    maps: list[AxisMap | CrsMap] = []
    extents: dict[int, tuple[int, int, Ints]] = {}
    # A source may be placed twice: a map of the world in a cube over the antimeridian.
    members: list[Ints] = [np.zeros(0, dtype=np.int64)]
    windows: list[Window] = []
    rects: list[tuple[int, int, int, int]] = []
    for same in by_grid(raw):
        if same.crs == grid.crs and same.affine[1] == 0.0 and same.affine[3] == 0.0:
            for mapped, window, pixels in _axis_places(same, grid, method):
                maps.append(mapped)
                members.append(same.members)
                windows.append(window)
                rects.append(_tiles(pixels, same))
            continue
        placed = _crs_windows(same, grid, chunks, method)
        if placed is not None:
            crs_map, window, pixels, extents[len(maps)] = placed
            maps.append(crs_map)
            members.append(same.members)
            windows.append(window)
            rects.append(_tiles(pixels, same))
    rows = np.concatenate(members)
    order = np.argsort(rows, kind="stable")
    map_ids = np.repeat(np.arange(len(maps)), [len(m) for m in members[1:]])[order]
    kept = rows[order]
    table = cut_table(
        raw,
        kept,
        tuple(maps),
        map_ids,
        np.array(windows, dtype=np.int64).reshape(-1, 4)[map_ids],
        np.array(rects, dtype=np.int64).reshape(-1, 4)[map_ids],
    )
    return table, extents


def _axis_places(
    same: SameGrid, grid: Grid, method: str
) -> Iterator[tuple[AxisMap, Window, Window]]:
    a, b, c, d, e, f = same.affine
    left, right = sorted((c, c + a * same.width))
    for turn in turns(left, right, grid.bounds[0], grid.bounds[2], grid.crs):
        mapped = axis_map(grid.affine, (a, b, c + turn, d, e, f))
        found = _axis_windows(mapped, same, grid, method)
        if found is not None:
            yield mapped, *found


def _axis_windows(
    mapped: AxisMap, same: SameGrid, grid: Grid, method: str
) -> tuple[Window, Window] | None:
    rows = _inside(axis_indices(0, grid.height, mapped.y_scale, mapped.y_shift), same.height)
    cols = _inside(axis_indices(0, grid.width, mapped.x_scale, mapped.x_shift), same.width)
    if rows is None or cols is None:
        return None
    window = (rows[0], rows[1], cols[0], cols[1])
    e = axis_extent(mapped, window, method)
    return window, (max(0, e[0]), min(same.height, e[1]), max(0, e[2]), min(same.width, e[3]))


def _inside(indices: Ints, size: int) -> tuple[int, int] | None:
    hit = np.flatnonzero((indices >= 0) & (indices < size))
    return (int(hit[0]), int(hit[-1]) + 1) if len(hit) else None


def _crs_windows(
    same: SameGrid, grid: Grid, chunks: Chunks, method: str
) -> tuple[CrsMap, Window, Window, tuple[int, int, Ints]] | None:
    window = footprint(same, grid)
    if window is None:
        return None
    middle, turn = None, period(same.crs)
    if turn is not None:
        a, b, c, *_ = same.affine
        middle = c + (a * same.width + b * same.height) / 2.0
    probe = CrsMap(grid.crs, same.crs, grid.affine, same.affine, 1, middle, turn=turn or 360.0)
    mapped = replace(probe, step=choose_step(probe, window), ratio=measure_ratio(probe, window))
    halo = method_halo(mapped, method)
    rows, cols = _edges(chunks[1]), _edges(chunks[2])
    i0, i1 = _touching(rows, window[0], window[1])
    j0, j1 = _touching(cols, window[2], window[3])
    table = np.zeros((i1 - i0, j1 - j0, 4), dtype=np.int64)
    for i in range(i0, i1):
        for j in range(j0, j1):
            part = (
                max(rows[i], window[0]),
                min(rows[i + 1], window[1]),
                max(cols[j], window[2]),
                min(cols[j + 1], window[3]),
            )
            found = mapped.extent(part)
            if found is not None:
                table[i - i0, j - j0] = (
                    max(0, found[0] - halo[0]),
                    min(same.height, found[1] + halo[0]),
                    max(0, found[2] - halo[1]),
                    min(same.width, found[3] + halo[1]),
                )
    full = table[(table[..., 0] < table[..., 1]) & (table[..., 2] < table[..., 3])]
    if not len(full):
        return None
    pixels = (
        int(full[:, 0].min()),
        int(full[:, 1].max()),
        int(full[:, 2].min()),
        int(full[:, 3].max()),
    )
    return mapped, window, pixels, (i0, j0, table)


def footprint(same: SameGrid, grid: Grid) -> Window | None:
    """Return a window of the output grid that surely holds the source: its box, and a hundredth more on each side."""
    a, b, c, d, e, f = same.affine
    xs = [c + a * i * same.width + b * j * same.height for i in (0, 1) for j in (0, 1)]
    ys = [f + d * i * same.width + e * j * same.height for i in (0, 1) for j in (0, 1)]
    around = (min(xs), min(ys), max(xs), max(ys))
    turn = period(same.crs)
    if turn is not None and period(grid.crs) is None and around[2] - around[0] > turn / 4.0:
        # On a plane the edges of a map of the world do not lie around what it shows.
        return (0, grid.height, 0, grid.width)
    try:
        box = transform_bounds(around, same.crs, grid.crs, closely=False)
    except GridError:
        # Half the world has no box on a plane; only the reading tells which pixels it covers.
        return (0, grid.height, 0, grid.width)
    shifts = turns(box[0], box[2], grid.bounds[0], grid.bounds[2], grid.crs)
    if not shifts:
        return None
    left = (box[0] + min(shifts) - grid.left) / grid.xres
    right = (box[2] + max(shifts) - grid.left) / grid.xres
    top, bottom = ((grid.top - v) / grid.yres for v in (box[3], box[1]))
    wide, high = 2 + 0.01 * (right - left), 2 + 0.01 * (bottom - top)
    window = (
        max(0, int(top - high)),
        min(grid.height, int(bottom + high) + 1),
        max(0, int(left - wide)),
        min(grid.width, int(right + wide) + 1),
    )
    return window if window[0] < window[1] and window[2] < window[3] else None


def _edges(sizes: tuple[int, ...]) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()]


def _touching(edges: Sequence[int], low: int, high: int) -> tuple[int, int]:
    first = int(np.searchsorted(edges, low, side="right")) - 1
    last = int(np.searchsorted(edges, high, side="left"))
    return first, last


def _tiles(pixels: Window, same: SameGrid) -> tuple[int, int, int, int]:
    th, tw = same.layout.height, same.layout.width
    return pixels[0] // th, -(-pixels[1] // th), pixels[2] // tw, -(-pixels[3] // tw)


def cut_table(
    raw: RawSources,
    kept: Ints,
    maps: tuple[AxisMap | CrsMap, ...],
    map_ids: Ints,
    windows: Ints,
    rects: Ints,
) -> SourceTable:
    """Keep some sources and of their tiles some rectangles.

    Parameters
    ----------
    raw : RawSources
    kept : ndarray of int64
        Rows of `raw`; one that is placed twice is there twice.
    maps : tuple of AxisMap or CrsMap
    map_ids : ndarray of int64
        Which of them, for each that is kept.
    windows, rects : ndarray of int64, shape (kept, 4)
        Where each lies on the output grid, and its tiles.
    """
    across = np.array(
        [-(-raw.sizes[k, 1] // raw.layouts[raw.layout_ids[k]].width) for k in kept], np.int64
    )
    # Sources that keep the same rectangle of an equally wide tile grid are cut together.
    keys = np.column_stack([rects, across]) if len(kept) else np.zeros((0, 5), np.int64)
    shapes, inverse = np.unique(keys, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    sizes = (rects[:, 1] - rects[:, 0]) * (rects[:, 3] - rects[:, 2])
    pointers = np.zeros(len(kept) + 1, dtype=np.int64)
    np.cumsum(sizes, out=pointers[1:])
    flat = np.empty(int(pointers[-1]), dtype=np.int64)
    for number, (r0, r1, c0, c1, columns) in enumerate(shapes.tolist()):
        members = np.flatnonzero(inverse == number)
        pattern = cut_rect(0, columns, TileRect(r0, r1, c0, c1))
        places = pointers[members][:, None] + np.arange(len(pattern))
        flat[places] = raw.tile_ptr[kept[members]][:, None] + pattern
    counts: npt.NDArray[np.unsignedinteger] = raw.counts[flat]
    if not counts.size or counts.max() < 2**32:
        counts = counts.astype(np.uint32)
    numbers = kept.tolist()
    return SourceTable(
        urls=tuple(raw.urls[k] for k in numbers),
        etags=tuple(raw.etags[k] for k in numbers),
        items=tuple(raw.items[k] for k in numbers),
        steps=raw.steps[kept],
        windows=windows,
        sizes=raw.sizes[kept],
        maps=maps,
        map_ids=map_ids,
        layouts=raw.layouts,
        layout_ids=raw.layout_ids[kept],
        rects=rects,
        tile_ptr=pointers,
        offsets=raw.offsets[flat],
        counts=counts,
        samples=raw.samples[kept],
        nodata=tuple(raw.nodata[k] for k in numbers),
        scales=raw.scales[kept],
        adds=raw.adds[kept],
        levels=raw.levels[kept],
    )
