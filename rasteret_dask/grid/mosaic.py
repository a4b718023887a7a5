"""Several sources of one pixel become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
Layer = tuple[tuple[slice, slice], Array, Bools | None]
"""Where in the output, values there, and which of them are valid (None: all)."""

METHODS = ("first", "last", "min", "max", "mean", "median", "count")


def place_first(out: Array, filled: Bools | None, values: Array, valid: Bools | None) -> None:
    """Put values where nothing is yet: the first valid pixel, in the order of the calls, stays.

    Parameters
    ----------
    out : ndarray, shape (rows, columns)
        Written in place.
    filled : ndarray of bool, same shape, optional
        Where ``out`` has been given a value already; brought up to date. None when this is the only source.
    values : ndarray, same shape and dtype as ``out``
    valid : ndarray of bool, same shape, optional
        Where ``values`` mean something; None: everywhere.
    """
    take = valid
    if filled is not None:
        take = ~filled if valid is None else valid & ~filled
        filled |= take
    if take is None:
        out[...] = values
    else:
        np.copyto(out, values, where=take)


def merge(out: Array, layers: Sequence[Layer], method: str | Callable[[Array], Array]) -> None:
    """Write one value for each pixel that has at least one valid source.

    Parameters
    ----------
    out : ndarray, shape (rows, columns)
        Holds the fill value; written in place.
    layers : sequence of Layer
        In the order of the sources.
    method : str or callable
        One of :data:`METHODS`, or a function of a float array ``(sources, rows, columns)`` with NaN where there is nothing to
        ``(rows, columns)``.
    """
    if method == "count":
        out[...] = 0
        for box, values, valid in layers:
            out[box] += (
                np.ones(values.shape, out.dtype) if valid is None else valid.astype(out.dtype)
            )
    elif method in ("min", "max"):
        _extreme(out, layers, np.minimum if method == "min" else np.maximum)
    elif method == "mean":
        _mean(out, layers)
    else:
        choose = _median if method == "median" else method
        assert not isinstance(choose, str)
        _stacked(out, layers, choose)


def _extreme(out: Array, layers: Sequence[Layer], better: Any) -> None:
    filled = np.zeros(out.shape, dtype=bool)
    for box, values, valid in layers:
        part, known = out[box], filled[box]
        both = known if valid is None else known & valid
        np.copyto(part, better(part, values), where=both)
        new = ~known if valid is None else valid & ~known
        np.copyto(part, values, where=new)
        known |= new


def _mean(out: Array, layers: Sequence[Layer]) -> None:
    total = np.zeros(out.shape, dtype=np.complex128 if out.dtype.kind == "c" else np.float64)
    count = np.zeros(out.shape, dtype=np.int64)
    for box, values, valid in layers:
        weight = np.ones(values.shape, dtype=bool) if valid is None else valid
        total[box] += np.where(weight, values, 0)
        count[box] += weight
    some = count > 0
    found = total[some] / count[some]
    out[some] = np.rint(found) if out.dtype.kind in "iu" else found


def _median(stack: Array) -> Array:
    found: Array = np.nanmedian(stack, axis=0)
    return found


def _stacked(out: Array, layers: Sequence[Layer], method: Callable[[Array], Array]) -> None:
    """Bring the sources of the pixels that have any into one array; a few rows at a time."""
    rows = max(1, 2**21 // max(1, out.shape[1] * len(layers)))
    for top in range(0, out.shape[0], rows):
        part = slice(top, min(out.shape[0], top + rows))
        shape = (len(layers), part.stop - part.start, out.shape[1])
        stack = np.full(shape, np.nan, np.complex128 if out.dtype.kind == "c" else np.float64)
        for k, ((ys, xs), values, valid) in enumerate(layers):
            low, high = max(part.start, ys.start), min(part.stop, ys.stop)
            if low >= high:
                continue
            inner = slice(low - ys.start, high - ys.start)
            seen = values[inner] if valid is None else np.where(valid[inner], values[inner], np.nan)
            stack[k, low - part.start : high - part.start, xs] = seen
        some = ~np.isnan(stack).all(axis=0)
        if some.any():
            found = method(stack[:, some][:, :, None])[:, 0]
            out[part][some] = np.rint(found) if out.dtype.kind in "iu" else found
