"""A cube as a Zarr store that xarray, rioxarray and GDAL understand.

The unit of a write is a shard. Metadata of the arrays comes first, then shard after shard, each
with a marker of its own once it is stored, then the metadata of the root: until then nobody takes
the store for whole, and a write that was broken off can go on.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401  (the accessor .rio)
import xarray as xr
from fsspec.implementations.local import LocalFileSystem
from pyproj import CRS
from xarray.conventions import encode_cf_variable
from zarr.storage import MemoryStore

from rasteret_dask.errors import ArgumentError, RunInterruptedError
from rasteret_dask.write import regions, shards
from rasteret_dask.write.raster import is_inherited
from rasteret_dask.write.regions import Journal, Key
from rasteret_dask.write.target import resolve

ROOT = "zarr.json"
# What a variable remembers of the file it came from, and a new store must not inherit.
_STALE = ("chunks", "preferred_chunks", "shards", "compressors", "filters", "serializer", "source")
# https://github.com/zarr-conventions: what a group says of the arrays in it.
_CONVENTIONS = (
    {
        "name": "proj:",
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "schema_url": "https://raw.githubusercontent.com/zarr-experimental/geo-proj/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-experimental/geo-proj/blob/v1/README.md",
    },
    {
        "name": "spatial:",
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
    },
)
# Where to read of the run that made a cube: no part of what is in it, and other bytes every time.
_OF_THE_RUN = ("rasteret_run", "rasteret_record")
# A chunk is what a reader fetches at least; shards hold many of them.
_CHUNK_SIDES = (512, 256)


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did.

    Parameters
    ----------
    url : str
    regions : int
        Regions of the store.
    computed : int
        Those that were computed now; the others were there.
    """

    url: str
    regions: int
    computed: int


def write_zarr(
    dataset: xr.Dataset | xr.DataArray,
    url: str | os.PathLike[str],
    *,
    overwrite: bool = True,
    resume: bool = False,
    fingerprint: str | None = None,
) -> Written:
    """Compute a cube and write it as a Zarr store, format 3, with CF attributes.

    Parameters
    ----------
    dataset : Dataset or named DataArray
        Lazy arrays are computed shard by shard, wherever Dask runs; their chunks become the
        store's shards, of chunks of 512 or 256 pixels where that divides them.
    url : str or path-like
        Any URL that fsspec can write.
    overwrite : bool
        Replace a Zarr store that is there. What is not a Zarr store is never replaced.
    resume : bool
        Go on with a write of the same cube that was broken off: regions that have their marker
        are not computed again. Without one, begin.
    fingerprint : str, optional
        Tells whether a broken-off write was of the same cube; the names of the Dask layers,
        which say what is computed from what, by default.

    Returns
    -------
    Written

    Raises
    ------
    ArgumentError
        If something is there that may not be replaced.
    RunInterruptedError
        If a region has no marker when all should have one.
    """
    if isinstance(dataset, xr.DataArray):
        dataset = dataset.to_dataset(name=dataset.name or "data")
    fs, path = resolve(url)
    # zarr takes a plain path for the local disk and a URL for everything else.
    store = path if isinstance(fs, LocalFileSystem) else os.fspath(url)
    prepared = _prepared(dataset)
    files = _metadata(prepared)
    arrays = _arrays(prepared)
    layout = regions.layout(
        {name: (array.shape, array.chunksize, str(array.dtype)) for name, array in arrays.items()},
        fingerprint or ",".join(array.name for array in arrays.values()),
    )
    journal = Journal(regions.beside(store))
    done = journal.read(layout) if resume else None
    if done is None:
        _make_room(fs, path, overwrite, begun=journal.begun())
        journal.begin(layout)
        done = frozenset()
    root = files.pop(ROOT)
    for name, data in files.items():
        _put(fs, f"{path.rstrip('/')}/{name}", data)
    computed = _write_regions(arrays, store, journal, done)
    # Whatever a scheduler says: it is the markers that tell what is stored.
    marked = len(journal.read(layout) or ())
    if marked != layout.count:
        raise RunInterruptedError(
            f"{layout.count - marked} of {layout.count} regions were not stored",
            url=os.fspath(url),
            hint="write it again with resume",
        )
    if resume:
        regions.sweep(store)
    _put(fs, f"{path.rstrip('/')}/{ROOT}", root)
    journal.end()
    return Written(os.fspath(url), layout.count, computed)


def _put(fs: Any, path: str, data: bytes) -> None:
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    fs.pipe_file(path, data)


# --- what is there before the pixels -------------------------------------------------------------
def _metadata(prepared: xr.Dataset) -> dict[str, bytes]:
    """Every file of the store but the shards, the root's consolidated metadata among them."""
    stored: dict[str, Any] = {}
    encoding = {
        str(name): _sharded(array.data.chunksize)
        for name, array in prepared.data_vars.items()
        if array.chunks and array.size
    }
    with warnings.catch_warnings():
        # Consolidated metadata is not part of format 3 yet; readers that don't know it pass it
        # over.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        _blank(prepared).to_zarr(
            MemoryStore(stored),
            mode="w",
            zarr_format=3,
            consolidated=True,
            compute=False,
            encoding=encoding,
        )
    return {name: bytes(buffer.to_bytes()) for name, buffer in stored.items()}


def _blank(prepared: xr.Dataset) -> xr.Dataset:
    """The same without its graph, which xarray would take apart only to hand it back."""
    blank = prepared.copy()
    for name, array in prepared.data_vars.items():
        if array.chunks:
            zeros = da.zeros(array.shape, dtype=array.dtype, chunks=-1)
            blank[name] = (array.dims, zeros, array.attrs, array.encoding)
    return blank


def _sharded(block: tuple[int, ...]) -> dict[str, Any]:
    """Squares of pixels as chunks of a shard, where they divide it; else the block is a chunk."""
    sides = (next((n for n in _CHUNK_SIDES if not size % n), size) for size in block[-2:])
    inner = (*block[:-2], *sides)
    return {"chunks": block} if inner == block else {"chunks": inner, "shards": block}


def _arrays(prepared: xr.Dataset) -> dict[str, da.Array]:
    """Values as they are stored, all in the same shards."""
    return {
        str(name): encode_cf_variable(array.variable, name=name).data
        for name, array in prepared.data_vars.items()
        if array.chunks
    }


# --- the pixels ----------------------------------------------------------------------------------
def _write_regions(
    arrays: Mapping[str, da.Array],
    store: str,
    journal: Journal,
    done: frozenset[Key],
) -> int:
    computed = 0
    for group in shards.groups(arrays):
        name, first = next(iter(group.items()))
        missing = [i for i in np.ndindex(*first.numblocks) if (name, i) not in done]
        computed += shards.store_regions(group, missing, store, journal)
    return computed


def _geo(dataset: xr.Dataset) -> dict[str, Any]:
    """Where the arrays lie, by the conventions ``proj:`` and ``spatial:`` of GeoZarr."""
    images = [a for a in dataset.data_vars.values() if {"y", "x"} <= set(a.dims)]
    if not images or images[0].rio.crs is None or 0 in images[0].shape:
        return {}
    rio = images[0].rio
    authority = CRS.from_user_input(rio.crs.to_wkt()).to_authority()
    named = {"proj:code": ":".join(authority)} if authority else {"proj:wkt2": rio.crs.to_wkt()}
    return {
        "zarr_conventions": [dict(convention) for convention in _CONVENTIONS],
        **named,
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [int(n) for n in rio.shape],
        "spatial:transform": [float(v) for v in tuple(rio.transform(recalc=True))[:6]],
        "spatial:bbox": [float(v) for v in rio.bounds(recalc=True)],
        "spatial:registration": "pixel",
    }


# --- what may be replaced, and what is written ---------------------------------------------------
def _make_room(fs: Any, path: str, overwrite: bool, *, begun: bool) -> None:
    """Remove the store that is there, its root first; one that was `begun` may not look like one yet."""
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
    unfinished = begun or any(
        fs.exists(f"{path.rstrip('/')}/{name}/{ROOT}") for name in sorted(names)
    )
    if ROOT not in names and not unfinished:
        raise ArgumentError(
            f"{path} holds something that is no Zarr store, and is not replaced",
            hint="name a directory that is empty or not there yet",
        )
    if ROOT in names:
        fs.rm_file(f"{path.rstrip('/')}/{ROOT}")
    fs.rm(path, recursive=True)


def _prepared(dataset: xr.Dataset) -> xr.Dataset:
    """Uniform chunks, CF attributes, and nothing left of where the pixels came from."""
    prepared = dataset.copy()
    grid = "spatial_ref" if "spatial_ref" in prepared.coords else None
    kept = {key: value for key, value in prepared.attrs.items() if key not in _OF_THE_RUN}
    prepared.attrs = {"Conventions": "CF-1.11", **kept, **_geo(prepared)}
    for name in prepared.variables:
        variable = prepared[name].variable
        variable.encoding = {k: v for k, v in variable.encoding.items() if k not in _STALE}
        if name in prepared.data_vars and variable.dims:
            # A store has chunks of one size; only the last may be smaller.
            uniform = {
                dim: max(sizes)
                for dim, sizes in zip(
                    variable.dims, variable.chunks or [(n,) for n in variable.shape]
                )
            }
            variable = variable.chunk(uniform)
        else:
            variable = variable.load()
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
