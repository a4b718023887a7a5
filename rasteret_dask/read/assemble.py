"""Arrays, a grid and time steps to a dataset with the labels that people expect."""

from __future__ import annotations

from typing import Any

import numpy as np
import rioxarray  # noqa: F401 - gives datasets their .rio
import xarray as xr
from pyproj import CRS

from rasteret_dask.grid.geobox import Grid
from rasteret_dask.grid.radiometry import Number
from rasteret_dask.read.gather import Items
from rasteret_dask.read.request import CubeRequest


def assemble(
    items: Items,
    grid: Grid,
    arrays: dict[str, Any],
    nodata: dict[str, Number],
    request: CubeRequest,
) -> xr.Dataset:
    """Return the dataset.

    Parameters
    ----------
    items : Items
    grid : Grid
    arrays : dict of str to dask.array.Array, shape (time, y, x)
    nodata : dict of str to number or None
    request : CubeRequest

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
        x_attrs = {"standard_name": "projection_x_coordinate", "units": "metre", "axis": "X"}
        y_attrs = {"standard_name": "projection_y_coordinate", "units": "metre", "axis": "Y"}
    coords: dict[str, Any] = {
        "time": ("time", items.steps.labels, {"standard_name": "time", "bounds": "time_bnds"}),
        "y": ("y", y, y_attrs),
        "x": ("x", x, x_attrs),
        "time_bnds": (("time", "bnds"), np.stack([items.steps.labels, items.steps.last], axis=1)),
    }
    if items.offsets is not None:
        coords["s2_offset"] = ("time", _per_step(items, [o.dn for o in items.offsets]))
        coords["s2_offset_rule"] = ("time", _per_step(items, [o.rule for o in items.offsets]))
    dataset: xr.Dataset = xr.Dataset(
        {name: (("time", "y", "x"), a) for name, a in arrays.items()}, coords
    )
    dataset = dataset.rio.write_crs(grid.crs).rio.write_transform(grid.geobox.affine)
    for name in arrays:
        _describe(dataset[name], nodata[name], request)
    dataset.attrs.update(
        {
            "rasteret:crs": grid.crs,
            "rasteret:resolution": [grid.xres, grid.yres],
            "rasteret:level": 0,
        }
    )
    return dataset


def _is_geographic(crs: str) -> bool:
    return bool(CRS.from_user_input(crs).is_geographic)


def _describe(array: xr.DataArray, nodata: Number, request: CubeRequest) -> None:
    if request.masked:
        array.encoding["_FillValue"] = np.nan
    elif nodata is not None:
        array.attrs["_FillValue"] = np.dtype(array.dtype).type(nodata)


def _per_step(items: Items, values: list[Any]) -> np.ndarray[Any, Any]:
    """Return one value for each step: the items' own when they agree, a list in text when they do not."""
    found: list[list[Any]] = [[] for _ in range(len(items.steps))]
    for step, value in zip(items.steps.steps.tolist(), values):
        if value not in found[step]:
            found[step].append(value)
    if all(len(f) == 1 for f in found):
        return np.array([f[0] for f in found])
    return np.array([", ".join(map(str, f)) for f in found])
