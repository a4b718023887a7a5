"""Arrays, a grid and time steps to a dataset with the labels that people expect.

State: ``_crs_labels`` and ``_is_geographic`` remember what PROJ says of the last few CRSs.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
import rioxarray  # noqa: F401 - gives datasets their .rio
import xarray as xr
from pyproj import CRS

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.geobox import Grid, metres_per_unit
from rasteret_dask.grid.radiometry import Number
from rasteret_dask.index import schema
from rasteret_dask.read.gather import Items
from rasteret_dask.read.request import CubeRequest

_MAPPING: Final = "spatial_ref"
"""Name of the coordinate that holds CRS and transform, as rioxarray and GDAL call it."""

_UNITS: Final = {
    "metre": 1.0,
    "kilometre": 1000.0,
    "foot": 0.3048,
    "US_survey_foot": 1200.0 / 3937.0,
}
"""How many metres units are long that UDUNITS, and so CF, know by these names."""


def assemble(
    items: Items,
    grid: Grid,
    arrays: dict[str, Any],
    nodata: dict[str, Number],
    request: CubeRequest,
    levels: dict[str, tuple[int, ...]],
    source_crs: tuple[str, ...] = (),
) -> xr.Dataset:
    """Return the dataset.

    Parameters
    ----------
    items : Items
    grid : Grid
    arrays : dict of str to dask.array.Array, shape (time, y, x)
    nodata : dict of str to number or None
    request : CubeRequest
    levels : dict of str to tuple of int
        Which levels each band is read from.
    source_crs : tuple of str
        The CRSs of the files, one of which has become the output's where the caller named none.

    Returns
    -------
    xarray.Dataset
        One variable a band with dims ``time, y, x``; ``time`` is naive UTC ``datetime64[ns]``, ``time_bnds`` the first and last member of
        each step, ``x`` and ``y`` are pixel centres.
    """
    x, y = grid.centres()
    if _is_geographic(grid.crs):
        x_attrs = {"standard_name": "longitude", "units": "degrees_east", "axis": "X"}
        y_attrs = {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"}
    else:
        unit = _unit(grid.crs)
        x_attrs = {"standard_name": "projection_x_coordinate", "units": unit, "axis": "X"}
        y_attrs = {"standard_name": "projection_y_coordinate", "units": unit, "axis": "Y"}
    coords: dict[str, Any] = {
        "time": ("time", items.steps.labels, {"standard_name": "time", "bounds": "time_bnds"}),
        "y": ("y", y, y_attrs),
        "x": ("x", x, x_attrs),
        "time_bnds": (("time", "bnds"), np.stack([items.steps.labels, items.steps.last], axis=1)),
    }
    if items.offsets is not None:
        coords["s2_offset"] = ("time", _per_step(items, [o.dn for o in items.offsets]))
        coords["s2_offset_rule"] = ("time", _per_step(items, [o.rule for o in items.offsets]))
    for name in request.properties:
        coords[name] = ("time", _property(items, name))
    coords[_MAPPING] = ((), 0, grid_mapping(grid))
    dataset: xr.Dataset = xr.Dataset(
        {name: (("time", "y", "x"), a) for name, a in arrays.items()}, coords
    )
    dataset.encoding["grid_mapping"] = _MAPPING
    for name in arrays:
        dataset[name].encoding["grid_mapping"] = _MAPPING
        _describe(dataset[name], nodata[name], request)
        dataset[name].attrs["rasteret:level"] = list(levels[name])
        dataset[name].attrs["rasteret:resampling"] = request.resampling.get(name, "nearest")
    dataset.attrs.update(
        {
            "rasteret:crs": grid.crs,
            "rasteret:source_crs": list(source_crs),
            "rasteret:resolution": [grid.xres, grid.yres],
            "rasteret:level": max(max(found) for found in levels.values()),
        }
    )
    return dataset


def grid_mapping(grid: Grid) -> dict[str, Any]:
    """Return the attributes of the coordinate that says where a grid lies, as rioxarray writes them.

    Rioxarray takes 4 ms for it, a fifth of what opening a small cube takes, most of them for what is the same in every cube of a CRS.
    """
    numbers = " ".join(str(number) for number in grid.geobox.affine.to_gdal())
    return {**_crs_labels(grid.crs), "GeoTransform": numbers}


@lru_cache(maxsize=64)
def _crs_labels(crs: str) -> dict[str, Any]:
    return dict(xr.Dataset().rio.write_crs(crs, grid_mapping_name=_MAPPING)[_MAPPING].attrs)


@lru_cache(maxsize=64)
def _is_geographic(crs: str) -> bool:
    return bool(CRS.from_user_input(crs).is_geographic)


def _unit(crs: str) -> str:
    """Return what a projected CRS counts in, as CF spells it: by name, else as so many metres."""
    size = metres_per_unit(crs) or 1.0
    named = (name for name, length in _UNITS.items() if math.isclose(size, length, rel_tol=1e-8))
    return next(named, f"{size!r} metre")


def _describe(array: xr.DataArray, nodata: Number, request: CubeRequest) -> None:
    if request.masked:
        if array.dtype.kind in "fc":  # a count has no gaps
            array.encoding["_FillValue"] = np.nan
    elif nodata is not None:
        array.attrs["_FillValue"] = np.dtype(array.dtype).type(nodata)


def _property(items: Items, name: str) -> np.ndarray[Any, Any]:
    """Return a column of the items for each step; from the JSON of further properties when it has no column of its own."""
    table = items.table
    if name in table.column_names:
        values = table.column(name).to_pylist()
    elif schema.PROPERTIES in table.column_names:
        texts = table.column(schema.PROPERTIES).to_pylist()
        values = [None if t is None else json.loads(t).get(name) for t in texts]
    else:
        values = [None] * len(table)
    if all(value is None for value in values):
        raise ArgumentError(f"no item has the property {name!r}")
    if all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values):
        return _mean_per_step(items, values)
    return _per_step(items, ["" if v is None else _told(v) for v in values])


def _told(value: Any) -> Any:
    """A value that fits a coordinate: lists and mappings as text."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else value


def _mean_per_step(items: Items, values: list[Any]) -> np.ndarray[Any, Any]:
    steps = items.steps.steps
    numbers = np.array([np.nan if v is None else float(v) for v in values])
    known = ~np.isnan(numbers)
    count = np.bincount(steps[known], minlength=len(items.steps))
    total = np.bincount(steps[known], weights=numbers[known], minlength=len(items.steps))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _per_step(items: Items, values: list[Any]) -> np.ndarray[Any, Any]:
    """Return one value for each step: the items' own when they agree, a list in text when they do not."""
    found: list[list[Any]] = [[] for _ in range(len(items.steps))]
    for step, value in zip(items.steps.steps.tolist(), values):
        if value not in found[step]:
            found[step].append(value)
    if all(len(f) == 1 for f in found):
        return np.array([f[0] for f in found])
    return np.array([", ".join(map(str, f)) for f in found])
