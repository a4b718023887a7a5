"""Tiles without bytes: what their pixels are."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from rasteret_dask.plan.sources import SourceRead


def sparse_value(source: SourceRead) -> float | int:
    """Return what the pixels of a source's sparse tiles are: its nodata, or 0 as in GDAL.

    0 also where the type cannot hold what is called nodata: a file's own value fits, but a caller, a descriptor or STAC may name another,
    which then is no pixel's.
    """
    nodata = source.nodata
    return nodata if nodata is not None and holds(source.layout.dtype, nodata) else 0


@lru_cache(maxsize=256)
def holds(dtype: str, value: float | int) -> bool:
    """Whether a type can hold a number; for floats and complex numbers it need not be to the last digit."""
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        return True
    info = np.iinfo(kind)
    # What lies within the bounds is finite.
    return bool(info.min <= value <= info.max and value == int(value))
