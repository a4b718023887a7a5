"""Tiles that are small images of their own: JPEG, WebP, JPEG XL, LERC, CCITT fax."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rasteret_dask.errors import TileReadError
from rasteret_dask.tiff.inflate import CODEC_ERRORS, Buffer, codecs, decompress
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
        return _jpeg(bytes(data), layout)
    if layout.compression == 34887:
        return _lerc(bytes(data), layout)
    if layout.compression in _CCITT:
        return _fax(data, layout, need)
    if layout.compression == 50001:
        image = codecs.webp_decode(data, hasalpha=layout.samples == 4, out=_room(layout))
    else:
        image = codecs.jpegxl_decode(data, out=_room(layout))
    return image


def _room(layout: TileLayout) -> Array | None:
    """Return the array to decode into: codecs refuse an image of another size before decoding it.

    None for strips, the last of which may be shorter.
    """
    if layout.strips:
        return None
    shape: tuple[int, ...] = (layout.height, layout.width, layout.samples)
    return np.empty(shape if layout.samples > 1 else shape[:2], layout.dtype)


def _jpeg(data: bytes, layout: TileLayout) -> Array:
    rows, columns = jpeg_size(data)
    if rows > layout.height or columns != layout.width:
        raise TileReadError(f"a JPEG of {rows} x {columns} pixels")
    tables = layout.tables or None
    inside, outside = None, None
    if layout.samples == 3:
        # GDAL hands YCbCr out as RGB; RGB is stored as it is, whatever a JFIF marker says.
        inside, outside = ("YCBCR" if layout.photometric == 6 else "RGB"), "RGB"
    elif layout.samples == 4:
        inside, outside = "CMYK", "CMYK"  # four components without conversion
    image: Array = codecs.jpeg8_decode(
        data, tables=tables, colorspace=inside, outcolorspace=outside
    )
    return image


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return rows and columns of a JPEG from its start-of-frame marker.

    Raises
    ------
    ValueError
        When there is none.
    """
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    raise ValueError("no start of frame")


def _lerc(data: bytes, layout: TileLayout) -> Array:
    inner = int(np.frombuffer(layout.tables, "<u4")[1]) if len(layout.tables) >= 8 else 0
    if inner:
        # LERC never takes more than the pixels themselves and their mask.
        plain = layout.width * layout.height * layout.samples * np.dtype(layout.dtype).itemsize
        bound = 2 * plain + 65536
        code = {1: 8, 2: 50000}.get(inner)
        if code is None:
            raise TileReadError(f"LERC with the further compression {inner}")
        data = bytes(decompress(data, code, bound, bound, short=True))
    try:
        image, mask = codecs.lerc_decode(data, masks=True, out=_room(layout))
    except ValueError:
        # Of another size, and said before it was decoded. GDAL writes two kinds of tile in a shape of their own.
        room = _lerc_room(layout)
        if room is None:
            raise
        image, mask = codecs.lerc_decode(data, masks=True, out=room)
    return _as_gdal(image, mask, layout)


def _lerc_room(layout: TileLayout) -> Array | None:
    """Return the array for a blob without its alpha band, or of bands that are masked each by itself; None for other layouts."""
    size = (layout.height, layout.width)
    if layout.strips or layout.samples == 1:
        return None
    if np.dtype(layout.dtype).kind == "f":
        return np.empty((layout.samples, *size), layout.dtype)
    if not _alpha_is_mask(layout):
        return None
    return np.empty(size if layout.samples == 2 else (*size, layout.samples - 1), layout.dtype)


def _alpha_is_mask(layout: TileLayout) -> bool:
    """Whether libtiff makes LERC's mask of a tile's alpha when that is 0 or 255 everywhere."""
    return layout.dtype == "uint8" and layout.extra_samples[-1:] == (2,)


def _as_gdal(image: Array, mask: Array | None, layout: TileLayout) -> Array:
    """Make pixels that LERC calls invalid what libtiff makes them: NaN in floats, alpha 0 where alpha is kept as the mask."""
    if mask is not None and mask.ndim == 3:  # a band, a mask
        return np.moveaxis(np.where(mask, image, image.dtype.type(np.nan)), 0, -1)
    if image.dtype.kind == "f":
        if mask is not None:
            image = image.copy()
            image[~mask.astype(bool).reshape(image.shape[:2])] = np.nan
        return image
    colours = image if image.ndim == 3 else image[:, :, None]
    if _alpha_is_mask(layout) and colours.shape[2] == layout.samples - 1:
        alpha = np.full(image.shape[:2], True) if mask is None else mask
        image = np.dstack([colours, np.where(alpha, 255, 0).astype(image.dtype)])
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
