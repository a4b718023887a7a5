"""Slices as a Dask bag: on the active scheduler, a cluster's or this process's threads."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from dask.bag import Bag
from dask.base import get_scheduler
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT

from rasteret_dask.ingest.slices import work
from rasteret_dask.storage.regions import warn_elsewhere, warn_region


def _client() -> Any:
    """The cluster's client, if slices run on one."""
    client: Any = getattr(get_scheduler(), "__self__", None)
    return client if hasattr(client, "nthreads") else None


def threads() -> int:
    """Slices that run side by side on the active scheduler; one, where a cluster has no workers yet."""
    client = _client()
    return int(CPU_COUNT) if client is None else max(1, sum(client.nthreads().values()))


def compute(
    slices: Sequence[Any], recipe: Any, task: Any = work, shared: Sequence[Delayed] = ()
) -> list[Any]:
    """Run the slices on the active scheduler; on threads when there is none.

    What is `shared` goes to each worker once, as further arguments of the task.

    A bag would otherwise start processes, which run a script without a main guard again. Its graph is made by hand, since a bag
    hashes all that it is given and looks through it for something to compute. A cluster's scheduler, too, would take each
    slice apart and put it together again on its way: to it they are bytes.
    """
    name = f"{task.__name__}-{uuid4().hex}"  # nothing that a cluster still holds of another build
    begin: tuple[Any, ...] = (task,) if _client() is None else (_unpacked, task)
    pack: Callable[[Any], Any] = list if _client() is None else pickle.dumps
    rest = (recipe, *(one.key for one in shared))
    graph = {(name, k): (*begin, pack([one]), *rest) for k, one in enumerate(slices)}
    whole = HighLevelGraph.from_collections(name, graph, dependencies=shared)
    bag = Bag(whole, name, len(slices))
    scheduler = {} if get_scheduler() is not None else {"scheduler": "threads"}
    known = next((r.assets[0].url for one in slices for r in one.records if r.assets), None)
    if known is not None:
        warn_elsewhere(known, recipe.storage)
    outcomes: list[Any] = bag.compute(**scheduler)
    if known is None:  # workers have searched
        for region in sorted({one.region for one in outcomes if one.region is not None}):
            warn_region(region)
    return outcomes


def _unpacked(task: Any, packed: bytes, *rest: Any) -> Any:
    return task(pickle.loads(packed), *rest)
