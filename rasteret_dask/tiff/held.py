"""Which numbers a type of samples holds, and a nodata value that one cannot hold."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np


class Told(float):
    """A nodata value that a file's type cannot hold, so that no pixel has it; its sparse tiles hold the file's own, which stands below.

    A number among numbers, and equal to another of its kind only if that has the same value of the file.

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

    def __eq__(self, other: object) -> bool:
        same = float(self) == other
        return same and (not isinstance(other, Told) or self.own == other.own)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(float(self))

    def __repr__(self) -> str:
        return f"Told({float(self)!r}, own={self.own!r})"  # Dask's names are made of it

    def __reduce__(self) -> tuple[Any, ...]:
        return Told, (float(self), self.own)


@lru_cache(maxsize=256)
def holds(dtype: str, value: float | int) -> bool:
    """Whether a type can hold a number; for floats and complex numbers it need not be to the last digit."""
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        return True
    info = np.iinfo(kind)
    # What lies within the bounds is finite.
    return bool(info.min <= value <= info.max and value == int(value))
