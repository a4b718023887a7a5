"""Plans as Dask arrays: the only user of Dask's internals.

The scheduler unpickles and materialises this module's objects, so what is imported here stays light: no reader, no codec, no PROJ.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from dask.array.core import Array, getter
from dask.blockwise import BlockwiseDep, blockwise
from dask.highlevelgraph import HighLevelGraph

from rasteret_dask.plan.chunks import BandPlan, ReadPlan
from rasteret_dask.read import ahead, upcoming

_WHOLE = (slice(None), slice(None), slice(None))


class BlockRead:
    """An array-like that reads a window of one chunk when it is indexed.

    Dask's own ``getter`` indexes it, and Dask's optimiser merges later slices into that index; so a slice of a cube fetches only the
    tiles of the slice.

    Parameters
    ----------
    plan : ReadPlan
    """

    __slots__ = ("claims", "plan", "seen")
    ndim = 3

    def __init__(self, plan: ReadPlan) -> None:
        self.plan = plan
        self.seen: set[tuple[int, Any]] = set()  # what has been read of it, by run
        self.claims: dict[Any, Any] = {}  # what is being fetched ahead
        upcoming.watch()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Time, y, x."""
        return self.plan.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the result."""
        return np.dtype(self.plan.output.dtype)

    def __getitem__(self, index: Any) -> Any:
        # Looked up when a worker runs it: the scheduler holds these objects and must not load codecs and PROJ for it.
        tasks = importlib.import_module("rasteret_dask.read.tasks")
        return ahead.read(self, index if isinstance(index, tuple) else (index,), tasks.Reading)

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockRead, (self.plan,)


class CubeBlocks(BlockwiseDep):
    """Yields the :class:`BlockRead` of each chunk, when Dask asks for it.

    Parameters
    ----------
    plan : BandPlan
    name : str
        Of the layer: equal plans have equal ones.
    """

    produces_tasks = False

    def __init__(self, plan: BandPlan, name: str) -> None:
        self.plan = plan
        self.name = name
        self.edges = plan.edges()
        self.numblocks = plan.numblocks

    def __dask_tokenize__(self) -> str:
        # Dask would pickle the whole plan, to name what has a name already.
        return self.name

    def __getitem__(self, idx: tuple[int, ...]) -> BlockRead:
        t, y, x = idx
        return BlockRead(self.plan.block((t, y, x), self.edges))


def to_dask(plan: BandPlan, name: str) -> Array:
    """Return the lazy array of a band.

    Parameters
    ----------
    plan : BandPlan
    name : str
        Of the layer; equal plans must have equal names, in every process.

    Returns
    -------
    dask.array.Array, shape (time, y, x)
    """
    # getter with exactly two positional arguments: the form that Dask's slice fusion recognises.
    layer = blockwise(
        getter, name, "tyx", CubeBlocks(plan, name), "tyx", _WHOLE, None, numblocks={}
    )
    graph = HighLevelGraph.from_collections(name, layer, dependencies=())
    return Array(graph, name, chunks=plan.chunks, dtype=np.dtype(plan.output.dtype))


def plan_of(array: Any) -> BandPlan | None:
    """Return the plan of an array as :func:`to_dask` has made it; None for one that was sliced or computed with since."""
    layers = array.dask.layers
    inputs = getattr(layers.get(array.name), "io_deps", {}).values()
    plans = [given.plan for given in inputs if isinstance(given, CubeBlocks)]
    return plans[0] if len(layers) == len(plans) == 1 else None
