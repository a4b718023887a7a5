"""What an index of a chunk covers, and what is left of it within that."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def cover(
    index: tuple[Any, ...], shape: tuple[int, int, int]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[Any, ...]]:
    """Return the smallest box that holds an index, and the index within that box, for :func:`pick`.

    Raises
    ------
    IndexError
        If a number lies outside the shape.
    """
    full = tuple(index) + (slice(None),) * (3 - len(index))
    boxes: list[tuple[int, int]] = []
    rest: list[Any] = []
    for item, size in zip(full, shape, strict=True):
        box, within = _cover_one(item, size)
        boxes.append(box)
        rest.append(within)
    return boxes[0], boxes[1], boxes[2], tuple(rest)


def _cover_one(item: Any, size: int) -> tuple[tuple[int, int], Any]:
    if isinstance(item, slice):
        numbers = range(*item.indices(size))
        if not numbers:
            return (0, 0), slice(0, 0)
        low, high = min(numbers[0], numbers[-1]), max(numbers[0], numbers[-1])
        if numbers.step > 0:
            return (low, high + 1), slice(None, None, numbers.step)
        return (low, high + 1), slice(high - low, None, numbers.step)
    if isinstance(item, (int, np.integer)):
        number = range(size)[int(item)]
        return (number, number + 1), 0
    wanted = np.asarray(item)
    if wanted.dtype == bool:
        if wanted.shape != (size,):
            raise IndexError(f"a mask of shape {wanted.shape} does not fit a dimension of {size}")
        wanted = np.flatnonzero(wanted)
    if not wanted.size:
        return (0, 0), np.zeros(0, dtype=np.int64)
    wanted = np.arange(size)[wanted]
    return (int(wanted.min()), int(wanted.max()) + 1), wanted - wanted.min()


def pick(array: Array, rest: tuple[Any, ...]) -> Array:
    """Index each axis by itself, as Dask and xarray do: NumPy would pair two lists, and move the axis of a list beside a number."""
    lists = [isinstance(r, np.ndarray) for r in rest]
    out = array[tuple(slice(None) if listed else r for r, listed in zip(rest, lists))]
    axis = 0
    for r, listed in zip(rest, lists):
        if listed:
            out = out.take(r, axis=axis)
        axis += not isinstance(r, int)
    return out
