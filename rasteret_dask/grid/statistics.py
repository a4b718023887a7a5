"""Statistics of the pixels under a box: min, max, mode and quartiles along the first axis of a stack."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]

_QUANTILES = {"q1": 0.25, "med": 0.5, "q3": 0.75}


def _sorted(stack: Array, known: Bools) -> tuple[Array, npt.NDArray[np.int64]]:
    top = np.inf if stack.dtype.kind == "f" else np.iinfo(stack.dtype).max
    return np.sort(np.where(known, stack, top), axis=0), known.sum(axis=0)


def _minimum(stack: Array, known: Bools) -> Array:
    least: Array = _sorted(stack, known)[0][0]
    return least


def _maximum(stack: Array, known: Bools) -> Array:
    return _rank(stack, known, 1.0)


def _rank(stack: Array, known: Bools, quantile: float) -> Array:
    """Return the value at rank ``ceil(quantile * n)`` of n, counted from 1."""
    ordered, count = _sorted(stack, known)
    rank = np.maximum(0, np.ceil(quantile * count).astype(np.int64) - 1)
    found: Array = np.take_along_axis(ordered, rank[None], axis=0)[0]
    return found


def _mode(stack: Array, known: Bools) -> Array:
    """Return the most frequent value; among equals the smallest."""
    ordered, count = _sorted(stack, known)
    best, most = ordered[0].copy(), np.zeros(count.shape, dtype=np.int64)
    run = np.zeros(count.shape, dtype=np.int64)
    for k in range(len(ordered)):
        same = (ordered[k] == ordered[k - 1]) if k else np.zeros(count.shape, dtype=bool)
        run = np.where(same, run + 1, 1)
        better = (run > most) & (k < count)
        np.copyto(best, ordered[k], where=better)
        np.copyto(most, run, where=better)
    result: Array = best
    return result


STATISTICS: dict[str, Callable[[Array, Bools], Array]] = {
    "min": _minimum,
    "max": _maximum,
    "mode": _mode,
    **{name: partial(_rank, quantile=q) for name, q in _QUANTILES.items()},
}
"""By the name of the resampling method: of a stack, and of which of its values count, each of shape (n, …); what nothing counts for is
arbitrary."""
