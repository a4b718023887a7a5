"""Items to time steps: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True, slots=True, eq=False)
class TimeSteps:
    """Which step each item falls into.

    Parameters
    ----------
    steps : ndarray of int64, shape (items,)
        Step of each item, in the order of the items.
    labels, last : ndarray of datetime64[ns], shape (steps,)
        Earliest and latest member of each step; ``labels`` never decreases.
    """

    steps: npt.NDArray[np.int64]
    labels: Times
    last: Times

    def __len__(self) -> int:
        return len(self.labels)


def solar_days(times: Times, longitudes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the local solar day of each item, in days since 1970.

    The sun stands 15 degrees further west each hour: local solar time is UTC + longitude / 15 hours.
    """
    seconds = times.astype("datetime64[s]").astype(np.int64) + longitudes * 240.0
    days: npt.NDArray[np.int64] = np.floor(seconds / 86400.0).astype(np.int64)
    return days


def group(times: Times, keys: Sequence[object]) -> TimeSteps:
    """Group items whose keys are equal.

    Parameters
    ----------
    times : ndarray of datetime64[ns], shape (items,)
    keys : sequence, length items
        Hashable.

    Returns
    -------
    TimeSteps
        Steps sorted by their earliest member; equal ones stay in the order in which they first appear.
    """
    numbers: dict[object, int] = {}
    raw = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    count = len(numbers)
    as_int = times.astype("datetime64[ns]").astype(np.int64)
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(first, raw, as_int)
    np.maximum.at(last, raw, as_int)
    order = np.argsort(first, kind="stable")
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    return TimeSteps(
        rank[raw] if count else raw,
        first[order].astype("datetime64[ns]"),
        last[order].astype("datetime64[ns]"),
    )


def split_acquisitions(steps: TimeSteps, acquisitions: Sequence[object]) -> int:
    """Return how many acquisitions (None: unknown) have members in more than one step."""
    seen: dict[object, set[int]] = {}
    for step, key in zip(steps.steps.tolist(), acquisitions):
        if key is not None:
            seen.setdefault(key, set()).add(step)
    return sum(len(found) > 1 for found in seen.values())
