"""Memory for large answers: nobody's bytes are anybody else's, and what nobody looks at is used again."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from rasteret_dask.storage import room as rooms
from rasteret_dask.storage.loop import get_loop, run
from rasteret_dask.storage.room import LEAST, MOST, SLAB

SIZE = 1_200_000
linux = pytest.mark.skipif(sys.platform != "linux", reason="slabs are for Linux")


def room(size: int) -> memoryview:
    """By the thread whose slabs they are."""

    async def there() -> memoryview:
        return rooms.room(size)

    return run(there())


def clear() -> None:
    async def there() -> None:
        rooms.clear()

    run(there())


def filled(size: int, value: int) -> memoryview:
    found = room(size)
    np.frombuffer(found, np.uint8)[:] = value
    return found


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each slab that the system was asked for."""
    clear()
    made: list[int] = []
    honest = rooms._mapped
    monkeypatch.setattr(rooms, "_mapped", lambda: (made.append(1), honest())[1])
    yield made
    clear()


@pytest.mark.parametrize("size", [0, 1, LEAST - 1, LEAST, SIZE, SLAB, SLAB + 1])
def test_room_is_as_large_as_asked(size: int) -> None:
    found = room(size)
    assert (len(found), found.nbytes, found.format, found.readonly) == (size, size, "B", False)
    assert found.contiguous


def test_nobodys_bytes_are_anybody_elses(mapped: list[int]) -> None:
    sizes = [SIZE, LEAST, SLAB, LEAST + 1, SIZE, SIZE, 3_000_000, SIZE] * 3
    kept = [filled(size, k) for k, size in enumerate(sizes)]
    # Some go, others come to where they were.
    for k in range(0, len(kept), 2):
        kept[k] = filled(sizes[k], 100 + k)
    for k, found in enumerate(kept):
        assert (np.frombuffer(found, np.uint8) == (k if k % 2 else 100 + k)).all()


@linux
def test_what_nobody_looks_at_is_used_again(mapped: list[int]) -> None:
    for k in range(50):
        assert filled(SIZE, k)[-1] == k
    assert len(mapped) == 1


@linux
def test_a_part_keeps_its_slab(mapped: list[int]) -> None:
    part = filled(SIZE, 7)[1000:1010]
    for _ in range(50):
        filled(SIZE, 0)
    assert bytes(part) == b"\x07" * 10
    assert len(mapped) == 2


@linux
def test_few_slabs_are_kept_and_none_after_clearing(mapped: list[int]) -> None:
    many = [room(SLAB) for _ in range(20)]
    assert len(mapped) == 20
    del many
    clear()
    assert len(rooms._free) == 0
    again = [room(SLAB) for _ in range(20)]
    assert len(mapped) == 40
    last = again.pop()
    del again
    assert len(rooms._free) == 8
    assert len(last) == SLAB


@linux
def test_small_parts_do_not_keep_slabs_without_end(mapped: list[int]) -> None:
    before = len(rooms._looked_at)
    parts = [filled(SLAB, k)[:10] for k in range(MOST + 20)]
    assert len(mapped) == MOST - before
    assert [part[0] for part in parts] == list(range(MOST + 20))
    del parts
    assert len(rooms._looked_at) <= before + 1


@linux
def test_slabs_are_let_go_of_when_no_answer_comes(
    mapped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "_IDLE", 0.05)
    monkeypatch.setattr(rooms._current, "watched", False)
    held = [filled(SLAB, 1) for _ in range(3)]
    get_loop().call_soon_threadsafe(rooms.watch, get_loop())
    del held[1:]
    time.sleep(0.3)  # some looks: one is held, so that they go on
    assert rooms._current.watched
    del held
    until = time.monotonic() + 30
    while (rooms._current.watched or rooms._free) and time.monotonic() < until:
        time.sleep(0.02)
    assert not rooms._free
    assert not rooms._current.watched


@linux
def test_a_forked_child_begins_anew(mapped: list[int]) -> None:
    """What it is told after the fork (`tests/unit/storage/test_fork.py` forks)."""
    kept = filled(SIZE, 5)
    rooms._begin_anew()
    assert not rooms._free
    assert len(filled(SIZE, 6)) == SIZE
    assert len(mapped) == 2
    assert kept[0] == 5


@linux
def test_a_kernel_without_huge_pages(mapped: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms.mmap, "MADV_HUGEPAGE", -5)  # no advice that a kernel knows
    assert filled(SIZE, 3)[SIZE - 1] == 3
    assert len(mapped) == 1
