"""A whole cube that is computed in this process: one array, and its chunks decode into it.

Dask computes chunks, then makes the result, then copies each chunk into it: for a moment everything is there twice. The last task of such a
graph is the cube's own (:meth:`CubeArray.__dask_postcompute__`), so a chunk that nothing else depends on can be written where it ends up.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask._task_spec import Task
from dask.array.core import chunks_from_arrays, finalize, getter, slices_from_chunks
from dask.core import flatten

from rasteret_dask.plan.chunks import ReadPlan
from rasteret_dask.read.upcoming import Run

Array = npt.NDArray[Any]


class CubeArray(da.Array):
    """A band as it is read; whatever is made of it is Dask's own array."""

    __slots__ = ()

    def __dask_postcompute__(self) -> tuple[Any, tuple[Any, ...]]:
        return together, (self.shape,)


def room(run: Run, task: Any, plan: ReadPlan) -> Array | None:
    """Return the part of a result that a chunk becomes; None if it must be an array of its own.

    Parameters
    ----------
    run : Run
    task : hashable
        Key of the task that reads the chunk.
    plan : ReadPlan
        What it reads.

    Returns
    -------
    ndarray, shape and dtype of the chunk, or None
    """
    users = run.users(task)
    own = run.graph.get(task)
    if len(users) != 1 or not isinstance(own, Task) or own.func is not getter:
        return None
    (user,) = users
    last = run.graph.get(user)
    if not isinstance(last, Task) or last.func is not together:
        return None
    shape = last.args[1]
    starts = (plan.first_step, *plan.origin)
    if any(first + size > most for first, size, most in zip(starts, plan.shape, shape)):
        return None
    # Dask hides its callbacks from a computation that begins while another is at work, and a thread of that one may be taken for this
    # run's: of two that read a chunk at once the first alone is given its place.
    mine = object()
    if run.taken.setdefault(task, mine) is not mine:
        return None
    whole = run.results.get(user)
    if whole is None:
        # In one step, whoever is first: the array of the other thread has not been written to.
        whole = run.results.setdefault(user, np.empty(shape, plan.output.dtype))
    return whole[tuple(slice(first, first + size) for first, size in zip(starts, plan.shape))]


def together(blocks: Any, shape: tuple[int, ...]) -> Any:
    """Return the result of a graph: the array that all chunks lie in, each at its place, or else what Dask puts together."""
    if not blocks:
        return finalize(blocks)
    parts = list(flatten(blocks))
    whole = getattr(parts[0], "base", None)
    if not isinstance(whole, np.ndarray) or whole.shape != shape:
        return finalize(blocks)
    for where, part in zip(slices_from_chunks(chunks_from_arrays(blocks)), parts):
        if not _is_at(part, whole, where):
            return finalize(blocks)
    return whole


def _is_at(part: Array, whole: Array, where: Any) -> bool:
    place = whole[where]
    return (
        part.base is whole
        and part.dtype == whole.dtype
        and (part.shape, part.strides) == (place.shape, place.strides)
        and part.ctypes.data == place.ctypes.data
    )
