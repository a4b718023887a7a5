"""One :class:`ReadPlan` for each chunk of a cube: byte ranges and placement, never a client, a store or a secret."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, product
from typing import Any

import numpy as np

from rasteret_dask.grid.kernels import reach
from rasteret_dask.grid.masks import MaskRule
from rasteret_dask.grid.tiles import Window
from rasteret_dask.grid.warp import AxisMap, CrsMap
from rasteret_dask.model import Ledger, StorageOptions
from rasteret_dask.plan.sources import Ints, Number, SourceRead, SourceTable, source_read

Chunks = tuple[tuple[int, ...], ...]
Edges = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Output:
    """What a chunk's array holds.

    Parameters
    ----------
    band : str
        For messages.
    dtype : str
        NumPy name.
    fill : number
        What gaps hold; NaN for masked cubes.
    scaled : bool
        Whether values are multiplied by each source's scale and shifted by its add.
    method : str
        How sources are resampled (:data:`rasteret_dask.grid.kernels.METHODS`).
    mosaic : str or callable
        How the sources of one time step become one (:data:`rasteret_dask.grid.mosaic.METHODS`).
    decode : str, optional
        How stored numbers become values (:data:`rasteret_dask.grid.radiometry.DECODERS`).
    early : bool
        Leave out sources that come after all pixels of a chunk are filled.
    doubted : bool
        Compare the lowest digital numbers with the Sentinel-2 offset that is applied to them.
    """

    band: str
    dtype: str
    fill: Number
    scaled: bool = False
    method: str = "nearest"
    mosaic: Any = "first"
    early: bool = False
    decode: str | None = None
    doubted: bool = False

    @property
    def gap(self) -> float | int:
        """What is written where no source has a valid pixel.

        Without any nodata value the plan has made sure that integers have no gaps; floats have NaN for pixels that are NaN already.
        """
        if self.fill is not None:
            return self.fill
        return float("nan") if np.dtype(self.dtype).kind in "fc" else 0


@dataclass(frozen=True, slots=True, eq=False)
class ReadPlan:
    """All that a worker needs to read one chunk of one band.

    Parameters
    ----------
    shape : tuple of int
        ``(time, y, x)`` of the chunk.
    origin : tuple of int
        Row and column of the chunk's corner in the output grid.
    sources : tuple of SourceRead
        By time step and rank.
    output : Output
    storage : StorageOptions
    mask : MaskRule, optional
        Which pixels of the sources' masks are kept.
    shapes : bytes, optional
        WKB of the polygons outside of which nothing is wanted, in pixels of the output grid.
    all_touched : bool
        How polygons take pixels on their border.
    first_step : int
        Time step of the cube that is the chunk's first.
    ledger : Ledger, optional
        Tiles that fail become gaps, and are written down there.
    partners : tuple of ReadPlan
        The same chunk of other bands: an item's pixel counts only where it is valid in those as well.
    """

    shape: tuple[int, int, int]
    origin: tuple[int, int]
    sources: tuple[SourceRead, ...]
    output: Output
    storage: StorageOptions
    mask: MaskRule | None = None
    shapes: bytes | None = None
    all_touched: bool = False
    first_step: int = 0
    ledger: Ledger | None = None
    partners: tuple[ReadPlan, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class BandPlan:
    """Every chunk of one band; this is what a graph carries instead of one object for each tile.

    Parameters
    ----------
    chunks : tuple of tuple of int
        Dask chunks along time, y and x.
    table : SourceTable
    output : Output
    storage : StorageOptions
    masks : SourceTable, optional
        The mask band of each source, row by row beside ``table``; its maps lead from the source's pixels.
    mask : MaskRule, optional
    inner : SourceTable, optional
        The internal mask of each source, row by row beside ``table``; a row without tiles for a file that has none.
    extents : dict of int to (int, int, ndarray), optional
        For each map between two CRSs: first chunk row and column it touches, and source windows of the chunks from there, shape
        ``(rows, columns, 4)``. They are computed once where PROJ is at hand, so that cutting a chunk out needs none.
    shapes, all_touched
        As in :class:`ReadPlan`.
    ledger : Ledger, optional
        As in :class:`ReadPlan`.
    partners : tuple of BandPlan
        As in :class:`ReadPlan`; cut into the same chunks.
    """

    chunks: Chunks
    table: SourceTable
    output: Output
    storage: StorageOptions
    masks: SourceTable | None = None
    mask: MaskRule | None = None
    inner: SourceTable | None = None
    extents: dict[int, tuple[int, int, Ints]] | None = None
    shapes: bytes | None = None
    all_touched: bool = False
    ledger: Ledger | None = None
    partners: tuple[BandPlan, ...] = ()

    @property
    def numblocks(self) -> tuple[int, int, int]:
        """Chunks along time, y and x."""
        t, y, x = (len(c) for c in self.chunks)
        return t, y, x

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Yield the index of every chunk."""
        t, y, x = self.numblocks
        yield from product(range(t), range(y), range(x))

    def edges(self) -> Edges:
        """Return where chunks begin and end along time, y and x."""
        t, y, x = (tuple(accumulate(c, initial=0)) for c in self.chunks)
        return t, y, x

    def block(self, index: tuple[int, int, int], edges: Edges | None = None) -> ReadPlan:
        """Return the plan of one chunk.

        The cost depends on the sources of the chunk's time steps, not on those of the cube.

        Parameters
        ----------
        index : tuple of int
        edges : tuple of tuple of int, optional
            From :meth:`edges`, for whoever asks for many chunks.
        """
        t, y, x = (slice(e[i], e[i + 1]) for e, i in zip(edges or self.edges(), index))
        return self._cut(t, y, x, index)

    def window(self, time: slice, rows: slice, cols: slice) -> ReadPlan:
        """Return the plan of any box of the cube, wherever chunks begin.

        Parameters
        ----------
        time, rows, cols : slice
            With start and stop, within the cube.
        """
        return self._cut(time, rows, cols, None)

    def _cut(
        self,
        time: slice,
        rows: slice,
        cols: slice,
        index: tuple[int, int, int] | None,
    ) -> ReadPlan:
        t0, t1, r0, r1, c0, c1 = time.start, time.stop, rows.start, rows.stop, cols.start, cols.stop
        table = self.table
        low, high = table.steps.searchsorted((t0, t1))
        near = table.windows[low:high]
        hit = (near[:, 0] < r1) & (near[:, 1] > r0) & (near[:, 2] < c1) & (near[:, 3] > c0)
        sources = []
        for k in (np.flatnonzero(hit) + low).tolist():
            w = table.windows[k].tolist()
            window = (max(r0, w[0]), min(r1, w[1]), max(c0, w[2]), min(c1, w[3]))
            found = self.source(k, int(table.steps[k]) - t0, window, index)
            if found is not None:
                sources.append(found)
        return ReadPlan(
            (t1 - t0, r1 - r0, c1 - c0),
            (r0, c0),
            tuple(sources),
            self.output,
            self.storage,
            self.mask,
            self.shapes,
            self.all_touched,
            t0,
            self.ledger,
            tuple(partner._cut(time, rows, cols, index) for partner in self.partners),
        )

    def source(
        self, k: int, step: int, window: Window, index: tuple[int, int, int] | None
    ) -> SourceRead | None:
        """Return what source ``k`` gives to a window, for chunk ``index``; None if nothing.

        Parameters
        ----------
        k : int
            Row of the table.
        step : int
            Time step within the chunk.
        window : tuple of int
            Of the output grid.
        index : (int, int, int) or None
            Which chunk; None for a window of no chunk.
        """
        number = int(self.table.map_ids[k])
        mapped = self.table.maps[number]
        if isinstance(mapped, AxisMap):
            pixels = axis_extent(mapped, window, self.output.method)
        elif index is None:
            halo = method_halo(mapped, self.output.method)
            found = mapped.extent(window)
            if found is None:
                return None
            pixels = (
                found[0] - halo[0],
                found[1] + halo[0],
                found[2] - halo[1],
                found[3] + halo[1],
            )
        else:
            assert self.extents is not None
            row, col, extents = self.extents[number]
            i, j = index[1] - row, index[2] - col
            if not (0 <= i < extents.shape[0] and 0 <= j < extents.shape[1]):
                return None
            e = extents[i, j].tolist()
            pixels = (e[0], e[1], e[2], e[3])
        mask = None
        if self.masks is not None:
            mask_map = self.masks.maps[int(self.masks.map_ids[k])]
            assert isinstance(mask_map, AxisMap)
            clipped = (
                max(0, pixels[0]),
                min(int(self.table.sizes[k, 0]), pixels[1]),
                max(0, pixels[2]),
                min(int(self.table.sizes[k, 1]), pixels[3]),
            )
            e = axis_extent(mask_map, clipped)
            radius = self.masks.radii[k] if self.masks.radii else (0.0, 0.0)
            down, across = (math.ceil(r) for r in radius)
            wide = (e[0] - down, e[1] + down, e[2] - across, e[3] + across)
            mask = source_read(self.masks, k, step=step, window=clipped, pixels=wide)
        read = source_read(self.table, k, step=step, window=window, pixels=pixels, mask=mask)
        if read is None or self.inner is None:
            return read
        inner = source_read(self.inner, k, step=step, window=window, pixels=pixels)
        return replace(read, inner=inner)


def axis_extent(mapped: AxisMap, window: Window, method: str = "nearest") -> Window:
    """Return a window of source pixels that surely holds every one that a resampling method looks at for an output window.

    Little more than needed on each side; what is really needed is worked out when the chunk is read.
    """
    halo = method_halo(mapped, method)
    r0, r1, c0, c1 = window
    rows = sorted(mapped.y_scale * (r + 0.5) + mapped.y_shift for r in (r0, r1 - 1))
    cols = sorted(mapped.x_scale * (c + 0.5) + mapped.x_shift for c in (c0, c1 - 1))
    return (
        math.floor(rows[0] - 1e-5) - halo[0],
        math.floor(rows[1] + 1e-5) + 1 + halo[0],
        math.floor(cols[0] - 1e-5) - halo[1],
        math.floor(cols[1] + 1e-5) + 1 + halo[1],
    )


def method_halo(mapped: AxisMap | CrsMap, method: str) -> tuple[int, int]:
    """Return how many rows and columns of source pixels beyond those of the centres a method looks at."""
    if method == "nearest" or (isinstance(mapped, AxisMap) and mapped.is_shift):
        return 0, 0
    return math.ceil(reach(method, mapped.ratio[1])) + 1, math.ceil(
        reach(method, mapped.ratio[0])
    ) + 1
