"""One tile's bytes to an array: the hot path of every read."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import TileReadError
from rasteret_dask.tiff.images import decode_image
from rasteret_dask.tiff.inflate import STREAM_CODECS, Buffer, Scratch, decompress
from rasteret_dask.tiff.model import TileLayout
from rasteret_dask.tiff.unpack import unpack_rows

Array = npt.NDArray[Any]
_NOBITREV = frozenset((2, 3, 4, 7))  # codecs to which libtiff hands the bits as they are


def decode_tile(
    data: Buffer,
    layout: TileLayout,
    *,
    rows: tuple[int, int] | None = None,
    cols: tuple[int, int] | None = None,
    scratch: Scratch | None = None,
    out: Array | None = None,
) -> Array:
    """Decode one tile, or the part of it that is wanted.

    Byte streams are inflated no further than the last row that is wanted (deflate, ZSTD, LZW,
    LZMA), and predictors are undone on the wanted part alone. The heavy parts release the GIL.

    Parameters
    ----------
    data : bytes-like
        The bytes of the tile as stored.
    layout : TileLayout
        How it is stored.
    rows, cols : (int, int), optional
        Half-open ranges within the tile; all of it when None. For the last strip of an image name
        the rows that it holds.
    scratch : Scratch, optional
        Memory of this thread to decode into; the result is then good until the next tile.
    out : ndarray, shape (rows, columns), optional
        Where the pixels are wanted in the end. They lie there if the result shares its memory, and else nothing does.

    Returns
    -------
    ndarray, shape (rows, columns, samples), of ``layout.dtype`` in native byte order
        May be a read-only view of ``data``, or a view of a larger buffer: copy it before writing or
        keeping it.

    Raises
    ------
    TileReadError
        When the bytes do not decode or decode to the wrong size. The caller adds where with
        ``.located``.
    """
    r0, r1 = rows if rows is not None else (0, layout.height)
    c0, c1 = cols if cols is not None else (0, layout.width)
    if not (0 <= r0 <= r1 <= layout.height and 0 <= c0 <= c1 <= layout.width):
        raise TileReadError(f"rows {r0}:{r1}, columns {c0}:{c1} are not within the tile")
    if r0 == r1 or c0 == c1:
        return np.empty((r1 - r0, c1 - c0, layout.samples), layout.dtype)
    if layout.fill_order == 2 and layout.compression not in _NOBITREV:
        data = imagecodecs.bitorder_decode(bytes(data))
    if layout.compression not in STREAM_CODECS:
        whole = decode_image(data, layout, need=r1 if rows is not None else 0)
        return whole[r0:r1, c0:c1]
    row_bytes = -(-layout.width * layout.samples * layout.bits // 8)
    full = row_bytes * layout.height
    if rows is None and layout.strips:
        # The last strip may be short: as many whole rows as there are.
        raw = decompress(data, layout.compression, full, full, short=True, scratch=scratch)
        r1 = len(raw) // row_bytes
        if r1 == 0:
            raise TileReadError(f"decodes to {len(raw)} bytes, less than one row")
    else:
        raw = decompress(
            data, layout.compression, full, row_bytes * r1, skip=row_bytes * r0, scratch=scratch
        )
    return unpack_rows(
        raw[row_bytes * r0 : row_bytes * r1], layout, r1 - r0, (c0, c1), scratch, out
    )
