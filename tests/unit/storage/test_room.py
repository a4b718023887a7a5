"""Memory for large answers: nobody's bytes are anybody else's, and what nobody looks at is used again."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from rasteret_dask.storage import room as rooms
from rasteret_dask.storage.room import LEAST, SLAB, clear, room

SIZE = 1_200_000


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each slab that the system was asked for."""
    clear()
    made: list[int] = []
    honest = rooms._mapped
    monkeypatch.setattr(rooms, "_mapped", lambda: (made.append(1), honest())[1])
    yield made
    clear()


def filled(size: int, value: int) -> memoryview:
    found = room(size)
    np.frombuffer(found, np.uint8)[:] = value
    return found


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


@pytest.mark.skipif(sys.platform != "linux", reason="slabs are for Linux")
def test_what_nobody_looks_at_is_used_again(mapped: list[int]) -> None:
    for k in range(50):
        assert filled(SIZE, k)[-1] == k
    assert len(mapped) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="slabs are for Linux")
def test_a_part_keeps_its_slab(mapped: list[int]) -> None:
    part = filled(SIZE, 7)[1000:1010]
    for _ in range(50):
        filled(SIZE, 0)
    assert bytes(part) == b"\x07" * 10
    assert len(mapped) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="slabs are for Linux")
def test_few_slabs_are_kept_and_none_after_clearing(mapped: list[int]) -> None:
    many = [room(SLAB) for _ in range(20)]
    assert len(mapped) == 20
    del many
    assert len(rooms._free) <= 8
    clear()
    assert len(rooms._free) == 0
    room(SLAB)
    assert len(mapped) == 21


@pytest.mark.skipif(sys.platform != "linux", reason="slabs are for Linux")
def test_a_kernel_without_huge_pages(mapped: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms.mmap, "MADV_HUGEPAGE", -5)  # no advice that a kernel knows
    assert filled(SIZE, 3)[SIZE - 1] == 3
    assert len(mapped) == 1
