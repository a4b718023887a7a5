"""Arrays that are made when they are needed.

A read whose bytes are fetched before its turn must hold no memory but those. What NumPy makes arrays of is resident since the last time, so
to make them and not write to them is not enough.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Later:
    """An array that is made when somebody first asks for it, by whichever thread.

    Parameters
    ----------
    make : callable
        Without arguments, to the array; called once.
    """

    __slots__ = ("_lock", "_made", "_make")

    def __init__(self, make: Callable[[], Array]) -> None:
        self._make: Callable[[], Array] | None = make
        self._made: Array | None = None
        self._lock = threading.Lock()

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Later:
        """Of whatever the memory holds, as NumPy's."""
        return cls(lambda: np.empty(shape, dtype))

    def part(self, index: Any) -> Later:
        """A view of it; asking for that makes the whole."""
        return Later(lambda: self.now()[index])

    def now(self) -> Array:
        """The array."""
        if self._made is None:
            with self._lock:
                if self._make is not None:
                    self._made, self._make = self._make(), None
        assert self._made is not None
        return self._made


Place = Array | Later
"""Where pixels go."""


def now(place: Place) -> Array:
    """Return the array itself."""
    return place.now() if isinstance(place, Later) else place


def part(place: Place, index: Any) -> Place:
    """Return a view."""
    return place.part(index) if isinstance(place, Later) else place[index]
