"""What the writers ask of an xarray object: its bands, its grid, and what stands for nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import rioxarray  # noqa: F401  (the accessor .rio)
import xarray as xr

from rasteret_dask.errors import ArgumentError


def flat_bands(
    data: xr.DataArray | xr.Dataset, bands: Sequence[str] | None = None
) -> list[xr.DataArray]:
    """The 2-D bands of an image, each with dims ``(y, x)``.

    Parameters
    ----------
    data : DataArray of 2 or 3 dimensions, or Dataset
        The third dimension of an array is its bands. Dimensions of length 1 are dropped.
    bands : sequence of str, optional
        Which variables of a Dataset.

    Raises
    ------
    ArgumentError
        If what is left is no image, or has no CRS.
    """
    if isinstance(data, xr.Dataset):
        names = [str(name) for name in data.data_vars] if bands is None else list(bands)
        absent = [name for name in names if name not in data.data_vars]
        if absent or not names:
            raise ArgumentError(
                f"no variable {', '.join(absent) or 'at all'} to write",
                hint=f"there are: {', '.join(map(str, data.data_vars)) or 'none'}",
            )
        arrays = [_drop_singles(data[name]) for name in names]
    else:
        array = _drop_singles(data)
        extra = [dim for dim in array.dims if dim not in _spatial(array)]
        if len(extra) == 1 and extra[0] != "time":
            arrays = [array.isel({extra[0]: n}) for n in range(array.sizes[extra[0]])]
        else:
            arrays = [array]
    for array in arrays:
        y, x = _spatial(array)
        if set(array.dims) != {y, x}:
            raise ArgumentError(
                f"{array.name or 'the array'} has the dimensions {array.dims}; an image has {(y, x)}",
                hint="reduce the others first, as with .median('time') or .isel(time=0)",
            )
    return [array.transpose(*_spatial(array)) for array in arrays]


def _spatial(array: xr.DataArray) -> tuple[str, str]:
    for y, x in (("y", "x"), ("latitude", "longitude"), ("lat", "lon")):
        if y in array.dims and x in array.dims:
            return y, x
    raise ArgumentError(f"{array.name or 'the array'} has the dimensions {array.dims}, not y and x")


def _drop_singles(array: xr.DataArray) -> xr.DataArray:
    y, x = _spatial(array)
    return array.squeeze(
        [dim for dim, size in array.sizes.items() if size == 1 and dim not in (y, x)]
    )


def nodata_of(array: xr.DataArray) -> Any:
    """The value that stands for nothing: what the array says, else NaN for floats, else None."""
    declared = array.attrs.get("_FillValue")
    if declared is None or is_inherited(declared, array.dtype):
        declared = None if array.dtype.kind in "fc" else array.encoding.get("_FillValue")
    if declared is None:
        # A masked float cube holds NaN, whatever its encoding will say on disk.
        return float("nan") if array.dtype.kind in "fc" else None
    return array.dtype.type(declared).item()


def common_nodata(bands: Sequence[tuple[np.dtype[Any], Any]]) -> Any:
    """One value for the bands of a file, which has one for all of them.

    Of the bands' own the first that no other band can hold as a value; NaN for floats where there
    is none. Integers may leave none: then it is the first, and `is_taken` tells whether that hides
    anything.

    Parameters
    ----------
    bands : sequence of (dtype, number or None)
        Types, and what `nodata_of` says.
    """
    declared = [own for _, own in bands if own is not None]
    for value in declared:
        if all(is_same(own, value) or not _holds(dtype, value) for dtype, own in bands):
            return value
    if any(dtype.kind == "f" for dtype, _ in bands):
        return float("nan")
    return declared[0] if declared else None


def _holds(dtype: np.dtype[Any], value: Any) -> bool:
    if not math.isfinite(value) or dtype.kind not in "biu":
        return bool(value == value)
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return bool(value == int(value) and low <= value <= high)


def is_same(a: Any, b: Any) -> bool:
    """Whether two values for nothing are one; None is that of nobody."""
    return bool(a == b or (a is not None and b is not None and a != a and b != b))


def is_taken(values: npt.NDArray[Any], own: Any, nodata: Any) -> bool:
    """Whether a pixel that is something in its band has the value that stands for nothing in the
    file."""
    if nodata is None or nodata != nodata or is_same(own, nodata):
        return False
    return bool(((values == nodata) & ~is_nodata(values, own)).any())


def is_inherited(declared: Any, dtype: np.dtype[Any]) -> bool:
    """Whether ``_FillValue`` speaks of what the array was made from, not of the array.

    xarray's arithmetic keeps attributes: the NDVI of two uint16 bands still says that 0, a uint16,
    stands for nothing, where 0 is a value like any other.
    """
    if dtype == np.dtype(bool):
        return True
    return isinstance(declared, np.generic) and declared.dtype != dtype


def is_nodata(values: npt.NDArray[Any], nodata: Any) -> npt.NDArray[np.bool_]:
    """True where there is nothing; NaN always is nothing."""
    empty = np.isnan(values) if values.dtype.kind in "fc" else np.zeros(values.shape, dtype=bool)
    if nodata is not None and nodata == nodata:
        empty |= values == nodata
    return empty
