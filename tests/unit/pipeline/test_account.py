"""Counting requests and tasks, on threads, in one process and over two."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client, LocalCluster

from rasteret_dask.cluster.profiles import Local, Threads, open_profile
from rasteret_dask.pipeline import account
from rasteret_dask.pipeline.account import Meter, watch
from rasteret_dask.storage import counters
from rasteret_dask.storage.counters import Counters

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


# --- workers that do not answer ------------------------------------------------------------------
async def silence(*_: Any, **__: Any) -> None:
    await asyncio.Event().wait()


async def breakage(*_: Any, **__: Any) -> None:
    raise OSError("connection reset")


@pytest.mark.parametrize("answer", [silence, breakage])
@pytest.mark.parametrize("when", ["at the start", "at the end"])
def test_a_worker_that_does_not_answer_ends_no_run(monkeypatch, caplog, answer, when):
    monkeypatch.setattr(account, "PATIENCE", 0.1)
    how = {"n_workers": 2, "processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**how) as cluster, Client(cluster) as client:
        handlers = cluster.workers[1].handlers
        right = handlers["run"]
        handlers["run"] = answer if when == "at the start" else right
        meter = Meter(client)
        counters.add(requests=3, size=70)
        handlers["run"] = answer
        begin = time.monotonic()
        spent = meter.read()
        assert time.monotonic() - begin < 5
        handlers["run"] = right
    assert (spent.requests, spent.bytes) == (3, 70)  # this process can say what it did
    assert "not counted" in caplog.text


class Told:
    """A client whose workers say what `answers` holds."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def sync(self, function: Any, *args: Any) -> Any:
        return asyncio.run(function(*args))

    async def run(self, function: Any, on_error: str) -> Any:
        assert on_error == "return"
        if None in self.answers.values():
            await silence()
        return self.answers


FAR = ("far", 1)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((FAR, Counters(7, 70)), (FAR, Counters(9, 90)), (2, 20)),
        (OSError(), (FAR, Counters(9, 90)), (0, 0)),
        ((FAR, Counters(7, 70)), OSError(), (0, 0)),
        (None, (FAR, Counters(9, 90)), (0, 0)),
        ((FAR, Counters(7, 70)), None, (0, 0)),
    ],
)
def test_what_a_worker_did_before_is_never_counted(monkeypatch, before, after, expected):
    monkeypatch.setattr(account, "PATIENCE", 0.01)
    client = Told(w=before)
    meter = Meter(client)
    client.answers = {"w": after}
    assert (meter.read().requests, meter.read().bytes) == expected
    joined = (("farther", 2), Counters(1, 10))
    client.answers = {"w": after, "new": joined}
    if None not in (before, after):  # nobody at all can be asked then
        assert meter.read().requests == expected[0] + 1
