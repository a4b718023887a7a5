"""Memory that is none until it is written to."""

from __future__ import annotations

import math
import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

_LEAST = 64 * 1024
"""Bytes from which an array has pages of its own; many small ones would cost more than they could hold."""
_LARGE = 4 * 1024 * 1024
"""Bytes from which huge pages are asked for, as NumPy does: far fewer of them are to be zeroed one by one."""


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array like NumPy's ``empty``, for somebody who will write to it later.

    NumPy's comes from memory that the process has let go of and that is resident already: 64 arrays of 8 MiB that waited for their bytes
    held half a gigabyte, though nothing had been written.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    # Elsewhere a map is shared with children, or counts as soon as it is made.
    if size < _LEAST or sys.platform != "linux":
        return np.empty(shape, kind)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:  # too many maps
        return np.empty(shape, kind)
    if size >= _LARGE:
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, kind).reshape(shape)
