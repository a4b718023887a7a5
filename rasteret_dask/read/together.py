"""All bands of a pixel from one item: what an item has in one band counts only where it is valid in the others as well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from rasteret_dask.plan.chunks import ReadPlan
    from rasteret_dask.read.tasks import Job

Bools = npt.NDArray[np.bool_]
Warped = Callable[["ReadPlan", "Job"], tuple[npt.NDArray[Any], Bools | None]]


def join(jobs: Sequence[Job], partner: ReadPlan, found: Iterable[Job]) -> None:
    """Give each job the jobs of the same item in another band; there may be several (a world map over the antimeridian), or none."""
    by_item: dict[tuple[int, str], list[Job]] = defaultdict(list)
    for job in found:
        by_item[(job.source.step, job.source.item)].append(job)
    for job in jobs:
        job.partners.append((partner, by_item.get((job.source.step, job.source.item), [])))


def others(jobs: Iterable[Job]) -> Iterator[Job]:
    """Yield the jobs of other bands that belong to jobs."""
    for job in jobs:
        for _, same in job.partners:
            yield from same


def valid_in_all(job: Job, valid: Bools | None, warped: Warped) -> Bools | None:
    """Return where a job's pixels are valid in its own band, and in all that it must be valid in.

    Parameters
    ----------
    job : Job
    valid : ndarray of bool, shape of the job's target, optional
        In its own band; None: everywhere.
    warped : callable
        Values and validity of a job of another band on its own target (:func:`rasteret_dask.read.tasks.warped`).
    """
    r0, r1, c0, c1 = job.where.target
    for partner, same in job.partners:
        seen = np.zeros((r1 - r0, c1 - c0), dtype=bool)
        for other in same:
            _, good = warped(partner, other)
            p0, p1, q0, q1 = other.where.target
            low, high = max(r0, p0), min(r1, p1)
            left, right = max(c0, q0), min(c1, q1)
            if low >= high or left >= right:
                continue
            box = (slice(low - r0, high - r0), slice(left - c0, right - c0))
            seen[box] |= (
                True if good is None else good[low - p0 : high - p0, left - q0 : right - q0]
            )
        valid = seen if valid is None else valid & seen
    return valid
