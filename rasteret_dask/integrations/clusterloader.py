"""Batches of chips computed by a Dask cluster and streamed to one trainer: when one machine decodes too slowly for its GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import distributed
from torchgeo.datasets import stack_samples

from rasteret_dask.errors import ArgumentError
from rasteret_dask.integrations.chiploader import ChipLoader, Sample, read_batch

_TRANSFERS = 4
"""Batches on their way to the trainer at the same time; the first of them is the next that it wants."""


class ClusterLoader(ChipLoader):
    """Iterate over batches that the workers of a cluster read, decode, transform and stack.

    Each batch is a task; the worker that runs it fetches the bytes, and the batch alone comes to the trainer, in the sampler's order.
    Never more than ``ahead`` batches are under way or waiting, so neither side's memory grows. A worker that dies takes with it only
    what another does again. Each worker holds the dataset once, with one cache of tiles for all of its threads.

    Batches pass through the scheduler unless the client may ask workers itself: ``Client(..., direct_to_workers=True)``.

    Parameters
    ----------
    dataset : GeoDataset
        With ``__getitems__``; it and its transforms must pickle.
    sampler : iterable
        Of queries, or of lists of queries when ``batch_size`` is None.
    batch_size : int, optional
    client : distributed.Client, optional
        The one that is active by default.
    ahead : int, optional
        Batches under way beside the one that is used; twice the cluster's threads, as they are when iteration begins, by default.
    collate_fn : callable
        Run by the workers.
    drop_last : bool
        Leave out a last batch that is not full.

    Raises
    ------
    ArgumentError
        If there is no client.
    RasteretError
        From iterating: the error of a failed read as it was raised on the worker, with item, band, URL and tile.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: Iterable[Any],
        batch_size: int | None = 1,
        *,
        client: distributed.Client | None = None,
        ahead: int | None = None,
        collate_fn: Callable[[Sequence[Sample]], Sample] = stack_samples,
        drop_last: bool = False,
    ) -> None:
        # Counted when iteration begins: workers may still be on their way.
        self._follow = ahead is None
        super().__init__(
            dataset,
            sampler,
            batch_size,
            ahead=1 if ahead is None else ahead,
            collate_fn=collate_fn,
            drop_last=drop_last,
        )
        self.client = _active_client() if client is None else client

    @contextmanager
    def _started(self) -> Iterator[Callable[[list[Any]], Future[Sample]]]:
        client = self.client
        if self._follow:
            self.ahead = max(2, 2 * sum(client.nthreads().values()))
        # A task that gives the dataset back, not scattered data: those would be gone with the worker that holds them.
        shared = client.submit(_same, self.dataset, pure=False)
        waiting: WeakSet[Any] = WeakSet()
        pool = ThreadPoolExecutor(_TRANSFERS, thread_name_prefix="rasteret-dask-batches")

        def start(batch: list[Any]) -> Future[Sample]:
            # Without a timeout of zero, tasks that are submitted quickly are run in any order.
            future = client.submit(
                _batch, shared, batch, self.collate_fn, pure=False, fifo_timeout="0ms"
            )
            waiting.add(future)
            return pool.submit(future.result)

        try:
            yield start
        finally:
            client.cancel(list(waiting))
            pool.shutdown(cancel_futures=True)


def _active_client() -> distributed.Client:
    try:
        return distributed.get_client()
    except ValueError:
        raise ArgumentError(
            "there is no Dask client, so no cluster to read chips",
            hint="open one before, or give client=; ChipLoader reads in this process",
        ) from None


def _same(dataset: Any) -> Any:
    return dataset


def _batch(dataset: Any, batch: list[Any], collate: Callable[[Sequence[Sample]], Sample]) -> Sample:
    # A plain dict: Dask sends its tensors as they lie in memory, where it would pickle any other mapping.
    found = read_batch(dataset, batch, collate)
    return dict(found) if isinstance(found, Mapping) else found
