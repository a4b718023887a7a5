"""Nodata, types, scale and offset; the Sentinel-2 rules row by row (semantics: "Sentinel-2 offset")."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_dask.errors import ArgumentError
from rasteret_dask.grid.radiometry import convert, masked_dtype, sentinel2_offset, valid_pixels

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "nodata", "expected"),
    [
        (np.array([0, 1, 255], np.uint8), None, None),
        (np.array([0, 1, 255], np.uint8), 255, [True, True, False]),
        (np.array([0, 1, 255], np.uint8), -9999, [True, True, True]),
        (np.array([0, 1, 255], np.uint8), NAN, None),
        (np.array([0.0, 1.0], np.float32), None, None),
        (np.array([0.0, NAN], np.float32), None, [True, False]),
        (np.array([0.0, NAN], np.float32), NAN, [True, False]),
        (np.array([0.0, NAN, -9999.0], np.float32), -9999.0, [True, False, False]),
        (np.array([-3.4028235e38, 1.0], np.float32), -3.4028234663852886e38, [False, True]),
        (np.array([0.1, 1.0], np.float32), 0.1, [False, True]),
        (np.array([-(2**31), 5], np.int32), -(2**31), [False, True]),
        (np.array([2**64 - 1, 5], np.uint64), 2**64 - 1, [False, True]),
        (np.array([1j, complex(NAN, 0)], np.complex64), None, [True, False]),
    ],
)
def test_valid_pixels(values: Any, nodata: Any, expected: Any) -> None:
    found = valid_pixels(values, nodata)
    assert found is None if expected is None else found.tolist() == expected


@pytest.mark.parametrize(
    ("native", "masked"),
    [
        ("uint8", "float32"),
        ("int16", "float32"),
        ("uint16", "float32"),
        ("int32", "float64"),
        ("uint32", "float64"),
        ("int64", "float64"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("complex64", "complex64"),
    ],
)
def test_masked_cubes_are_floats_that_hold_every_value(native: str, masked: str) -> None:
    assert masked_dtype(np.dtype(native)) == np.dtype(masked)


def test_values_that_need_no_change_are_not_copied() -> None:
    values = np.arange(5, dtype=np.uint16)
    assert convert(values, np.dtype("uint16"), 1.0, 0.0) is values


@given(
    st.lists(st.integers(0, 65535), min_size=1, max_size=20),
    st.sampled_from(["uint8", "int8", "int16", "uint16", "int32"]),
)
def test_an_integer_fits_or_the_read_raises(values: list[int], dtype: str) -> None:
    array = np.array(values, np.uint16)
    info = np.iinfo(dtype)
    if all(info.min <= v <= info.max for v in values):
        assert convert(array, np.dtype(dtype), 1.0, 0.0).tolist() == values
    else:
        with pytest.raises(ArgumentError, match="do not fit"):
            convert(array, np.dtype(dtype), 1.0, 0.0)


def test_what_is_not_valid_need_not_fit() -> None:
    values = np.array([65535, 900, 1000], np.uint16)
    out = convert(values, np.dtype("int16"), 1.0, -1000.0, values != 65535)
    assert out[1:].tolist() == [-100, 0]
    floats = np.array([NAN, 2.4, 2.6], np.float32)
    out = convert(floats, np.dtype("uint8"), 1.0, 0.0, ~np.isnan(floats))
    assert out[1:].tolist() == [2, 3]
    with pytest.raises(ArgumentError, match="do not fit"):
        convert(floats, np.dtype("uint8"), 1.0, 0.0)


def test_scale_and_offset() -> None:
    values = np.array([0, 1, 10_000, 65535], np.uint16)
    out = convert(values, np.dtype("float32"), 1e-4, -0.1)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, values * 1e-4 - 0.1, rtol=0, atol=5e-7)
    assert (
        convert(values, np.dtype("float64"), 1e-4, -0.1).tolist() == (values * 1e-4 - 0.1).tolist()
    )


APPLIED, FALSE = True, False
RULES = [
    # collection, boa_offset_applied, baseline, declared scale, declared offset → DN
    ("sentinel-2-l2a", APPLIED, "05.09", 1e-4, -0.1, 0.0),
    ("sentinel-2-l2a", APPLIED, "02.14", None, None, 0.0),
    ("sentinel-2-l2a", APPLIED, None, 1e-4, -0.1, 0.0),
    ("sentinel-2-l2a", FALSE, "04.00", 1e-4, -0.1, -1000.0),
    ("sentinel-2-l2a", FALSE, "05.11", None, None, -1000.0),
    ("sentinel-2-l2a", FALSE, "03.01", 1e-4, -0.1, 0.0),
    ("sentinel-2-l2a", None, "05.09", None, None, -1000.0),  # Planetary Computer
    ("sentinel-2-l2a", None, "03.00", None, None, 0.0),
    ("sentinel-2-l2a", None, "N0509", None, None, -1000.0),
    ("sentinel-2-l2a", None, "0301", None, None, 0.0),
    ("sentinel-2-c1-l2a", None, "05.00", 1e-4, -0.1, -1000.0),
    ("sentinel-2-c1-l2a", None, "05.00", 1e-4, 0.0, 0.0),
    ("sentinel-2-c1-l2a", None, None, 1e-4, -0.1, -1000.0),
]


@pytest.mark.parametrize(("collection", "applied", "baseline", "scale", "add", "dn"), RULES)
def test_every_row_of_the_sentinel2_table(
    collection: str, applied: Any, baseline: Any, scale: Any, add: Any, dn: float
) -> None:
    found = sentinel2_offset(
        collection=collection,
        offset_applied=applied,
        baseline=baseline,
        declared_scale=scale,
        declared_add=add,
    )
    assert found.dn == dn
    assert found.rule


@pytest.mark.parametrize("applied", [None, False])
@pytest.mark.parametrize("baseline", [None, "", "unknown"])
def test_only_a_case_that_no_rule_covers_raises(applied: Any, baseline: Any) -> None:
    with pytest.raises(ArgumentError, match="no rule") as caught:
        sentinel2_offset(collection="sentinel-2-l2a", offset_applied=applied, baseline=baseline)
    assert "offsets" in str(caught.value.hint)
