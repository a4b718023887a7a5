"""Shards of a Zarr store, computed and stored on the workers, each with its marker.

A shard is put whole, in one operation of the store: no reader meets half of one, and whoever is
killed leaves the old shard or the new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import distributed
import numpy as np
import numpy.typing as npt
import zarr
from dask.base import get_scheduler

from rasteret_dask.cluster.active import slot_given_back
from rasteret_dask.storage.ask import ask
from rasteret_dask.write.regions import Index, Journal

# Regions in one graph: what a scheduler takes in without a pause that anybody notices.
_AT_ONCE = 4096
# What is wrong with an array, not with the store that it goes to.
OF_ARRAYS = (ArithmeticError, LookupError, TypeError, ValueError)


def groups(arrays: Mapping[str, da.Array]) -> list[dict[str, da.Array]]:
    """Variables that are written together: one region reads all of them, and shares what they
    share."""
    found: dict[Any, dict[str, da.Array]] = {}
    for name, array in arrays.items():
        found.setdefault((array.shape, array.chunks), {})[name] = array
    return list(found.values())


def store_regions(
    group: Mapping[str, da.Array],
    wanted: Sequence[Index],
    store: str,
    journal: Journal,
    zarr_format: int = 3,
) -> int:
    """Compute regions of some variables and store them.

    Parameters
    ----------
    group : mapping of str to dask.array.Array
        Values as they are stored, of one shape, in chunks that are the store's shards.
    wanted : sequence of tuple of int
        Indices of the regions, in shards; sorted.
    store : str
        Path or URL.
    journal : Journal
        Gets a marker for each, under the name of the first variable.
    zarr_format : int

    Returns
    -------
    int
        How many were computed.
    """
    if not wanted:
        return 0
    first = next(iter(group.values()))
    stored = da.map_blocks(
        StoreRegion(store, journal, tuple(group), first.chunksize, zarr_format),
        *group.values(),
        dtype=np.uint8,
        chunks=tuple((1,) * n for n in first.numblocks),
        meta=np.empty((0,) * first.ndim, np.uint8),
        token="write-region",
    )
    computed = 0
    for runs in _batches(wanted):
        _compute([stored.blocks[run] for run in runs])
        computed += sum(run[-1].stop - run[-1].start for run in runs)
    return computed


def _compute(runs: Sequence[da.Array]) -> None:
    """Compute runs of regions. On a cluster each region is let go of once it is stored: what a worker holds until all are done would be
    computed again when that worker dies, though it lies in the store."""
    client = getattr(get_scheduler(), "__self__", None)
    if not isinstance(client, distributed.Client):
        dask.compute(*runs)
        return
    # Persisted and not computed, so that nothing waits for a whole run: a worker keeps a task, and with it the plan of all that it has
    # read, as long as anything that depends on it is still to be done.
    stored = distributed.as_completed(
        distributed.futures_of(client.persist(list(runs))), loop=client.loop
    )
    with slot_given_back():
        for future in stored:
            if future.status == "error":
                try:
                    future.result()  # raises it
                finally:  # or the others would go on beside whatever is computed next
                    client.cancel(list(stored.futures))
            # A lost scheduler's futures come back as if they were done.
            if future.status != "finished":
                raise distributed.CancelledError(str(future.key))


def _batches(wanted: Sequence[Index]) -> Iterator[list[tuple[Any, ...]]]:
    """Neighbours along the last axis in one run, runs in batches of `_AT_ONCE` regions."""
    runs: list[tuple[Any, ...]] = []
    size = 0
    start = 0
    for position in range(1, len(wanted) + 1):
        before = wanted[position - 1]
        follows = position < len(wanted) and wanted[position] == (*before[:-1], before[-1] + 1)
        if follows and position - start < _AT_ONCE:
            continue
        first = wanted[start]
        runs.append((*first[:-1], slice(first[-1], before[-1] + 1)))
        size += position - start
        start = position
        if size >= _AT_ONCE:
            yield runs
            runs, size = [], 0
    if runs:
        yield runs


@dataclass(frozen=True, slots=True)
class StoreRegion:
    """Stores one block of every variable, then says so; what workers run.

    Parameters
    ----------
    store : str
        Path or URL.
    journal : Journal
    names : tuple of str
        Variables, in the order of the blocks.
    shards : tuple of int
        Shape of a whole block.
    zarr_format : int
    """

    store: str
    journal: Journal
    names: tuple[str, ...]
    shards: tuple[int, ...]
    zarr_format: int = 3

    def __call__(self, *blocks: Any, block_id: Index) -> npt.NDArray[np.uint8]:
        """Store the blocks at `block_id`."""
        starts = [size * index for size, index in zip(self.shards, block_id, strict=True)]
        where = tuple(slice(a, a + n) for a, n in zip(starts, blocks[0].shape, strict=True))
        for name, block in zip(self.names, blocks, strict=True):
            ask(self._put, name, where, block, passes=OF_ARRAYS)
        self.journal.mark(self.names[0], block_id)
        return np.ones((1,) * len(block_id), np.uint8)

    def _put(self, name: str, where: tuple[slice, ...], block: Any) -> None:
        array: Any = zarr.open_array(
            f"{self.store.rstrip('/')}/{name}", mode="r+", zarr_format=self.zarr_format
        )
        array[where] = block
