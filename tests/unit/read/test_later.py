"""Arrays that are made when they are needed: once, and for all who ask."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rasteret_dask.read.later import Later, now, part


def test_it_is_made_once_by_whoever_asks_first() -> None:
    made = []
    gate = threading.Barrier(4)

    def make() -> Any:
        time.sleep(0.01)
        made.append(np.zeros(3))
        return made[-1]

    later = Later(make)

    def ask(_: int) -> Any:
        gate.wait()
        return later.now()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert len(made) == 1
    assert all(array is made[0] for array in found)


def test_a_part_is_a_view_and_makes_the_whole() -> None:
    whole = Later.empty((2, 3), "uint16")
    row = part(whole, 1)
    assert isinstance(row, Later)
    now(row)[:] = 7
    assert now(whole)[1].tolist() == [7, 7, 7]
    assert now(whole).dtype == "uint16"
    array = np.zeros((2, 3))
    assert now(array) is array
    assert np.shares_memory(now(part(array, 0)), array)
