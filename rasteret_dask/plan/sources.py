"""All sources of one band of a cube, as a compact table: what travels to the scheduler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rasteret_dask.grid.tiles import TileRect, Window, cut_rect
from rasteret_dask.grid.warp import AxisMap, CrsMap
from rasteret_dask.tiff.model import TileLayout

Ints = npt.NDArray[np.int64]
Number = float | int | None


@dataclass(frozen=True, slots=True, eq=False)
class SourceTable:
    """``n`` sources of one band, ordered by time step and then by rank in the mosaic.

    Parameters
    ----------
    urls, etags, items : tuple of str, length n
        Unsigned URL, version (or None) and item of each source.
    steps : ndarray of int64, shape (n,)
        Time step, not decreasing.
    windows : ndarray of int64, shape (n, 4)
        ``(row0, row1, col0, col1)`` of the output grid that the source may touch, clipped to the grid.
    sizes : ndarray of int64, shape (n, 2)
        Rows and columns of the source.
    maps, map_ids
        The distinct maps from output to source pixels, and which one each source has.
    layouts, layout_ids
        The distinct tile layouts, and which one each source has.
    rects : ndarray of int64, shape (n, 4)
        ``(row0, row1, col0, col1)`` of the tiles that are kept in the table.
    tile_ptr : ndarray of int64, shape (n + 1,)
        Where the tiles of each source begin in ``offsets`` and ``counts``.
    offsets : ndarray of uint64, counts : ndarray of uint32 or uint64
        Byte ranges, each source's rectangle row by row.
    samples : ndarray of int64, shape (n,)
        Which of the samples of a decoded tile is the band.
    nodata : tuple of number or None, length n
        What the source itself calls nodata.
    scales, adds : ndarray of float64, shape (n,)
        Physical value = stored * scale + add.
    levels : ndarray of int64, shape (n,)
        0 for full resolution, 1 for the first overview …
    radii : tuple of (float, float), length n or 0
        Of a mask band: how far what it drops is dilated, in rows and columns of its own pixels.
    """

    urls: tuple[str, ...]
    etags: tuple[str | None, ...]
    items: tuple[str, ...]
    steps: Ints
    windows: Ints
    sizes: Ints
    maps: tuple[AxisMap | CrsMap, ...]
    map_ids: Ints
    layouts: tuple[TileLayout, ...]
    layout_ids: Ints
    rects: Ints
    tile_ptr: Ints
    offsets: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.unsignedinteger]
    samples: Ints
    nodata: tuple[Number, ...]
    scales: npt.NDArray[np.float64]
    adds: npt.NDArray[np.float64]
    levels: Ints
    radii: tuple[tuple[float, float], ...] = ()

    def __len__(self) -> int:
        return len(self.urls)


@dataclass(frozen=True, slots=True, eq=False)
class SourceRead:
    """One source of one chunk: only the tiles that the chunk may need, and the numbers to place them.

    Parameters
    ----------
    url, etag, item
        As in :class:`SourceTable`.
    step : int
        Time step within the chunk.
    window : tuple of int
        ``(row0, row1, col0, col1)`` of the output grid that the source may touch within the chunk.
    height, width : int
        Pixels of the source.
    map : AxisMap or CrsMap
        Output to source pixels.
    layout : TileLayout
    rect : TileRect
        The tiles that ``offsets`` and ``counts`` list, row by row.
    offsets, counts : ndarray
        Byte ranges.
    sample : int
    nodata : number or None
    scale, add : float
    mask : SourceRead, optional
        The same item's mask band; its map leads from *this source's* pixels to the mask's.
    radius : tuple of float
        Of a mask band: how far what it drops is dilated, in rows and columns of its pixels.
    level : int
        Which level of the file it is.
    inner : SourceRead, optional
        The file's own internal mask, pixel for pixel: where it is 0 there is nothing.
    """

    url: str
    etag: str | None
    item: str
    step: int
    window: Window
    height: int
    width: int
    map: AxisMap | CrsMap
    layout: TileLayout
    rect: TileRect
    offsets: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.unsignedinteger]
    sample: int
    nodata: Number
    scale: float
    add: float
    mask: SourceRead | None = None
    radius: tuple[float, float] = (0.0, 0.0)
    level: int = 0
    inner: SourceRead | None = None

    def tile(self, row: int, col: int) -> tuple[int, int]:
        """Return offset and count of one tile."""
        k = (row - self.rect.row0) * self.rect.cols + col - self.rect.col0
        return int(self.offsets[k]), int(self.counts[k])


def source_read(
    table: SourceTable,
    k: int,
    *,
    step: int,
    window: Window,
    pixels: Window,
    mask: SourceRead | None = None,
) -> SourceRead | None:
    """Cut one source down to the tiles that a window of its own pixels touches.

    Parameters
    ----------
    table : SourceTable
    k : int
        Number of the source.
    step : int
        Time step within the chunk.
    window : tuple of int
        Of the output grid.
    pixels : tuple of int
        Window of source pixels that surely holds what is needed; it may overhang the source.
    mask : SourceRead, optional

    Returns
    -------
    SourceRead or None
        None when the window lies outside the source.
    """
    height, width = int(table.sizes[k, 0]), int(table.sizes[k, 1])
    layout = table.layouts[int(table.layout_ids[k])]
    r0, r1 = max(0, pixels[0]), min(height, pixels[1])
    c0, c1 = max(0, pixels[2]), min(width, pixels[3])
    if r0 >= r1 or c0 >= c1:
        return None
    kr0, kr1, kc0, kc1 = table.rects[k].tolist()
    rect = TileRect(
        max(kr0, r0 // layout.height),
        min(kr1, -(-r1 // layout.height)),
        max(kc0, c0 // layout.width),
        min(kc1, -(-c1 // layout.width)),
    )
    if not rect.rows or not rect.cols:
        return None
    inner = TileRect(rect.row0 - kr0, rect.row1 - kr0, rect.col0 - kc0, rect.col1 - kc0)
    flat = cut_rect(int(table.tile_ptr[k]), kc1 - kc0, inner)
    return SourceRead(
        url=table.urls[k],
        etag=table.etags[k],
        item=table.items[k],
        step=step,
        window=window,
        height=height,
        width=width,
        map=table.maps[int(table.map_ids[k])],
        layout=layout,
        rect=rect,
        offsets=table.offsets[flat],
        counts=table.counts[flat],
        sample=int(table.samples[k]),
        nodata=table.nodata[k],
        scale=float(table.scales[k]),
        add=float(table.adds[k]),
        mask=mask,
        radius=table.radii[k] if table.radii else (0.0, 0.0),
        level=int(table.levels[k]),
    )
