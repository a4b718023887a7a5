"""Decompressed rows to samples: byte order, predictors and odd bit depths."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rasteret_dask.tiff.inflate import Scratch, codecs
from rasteret_dask.tiff.model import TileLayout

Array = npt.NDArray[Any]
_NATIVE_LITTLE: Final = sys.byteorder == "little"


def unpack_rows(
    raw: npt.NDArray[np.uint8],
    layout: TileLayout,
    rows: int,
    cols: tuple[int, int],
    scratch: Scratch | None = None,
    out: Array | None = None,
) -> Array:
    """Turn the bytes of whole rows into samples, cropped to some columns.

    Parameters
    ----------
    raw : ndarray of uint8
        Exactly ``rows`` rows as stored, predictor still applied. Overwritten when it is writable.
    layout : TileLayout
        How they are stored.
    rows : int
        How many.
    cols : (int, int)
        Half-open range of columns to return.
    scratch : Scratch, optional
        Where odd bit depths may be unpacked to.
    out : ndarray, shape (rows, columns), optional
        As :func:`~rasteret_dask.tiff.codecs.decode_tile` has it.

    Returns
    -------
    ndarray, shape (rows, cols[1] - cols[0], samples)
        In native byte order; a view of ``raw`` where that is possible.
    """
    dtype = np.dtype(layout.dtype)
    shape = (rows, layout.width, layout.samples)
    c0, c1 = cols
    if layout.predictor == 3:
        return _undo_float_predictor(raw, layout, shape)[:, c0:c1]
    if layout.predictor == 2 and dtype.kind == "c" and layout.bits != 8 * dtype.itemsize:
        return _predicted_complex_integers(raw, layout, shape)[:, c0:c1]
    if layout.bits != 8 * dtype.itemsize:
        return _unpack_odd(raw, layout, shape, scratch)[:, c0:c1]
    if layout.predictor == 2:
        stored = raw.view(f"u{layout.bits // 8}").reshape(shape)[:, :c1]
        if layout.little_endian != _NATIVE_LITTLE:
            stored = stored.byteswap()
        if (
            out is not None
            and (out.shape, out.dtype) == (stored.shape[:2], dtype)
            and shape[2] == 1
        ):
            # One pass over the pixels and one turn of the interpreter's lock fewer than by way of a copy.
            codecs.delta_decode(stored[:, :, 0], axis=-1, out=out.view(stored.dtype))
            return out[:, :, None]
        return _accumulate(stored).view(dtype)[:, c0:c1]
    samples = raw.view(dtype).reshape(shape)[:, c0:c1]
    if layout.little_endian == _NATIVE_LITTLE or dtype.itemsize == 1:
        return samples
    return samples.byteswap()


def _accumulate(stored: Array) -> Array:
    """Undo horizontal differencing, in place where the array may be written to."""
    out = stored if stored.flags.writeable else np.empty(stored.shape, stored.dtype)
    if stored.shape[2] == 1:
        codecs.delta_decode(stored[:, :, 0], axis=-1, out=out[:, :, 0])
    else:
        codecs.delta_decode(stored, axis=-2, out=out)
    return out


def _undo_float_predictor(
    raw: npt.NDArray[np.uint8], layout: TileLayout, shape: tuple[int, int, int]
) -> Array:
    # The planes of bytes are most significant first in files of either byte order, and span whole
    # rows: columns can be cropped only afterwards.
    stored = raw.view(layout.dtype).reshape(shape)
    out = np.empty(shape, layout.dtype)
    codecs.floatpred_decode(stored, axis=-2, out=out)
    return out


def _unpack_odd(
    raw: npt.NDArray[np.uint8],
    layout: TileLayout,
    shape: tuple[int, int, int],
    scratch: Scratch | None,
) -> Array:
    """Unpack samples whose stored width is not that of their type."""
    rows, width, samples = shape
    dtype = np.dtype(layout.dtype)
    if dtype.kind == "c":
        return _complex_integers(raw, layout, shape)
    if dtype.kind == "f":
        order = "<" if layout.little_endian else ">"
        floats: Array = codecs.float24_decode(raw, byteorder=order)
        return floats.reshape(shape)
    if layout.bits == 24:
        return _three_bytes(raw, layout).reshape(shape)
    if layout.bits == 1:
        bits = np.unpackbits(raw.reshape(rows, -1), axis=1, count=width * samples)
        return bits.reshape(shape)
    count = rows * width * samples
    out = None if scratch is None else scratch.empty("samples", count * dtype.itemsize).view(dtype)
    found: Array = codecs.packints_decode(raw, dtype, layout.bits, runlen=width * samples, out=out)
    return found.reshape(shape)


def _three_bytes(raw: npt.NDArray[np.uint8], layout: TileLayout) -> Array:
    """Widen 24-bit integers.

    GDAL packs them most significant bit first, as all odd depths; but libtiff takes three bytes for
    a number and swaps them in big-endian files, which leaves those least significant byte first.
    """
    parts = raw.reshape(-1, 3)
    wide = np.zeros((len(parts), 4), np.uint8)
    # Filled from the top byte down, so that an arithmetic shift brings the sign along.
    wide[:, 1:] = parts[:, ::-1] if layout.little_endian else parts
    shifted: Array = wide.view("<i4" if layout.dtype == "int32" else "<u4")[:, 0] >> 8
    return shifted.astype(layout.dtype)


def _predicted_complex_integers(
    raw: npt.NDArray[np.uint8], layout: TileLayout, shape: tuple[int, int, int]
) -> Array:
    """Pairs of integers whose differences are those of one number as wide as both, as libtiff takes them."""
    words = raw.view(f"u{layout.bits // 8}").reshape(shape)
    if layout.little_endian != _NATIVE_LITTLE:
        words = words.byteswap()
    summed = np.ascontiguousarray(_accumulate(words)).view(np.uint8)
    return _complex_integers(summed, replace(layout, little_endian=_NATIVE_LITTLE), shape)


def _complex_integers(
    raw: npt.NDArray[np.uint8], layout: TileLayout, shape: tuple[int, int, int]
) -> Array:
    order = "<" if layout.little_endian else ">"
    parts = raw.view(f"{order}i{layout.bits // 16}").reshape(*shape, 2)
    out = np.empty(shape, layout.dtype)
    out.real = parts[..., 0]
    out.imag = parts[..., 1]
    return out
