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
"""Below this share of a tile, stopping early is worth a streaming decoder of ZSTD."""

_DENSE: Final = 0.7
"""Compressed bytes of a tile as a share of its own: above it are mostly literals, which isal takes a quarter longer for than libdeflate;
below it they are equally quick, forty tiles of 1024² pixels in 0.16 s."""

_PIECE: Final = 32 * 1024
"""Compressed bytes that a streaming decoder is given at once: what comes out fits the cache, and never needs fresh pages of memory. 16 KiB
take 4 % longer with two threads, 256 KiB 10 %."""

_KEEP: Final = 16 * 1024 * 1024
"""Bytes of a part that :class:`Scratch` keeps at most."""


class Scratch:
    """Memory that one thread decodes into again and again.

    Fresh memory costs a page fault for every 4 KiB; in a Dask worker, whose ``MALLOC_TRIM_THRESHOLD_`` makes the allocator give everything
    back at once, that was a third of what decoding took.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[str, Bytes8] = {}

    def empty(self, part: str, size: int) -> Bytes8:
        """Return `size` bytes that hold anything; what was returned for the same part before is overwritten."""
        held = self._parts.get(part)
        if held is None or len(held) < size:
            held = np.empty(size, np.uint8)
            if size <= _KEEP:
                self._parts[part] = held
        return held[:size]


def decompress(
    data: Buffer,
    compression: int,
    full: int,
    need: int,
    *,
    skip: int = 0,
    short: bool = False,
    scratch: Scratch | None = None,
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
    skip : int
        Bytes at the start that nobody looks at; they may hold anything.
    short : bool
        Take fewer, too.
    scratch : Scratch, optional
        Where the bytes may go; the result is then good until the next tile.

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
        if compression == 1:
            out = np.frombuffer(data, np.uint8)[:full]
        else:
            out = np.empty(full, np.uint8) if scratch is None else scratch.empty("bytes", full)
            out = _DECODERS[compression](data, need, skip, out)
    except CODEC_ERRORS as error:
        raise TileReadError(f"the bytes do not decode: {error}") from None
    if len(out) < need and not short:
        raise TileReadError(f"decodes to {len(out)} bytes where {need} are needed")
    return out


def _deflate(data: Buffer, need: int, skip: int, out: Bytes8) -> Bytes8:
    full = len(out)
    if need < (0.8 if len(data) > _DENSE * full else 0.9) * full:
        return out[: _inflate(data, need, skip, out.data)]
    try:
        found: Bytes8 = codecs.deflate_decode(data, out=out)
        return found
    except imagecodecs.DeflateError:
        # libdeflate wants a whole stream that fits; zlib, as GDAL falls back to it, is content with
        # a missing checksum. One byte too many tells a tile that is too long from one that merely
        # lacks its end.
        loose = isal_zlib.decompressobj().decompress(data, full + 1)
    if len(loose) > full:
        raise TileReadError(f"decodes to more than the {full} bytes of a tile")
    return np.frombuffer(loose, np.uint8)


def _inflate(data: Buffer, need: int, skip: int, out: memoryview) -> int:
    """Inflate piece by piece until `need` bytes have come; those before `skip` are not kept. Return how many came, at most `need`."""
    stream, rest = isal_zlib.decompressobj(), memoryview(data)
    came = 0
    for start in range(0, len(rest), _PIECE):
        piece = memoryview(stream.decompress(rest[start : start + _PIECE]))
        first, last = max(came, skip), min(came + len(piece), need)
        if first < last:
            out[first:last] = piece[first - came : last - came]
        came += len(piece)
        if came >= need or stream.eof:
            break
    return min(came, need)


def _lzw(data: Buffer, need: int, skip: int, out: Bytes8) -> Bytes8:
    # The decoder stops when its output is full.
    found: Bytes8 = codecs.lzw_decode(data, out=out[:need])
    return found


def _packbits(data: Buffer, need: int, skip: int, out: Bytes8) -> Bytes8:
    found: Bytes8 = codecs.packbits_decode(data, out=out)
    return found


def _lzma(data: Buffer, need: int, skip: int, out: Bytes8) -> Bytes8:
    found: Bytes8 = codecs.lzma_decode(data, out=out[:need])
    return found


def _zstd(data: Buffer, need: int, skip: int, out: Bytes8) -> Bytes8:
    if need < _PARTIAL * len(out):
        stream = pa.CompressedInputStream(pa.BufferReader(pa.py_buffer(data)), "zstd")
        return out[: stream.readinto(out[:need])]
    found: Bytes8 = codecs.zstd_decode(data, out=out)
    return found


_DECODERS: Final[dict[int, Callable[[Buffer, int, int, Bytes8], Bytes8]]] = {
    5: _lzw,
    8: _deflate,
    32773: _packbits,
    32946: _deflate,
    34925: _lzma,
    50000: _zstd,
}

STREAM_CODECS: Final = frozenset((1, *_DECODERS))
