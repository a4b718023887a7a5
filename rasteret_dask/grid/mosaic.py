"""Several sources of one pixel become one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


def place_first(
    out: npt.NDArray[Any], filled: Bools | None, values: npt.NDArray[Any], valid: Bools | None
) -> None:
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
