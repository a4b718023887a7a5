"""Counting requests and tasks, on threads, in one process and over two."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from rasteret_dask.cluster.profiles import Local, Threads, open_profile
from rasteret_dask.pipeline.account import Meter, watch
from rasteret_dask.storage import counters

PROFILES = [
    Threads(kind="threads", threads=2),
    Local(kind="local", workers=2, threads=1, processes=False),
    Local(kind="local", workers=2, threads=1),
]


class Heard:
    def __init__(self):
        self.stages, self.updates = [], []

    def stage(self, text):
        self.stages.append(text)

    def update(self, done, total):
        self.updates.append((done, total))


def _ask(block):
    counters.add(requests=2, size=block.nbytes)
    return block + 1


@pytest.mark.parametrize("profile", PROFILES, ids=["threads", "one-process", "two-processes"])
def test_counts_are_the_same_wherever_the_work_is_done(profile):
    counters.add(requests=5, size=5)  # what went before is not counted
    heard = Heard()
    with open_profile(profile) as client:
        meter = Meter(client)
        with watch(client, heard, interval=0.01) as count:
            blocks = da.zeros((8, 10), chunks=(1, 10), dtype=np.float64)
            result = blocks.map_blocks(_ask, dtype=np.float64, meta=np.empty((0, 0)))
            assert result.compute(optimize_graph=False).sum() == 80
        spent = meter.read()
    assert (spent.requests, spent.bytes) == (16, 8 * 80)
    assert count.tasks >= 8
    assert heard.updates[-1] == (count.tasks, count.tasks)
    assert [done for done, _ in heard.updates] == sorted(done for done, _ in heard.updates)


def test_an_error_in_the_work_comes_through():
    with pytest.raises(ZeroDivisionError), watch(None, Heard(), interval=0.01):
        raise ZeroDivisionError
