"""Windows of single items as NumPy arrays, on each item's own grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rasteret_dask.errors import ArgumentError, EmptySelectionError, GridError, NodataError
from rasteret_dask.grid.aoi import Areas
from rasteret_dask.grid.geobox import TOLERANCE, Bounds, Grid, transform_bounds
from rasteret_dask.grid.radiometry import Number
from rasteret_dask.grid.shapes import outside, pixel_shapes
from rasteret_dask.grid.tiles import TileRect, Window, cut_rect, pieces, tile_rect
from rasteret_dask.grid.warp import AxisMap
from rasteret_dask.model import StorageOptions
from rasteret_dask.plan.layout import TILES
from rasteret_dask.plan.sources import SourceRead
from rasteret_dask.plan.steps import TimeSteps
from rasteret_dask.plan.table import RawSources
from rasteret_dask.read.engine import Load, run_loads
from rasteret_dask.read.gather import Items, raw_sources
from rasteret_dask.read.request import CubeRequest

Array = npt.NDArray[Any]
_IDENTITY = AxisMap(1.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """One geometry on one item.

    Parameters
    ----------
    area : int
        Number of the geometry.
    reads : tuple of SourceRead
        One for each band.
    window : tuple of int
        Pixels of the item, the same for every band.
    shapes : bytes, optional
        The polygon in pixels of the item, to mask with.
    """

    area: int
    reads: tuple[SourceRead, ...]
    window: Window
    shapes: bytes | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        r0, r1, c0, c1 = self.window
        return r1 - r0, c1 - c0

    @property
    def tiles(self) -> int:
        """Tiles of all bands."""
        return sum(len(read.offsets) for read in self.reads)


def plan_chips(
    items: Items, request: CubeRequest, areas: Areas | None, bounds: Bounds | None, crs: str
) -> list[Chip]:
    """Plan one chip for each geometry and each item that it meets.

    Parameters
    ----------
    items : Items
    request : CubeRequest
    areas : Areas, optional
        Geometries that mask; their order is that of the chips, items by time within.
    bounds : tuple of float, optional
        When there are no ``areas``: a box that crops only. None takes whole items.
    crs : str
        Of ``bounds``.

    Raises
    ------
    EmptySelectionError
        If nothing meets.
    GridError
        If an item's grid is rotated, or its bands differ in resolution.
    """
    raws = [raw_sources(items, band, request) for _, band in request.bands]
    lookup = [{item: k for k, item in enumerate(raw.items)} for raw in raws]
    common = [item for item in raws[0].items if all(item in numbers for numbers in lookup)]
    split = [Areas((g,), areas.crs, areas.boxes) for g in areas.geometries] if areas else [None]
    moved: dict[tuple[int, str], Areas] = {}
    chips = []
    for number, area in enumerate(split):
        for item in common:
            ks = [numbers[item] for numbers in lookup]
            source_crs = raws[0].crs[ks[0]]
            own: Areas | None = None
            if area is not None:
                key = (number, source_crs)
                if key not in moved:
                    moved[key] = area.to_crs(source_crs)
                own = moved[key]
            box = own.bounds if own is not None else _box(bounds, crs, source_crs)
            chip = _chip(number, raws, ks, box, own)
            if chip is not None:
                chips.append(chip)
    if not chips:
        raise EmptySelectionError("the geometries meet none of the items")
    return chips


def _box(bounds: Bounds | None, crs: str, target: str) -> Bounds | None:
    return None if bounds is None else transform_bounds(bounds, crs, target)


def _chip(
    number: int,
    raws: Sequence[RawSources],
    ks: Sequence[int],
    box: Bounds | None,
    area: Areas | None,
) -> Chip | None:
    raw, k = raws[0], ks[0]
    affine, size = raw.affines[k], raw.sizes[k]
    for other, j in zip(raws, ks):
        same = np.allclose(other.affines[j], affine, rtol=0, atol=1e-6 * abs(affine[0]))
        if not same or (other.sizes[j] != size).any():
            raise GridError(
                "the bands of an item differ in resolution or extent",
                item=raw.items[k],
                hint="read them one by one, or as a cube with get_xarray(resolution=…)",
            )
    a, b, c, d, e, f = affine.tolist()
    if b or d:
        raise GridError("the item's grid is rotated", item=raw.items[k], hint="use open_tiff")
    height, width = (int(v) for v in size)
    window = _window(box, (a, c, e, f), height, width)
    if window is None:
        return None
    shapes = None
    if area is not None:
        grid = Grid(raw.crs[k], c, f, a, -e, width, height)
        shapes = pixel_shapes(area.geometries, grid)
    reads = tuple(_read(other, j, window) for other, j in zip(raws, ks))
    return Chip(number, reads, window, shapes)


def _window(
    box: Bounds | None, affine: tuple[float, float, float, float], height: int, width: int
) -> Window | None:
    """Return every pixel of an item that a box touches."""
    if box is None:
        return 0, height, 0, width
    a, c, e, f = affine
    cols = sorted((x - c) / a for x in (box[0], box[2]))
    rows = sorted((y - f) / e for y in (box[1], box[3]))
    r0, r1 = math.floor(rows[0] + TOLERANCE), math.ceil(rows[1] - TOLERANCE)
    c0, c1 = math.floor(cols[0] + TOLERANCE), math.ceil(cols[1] - TOLERANCE)
    # A point, or a line along an edge, still touches one pixel.
    r1, c1 = max(r1, r0 + 1), max(c1, c0 + 1)
    window = (max(0, r0), min(height, r1), max(0, c0), min(width, c1))
    return window if window[0] < window[1] and window[2] < window[3] else None


def _read(raw: RawSources, k: int, window: Window) -> SourceRead:
    layout = raw.layouts[int(raw.layout_ids[k])]
    height, width = (int(v) for v in raw.sizes[k])
    rect = tile_rect(window, layout.height, layout.width)
    across = -(-width // layout.width)
    flat = cut_rect(
        int(raw.tile_ptr[k]), across, TileRect(rect.row0, rect.row1, rect.col0, rect.col1)
    )
    return SourceRead(
        url=raw.urls[k],
        etag=raw.etags[k],
        item=raw.items[k],
        step=0,
        window=window,
        height=height,
        width=width,
        map=_IDENTITY,
        layout=layout,
        rect=rect,
        offsets=raw.offsets[flat],
        counts=raw.counts[flat],
        sample=int(raw.samples[k]),
        nodata=raw.nodata[k],
        scale=1.0,
        add=0.0,
    )


def read_chips(
    chips: Sequence[Chip],
    bands: Sequence[str],
    *,
    fill: Number,
    all_touched: bool,
    storage: StorageOptions,
) -> Array:
    """Read chips of one shape into one array.

    Parameters
    ----------
    chips : sequence of Chip
    bands : sequence of str
        For messages.
    fill : number, optional
        For pixels outside polygons; None takes each source's own nodata.
    all_touched : bool
    storage : StorageOptions

    Returns
    -------
    ndarray, shape (chips, bands, rows, columns)

    Raises
    ------
    ArgumentError
        If the chips differ in shape.
    NodataError
        If a polygon masks and nothing says with what.
    """
    shapes = {chip.shape for chip in chips}
    if len(shapes) > 1:
        shown = ", ".join(f"{h}×{w}" for h, w in sorted(shapes)[:4])
        raise ArgumentError(
            f"the results differ in shape ({shown}{' …' if len(shapes) > 4 else ''}), and one array needs one",
            hint="read geometries one by one, use get_gdf for ragged results, or get_xarray for one grid",
        )
    dtype = np.result_type(*{np.dtype(r.layout.dtype) for chip in chips for r in chip.reads})
    out = np.empty((len(chips), len(bands), *chips[0].shape), dtype=dtype)
    client = active_client()
    if client is None:
        _fill(chips, bands, out, fill, all_touched, storage)
        return out
    batches = _batches(chips)
    task = dask.delayed(_read_batch, pure=False)
    lazy = [task(batch, tuple(bands), dtype.name, fill, all_touched, storage) for batch in batches]
    np.concatenate(dask.compute(*lazy), out=out)
    return out


def active_client() -> Any:
    """Return the active distributed client, if any, without importing distributed."""
    get = dask.base.get_scheduler()
    owner = getattr(get, "__self__", None)
    return owner if type(owner).__name__ == "Client" else None


def _batches(chips: Sequence[Chip]) -> list[list[Chip]]:
    """Cut into tasks of enough tiles to hide latency."""
    out: list[list[Chip]] = [[]]
    tiles = 0
    for chip in chips:
        if tiles >= TILES:
            out.append([])
            tiles = 0
        out[-1].append(chip)
        tiles += chip.tiles
    return out


def _read_batch(
    chips: Sequence[Chip],
    bands: tuple[str, ...],
    dtype: str,
    fill: Number,
    all_touched: bool,
    storage: StorageOptions,
) -> Array:
    out = np.empty((len(chips), len(bands), *chips[0].shape), dtype=dtype)
    _fill(chips, bands, out, fill, all_touched, storage)
    return out


def _fill(
    chips: Sequence[Chip],
    bands: Sequence[str],
    out: Array,
    fill: Number,
    all_touched: bool,
    storage: StorageOptions,
) -> None:
    """Decode straight into the result where types agree."""
    loads, converted = [], []
    for n, chip in enumerate(chips):
        for b, read in enumerate(chip.reads):
            target = out[n, b]
            if read.layout.dtype != out.dtype.name:
                target = np.empty(chip.shape, dtype=read.layout.dtype)
                converted.append((n, b, target))
            found = pieces(chip.window, read.layout.height, read.layout.width)
            loads.append(Load(read, found, target, bands[b]))
    run_loads(loads, storage)
    for n, b, target in converted:
        out[n, b] = target
    painted: dict[tuple[bytes, Window], npt.NDArray[np.bool_]] = {}
    for n, chip in enumerate(chips):
        if chip.shapes is None:
            continue
        key = (chip.shapes, chip.window)
        if key not in painted:
            # The dates of one tile share grid and polygon.
            painted[key] = outside(chip.shapes, chip.window, all_touched)
        hidden = painted[key]
        for b, read in enumerate(chip.reads):
            value = read.nodata if fill is None else fill
            if value is None and hidden.any():
                raise NodataError(
                    "pixels outside the geometry need a value, and neither the file nor the caller names one",
                    item=read.item,
                    band=bands[b],
                    hint="give fill_value=",
                )
            if value is not None:
                out[n, b][hidden] = value


def get_numpy(
    table: pa.Table,
    request: CubeRequest,
    areas: Areas | None,
    bounds: Bounds | None,
    crs: str,
) -> Array:
    """Return windows of items; see :meth:`rasteret_dask.Collection.get_numpy`."""
    if not len(table):
        raise EmptySelectionError(
            "no item is left to read", hint="widen the area, the dates or the filters"
        )
    items = items_by_id(table)
    chips = plan_chips(items, request, areas, bounds, crs)
    found = read_chips(
        chips,
        [asked for asked, _ in request.bands],
        fill=request.fill_value,
        all_touched=request.all_touched,
        storage=request.storage,
    )
    return found[:, 0] if len(request.bands) == 1 else found


def items_by_id(table: pa.Table) -> Items:
    """Return every item as a step of its own, in the table's order."""
    count = len(table)
    times = np.zeros(count, dtype="datetime64[ns]")
    return Items(table, TimeSteps(np.arange(count), times, times))
