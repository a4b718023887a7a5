"""Tiles without bytes: what their pixels are."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from rasteret_dask.plan.sources import SourceRead


class Told(float):
    """A nodata value that a file's type cannot hold, so that no pixel has it; its sparse tiles hold the file's own, which stands below.

    Parameters
    ----------
    value : number
    own : number
        The file's.
    """

    own: float | int

    def __new__(cls, value: float | int, own: float | int) -> Told:
        """Make one."""
        made = super().__new__(cls, value)
        made.own = own
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Told, (float(self), self.own)


def sparse_value(source: SourceRead) -> float | int:
    """Return what the pixels of a source's sparse tiles are: its nodata, or 0 as in GDAL.

    Where a caller, a descriptor or STAC names a value that the type cannot hold, they are the file's own, or 0, and valid.
    """
    nodata = source.nodata
    if isinstance(nodata, Told):
        return nodata.own
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
