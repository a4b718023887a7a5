"""Windows of equal size out of a cube, as files: what training reads.

Workers write the files, each whole or not at all; ``chips.parquet``, which lists them, is written
last and taken away first, so that a folder with a list is a finished one. What was written before a
run was broken off is known by markers, some hundred chips each (`write.regions`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely
import xarray as xr
from affine import Affine
from rasterio.io import MemoryFile

from rasteret_dask.errors import ConfigError, PipelineError
from rasteret_dask.grid.geobox import Grid, within_a_turn
from rasteret_dask.pipeline.shape import grid_of
from rasteret_dask.pipeline.work import Chips
from rasteret_dask.write.raster import common_nodata, is_nodata, is_taken, nodata_of
from rasteret_dask.write.regions import Journal, Layout, beside
from rasteret_dask.write.target import put_bytes, put_file, resolve, scratch_file

Array = npt.NDArray[Any]
LIST = "chips.parquet"
# What the list says of every chip; columns that are taken along have other names.
COLUMNS = ("id", "row", "col", "time", "file", "valid", "geometry")
_MARK = "chips"
_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class ChipSet:
    """Windows of a cube.

    Parameters
    ----------
    dataset : Dataset
        Lazy or not; dims ``([time,] y, x)``.
    places : DataFrame
        A row a chip: ``id``, ``row`` and ``col`` of its first pixel, and columns taken along.
    left_out : int
        How many would have reached beyond the cube.
    size : int
        Pixels along a side.
    min_valid : float
        Share of valid pixels that a chip must have.
    """

    dataset: xr.Dataset
    places: pd.DataFrame
    left_out: int
    size: int
    min_valid: float


@dataclass(frozen=True, slots=True)
class ChipFile:
    """How the files of one place are made; what workers run.

    Parameters
    ----------
    urls : tuple of str
        One a date.
    names : tuple of str
        Of the bands.
    crs : str
    transform : tuple of float
        Of the chip's corner.
    empty : tuple
        What stands for nothing in each band.
    nodata : number or None
        What does in the files.
    min_valid : float
    """

    urls: tuple[str, ...]
    names: tuple[str, ...]
    crs: str
    transform: tuple[float, ...]
    empty: tuple[Any, ...]
    nodata: Any
    min_valid: float

    def __call__(self, *bands: Array) -> list[float | None]:
        """Write the dates that are valid enough; their shares, and None for the others.

        Parameters
        ----------
        *bands : ndarray, shape ([times,] size, size)

        Raises
        ------
        PipelineError
            A band has the value that stands for nothing in another as a value.
        """
        dtype = np.result_type(*bands)
        shares: list[float | None] = []
        for step, url in enumerate(self.urls):
            images = [band if band.ndim == 2 else band[step] for band in bands]
            nothing = [is_nodata(i, e) for i, e in zip(images, self.empty, strict=True)]
            share = float(1 - np.logical_or.reduce(nothing).mean())
            if share < self.min_valid or all(part.all() for part in nothing):
                shares.append(None)
                continue
            for name, image, own in zip(self.names, images, self.empty, strict=True):
                if is_taken(image, own, self.nodata):
                    raise PipelineError(
                        f"{name} has pixels of {self.nodata:g}, which stands for nothing in "
                        "another band, and a file has one such value",
                        url=url,
                        hint="cut chips of the bands that differ in it by themselves",
                    )
            stacked = np.stack([image.astype(dtype) for image in images])
            if self.nodata is not None:
                stacked[np.stack(nothing)] = self.nodata
            put_bytes(self._file(stacked), url)
            shares.append(share)
        return shares

    def _file(self, stacked: Array) -> bytes:
        count, rows, columns = stacked.shape
        profile = {
            "driver": "GTiff",
            "width": columns,
            "height": rows,
            "count": count,
            "dtype": stacked.dtype,
            "crs": self.crs,
            "transform": Affine(*self.transform),
            "nodata": self.nodata,
            "compress": "deflate",
            "predictor": 3 if stacked.dtype.kind == "f" else 2,
        }
        with MemoryFile() as memory:
            with memory.open(**profile) as image:
                image.write(stacked)
                image.descriptions = self.names
            return bytes(memory.read())


def cut(step: Chips, dataset: xr.Dataset, frame: geopandas.GeoDataFrame | None) -> ChipSet:
    """Find the windows; nothing is computed.

    Parameters
    ----------
    step : Chips
    dataset : Dataset
    frame : GeoDataFrame, optional
        What chips lie around; a regular pattern without it.

    Raises
    ------
    ConfigError
        Not one chip lies within the cube, or the vector file lacks a column.
    """
    height, width = dataset.sizes["y"], dataset.sizes["x"]
    if frame is None:
        stride = step.stride or step.size
        rows = np.arange(0, height - step.size + 1, stride)
        columns = np.arange(0, width - step.size + 1, stride)
        row, column = (part.ravel() for part in np.meshgrid(rows, columns, indexing="ij"))
        names = [f"{r:06d}-{c:06d}" for r, c in zip(row, column, strict=True)]
        places = pd.DataFrame({"id": names, "row": row, "col": column})
    else:
        places = _around(step, dataset, frame)
    fits = places.row.between(0, height - step.size) & places.col.between(0, width - step.size)
    if not fits.any():
        raise ConfigError(
            f"no chip of {step.size} pixels lies within the cube, which has {height} x {width}",
            path="chips",
        )
    left_out = int((~fits).sum())
    return ChipSet(dataset, places[fits], left_out, step.size, step.min_valid)


def _around(step: Chips, dataset: xr.Dataset, frame: geopandas.GeoDataFrame) -> pd.DataFrame:
    for column in (*([step.id] if step.id else []), *step.keep):
        if column not in frame.columns:
            given = ", ".join(str(c) for c in frame.columns)
            raise ConfigError(f"no column {column!r} in the vector file", hint=f"it has {given}")
    grid = grid_of(dataset)
    # By shapely: of a grid in degrees it is the grid's own plane that counts, and GeoPandas would warn.
    middle = shapely.centroid(frame.to_crs(grid.crs).geometry.to_numpy())
    across = (within_a_turn(shapely.get_x(middle), grid) - grid.left) / grid.xres
    down = (grid.top - shapely.get_y(middle)) / abs(grid.yres)
    if not (np.isfinite(across) & np.isfinite(down)).all():
        raise ConfigError("the vector file has a row without a geometry", path="chips.around")
    names = [str(n) for n in (range(len(frame)) if step.id is None else frame[step.id])]
    for name, times in Counter(names).items():
        if times > 1 or name in ("", ".", "..") or "/" in name or "\\" in name:
            raise ConfigError(
                f"{step.id} is {name!r}, twice or no part of a file name", path="chips.id"
            )
    half = step.size // 2
    found = {
        "id": names,
        "row": np.floor(np.round(down, 6)).astype(np.int64) - half,
        "col": np.floor(np.round(across, 6)).astype(np.int64) - half,
    }
    kept = {column: frame[column].to_numpy() for column in step.keep if column != step.id}
    # By place, so that chips of one chunk are computed together.
    return pd.DataFrame(found | kept).sort_values(["row", "col"], kind="stable")


def write_chips(chips: ChipSet, url: str, *, resume: bool = False) -> dict[str, Any]:
    """Write every chip, then the list of them.

    Parameters
    ----------
    chips : ChipSet
    url : str
        A folder: anything that fsspec can write.
    resume : bool
        Go on with what was broken off, where it was the same.

    Returns
    -------
    dict
        ``files``; ``left_out``: chips beyond the cube, and files that were not valid enough.

    Raises
    ------
    PipelineError
        No chip is valid enough, or the folder holds images that are not of such a run.
    """
    folder = url.rstrip("/")
    journal = Journal(beside(f"{folder}/{LIST}"))
    done = journal.read(_layout(chips)) if resume else None
    if done is None:
        _make_room(chips, folder)
        journal.begin(_layout(chips))
        done = frozenset()
    dates, grid = _dates(chips.dataset), grid_of(chips.dataset)
    rows: list[dict[str, Any]] = []
    missed = 0
    for begin in range(0, len(chips.places), _AT_ONCE):
        some = _records(chips.places.iloc[begin : begin + _AT_ONCE])
        if (_MARK, (begin,)) in done:
            told = _kept(journal, begin)
        else:
            told = dask.compute(*(_task(chips, grid, place, folder, dates) for place in some))
            _keep(journal, begin, told)
        for place, shares in zip(some, told, strict=True):
            missed += shares.count(None)
            rows += _listed(chips, grid, place, dates, shares)
    if not rows:
        raise PipelineError(f"no chip has {chips.min_valid:.0%} of valid pixels", url=url)
    frame = geopandas.GeoDataFrame(rows, crs=grid.crs)
    with scratch_file(".parquet") as scratch:
        frame.to_parquet(scratch, compression="zstd", index=False)
        put_file(scratch, f"{folder}/{LIST}")
    journal.end()
    return {"files": len(rows), "left_out": missed + chips.left_out}


def _make_room(chips: ChipSet, folder: str) -> None:
    """Take away the list and the files of a run before: who reads a folder by its names must not
    meet what is not in the list."""
    fs, path = resolve(folder)
    if not fs.exists(path):
        return
    there = {entry.rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False)}
    ours = {f"{one}{said}.tif" for one in chips.places["id"] for said, _ in _dates(chips.dataset)}
    if LIST in there:
        with fs.open(f"{path}/{LIST}", "rb") as file:
            ours |= set(pd.read_parquet(file, columns=["file"])["file"])
    strange = sorted(name for name in there - ours if name.endswith(".tif"))
    if strange:
        raise PipelineError(
            f"the folder holds {len(strange)} images that are not of this run, as {strange[0]}",
            url=folder,
            hint="write to another folder, or take them away",
        )
    for name in [LIST, *sorted(ours)]:
        if name in there:
            fs.rm_file(f"{path}/{name}")


def _layout(chips: ChipSet) -> Layout:
    """Of what is cut, and in which portions."""
    names = [str(getattr(array.data, "name", "")) for array in chips.dataset.data_vars.values()]
    places = chips.places[["id", "row", "col"]].to_numpy().tolist()
    said = json.dumps([names, places, chips.size, chips.min_valid, _AT_ONCE], default=str)
    portions = -(-len(chips.places) // _AT_ONCE)
    return Layout(hashlib.sha256(said.encode()).hexdigest(), portions)


def _keep(journal: Journal, begin: int, told: Sequence[Sequence[float | None]]) -> None:
    """What there is to say of a portion, before the marker that says it is there."""
    put_bytes(json.dumps(told).encode(), f"{journal.url}/{begin}.json")
    journal.mark(_MARK, (begin,))


def _kept(journal: Journal, begin: int) -> list[list[float | None]]:
    fs, path = resolve(f"{journal.url}/{begin}.json")
    told: list[list[float | None]] = json.loads(fs.cat_file(path))
    return told


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _dates(dataset: xr.Dataset) -> list[tuple[str, Any]]:
    """What a file's name says of the date, and the date; one of nothing without a time."""
    if "time" not in dataset.dims:
        return [("", None)]
    times = pd.DatetimeIndex(dataset["time"].values)
    for form in ("%Y%m%d", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%S%f"):
        said = times.strftime(form)
        if said.is_unique:
            return [(f"_{one}", time) for one, time in zip(said, times, strict=True)]
    # Steps that are told apart by something else, as by their items' ids.
    return [(f"_{one}-{n}", time) for n, (one, time) in enumerate(zip(said, times, strict=True))]


def _corner(grid: Grid, row: int, column: int) -> tuple[float, float]:
    return grid.left + column * grid.xres, grid.top - row * abs(grid.yres)


def _task(
    chips: ChipSet,
    grid: Grid,
    place: Mapping[str, Any],
    folder: str,
    dates: Sequence[tuple[str, Any]],
) -> Any:
    row, column = int(place["row"]), int(place["col"])
    arrays = list(chips.dataset.data_vars.values())
    x, y = _corner(grid, row, column)
    empty = tuple(nodata_of(array) for array in arrays)
    writer = ChipFile(
        urls=tuple(f"{folder}/{place['id']}{said}.tif" for said, _ in dates),
        names=tuple(str(name) for name in chips.dataset.data_vars),
        crs=grid.crs,
        transform=(grid.xres, 0.0, x, 0.0, -abs(grid.yres), y),
        empty=empty,
        nodata=common_nodata([(a.dtype, e) for a, e in zip(arrays, empty, strict=True)]),
        min_valid=chips.min_valid,
    )
    window = (..., slice(row, row + chips.size), slice(column, column + chips.size))
    return dask.delayed(writer, pure=False)(*(array.data[window] for array in arrays))


def _listed(
    chips: ChipSet,
    grid: Grid,
    place: Mapping[str, Any],
    dates: Sequence[tuple[str, Any]],
    shares: Sequence[float | None],
) -> list[dict[str, Any]]:
    row, column = int(place["row"]), int(place["col"])
    west, north = _corner(grid, row, column)
    east, south = _corner(grid, row + chips.size, column + chips.size)
    found = []
    for (said, time), share in zip(dates, shares, strict=True):
        if share is not None:
            dated = {} if time is None else {"time": time}
            file = {"file": f"{place['id']}{said}.tif", "valid": share}
            shape = shapely.box(west, south, east, north)
            found.append({**place, **dated, **file, "geometry": shape})
    return found
