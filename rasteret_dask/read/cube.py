"""Rows of a collection and a request to a lazy ``xarray.Dataset``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import dask.array as da
import dask.config
import numpy as np
import pyarrow as pa
import xarray as xr
from dask.base import tokenize
from dask.utils import parse_bytes

from rasteret_dask.errors import ArgumentError, EmptySelectionError, NodataError
from rasteret_dask.grid.choose import SourceGrid, choose_grid
from rasteret_dask.grid.geobox import Grid
from rasteret_dask.grid.radiometry import Number
from rasteret_dask.grid.shapes import pixel_shapes
from rasteret_dask.plan.chunks import BandPlan, Chunks, Output
from rasteret_dask.plan.cover import has_gaps
from rasteret_dask.plan.layout import parse_chunks
from rasteret_dask.plan.levels import pick_sources
from rasteret_dask.plan.masks import mask_table
from rasteret_dask.plan.sources import SourceTable
from rasteret_dask.plan.steps import TimeSteps
from rasteret_dask.plan.table import RawSources, build_table
from rasteret_dask.read import doubt
from rasteret_dask.read.assemble import assemble
from rasteret_dask.read.gather import (
    Items,
    arrange,
    raw_sources,
    source_grids,
)
from rasteret_dask.read.graph import to_dask
from rasteret_dask.read.inner import inner_masks
from rasteret_dask.read.levels import at_levels
from rasteret_dask.read.output import choose_output
from rasteret_dask.read.request import CubeRequest
from rasteret_dask.storage.regions import warn_elsewhere


@dataclass(frozen=True, slots=True, eq=False)
class CubePlan:
    """A cube before it is a graph.

    Parameters
    ----------
    request : CubeRequest
    items : Items
    grid : Grid
    bands : dict of str to BandPlan
        By the spelling that was asked for.
    nodata : dict of str to number or None
        What each band's output calls nodata.
    levels : dict of str to tuple of int
        Which overview levels are read of each band; 0 is full resolution.
    source_crs : tuple of str
        Of the files, those of most items first.
    """

    request: CubeRequest
    items: Items
    grid: Grid
    bands: dict[str, BandPlan]
    nodata: dict[str, Number]
    levels: dict[str, tuple[int, ...]]
    source_crs: tuple[str, ...] = ()


def plan_cube(table: pa.Table, request: CubeRequest) -> CubePlan:
    """Plan a cube: no byte is fetched.

    Parameters
    ----------
    table : pyarrow.Table
        The selected rows, sorted by time and id, with :data:`~rasteret_dask.read.gather.COLUMNS` and the bands' columns.
    request : CubeRequest

    Raises
    ------
    RasteretError
        If the request and the items do not fit together.
    """
    if not len(table):
        raise EmptySelectionError(
            "no item is left to read", hint="widen the area, the dates or the filters"
        )
    items = arrange(table, request)
    raws = {asked: raw_sources(items, band, request) for asked, band in request.bands}
    for url in [raw.urls[0] for raw in raws.values() if raw.urls][:1]:
        warn_elsewhere(url, request.storage)
    grid = request.fixed or _grid_of(raws.values(), request)
    masks = None
    if request.mask is not None:
        masks = raw_sources(items, request.mask.band, request, mask=True)
        raws = {asked: _with_masks(raw, masks, request) for asked, raw in raws.items()}
    placing: dict[str, Placing] = {}
    nodata: dict[str, Number] = {}
    levels: dict[str, tuple[int, ...]] = {}
    for (asked, band), full in zip(request.bands, raws.values()):
        raw, levels[asked] = at_levels(items, band, full, grid, request)
        output, nodata[asked] = choose_output(asked, band, raw, items, request)
        output = replace(
            output,
            method=request.resampling.get(asked, "nearest"),
            mosaic=request.mosaic,
            early=request.early_exit,
            doubted=items.offsets is not None and band in doubt.BANDS,
        )
        inner = inner_masks(items, band, raw, request)
        placing[asked] = Placing(raw, masks, inner, grid, output, request)
    steps = len(items.steps)
    plans = {}
    alike = _chunks_of_all(placing.values(), grid, steps, request)
    for asked, own in placing.items():
        chunks = alike or _chunks([own], grid, steps, request)
        plans[asked] = _band_plan(own, chunks)
        _check_gaps(plans[asked].table, own, steps)
        if request.together:
            rest = [other for name, other in placing.items() if name != asked]
            partners = tuple(_band_plan(other, chunks) for other in rest)
            plans[asked] = replace(plans[asked], partners=partners)
    found = Counter(crs for raw in raws.values() for crs in raw.crs)
    source_crs = tuple(sorted(found, key=lambda crs: (-found[crs], crs)))
    return CubePlan(request, items, grid, plans, nodata, levels, source_crs)


@dataclass(frozen=True, slots=True, eq=False)
class Placing:
    """What is known of a band before it is cut into chunks.

    Parameters
    ----------
    raw : RawSources
        Its sources, at the levels that are read.
    masks, inner : RawSources, optional
        Their mask bands, and the masks that lie in the files themselves.
    grid : Grid
    output : Output
    request : CubeRequest
    """

    raw: RawSources
    masks: RawSources | None
    inner: RawSources | None
    grid: Grid
    output: Output
    request: CubeRequest


def _with_masks(raw: RawSources, masks: RawSources, request: CubeRequest) -> RawSources:
    """Leave out the items that lack the mask band: what no mask covers is not kept. Without missing='nodata' there are none."""
    having = set(masks.items)
    kept = [k for k, item in enumerate(raw.items) if item in having]
    if len(kept) == len(raw):
        return raw
    if not kept:
        assert request.mask is not None
        raise EmptySelectionError(
            "no item has both the band and the mask band", band=request.mask.band
        )
    return pick_sources([(raw, k) for k in kept])


def decide_grid(table: pa.Table, request: CubeRequest) -> Grid:
    """Return the output grid alone, as :func:`plan_cube` would choose it."""
    times = TimeSteps(np.arange(len(table)), *(np.zeros(len(table), "datetime64[ns]"),) * 2)
    items = Items(table, times)
    return _grid_of([raw_sources(items, band, request) for _, band in request.bands], request)


def _grid_of(raws: Iterable[RawSources], request: CubeRequest) -> Grid:
    """Return the grid that the finest band's sources vote for; items that lack this band vote with the finest one that they have."""
    grids: list[SourceGrid] = []
    seen: set[str] = set()
    for raw in sorted(raws, key=_pixel_area):
        more = [k for k, item in enumerate(raw.items) if item not in seen]
        if more:
            whole = len(more) == len(raw)
            grids += source_grids(raw if whole else pick_sources([(raw, k) for k in more]))
            seen.update(raw.items)
    return choose_grid(grids, request.grid)


def _pixel_area(raw: RawSources) -> float:
    a, b, _, d, e, _ = raw.affines.T
    return float(np.min(np.abs(a * e - b * d))) if len(raw) else float("inf")


def _dilate(request: CubeRequest) -> float:
    return request.mask.dilate if request.mask is not None else 0.0


def _chunks_of_all(
    bands: Iterable[Placing], grid: Grid, steps: int, request: CubeRequest
) -> Chunks | None:
    """Return the chunks of all bands, which xarray wants to be the same; None where each band's own tiles are asked for."""
    wanted = request.chunks
    named = wanted.values() if isinstance(wanted, Mapping) else [wanted]
    if wanted == {} or any(isinstance(one, str) and one in ("tile", "tiles") for one in named):
        return None
    return _chunks(list(bands), grid, steps, request)


def _chunks(bands: Sequence[Placing], grid: Grid, steps: int, request: CubeRequest) -> Chunks:
    """Return chunks of whole tiles: of the largest, which those of finer bands mostly divide."""
    shape = (steps, grid.height, grid.width)
    tile, offset = max(
        (natural_tile(band.raw, grid) for band in bands), key=lambda found: math.prod(found[0])
    )
    itemsize = max(np.dtype(band.output.dtype).itemsize for band in bands)
    limit = min(parse_bytes(dask.config.get("array.chunk-size")), 2**27)
    wanted = request.chunks if request.chunks is not None else "auto"
    return parse_chunks(wanted, shape, tile, offset, itemsize, limit // 2)


def natural_tile(raw: RawSources, grid: Grid) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a source tile's size in output pixels, and where the grid's corner falls within one.

    The most frequent layout decides; sources of another CRS count with their own tile size.
    """
    most = int(np.bincount(raw.layout_ids).argmax())
    layout = raw.layouts[most]
    height = layout.height
    if layout.strips:
        height = max(height, 512)
    k = int(np.flatnonzero(raw.layout_ids == most)[0])
    a, b, c, d, e, f = raw.affines[k].tolist()
    if raw.crs[k] != grid.crs or b or d:
        return (height, layout.width), (0, 0)
    th = max(1, round(abs(e) * height / grid.yres))
    tw = max(1, round(abs(a) * layout.width / grid.xres))
    row = round((f - grid.top) / grid.yres) if e < 0 else 0
    col = round((grid.left - c) / grid.xres)
    return (th, tw), (row % th, col % tw)


def _band_plan(band: Placing, chunks: Chunks) -> BandPlan:
    raw, masks, inner, request = band.raw, band.masks, band.inner, band.request
    placed, extents = build_table(raw, band.grid, chunks, band.output.method)
    shapes = None
    if request.areas is not None:
        shapes = pixel_shapes(request.areas.to_crs(band.grid.crs).geometries, band.grid)
    return BandPlan(
        chunks=chunks,
        table=placed,
        output=band.output,
        storage=request.storage,
        ledger=request.ledger,
        masks=None if masks is None else mask_table(placed, raw, masks, _dilate(request)),
        mask=request.mask,
        inner=None if inner is None else mask_table(placed, raw, inner, optional=True),
        extents=extents,
        shapes=shapes,
        all_touched=request.all_touched,
    )


def _check_gaps(placed: SourceTable, band: Placing, steps: int) -> None:
    request, grid, output = band.request, band.grid, band.output
    if output.fill is not None:
        return
    why = None
    if request.mask is not None or request.areas is not None or band.inner is not None:
        why = "masked pixels"
    elif request.together and len(request.bands) > 1:
        why = "pixels that mosaic_mask='all' leaves out"
    elif request.ledger is not None:
        why = "tiles that may fail, as on_error='record' allows,"
    elif has_gaps(placed, (steps, grid.height, grid.width)):
        why = "pixels that no item covers"
    if why is not None:
        raise NodataError(
            f"there are {why}, and neither the files nor the caller name a nodata value",
            band=output.band,
            hint="give fill_value=, or masked=True for NaN",
        )


def open_cube(table: pa.Table, request: CubeRequest) -> xr.Dataset:
    """Return the lazy cube; see :meth:`rasteret_dask.Collection.get_xarray`.

    Raises
    ------
    ArgumentError
        Dask's query planning of arrays is on.
    """
    if dask.config.get("array.query-planning", False):
        raise ArgumentError(
            "cubes do not work with Dask's array.query-planning, which is on",
            hint="set DASK_ARRAY__QUERY_PLANNING=False, or dask.config.set({'array.query-planning': False}) before dask.array is imported",
        )
    plan = plan_cube(table, request)
    arrays: dict[str, da.Array] = {}
    for asked, band_plan in plan.bands.items():
        # Equal plans have equal names, whatever other bands are read beside them.
        arrays[asked] = to_dask(band_plan, f"rasteret-{asked}-{token(band_plan)}")
    dataset = assemble(
        plan.items, plan.grid, arrays, plan.nodata, request, plan.levels, plan.source_crs
    )
    if request.ledger is not None:
        dataset.attrs["rasteret_run"] = request.ledger.run
    return dataset.compute() if request.chunks is None else dataset


def token(plan: BandPlan) -> str:
    """Return the same text for equal plans, in every process."""
    tables = [t for t in (plan.table, plan.masks, plan.inner) if t is not None]
    parts = [
        [getattr(t, name) for name in t.__slots__ if name not in ("maps", "layouts")]
        + [repr(t.maps), repr(t.layouts)]
        for t in tables
    ]
    storage = (
        sorted(plan.storage.options.items()),
        repr(plan.storage.retry),
        repr(plan.storage.rate),
        plan.storage.auth,
        sorted(plan.storage.auth_options.items()),
        repr(plan.ledger),
    )
    return str(
        tokenize(
            plan.chunks,
            parts,
            # By its fields: Dask knows a function by what it is, where repr knows its name or its place in memory.
            [getattr(plan.output, name) for name in plan.output.__slots__],
            storage,
            repr(plan.mask),
            plan.shapes,
            plan.all_touched,
            [token(partner) for partner in plan.partners],
        )
    )
