"""Memory that comes back: never while somebody can still see it, and not for ever."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.storage import buffers
from rasteret_dask.storage.buffers import LARGEST, LEAST, Pool, rounded


def address(view: memoryview) -> int:
    return np.frombuffer(view, np.uint8).ctypes.data


def test_what_nobody_sees_any_more_is_used_again() -> None:
    pool = Pool()
    first = pool.lend(300_000)
    where = address(first)
    del first
    second = pool.lend(299_000)
    assert len(second) == 299_000
    assert address(second) == where
    assert pool.total == rounded(300_000)


VIEWS: dict[str, Callable[[memoryview], Any]] = {
    "slice": lambda block: block[10:20],
    "array": lambda block: np.frombuffer(block, np.uint16),
    "array of a slice": lambda block: np.frombuffer(block[8:], np.uint8)[5:].view("u1"),
    "bytes of a slice": lambda block: memoryview(block[7:]).cast("c")[3:],
}


@pytest.mark.parametrize("view", VIEWS)
def test_what_somebody_still_sees_is_not(view: str) -> None:
    pool = Pool()
    block = pool.lend(300_000)
    block[:] = b"a" * 300_000
    seen = VIEWS[view](block)
    del block
    gc.collect()
    for _ in range(4):
        pool.lend(300_000)[:] = b"b" * 300_000
    assert set(bytes(seen)) == {ord("a")}
    del seen
    other = [pool.lend(300_000) for _ in range(2)]
    assert pool.total == 2 * rounded(300_000)
    del other


@given(st.lists(st.tuples(st.integers(LEAST, 10 * LEAST), st.integers(0, 8)), max_size=60))
def test_no_more_is_kept_than_has_been_in_use_at_once(asked: list[tuple[int, int]]) -> None:
    pool = Pool()
    held: list[memoryview] = []
    most = 0
    for number, (size, kept) in enumerate(asked):
        del held[kept:]
        block = pool.lend(size)
        block[0] = number % 256
        held.append(block)
        del block
        in_use = sum(rounded(len(one)) for one in held)
        most = max(most, in_use)
        assert in_use <= pool.total <= most
    held.clear()
    pool.clear()
    assert pool.total == 0


@given(st.integers(1, LARGEST))
def test_a_block_is_at_most_an_eighth_too_large(size: int) -> None:
    assert size <= rounded(size) <= size + max(size // 8, 1)


def test_what_is_very_large_is_not_kept() -> None:
    pool = Pool()
    pool.lend(LARGEST + 1)
    assert pool.total == 0


def test_threads_may_let_go() -> None:
    pool = Pool()
    for _ in range(50):
        blocks = [pool.lend(200_000 + 1000 * k) for k in range(8)]
        threads = [threading.Thread(target=blocks.pop) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert pool.total <= 16 * rounded(210_000)


def test_after_a_while_without_ranges_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "IDLE", 0.05)
    monkeypatch.setattr(buffers, "_pools", {})

    async def work() -> list[int]:
        totals = []
        for _ in range(2):  # and again, once everything was let go of
            for _ in range(5):
                buffers.pool().lend(300_000)
                await asyncio.sleep(0.03)
            totals.append(buffers.pool().total)
            await asyncio.sleep(0.2)
            totals.append(buffers.pool().total)
        return totals

    assert asyncio.run(work()) == [rounded(300_000), 0] * 2
