"""Undo the byte-stream compressions, no further than needed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

import imagecodecs
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from isal import isal_zlib

from rasteret_dask.errors import TileReadError

Bytes8 = npt.NDArray[np.uint8]
Buffer = Any  # bytes, bytearray, memoryview, or anything else with a contiguous buffer

# Their stubs know bytes alone; the codecs take and fill arrays.
codecs: Final[Any] = imagecodecs

_ISAL_ERROR: Final[Any] = isal_zlib.IsalError  # which derives from nothing but Exception

CODEC_ERRORS: Final[tuple[type[Exception], ...]] = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    OSError,
    EOFError,
    MemoryError,
    OverflowError,
    zlib.error,
    _ISAL_ERROR,
)
"""What the codecs raise on bytes that they cannot decode."""

_PARTIAL: Final = 0.75
"""Below this share of a tile, stopping early is worth a streaming decoder."""


def decompress(
    data: Buffer, compression: int, full: int, need: int, *, short: bool = False
) -> Bytes8:
    """Return at least the first ``need`` bytes, and at most ``full``, of a compressed tile.

    Parameters
    ----------
    data : bytes-like
        One whole tile or strip as stored.
    compression : int
        Value of the Compression tag, one of the byte-stream codecs.
    full : int
        Bytes of a whole decoded tile.
    need : int
        Bytes that must be there.
    short : bool
        Take fewer, too.

    Returns
    -------
    ndarray of uint8, shape (n,), need <= n <= full
        Read-only when it is a view of ``data`` (no compression).

    Raises
    ------
    TileReadError
        When the bytes do not decode, or decode to fewer than ``need`` or more than ``full``.
    """
    try:
        out = _DECODERS[compression](data, full, need)
    except CODEC_ERRORS as error:
        raise TileReadError(f"the bytes do not decode: {error}") from None
    if len(out) < need and not short:
        raise TileReadError(f"decodes to {len(out)} bytes where {need} are needed")
    return out


def _stored(data: Buffer, full: int, need: int) -> Bytes8:
    return np.frombuffer(data, np.uint8)[:full]


def _deflate(data: Buffer, full: int, need: int) -> Bytes8:
    if need < _PARTIAL * full:
        return np.frombuffer(isal_zlib.decompressobj().decompress(data, need), np.uint8)
    try:
        out: Bytes8 = codecs.deflate_decode(data, out=np.empty(full, np.uint8))
        return out
    except imagecodecs.DeflateError:
        # libdeflate wants a whole stream that fits; zlib, as GDAL falls back to it, is content with
        # a missing checksum. One byte too many tells a tile that is too long from one that merely
        # lacks its end.
        loose = isal_zlib.decompressobj().decompress(data, full + 1)
    if len(loose) > full:
        raise TileReadError(f"decodes to more than the {full} bytes of a tile")
    return np.frombuffer(loose, np.uint8)


def _lzw(data: Buffer, full: int, need: int) -> Bytes8:
    # The decoder stops when its output is full.
    out: Bytes8 = codecs.lzw_decode(data, out=np.empty(need, np.uint8))
    return out


def _packbits(data: Buffer, full: int, need: int) -> Bytes8:
    out: Bytes8 = codecs.packbits_decode(data, out=np.empty(full, np.uint8))
    return out


def _lzma(data: Buffer, full: int, need: int) -> Bytes8:
    out: Bytes8 = codecs.lzma_decode(data, out=np.empty(need, np.uint8))
    return out


def _zstd(data: Buffer, full: int, need: int) -> Bytes8:
    if need < _PARTIAL * full:
        stream = pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), "zstd")
        return np.frombuffer(stream.read_buffer(need), np.uint8)
    out: Bytes8 = codecs.zstd_decode(data, out=np.empty(full, np.uint8))
    return out


_DECODERS: Final[dict[int, Callable[[Buffer, int, int], Bytes8]]] = {
    1: _stored,
    5: _lzw,
    8: _deflate,
    32773: _packbits,
    32946: _deflate,
    34925: _lzma,
    50000: _zstd,
}

STREAM_CODECS: Final = frozenset(_DECODERS)
