"""Neighbouring byte ranges of one file become one request: pure, no I/O; the result is the I/O plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

GAP = 16 * 1024
"""Bytes that are fetched for nothing rather than pay for another request."""

LIMIT = 1024 * 1024
"""A request is not grown beyond this, so that big tiles still arrive in parallel."""


@dataclass(frozen=True, slots=True)
class Merged:
    """One request and the ranges it answers.

    Parameters
    ----------
    start, stop : int
        Half-open range of bytes.
    members : tuple of int
        Numbers of the ranges that it answers, in the order of their offsets.
    """

    start: int
    stop: int
    members: tuple[int, ...]


def coalesce(
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64] | None = None,
    *,
    gap: int = GAP,
    limit: int = LIMIT,
) -> list[Merged]:
    """Merge ranges of one file.

    Parameters
    ----------
    starts, stops : ndarray of int64, shape (n,)
        Half-open ranges in any order; they may overlap or repeat.
    ends : ndarray of int64, shape (n,), optional
        How far of each range is asked for, at most to its stop; all of it by default. What is merged is decided by the stops, so that
        there are never more requests; a request then reaches to the last of its ranges' ends.
    gap : int
        Ranges at most so many bytes apart are merged …
    limit : int
        … as long as the request stays within so many bytes. A single range may be larger.

    Returns
    -------
    list of Merged
        By offset; every input range lies in exactly one of them, up to its end.
    """
    order = np.argsort(starts, kind="stable")
    ends = stops if ends is None else ends
    out: list[Merged] = []
    start = stop = end = -1
    members: list[int] = []
    for number in order.tolist():
        a, b, e = int(starts[number]), int(stops[number]), int(ends[number])
        inside = bool(members) and b <= stop
        if members and (inside or (a - stop <= gap and b - start <= limit)):
            stop, end = max(stop, b), max(end, e)
            members.append(number)
            continue
        if members:
            out.append(Merged(start, end, tuple(members)))
        start, stop, end, members = a, b, e, [number]
    if members:
        out.append(Merged(start, end, tuple(members)))
    return out


def merged_sizes(
    keys: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64] | None = None,
    *,
    gap: int = GAP,
    limit: int = LIMIT,
) -> tuple[int, int]:
    """Return how many requests :func:`coalesce` would make of many sets of ranges, and of how many bytes in all.

    It takes the first range of every set together, then the second of every set that has one, and so on.

    Parameters
    ----------
    keys : ndarray of int64, shape (n,)
        Which set a range belongs to, not decreasing.
    starts, stops : ndarray of int64, shape (n,)
        Half-open ranges, in the order of their starts within each set.
    ends, gap, limit
        As for :func:`coalesce`.
    """
    if not len(keys):
        return 0, 0
    first = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
    lengths = np.diff(first, append=len(keys))
    # Longest first: those that still have a range are then the head of every array.
    order = np.argsort(-lengths, kind="stable")
    first, lengths = first[order], lengths[order]
    ends = stops if ends is None else ends
    start, stop, end = starts[first], stops[first], ends[first]
    requests, size = len(first), 0
    for rank in range(1, int(lengths[0])):
        n = int(np.searchsorted(-lengths, -rank))
        a, b, e = starts[first[:n] + rank], stops[first[:n] + rank], ends[first[:n] + rank]
        begun, reached, asked = start[:n], stop[:n], end[:n]
        joins = (b <= reached) | ((a - reached <= gap) & (b - begun <= limit))
        size += int((asked - begun)[~joins].sum())
        requests += n - int(joins.sum())
        start[:n] = np.where(joins, begun, a)
        stop[:n] = np.where(joins, np.maximum(reached, b), b)
        end[:n] = np.where(joins, np.maximum(asked, e), e)
    return requests, size + int((end - start).sum())
