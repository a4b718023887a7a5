"""Slices of a chunk: what is covered, and what comes out (NumPy decides)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.read.indices import cover, pick

SHAPE = (4, 9, 11)
ARRAY = np.arange(np.prod(SHAPE)).reshape(SHAPE)


def one_axis(size: int) -> st.SearchStrategy[Any]:
    numbers = st.integers(-size, size - 1)
    return st.one_of(
        numbers,
        numbers.map(np.int64),
        st.slices(size),
        st.lists(numbers, max_size=6),
        st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
    )


INDICES = st.integers(0, 3).flatmap(lambda n: st.tuples(*(one_axis(s) for s in SHAPE[:n])))


def axis_by_axis(array: np.ndarray, index: tuple[Any, ...]) -> np.ndarray:
    """NumPy, one axis after the other, so that lists are not paired."""
    axis = 0
    for item in index:
        if isinstance(item, list):
            item = np.array(item, np.int64)
        array = array[(slice(None),) * axis + (item,)]
        axis += not isinstance(item, (int, np.integer))
    return array


@given(INDICES)
def test_the_box_holds_the_index_and_gives_it_back(index: tuple[Any, ...]) -> None:
    *box, rest = cover(index, SHAPE)
    part = ARRAY[tuple(slice(a, b) for a, b in box)]
    expected = axis_by_axis(ARRAY, index)
    found = pick(part, rest)
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)


@given(INDICES)
def test_the_box_is_no_larger_than_it_must_be(index: tuple[Any, ...]) -> None:
    *box, _ = cover(index, SHAPE)
    for axis, (low, high) in enumerate(box):
        numbers = np.arange(SHAPE[axis])
        item = index[axis] if axis < len(index) else slice(None)
        used = np.atleast_1d(numbers[np.array(item, int) if isinstance(item, list) else item])
        assert (low, high) == ((used.min(), used.max() + 1) if used.size else (0, 0))


@pytest.mark.parametrize("wrong", [(4,), (-5,), ([0, 4],), (0, 9), (np.ones(3, bool),)])
def test_numbers_outside_are_refused(wrong: tuple[Any, ...]) -> None:
    with pytest.raises(IndexError):
        cover(wrong, SHAPE)
