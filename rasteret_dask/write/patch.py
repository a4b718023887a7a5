"""Regions of a Zarr store computed anew, in place of those that have holes.

The store may be ours (`write_zarr`) or xarray's own (`Dataset.to_zarr`): values are encoded as the
store says, and the unit is what the store puts in one operation, a shard or else a chunk.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from fsspec.implementations.local import LocalFileSystem
from xarray.conventions import encode_cf_variable

from rasteret_dask.errors import ArgumentError, PipelineError
from rasteret_dask.storage.ask import ask, reason_of
from rasteret_dask.storage.urls import public
from rasteret_dask.write import regions, shards
from rasteret_dask.write.regions import Index, Journal
from rasteret_dask.write.target import resolve

# What a store says of how values became what is stored.
_CODING = ("_FillValue", "missing_value", "scale_factor", "add_offset", "dtype", "_Unsigned")


@dataclass(frozen=True, slots=True)
class Target:
    """A Zarr store that is whole but for holes.

    Parameters
    ----------
    store : str
        Path or URL, as zarr takes it.
    zarr_format : int
    arrays : dict of str to dask.array.Array
        What the store should hold, lazily, in chunks that are its shards.
    """

    store: str
    zarr_format: int
    arrays: dict[str, da.Array]


def open_target(url: str | os.PathLike[str], dataset: xr.Dataset) -> Target:
    """Set beside each other what a store holds and what it should hold.

    Parameters
    ----------
    url : str or path-like
    dataset : Dataset
        Lazy: what was written there, without holes. Variables that the store lacks are passed over.

    Raises
    ------
    ArgumentError
        There is no whole store, or it does not hold this dataset.
    PipelineError
        It cannot be read.
    """
    fs, path = resolve(url)
    store = path if isinstance(fs, LocalFileSystem) else os.fspath(url)
    # Not every writer consolidates, and a warning about it would be none of the caller's business.
    how: dict[str, Any] = {"chunks": None, "consolidated": False}
    try:
        group: Any = ask(zarr.open_group, store, mode="r", passes=shards.OF_ARRAYS)
        there: xr.Dataset = ask(xr.open_zarr, store, passes=shards.OF_ARRAYS, **how)
    except FileNotFoundError:
        raise ArgumentError(
            f"there is no whole Zarr store at {store}", hint="finish writing it first"
        ) from None
    except OSError as error:
        reason = reason_of(error)
        raise PipelineError(f"{public(store)} cannot be read: {reason}") from None
    names = [str(name) for name in dataset.data_vars if name in there.data_vars]
    if not names:
        raise ArgumentError(
            f"{store} holds {', '.join(map(str, there.data_vars)) or 'nothing'}, and the run makes "
            f"{', '.join(map(str, dataset.data_vars))}",
            hint="compute= says what was done to the cube before it was written",
        )
    arrays = {}
    for name in names:
        _check_same(name, there, dataset, store)
        values = _encoded(dataset[name].variable, there[name])
        stored = group[name]
        arrays[name] = values.rechunk(stored.shards or stored.chunks)
    return Target(store, int(group.metadata.zarr_format), arrays)


def _check_same(name: str, there: xr.Dataset, dataset: xr.Dataset, store: str) -> None:
    """Refuse a store whose pixels lie elsewhere."""
    one, other = there[name], dataset[name]
    same = set(one.dims) == set(other.dims) and dict(one.sizes) == dict(other.sizes)
    for dim in one.dims if same else ():
        if dim in one.coords and dim in other.coords:
            same = same and np.array_equal(one[dim].values, other[dim].values)
    if not same:
        raise ArgumentError(
            f"{name!r} of {store} is {dict(one.sizes)}, and the run makes {dict(other.sizes)}, or "
            "their coordinates differ",
            hint="compute= says what was done to the cube before it was written",
        )
    if not isinstance(other.data, da.Array):
        raise ArgumentError(f"{name!r} was computed already", hint="compute= must stay lazy")


def _encoded(variable: xr.Variable, there: xr.DataArray) -> da.Array:
    """Values as the store has them."""
    coding = {key: v for key, v in there.encoding.items() if key in _CODING and v is not None}
    plain = variable.transpose(*there.dims).copy(deep=False)
    plain.attrs = {key: v for key, v in plain.attrs.items() if key not in _CODING}
    plain.encoding = coding
    return encode_cf_variable(plain, name=there.name).data


def patch(
    target: Target, wanted: Mapping[str, frozenset[Index]], journal: Journal, fingerprint: str
) -> int:
    """Compute regions and put them in place of what is there, each in one operation.

    Parameters
    ----------
    target : Target
    wanted : mapping of str to set of tuple of int
        Regions of each variable, in shards.
    journal : Journal
        Its markers say which regions an attempt that was broken off has put already; they are left
        for the caller to remove.
    fingerprint : str
        Of the attempt: markers of another one are not taken for its own.

    Returns
    -------
    int
        Regions that were computed now.
    """
    shapes = {
        name: (array.shape, array.chunksize, str(array.dtype))
        for name, array in target.arrays.items()
    }
    layout = regions.layout(shapes, fingerprint)
    done = journal.read(layout)
    if done is None:
        journal.begin(layout)
        done = frozenset()
    computed = 0
    for group in shards.groups(target.arrays):
        # A band without a hole is not fetched again because its neighbour has one.
        together: dict[tuple[str, ...], list[Index]] = {}
        for index in sorted(frozenset().union(*(wanted[name] for name in group))):
            names = tuple(name for name in group if index in wanted[name])
            if (names[0], index) not in done:
                together.setdefault(names, []).append(index)
        for names, indices in together.items():
            some = {name: group[name] for name in names}
            computed += shards.store_regions(
                some, indices, target.store, journal, target.zarr_format
            )
    return computed


def beside(store: str) -> str:
    """Where the markers of a repair lie."""
    return f"{store.rstrip('/')}.repair"
