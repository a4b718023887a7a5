"""Batches of chips read ahead by threads of this process: for one trainer, often quicker than worker processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

from torchgeo.datasets import stack_samples

from rasteret_dask.errors import ArgumentError

Sample = dict[str, Any]


class ChipLoader:
    """Iterate over batches while the next ones are on their way.

    Reading needs no process of its own: waiting for the network costs nothing, and decoding lets go of Python's lock. So nothing is
    started, pickled or copied, all batches share one cache of tiles, and the first batch comes at once.

    Parameters
    ----------
    dataset : GeoDataset
        With ``__getitems__``.
    sampler : iterable
        Of queries, or of lists of queries when ``batch_size`` is None.
    batch_size : int, optional
    ahead : int
        Batches under way beside the one that is used.
    collate_fn : callable
    drop_last : bool
        Leave out a last batch that is not full.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: Iterable[Any],
        batch_size: int | None = 1,
        *,
        ahead: int = 2,
        collate_fn: Callable[[Sequence[Sample]], Sample] = stack_samples,
        drop_last: bool = False,
    ) -> None:
        if ahead < 1 or (batch_size is not None and batch_size < 1):
            raise ArgumentError("batch_size and ahead must be at least 1")
        self.dataset = dataset
        self.sampler = sampler
        self.batch_size = batch_size
        self.ahead = ahead
        self.collate_fn = collate_fn
        self.drop_last = drop_last

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]  # as torch does: not all have one
        if self.batch_size is None:
            return count
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Sample]:
        """Yield batches in the sampler's order."""
        batches = self._batches()
        with self._started() as start:
            under_way = deque(start(batch) for batch in islice(batches, self.ahead))
            while under_way:
                found = under_way.popleft().result()
                under_way.extend(start(batch) for batch in islice(batches, 1))
                yield found

    @contextmanager
    def _started(self) -> Iterator[Callable[[list[Any]], Future[Sample]]]:
        """Yield what begins to read a batch."""
        pool = ThreadPoolExecutor(self.ahead, thread_name_prefix="rasteret-dask-chips")
        try:
            yield lambda batch: pool.submit(read_batch, self.dataset, batch, self.collate_fn)
        finally:
            # Whoever stops early waits for what is being read, and for nothing else.
            pool.shutdown(cancel_futures=True)

    def _batches(self) -> Iterator[list[Any]]:
        if self.batch_size is None:
            yield from map(list, self.sampler)
            return
        queries = iter(self.sampler)
        while batch := list(islice(queries, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch


def read_batch(
    dataset: Any, batch: list[Any], collate: Callable[[Sequence[Sample]], Sample]
) -> Sample:
    """Return the chips of some queries as one batch."""
    return collate(dataset.__getitems__(batch))
