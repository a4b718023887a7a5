"""Steps that end in a table: statistics of zones, and values at points.

A pixel belongs to a polygon when its centre does, as rasterio has it. Blocks of the cube are
visited once; a zone that lies within one block is finished there, the pixels of one that spans
several are brought together, in the order of the grid, so that no chunking changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import geopandas
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import shapely
import shapely.affinity
import xarray as xr

from rasteret_dask.errors import ConfigError
from rasteret_dask.grid.geobox import Grid, period, turns, within_a_turn
from rasteret_dask.grid.shapes import outside, pixel_shapes
from rasteret_dask.grid.tiles import Window
from rasteret_dask.pipeline.chips import ChipSet, cut
from rasteret_dask.pipeline.reductions import REDUCTIONS
from rasteret_dask.pipeline.shape import grid_of
from rasteret_dask.pipeline.work import (
    Chips,
    ChipsStep,
    Points,
    SampleStep,
    Step,
    Zonal,
    ZonalStep,
)

Array = npt.NDArray[Any]
_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, and the geometry of each where rows and geometries are one to one.

    Parameters
    ----------
    rows : pyarrow.Table
    geometry : GeoSeries, optional
    """

    rows: pa.Table
    geometry: geopandas.GeoSeries | None = None


def vector_of(step: Step) -> tuple[str | None, str] | None:
    """The vector file that a step needs, and the key that names it; None where it needs none.

    Zones without a file of their own are the area that the cube is cropped to.
    """
    if isinstance(step, ZonalStep):
        return step.zonal.polygons, "zonal.polygons"
    if isinstance(step, ChipsStep) and step.chips.around is not None:
        return step.chips.around, "chips.around"
    return (step.sample.points, "sample.points") if isinstance(step, SampleStep) else None


def columns_of(step: Step) -> tuple[str, ...]:
    """The columns of its vector file that get into what a step makes."""
    if isinstance(step, ZonalStep):
        return _used(step.zonal)
    if isinstance(step, SampleStep):
        return _used(step.sample)
    return _used(step.chips) if isinstance(step, ChipsStep) else ()


def _used(step: Zonal | Points | Chips) -> tuple[str, ...]:
    return (*([step.id] if step.id else []), *step.keep)


def make(
    step: Step, dataset: xr.Dataset, frame: geopandas.GeoDataFrame | None
) -> Table | ChipSet | None:
    """Compute the table of a `zonal` or `sample` step, or find the chips of a `chips` step.

    Parameters
    ----------
    step : Step
        The last one; None comes back when it leaves a cube.
    dataset : Dataset
        Dims ``(time, y, x)`` or ``(y, x)``, with a CRS; lazy or not.
    frame : GeoDataFrame, optional
        Polygons or points in any CRS. Of a polygon the corners are transformed.
    """
    if isinstance(step, ChipsStep):
        return cut(step.chips, dataset, frame)
    if isinstance(step, ZonalStep) and frame is not None:
        return _zonal(step.zonal, dataset, frame)
    if isinstance(step, SampleStep) and frame is not None:
        return _sample(step.sample, dataset, frame)
    return None


# --- both ----------------------------------------------------------------------------------------
def _names(step: Zonal | Points, frame: geopandas.GeoDataFrame) -> dict[str, Array]:
    """The columns that tell one row of the vector file from another."""
    for column in _used(step):
        if column not in frame.columns:
            given = ", ".join(str(c) for c in frame.columns)
            raise ConfigError(f"no column {column!r} in the vector file", hint=f"it has {given}")
    if step.id is not None and frame[step.id].duplicated().any():
        twice = frame[step.id][frame[step.id].duplicated()].iloc[0]
        raise ConfigError(f"{step.id} is {twice!r} more than once", path="id")
    named = np.arange(len(frame)) if step.id is None else frame[step.id].to_numpy()
    kept = {name: frame[name].to_numpy() for name in step.keep if name != step.id}
    return {step.id or "id": named, **kept}


def _rows(
    names: Mapping[str, Array],
    dataset: xr.Dataset,
    values: Mapping[str, Array],
    frame: geopandas.GeoDataFrame,
) -> Table:
    """One row for each name and each time; `values` are of shape (names, times)."""
    has_time = "time" in dataset.dims
    times = dataset["time"].values if has_time else np.empty(1)
    columns: dict[str, Any] = {key: np.repeat(v, len(times)) for key, v in names.items()}
    if has_time:
        columns["time"] = np.tile(times, len(frame))
    columns |= {key: array.reshape(-1) for key, array in values.items()}
    table = pa.table({key: pa.array(column, from_pandas=True) for key, column in columns.items()})
    return Table(table, None if has_time else frame.geometry)


# --- zones ---------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Zone:
    """One polygon and the part of it that a block sees.

    Parameters
    ----------
    number : int
        Row of the vector file.
    shapes : bytes
        The polygon in pixels of the grid.
    window : tuple of int
        Pixels of the grid, cut at the block.
    origin : tuple of int
        First row and column of the block.
    whole : bool
        Whether no other block sees it.
    """

    number: int
    shapes: bytes
    window: Window
    origin: tuple[int, int]
    whole: bool


@dataclass(frozen=True, slots=True)
class ZoneBlock:
    """Statistics, or pixels, of the zones of one block; what workers run.

    Parameters
    ----------
    stats : tuple of str
    all_touched : bool
    """

    stats: tuple[str, ...]
    all_touched: bool

    def __call__(self, zones: Any, *blocks: Any) -> Any:
        """A list of ``(zone, whole, pixel numbers or None, values)`` in an array of one cell."""
        found: list[tuple[int, Array | None, Array]] = []
        for zone in zones.flat[0]:
            r0, r1, c0, c1 = zone.window
            inside = ~outside(zone.shapes, zone.window, self.all_touched)
            top, left = zone.origin
            cut = (..., slice(r0 - top, r1 - top), slice(c0 - left, c1 - left))
            # (variables, times, pixels); without a time there is one.
            values = np.stack([np.atleast_2d(b[cut][..., inside]) for b in blocks])
            if zone.whole:
                found.append((zone.number, None, statistics(values, self.stats)))
            else:
                rows, columns = np.nonzero(inside)
                found.append((zone.number, np.stack([rows + r0, columns + c0]), values))
        cell = np.empty((1,) * blocks[0].ndim, dtype=object)
        cell.flat[0] = found
        return cell


def statistics(values: Array, stats: tuple[str, ...]) -> Array:
    """Statistics over the last axis, nodata (NaN) left out.

    Parameters
    ----------
    values : ndarray, shape (..., pixels)
    stats : tuple of str
        Of `reductions.REDUCTIONS`, or ``p90``.

    Returns
    -------
    ndarray of float64, shape (len(stats), ...)
    """
    wide = np.ascontiguousarray(values, dtype=np.float64)
    if not wide.shape[-1]:
        wide = np.full((*wide.shape[:-1], 1), np.nan)
    return np.stack([_statistic(name)(wide) for name in stats])


def _statistic(name: str) -> Callable[[Array], Array]:
    if name in REDUCTIONS:
        return REDUCTIONS[name]
    return lambda values: REDUCTIONS["percentile"](values, q=float(name[1:]))


def _zonal(step: Zonal, dataset: xr.Dataset, frame: geopandas.GeoDataFrame) -> Table:
    names = _names(step, frame)
    grid = grid_of(dataset)
    some = any(array.chunks is not None for array in dataset.data_vars.values())
    lazy = (dataset if some else dataset.chunk()).unify_chunks()
    arrays = [array.data for array in lazy.data_vars.values()]
    zones = _zones(frame.to_crs(grid.crs), grid, arrays[0].chunks[-2:], step.all_touched)
    parts = _visit(arrays, zones, ZoneBlock(step.stats, step.all_touched))
    times = lazy.sizes.get("time", 1)
    result = np.full((len(step.stats), len(arrays), len(frame), times), np.nan)
    for stat, name in enumerate(step.stats):
        if name == "count":
            result[stat] = 0
    pieces: dict[tuple[int, int], list[tuple[Array, Array]]] = {}
    for start, number, pixels, values in parts:
        if pixels is None:
            result[:, :, number, start : start + values.shape[-1]] = values
        else:
            pieces.setdefault((number, start), []).append((pixels, values))
    for (number, start), several in pieces.items():
        order = np.lexsort(np.concatenate([p for p, _ in several], axis=1)[::-1])
        together = np.concatenate([v for _, v in several], axis=-1)[..., order]
        values = statistics(together, step.stats)
        result[:, :, number, start : start + values.shape[-1]] = values
    columns = {}
    for variable, label in enumerate(lazy.data_vars):
        for stat, name in enumerate(step.stats):
            column = result[stat, variable]
            columns[f"{label}_{name}"] = column.astype(np.int64) if name == "count" else column
    return _rows(names, lazy, columns, frame)


def _zones(
    frame: geopandas.GeoDataFrame, grid: Grid, chunks: tuple[Any, Any], all_touched: bool
) -> Array:
    """For each block of rows and columns the zones that it may see."""
    edges = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in chunks]
    cells = np.empty(tuple(len(sizes) for sizes in chunks), dtype=object)
    for index in np.ndindex(*cells.shape):
        cells[index] = []
    for number, geometry in enumerate(frame.geometry):
        pieces = () if geometry is None or geometry.is_empty else _on_grid(geometry, grid)
        if not pieces:
            continue
        shapes = pixel_shapes(pieces, grid)
        west, north, east, south = shapely.from_wkb(shapes).bounds
        r0, r1 = max(0, int(np.floor(north))), min(int(edges[0][-1]), int(np.floor(south)) + 1)
        c0, c1 = max(0, int(np.floor(west))), min(int(edges[1][-1]), int(np.floor(east)) + 1)
        if r0 >= r1 or c0 >= c1:
            continue
        seen = [
            range(
                int(np.searchsorted(edge, low, side="right")) - 1,
                int(np.searchsorted(edge, high, side="left")),
            )
            for edge, low, high in ((edges[0], r0, r1), (edges[1], c0, c1))
        ]
        whole = len(seen[0]) == len(seen[1]) == 1
        for y in seen[0]:
            for x in seen[1]:
                top, left = int(edges[0][y]), int(edges[1][x])
                bottom, right = int(edges[0][y + 1]), int(edges[1][x + 1])
                window = (max(r0, top), min(r1, bottom), max(c0, left), min(c1, right))
                cells[y, x].append(Zone(number, shapes, window, (top, left), whole))
    return cells


def _on_grid(geometry: shapely.Geometry, grid: Grid) -> tuple[shapely.Geometry, ...]:
    """A polygon as far as it has a place on the grid's plane; in pieces, where some of it lies whole turns beside the grid."""
    if np.isfinite(shapely.bounds(geometry)).all() and period(grid.crs) is None:
        return (geometry,)
    left, _, right, _ = grid.bounds
    pieces = []
    for part in shapely.get_parts(geometry):
        west, south, east, north = shapely.bounds(part).tolist()
        if not np.isfinite((west, south, east, north)).all():
            continue
        for turn in turns(west, east, left, right, grid.crs):
            pieces.append(shapely.affinity.translate(part, turn) if turn else part)
    return tuple(pieces)


def _visit(
    arrays: list[da.Array], zones: Array, task: ZoneBlock
) -> Iterator[tuple[int, int, Array | None, Array]]:
    """First time, zone, pixels and values; blocks without zones are not computed."""
    first = arrays[0]
    visited = da.map_blocks(
        task,
        da.from_array(zones, chunks=1),
        *arrays,
        dtype=object,
        chunks=tuple((1,) * n for n in first.numblocks),
        meta=np.empty((0,) * first.ndim, dtype=object),
        token="zones",
    )
    starts = np.concatenate([[0], np.cumsum(first.chunks[0])]) if first.ndim == 3 else np.array([0])
    wanted = [index for index in np.ndindex(*zones.shape) if zones[index]]
    for begin in range(0, len(wanted), _AT_ONCE):
        columns = [visited.blocks[(..., *index)] for index in wanted[begin : begin + _AT_ONCE]]
        for column in dask.compute(*columns):
            for step, found in enumerate(column.flat):
                for number, pixels, values in found:
                    yield int(starts[step]), number, pixels, values


# --- points --------------------------------------------------------------------------------------
def _sample(step: Points, dataset: xr.Dataset, frame: geopandas.GeoDataFrame) -> Table:
    names = _names(step, frame)
    grid = grid_of(dataset)
    points = frame.to_crs(grid.crs).geometry
    if not (points.geom_type == "Point").all():
        raise ConfigError("not every geometry of the vector file is a point", path="sample.points")
    # Pixels are half-open; coordinates are rounded to a millionth of a pixel first.
    x = within_a_turn(points.x.to_numpy(), grid)
    across = np.floor(np.round((x - grid.left) / grid.xres, 6))
    down = np.floor(np.round((grid.top - points.y.to_numpy()) / abs(grid.yres), 6))
    height, width = dataset.sizes["y"], dataset.sizes["x"]
    inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
    rows, columns = (np.where(inside, v, 0).astype(int) for v in (down, across))
    picked = {}
    for label, array in dataset.data_vars.items():
        data = array.data[None] if array.ndim == 2 else array.data
        lazy = data if array.chunks is not None else da.from_array(data)
        picked[str(label)] = lazy.vindex[:, rows[inside], columns[inside]]
    values = {}
    for label, found in zip(picked, dask.compute(*picked.values()), strict=True):
        every = np.full((len(frame), found.shape[-1]), np.nan)
        every[inside] = found
        values[label] = every
    return _rows(names, dataset, values, frame)
