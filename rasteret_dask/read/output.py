"""What a band's part of a cube holds: its type, and what stands for nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from rasteret_dask.errors import ArgumentError, NodataError
from rasteret_dask.grid.radiometry import DECODERS, Number, masked_dtype
from rasteret_dask.plan.chunks import Output
from rasteret_dask.plan.table import RawSources
from rasteret_dask.read.gather import Items, is_reflectance
from rasteret_dask.read.request import CubeRequest

DType = np.dtype[Any]
NAN = float("nan")

_ORDERED = ("min", "max", "median", "mode", "q1", "med", "q3")

S2_NODATA = -32768
"""Of harmonised integers: 0 would be a reflectance once 1000 has been taken off."""


def choose_output(
    asked: str, band: str, raw: RawSources, items: Items, request: CubeRequest
) -> tuple[Output, Number]:
    """Decide type, fill and nodata of a band's output.

    Parameters
    ----------
    asked, band : str
        As it was asked for, and its canonical name.
    raw : RawSources
        Of the band.
    items : Items
    request : CubeRequest

    Returns
    -------
    Output
    number or None
        The nodata value of the output; None when it has none.

    Raises
    ------
    ArgumentError
        There is no such decoder.
    NodataError
        The type cannot hold what stands for nothing.
    """
    native = np.result_type(*{np.dtype(layout.dtype) for layout in raw.layouts})
    if native.kind == "c":
        _check_complex(asked, request)
    scaled = bool((raw.scales != 1.0).any() or (raw.adds != 0.0).any())
    if request.mosaic == "count":
        return Output(asked, np.dtype(request.dtype or np.uint16).name, 0), None
    if asked in request.decoders:
        return _decoded(asked, request)
    if request.mosaic not in ("first", "last", "min", "max") and not request.masked:
        # A mean or a median of integers is none.
        native = masked_dtype(native) if request.dtype is None else np.dtype(request.dtype)
        if native.kind == "f":
            fill = NAN if request.fill_value is None else request.fill_value
            return Output(asked, native.name, fill, scaled), fill
    if request.masked:
        return _masked(asked, native, scaled, request)
    if items.offsets is not None and is_reflectance(band, request) and not request.scale:
        return _harmonised(asked, request)
    dtype = np.dtype(np.float32) if request.scale and scaled else native
    dtype = np.dtype(request.dtype) if request.dtype else dtype
    nodata = next((n for n in raw.nodata if n is not None), None)
    if request.fill_value is not None:
        nodata = request.fill_value
    elif scaled and dtype.kind == "f":
        # A scaled value may equal the stored nodata (0 · 0.0001 + 0); NaN cannot be mistaken.
        nodata = NAN
    _check_fits(nodata, dtype, asked)
    return Output(asked, dtype.name, nodata, scaled), nodata


def _check_complex(asked: str, request: CubeRequest) -> None:
    """Refuse what complex numbers cannot do: they have no order, and a real type would hold half of them."""
    method = request.resampling.get(asked, "nearest")
    if request.mosaic in _ORDERED or method in _ORDERED:
        what = request.mosaic if request.mosaic in _ORDERED else method
        raise ArgumentError(
            f"{what!r} needs an order, and complex numbers have none",
            band=asked,
            hint="use first, last, mean or count; nearest, bilinear, cubic or average",
        )
    if request.dtype is not None and np.dtype(request.dtype).kind != "c":
        raise ArgumentError(
            f"complex numbers do not fit {request.dtype}",
            band=asked,
            hint="take the absolute value of the cube, or its real part",
        )


def _decoded(asked: str, request: CubeRequest) -> tuple[Output, Number]:
    decoder = request.decoders[asked]
    if decoder not in DECODERS:
        raise ArgumentError(f"no decoder {decoder!r}; there is {', '.join(DECODERS)}", band=asked)
    fill = NAN if request.masked or request.fill_value is None else request.fill_value
    dtype = np.dtype(request.dtype or np.float32)
    _check_fits(fill, dtype, asked)
    return Output(asked, dtype.name, fill, decode=decoder), fill


def _masked(asked: str, native: DType, scaled: bool, request: CubeRequest) -> tuple[Output, Number]:
    dtype = np.dtype(request.dtype) if request.dtype else masked_dtype(native)
    if request.scale and scaled and request.dtype is None and native.kind in "iu":
        dtype = np.dtype(np.float32)
    if dtype.kind not in "fc":
        raise NodataError(
            f"masked=True needs a floating type for NaN, not {dtype.name}", band=asked
        )
    return Output(asked, dtype.name, NAN, scaled), None


def _harmonised(asked: str, request: CubeRequest) -> tuple[Output, Number]:
    """Digital numbers without the offset of later baselines."""
    dtype = np.dtype(request.dtype or np.int16)
    nodata = S2_NODATA if request.fill_value is None else request.fill_value
    _check_fits(nodata, dtype, asked)
    return Output(asked, dtype.name, nodata, True), nodata


def _check_fits(nodata: Number, dtype: DType, band: str) -> None:
    if nodata is None or dtype.kind not in "iu":
        return
    info = np.iinfo(dtype)
    if nodata != nodata or nodata != int(nodata) or not info.min <= nodata <= info.max:
        raise NodataError(
            f"the nodata value {nodata} does not fit {dtype.name}",
            band=band,
            hint="give fill_value= or masked=True",
        )
