"""A cube as a Zarr store that xarray, rioxarray and GDAL understand."""

from __future__ import annotations

import os
import warnings
from typing import Any

import xarray as xr
import zarr
from fsspec.implementations.local import LocalFileSystem

from rasteret_dask.errors import ArgumentError
from rasteret_dask.write.raster import is_inherited
from rasteret_dask.write.target import resolve

_ROOT = "zarr.json"
# What a variable remembers of the file it came from, and a new store must not inherit.
_STALE = ("chunks", "preferred_chunks", "shards", "compressors", "filters", "serializer", "source")


def write_zarr(
    dataset: xr.Dataset | xr.DataArray,
    url: str | os.PathLike[str],
    *,
    overwrite: bool = True,
) -> str:
    """Compute a cube and write it as a Zarr store, format 3, with CF attributes.

    The root's metadata is written last: a store that was not finished does not open.

    Parameters
    ----------
    dataset : Dataset or named DataArray
        Lazy arrays are computed chunk by chunk, wherever Dask runs; their chunks become the
        store's.
    url : str or path-like
        Any URL that fsspec can write.
    overwrite : bool
        Replace a Zarr store that is there. What is not a Zarr store is never replaced.

    Returns
    -------
    str
        The URL.

    Raises
    ------
    ArgumentError
        If something is there that may not be replaced.
    """
    if isinstance(dataset, xr.DataArray):
        dataset = dataset.to_dataset(name=dataset.name or "data")
    fs, path = resolve(url)
    _make_room(fs, path, overwrite)
    # zarr takes a plain path for the local disk and a URL for everything else.
    store = path if isinstance(fs, LocalFileSystem) else os.fspath(url)
    pending = _prepared(dataset).to_zarr(
        store, mode="w", zarr_format=3, consolidated=False, compute=False
    )
    # Chunks go straight to their arrays; without its root nobody takes the store for whole.
    root = f"{path.rstrip('/')}/{_ROOT}"
    metadata = fs.cat_file(root)
    fs.rm_file(root)
    pending.compute()
    fs.pipe_file(root, metadata)
    with warnings.catch_warnings():
        # Consolidated metadata is not part of format 3 yet; readers that don't know it pass it
        # over.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(store, zarr_format=3)
    return os.fspath(url)


def _make_room(fs: Any, path: str, overwrite: bool) -> None:
    if not fs.exists(path):
        return
    if not fs.isdir(path):
        raise ArgumentError(f"{path} is a file; a Zarr store is a directory")
    names = {entry.rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False)}
    if not names:
        return
    if not overwrite:
        raise ArgumentError(f"{path} is there already", hint="pass overwrite=True to replace it")
    # An unfinished store has no root, but arrays.
    unfinished = any(fs.exists(f"{path.rstrip('/')}/{name}/{_ROOT}") for name in sorted(names))
    if _ROOT not in names and not unfinished:
        raise ArgumentError(
            f"{path} holds something that is no Zarr store, and is not replaced",
            hint="name a directory that is empty or not there yet",
        )


def _prepared(dataset: xr.Dataset) -> xr.Dataset:
    """Uniform chunks, CF attributes, and nothing left of where the pixels came from."""
    prepared = dataset.copy()
    prepared.attrs = {"Conventions": "CF-1.11", **prepared.attrs}
    grid = "spatial_ref" if "spatial_ref" in prepared.coords else None
    for name in prepared.variables:
        variable = prepared[name].variable
        variable.encoding = {k: v for k, v in variable.encoding.items() if k not in _STALE}
        if variable.chunks is not None:
            # A store has chunks of one size; only the last may be smaller.
            uniform = {dim: max(sizes) for dim, sizes in zip(variable.dims, variable.chunks)}
            variable = variable.chunk(uniform)
        declared = variable.attrs.get("_FillValue")
        if declared is not None and is_inherited(declared, variable.dtype):
            variable.attrs = {k: v for k, v in variable.attrs.items() if k != "_FillValue"}
        if name in prepared.data_vars and grid and {"y", "x"} <= set(variable.dims):
            # Arithmetic drops what ties a variable to its CRS. As an attribute (not as encoding)
            # xarray also lists it among the coordinates, and every way to open the store finds it.
            variable.attrs = {**variable.attrs, "grid_mapping": grid}
            variable.encoding.pop("grid_mapping", None)
        prepared[name] = (variable.dims, variable.data, variable.attrs, variable.encoding)
    return prepared
