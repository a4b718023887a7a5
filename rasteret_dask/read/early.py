"""Sources of a step read one after the other, until every pixel has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rasteret_dask.grid.mosaic import Layer, place_first
from rasteret_dask.read.engine import Load, run_loads

if TYPE_CHECKING:
    from rasteret_dask.plan.chunks import ReadPlan
    from rasteret_dask.read.tasks import Job


def fill_in_turn(
    plan: ReadPlan,
    jobs: Sequence[Job],
    out: npt.NDArray[Any],
    first: int,
    loads_of: Callable[[ReadPlan, Job], Sequence[Load]],
    layer_of: Callable[[Job], Layer],
) -> None:
    """Read and place sources in rounds: in each the next source of every step that is not full.

    Parameters
    ----------
    plan : ReadPlan
    jobs : sequence of Job
        In the order of the mosaic; those that decode straight into ``out`` have no rivals and are read in the first round.
    out : ndarray, shape (time, rows, columns)
        Written in place.
    first : int
        Step of ``out[0]``.
    loads_of, layer_of : callable
        What a job reads, and what it then gives.
    """
    waiting: dict[int, list[Job]] = {}
    for job in jobs:
        if not job.direct:
            waiting.setdefault(job.source.step, []).append(job)
    filled = {step: np.zeros(out.shape[1:], dtype=bool) for step in waiting}
    now = [job for job in jobs if job.direct]
    while waiting or now:
        turn = [group.pop(0) for group in waiting.values()]
        run_loads([load for job in (*now, *turn) for load in loads_of(plan, job)], plan.storage)
        now = []
        for job in turn:
            box, values, valid = layer_of(job)
            step = job.source.step
            place_first(out[step - first][box], filled[step][box], values, valid)
        waiting = {s: group for s, group in waiting.items() if group and not filled[s].all()}
