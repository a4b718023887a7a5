"""Classes and bits that a mask keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.masks import dilated, mask_rule
from rasteret_dask.grid.mosaic import place_first

SCL = np.arange(12, dtype=np.uint8)


def kept(rule: dict[str, Any], values: Any = SCL, nodata: Any = None) -> list[int]:
    array = np.asarray(values)
    return array[mask_rule({"band": "m", **rule}).apply(array, nodata)].tolist()


def test_keep_and_drop() -> None:
    assert kept({"keep": [4, 5, 6]}) == [4, 5, 6]
    assert kept({"keep": 4}) == [4]
    assert kept({"drop": [0, 1, 3, 8, 9, 10]}) == [2, 4, 5, 6, 7, 11]


def test_nodata_is_dropped_unless_it_is_listed() -> None:
    assert kept({"drop": [1]}, [0, 1, 2], nodata=0) == [2]
    assert kept({"keep": [0, 2]}, [0, 1, 2], nodata=0) == [0, 2]
    assert kept({"bits": {1: 0}}, np.array([0, 2, 4, 255], np.uint8), nodata=255) == [0, 4]


@given(
    st.lists(st.integers(0, 65535), min_size=1, max_size=30),
    st.integers(0, 13),
    st.integers(1, 2),
    st.sets(st.integers(0, 3), min_size=1),
)
def test_bits_are_read_as_they_are_numbered(
    values: list[int], first: int, count: int, allowed: set[int]
) -> None:
    key = str(first) if count == 1 else f"{first}-{first + 1}"
    expected = []
    for value in values:
        text = f"{value:016b}"[::-1]  # text[k] is bit k
        field = int(text[first : first + count][::-1], 2)
        if field in allowed:
            expected.append(value)
    assert kept({"bits": {key: sorted(allowed)}}, np.array(values, np.uint16)) == expected


def test_every_field_of_bits_must_agree() -> None:
    # Landsat QA: bit 3 cloud, bits 8-9 cloud confidence.
    qa = np.array(
        [0b0000_0000_0000, 0b0000_0000_1000, 0b0011_0000_0000, 0b0001_0000_0000], np.uint16
    )
    assert kept({"bits": {3: 0, "8-9": [0, 1]}}, qa) == [0, 0b0001_0000_0000]


def test_bits_beyond_the_type_are_zero() -> None:
    assert kept({"bits": {"8-9": 0}}, np.array([0, 255], np.uint8)) == [0, 255]
    assert kept({"bits": {"6-9": 3}}, np.array([0, 255, 128], np.uint8)) == [255]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_values_that_the_type_cannot_hold_keep_nothing(dtype: str) -> None:
    assert kept({"keep": [300, -5, 7]}, np.arange(10).astype(dtype)) == [7]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"keep": [1], "drop": [2]},
        {"keep": []},
        {"keep": ["cloud"]},
        {"bits": {}},
        {"bits": {"9-8": 1}},
        {"bits": {"x": 1}},
        {"bits": {64: 1}},
        {"keep": [1], "dilat": 3},
    ],
)
def test_masks_that_mean_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        mask_rule({"band": "m", **wrong})
    with pytest.raises(ArgumentError):
        mask_rule(wrong)


@given(st.integers(1, 4), st.integers(0, 10_000))
def test_the_first_valid_pixel_stays(sources: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stack = rng.integers(1, 100, (sources, 6, 5))
    valid = rng.random(stack.shape) < 0.5
    out, filled = np.zeros((6, 5), int), np.zeros((6, 5), bool)
    for values, ok in zip(stack, valid):
        place_first(out, filled, values, ok)
    expected = np.zeros((6, 5), int)
    for r in range(6):
        for c in range(5):
            firsts = [k for k in range(sources) if valid[k, r, c]]
            expected[r, c] = stack[firsts[0], r, c] if firsts else 0
    assert np.array_equal(out, expected)
    assert np.array_equal(filled, valid.any(axis=0))


@pytest.mark.parametrize("radius", [(6.0, 6.0), (9.5, 1.5), (2.0, 30.0), (0.0, 2.0), (1.0, 0.0)])
@pytest.mark.parametrize("shape", [(4, 7), (1, 9), (9, 1)])
def test_dilation_reaches_as_far_as_its_radius_and_no_mask_is_too_small(
    shape: tuple[int, int], radius: tuple[float, float]
) -> None:
    flags = np.zeros(shape, dtype=bool)
    flags[0, -1] = True
    flags[-1, shape[1] // 3] = True
    down, across = (max(r, 1e-9) for r in radius)
    expected = np.zeros(shape, dtype=bool)
    for row, col in np.argwhere(flags):
        y, x = np.mgrid[: shape[0], : shape[1]]
        expected |= ((y - row) / down) ** 2 + ((x - col) / across) ** 2 <= 1.0 + 1e-9
    assert np.array_equal(dilated(flags, radius), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int64"])
def test_a_field_may_be_as_wide_as_the_type_and_hold_its_sign(dtype: str) -> None:
    width = 8 * np.dtype(dtype).itemsize
    values = np.array([1, 100, 3], dtype)
    assert kept({"bits": {f"0-{width - 1}": [1, 3]}}, values) == [1, 3]
    assert kept({"bits": {"0-62": 100}}, values) == [100]
    if np.dtype(dtype).kind == "i":
        signed = np.array([-1, 5], dtype)
        assert kept({"bits": {width - 1: 1}}, signed) == [-1]
        assert kept({"bits": {f"{width - 2}-{width - 1}": 3}}, signed) == [-1]


def test_bits_of_floats_are_refused_by_name() -> None:
    with pytest.raises(ArgumentError, match="whole numbers") as caught:
        kept({"bits": {3: 0}}, np.array([1.0, 2.0], np.float32))
    assert caught.value.band == "m"


def test_a_radius_reaches_as_far_down_as_across() -> None:
    flags = np.zeros((11, 11), bool)
    flags[5, 5] = True
    radius = 0.3 / 0.1  # a hair less than 3
    assert radius < 3
    grown = dilated(flags, (radius, radius))
    assert np.array_equal(grown, grown.T)
    assert grown[2, 5]
