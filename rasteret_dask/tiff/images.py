"""Tiles that are small images of their own: JPEG, WebP, JPEG XL, LERC, CCITT fax."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import TileReadError
from rasteret_dask.tiff.inflate import CODEC_ERRORS, Buffer, codecs
from rasteret_dask.tiff.model import TileLayout

Array = npt.NDArray[Any]
_CCITT: Final = (2, 3, 4)


def decode_image(data: Buffer, layout: TileLayout, *, need: int) -> Array:
    """Decode a whole tile.

    Parameters
    ----------
    data : bytes-like
        The bytes of the tile as stored.
    layout : TileLayout
        How it is stored.
    need : int
        Rows that must be there (a strip may hold fewer than ``layout.height``).

    Returns
    -------
    ndarray, shape (rows, width, samples)

    Raises
    ------
    TileReadError
        When the bytes do not decode, or to another shape or type than the header says.
    """
    try:
        image = _decode(data, layout, need)
    except CODEC_ERRORS as error:
        raise TileReadError(f"the bytes do not decode: {error}") from None
    if image.ndim == 2:
        image = image[:, :, None]
    rows_fit = image.shape[0] == layout.height or (
        layout.strips and need <= image.shape[0] <= layout.height
    )
    if not rows_fit or image.shape[1:] != (layout.width, layout.samples):
        wanted = (layout.height, layout.width, layout.samples)
        raise TileReadError(f"decodes to {image.shape} where {wanted} is expected")
    if image.dtype != layout.dtype:
        raise TileReadError(f"decodes to {image.dtype} where {layout.dtype} is expected")
    return image


def _decode(data: Buffer, layout: TileLayout, need: int) -> Array:
    image: Array
    if layout.compression == 7:
        return _jpeg(data, layout)
    if layout.compression == 34887:
        return _lerc(data, layout)
    if layout.compression == 50001:
        image = codecs.webp_decode(data, hasalpha=layout.samples == 4)
        return image
    if layout.compression in _CCITT:
        return _fax(data, layout, need)
    image = codecs.jpegxl_decode(data)
    return image


def _jpeg(data: Buffer, layout: TileLayout) -> Array:
    tables = layout.tables or None
    inside, outside = None, None
    if layout.samples == 3:
        # GDAL hands YCbCr out as RGB; RGB is stored as it is, whatever a JFIF marker says.
        inside, outside = ("YCBCR" if layout.photometric == 6 else "RGB"), "RGB"
    elif layout.samples == 4:
        inside, outside = "CMYK", "CMYK"  # four components without conversion
    image: Array = codecs.jpeg8_decode(
        bytes(data), tables=tables, colorspace=inside, outcolorspace=outside
    )
    return image


def _lerc(data: Buffer, layout: TileLayout) -> Array:
    inner = int(np.frombuffer(layout.tables, "<u4")[1]) if len(layout.tables) >= 8 else 0
    if inner == 1:
        data = codecs.zlib_decode(bytes(data))
    elif inner == 2:
        data = codecs.zstd_decode(bytes(data))
    elif inner != 0:
        raise TileReadError(f"LERC with the further compression {inner}")
    image, mask = codecs.lerc_decode(bytes(data), masks=True)
    return _apply_lerc_mask(image, mask, layout)


def _apply_lerc_mask(image: Array, mask: Array | None, layout: TileLayout) -> Array:
    """Put LERC's own validity mask where GDAL puts it: NaN for floats, the alpha band for bytes."""
    if mask is None:
        return image
    if image.dtype.kind == "f":
        image = image.copy()
        image[~mask.astype(bool).reshape(image.shape[:2])] = np.nan
    return image


def _fax(data: Buffer, layout: TileLayout, need: int) -> Array:
    if layout.fill_order == 2:
        data = codecs.bitorder_decode(bytes(data))
    size = {"height": need if layout.strips and need else layout.height, "width": layout.width}
    image: Array
    if layout.compression == 2:
        image = codecs.ccittrle_decode(bytes(data), **size)
    elif layout.compression == 3:
        options = int(np.frombuffer(layout.tables, "<u4")[0]) if layout.tables else 0
        image = codecs.ccittfax3_decode(bytes(data), t4options=options, **size)
    else:
        image = codecs.ccittfax4_decode(bytes(data), **size)
    return image
