"""The step that says how alike each pixel is to a reference: the cosine between their bands."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import rioxarray  # noqa: F401  (the accessor .rio)
import xarray as xr
from pyproj import Transformer

from rasteret_dask.errors import ConfigError
from rasteret_dask.grid.geobox import CRS84, lonlat_box, within_a_turn
from rasteret_dask.pipeline.shape import Shape, finish, grid_of
from rasteret_dask.pipeline.work import Similarity, SimilarityStep

Array = npt.NDArray[Any]


def check(step: SimilarityStep, shape: Shape, path: str) -> Shape:
    """What the variables are afterwards.

    Raises
    ------
    ConfigError
        A band is missing, or the vector has another length.
    """
    wanted = step.similarity
    bands = wanted.bands or shape.variables
    shape.require(bands, f"{path}.similarity.bands")
    if wanted.vector is not None and len(wanted.vector) != len(bands):
        raise ConfigError(
            f"{len(wanted.vector)} numbers for {len(bands)} bands", path=f"{path}.similarity.vector"
        )
    return Shape((wanted.name,), shape.time)


def apply(step: SimilarityStep, dataset: xr.Dataset) -> xr.Dataset:
    """Compare every pixel with the reference of its date; nothing is computed yet."""
    wanted = step.similarity
    names = [str(name) for name in wanted.bands or dataset.data_vars]
    arrays = xr.broadcast(*(dataset[name] for name in names))
    lazy = [array.data if array.chunks else da.from_array(array.data) for array in arrays]
    reference = _reference(wanted, dataset, lazy)
    dims = "tyx"[-lazy[0].ndim :]
    data = da.blockwise(
        cosine,
        dims,
        reference,
        "bt" if len(dims) == 3 else "b",
        *(part for array in lazy for part in (array, dims)),
        concatenate=True,
        dtype=np.float32,
        meta=np.empty((0,) * len(dims), dtype=np.float32),
        token="similarity",
    )
    made = finish(data, arrays[0], dataset[names[0]])
    return xr.Dataset({wanted.name: made}, attrs=dataset.attrs)


def _reference(wanted: Similarity, dataset: xr.Dataset, lazy: list[da.Array]) -> da.Array:
    """One number a band (and date), in one chunk a date: shape (bands,) or (bands, times)."""
    if wanted.vector is not None:
        vector = np.asarray(wanted.vector, dtype=np.float64)
        if lazy[0].ndim == 2:
            return da.from_array(vector, chunks=-1)
        every = np.repeat(vector[:, None], lazy[0].shape[0], axis=1)
        return da.from_array(every, chunks=(-1, lazy[0].chunks[0]))
    row, column = _pixel(wanted, dataset)
    return da.stack([array[..., row, column] for array in lazy]).rechunk({0: -1})


def _pixel(wanted: Similarity, dataset: xr.Dataset) -> tuple[int, int]:
    assert wanted.point is not None  # the model holds one of the two
    grid = grid_of(dataset)
    x, y = Transformer.from_crs(CRS84, grid.crs, always_xy=True).transform(*wanted.point)
    x = within_a_turn(np.asarray(x), grid)
    column, row = (x - grid.left) / grid.xres, (grid.top - y) / abs(grid.yres)
    place = int(np.floor(np.round(row, 6))), int(np.floor(np.round(column, 6)))
    height, width = dataset.sizes["y"], dataset.sizes["x"]
    if not (0 <= place[0] < height and 0 <= place[1] < width):
        bounds = dataset[next(iter(dataset.data_vars))].rio.bounds()
        west, south, east, north = lonlat_box(bounds, grid.crs)
        raise ConfigError(
            f"{list(wanted.point)} does not lie in the cube",
            path="similarity.point",
            hint=f"it spans {west:.4f}, {south:.4f} to {east:.4f}, {north:.4f}",
        )
    return place


def cosine(reference: Array, *bands: Array) -> Array:
    """The cosine of the angle between vectors.

    Parameters
    ----------
    reference : ndarray, shape (bands,) or (bands, times)
    *bands : ndarray, shape ([times,] rows, columns)
        NaN for nothing.

    Returns
    -------
    ndarray of float32
        NaN where a band is nothing, where all of them are 0, or where the reference is so.
    """
    # Sums in float64, band after band: no chunking changes them, and one more cube fits.
    dot, own = (np.zeros(bands[0].shape) for _ in range(2))
    for weight, band in zip(reference, bands, strict=True):
        wide = band.astype(np.float64)
        dot += wide * np.asarray(weight)[..., None, None]
        own += wide * wide
    other = np.sum(np.square(reference, dtype=np.float64), axis=0)[..., None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        value: Array = dot / np.sqrt(own * other)
    value[~np.isfinite(value)] = np.nan
    narrow: Array = value.astype(np.float32)
    return narrow
