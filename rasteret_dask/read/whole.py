"""A whole cube that is computed in this process: one array, and its chunks decode into it.

Dask computes chunks, then makes the result, then copies each chunk into it: for a moment everything is there twice. Before it begins, the
last task of such a graph is made ours (:func:`prepare`), so a chunk that nothing else depends on can be written where it ends up. The array
itself is Dask's own: xarray refuses to combine arrays of two classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from dask._task_spec import NestedContainer, Task, TaskRef
from dask.array.core import chunks_from_arrays, finalize, getter, slices_from_chunks
from dask.core import flatten

from rasteret_dask.plan.chunks import ReadPlan
from rasteret_dask.read import upcoming
from rasteret_dask.read.upcoming import Run

Array = npt.NDArray[Any]


_DASKS = finalize
"""How Dask puts a result together."""


def prepare(graph: Any) -> None:
    """Have the results that are whole cubes put together by :func:`together`.

    Parameters
    ----------
    graph : dict
        Tasks by key, which Dask is about to begin; anything else is left alone.
    """
    if not isinstance(graph, dict):
        return
    for key, task in list(graph.items()):
        if isinstance(task, Task) and task.func is _DASKS and len(task.args) == 1:
            shape = _shape(graph, task.args[0])
            if shape is not None:
                graph[key] = Task(key, together, task.args[0], shape)


def _shape(graph: dict[Any, Any], blocks: Any) -> tuple[int, ...] | None:
    """Return the shape of the cube whose chunks these are; None if the first ones are not."""
    along = []
    for axis in range(3):
        # The first of each other axis, and all of this one.
        found = _along(blocks, axis)
        sizes = [_extent(graph, key) for key in found]
        if not sizes or None in sizes:
            return None
        along.append(sum(size[axis] for size in sizes if size is not None))
    return tuple(along)


def _along(blocks: Any, axis: int) -> list[Any]:
    for _ in range(axis):
        blocks = blocks.args[0] if isinstance(blocks, NestedContainer) and blocks.args else None
    parts = list(blocks.args) if isinstance(blocks, NestedContainer) else []
    for _ in range(2 - axis):
        parts = [p.args[0] for p in parts if isinstance(p, NestedContainer) and p.args]
    return [part.key for part in parts if isinstance(part, TaskRef)]


def _extent(graph: dict[Any, Any], key: Any) -> tuple[int, int, int] | None:
    task = graph.get(key)
    reads = list(upcoming.reads_of(task)) if isinstance(task, Task) and task.func is getter else []
    return reads[0][0].plan.shape if len(reads) == 1 else None


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
