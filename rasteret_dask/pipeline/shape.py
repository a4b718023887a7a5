"""What steps share: what is known of a cube on paper, and how new values get into an old frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  (the accessor .rio)
import xarray as xr
from odc.geo.geobox import GeoBox

from rasteret_dask.errors import ConfigError, GridError
from rasteret_dask.grid.geobox import Grid, from_geobox


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a cube before it exists.

    Parameters
    ----------
    variables : tuple of str
        Names of its variables, in order.
    time : bool
        Whether it has a time dimension.
    table, chips : bool
        Whether it has become a table, or files.
    """

    variables: tuple[str, ...]
    time: bool
    table: bool = False
    chips: bool = False

    def require(self, names: tuple[str, ...], path: str) -> None:
        """Refuse names that are no variables here.

        Raises
        ------
        ConfigError
            With the path of the name.
        """
        for index, name in enumerate(names):
            self.require_one(name, f"{path}[{index}]")

    def require_one(self, name: str, path: str) -> None:
        """Refuse a name that is no variable here.

        Raises
        ------
        ConfigError
            It is none.
        """
        if name not in self.variables:
            raise ConfigError(
                f"no band or variable {name!r} at this point",
                path=path,
                hint=f"there are {', '.join(self.variables)}",
            )

    def require_time(self, path: str) -> None:
        """Refuse to go on without dates.

        Raises
        ------
        ConfigError
            There are none.
        """
        if not self.time:
            raise ConfigError(
                "there is no time dimension left: an earlier step has reduced it", path=path
            )


def like(dtype: Any, ndim: int) -> dict[str, Any]:
    """Told what comes out, Dask does not try the function on empty blocks."""
    return {"dtype": dtype, "meta": np.empty((0,) * ndim, dtype=dtype)}


def finish(data: Any, like: xr.DataArray, source: xr.DataArray) -> xr.DataArray:
    """New values in an old frame: where the pixels lie stays, and NaN is nothing."""
    result = xr.DataArray(data, coords=like.coords, dims=like.dims)
    mapping = source.encoding.get("grid_mapping", source.attrs.get("grid_mapping"))
    if mapping is not None:
        result.encoding["grid_mapping"] = mapping
    result.encoding["_FillValue"] = np.array(np.nan, dtype=result.dtype)[()]
    return result


def grid_of(dataset: xr.Dataset) -> Grid:
    """Where the pixels of a cube lie.

    Raises
    ------
    GridError
        The cube has no CRS.
    """
    rio = dataset[next(iter(dataset.data_vars))].rio
    if rio.crs is None:
        raise GridError("the cube has no CRS")
    return from_geobox(GeoBox(rio.shape, rio.transform(recalc=True), rio.crs.to_wkt()))
